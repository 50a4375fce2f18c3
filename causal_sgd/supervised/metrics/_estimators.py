"""What estimators choose."""

from __future__ import annotations

import jax.numpy as jnp

from causal_sgd.supervised.metrics._common import check, judged
from causal_sgd.types import Array, Fit, Snapshot

__all__ = [
    "accepted_sets",
    "exact_support",
    "interval_high",
    "interval_low",
    "spurious_selected",
    "support",
    "true_selected",
]


def support(snapshot: Snapshot) -> Array:
    """1 for each chosen input, else 0; of estimators only; [p]."""
    check(snapshot, "support")
    fit = _fit(snapshot, "support")
    return fit.support.astype(fit.estimate.dtype)


def true_selected(snapshot: Snapshot) -> Array:
    """The number of causal inputs that are chosen; of estimators only; []."""
    check(snapshot, "true_selected")
    chosen = _fit(snapshot, "true_selected").support
    return judged(snapshot, jnp.sum(chosen & snapshot.world.causal), axes=True)


def spurious_selected(snapshot: Snapshot) -> Array:
    """The number of chosen inputs that are not causal; of estimators only; []."""
    check(snapshot, "spurious_selected")
    chosen = _fit(snapshot, "spurious_selected").support
    return judged(snapshot, jnp.sum(chosen & ~snapshot.world.causal), axes=True)


def exact_support(snapshot: Snapshot) -> Array:
    """1 if the chosen inputs are the causal ones, else 0; of estimators only; []."""
    check(snapshot, "exact_support")
    chosen = _fit(snapshot, "exact_support").support
    return judged(snapshot, jnp.all(chosen == snapshot.world.causal), axes=True)


def accepted_sets(snapshot: Snapshot) -> Array:
    """The number of sets that a test accepted, -1 where none is tested; of estimators only; []."""
    check(snapshot, "accepted_sets")
    return _fit(snapshot, "accepted_sets").accepted


def interval_low(snapshot: Snapshot) -> Array:
    """Lower ends of the confidence intervals, NaN where there are none; of estimators only; [p]."""
    check(snapshot, "interval_low")
    return _fit(snapshot, "interval_low").low


def interval_high(snapshot: Snapshot) -> Array:
    """Upper ends of the confidence intervals, NaN where there are none; of estimators only; [p]."""
    check(snapshot, "interval_high")
    return _fit(snapshot, "interval_high").high


def _fit(snapshot: Snapshot, metric: str) -> Fit:
    if not isinstance(snapshot.params, Fit):
        raise ValueError(
            f"metric {metric} must see the fit of an estimator (algorithms.fitted), got "
            f"parameters of {type(snapshot.params).__name__}"
        )
    return snapshot.params
