"""Synthetic sweeps for the tests of the explorer."""

from __future__ import annotations

import functools

import numpy as np
import xarray as xr

SPREADS, RATES, STEPS = np.linspace(0, 9, 7), np.geomspace(0.02, 0.2, 5), np.arange(0, 50, 10)


def diagram(
    seed: int = 0, *, spreads: np.ndarray = SPREADS, rates: np.ndarray = RATES, seeds: int = 6
) -> xr.Dataset:
    """A synthetic sweep with positive numbers; some runs and all of one corner diverged."""
    rng = np.random.default_rng(seed)
    shape = len(spreads), len(rates), seeds
    diverged = np.where(rng.uniform(size=shape) < 0.1, 7, -1)
    diverged[-1, -1] = 3
    dims = ("spread", "learning_rate", "seed")
    metrics = {
        name: ((*dims, "step"), rng.lognormal(size=(*shape, len(STEPS))))
        for name in ("batch_loss", "spurious_signal")
    }
    coordinates = {
        "spread": spreads,
        "learning_rate": rates,
        "seed": np.arange(seeds),
        "step": STEPS,
    }
    return xr.Dataset(metrics | {"diverged_at": (dims, diverged)}, coordinates)


@functools.cache
def deep() -> xr.Dataset:
    """Two methods, three batch sizes, and metrics that are a vector, a long one and complex."""
    variants = [
        xr.concat(
            [diagram(3 * row + column) for column in range(3)],
            xr.Variable("batch_size", [40, 10, 20]),
        )
        for row in range(2)
    ]
    dataset = xr.concat(variants, xr.Variable("variant", ["erm", "irmv1"]))
    dims = dataset["batch_loss"].dims
    shape = dataset["batch_loss"].shape
    rng = np.random.default_rng(5)
    dataset["weights"] = ((*dims, "weights_0"), rng.normal(size=(*shape, 3)))
    dataset["spectrum"] = ((*dims, "spectrum_0"), rng.normal(size=(*shape, 17)))
    dataset["root"] = (dims, rng.normal(size=shape) + 1j)
    return dataset
