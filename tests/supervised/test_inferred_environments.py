"""Three steps of `algorithms.zin` as its source trains, against differences in NumPy.

Adam's moments go on through the switch, weight decay is added before them, and the ascent of the
split and the descent of the model look at the same point.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import optax
import pytest

from causal_sgd.supervised import losses, measurements, models, worlds
from causal_sgd.training import algorithms

pytestmark = pytest.mark.usefixtures("quickly_compiled")
KEY = jax.random.key(11)
SIZES, WIDTH = (6, 9), 3
DECAY, RATE, SPLIT_RATE, WEIGHT = 0.02, 0.05, 0.03, 30.0


class Adam:
    """Ascent or descent by Adam on a flat vector (Kingma and Ba 2015)."""

    def __init__(self, rate: float) -> None:
        self.rate, self.count, self.first, self.second = rate, 0, 0.0, 0.0

    def move(self, gradient: np.ndarray) -> np.ndarray:
        self.count += 1
        self.first = 0.9 * self.first + 0.1 * gradient
        self.second = 0.999 * self.second + 0.001 * gradient**2
        first = self.first / (1 - 0.9**self.count)
        second = self.second / (1 - 0.999**self.count)
        return self.rate * first / (np.sqrt(second) + 1e-8)


def gradient(value: Callable[[np.ndarray], float], point: np.ndarray) -> np.ndarray:
    """By central differences."""
    steps = 1e-5 * np.eye(len(point))
    return np.array([(value(point + e) - value(point - e)) / 2e-5 for e in steps])


class Source:
    """What the source computes on rows in the order of time, with a model w = (weights, b)."""

    def __init__(self, inputs: np.ndarray, labels: np.ndarray) -> None:
        self.x, self.y = inputs, labels
        self.time = (np.arange(len(labels)) + 0.5) / len(labels)

    def losses(self, w: np.ndarray, scale: float = 1.0) -> np.ndarray:
        return np.log1p(np.exp(-self.y * scale * (self.x @ w[:-1] + w[-1])))

    def shares(self, net: np.ndarray) -> np.ndarray:
        hidden, shift, output = net[:-1].reshape(3, WIDTH)
        inner = np.maximum(self.time[:, None] * hidden[None] + shift[None], 0)
        return 1 / (1 + np.exp(-(inner @ output + net[-1])))

    def penalty(self, w: np.ndarray, net: np.ndarray) -> float:
        q = self.shares(net)
        slopes = (self.losses(w, 1 + 1e-5) - self.losses(w, 1 - 1e-5)) / 2e-5
        return float(np.mean(q * slopes) ** 2 + np.mean((1 - q) * slopes) ** 2)

    def objective(self, w: np.ndarray, net: np.ndarray, weight: float) -> float:
        return float((self.losses(w).mean() + weight * self.penalty(w, net)) / (1 + weight))


def flat(split: Any) -> np.ndarray:
    parts = (split[name] for name in ("hidden", "shift", "output", "level"))
    return np.concatenate([np.ravel(np.asarray(part, float)) for part in parts])


def test_an_ascent_a_step_of_erm_and_a_penalised_step_are_those_of_the_source() -> None:
    method = algorithms.zin(
        world=worlds.zin_logit(dim_causal=1, dim_spurious=2),
        measurement=measurements.examples(SIZES, loss=losses.logistic),
        model=models.linear(dim=3, intercept=True, init_scale=0.7),
        optimizer=optax.chain(optax.add_decayed_weights(DECAY), optax.adam(RATE)),
        split_optimizer=optax.adam(SPLIT_RATE),
        weight=WEIGHT,
        start=2,
        hidden=WIDTH,
    )
    state: Any = jax.jit(method.init)(KEY)
    rows = state.data.rows
    inputs, labels = (
        np.concatenate([np.asarray(part[e, :n], float) for e, n in enumerate(SIZES)])
        for part in (rows.inputs, rows.labels)
    )
    source = Source(inputs, labels)
    w = np.append(state.params["weights"], state.params["intercept"]).astype(float)
    net, of_model, of_split = flat(state.split), Adam(RATE), Adam(SPLIT_RATE)

    @jax.jit
    def step(state: Any) -> tuple[Any, Any]:
        state = method.step(KEY, state)
        return state, method.snapshot(KEY, state).split

    seen = None
    for number in range(3):
        weight = 0.0 if number < 2 else WEIGHT

        def value(point: np.ndarray, net: np.ndarray = net, weight: float = weight) -> float:
            return source.objective(point, net, weight)

        height = value(w)
        descent = of_model.move(gradient(value, w) + DECAY * w)
        if number < 2:
            net = net + of_split.move(gradient(lambda n, w=w: source.penalty(w, n), net))
        w = w - descent
        state, seen = step(state)
        found = np.append(state.params["weights"], state.params["intercept"])
        np.testing.assert_allclose(found, w, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(flat(state.split), net, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(state.loss, height, rtol=1e-5)
    assert seen is not None
    q = np.concatenate([np.asarray(seen[e, :n]) for e, n in enumerate(SIZES)])
    np.testing.assert_allclose(q, source.shares(net), rtol=1e-4)
