"""Times, scales and shares of the study `incremental-learning`, measured and predicted."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from causal_sgd.studies.sensing._incremental import (
    BETWEEN,
    DEEP_RATE,
    LEVELS,
    ORDER,
    POWER,
    SCALES,
    SEPARATED,
    SPREADS,
    TIMED,
)

if TYPE_CHECKING:
    import xarray as xr
    from jax.typing import ArrayLike

__all__ = [
    "flow_scale",
    "learned",
    "least",
    "predicted_remainders",
    "predicted_shares",
    "predicted_times",
    "remainders",
    "reversal",
    "reversing",
    "separating",
    "shares",
    "stopped",
    "times",
]


def times(dataset: xr.Dataset, share: float) -> np.ndarray:
    """The steps [scale, eigenvalue] at which each reaches a share of its eigenvalue."""
    steps, columns = dataset.step.values, []
    for index, level in enumerate(LEVELS):
        curves = dataset[f"level_{index}"].isel(seed=0).transpose("init_scale", "step").values
        after = np.argmax(curves >= share * level, 1)
        rows = np.arange(len(curves))
        low, high = curves[rows, after - 1], curves[rows, after]
        fraction = (share * level - low) / (high - low)
        columns.append(steps[after - 1] + fraction * (steps[after] - steps[after - 1]))
    return np.stack(columns, -1)


def predicted_times(depth: int, share: float) -> np.ndarray:
    """The same by the closed form."""
    from causal_sgd import theory

    return np.asarray(
        theory.incremental_times(
            np.array(LEVELS),
            learning_rate=DEEP_RATE,
            init_scale=SCALES[depth][:, None],
            depth=depth,
            share=share,
        )
    )


def remainders(dataset: xr.Dataset) -> np.ndarray:
    """The share [scale] of the second eigenvalue when the first has reached its own."""
    moments = times(dataset, SEPARATED)[:, 0]
    curves = dataset.level_1.isel(seed=0).transpose("init_scale", "step").values
    steps = dataset.step.values
    return (
        np.array([np.interp(t, steps, c) for t, c in zip(moments, curves, strict=True)]) / LEVELS[1]
    )


def predicted_remainders(depth: int) -> np.ndarray:
    from causal_sgd import theory

    levels = theory.incremental_level(
        predicted_times(depth, SEPARATED)[:, 0],
        LEVELS[1],
        learning_rate=DEEP_RATE,
        init_scale=SCALES[depth],
        depth=depth,
    )
    return np.asarray(levels) / LEVELS[1]


def separating(depth: int, remainders: np.ndarray) -> float:
    """The scale at which the second eigenvalue has the rest of the share, from shares [scale]."""
    logs = np.interp(np.log(1 - SEPARATED), np.log(remainders), np.log(SCALES[depth]))
    return float(np.exp(logs))


def flow_scale(depth: int, ratio: ArrayLike) -> np.ndarray:
    from causal_sgd import theory

    return np.asarray(theory.incremental_scale(1.0, ratio, depth=depth, share=SEPARATED))


def least(dataset: xr.Dataset, target: str) -> np.ndarray:
    """The least distance [scale] on the way to a target."""
    return dataset[target].isel(seed=0).min("step").values


def shares(dataset: xr.Dataset) -> xr.DataArray:
    """The share of the seeds whose invariant direction arrives first; ties count half."""
    invariant, spurious = (dataset[kind].isel(step=-1) for kind in ("invariant", "spurious"))
    spurious = spurious.fillna(np.inf)
    return ((spurious > invariant) + 0.5 * (spurious == invariant)).mean("seed")


def predicted_shares(spread: np.ndarray) -> np.ndarray:
    from causal_sgd import theory

    shares = theory.invariant_first(
        ORDER.learning_rate,
        ORDER.mean,
        spread,
        eigenvalue=1.0,
        init_scale=ORDER.init_scale,
        level=POWER**0.5,
    )
    return np.asarray(shares)


def reversal(dataset: xr.Dataset) -> float:
    """The M at which the mean time of the spurious direction is that of the invariant one."""
    means = {
        kind: dataset[kind].isel(step=-1).mean("seed").values for kind in ("invariant", "spurious")
    }
    ratios = means["spurious"] / means["invariant"]
    return float(np.interp(1, ratios[TIMED], SPREADS[TIMED]))


def reversing() -> float:
    from causal_sgd import theory

    return float(theory.reversing_spread(ORDER.learning_rate, ORDER.mean, 1.0))


def learned() -> float:
    """The step at which pooled or any training has learned A* to the share."""
    from causal_sgd import theory

    return float(
        theory.incremental_times(
            1.0,
            learning_rate=2 * ORDER.learning_rate,
            init_scale=ORDER.init_scale,
            share=SEPARATED,
        )
    )


def stopped(dataset: xr.Dataset) -> tuple[np.ndarray, float]:
    """|V'U| [seed] when A* is learned to the share, and that step."""
    frame = dataset.spurious_signal.sel(spread=BETWEEN).sel(step=learned(), method="nearest")
    return frame.values, float(frame.step)
