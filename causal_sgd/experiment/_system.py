"""What distinguishes the experiments of one system from those of another."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from causal_sgd.experiment._metrics import MetricOption
from causal_sgd.experiment._table import AnyExperiment, Parts, Table

__all__ = ["INFINITE", "THESE", "Curves", "File", "Given", "System"]

INFINITE, THESE = "infinitely many environments", "these environments"

Curves = dict[str, tuple[np.ndarray, np.ndarray]]
"""Pairs of horizontal and vertical coordinates [n] by the name of the curve."""


class Given(NamedTuple):
    """Environments whose eigenvalues are mean + spread z_e."""

    deviations: tuple[float, ...]  # z_e
    probabilities: tuple[float, ...] | None  # equal by default


class File(NamedTuple):
    """What an experiment takes from a file."""

    parts: Parts  # that it replaces
    fields: Mapping[str, int]  # whose values it fixes
    digest: str  # equal for equal contents, wherever the file is


@dataclasses.dataclass(frozen=True, kw_only=True)
class System:
    """The options table of a system, and what no table says. Its functions take an experiment."""

    name: str
    implied: bool = False
    """Whether a description that names no system is of this one."""
    tables: tuple[Table, ...]
    """All tables, in the order in which parts are built: each may refer to the parts before it.
    The part of the last one is the algorithm."""
    main: tuple[str, ...]
    """The fields that most people need, in the order of a short help."""
    metrics: Mapping[str, MetricOption]
    """The rows of the metrics."""
    file_field: str
    """The field with the path of a file."""
    file_kind: str
    """What this file is, for messages."""
    read_file: Callable[[Path], File]
    """Reads it; does not start jax. Raises ValueError if it cannot be read."""
    arrays: Callable[[AnyExperiment], Iterator[dict[str, int]]]
    """Arrays that a run holds: the fields that fix their sizes, and the factor of each."""
    assumed: Mapping[str, object]
    """Values of fields, where they take effect, that the theory of `theory_curve` is about."""
    family: Callable[[AnyExperiment], str | Given | None]
    """The distribution, by its name in `theory`, of what multiplies the learning rate, or the given
    environments; None where there is no theory of them."""
    environments: Callable[[AnyExperiment], str]
    """The environments for which theory's boundary holds: `INFINITE` or `THESE`."""
    level: Callable[[AnyExperiment, str], float | None]
    """(experiment, metric) -> the level below which a run rejects; None if it must be given."""
    level_condition: str
    """Where there is such a level, for messages."""
    given_parts: Callable[[AnyExperiment], Parts] = lambda experiment: {}
    """The parts that need no table."""
    shift: Callable[[AnyExperiment, str, float | None], dict[str, float] | None] = (
        lambda experiment, metric, level: None
    )
    """(experiment, metric, level) -> arguments of the prediction for runs of finite length, where
    there is one."""
