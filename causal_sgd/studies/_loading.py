"""The module of a study, checked and imported anew, with other constants; errors in one line."""

from __future__ import annotations

import ast
import contextlib
import functools
import hashlib
import inspect
import traceback
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, cast

from causal_sgd.studies import Claim, Study
from causal_sgd.studies._apart import Apart, Change, assigned
from causal_sgd.studies._constants import changed, find, homes, shown
from causal_sgd.studies._imports import Module, Territory, parsed

__all__ = ["Loaded", "last_line", "load", "stamp"]

PARTS = ("CLAIMS", "run", "measure", "figure")
GUIDE = "docs/extending/studies.md"


class Loaded(NamedTuple):
    """The module of a study that was imported."""

    study: Study
    defaults: Mapping[str, object]
    """Of the constants that were set."""
    stamps: Mapping[Path, str]
    """The files of the study, with digests of what they held."""


def stamp(file: Path) -> str:
    """A digest of what a file holds; empty where it is gone."""
    return hashlib.sha256(file.read_bytes()).hexdigest() if file.is_file() else ""


def load(module: Module, around: Territory, word: str, constants: Mapping[str, object]) -> Loaded:
    """Import the module of a study anew.

    Args:
        module: where it is.
        around: its local modules, which are imported anew with it.
        word: what selects it, for messages.
        constants: new values, or texts, by name.

    Raises:
        ValueError: if it is no study, cannot be imported, or refuses a constant.
    """
    old: dict[str, object] = {}
    refused: list[ValueError] = []

    def change(setting: str, name: str, value: object) -> object:
        try:
            new = changed(setting, constants[setting], value)
        except ValueError as error:
            refused.append(error)
            raise
        old[setting] = getattr(value, setting.partition(".")[2]) if "." in setting else value
        return new

    with _importing(word, module.file):
        tree = parsed(module.file)
    _check_source(tree, word)
    with _importing(word, module.file):
        files = {module.name: module.file, **around.closure([tree], module)}
        places = homes(module, around)
    stamps = {file: stamp(file) for file in files.values()}
    if around.package == module.package:
        files.pop(module.package, None)  # the package around a built-in study stays as it is
    changes: dict[str, dict[str, Change]] = {}
    for setting in constants:
        name = find(list(places), setting, word)
        own = changes.setdefault(places[name].name, {})
        own[name] = _after(own.get(name), functools.partial(change, setting))
    folder = around.folder if not around.package else None
    try:
        given = ", ".join(f"{name}={shown(value)}" for name, value in constants.items())
        with _importing(f"{word} with {given}" if given else word, *files.values()):
            loaded = Apart(files, folder=folder, changes=changes).load(module.name)
    except ValueError:
        if refused:
            raise refused[0] from None
        raise
    study = cast(Study, loaded)
    _check_forms(study, word)
    return Loaded(study, old, stamps)


@contextlib.contextmanager
def _importing(word: str, *files: Path) -> Iterator[None]:
    """Turn any error of a user's module into one line with its place."""
    try:
        yield
    except (Exception, SystemExit) as error:
        raise ValueError(f"{word} cannot be imported: {last_line(error, files)}") from error


def _check_source(tree: ast.Module, word: str) -> None:
    """Raise ValueError if a module does not define what a study has; it is not run for that."""
    names = {name for node in tree.body for name in assigned(node)}
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names |= {alias.asname or alias.name for alias in node.names}
    missing = [name for name in PARTS if name not in names]
    if missing and "*" not in names:
        listed = " and ".join(", ".join(missing).rsplit(", ", 1))
        raise ValueError(f"{word} must define {listed} to be a study (see {GUIDE})")


def _after(first: Change | None, second: Change) -> Change:
    """One change after another of the same constant, such as of two fields."""
    if first is None:
        return second
    return lambda name, value: second(name, first(name, value))


def _check_forms(study: Study, word: str) -> None:
    """Raise ValueError if what a study defines is of another form."""
    claims = study.CLAIMS
    if not (isinstance(claims, Mapping) and all(isinstance(c, Claim) for c in claims.values())):
        raise ValueError(f"CLAIMS of {word} must be a dict of studies.Claim by name (see {GUIDE})")
    for name, options in (("run", ("quick", "key", "progress")), ("measure", ()), ("figure", ())):
        arguments = () if options else ({},)
        try:
            inspect.signature(getattr(study, name)).bind(*arguments, **dict.fromkeys(options))
        except TypeError:
            form = "(*, quick, key, progress)" if options else "(data)"
            raise ValueError(
                f"{name} of {word} must be called as {name}{form} (see {GUIDE})"
            ) from None


def last_line(error: BaseException, files: Sequence[Path]) -> str:
    """The last line of a traceback, with the place in the files of a study."""
    text = traceback.format_exception_only(error)[-1].strip()
    if isinstance(error, SyntaxError) and error.filename:
        return f"{text} ({Path(error.filename).name}, line {error.lineno})"
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if Path(frame.filename) in files]
    if not own:
        return text
    return f"{text} ({Path(own[-1].filename).name}, line {own[-1].lineno})"
