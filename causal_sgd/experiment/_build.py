"""From an experiment's fields to the parts of its algorithm, by the tables."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from causal_sgd import checks
from causal_sgd.experiment._table import AnyExperiment, Parts

__all__ = ["built", "naming_fields"]


def built(experiment: AnyExperiment, known: Parts) -> Parts:
    """The parts of an experiment, whose sweepable numbers may be traced.

    Args:
        experiment: whose fields choose the parts.
        known: parts that need no table, such as those of a file.

    Raises:
        ValueError: if a number is out of range; it names the argument of a part, see
            `naming_fields`.
    """
    checks.number("momentum", experiment.momentum, minimum=0, maximum=1)
    checks.number("weight_decay", experiment.weight_decay, minimum=0)
    parts = dict(known)
    for table in experiment.SYSTEM.tables:
        if table.part not in parts:
            parts[table.part] = table.build(experiment, parts)
    return parts


@contextlib.contextmanager
def naming_fields(experiment: AnyExperiment) -> Iterator[None]:
    """Let messages that begin with the argument of a part name the field instead."""
    try:
        yield
    except ValueError as error:
        fields = {
            argument: field
            for table in experiment.SYSTEM.tables
            for argument, field in table.fields_of_arguments(experiment)
        }
        argument, _, rest = str(error).partition(" ")
        if fields.get(argument, argument) == argument:
            raise
        raise ValueError(f"{fields[argument]} {rest}") from None
