"""What is recorded."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from types import ModuleType
from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    from causal_sgd.types import Metric

__all__ = ["DEFAULT_METRICS", "METRICS", "MetricFields", "MetricName", "metric"]


def _sensing() -> ModuleType:
    from causal_sgd.sensing import metrics

    return metrics


def _curvature() -> ModuleType:
    from causal_sgd.training import curvature

    return curvature


class MetricOption(NamedTuple):
    """A row of a metric."""

    module: Callable[[], ModuleType] = _sensing
    """Imports its module, which starts jax."""
    default: bool = False
    """Whether it is recorded by default, as those are that cost about as much as a step."""


METRICS = {
    "invariant_error": MetricOption(default=True),
    "pooled_error": MetricOption(default=True),
    "relative_invariant_error": MetricOption(default=True),
    "relative_pooled_error": MetricOption(default=True),
    "invariant_signal": MetricOption(default=True),
    "spurious_signal": MetricOption(default=True),
    "complement_signal": MetricOption(default=True),
    "worst_environment_loss": MetricOption(default=True),
    "batch_loss": MetricOption(default=True),
    "environment_losses": MetricOption(),
    "training_loss": MetricOption(),
    "gradient_norm": MetricOption(),
    "spurious_power": MetricOption(),
    "effective_rank": MetricOption(),
    "singular_values": MetricOption(),
    "largest_principal_angle": MetricOption(),
    "invariant_prediction_error": MetricOption(),
    "spurious_prediction": MetricOption(),
    "complement_prediction": MetricOption(),
    "sharpness": MetricOption(_curvature),
    "lowest_curvature": MetricOption(_curvature),
    "environment_sharpness": MetricOption(_curvature),
    "batch_sharpness": MetricOption(_curvature),
    "hessian_trace": MetricOption(_curvature),
}

DEFAULT_METRICS = tuple(name for name, row in METRICS.items() if row.default)

if TYPE_CHECKING:
    MetricName = str
else:
    MetricName = Literal[tuple(METRICS)]


def metric(name: str) -> Metric:
    """The metric of a name. It starts jax."""
    return getattr(METRICS[name].module(), name)


@dataclasses.dataclass(frozen=True, kw_only=True)
class MetricFields:
    """The metrics and how often they are recorded."""

    record_every: int | None = None
    """Steps between two recorded frames; only the start and the end by default."""
    metrics: tuple[MetricName, ...] = DEFAULT_METRICS
    """What is recorded."""
