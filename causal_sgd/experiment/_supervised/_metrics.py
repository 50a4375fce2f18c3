"""What is recorded."""

from __future__ import annotations

from types import ModuleType
from typing import TYPE_CHECKING, Literal

from causal_sgd.experiment._metrics import MetricOption, curvature, default_metrics

__all__ = ["DEFAULT_METRICS", "METRICS", "SupervisedMetricName"]


def _supervised() -> ModuleType:
    from causal_sgd.supervised import metrics

    return metrics


FITTED, TRAINED = "fitted", "trained"

METRICS = {
    "estimation_error": MetricOption(_supervised, default=True),
    "causal_error": MetricOption(_supervised, default=True),
    "noncausal_error": MetricOption(_supervised, default=True),
    "spurious_weight": MetricOption(_supervised, default=True),
    "weights": MetricOption(_supervised),
    "l1_norm": MetricOption(_supervised),
    "support_error": MetricOption(_supervised),
    "margin": MetricOption(_supervised),
    "gates": MetricOption(_supervised, of=TRAINED),
    "split": MetricOption(_supervised, of=TRAINED),
    "failed": MetricOption(_supervised),
    "training_risk": MetricOption(_supervised, default=True),
    "risk_spread": MetricOption(_supervised, default=True),
    "invariance_gap": MetricOption(_supervised, default=True),
    "test_risk": MetricOption(_supervised),
    "worst_test_risk": MetricOption(_supervised),
    "validation_risk": MetricOption(_supervised),
    "training_error": MetricOption(_supervised),
    "validation_error": MetricOption(_supervised),
    "test_error": MetricOption(_supervised),
    "test_errors": MetricOption(_supervised),
    "worst_test_error": MetricOption(_supervised),
    "training_accuracy": MetricOption(_supervised),
    "training_accuracies": MetricOption(_supervised),
    "accuracy": MetricOption(_supervised),
    "accuracies": MetricOption(_supervised),
    "worst_accuracy": MetricOption(_supervised),
    "environment_losses": MetricOption(_supervised),
    "test_losses": MetricOption(_supervised),
    "batch_loss": MetricOption(_supervised, default=True),
    "support": MetricOption(_supervised, of=FITTED),
    "true_selected": MetricOption(_supervised, of=FITTED),
    "spurious_selected": MetricOption(_supervised, of=FITTED),
    "exact_support": MetricOption(_supervised, of=FITTED),
    "accepted_sets": MetricOption(_supervised, of=FITTED),
    "interval_low": MetricOption(_supervised, of=FITTED),
    "interval_high": MetricOption(_supervised, of=FITTED),
    "sharpness": MetricOption(curvature, of=TRAINED),
    "lowest_curvature": MetricOption(curvature, of=TRAINED),
    "environment_sharpness": MetricOption(curvature, of=TRAINED),
    "batch_sharpness": MetricOption(curvature, of=TRAINED),
    "hessian_trace": MetricOption(curvature, of=TRAINED),
}

DEFAULT_METRICS = default_metrics(METRICS)

if TYPE_CHECKING:
    SupervisedMetricName = str
else:
    SupervisedMetricName = Literal[tuple(METRICS)]
