"""Clients of one batch: each has the law of its own pure batch, and they are independent.

Features and error rates are those of test_law.py.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from causal_sgd.sensing import measurements, models
from causal_sgd.sensing.models import MatrixModel
from causal_sgd.types import Batch
from support.law import DIM, closed_form, features, judge, low_moments, make_case

READ_OUT = MatrixModel(init=lambda key: jnp.zeros((DIM, DIM)), estimate=lambda params: params)
COUNTS = [7, 0, 5]
DRAWS = 50_000


@pytest.mark.slow
@pytest.mark.parametrize("noise", [0.0, 0.7])
@pytest.mark.parametrize("name", ["gaussian_law", "low_rank_law", "streamed"])
def test_clients_are_independent_pure_batches(name: str, noise: float) -> None:
    case = make_case(COUNTS, cores=[0, 1, 2])
    options = {"slab_size": 4} if name == "streamed" else {}
    measurement = getattr(measurements, name)(noise=noise, **options)
    assert measurement.client is not None
    batch = Batch(jnp.arange(3), jnp.asarray(COUNTS, jnp.int32))
    low = name == "low_rank_law"
    model = models.factored(dim=DIM) if low else READ_OUT
    params = jnp.linalg.cholesky(case.estimate) if low else jnp.asarray(case.estimate)

    def one(key: jax.Array) -> tuple[jax.Array, jax.Array]:
        data = measurement.init(jax.random.key(0), case.world)
        step = jnp.zeros((), jnp.int32)

        def client(position: jax.Array) -> tuple[jax.Array, jax.Array]:
            gradient, loss = measurement.client(
                key, step, data, model, params, case.world, batch, position
            )
            if low:
                solve = jax.scipy.linalg.solve_triangular
                return solve(params, gradient.T, lower=True, trans=1).T, loss
            return 2 * gradient, loss

        return jax.vmap(client)(jnp.arange(3))

    keys = jax.random.split(jax.random.key(5), DRAWS)
    gradients, losses = map(np.asarray, jax.jit(jax.vmap(one))(keys))
    assert not gradients[:, 1].any()
    assert not losses[:, 1].any()
    drawn = {}
    for place in (0, 2):
        drawn[place] = features(gradients[:, place], losses[:, place])
        alone = case._replace(
            counts=case.counts[place : place + 1],
            world=case.world._replace(
                spurious_cores=case.world.spurious_cores[place : place + 1],
                probabilities=jnp.ones(1),
            ),
        )
        judge(low_moments(drawn[place], *closed_form(alone, noise)), enough=100)
    first, second = ((draws - draws.mean(0)) / draws.std(0) for draws in drawn.values())
    # products up to the second power see what the independent sizes would share
    judge((first.T @ second / np.sqrt(DRAWS)).ravel(), enough=200)
    squares = [values**2 - 1 for values in (first, second)]
    squares = [values / values.std(0) for values in squares]
    judge((squares[0].T @ squares[1] / np.sqrt(DRAWS)).ravel(), enough=200)
