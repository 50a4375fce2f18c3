"""Imports between the rooms point only downward, and rooms stay of a size that one reads."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import causal_sgd

PACKAGE = Path(causal_sgd.__file__).parent
# From the ground up: a room may import those below it. Rooms of one floor import none of each other.
FLOORS = (
    {"types", "checks"},
    {"draws", "linalg"},
    {"worlds", "evolutions", "samplers", "measurements", "models", "metrics", "optimizers"},
    {"theory"},
    {"algorithms"},
    {"simulate"},
    {"grids", "machine", "progress"},
    {"relocation"},
    {"results", "kernels"},
    {"plots"},
    {"datasets"},
    {"executors", "store"},
    {"dispatch", "sinks"},
    {"sweeps"},
    {"phase", "intermittency"},
    {"methods"},
    {"experiment"},
    {"explorer"},
    {"studies"},
    {"doctor"},
    {"reproduction"},
    {"cli"},
    {"__main__"},
)
FLOOR = {room: height for height, rooms in enumerate(FLOORS) for room in rooms}
GROUND = {"types", "checks"}
# Narrower than their floor allows.
ALLOWED = {
    "checks": set(),
    "types": set(),
    "draws": GROUND,
    "linalg": GROUND,
    "theory": GROUND,
    "grids": GROUND,
    "intermittency": GROUND,
    "machine": GROUND,
    "relocation": GROUND | {"machine"},
    "progress": set(),
    "results": GROUND,
    "datasets": GROUND | {"grids", "results", "plots"},
    "store": GROUND | {"grids", "results", "datasets"},
    "plots": GROUND | {"results"},
    "explorer": GROUND | {"results", "plots"},
}
WITHOUT_JAX = {"checks", "grids", "intermittency", "results", "store", "plots", "explorer"}
LONGEST = 450
MODULES = sorted(PACKAGE.rglob("*.py"))


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def is_for_types_only(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")


def imports(path: Path, *, only_at_import: bool = False) -> set[str]:
    """Dotted names of all that a module imports; those for the type checker aside."""
    found: set[str] = set()

    def walk(node: ast.AST) -> None:
        if is_for_types_only(node) or (only_at_import and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)):
            return
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
        for child in ast.iter_child_nodes(node):
            walk(child)

    walk(ast.parse(path.read_text()))
    return found


def rooms(names: set[str]) -> set[str]:
    """The rooms among imported names; the package itself (for its version) is none."""
    parts = (name.split(".") for name in names)
    return {part[1] for part in parts if part[0] == "causal_sgd" and len(part) > 1}


def modules(room: str) -> list[Path]:
    return [path for path in MODULES if room_of(path) == room]


def test_every_module_belongs_to_a_known_room() -> None:
    unknown = {room_of(path) for path in MODULES} - set(FLOOR) - {"__init__"}
    assert not unknown, f"give {unknown} a floor in FLOORS"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_only_downward(path: Path) -> None:
    room = room_of(path)
    if room == "__init__":
        assert not rooms(imports(path)), "the package loads its rooms lazily"
        return
    allowed = ALLOWED.get(room, {below for below in FLOOR if FLOOR[below] < FLOOR[room]})
    above = rooms(imports(path)) - allowed - {room}
    assert not above, f"{room} must not import {above}"


@pytest.mark.parametrize("room", sorted(WITHOUT_JAX))
def test_some_rooms_import_no_jax_even_through_others(room: str) -> None:
    seen, waiting = set(), {room}
    while waiting:
        current = waiting.pop()
        seen.add(current)
        for path in modules(current):
            names = imports(path, only_at_import=True)
            foreign = {name.split(".")[0] for name in names}
            assert not foreign & {"jax", "jaxlib", "optax", "chex"}, f"{room} imports jax through {path.name}"
            waiting |= rooms(names) - seen


def test_rooms_below_the_sweep_do_not_map_over_runs_or_compile() -> None:
    # `theory` is called from Python and compiles its own loops; everything else is compiled by the sweep alone
    for path in MODULES:
        if room_of(path) in {
            "worlds",
            "evolutions",
            "samplers",
            "measurements",
            "models",
            "metrics",
            "optimizers",
            "algorithms",
            "simulate",
        }:
            calls = {
                ast.unparse(node.func) for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)
            }
            assert "jax.jit" not in calls, path.name


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_modules_are_short_and_named_for_what_they_hold(path: Path) -> None:
    assert path.stem not in {"utils", "util", "helpers", "common", "misc"}
    assert len(path.read_text().splitlines()) < LONGEST
