"""The source on which a study's results depend: a change of it makes saved results stale.

Starting from a function, its module is followed by name, and from there whole modules of this
package by import, imports inside functions included. Docstrings, comments and code for type
checkers do not count. Figures and claims count only if the function reaches them: `figures` is
followed from the function alone, not from other modules, which only draw with it. Modules beside a
study of one's own count as those of this package do. Other packages count by their versions, which
the caller adds.
"""

from __future__ import annotations

import ast
import functools
import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import causal_sgd
from causal_sgd.studies._imports import Module, Territory

__all__ = ["fingerprint"]

PACKAGE = Path(causal_sgd.__file__).parent


def fingerprint(
    path: Path, function: str, *, name: str = "", territory: Territory | None = None
) -> str:
    """A short hash of all source in this package that a function can reach.

    Args:
        path: the module that defines the function.
        function: name of the function.
        name: of the module, if it is not of this package.
        territory: its local modules, which count like those of this package.

    Returns:
        16 hexadecimal digits.

    Raises:
        ValueError: if the module does not define the function.
    """
    parsed = _parse(path)
    if function not in parsed.definitions:
        names = ", ".join(parsed.definitions) or "nothing"
        raise ValueError(f"{path.name} must define {function!r}, got {names}")
    reached = _reached(parsed.definitions, function, parsed.effects)
    texts = [
        ast.unparse(node) for node in reached if not isinstance(node, ast.Import | ast.ImportFrom)
    ]
    local = territory.closure(reached, Module(name, path)) if territory is not None else {}
    imported = [set(_imported(reached)), *(_parse(file).imports for file in local.values())]
    modules = _closure(set().union(*imported))
    whole = [
        f"{module.relative_to(PACKAGE).as_posix()}\n{_parse(module).text}"
        for module in sorted(modules - {path})
    ]
    whole += [f"{module}\n{_parse(file).text}" for module, file in sorted(local.items())]
    return hashlib.sha256("\n".join([*texts, *whole]).encode()).hexdigest()[:16]


class _Parsed:
    """A module without docstrings and without code for type checkers."""

    def __init__(self, tree: ast.Module) -> None:
        self.body = [node for node in tree.body if not _is_for_types_only(node)]
        self.definitions: dict[str, list[ast.stmt]] = {}
        self.effects: list[ast.stmt] = []  # statements that define nothing but run at import
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
    """The names that a statement of a module defines or changes."""
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
    """The statements that a name needs, directly or indirectly, in the order of the module."""
    reached: dict[ast.stmt, None] = dict.fromkeys([*definitions[name], *effects])
    waiting = list(reached)
    while waiting:
        for part in ast.walk(waiting.pop()):
            if isinstance(part, ast.Name):
                new = [node for node in definitions.get(part.id, ()) if node not in reached]
                reached |= dict.fromkeys(new)
                waiting += new
    return sorted(reached, key=lambda node: node.lineno)


def _imported(nodes: Sequence[ast.stmt]) -> Iterator[Path]:
    """The modules of this package that statements import, at any depth."""
    parts = [part for node in nodes for part in ast.walk(node)]
    packages = set()  # the names of this package itself in these statements
    for part in parts:
        if isinstance(part, ast.Import):
            for alias in part.names:
                yield from _modules(alias.name)
                inner = alias.name.startswith(f"{PACKAGE.name}.")
                if alias.name == PACKAGE.name or (inner and not alias.asname):
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
    """The file of a module, or of the module that is, or defines, its `name`.

    A lazy package is followed to all modules of its stub, as it may be used as a whole.
    """
    first, *rest = module.split(".")
    if first != PACKAGE.name:
        return
    place = tuple(rest)
    if name is not None:
        place = _stub(PACKAGE.joinpath(*rest)).get(name, (*rest, name))
    file = _home(place)
    if file is None:
        return
    yield file
    if file.name == "__init__.py" and file.parent != PACKAGE:
        yield from filter(None, map(_home, _stub(file.parent).values()))


@functools.cache
def _stub(package: Path) -> Mapping[str, tuple[str, ...]]:
    """Where a lazy package defines the names that it offers, as paths below this package."""
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
                if inner:  # the module may be a lazy package itself
                    place = _stub(PACKAGE.joinpath(*place[:-1])).get(alias.name, place)
                places[alias.name] = place
    return places


def _home(place: tuple[str, ...]) -> Path | None:
    """The file of the module at a path below this package, or of the module that defines it."""
    return _file(PACKAGE.joinpath(*place)) or _file(PACKAGE.joinpath(*place[:-1]))


def _file(path: Path) -> Path | None:
    for candidate in (path.with_suffix(".py"), path / "__init__.py"):
        if candidate.exists():
            return candidate
    return None


def _closure(modules: Iterable[Path]) -> set[Path]:
    """The modules and all that they import, directly or indirectly, except to draw."""
    seen: set[Path] = set()
    waiting = set(modules)
    while waiting:
        module = waiting.pop()
        seen.add(module)
        new = _parse(module).imports - seen
        waiting |= new if _draws(module) else {path for path in new if not _draws(path)}
    return seen


def _draws(module: Path) -> bool:
    return PACKAGE / "figures" in module.parents
