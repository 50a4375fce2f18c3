"""Tables of options: the names that a field may have, and how each builds a part."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Iterator, Mapping
from types import ModuleType
from typing import Any

import numpy as np

from causal_sgd import checks

__all__ = [
    "NOTHING",
    "AnyExperiment",
    "Computed",
    "Option",
    "Parts",
    "Replaced",
    "Requirement",
    "Table",
    "absent",
    "either",
    "excluded",
    "first_of",
    "given",
    "one_of",
    "only",
    "option",
    "part",
    "unless",
    "value_of",
    "zero",
]

Parts = Mapping[str, object]
"""The parts of an experiment that are built already."""

AnyExperiment = Any
"""An experiment of which a table may require more fields, so that it reads only its own."""

NOTHING = object()
"""The value of a source for an argument that is None, where None is not the factory's default."""


def value_of(experiment: AnyExperiment, field: str) -> Any:
    """The value of a field, or what other fields imply where it is not given."""
    value = getattr(experiment, field)
    return experiment.implied.get(field) if value is None else value


@dataclasses.dataclass(frozen=True)
class FirstOf:
    """An argument that is the value of the first of some fields that is given."""

    fields: tuple[str, ...]

    def read(self, experiment: AnyExperiment) -> tuple[str, ...]:
        """The field that takes effect."""
        present = (field for field in self.fields if getattr(experiment, field) is not None)
        return (next(present, self.fields[-1]),)

    def value(self, experiment: AnyExperiment, parts: Parts) -> object:
        """The value; an array where the field holds a tuple of numbers."""
        value = getattr(experiment, self.read(experiment)[0])
        return np.asarray(value, float) if isinstance(value, tuple) else value


@dataclasses.dataclass(frozen=True)
class Computed:
    """An argument that is computed from the experiment and from the parts that are built before."""

    function: Callable[[AnyExperiment, Parts], object]
    fields: tuple[str, ...] = ()
    """The fields that it reads; messages name the first."""

    def read(self, experiment: AnyExperiment) -> tuple[str, ...]:
        """The fields that take effect."""
        return self.fields

    def value(self, experiment: AnyExperiment, parts: Parts) -> object:
        """The value."""
        return self.function(experiment, parts)


@dataclasses.dataclass(frozen=True)
class Unless:
    """An argument that is the value of a field, unless another field replaces it."""

    field: str
    replacement: str

    @property
    def fields(self) -> tuple[str, ...]:
        """The field."""
        return (self.field,)

    def read(self, experiment: AnyExperiment) -> tuple[str, ...]:
        """The field that takes effect."""
        given = getattr(experiment, self.replacement) is not None
        return (self.replacement if given else self.field,)

    def value(self, experiment: AnyExperiment, parts: Parts) -> object:
        """The value; None where it is replaced."""
        given = getattr(experiment, self.replacement) is not None
        return None if given else getattr(experiment, self.field)


@dataclasses.dataclass(frozen=True)
class Replaced:
    """An argument that is computed, unless a field holds it as it is."""

    field: str
    computed: Computed

    @property
    def fields(self) -> tuple[str, ...]:
        """All fields that it may read."""
        return (self.field, *self.computed.fields)

    def read(self, experiment: AnyExperiment) -> tuple[str, ...]:
        """The fields that take effect."""
        given = getattr(experiment, self.field) is not None
        return (self.field,) if given else self.computed.fields

    def value(self, experiment: AnyExperiment, parts: Parts) -> object:
        """The value; an array where the field holds a tuple of numbers."""
        value = getattr(experiment, self.field)
        if value is None:
            return self.computed.value(experiment, parts)
        return np.asarray(value, float) if isinstance(value, tuple) else value


Source = FirstOf | Computed | Unless | Replaced


def first_of(*fields: str) -> FirstOf:
    """An argument that is the value of the first of these fields that is given."""
    return FirstOf(fields)


def unless(replacement: str, field: str) -> Unless:
    """An argument that is the value of a field, unless the replacement is given."""
    return Unless(field, replacement)


def part(name: str) -> Computed:
    """An argument that is another part of the experiment, such as its world."""
    return Computed(lambda experiment, parts: parts[name])


@dataclasses.dataclass(frozen=True)
class Requirement:
    """What an option requires of another field."""

    field: str
    holds: Callable[[object], bool]
    words: str
    """What follows "must" in a message."""
    reason: str

    def check(self, experiment: AnyExperiment, chosen: str) -> None:
        """Raise ValueError unless the field has an allowed value; `chosen` states the option."""
        value = value_of(experiment, self.field)
        if not self.holds(value):
            shown = "a swept value" if checks.concrete(value) is None else repr(value)
            raise ValueError(
                f"{self.field} must {self.words} where {chosen}, got {shown}: {self.reason}"
            )


def only(field: str, value: str, reason: str) -> Requirement:
    """The field must have this value."""
    return Requirement(field, lambda got: got == value, f"be {value!r}", reason)


def one_of(field: str, values: Collection[str], reason: str) -> Requirement:
    """The field must have one of these values."""
    words = f"be {' or '.join(map(repr, values))}"
    return Requirement(field, lambda got: got in values, words, reason)


def excluded(field: str, value: str, reason: str) -> Requirement:
    """The field must not have this value."""
    return Requirement(field, lambda got: got != value, f"not be {value!r}", reason)


def zero(field: str, reason: str) -> Requirement:
    """The number must be 0; it cannot be swept either."""
    return Requirement(field, checks.is_zero, "be 0", reason)


def given(field: str, reason: str) -> Requirement:
    """The field must be given."""
    return Requirement(field, lambda got: got is not None, "be given", reason)


def absent(field: str, reason: str) -> Requirement:
    """The field must not be given."""
    return Requirement(field, lambda got: got is None, "not be given", reason)


@dataclasses.dataclass(frozen=True)
class EitherGiven(Requirement):
    """One of two fields must be given, and only one."""

    other: str

    def check(self, experiment: AnyExperiment, chosen: str) -> None:
        """Raise ValueError unless one of the fields is given."""
        values = {name: value_of(experiment, name) for name in (self.field, self.other)}
        if all(value is not None for value in values.values()):
            raise ValueError(
                f"{self.other} must not be given where {self.field} is given, got "
                f"{values[self.other]!r}"
            )
        if all(value is None for value in values.values()):
            raise ValueError(
                f"{self.field} or {self.other} must be given where {chosen}: {self.reason}"
            )


def either(field: str, other: str, reason: str) -> Requirement:
    """One of the fields must be given, and only one."""
    return EitherGiven(field, lambda got: got is not None, "be given", reason, other)


@dataclasses.dataclass(frozen=True)
class Option:
    """A row: how one name builds a part."""

    arguments: Mapping[str, Source] | None
    """Arguments of the factory and where they come from; None for an option that builds nothing."""
    factory: str | None = None
    """Name of the factory in the table's module; None for the option's own name."""
    requires: tuple[Requirement, ...] = ()
    curve: bool = False
    """Whether `theory_curve` applies."""
    module: Callable[[], ModuleType] | None = None
    """Imports the module of the factory; None for that of the table."""

    @property
    def fields(self) -> set[str]:
        """All fields that the arguments may read."""
        return {field for source in self.sources for field in source.fields}

    @property
    def sources(self) -> tuple[Source, ...]:
        """Where the arguments come from."""
        return tuple((self.arguments or {}).values())


def option(
    *fields: str | Mapping[str, str | Source],
    factory: str | None = None,
    requires: tuple[Requirement, ...] = (),
    curve: bool = False,
    module: Callable[[], ModuleType] | None = None,
    **sources: str | Source,
) -> Option:
    """A row.

    Args:
        *fields: arguments of the factory that have the name of their field, or mappings of
            arguments to sources.
        factory: its name in the table's module, where the option has another name.
        requires: what it requires of other fields.
        curve: whether `theory_curve` applies.
        module: imports the module of the factory; None for that of the table.
        **sources: the other arguments, each with its field or another source.
    """
    named: dict[str, str | Source] = {}
    for entry in fields:
        named |= {entry: entry} if isinstance(entry, str) else entry
    arguments = {
        name: FirstOf((source,)) if isinstance(source, str) else source
        for name, source in (named | sources).items()
    }
    return Option(arguments, factory, requires, curve, module)


@dataclasses.dataclass(frozen=True)
class Table:
    """The options of one field: a row for each name that it may have."""

    field: str
    """The field that holds the name."""
    part: str
    """How other parts refer to the part that is built."""
    module: Callable[[], ModuleType]
    """Imports the module of the factories, which may start jax."""
    options: Mapping[str, Option]
    replacement: tuple[str, Option] | None = None
    """A field that replaces all options where it is given, and its row."""

    def chosen(self, experiment: AnyExperiment) -> str:
        """The name that an experiment chooses."""
        return value_of(experiment, self.field)

    def replaced_by(self, experiment: AnyExperiment) -> str | None:
        """The field that replaces all options, where it is given."""
        if self.replacement is None or getattr(experiment, self.replacement[0]) is None:
            return None
        return self.replacement[0]

    def row(self, experiment: AnyExperiment) -> Option:
        """The row that applies to an experiment."""
        if self.replacement is not None and self.replaced_by(experiment) is not None:
            return self.replacement[1]
        return self.options[self.chosen(experiment)]

    def check(self, experiment: AnyExperiment) -> None:
        """Raise ValueError if other fields do not fit the chosen option."""
        name = self.chosen(experiment)
        for requirement in self.options[name].requires:
            requirement.check(experiment, f"{self.field} is {name!r}")

    def factory(self, name: str, row: Option) -> Callable[..., object]:
        """The function that builds the part."""
        return getattr((row.module or self.module)(), row.factory or name.replace("-", "_"))

    def build(self, experiment: AnyExperiment, parts: Parts) -> object:
        """The part; None for an option that builds nothing.

        Args:
            experiment: whose fields are read; its sweepable numbers may be traced.
            parts: the parts that are built before.
        """
        row = self.row(experiment)
        if row.arguments is None:
            return None
        values = {name: source.value(experiment, parts) for name, source in row.arguments.items()}
        # None stands for the factory's own default.
        arguments = {
            name: None if value is NOTHING else value
            for name, value in values.items()
            if value is not None
        }
        return self.factory(self.chosen(experiment), row)(**arguments)

    def fields_used(self, experiment: AnyExperiment) -> set[str]:
        """The fields that take effect."""
        return {
            field for source in self.row(experiment).sources for field in source.read(experiment)
        }

    def fields_of_arguments(self, experiment: AnyExperiment) -> Iterator[tuple[str, str]]:
        """Pairs of an argument and the field that it comes from."""
        for name, source in (self.row(experiment).arguments or {}).items():
            for field in source.read(experiment)[:1]:
                yield name, field

    def why_unused(self, experiment: AnyExperiment, field: str) -> str | None:
        """Why a field has no effect here, as the end of a sentence; None if no option reads it."""
        users = [name for name, row in self.options.items() if field in row.fields]
        if not users:
            return None
        if replacement := self.replaced_by(experiment):
            return f"where {replacement} is given"
        for source in self.row(experiment).sources:
            if field in source.fields:
                return f"where {source.read(experiment)[0]} is given"
        return f"unless {self.field} is {' or '.join(users)}, got {self.chosen(experiment)!r}"
