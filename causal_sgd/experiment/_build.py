"""From an experiment's fields to an algorithm, by the tables."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, cast

import jax

from causal_sgd import checks
from causal_sgd.experiment import Experiment
from causal_sgd.experiment._options import TABLES, Parts
from causal_sgd.sensing.worlds import WorldFactory, _arrays
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
    frame = experiment.invariant_rank + experiment.spurious_rank
    parts: dict[str, object] = {"dim": experiment.dim, "frame": frame, **known}
    for table in TABLES:
        if table.part not in parts:
            parts[table.part] = table.build(experiment, parts)
    return cast("Algorithm", parts["algorithm"])


class WorldOfFile(NamedTuple):
    """The world of a file."""

    world: WorldFactory
    dim: int
    frame: int  # columns of both bases
    digest: str  # equal for equal arrays, wherever the file is

    @property
    def parts(self) -> Parts:
        """The parts of an experiment that it replaces."""
        return {"world": self.world, "dim": self.dim, "frame": self.frame}


def world_of_file(path: Path) -> WorldOfFile:
    """Read a world file once for all that is known of it. Does not start jax."""
    arrays = _arrays.read_archive(path)
    world = _arrays.from_archive(path, arrays)
    # A key would start jax, before a sweep can set up all cores.
    shapes = jax.eval_shape(lambda: world(cast("Key", None)))
    (dim, shared), (_, own) = shapes.invariant_basis.shape, shapes.spurious_basis.shape
    return WorldOfFile(world, dim, shared + own, _arrays.digest(arrays))


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
