"""What the experiments of all systems have in common: fields, cells, descriptions."""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable, Mapping
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Self

from causal_sgd import checks
from causal_sgd.experiment._fields import fields_of
from causal_sgd.experiment._samplers import SamplerFields
from causal_sgd.experiment._sizes import check_memory
from causal_sgd.experiment._system import File, System
from causal_sgd.experiment._table import Table
from causal_sgd.experiment._training import TrainingFields

if TYPE_CHECKING:
    from causal_sgd.types import Array, Key, Trace

__all__ = ["BaseExperiment"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class BaseExperiment(TrainingFields, SamplerFields):
    """An experiment of any system, described by names and numbers.

    A system derives its class, with its own fields and the tables that read them.
    """

    SYSTEM: ClassVar[System]

    steps: int = 400
    """Updates in a run."""
    record_every: int | None = None
    """Steps between two recorded frames; only the start and the end by default."""
    metrics: tuple[str, ...] = ()
    """What is recorded."""

    def __post_init__(self) -> None:
        """Check the names, the paths, and that no number is missing."""
        fields = fields_of(type(self))
        for field, options in fields.choices.items():
            value = getattr(self, field)
            if field == "metrics":
                if not isinstance(value, tuple | list):
                    raise ValueError(f"metrics must be a tuple of names, got {value!r}")
                names = tuple(checks.spelled(field, name, options) for name in value)
                object.__setattr__(self, field, names)
            elif value is not None or field not in fields.optional:
                object.__setattr__(self, field, checks.spelled(field, value, options))
        for field in fields.paths:
            value = getattr(self, field)
            if value is not None:
                allowed = f"the path of {self.SYSTEM.file_kind} or None"
                path = checks.instance(field, value, (str, PathLike), allowed)
                object.__setattr__(self, field, checks.path(field, path))
        for name in fields.numbers:
            if getattr(self, name) is None and name not in fields.optional:
                raise ValueError(f"{name} must be given, got None")
        for table in self.tables:
            table.check(self)

    @classmethod
    def choices(cls) -> Mapping[str, tuple[str, ...]]:
        """The names that a field may have. Hyphens and underscores are the same."""
        return fields_of(cls).choices

    @classmethod
    def sweepable(cls) -> tuple[str, ...]:
        """The numbers that may be axes of one compiled sweep.

        All other fields fix shapes or functions.
        """
        return fields_of(cls).sweepable

    @classmethod
    def integer_axes(cls) -> tuple[str, ...]:
        """The sweepable numbers that are integers."""
        return fields_of(cls).integer_axes

    def cell(self) -> Callable[..., Trace]:
        """The experiment as a pure function cell(key, **numbers) -> Trace, for `sweep` or `jit`.

        Any of the `sweepable` numbers may be given, traced or not; it replaces the field.

        Raises:
            ValueError: if a number is out of range, or does not fit the type in which it is
                computed, see `checks.representable`; raised when the cell is called.
        """
        from causal_sgd.experiment import _build
        from causal_sgd.training import run

        checks.integer("steps", self.steps, maximum=2**31 - 1)
        metrics = {name: self.SYSTEM.metrics[name].load(name) for name in self.metrics}
        files, known = {}, {}
        file = self._file()
        sized = self._with(file)
        configuration = sized.describe()
        if file is not None:
            field, known = self.SYSTEM.file_field, file.parts
            files = {field: str(getattr(self, field))}
            configuration[field] = file.digest

        def cell(key: Key, **numbers: float | Array) -> Trace:
            for name in numbers:
                checks.choice("parameter", name, self.sweepable())
                if (reason := self.why_no_axis(name)) is not None:
                    raise ValueError(f"{name} must not be swept {reason}")
            experiment = sized.replace(**numbers)
            experiment.check_numbers()
            parts = {**self.SYSTEM.given_parts(experiment), **known}
            algorithm = _build.algorithm(experiment, parts)
            with _build.naming_fields(experiment, *experiment.tables):
                return run(
                    key,
                    algorithm=algorithm,
                    metrics=metrics,
                    num_steps=self.num_steps,
                    record_every=self.record_every,
                )

        # `sweep` reads the signature to name the parameters in its messages.
        parameters = [inspect.Parameter("key", inspect.Parameter.POSITIONAL_OR_KEYWORD)]
        parameters += [
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=getattr(self, name))
            for name in self.sweepable()
        ]
        vars(cell).update(
            __signature__=inspect.Signature(parameters),
            configuration=configuration,  # stored with the results
            files=files,  # where they are, for information
            check_memory=functools.partial(check_memory, sized),  # before anything is traced
        )
        return cell

    def resolved(self) -> Self:
        """The experiment with the sizes of its file, if it has one, and the implied numbers.

        Raises:
            ValueError: if the file cannot be read.
        """
        return self._with(self._file())

    def replace(self, **changes: object) -> Self:
        """The experiment with some fields changed."""
        return dataclasses.replace(self, **changes)

    def why_unused(self, field: str) -> str | None:
        """Why a field has no effect, such as "where means is given"; None if it has one."""
        checks.choice("field", field, fields_of(type(self)).names)
        if field == "steps" or any(field in table.fields_used(self) for table in self.tables):
            return None
        reasons = (table.why_unused(self, field) for table in self.tables)
        return next((reason for reason in reasons if reason is not None), None)

    def why_no_axis(self, number: str) -> str | None:
        """Why a sweepable number cannot be an axis, as the end of a sentence; None if it can."""
        del number
        return None

    def check_numbers(self) -> None:
        """Raise ValueError if a number, which may be an axis, does not fit or is missing."""
        for name in fields_of(type(self)).numbers:
            if (value := getattr(self, name)) is not None:
                checks.representable(name, value)

    def describe(self) -> dict[str, object]:
        """The fields as plain values that JSON can hold, and the system unless it is sensing."""
        described: dict[str, object] = {}
        if not self.SYSTEM.implied:
            described["system"] = self.SYSTEM.name
        for name, value in dataclasses.asdict(self).items():
            if isinstance(value, Path):
                value = str(value)
            described[name] = list(value) if isinstance(value, tuple) else value
        return described

    @classmethod
    def parse(cls, description: Mapping[str, object]) -> Self:
        """The experiment of a description by `describe`; missing fields have their defaults.

        Raises:
            ValueError: if a field is unknown, or its value is not allowed.
        """
        allowed = "a mapping of fields, as describe() returns"
        fields = dict(checks.instance("description", description, Mapping, allowed))
        checks.choice("system", fields.pop("system", cls.SYSTEM.name), (cls.SYSTEM.name,))
        for name in fields:
            checks.choice("a field of an experiment", name, fields_of(cls).names)
        values: dict[str, object] = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in fields.items()
        }
        return cls().replace(**values)

    @property
    def label(self) -> str:
        """A short name among other experiments of the system."""
        return self.sampler

    @property
    def tables(self) -> tuple[Table, ...]:
        """The tables that apply."""
        return self.SYSTEM.tables

    @property
    def num_steps(self) -> int:
        """Steps of a run."""
        return self.steps

    @property
    def implied(self) -> Mapping[str, str | float]:
        """The names and numbers that are not given and follow from other fields."""
        return {}

    def _with(self, file: File | None) -> Self:
        sizes = {} if file is None else file.fields
        return self.replace(**self.implied, **sizes)

    def _file(self) -> File | None:
        path = getattr(self, self.SYSTEM.file_field)
        return None if path is None else self.SYSTEM.read_file(path)
