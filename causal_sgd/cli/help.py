"""Help on one screen: what a command does, an example, and the flags that most people need."""

from __future__ import annotations

import dataclasses
import inspect
import re
import shutil
import textwrap
import typing
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import tyro

from causal_sgd.checks import Url
from causal_sgd.experiment._base import BaseExperiment
from causal_sgd.experiment._fields import fields_of

__all__ = [
    "brief",
    "columns",
    "described",
    "flags_of",
    "is_positional",
    "overview",
    "short_help",
    "wrapped",
]

WIDEST = 100  # columns
NARROWEST = 40
GAP = 2  # columns
EXAMPLE = "For example: "
METAVARS = {int: "INT", float: "FLOAT", str: "TEXT", Path: "PATH", Url: "PATH"}
POSITIONAL = typing.get_args(tyro.conf.Positional[int])[1]


def overview(program: str, about: str, commands: Mapping[str, type]) -> str:
    """Help of the program: a line for each command."""
    rows = [_Row(name, _paragraphs(kind)[0]) for name, kind in commands.items()]
    more = (
        f"`{program} COMMAND --help` shows the main flags of a command on one screen, and "
        "`--help-all` all of them."
    )
    lines = [f"usage: {program} COMMAND ...", "", *wrapped(about), "", *_table(rows), ""]
    return "\n".join([*lines, *wrapped(more)])


def short_help(program: str, kind: type, *, systems: Sequence[str] = ()) -> str:
    """Help of a command, whose fields have their help already.

    Args:
        program: the words that name the command.
        kind: its dataclass. Its `MAIN` names the fields that are shown, and those of its experiment
            stand in the options table of the system; without `MAIN` all are shown.
        systems: other words that may follow, each with its own help.
    """
    first, *rest = _paragraphs(kind)
    hints = typing.get_type_hints(kind, include_extras=True)
    own = {field.name: field for field in dataclasses.fields(kind) if field.name != "experiment"}
    positional = [name for name in own if is_positional(hints[name])]
    flags = [name for name in getattr(kind, "MAIN", own) if name not in positional]
    rows = [_Row(_metavar(name, hints[name]), _help(own[name])) for name in positional]
    rows += [_row(own[name], hints[name]) for name in flags]
    if "experiment" in hints:
        system = _experiment_of(hints["experiment"])
        inner = typing.get_type_hints(system, include_extras=True)
        fields = {field.name: field for field in dataclasses.fields(system)}
        omitted = getattr(kind, "OMITTED", ())
        rows += [
            _row(fields[name], inner[name]) for name in system.SYSTEM.main if name not in omitted
        ]
    words = [
        program,
        *(f"[{name}]" for name in systems),
        *(row.name for row in rows[: len(positional)]),
    ]
    lines = [f"usage: {' '.join(words)} [FLAGS]", "", *wrapped(first)]
    for text in rest:
        if text.startswith(EXAMPLE):
            lines += ["", *_examples(text.removeprefix(EXAMPLE))]
    lines += ["", *_table(rows)]
    count = len(list(flags_of(kind)))
    if len(rows) - len(positional) < count:
        lines += ["", *wrapped(f"All {count} flags with their choices: {program} --help-all")]
    for name in systems:
        lines += wrapped(f"Regression and classification: {program} {name} --help")
    return "\n".join(lines)


def described(kind: type) -> str:
    """The docstring of a command, wrapped at the width of the terminal."""
    return "\n\n".join("\n".join(wrapped(text)) for text in _paragraphs(kind))


def brief(text: str, width: int) -> str:
    """As much of a help text as fits into a line: a sentence, or else a clause of it."""
    text = _sentence(text)
    for marks in (r"[:;](?= )|$", r",(?= )", r" \("):
        ends = [match.start() for match in re.finditer(marks, text)]
        clauses = [text[:end] for end in ends if text.count("(", 0, end) == text.count(")", 0, end)]
        if fitting := [clause for clause in clauses if len(clause) <= width]:
            return fitting[-1]
    return textwrap.shorten(text, width, placeholder=" ...")


def flags_of(kind: type) -> Iterator[str]:
    """The fields of a command and of its experiment that have a flag."""
    hints = typing.get_type_hints(kind, include_extras=True)
    for field in dataclasses.fields(kind):  # pyright: ignore[reportArgumentType]
        if field.name == "experiment":
            yield from fields_of(_experiment_of(hints["experiment"])).names
        elif not is_positional(hints[field.name]):
            yield field.name


class _Row(NamedTuple):
    """A line of a table."""

    name: str
    text: str
    names: tuple[str, ...] = ()  # the choices, in place of the text
    default: str = ""


def _row(field: dataclasses.Field, hint: object) -> _Row:
    """A flag with what follows it, and its help with its default."""
    flag = "--" + field.name.replace("_", "-") + _value(hint)
    names = () if _is_several(hint) else _names(hint)
    default = field.default
    if default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
        default = "required"
    shown = isinstance(default, int | float | str) and not isinstance(default, bool)
    return _Row(flag, _help(field), names, f" [{default}]" if shown else "")


def _value(hint: object) -> str:
    """What follows the flag."""
    kinds = set(_leaves(hint))
    if named := _metavar("", hint):
        return f" {named}"
    several = " ..." if _is_several(hint) else ""
    if _names(hint):
        return f" NAME{several}"
    for kind, metavar in METAVARS.items():
        if kind in kinds:
            return f" {metavar}{several}"
    return ""


def _metavar(name: str, hint: object) -> str:
    """How the usage shows a value: as the command says, or else by the argument's name."""
    named = (getattr(each, "metavar", None) for each in getattr(hint, "__metadata__", ()))
    return next(filter(None, named), name.upper())


def is_positional(hint: object) -> bool:
    """Whether an argument has no flag."""
    return POSITIONAL in getattr(hint, "__metadata__", ())


def _leaves(hint: object) -> Iterator[object]:
    yield hint
    for part in typing.get_args(hint):
        yield from _leaves(part)


def _names(hint: object) -> tuple[str, ...]:
    literal = typing.Literal
    found = (typing.get_args(each) for each in _leaves(hint) if typing.get_origin(each) is literal)
    return next(found, ())


def _is_several(hint: object) -> bool:
    return any(typing.get_origin(each) is tuple for each in _leaves(hint))


def _experiment_of(hint: object) -> type[BaseExperiment]:
    return next(
        each
        for each in _leaves(hint)
        if isinstance(each, type) and issubclass(each, BaseExperiment)
    )


def _help(field: dataclasses.Field) -> str:
    return str(field.metadata.get("help", ""))


def _listed(names: Sequence[str], width: int) -> str:
    """As many names as fit, at least one."""
    text = ", ".join(names)
    for count in range(len(names) - 1, 0, -1):
        if len(text) <= width:
            break
        text = ", ".join(names[:count]) + ", ..."
    return text


def _examples(text: str) -> list[str]:
    """Commands to copy, broken before a flag."""
    lines = []
    for command in text.split(" or: "):
        line = "  "
        for part in re.split(r" (?=--)", command.strip()):
            if len(line) + len(part) + 3 > columns() - 1:
                lines.append(line + "\\")
                line = "      "
            line += part + " "
        lines.append(line.rstrip())
    return lines


def _paragraphs(kind: type) -> list[str]:
    text = inspect.cleandoc(kind.__doc__ or "")
    return [" ".join(paragraph.split()) for paragraph in text.split("\n\n")]


def _sentence(text: str) -> str:
    return re.split(r"(?<=\.) (?=[A-Z])", text)[0].rstrip(".")


def columns() -> int:
    """Columns that help and lists take."""
    return min(WIDEST, max(NARROWEST, shutil.get_terminal_size().columns))


def wrapped(text: str, indent: str = "") -> list[str]:
    """The lines of a paragraph."""
    return textwrap.wrap(
        text,
        columns() - 1,
        initial_indent=indent,
        subsequent_indent=indent,
        break_on_hyphens=False,
        break_long_words=False,
    )


def _table(rows: Sequence[_Row]) -> list[str]:
    """Two columns, one line a row."""
    first = max(len(row.name) for row in rows) + GAP
    lines = []
    for row in rows:
        room = max(8, columns() - 1 - 2 - first - len(row.default))
        text = _listed(row.names, room) if row.names else brief(row.text, room)
        lines.append(f"  {row.name:<{first}}{text}{row.default}".rstrip())
    return lines
