"""What the types of an experiment's fields say: choices, numbers, and axes of a sweep."""

from __future__ import annotations

import dataclasses
import functools
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import NoneType
from typing import Annotated, NamedTuple, TypeVar

__all__ = ["Axis", "Fields", "fields_of"]

T = TypeVar("T")
SWEEPABLE = "sweepable"
Axis = Annotated[T, SWEEPABLE]
"""The type of a field that may be an axis of one compiled sweep."""


class Fields(NamedTuple):
    """The fields of a class of experiments, by what they may hold."""

    names: tuple[str, ...]
    choices: Mapping[str, tuple[str, ...]]  # the names that a field may have
    numbers: tuple[str, ...]
    optional: tuple[str, ...]  # that may be None
    paths: tuple[str, ...]
    sweepable: tuple[str, ...]
    integer_axes: tuple[str, ...]


@functools.cache
def fields_of(kind: type) -> Fields:
    """The fields of a dataclass of experiments."""
    hints = typing.get_type_hints(kind, include_extras=True)
    leaves = {
        field.name: tuple(_leaves(hints[field.name]))
        for field in dataclasses.fields(kind)  # pyright: ignore[reportArgumentType]
    }

    def having(*types: object) -> tuple[str, ...]:
        return tuple(name for name, parts in leaves.items() if set(types) & set(parts))

    return Fields(
        names=tuple(leaves),
        choices={
            name: typing.get_args(leaf)
            for name, parts in leaves.items()
            for leaf in parts
            if typing.get_origin(leaf) is typing.Literal
        },
        numbers=having(int, float),
        optional=having(NoneType),
        paths=having(Path),
        sweepable=having(SWEEPABLE),
        integer_axes=tuple(name for name in having(SWEEPABLE) if int in leaves[name]),
    )


def _leaves(hint: object) -> Iterator[object]:
    """The types and annotations that a type is composed of, itself first."""
    yield hint
    for part in (*typing.get_args(hint), *getattr(hint, "__metadata__", ())):
        yield from _leaves(part)
