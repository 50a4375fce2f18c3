"""What is recorded."""

from __future__ import annotations

import dataclasses
from types import ModuleType
from typing import TYPE_CHECKING, Literal

__all__ = ["DEFAULT_METRICS", "METRICS", "MetricFields", "MetricName", "metrics_module"]

METRICS = {
    "invariant_error": True,
    "pooled_error": True,
    "relative_invariant_error": True,
    "relative_pooled_error": True,
    "invariant_signal": True,
    "spurious_signal": True,
    "complement_signal": True,
    "worst_environment_loss": True,
    "batch_loss": True,
    "environment_losses": False,
    "spurious_power": False,
    "effective_rank": False,
    "singular_values": False,
    "largest_principal_angle": False,
    "invariant_prediction_error": False,
    "spurious_prediction": False,
    "complement_prediction": False,
}
"""Each metric, and whether it is recorded by default, as those that cost about a step are."""

DEFAULT_METRICS = tuple(name for name, default in METRICS.items() if default)

if TYPE_CHECKING:
    MetricName = str
else:
    MetricName = Literal[tuple(METRICS)]


def metrics_module() -> ModuleType:
    """The module of the metrics. It starts jax."""
    from causal_sgd.sensing import metrics

    return metrics


@dataclasses.dataclass(frozen=True, kw_only=True)
class MetricFields:
    """The metrics and how often they are recorded."""

    record_every: int | None = None
    """Steps between two recorded frames; only the start and the end by default."""
    metrics: tuple[MetricName, ...] = DEFAULT_METRICS
    """What is recorded."""
