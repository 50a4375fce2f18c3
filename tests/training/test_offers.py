"""What an optimizer is offered beside the gradient belongs to the same examples.

A transformation that records what it receives: the derivative of the offered loss, by finite
differences in double precision, is the gradient. Exact laws cannot offer it and are refused.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib
import pytest

from causal_sgd.sensing import models, worlds
from causal_sgd.training import algorithms, optimizers
from support.cases import few
from support.contracts import DIM, MEASUREMENTS, RANKS, SAMPLERS, make

pytestmark = pytest.mark.usefixtures("quickly_compiled")
LAWS = {"gaussian_law", "low_rank_law"}
REDUCED = {"order_parameter_law", "order_parameter_limit"}  # of another model
METHODS: dict[str, dict[str, Any]] = {
    "sgd": {},
    "fedavg": {"local_steps": 2},
    "fedprox": {"local_steps": 2, "proximal": 0.7},
    "scaffold": {"local_steps": 2},
}
STEP = 1e-5


def recorder(seen: list[np.ndarray]) -> optax.GradientTransformationExtraArgs:
    """Plain steps that append six numbers of every update to a list.

    They are value and value_fn(params), and derivatives along a direction: of value_fn by finite
    differences and by jax, and those of `grad` and `grad_fn(params)`.
    """

    def update(
        updates: Any, state: Any, params: Any = None, **offered: Any
    ) -> tuple[Any, optax.OptState]:
        assert offered["obj_fn"] is offered["value_fn"]
        way = jnp.cos(jnp.arange(params.size, dtype=params.dtype)).reshape(params.shape)
        points = params[None] + jnp.array([0, STEP, -STEP])[:, None, None] * way[None]
        # One program for all points.
        values, slopes = jax.lax.map(jax.value_and_grad(offered["value_fn"]), points)
        slope = offered["grad_fn"](params, jnp.asarray(0))
        derivatives = [jnp.vdot(one, way) for one in (slopes[0], offered["grad"], slope)]
        difference = (values[1] - values[2]) / (2 * STEP)
        row = jnp.stack([offered["value"], values[0], difference, *derivatives])
        jax.debug.callback(lambda row: seen.append(np.asarray(row)), row)
        return jax.tree.map(lambda leaf: -0.05 * leaf, updates), state

    return optax.GradientTransformationExtraArgs(lambda params: (), update)


def step(name: str, measurement: str, sampler: str, optimizer: Any) -> None:
    """One step, or round, of a method with its parts by name."""
    numbers = {**SAMPLERS[sampler].numbers, "batch_size": 8}
    algorithm = getattr(algorithms, name)(
        world=worlds.two_point(**RANKS),
        sampler=make("samplers", sampler, **numbers),
        measurement=make("measurements", measurement, **MEASUREMENTS[measurement].numbers),
        model=models.factored(dim=DIM, rank=3, init="gaussian", init_scale=0.5),
        optimizer=optimizer,
        **METHODS[name],
    )

    @jax.jit
    def last(key: jax.Array) -> Any:
        return algorithm.step(key, algorithm.init(key))

    jax.block_until_ready(last(jax.random.key(0)))
    jax.effects_barrier()


CASES = [
    (name, measurement, sampler)
    for name in METHODS
    for measurement in MEASUREMENTS
    if measurement not in LAWS | REDUCED
    for sampler in SAMPLERS
]
QUICK = {("sgd", "streamed", "hetero")}
# Each method once, and each measurement and sampler with the plainest ones.
SLOW = [
    case
    for case in CASES
    if (case[0] == "sgd") + (case[1] == "population") + (case[2] == "pooled") >= 2
]


@pytest.mark.parametrize(("name", "measurement", "sampler"), few(CASES, QUICK, SLOW))
def test_the_loss_that_is_offered_has_the_gradient_beside_it(
    name: str, measurement: str, sampler: str
) -> None:
    seen: list[np.ndarray] = []
    with jax.enable_x64(True):
        step(name, measurement, sampler, recorder(seen))
    assert seen
    for value, same, *derivatives in seen:
        np.testing.assert_allclose(same, value, rtol=1e-9)
        np.testing.assert_allclose(derivatives, derivatives[0], rtol=1e-6, atol=1e-9)


OPTIMIZERS = {
    "line search": optax.chain(optax.sgd(0.1), optax.scale_by_backtracking_linesearch(3)),
    "L-BFGS": optax.lbfgs(),
    "Sophia": optax.contrib.sophia(0.1),
    "sam": optimizers.sam(optax.sgd(0.1), radius=0.1),
}


REFUSED = [
    (name, measurement, optimizer)
    for name in METHODS
    for measurement in sorted(LAWS)
    for optimizer in OPTIMIZERS
]
FAST = {("sgd", "gaussian_law", optimizer) for optimizer in OPTIMIZERS}


@pytest.mark.parametrize(("name", "measurement", "optimizer"), few(REFUSED, FAST))
def test_an_exact_law_is_refused_by_what_looks_elsewhere(
    name: str, measurement: str, optimizer: str
) -> None:
    with pytest.raises(ValueError, match=f"^measurement must draw the same .*got {measurement}"):
        jax.eval_shape(lambda: step(name, measurement, "pooled", OPTIMIZERS[optimizer]))
