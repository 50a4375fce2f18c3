"""The growth rate of a small signal: a Lyapunov exponent measured in runs."""

from __future__ import annotations

import numpy as np
import xarray as xr

from causal_sgd import checks
from causal_sgd.analysis._summaries import metric_names, valid

__all__ = ["growth_rate"]


def growth_rate(dataset: xr.Dataset, metric: str = "spurious_signal") -> xr.Dataset:
    """The mean over valid seeds of log(last / second frame) per step.

    As long as the signal stays small this is an unbiased estimate of the Lyapunov exponent. The
    first frame is left out: the memory of a method (velocity, control variates) is empty before it.
    Use a small initial scale and few steps: in single precision a spurious signal must stay between
    1e-18 and about 1e-2.

    Args:
        dataset: the result of a sweep, with at least three frames.
        metric: a signal, not its square.

    Returns:
        `rate` and its `standard_error`, per step, with the dims of the sweep except `seed` and
        `step`.

    Raises:
        ValueError: if the metric is unknown, or there are fewer than three frames or two seeds.
    """
    values = dataset[checks.choice("metric", metric, metric_names(dataset))]
    if values.sizes.get("step", 1) < 3 or values.sizes.get("seed", 1) < 2:
        raise ValueError(
            f"dataset must have at least three frames and two seeds, got {dict(values.sizes)}"
        )
    values = valid(dataset, values).sortby("step")
    steps = values["step"].values
    ratio = values.isel(step=-1, drop=True) / values.isel(step=1, drop=True)
    rates = np.log(ratio) / (steps[-1] - steps[1])
    return xr.Dataset(
        {
            "rate": rates.mean("seed"),
            "standard_error": rates.std("seed", ddof=1) / np.sqrt(rates.count("seed")),
        }
    )
