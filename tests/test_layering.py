"""Imports point only downward from floor to floor, and modules stay short enough to read."""

from __future__ import annotations

import ast
import graphlib
import importlib
import pkgutil
from pathlib import Path

import pytest

import causal_sgd

PACKAGE = Path(causal_sgd.__file__).parent
# From the top down. A floor may import every floor below it and nothing else of the package; two
# names of one floor do not import each other.
FLOORS = (
    {"__main__"},
    {"cli"},
    {"studies"},
    {"experiment"},
    {"sweeps"},
    {"figures"},
    {"analysis"},
    {"training", "theory"},
    {"sensing", "supervised"},
    {"random"},
    {"linalg"},
    {"types"},
    {"checks"},
)
OWN = {"_attach", "_room"}  # of the package itself: how all rooms show their names
FLOOR = {name: depth for depth, names in enumerate(FLOORS) for name in names}
# Narrower than the floor allows: theory knows nothing of simulation, and what draws knows no sweep.
ALLOWED = {
    "theory": {"linalg", "types", "checks"},
    "training": {"random", "linalg", "types", "checks"},
    "analysis": {"types", "checks"},
    "figures": {"analysis", "types", "checks"},
    "sweeps": {"figures", "analysis", "random", "types", "checks"},
}
WITHOUT_JAX = ("checks", "analysis", "figures", "sweeps/_grid", "sweeps/_datasets", "sweeps/store")
MOST_NAMES = 14
LONGEST = 450
MODULES = sorted(PACKAGE.rglob("*.py"))
TESTS_FOLDER = Path(__file__).parent
TESTS = sorted(TESTS_FOLDER.rglob("test_*.py"))


def floor_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(tree: ast.AST, *, at_import_only: bool = False) -> set[str]:
    """Dotted names that a module imports, also inside functions and for the type checker."""
    names: set[str] = set()

    def walk(node: ast.AST) -> None:
        if at_import_only and (
            isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) or is_for_type_checkers(node)
        ):
            return
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
        for child in ast.iter_child_nodes(node):
            walk(child)

    walk(tree)
    return names


def is_for_type_checkers(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"


def floors_imported(path: Path) -> set[str]:
    """The floors that a module imports; public names count as their floor."""
    parts = [name.split(".") for name in imports(ast.parse(path.read_text()))]
    return {
        part[1] if part[1] in FLOOR else HOMES.get(part[1], part[1])
        for part in parts
        if part[0] == PACKAGE.name and len(part) > 1
    }


def face() -> dict[str, str]:
    """Public name of the package -> floor, from the stub."""
    homes = {}
    for node in ast.parse((PACKAGE / "__init__.pyi").read_text()).body:
        if isinstance(node, ast.ImportFrom):
            homes |= {alias.name: (node.module or alias.name).split(".")[0] for alias in node.names}
    return homes


HOMES = face()


def test_every_module_is_on_a_floor_and_few_names_stand_side_by_side() -> None:
    names = {floor_of(path) for path in MODULES} - {"__init__"}
    assert names == set(FLOOR), "give each name a floor in FLOORS"
    assert len(names - {"__main__"}) <= MOST_NAMES


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_only_downward(path: Path) -> None:
    floor = floor_of(path)
    if floor == "__init__":
        assert not floors_imported(path), "the package loads its floors on first use"
        return
    below = {name for name in FLOOR if FLOOR[name] > FLOOR[floor]}
    above = floors_imported(path) - ALLOWED.get(floor, below) - {floor, *OWN}
    assert not above, f"{floor} must not import {above}"


def test_modules_import_each_other_in_no_circle() -> None:
    names = {".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts) for path in MODULES}
    names = {name.removesuffix(".__init__") for name in names}
    graph: dict[str, set[str]] = {}
    for path in MODULES:
        module = ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts)
        module = module.removesuffix(".__init__")
        imported = {longest(name, names) for name in imports(ast.parse(path.read_text()))}
        # A module may use the public names of the package that it is in.
        graph[module] = {
            name for name in imported - {""} if not f"{module}.".startswith(f"{name}.")
        }
    graphlib.TopologicalSorter(graph).prepare()  # CycleError names the circle


def longest(dotted: str, modules: set[str]) -> str:
    """The module that a dotted name is or comes from; "" for other packages."""
    while dotted and dotted not in modules:
        dotted = dotted.rpartition(".")[0]
    return dotted


def test_the_test_sees_arrows_inside_functions_and_for_the_type_checker() -> None:
    source = "if TYPE_CHECKING:\n    import a\ndef f():\n    from b import c\n"
    assert imports(ast.parse(source)) == {"a", "b.c"}
    assert imports(ast.parse(source), at_import_only=True) == set()


def modules_of(place: str) -> list[Path]:
    path = PACKAGE / place
    return sorted(path.rglob("*.py")) if path.is_dir() else [path.with_suffix(".py")]


def file_of(dotted: str) -> list[Path]:
    """The files that importing a dotted name of the package runs."""
    parts = dotted.split(".")[1:]
    files = []
    for end in range(1, len(parts) + 1):
        path = PACKAGE.joinpath(*parts[:end])
        files += [file for file in (path / "__init__.py", path.with_suffix(".py")) if file.exists()]
    return files


@pytest.mark.parametrize("place", WITHOUT_JAX)
def test_some_places_import_no_jax_even_through_others(place: str) -> None:
    seen: set[Path] = set()
    waiting = set(modules_of(place))
    while waiting:
        path = waiting.pop()
        seen.add(path)
        names = imports(ast.parse(path.read_text()), at_import_only=True)
        foreign = {name.split(".")[0] for name in names}
        assert not foreign & {"jax", "jaxlib", "optax", "chex"}, f"{place} imports jax in {path}"
        own = [name for name in names if name.split(".")[0] == PACKAGE.name]
        waiting |= {file for name in own for file in file_of(name)} - seen


@pytest.mark.parametrize("floor", ["sensing", "training"])
def test_nothing_below_the_sweep_compiles(floor: str) -> None:
    # `theory` is called from Python and compiles its own loops; `random` shares its rounds; a step
    # by hand, outside of any trace, has no sweep above it (`test_by_hand.py`)
    for path in set(modules_of(floor)) - {PACKAGE / "training" / "algorithms" / "_by_hand.py"}:
        tree = ast.parse(path.read_text())
        calls = {ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
        assert "jax.jit" not in calls, path.name


def test_no_public_module_is_shadowed_by_another_object_of_its_name() -> None:
    shadowed = []
    for info in pkgutil.walk_packages(causal_sgd.__path__, f"{PACKAGE.name}."):
        package, _, name = info.name.rpartition(".")
        if name.startswith("_"):
            continue
        module = importlib.import_module(info.name)
        if getattr(importlib.import_module(package), name) is not module:
            shadowed.append(info.name)
    assert not shadowed, "rename the module to _name.py, or its object"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_modules_are_short_and_named_for_what_they_hold(path: Path) -> None:
    assert path.stem not in {"utils", "util", "helpers", "common", "misc"}
    assert len(path.read_text().splitlines()) < LONGEST


@pytest.mark.parametrize("path", TESTS, ids=lambda path: str(path.relative_to(TESTS_FOLDER)))
def test_no_test_module_imports_another(path: Path) -> None:
    names = {name.split(".")[0] for name in imports(ast.parse(path.read_text()))}
    shared = names & ({test.stem for test in TESTS} | {"conftest", "tests"})
    assert not shared, "what tests share belongs in tests/support"
