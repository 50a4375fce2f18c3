"""The standard experiment, multi-environment matrix sensing, by names and numbers.

The command line and the studies use it. For other ingredients, compose the parts by hand. Importing
this module does not start jax.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import typing
from collections.abc import Callable, Iterator, Mapping
from os import PathLike
from pathlib import Path
from types import NoneType
from typing import TYPE_CHECKING

from causal_sgd import checks
from causal_sgd.experiment import _options
from causal_sgd.experiment._options import TABLES
from causal_sgd.experiment._sizes import check_memory

if TYPE_CHECKING:
    from causal_sgd.types import Array, Key, Trace

__all__ = ["CHOICES", "INTEGER_AXES", "SWEEPABLE", "Experiment"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Experiment(
    _options.MetricFields,
    _options.TrainingFields,
    _options.ModelFields,
    _options.MeasurementFields,
    _options.WorldFields,
    _options.SamplerFields,
):
    """Multi-environment matrix sensing [Xu, Gu, Fang 2024], described by names and numbers.

    In names, hyphens and underscores are the same.

    Raises:
        ValueError: if a name is unknown or two fields conflict. The parts check the numbers.
    """

    steps: int = 400
    """Updates in a run; rounds with fedavg, fedprox and scaffold."""

    def __post_init__(self) -> None:
        """Check the names, the path, and that no number is missing."""
        for field, options in CHOICES.items():
            value = getattr(self, field)
            if field == "metrics":
                if not isinstance(value, tuple | list):
                    raise ValueError(f"metrics must be a tuple of names, got {value!r}")
                names = tuple(checks.spelled(field, name, options) for name in value)
                object.__setattr__(self, field, names)
            elif value is not None or field not in OPTIONAL:
                object.__setattr__(self, field, checks.spelled(field, value, options))
        if self.world_file is not None:
            allowed = "the path of an .npz file or None"
            path = checks.instance("world_file", self.world_file, (str, PathLike), allowed)
            object.__setattr__(self, "world_file", checks.path("world_file", path))
        for name in NUMBERS:
            if getattr(self, name) is None and name not in OPTIONAL:
                raise ValueError(f"{name} must be given, got None")
        for table in TABLES:
            table.check(self)

    def cell(self) -> Callable[..., Trace]:
        """The experiment as a pure function cell(key, **numbers) -> Trace, for `sweep` or `jit`.

        Any of the numbers in `SWEEPABLE` may be given, traced or not; it replaces the field.

        Raises:
            ValueError: if a number is out of range, or does not fit the type in which it is
                computed, see `checks.representable`; raised when the cell is called.
        """
        from causal_sgd.experiment import _build
        from causal_sgd.training import run

        checks.integer("steps", self.steps, maximum=2**31 - 1)
        metrics = {name: _options.metric(name) for name in self.metrics}
        configuration, files, known, dim = self.describe(), {}, {}, self.dim
        if self.world_file is not None:
            file = _build.world_of_file(self.world_file)
            known, files, dim = file.parts, {"world_file": str(self.world_file)}, file.dim
            configuration |= {"dim": file.dim, "world_file": file.digest}

        def cell(key: Key, **numbers: float | Array) -> Trace:
            for name in numbers:
                checks.choice("parameter", name, SWEEPABLE)
                if (reason := self.why_no_axis(name)) is not None:
                    raise ValueError(f"{name} must not be swept {reason}")
            experiment = self.replace(**numbers)
            for name in NUMBERS:
                if (value := getattr(experiment, name)) is not None:
                    checks.representable(name, value)
            with _build.naming_fields(experiment):
                return run(
                    key,
                    algorithm=_build.algorithm(experiment, known),
                    metrics=metrics,
                    num_steps=self.steps,
                    record_every=self.record_every,
                )

        # `sweep` reads the signature to name the parameters in its messages.
        parameters = [inspect.Parameter("key", inspect.Parameter.POSITIONAL_OR_KEYWORD)]
        parameters += [
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=getattr(self, name))
            for name in SWEEPABLE
        ]
        vars(cell).update(
            __signature__=inspect.Signature(parameters),
            configuration=configuration,  # stored with the results
            files=files,  # where they are, for information
            check_memory=functools.partial(check_memory, self, dim),  # before anything is traced
        )
        return cell

    def resolved(self) -> Experiment:
        """The experiment with the dimension of its world file, if it has one.

        Raises:
            ValueError: if the file cannot be read.
        """
        if self.world_file is None:
            return self
        from causal_sgd.experiment import _build

        return self.replace(dim=_build.world_of_file(self.world_file).dim)

    def replace(self, **changes: object) -> Experiment:
        """The experiment with some fields changed."""
        return dataclasses.replace(self, **changes)

    def limit(self) -> Experiment:
        """The same experiment for d to infinity, at its ratio of batch size and dimension.

        For `order-parameter-law` a run of the same key sees the same worlds, start and environments
        in the same order, so that the difference is what the noise of the batches does at finite d.

        Raises:
            ValueError: if the measurement is not order-parameter-law or order-parameter-limit.
        """
        if not self.measurement.startswith("order-parameter-"):
            raise ValueError(
                "measurement must be 'order-parameter-law' for the limit of large dim, got "
                f"{self.measurement!r}"
            )
        if self.measurement == "order-parameter-limit":
            return self
        ratio = self.batch_size / self.dim
        return self.replace(measurement="order-parameter-limit", batch_ratio=ratio)

    def why_unused(self, field: str) -> str | None:
        """Why a field has no effect, such as "where means is given"; None if it has one."""
        checks.choice("field", field, FIELDS)
        if field == "steps" or any(field in table.fields_used(self) for table in TABLES):
            return None
        reasons = (table.why_unused(self, field) for table in TABLES)
        return next((reason for reason in reasons if reason is not None), None)

    def why_no_axis(self, number: str) -> str | None:
        """Why a number in `SWEEPABLE` cannot be an axis, as the end of a sentence; None if it can.

        With most models `dim` fixes the shapes of arrays.
        """
        if number != "dim":
            return None
        if self.world_file is not None:
            return "where world_file is given"
        if self.model != "order-parameters":
            return f"unless model is 'order-parameters', got {self.model!r}"
        return None

    def describe(self) -> dict[str, object]:
        """The fields as plain values that JSON can hold."""
        return {
            name: str(value)
            if isinstance(value, Path)
            else list(value)
            if isinstance(value, tuple)
            else value
            for name, value in dataclasses.asdict(self).items()
        }

    @classmethod
    def parse(cls, description: Mapping[str, object]) -> Experiment:
        """The experiment of a description by `describe`; missing fields have their defaults.

        Raises:
            ValueError: if a field is unknown, or its value is not allowed.
        """
        allowed = "a mapping of fields, as describe() returns"
        for name in checks.instance("description", description, Mapping, allowed):
            checks.choice("a field of an experiment", name, FIELDS)
        values: dict[str, object] = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in description.items()
        }
        return cls().replace(**values)


def _leaves(hint: object) -> Iterator[object]:
    """The types and annotations that a type is composed of, itself first."""
    yield hint
    for part in (*typing.get_args(hint), *getattr(hint, "__metadata__", ())):
        yield from _leaves(part)


HINTS = typing.get_type_hints(Experiment, include_extras=True)
FIELDS = {field.name: tuple(_leaves(HINTS[field.name])) for field in dataclasses.fields(Experiment)}

CHOICES: dict[str, tuple[str, ...]] = {
    name: typing.get_args(leaf)
    for name, leaves in FIELDS.items()
    for leaf in leaves
    if typing.get_origin(leaf) is typing.Literal
}
"""The names that a field may have. Hyphens and underscores are the same."""

NUMBERS = tuple(name for name, leaves in FIELDS.items() if {int, float} & set(leaves))

OPTIONAL = tuple(name for name, leaves in FIELDS.items() if NoneType in leaves)

SWEEPABLE = tuple(name for name, leaves in FIELDS.items() if _options.SWEEPABLE in leaves)
"""The numbers that may be axes of one compiled sweep; all other fields fix shapes or functions."""

INTEGER_AXES = tuple(name for name in SWEEPABLE if int in FIELDS[name])
"""The sweepable numbers that are integers."""
