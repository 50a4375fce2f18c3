"""Label noise on a product U U', and the limit that the curvature of its loss predicts."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from causal_sgd.studies._cells import Cell
    from causal_sgd.types import Array, Key, Snapshot, Trace

__all__ = ["EXAMPLES", "LAST", "SIZE", "least_curvature", "matrix_cell"]

SIZE, EXAMPLES = 10, 28  # d and n: other matrices than A*, also positive ones, fit the data
START = 0.5  # of normal entries of U
# Learning rates and the shares of a run at which they begin. The first is small: large steps from
# a large start would flatten the solution by themselves.
LAST = 0.02
RATES = {0.0: 0.005, 0.01: 0.05, 0.4: LAST}
AFTER, EVERY = 0.7, 50
ITERATIONS = 1500


def matrix_cell(steps: int) -> Cell:
    """The cell of U U' on one data set, with label noise delta of one random example.

    Args:
        steps: of a run.
    """
    import jax.numpy as jnp
    import optax

    from causal_sgd.sensing import measurements, models, worlds
    from causal_sgd.training import run, samplers, sgd, time_average

    def estimate(snapshot: Snapshot) -> Array:
        return snapshot.estimate

    def target(snapshot: Snapshot) -> Array:
        return snapshot.world.invariant

    def design(snapshot: Snapshot) -> Array:
        return snapshot.data[0][0]

    def cell(key: Key, *, label: float | Array) -> Trace:
        noise = jnp.asarray(label) * EXAMPLES**0.5
        rates = [*RATES.values()]
        factors = [new / old for old, new in itertools.pairwise(rates)]
        changes = [round(share * steps) for share in RATES][1:]
        rate = optax.piecewise_constant_schedule(rates[0], dict(zip(changes, factors, strict=True)))
        algorithm = sgd(
            world=worlds.two_point(dim=SIZE, invariant_rank=1, spurious_rank=0),
            sampler=samplers.hetero(batch_size=EXAMPLES),
            measurement=measurements.fixed_design(
                num_examples=EXAMPLES, full=True, fresh_noise=noise
            ),
            model=models.factored(dim=SIZE, init="gaussian", init_scale=START),
            optimizer=optax.sgd(rate),
        )
        watched = [estimate, target, design]
        trace = run(key, algorithm=algorithm, metrics=watched, num_steps=steps, record_every=EVERY)
        return time_average(trace, after=AFTER)

    return cell


def least_curvature(design: np.ndarray, target: np.ndarray, penalty: float) -> np.ndarray:
    """The positive matrices that label noise is predicted to find, [S, d, d].

    The minimiser over A >= 0 of sum_i <X_i, A - A*>^2 / (2 n) + penalty <K, A> with K the mean of
    X_i^2, by accelerated proximal steps in double precision. At zero loss 2 <K, U U'> is the trace
    of the Hessian of the loss in U: of (1 / 4n) sum_i <X_i, U U'>^2 it is (2 / n) sum_i |X_i U|^2.

    Args:
        design: X_i of S data sets, [S, n, d, d], symmetric.
        target: A* [S, d, d].
        penalty: (eta / 2) delta^2.
    """
    sets, number = design.shape[:2]
    rows = design.reshape(sets, number, -1).astype(float)
    second = rows.transpose(0, 2, 1) @ rows / number
    curvature = np.einsum("snij,snjk->sik", design, design) / number
    slope = penalty * curvature - (second @ target.reshape(sets, -1, 1)).reshape(target.shape)
    step = 1 / np.linalg.eigvalsh(second)[:, -1, None, None]
    current = ahead = np.zeros(target.shape)
    inertia = 1.0
    for _ in range(ITERATIONS):
        gradient = (second @ ahead.reshape(sets, -1, 1)).reshape(target.shape) + slope
        moved = ahead - step * gradient
        values, vectors = np.linalg.eigh((moved + moved.transpose(0, 2, 1)) / 2)
        new = (vectors * np.maximum(values, 0)[:, None]) @ vectors.transpose(0, 2, 1)
        grown = (1 + (1 + 4 * inertia**2) ** 0.5) / 2
        ahead = new + (inertia - 1) / grown * (new - current)
        current, inertia = new, grown
    return current
