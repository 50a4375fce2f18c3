"""The data that the tests of figures draw, and what they read from figures."""

from __future__ import annotations

import matplotlib as mpl
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

RATES = np.geomspace(0.02, 0.2, 4)
SPREADS = np.array([0.0, 1.0, 2.0, 3.0, 4.0])
STEPS = np.array([0, 50, 100])
SEEDS = 8


def empty_axes() -> Axes:
    return FigureCanvasAgg(Figure(figsize=(5, 4))).figure.add_subplot()


def partly_diverged() -> xr.Dataset:
    """At the last learning rate 1, 3, 4, 6 and 8 of 8 seeds diverged; cell (0, 4) was not run."""
    rng = np.random.default_rng(0)
    dims = ("learning_rate", "spread", "seed", "step")
    shape = (len(RATES), len(SPREADS), SEEDS, len(STEPS))
    signal, error = rng.uniform(0.5, 2, shape), rng.uniform(1, 3, shape)
    diverged_at = np.full(shape[:3], -1)
    for column, count in enumerate((1, 3, 4, 6, 8)):
        diverged_at[-1, column, :count] = 60
    for values in (signal, error):
        values[..., -1][diverged_at >= 0] = np.inf
        values[0, 4] = np.nan
    return xr.Dataset(
        {
            "spurious_signal": (dims, signal),
            "my_metric": (dims, error),
            "diverged_at": (dims[:3], diverged_at),
        },
        {"learning_rate": RATES, "spread": SPREADS, "seed": np.arange(SEEDS), "step": STEPS},
    )


def by_hand(cell: xr.Dataset, metric: str = "spurious_signal") -> np.ndarray:
    """The 0.1, 0.5 and 0.9 quantiles over the seeds that stayed finite, [3, ...]."""
    finite = cell[metric].transpose("seed", ...).values[cell.diverged_at.values < 0]
    return np.quantile(finite, [0.1, 0.5, 0.9], axis=0)


def entries(legend: mpl.legend.Legend | None) -> list[str]:  # pyright: ignore[reportAttributeAccessIssue]
    return [text.get_text() for text in legend.get_texts()] if legend else []
