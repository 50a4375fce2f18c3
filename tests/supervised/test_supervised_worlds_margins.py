"""Separable worlds, the size of the second bit, and gradients of their losses."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from causal_sgd.supervised import losses, measurements, models, worlds
from causal_sgd.theory.invariance import minority_groups
from causal_sgd.types import Batch
from support.supervised import draw_world

pytestmark = pytest.mark.usefixtures("quickly_compiled")

POINTS = np.array([[[1.0, 5.0], [2.0, 1.0]], [[1.0, -3.0], [0.5, 0.2]]])


def test_separable_examples_lie_on_the_side_of_their_label() -> None:
    shares = np.array([[0.25, 0.75], [0.5, 0.5]])
    world: Any = draw_world(worlds.separable(POINTS, shares=shares, causal=[1]))
    world.check()
    np.testing.assert_array_equal(world.causal, [False, True])
    assert np.isnan(world.target).all()
    x, y = world.draw_examples(jax.random.key(0), jnp.array(1), 4000)
    sides = np.asarray(x * y[:, None])
    first, second = (np.abs(sides - point).max(1) < 1e-6 for point in POINTS[1])
    assert (first | second).all()
    for share in (first.mean(), (y == 1).mean()):
        assert abs(share - 0.5) < 4.5 * 0.5 / 4000**0.5
    products = np.einsum("ena,enb,en->eab", POINTS, POINTS, shares)
    np.testing.assert_allclose(world.second_moments[:, :2, :2], products, rtol=1e-6)
    np.testing.assert_allclose(world.second_moments[:, :3, 3], 0, atol=1e-6)


def test_a_step_on_groups_is_that_of_three_numbers() -> None:
    """The gradient of the table's loss against the map of theory, which has other nodes."""
    numbers = {"margins": np.array([1.0, 1.7]), "largest": 3.5}
    world: Any = draw_world(worlds.minority_groups(minority_share=0.2, **numbers))
    world.check()
    model, measurement = models.linear(dim=3), measurements.counts(losses.logistic)
    data = measurement.init(jax.random.key(0), world)
    params = {"weights": jnp.array([1.5, 0.7, -0.4])}
    batch = Batch(jnp.arange(2), jnp.array([8, 2]))
    step = jnp.zeros((), jnp.int32)
    gradient, _ = measurement.gradient(jax.random.key(1), step, data, model, params, world, batch)
    moved = minority_groups.step(params["weights"], 0.5, minority_share=0.2, **numbers)
    np.testing.assert_allclose(params["weights"] - 0.5 * gradient["weights"], moved, rtol=1e-5)
    np.testing.assert_allclose(world.probabilities, [0.8, 0.2], rtol=1e-6)


def test_margins_of_groups_are_uniform() -> None:
    world: Any = draw_world(worlds.minority_groups(margins=(1.0, 2.0), largest=4.0))
    for group, low in enumerate((1.0, 2.0)):
        z = np.abs(world.inputs[:, 0])
        mass = np.asarray(world.mass[group], float)
        moments = [(mass * z**power).sum() for power in (1, 2, 5)]
        exact = [(4 ** (k + 1) - low ** (k + 1)) / ((k + 1) * (4 - low)) for k in (1, 2, 5)]
        np.testing.assert_allclose(moments, exact, rtol=1e-5)
        inputs = np.asarray(world.inputs)[mass > 0]
        np.testing.assert_array_equal(inputs[:, 0], inputs[:, 1 + group])
        assert not inputs[:, 2 - group].any()


def test_the_second_bit_has_a_size() -> None:
    flips = {"invariant_flip": 0.1, "spurious_flips": (0.2, 0.25)}
    plain: Any = draw_world(worlds.two_bit(**flips))
    sized: Any = draw_world(worlds.two_bit(**flips, colour=3.0))
    scale = np.array([1.0, 3.0, 1.0, 1.0])
    expected = np.asarray(plain.second_moments) * scale[:, None] * scale
    np.testing.assert_allclose(sized.second_moments, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: worlds.separable(np.ones((2, 2))), r"points must have shape \[E, n, p\]"),
        (
            lambda: worlds.separable(POINTS, shares=np.ones((2, 2))),
            "shares must sum to one in every environment",
        ),
        (lambda: worlds.separable(POINTS, causal=[2]), "causal must be a whole number"),
        (lambda: worlds.minority_groups(largest=1.0), r"largest must be above the margins"),
        (lambda: worlds.minority_groups(margins=(1.0,)), r"margins must have shape \[2\]"),
        (lambda: worlds.minority_groups(minority_share=2.0), "minority_share must be"),
        (lambda: worlds.two_bit(colour=0.0), "colour must be a finite number above 0, got 0.0"),
    ],
)
def test_wrong_arguments_of_separable_worlds(make: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        make()
