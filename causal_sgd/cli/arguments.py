"""From the words of a command line to a command; mistakes become one line."""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import functools
import inspect
import io
import itertools
import os
import re
import shutil
import textwrap
import typing
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import MappingProxyType, NoneType, UnionType
from typing import cast

import tyro
from tyro.constructors import ConstructorRegistry, PrimitiveConstructorSpec, PrimitiveTypeInfo

from causal_sgd import checks

__all__ = ["fill_help", "parse"]

NARROWEST = 40  # columns
REGISTRY = ConstructorRegistry()
UNKNOWN = "Unrecognized options: "
FRAME = " │|+╭╮╰╯"  # of the boxes that tyro draws, in Unicode or ASCII


def parse(
    command: object, arguments: Sequence[str], *, program: str, description: str | None
) -> Callable[[], int]:
    """The command of a command line.

    Args:
        command: a type that tyro understands, whose instances can be called.
        arguments: the words after the program's name.
        program: its name.
        description: what it does, for --help; None for the docstring of the command.

    Raises:
        ValueError: if the command line is wrong.
        SystemExit: after --help and the like.
    """
    errors = io.StringIO()
    try:
        with contextlib.redirect_stderr(errors), _wide_enough():
            return tyro.cli(
                cast("Callable[..., Callable[[], int]]", command),
                prog=program,
                args=list(arguments),
                description=description,
                registry=REGISTRY,
            )
    except ImportError as error:
        if "shtab" not in str(error):
            raise
        raise ValueError(
            "completion must be for bash, zsh or fish; for tcsh it needs: pip install shtab"
        ) from None
    except SystemExit as stop:
        if not stop.code:
            raise
    raise ValueError(_message(errors.getvalue()))


@contextlib.contextmanager
def _wide_enough() -> Iterator[None]:
    """Let help take a few columns more than a very narrow terminal has.

    A table that does not fit in would be laid out without end.
    """
    if shutil.get_terminal_size().columns >= NARROWEST:
        yield
        return
    before = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = str(NARROWEST)
    try:
        yield
    finally:
        del os.environ["COLUMNS"]
        if before is not None:
            os.environ["COLUMNS"] = before


def fill_help(kind: type) -> None:
    """Give the fields of a dataclass their docstrings as help, each in one line.

    tyro reads the docstrings itself, but keeps their line breaks.
    """
    for base in kind.__mro__:
        if not dataclasses.is_dataclass(base):
            continue
        try:
            source = textwrap.dedent(inspect.getsource(base))
        except OSError:  # no source, no help
            continue
        body = ast.parse(source).body[0].body  # pyright: ignore[reportAttributeAccessIssue]
        fields = {field.name: field for field in dataclasses.fields(base)}
        for declaration, text in itertools.pairwise(body):
            match declaration, text:
                case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(
                    value=ast.Constant(value=str(words))
                ):
                    help_text = MappingProxyType({"help": " ".join(words.split())})
                    fields[name].metadata = help_text


class _Completions(tuple[str, ...]):
    """What a shell may complete. Everything is in it, so that our own check gives the message."""

    def __contains__(self, value: object) -> bool:
        return True


@REGISTRY.primitive_rule
def _names_and_numbers(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec | None:
    """Names, whole numbers, numbers and tuples of them; any of them may be None."""
    alternatives = _alternatives(info.type)
    optional = NoneType in alternatives
    kinds = [_plain(kind) for kind in alternatives if kind is not NoneType]
    if set(kinds) == {Path, checks.Url}:
        kinds = [checks.Url]  # or a path
    if len(kinds) != 1:
        return None
    several = typing.get_origin(kinds[0]) is tuple and typing.get_args(kinds[0])[1:] == (...,)
    leaf = _plain(typing.get_args(kinds[0])[0]) if several else kinds[0]
    if leaf == checks.Place:
        leaf = checks.Url
    names = typing.get_args(leaf) if typing.get_origin(leaf) is typing.Literal else ()
    read: Callable[[str], object]
    if names:
        metavar = "{" + ",".join(names) + "}"
        read = functools.partial(_name, names=names)
    elif leaf in (Path, checks.Url):
        check = checks.path if leaf is Path else checks.place
        metavar, read = "PATH", functools.partial(_path, check=check)
    elif isinstance(leaf, type) and (leaf in (int, float) or (optional and leaf is str)):
        metavar = leaf.__name__.upper()
        read = functools.partial(_value, kind=leaf)
    else:
        return None

    def instance(words: list[str]) -> object:
        if optional and words == ["None"]:
            return None
        return tuple(map(read, _separated(words, leaf))) if several else read(words[0])

    def words(value: object) -> list[str]:
        return [str(each) for each in value] if isinstance(value, tuple) else [str(value)]

    return PrimitiveConstructorSpec(
        nargs="*" if several else 1,
        metavar=f"[{metavar} ...]" if several else metavar,
        instance_from_str=instance,
        is_instance=lambda value: True,
        str_from_instance=words,
        choices=_Completions(names) if names else None,
    )


def _separated(words: list[str], leaf: object) -> list[str]:
    """Several numbers or names; commas may separate them, as in --eigenvalues=-2,1,4."""
    if leaf is str or leaf is checks.Url:  # which may have commas of their own
        return words
    return [part for word in words for part in word.split(",") if part]


def _alternatives(kind: object) -> tuple[object, ...]:
    """The types of a union, or the one type."""
    kind = _plain(kind)
    union = typing.get_origin(kind) in (typing.Union, UnionType)
    return typing.get_args(kind) if union else (kind,)


def _plain(kind: object) -> object:
    """A type without annotations."""
    return typing.get_args(kind)[0] if typing.get_origin(kind) is typing.Annotated else kind


def _name(word: str, names: Sequence[str]) -> str:
    try:
        return checks.spelled("name", word, names)
    except ValueError as error:
        raise ValueError(str(error).removeprefix("name ")) from None  # tyro names the option


def _value(word: str, kind: type) -> object:
    try:
        return kind(word)
    except ValueError:
        allowed = "a whole number" if kind is int else "a number"
        shown = repr(word) if len(word) <= 60 else f"{word[:60]!r}..."
        raise ValueError(f"must be {allowed}, got {shown}") from None


def _path(word: str, check: Callable[..., checks.Place]) -> checks.Place:
    try:
        return check("path", word, absolute=False)
    except ValueError as error:
        raise ValueError(str(error).removeprefix("path ")) from None  # tyro names the option


def _message(drawn: str) -> str:
    """The message in a box that tyro draws, as one line.

    The box has a title, the message, and below a rule what may help: a similar option, or the
    help of the option. In ASCII there is a rule below the title, too.
    """
    plain = re.sub(r"\x1b\[[0-9;]*m", "", drawn)
    title, *lines = [line.strip(FRAME) for line in plain.splitlines()]
    lines = [line for line in lines if line]
    rules = [index for index, line in enumerate(lines) if index and not line.strip("─-")]
    message, help_lines = lines[: rules[0]], lines[rules[0] :]
    message = [line for line in message if line.strip("─-")]
    if "Required" in title:
        missing = [line.split()[0] for line in message if line.startswith("--") or line.isupper()]
        return f"{' and '.join(missing)} must be given"
    text = " ".join(message)
    if text.startswith(UNKNOWN):
        return _unknown(text.removeprefix(UNKNOWN), help_lines)
    if bare := re.match(r"Missing value for argument '([^']*)'", text):
        return f"{bare[1].partition('/')[0]} must be followed by a value"
    # An error of the dataclass of a command or of its experiment begins with its name or place.
    text = re.sub(r"^Error parsing (\w+: )?", "", text)
    if text.startswith("__tyro"):  # an error of the experiment, after the name of its place
        return text.partition(": ")[2]
    return text.replace(": must be", " must be", 1)


def _unknown(options: str, help_lines: Sequence[str]) -> str:
    """The message for words that are no options; a word after an unknown flag is its value."""
    words = options.split(", ")
    flags = [word.partition("=")[0] for word in words if word.startswith("--")]
    if not flags:
        return f"unexpected {'word' if len(words) == 1 else 'words'} {' '.join(words)}"
    similar = [line.split()[0].rstrip(",") for line in help_lines if re.match("--[a-z]", line)]
    hint = f"; did you mean {similar[0]}?" if similar else ""
    return f"unknown {'flag' if len(flags) == 1 else 'flags'} {', '.join(flags)}{hint}"
