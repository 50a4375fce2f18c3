"""From an experiment's fields to the parts of its algorithm, by the tables."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, cast

from causal_sgd import checks
from causal_sgd.experiment._table import AnyExperiment, Parts, Table

if TYPE_CHECKING:
    from causal_sgd.types import Algorithm

__all__ = ["algorithm", "naming_fields"]


def algorithm(experiment: AnyExperiment, known: Parts) -> Algorithm:
    """The algorithm of an experiment, whose sweepable numbers may be traced.

    Args:
        experiment: whose fields choose the parts.
        known: parts that need no table, such as those of a file.

    Raises:
        ValueError: if a number is out of range; it names the field.
    """
    checks.number("momentum", experiment.momentum, minimum=0, maximum=1)
    checks.number("weight_decay", experiment.weight_decay, minimum=0)
    parts: dict[str, object] = dict(known)
    for table in experiment.tables:
        if table.part not in parts:
            with naming_fields(experiment, table):
                parts[table.part] = table.build(experiment, parts)
    return cast("Algorithm", parts[experiment.tables[-1].part])


@contextlib.contextmanager
def naming_fields(experiment: AnyExperiment, *tables: Table) -> Iterator[None]:
    """Let messages that begin with the argument of a part name the field instead."""
    try:
        yield
    except ValueError as error:
        fields = {
            argument: field
            for table in tables
            for argument, field in table.fields_of_arguments(experiment)
        }
        argument, _, rest = str(error).partition(" ")
        if fields.get(argument, argument) == argument:
            raise
        raise ValueError(f"{fields[argument]} {rest}") from None
