"""The public parts of the package that a study uses, read from its source.

Names that the module of a study imports from the package, attributes of the modules that it
imports, and parts that it gives to an experiment by name (`sampler="pooled"`). The private modules
of its system from which it imports are read as well. Nothing is run.
"""

from __future__ import annotations

import ast
import functools
import importlib
import inspect
from collections.abc import Iterator, Mapping
from pathlib import Path

import causal_sgd
from causal_sgd import studies
from causal_sgd.studies.reproduction._settings import settings_of

import _reference  # isort: skip  (of this folder)

__all__ = ["parts_of"]

ROOMS = {  # the field of an experiment -> the room of the parts that it names
    "algorithm": "algorithms",
    "estimator": "estimators",
    "family": "worlds",
    "loss": "losses",
    "measurement": "measurements",
    "method": "objectives",
    "metrics": "metrics",
    "model": "models",
    "objective": "objectives",
    "optimizer": "optimizers",
    "sampler": "samplers",
    "world": "worlds",
}


PLAIN = ("causal_sgd.studies.", "causal_sgd.types.")  # in every study, and no parts


def parts_of(name: str) -> dict[str, list[str]]:
    """The documented functions and classes that a study uses.

    Args:
        name: of the study.

    Returns:
        The dotted path of a module below causal_sgd -> the full paths of its parts.
    """
    study = studies.load(name)
    system = studies.system_of(name)
    paths: set[str] = set()
    for file in _sources(Path(inspect.getfile(study)), system):  # pyright: ignore[reportArgumentType]
        paths |= _used(file, system)
    for settings in settings_of(study):
        for field, value in settings.values.items():
            if field in ROOMS:
                values = value if isinstance(value, tuple) else (value,)
                paths |= {path for each in values for path in _part(ROOMS[field], each, system)}
    paths = {path for path in paths if not path.startswith(PLAIN)}
    grouped: dict[str, list[str]] = {}
    for path in sorted(paths, key=_order().__getitem__):
        module = path.removeprefix("causal_sgd.").rpartition(".")[0]
        grouped.setdefault(module, []).append(path)
    return grouped


@functools.cache
def _documented() -> Mapping[int, str]:
    return _reference.documented()


@functools.cache
def _order() -> Mapping[str, int]:
    """The place in the reference of each path."""
    return {path: place for place, path in enumerate(_documented().values())}


@functools.cache  # studies share private modules
def _used(file: Path, system: str) -> frozenset[str]:
    """The paths of the parts that one file uses."""
    tree = ast.parse(file.read_text("utf-8"))
    paths = {_documented()[id(it)] for it in _imported(tree) if id(it) in _documented()}
    return frozenset(paths | set(_named(tree, system)))


def _sources(file: Path, system: str) -> set[Path]:
    """A module and the private modules of its system that it imports, at any depth."""
    waiting, seen = [file], {file}
    while waiting:
        new = _private(waiting.pop(), system) - seen
        seen |= new
        waiting += new
    return seen


@functools.cache
def _private(file: Path, system: str) -> frozenset[Path]:
    """The private modules of its system that a file imports."""
    stems = set()
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        module = (node.module or "") if isinstance(node, ast.ImportFrom) else ""
        if isinstance(node, ast.ImportFrom) and module.startswith(f"causal_sgd.studies.{system}"):
            stems |= {module.rpartition(".")[2], *(alias.name for alias in node.names)}
    paths = {file.parent / f"{stem}.py" for stem in stems if stem.startswith("_")}
    return frozenset(path for path in paths if path.exists())


def _imported(tree: ast.Module) -> Iterator[object]:
    """The objects of the package that a module imports, or takes from a module it imports."""
    for node in ast.walk(tree):  # not for type checkers: such code makes no use of them
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            node.body = []
    bound: dict[str, object] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name == "causal_sgd":
                    bound[alias.asname or alias.name] = causal_sgd
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("causal_sgd"):
            module = importlib.import_module(node.module or "")
            for alias in node.names:
                bound[alias.asname or alias.name] = _attribute(module, alias.name)
    yield from bound.values()
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            first, *rest = ast.unparse(node).split(".")
            if first in bound and all(map(str.isidentifier, rest)):
                yield functools.reduce(_attribute, rest, bound[first])


def _attribute(thing: object, name: str) -> object:
    """An attribute or a submodule; None where there is none."""
    if inspect.ismodule(thing) and not hasattr(thing, name):
        try:
            return importlib.import_module(f"{thing.__name__}.{name}")
        except ImportError:
            return None
    return getattr(thing, name, None) if inspect.ismodule(thing) else None


def _named(tree: ast.Module, system: str) -> Iterator[str]:
    """The paths of the parts that arguments and entries name: `sampler="pooled"`."""
    for node in ast.walk(tree):
        pairs: list[tuple[str | None, ast.expr]] = []
        if isinstance(node, ast.Call):
            pairs = [(keyword.arg, keyword.value) for keyword in node.keywords]
        elif isinstance(node, ast.Dict):
            keys = [key.value if isinstance(key, ast.Constant) else None for key in node.keys]
            pairs = [(str(key), value) for key, value in zip(keys, node.values, strict=True)]
        for field, value in pairs:
            if field in ROOMS:
                for each in ast.walk(value):
                    if isinstance(each, ast.Constant):
                        yield from _part(ROOMS[field], each.value, system)


def _part(room: str, name: object, system: str) -> Iterator[str]:
    """The path of a part of the system, or of a room that systems share."""
    for place in (f"causal_sgd.{system}.{room}", f"causal_sgd.{room}"):
        path = f"{place}.{str(name).replace('-', '_')}"
        if path in _order():
            yield path
