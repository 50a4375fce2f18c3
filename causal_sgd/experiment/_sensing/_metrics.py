"""What is recorded."""

from __future__ import annotations

from types import ModuleType
from typing import TYPE_CHECKING, Literal

from causal_sgd.experiment._metrics import MetricOption, curvature, default_metrics

__all__ = ["DEFAULT_METRICS", "METRICS", "MetricName"]


def _sensing() -> ModuleType:
    from causal_sgd.sensing import metrics

    return metrics


METRICS = {
    "invariant_error": MetricOption(_sensing, default=True),
    "pooled_error": MetricOption(_sensing, default=True),
    "relative_invariant_error": MetricOption(_sensing, default=True),
    "relative_pooled_error": MetricOption(_sensing, default=True),
    "invariant_signal": MetricOption(_sensing, default=True),
    "spurious_signal": MetricOption(_sensing, default=True),
    "complement_signal": MetricOption(_sensing, default=True),
    "worst_environment_loss": MetricOption(_sensing, default=True),
    "batch_loss": MetricOption(_sensing, default=True),
    "environment_losses": MetricOption(_sensing),
    "training_loss": MetricOption(_sensing),
    "gradient_norm": MetricOption(_sensing),
    "spurious_power": MetricOption(_sensing),
    "effective_rank": MetricOption(_sensing),
    "singular_values": MetricOption(_sensing),
    "largest_principal_angle": MetricOption(_sensing),
    "trace": MetricOption(_sensing),
    "imbalance": MetricOption(_sensing),
    "layer_alignment": MetricOption(_sensing),
    "invariant_prediction_error": MetricOption(_sensing),
    "spurious_prediction": MetricOption(_sensing),
    "complement_prediction": MetricOption(_sensing),
    "sharpness": MetricOption(curvature),
    "lowest_curvature": MetricOption(curvature),
    "environment_sharpness": MetricOption(curvature),
    "batch_sharpness": MetricOption(curvature),
    "hessian_trace": MetricOption(curvature),
}

DEFAULT_METRICS = default_metrics(METRICS)

if TYPE_CHECKING:
    MetricName = str
else:
    MetricName = Literal[tuple(METRICS)]
