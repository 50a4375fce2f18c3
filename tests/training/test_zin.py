"""Inferred environments against a plain loop, in both phases, and what they find."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from causal_sgd.supervised import losses, measurements, metrics, models, worlds
from causal_sgd.training import algorithms

pytestmark = pytest.mark.usefixtures("quickly_compiled")
KEY = jax.random.key(2)
PARTS: dict[str, Any] = {
    "world": worlds.zin_logit(dim_causal=2, dim_spurious=1),
    "measurement": measurements.examples((7, 5), loss=losses.logistic),
    "model": models.linear(dim=3, intercept=True, init_scale=0.5),
    "optimizer": optax.sgd(0.3),
    "split_optimizer": optax.sgd(2.0),
    "weight": 20.0,
    "start": 3,
    "hidden": 4,
}


def trained(**changes: Any) -> Any:
    """A number of steps -> the last state and the metric of the split."""
    method = algorithms.zin(**PARTS | changes)

    @jax.jit
    def last(steps: jax.Array) -> Any:
        step = functools.partial(method.step, KEY)
        state = jax.lax.fori_loop(0, steps, lambda _, before: step(before), method.init(KEY))
        return state, metrics.split(method.snapshot(KEY, state))

    return last


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


class Plain:
    """The method with free logits, or with a network of the time, example by example in NumPy."""

    def __init__(self, start: Any) -> None:
        rows = start.data.rows
        sizes = [7, 5]
        self.x = np.concatenate([rows.inputs[e, :n] for e, n in enumerate(sizes)]).astype(float)
        self.x = np.column_stack([self.x, np.ones(12)])
        self.y = np.concatenate([rows.labels[e, :n] for e, n in enumerate(sizes)]).astype(float)
        self.w = np.append(start.params["weights"], start.params["intercept"]).astype(float)
        self.split: Any = jax.tree.map(lambda leaf: np.asarray(leaf, float), start.split)
        self.time = (np.arange(12) + 0.5) / 12

    def shares(self) -> np.ndarray:
        if not isinstance(self.split, dict):
            return sigmoid(np.concatenate([self.split[0], self.split[1, :5]]))
        self.inner = self.time[:, None] @ self.split["hidden"] + self.split["shift"]
        return sigmoid(np.maximum(self.inner, 0) @ self.split["output"] + self.split["level"])

    def slopes(self) -> tuple[np.ndarray, np.ndarray]:
        """The derivative of every loss in the scale, and its gradient in w."""
        f = self.x @ self.w
        miss = sigmoid(-self.y * f)
        curve = miss * (1 - miss)
        return -miss * self.y * f, (curve * f - miss * self.y)[:, None] * self.x

    def step(self, early: bool) -> float:
        d, gradients = self.slopes()
        q = self.shares()
        inside, outside = np.mean(q * d), np.mean((1 - q) * d)
        f = self.x @ self.w
        mean = np.mean(np.log1p(np.exp(-self.y * f)))
        slope = np.mean(-(sigmoid(-self.y * f) * self.y)[:, None] * self.x, 0)
        weight = 0.0 if early else 20.0
        along = 2 * inside * np.mean(q[:, None] * gradients, 0)
        along += 2 * outside * np.mean((1 - q)[:, None] * gradients, 0)
        value = (mean + weight * (inside**2 + outside**2)) / (1 + weight)
        if early:
            self.ascend(2.0 * q * (1 - q) * 2 * (inside - outside) * d / 12)
        self.w = self.w - 0.3 * (slope + weight * along) / (1 + weight)
        return float(value)

    def ascend(self, change: np.ndarray) -> None:
        """Move the split by the changes of every logit."""
        if not isinstance(self.split, dict):
            self.split[0] += change[:7]
            self.split[1, :5] += change[7:]
            return
        features, back = np.maximum(self.inner, 0), (self.inner > 0) * self.split["output"]
        moves = {
            "output": features.T @ change,
            "level": change.sum(),
            "shift": (back * change[:, None]).sum(0),
            "hidden": self.time[None] @ (back * change[:, None]),
        }
        self.split = {name: self.split[name] + moves[name] for name in moves}


@pytest.mark.parametrize("auxiliary", [pytest.param("time", marks=pytest.mark.slow), "free"])
def test_both_phases_are_those_of_a_plain_loop(auxiliary: str) -> None:
    last = trained(auxiliary=auxiliary)
    plain = Plain(last(0)[0])
    value = float(np.nan)
    for step in range(6):
        value = plain.step(step < 3)
    found, split = last(6)
    close = functools.partial(np.testing.assert_allclose, rtol=2e-5, atol=2e-6)
    close(np.append(found.params["weights"], found.params["intercept"]), plain.w)
    close(found.loss, value)
    if auxiliary == "time":
        jax.tree.map(close, found.split, plain.split)
    else:
        close(found.split[1, :5], plain.split[1, :5])
    q = plain.shares()
    close(split, [q[:7].mean(), q[7:].mean()])


@pytest.mark.slow
def test_a_table_is_all_its_rows() -> None:
    """Of masses that are whole numbers of 64 rows; the auxiliary variable is the environment."""
    bit = worlds.two_bit(invariant_flip=0.25, spurious_flips=np.array([0.125, 0.5]))
    table: Any = bit(KEY)
    times = np.round(np.asarray(table.mass) * 64).astype(int)
    assert times.sum() == 128
    atom = np.concatenate([np.repeat(np.arange(8), counts) for counts in times])
    rows = worlds.from_arrays(
        np.asarray(table.inputs)[atom], np.asarray(table.labels)[atom], np.repeat([0, 1], 64)
    )

    def environment(data: Any, world: Any) -> jax.Array:
        size = 8 if data.rows is None else 64
        return jnp.broadcast_to(jnp.arange(2.0)[:, None, None], (2, size, 1))

    same: dict[str, Any] = {
        "auxiliary": environment,
        "model": models.linear(dim=2, init_scale=0.5),
    }
    one = trained(**same, world=bit, measurement=measurements.counts())(6)
    measurement = measurements.examples(loss=losses.logistic)
    other = trained(**same, world=rows, measurement=measurement)(6)
    close = functools.partial(np.testing.assert_allclose, rtol=2e-5, atol=2e-6)
    jax.tree.map(close, one[0].params, other[0].params)
    jax.tree.map(close, one[0].split, other[0].split)
    close(one[1], other[1])
    close(one[0].loss, other[0].loss)


@pytest.mark.parametrize(
    ("part", "words"),
    [
        ({"measurement": measurements.quadrature()}, "measurement must keep examples"),
        ({"auxiliary": "place"}, "auxiliary must be"),
        ({"start": -1}, "start must be"),
    ],
)
def test_wrong_parts_are_refused(part: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        algorithms.zin(**PARTS | part)
