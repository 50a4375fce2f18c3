"""The constants of a study: their values, what they mean, and other values for them."""

from __future__ import annotations

import ast
import dataclasses
import difflib
import itertools
import tokenize
from collections.abc import Iterator, Mapping, Sequence
from tokenize import COMMENT
from typing import Any, NamedTuple, cast

import numpy as np

from causal_sgd.experiment._base import BaseExperiment
from causal_sgd.studies import Study
from causal_sgd.studies._apart import assigned
from causal_sgd.studies._imports import Module, Territory, origin, parsed

__all__ = ["Constant", "brief", "changed", "constants_of", "find", "homes", "shown"]

RESERVED = ("CLAIMS", "REQUIRES")
SCALARS = (bool, int, float, str)
NAMES = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}
MOST_LISTED = 12


class Constant(NamedTuple):
    """A constant of a study, or a field of an experiment among them, that may be set."""

    name: str
    value: object
    meaning: str  # its comment in the source; empty where there is none


def homes(module: Module, territory: Territory) -> dict[str, Module]:
    """The constants of a study, each with the local module that assigns it."""
    found: dict[str, Module] = {}
    for node in parsed(module.file).body:
        names = dict.fromkeys(sorted(assigned(node)), module)
        if isinstance(node, ast.ImportFrom):
            source = territory.find(origin(node, module))
            if source is not None and source.name != module.name:
                there = homes(source, territory)
                names = {
                    alias.name: there[alias.name]
                    for alias in node.names
                    if alias.name in there and alias.asname is None
                }
        for name, home in names.items():
            if name.isupper() and not name.startswith("_") and name not in RESERVED:
                found[name] = home
    return found


def find(names: Sequence[str], wanted: str, study: str) -> str:
    """The constant of which a setting is, such as BASE for BASE.dim.

    Args:
        names: of the study's constants.
        wanted: the name in the setting.
        study: its name.

    Raises:
        ValueError: if the study has no such constant.
    """
    name = wanted.partition(".")[0]
    if name in names:
        return name
    near = difflib.get_close_matches(name.upper(), names, n=1, cutoff=0.5)
    listed = ", ".join(names[:MOST_LISTED]) + (", ..." if len(names) > MOST_LISTED else "")
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise ValueError(f"{study} has no constant {wanted!r}, but {listed or 'none'}{hint}")


def constants_of(study: Study, places: Mapping[str, Module]) -> Iterator[Constant]:
    """The constants of a study that may be set, in the order of its module.

    Args:
        study: its module.
        places: its constants, from `homes`.
    """
    comments = {module: _comments(module) for module in set(places.values())}
    for name, module in places.items():
        value, meaning = getattr(study, name, None), comments[module].get(name, "")
        if isinstance(value, BaseExperiment):
            default = type(value)()
            for field in dataclasses.fields(value):
                held = getattr(value, field.name)
                if held != getattr(default, field.name) and _settable(held):
                    yield Constant(f"{name}.{field.name}", held, meaning)
                    meaning = ""
        elif _settable(value):
            yield Constant(name, value, meaning)


def changed(name: str, new: object, old: object) -> object:
    """The new value of a constant in the type of the old one; a text is read as that type.

    Args:
        name: of the constant, or of a field of the experiment that it is, such as BASE.dim.
        new: the value, or a text such as that after `--set NAME=`.
        old: the value in the source; for a field, the experiment.

    Raises:
        ValueError: if it does not fit the type, or the experiment refuses it.
    """
    field = name.partition(".")[2]
    if isinstance(old, BaseExperiment) and field:
        names = [each.name for each in dataclasses.fields(old)]
        if field not in names:
            near = difflib.get_close_matches(field, names, n=1, cutoff=0.5)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise ValueError(f"{name} must name a field of an experiment, got {field!r}{hint}")
        return old.replace(**{field: _value(name, new, getattr(old, field))})
    if field:
        raise ValueError(f"{name} must be the name of a constant, got one that is no experiment")
    if isinstance(old, BaseExperiment):
        if isinstance(new, type(old)):
            return new
        raise ValueError(f"{name} must be set field by field, such as {name}.dim, got {new!r}")
    return _value(name, new, old)


def shown(value: object) -> str:
    """A value as one writes it after `--set NAME=`."""
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if isinstance(value, list | tuple):
        return ",".join(map(shown, value))
    return str(value)


def brief(value: object) -> str:
    """A value for people, with four digits."""
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if isinstance(value, list | tuple):
        return ", ".join(map(brief, value))
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _settable(value: object) -> bool:
    if isinstance(value, np.ndarray):
        return value.ndim == 1 and value.dtype.kind in "iufb"
    if isinstance(value, list | tuple):
        return bool(value) and all(isinstance(item, SCALARS) for item in value)
    return isinstance(value, SCALARS)


def _value(name: str, new: object, old: object) -> object:
    """A value in the type of another one."""
    if old is None:
        return _literal(new) if isinstance(new, str) else new
    if isinstance(old, list | tuple | np.ndarray) and _settable(old):
        items = new.strip("()[] ").split(",") if isinstance(new, str) else new
        try:
            items = [item for item in cast(Any, items) if item != ""]
        except TypeError:
            items = []
        if not items:
            raise ValueError(f"{name} must be values separated by commas, got {new!r}")
        sample = _sample(old)
        values = [_scalar(name, item, sample) for item in items]
        return np.array(values) if isinstance(old, np.ndarray) else type(old)(values)
    if isinstance(old, SCALARS):
        return _scalar(name, new, _kind(old))
    if isinstance(new, type(old)):
        return new
    if isinstance(new, str):
        raise ValueError(f"{name} is a {type(old).__name__}, which only Python code can set")
    raise ValueError(f"{name} must be a {type(old).__name__}, got {new!r}")


def _sample(old: Sequence[object] | np.ndarray) -> type:
    """The type of the items of a sequence: the widest, where they are whole and other numbers."""
    if isinstance(old, np.ndarray):
        return {"f": float, "b": bool}.get(old.dtype.kind, int)
    kinds = {_kind(item) for item in old}
    return kinds.pop() if len(kinds) == 1 else float if kinds <= {int, float} else str


def _kind(value: object) -> type:
    """The type of a scalar; numbers of NumPy are numbers."""
    return next(kind for kind in SCALARS if isinstance(value, kind))


def _scalar(name: str, new: object, kind: type) -> object:
    if isinstance(new, np.generic):
        new = new.item()
    text = new.strip() if isinstance(new, str) else None
    try:
        if kind is str and text is not None:
            return text
        if kind is bool and (text or str(new)).lower() in ("true", "false"):
            return (text or str(new)).lower() == "true"
        if kind in (int, float) and not isinstance(new, bool):
            number = float(cast(Any, new if text is None else text))
            if kind is float:
                return number
            if number.is_integer():
                return int(text) if text is not None and text.isdecimal() else int(number)
    except (TypeError, ValueError):
        pass
    raise ValueError(f"{name} must be {NAMES[kind]}, got {new!r}")


def _literal(text: str) -> object:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def _comments(module: Module) -> dict[str, str]:
    """What a module says of its constants: beside them, in a text below, or else above."""
    with module.file.open("rb") as file:
        found = [token for token in tokenize.tokenize(file.readline) if token.type == COMMENT]
    own = {token.start[0]: token.line.lstrip().startswith("#") for token in found}
    texts = {token.start[0]: token.string.lstrip("#: ") for token in found}
    body = parsed(module.file).body
    comments = {}
    for node, following in itertools.zip_longest(body, body[1:]):
        ends = [line for line in (node.lineno, node.end_lineno) if line in own and not own[line]]
        above = list(itertools.takewhile(own.get, range(node.lineno - 1, 0, -1)))[::-1]
        text = (
            texts[ends[0]] if ends else _text(following) or " ".join(texts[line] for line in above)
        )
        comments |= dict.fromkeys(assigned(node), " ".join(text.split()))
    return comments


def _text(node: ast.stmt | None) -> str:
    """A text that stands by itself, up to its first empty line."""
    match node:
        case ast.Expr(value=ast.Constant(value=str(text))):
            return text.strip().partition("\n\n")[0]
    return ""
