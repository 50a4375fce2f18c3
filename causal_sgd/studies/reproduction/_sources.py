"""What a study's results depend on, told from the source: when it changes, results that are kept are stale.

Followed are the names that a function reaches in its module and, from there, whole modules of this package that are
imported, in functions too. Docstrings, comments and what is for the type checker alone do not count, nor do figures and
claims, unless the function reaches them. Other packages count by their versions, which the caller adds.
"""

from __future__ import annotations

import ast
import functools
import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import causal_sgd

__all__ = ["fingerprint"]

PACKAGE = Path(causal_sgd.__file__).parent


def fingerprint(path: Path, function: str) -> str:
    """A short hash of all source in this package that a function of a module can reach.

    Args:
        path: of the module.
        function: its name there.

    Returns:
        16 hexadecimal digits.

    Raises:
        ValueError: if the module does not define the function.
    """
    parsed = _parse(path)
    if function not in parsed.definitions:
        raise ValueError(
            f"{path.name} must define {function!r}, got {', '.join(parsed.definitions) or 'nothing'}"
        )
    reached = _reached(parsed.definitions, function, parsed.effects)
    texts = [
        ast.unparse(node) for node in reached if not isinstance(node, ast.Import | ast.ImportFrom)
    ]
    modules = _closure(_imported(reached))
    whole = [
        f"{module.relative_to(PACKAGE).as_posix()}\n{_parse(module).text}"
        for module in sorted(modules - {path})
    ]
    return hashlib.sha256("\n".join([*texts, *whole]).encode()).hexdigest()[:16]


class _Parsed:
    """A module without docstrings and what is for the type checker."""

    def __init__(self, tree: ast.Module) -> None:
        self.body = [node for node in tree.body if not _is_for_types_only(node)]
        self.definitions: dict[str, list[ast.stmt]] = {}
        self.effects: list[ast.stmt] = []  # what runs at import and defines nothing
        for node in self.body:
            names = set(_defined(node))
            for name in names:
                self.definitions.setdefault(name, []).append(node)
            if not names:
                self.effects.append(node)

    @functools.cached_property
    def text(self) -> str:
        return "\n".join(map(ast.unparse, self.body))

    @functools.cached_property
    def imports(self) -> frozenset[Path]:
        return frozenset(_imported(self.body))


def _parse(path: Path) -> _Parsed:
    return _parsed(path, path.stat().st_mtime_ns)


@functools.lru_cache(maxsize=512)
def _parsed(path: Path, _: int) -> _Parsed:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            body = [line for line in node.body if not _is_text(line)]
            node.body = body or [ast.Pass()]  # pyright: ignore[reportAttributeAccessIssue]
    return _Parsed(tree)


def _is_text(node: ast.AST) -> bool:
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )


def _is_for_types_only(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) in (
        "TYPE_CHECKING",
        "typing.TYPE_CHECKING",
    )


def _defined(node: ast.stmt) -> Iterator[str]:
    """The names that a statement of a module gives a meaning, or changes."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        yield node.name
    elif isinstance(node, ast.Import | ast.ImportFrom):
        for alias in node.names:
            yield (alias.asname or alias.name).partition(".")[0]
    elif isinstance(node, ast.Assign | ast.AnnAssign | ast.AugAssign):
        for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
            for part in ast.walk(target):
                if isinstance(part, ast.Name):
                    yield part.id


def _reached(
    definitions: Mapping[str, list[ast.stmt]], name: str, effects: Iterable[ast.stmt]
) -> list[ast.stmt]:
    """The statements that a name needs, directly or not, in the order in which they are found."""
    found: dict[ast.stmt, None] = dict.fromkeys([*definitions[name], *effects])
    waiting = list(found)
    while waiting:
        for part in ast.walk(waiting.pop()):
            if isinstance(part, ast.Name):
                new = [node for node in definitions.get(part.id, ()) if node not in found]
                found |= dict.fromkeys(new)
                waiting += new
    return sorted(found, key=lambda node: node.lineno)


def _imported(nodes: Sequence[ast.stmt]) -> Iterator[Path]:
    """The modules of this package that statements import, at any depth."""
    parts = [part for node in nodes for part in ast.walk(node)]
    packages = set()  # what this package itself is called here
    for part in parts:
        if isinstance(part, ast.Import):
            for alias in part.names:
                yield from _modules(alias.name)
                if alias.name == PACKAGE.name or (
                    alias.name.startswith(f"{PACKAGE.name}.") and not alias.asname
                ):
                    packages.add(alias.asname or PACKAGE.name)
        elif isinstance(part, ast.ImportFrom) and part.module:
            for alias in part.names:
                yield from _modules(part.module, alias.name)
    for part in parts:
        if (
            isinstance(part, ast.Attribute)
            and isinstance(part.value, ast.Name)
            and part.value.id in packages
        ):
            yield from _modules(PACKAGE.name, part.attr)


def _modules(module: str, name: str | None = None) -> Iterator[Path]:
    """The file of a module, or of the module that its `name` is or comes from."""
    first, *rest = module.split(".")
    if first != PACKAGE.name:
        return
    if name is None:
        found = _file(PACKAGE.joinpath(*rest))
    else:
        place = _stub(PACKAGE.joinpath(*rest)).get(name, (*rest, name))
        found = _file(PACKAGE.joinpath(*place)) or _file(PACKAGE.joinpath(*place[:-1]))
    if found is None:
        return
    yield found
    if found.name == "__init__.py" and found.parent not in (PACKAGE, PACKAGE / "figures"):
        # A lazy package may be used as a whole. Only figures cannot change a result.
        for place in _stub(found.parent).values():
            inner = _file(PACKAGE.joinpath(*place)) or _file(PACKAGE.joinpath(*place[:-1]))
            if inner is not None:
                yield inner


@functools.cache
def _stub(package: Path) -> Mapping[str, tuple[str, ...]]:
    """Where the names that a lazy package offers are defined, as paths below this package."""
    stub = package / "__init__.pyi"
    if not stub.exists():
        return {}
    own = package.relative_to(PACKAGE).parts
    places: dict[str, tuple[str, ...]] = {}
    for node in ast.parse(stub.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ImportFrom):
            inner = node.module.split(".") if node.module else []
            for alias in node.names:
                place = (*own, *inner, alias.name)
                places[alias.name] = (
                    _stub(PACKAGE.joinpath(*place[:-1])).get(alias.name, place) if inner else place
                )
    return places


def _file(path: Path) -> Path | None:
    for candidate in (path.with_suffix(".py"), path / "__init__.py"):
        if candidate.exists():
            return candidate
    return None


def _closure(modules: Iterable[Path]) -> set[Path]:
    seen: set[Path] = set()
    waiting = set(modules)
    while waiting:
        module = waiting.pop()
        seen.add(module)
        waiting |= _parse(module).imports - seen
    return seen
