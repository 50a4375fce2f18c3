"""From an experiment's fields to an algorithm, by the tables."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import jax

from causal_sgd import checks
from causal_sgd.experiment import Experiment
from causal_sgd.experiment._options import TABLES, Parts
from causal_sgd.sensing import worlds
from causal_sgd.types import Algorithm, Key

__all__ = ["algorithm", "naming_fields", "world_of_file"]


def algorithm(experiment: Experiment, known: Parts) -> Algorithm:
    """The algorithm of an experiment, whose sweepable numbers may be traced.

    Args:
        experiment: whose fields choose the parts.
        known: parts that are built already, from `world_of_file`.

    Raises:
        ValueError: if a number is out of range; it names the argument of a part, see
            `naming_fields`.
    """
    checks.number("momentum", experiment.momentum, minimum=0, maximum=1)
    checks.number("weight_decay", experiment.weight_decay, minimum=0)
    parts: dict[str, object] = {"dim": experiment.dim, **known}
    for table in TABLES:
        if table.part not in parts:
            parts[table.part] = table.build(experiment, parts)
    return cast("Algorithm", parts["algorithm"])


def world_of_file(path: Path | None) -> Parts:
    """The world of a file and its dimension; nothing without a file. Does not start jax."""
    if path is None:
        return {}
    world = worlds.from_file(path)
    # A key would start jax, before a sweep can set up all cores.
    shapes = jax.eval_shape(lambda: world(cast("Key", None)))
    return {"world": world, "dim": shapes.invariant_basis.shape[0]}


@contextlib.contextmanager
def naming_fields(experiment: Experiment) -> Iterator[None]:
    """Let messages that begin with the argument of a part name the field instead."""
    try:
        yield
    except ValueError as error:
        fields = {
            argument: field
            for table in TABLES
            for argument, field in table.fields_of_arguments(experiment)
        }
        argument, _, rest = str(error).partition(" ")
        if fields.get(argument, argument) == argument:
            raise
        raise ValueError(f"{fields[argument]} {rest}") from None
