"""A small sweep of six tiles for executors, and cells of it that fail."""

from __future__ import annotations

import functools
import os
import signal
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import xarray as xr

from causal_sgd.experiment import Experiment
from causal_sgd.sweeps import sweep
from causal_sgd.types import Trace

AXES = {"spread": [0.0, 2.0, 4.0], "learning_rate": [0.05, 0.2]}
SMALL = Experiment(
    dim=3,
    invariant_rank=1,
    spurious_rank=1,
    measurement="population",
    model="diagonal",
    basis="canonical",
    steps=20,
    metrics=("spurious_signal",),
)
CELL = SMALL.cell()
OPTIONS: dict[str, Any] = {"axes": AXES, "seeds": 4, "tile": 4}  # six tiles


@functools.cache
def reference() -> xr.Dataset:
    return sweep(CELL, **OPTIONS)


def poisoned(kind: str, where: float) -> Callable[..., Trace]:
    """A cell that fails while it runs at one value of the spread."""

    def fail(spread: np.ndarray) -> np.ndarray:
        if spread == where and kind == "raise":
            raise ArithmeticError("poison")
        if spread == where and kind == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        return np.zeros((), np.float32)

    def cell(key: jax.Array, *, spread: Any, learning_rate: Any) -> Trace:
        zero = jax.pure_callback(
            fail, jax.ShapeDtypeStruct((), np.float32), spread, vmap_method="sequential"
        )
        return CELL(key, spread=spread + zero, learning_rate=learning_rate)

    return cell
