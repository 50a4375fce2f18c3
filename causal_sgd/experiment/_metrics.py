"""Rows of metrics."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import ModuleType
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from causal_sgd.types import Metric

__all__ = ["MetricOption", "curvature", "default_metrics"]


def curvature() -> ModuleType:
    """The module of the metrics that every system has."""
    from causal_sgd.training import curvature

    return curvature


class MetricOption(NamedTuple):
    """A row of a metric."""

    module: Callable[[], ModuleType]
    """Imports its module, which starts jax."""
    default: bool = False
    """Whether it is recorded by default, as those are that cost about as much as a step."""
    of: str | None = None
    """The kind of method that it is about, where it is not about all."""

    def load(self, name: str) -> Metric:
        """The metric of this row. It starts jax."""
        return getattr(self.module(), name)


def default_metrics(rows: Mapping[str, MetricOption]) -> tuple[str, ...]:
    """The metrics that are recorded by default."""
    return tuple(name for name, row in rows.items() if row.default)
