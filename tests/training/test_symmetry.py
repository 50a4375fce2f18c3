"""Order parameters accept the optimizers that commute with rotations, and refuse others by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
import optax.contrib
import pytest

from causal_sgd.sensing import measurements, models, worlds
from causal_sgd.training import algorithms, optimizers, samplers
from causal_sgd.types import Algorithm
from support.cases import few
from training.test_optax import ROWS as TRANSFORMATIONS

MESSAGE = "^optimizer must commute with rotations"
# By hand: these act by products with numbers that depend on norms and inner products of whole
# arrays, or of their columns. All others act on single entries, draw noise, or keep a state that is
# no array of the shape of the parameters.
SYMMETRIC = {
    "adaptive_grad_clip", "add_decayed_weights", "apply_every", "centralize",
    "clip_by_global_norm", "conditionally_mask", "conditionally_transform", "contrib.dog",
    "contrib.dowg", "contrib.mechanize", "contrib.momo", "contrib.muon", "contrib.normalize",
    "contrib.reduce_on_plateau", "contrib.sam", "contrib.scale_by_muon", "contrib.schedule_free",
    "contrib.schedule_free_sgd", "ema", "freeze", "fromage", "identity", "lars",
    "normalize_by_update_norm", "novograd", "optimistic_gradient_descent", "polyak_sgd", "scale",
    "scale_by_backtracking_linesearch", "scale_by_distance_over_gradients",
    "scale_by_learning_rate", "scale_by_novograd", "scale_by_optimistic_gradient",
    "scale_by_param_block_norm", "scale_by_polyak", "scale_by_schedule", "scale_by_trust_ratio",
    "scale_by_zoom_linesearch", "set_to_zero", "sgd", "snapshot", "stateless",
    "stateless_with_tree_map", "trace", "zero_nans",
}  # fmt: skip
OWN: dict[str, tuple[Callable[[], Any], bool]] = {
    "momentum": (lambda: optax.sgd(0.1, momentum=0.9, nesterov=True), True),
    "rare updates": (lambda: optax.MultiSteps(optax.sgd(0.1, momentum=0.5), 50), True),
    "rare updates of adam": (lambda: optax.MultiSteps(optax.adam(0.1), 50), False),
    "large clip": (lambda: optax.chain(optax.clip(1e3), optax.sgd(0.1)), False),
    "late clip": (
        lambda: optax.conditionally_transform(
            optax.clip(0.1), lambda step, **_: jnp.greater(step, 10**6)
        ),
        False,
    ),
    "only finite": (lambda: optax.apply_if_finite(optax.sgd(0.1), 3), True),
    "flat momentum": (lambda: optax.flatten(optax.sgd(0.1, momentum=0.9)), False),
    "moving average": (
        lambda: optax.chain(optax.sgd(0.1), optimizers.moving_average(decay=0.9)),
        True,
    ),
    "tail average": (lambda: optax.chain(optax.sgd(0.1), optimizers.tail_average(start=9)), True),
    "sam": (lambda: optimizers.sam(optax.sgd(0.1), radius=0.1), True),
    "langevin": (lambda: optimizers.langevin(0.1, temperature=1e-3), False),
    "scaled": (lambda: optax.chain(optimizers.scaled(damping=0.1), optax.sgd(0.1)), True),
}


def algorithm_of(optimizer: Any, slots: int = 3) -> Algorithm:
    model = models.order_parameters(dim=100, rank=2, frame=2, slots=slots)
    return algorithms.sgd(
        world=worlds.reduced(
            worlds.two_point(dim=2, invariant_rank=1, spurious_rank=1), rows=model.rows
        ),
        sampler=samplers.hetero(batch_size=9),
        measurement=measurements.order_parameter_law(),
        model=model,
        optimizer=optimizer,
    )


def start(optimizer: Any, slots: int = 3) -> Any:
    return jax.eval_shape(algorithm_of(optimizer, slots).init, jax.random.key(0))


def verdict(optimizer: Any) -> bool:
    """Whether an optimizer is accepted; other errors are raised."""
    try:
        start(optimizer)
    except ValueError as error:
        if not str(error).startswith(MESSAGE[1:]):
            raise
        return False
    return True


@pytest.mark.parametrize("name", few(TRANSFORMATIONS, {"sgd", "sign_sgd", "lbfgs"}))
def test_the_transformations_of_optax_that_commute_are_accepted(name: str) -> None:
    with jax.numpy_rank_promotion("allow"):
        assert verdict(TRANSFORMATIONS[name]()) == (name in SYMMETRIC)


@pytest.mark.parametrize("name", few(OWN, {"rare updates of adam"}))
def test_what_commutes_only_sometimes_is_refused(name: str) -> None:
    make, expected = OWN[name]
    assert verdict(make()) == expected


@pytest.mark.parametrize("kind", [optax.adam, optax.sgd])
def test_traced_numbers_do_not_hide_the_symmetry(kind: Any) -> None:
    def begin(key: jax.Array, rate: jax.Array) -> Any:
        return algorithm_of(kind(rate)).init(key)

    keys, rates = jax.random.split(jax.random.key(0), 2), jnp.array([0.1, 0.2])
    if kind is optax.sgd:
        jax.eval_shape(jax.vmap(begin), keys, rates)
    else:
        with pytest.raises(ValueError, match=MESSAGE):
            jax.eval_shape(jax.vmap(begin), keys, rates)


def test_more_buffers_than_slots_are_refused() -> None:
    def step(key: jax.Array, slots: int) -> Any:
        algorithm = algorithm_of(optax.sgd(0.1, momentum=0.9), slots)
        return algorithm.step(key, algorithm.init(key))

    with pytest.raises(ValueError, match="^slots must be at least 2 .* 1 buffers .* got 1"):
        jax.eval_shape(lambda key: step(key, 1), jax.random.key(0))
    jax.eval_shape(lambda key: step(key, 2), jax.random.key(0))
