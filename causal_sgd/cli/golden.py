"""The golden runs: a small sweep, and its numbers as this version was released with them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib import resources

import numpy as np
import optax

from causal_sgd.analysis import metric_names
from causal_sgd.sensing import measurements, metrics, models, worlds
from causal_sgd.sweeps import sweep
from causal_sgd.training import run, samplers
from causal_sgd.training.algorithms import sgd
from causal_sgd.types import Key, Trace

__all__ = ["FILE", "TOLERANCE", "golden_cell", "golden_numbers", "worst_deviation"]

FILE = "golden.json"
"""The file of this package with the released numbers."""
TOLERANCE = 1e-4
"""The largest relative deviation allowed: float32 and another order of sums, over 30 steps far from
any transition."""
KEY = 2024
SMALL = 1e-2  # smaller numbers are compared absolutely


def golden_cell(key: Key) -> Trace:
    """HeteroSGD with label noise, which uses every random stream but that of data."""
    algorithm = sgd(
        world=worlds.two_point(dim=6, invariant_rank=2, spurious_rank=2, mean=1.0, spread=4.0),
        sampler=samplers.hetero(batch_size=40),
        measurement=measurements.gaussian_law(noise=0.3),
        model=models.factored(dim=6, rank=4, init_scale=0.2),
        optimizer=optax.sgd(0.05),
    )
    recorded = [
        metrics.invariant_error,
        metrics.spurious_signal,
        metrics.singular_values,
        metrics.environment_losses,
    ]
    return run(key, algorithm=algorithm, metrics=recorded, num_steps=30, record_every=10)


def golden_numbers() -> dict[str, list[object]]:
    """Four golden runs by a sweep over all devices: step and metrics -> values."""
    dataset = sweep(golden_cell, seeds=4, key=KEY, tile=2, progress=False)
    return {"step": dataset.step.values.tolist()} | {
        name: dataset[name].values.tolist() for name in metric_names(dataset)
    }


def worst_deviation(numbers: Mapping[str, object]) -> float:
    """The largest relative deviation from the released numbers; infinite if the shapes differ."""
    golden = json.loads(resources.files("causal_sgd.cli").joinpath(FILE).read_text("utf-8"))
    if set(golden) != set(numbers):
        return float("inf")
    worst = 0.0
    for name, values in golden.items():
        expected, got = np.asarray(values), np.asarray(numbers[name])
        if expected.shape != got.shape or not np.isfinite(got).all():
            return float("inf")
        deviation = np.abs(got - expected) / np.maximum(np.abs(expected), SMALL)
        worst = max(worst, float(deviation.max()))
    return worst
