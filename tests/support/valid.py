"""Valid values of the parameters of public functions."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import xarray as xr

import causal_sgd as cs
from causal_sgd import theory
from causal_sgd.sensing import measurements, models, worlds

WORLD = worlds.two_point(dim=6, invariant_rank=2, spurious_rank=1)
RESULTS = xr.Dataset(
    {
        "spurious_signal": (("spread", "seed", "step"), np.ones((3, 4, 4))),
        "diverged_at": (("spread", "seed"), np.full((3, 4), -1)),
    },
    {"spread": [1.0, 2.0, 3.0], "seed": np.arange(4), "step": [0, 1, 2, 3]},
)
# Valid values of parameters by name; others keep their defaults.
VALID: dict[str, Any] = {
    "batch_ratio": 5.0,
    "batch_size": 10,
    "cores": np.eye(2),
    "dataset": RESULTS,
    "depth": 3.0,
    "dim": 6,
    "directions": 2,
    "down": 3.0,
    "draw": lambda key: jnp.eye(2),
    "eigenvalue": 1.0,
    "eigenvalues": np.array([3.0, -2.0]),
    "environments_per_batch": 2,
    "exponent": lambda spreads: 1 - spreads,
    "factor": np.ones((6, 4)),
    "factors": np.array([1.2, 0.5]),
    "family": "two_point",
    "high": 2.0,
    "highest": 5.0,
    "init_scale": 0.01,
    "invariant_rank": 2,
    "key": jax.random.key(0),
    "learning_rate": 0.1,
    "lengths": [10, 20, 30],
    "length": 2,
    "level": 0.5,
    "local_steps": 2,
    "low": 0.5,
    "lowest": -3.0,
    "matrices": np.eye(2)[None],
    "mean": 1.0,
    "measurement": measurements.population(),
    "metric": "spurious_signal",
    "model": models.factored(dim=6),
    "momentum": 0.5,
    "num_chains": 2,
    "num_environments": 2,
    "num_examples": 10,
    "num_steps": 2,
    "optimizer": optax.sgd(0.1),
    "outlier": -5.0,
    "points": 3,
    "probability": 0.5,
    "rank": 3,
    "rounds": 1,
    "sampler": cs.samplers.hetero(batch_size=10),
    "share": 0.5,
    "signal": np.ones(5),
    "signals": np.ones((3, 5)),
    "spectrum": np.ones(2),
    "spread": 4.0,
    "spurious_rank": 1,
    "state": theory.OrderParameters(np.ones((5, 2)), np.eye(2)),
    "up": 5.0,
    "values": np.ones(5),
    "world": WORLD,
}
