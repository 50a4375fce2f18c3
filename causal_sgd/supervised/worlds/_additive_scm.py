"""An additive structural model with nonlinear causes, children of the label, and descendants."""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from causal_sgd import checks, linalg, random
from causal_sgd.supervised.worlds._placement import Numbers, weights_of
from causal_sgd.supervised.worlds._sampled import SampledWorld, first_accepted
from causal_sgd.supervised.worlds._world import WorldFactory
from causal_sgd.types import Array, Key

__all__ = ["additive_scm"]

PARENTS, CHILDREN, OTHERS = 5, 4, 17
DIM = PARENTS + CHILDREN + OTHERS
LABELS = ("additive", "interacting")
FEW = 4  # the most inputs of one of the others
REFERENCE = 50_000  # examples from which w* is computed


class Coefficients(NamedTuple):
    """What the environments do not share has an axis [E]."""

    effects: Array  # [E, 4] of tanh(label) on the children
    levels: Array  # [E, 4] scales of their noise
    weights: Array  # [17, 9] of a function of parents and children on the others
    kinds: Array  # [17, 9] bool, tanh where true, else sin
    spreads: Array  # [E, 17] scales of their noise


def additive_scm(
    *,
    label: str = "additive",
    least_bias: float | Array = 0.5,
    rejection_examples: int = 20_000,
    candidates: int = 8,
    probabilities: Numbers | None = None,
) -> WorldFactory:
    """A nonlinear model of 26 inputs in two environments (after the networks of Gu et al. 2024).

    Inputs 0 to 4 are the parents of y, U(-3/2, 3/2). The label is sin x0 + sin x1 + tanh x2 +
    max(x3, 0) + x4 + N ("additive") or x0 x1^3 + 2 log(1 + exp(tanh x2) + exp(x3)) + sin x4 + N
    ("interacting"). Inputs 5 to 8 are its children, c_e tanh y + scale_e N, with c ~ U(-3/2, 3/2)
    in the first environment and U(-5, 5) at a distance above 3 from it in the second, and scales
    U(1, 3/2). The other 17 are sums of c f(input) over up to 4 parents and children, f one of sin
    (two times of three) and tanh, c ~ U(-1, 1), with noise of scale U(2, 5/2) in the first
    environment and U(5/2, 3) in the second.

    w* is the best linear prediction from the parents, which is the same in both environments; it
    is least squares on 50,000 examples of the world's own. Networks can predict better.

    Args:
        label: how the label depends on its parents.
        least_bias: a candidate is rejected if the mean over environments of the squared distance of
            its least squares from the pooled ones is at most this; 1/2 in the source; may be
            traced.
        rejection_examples: of every environment, for this decision.
        candidates: the most models that are drawn, at least 1. If all are rejected, the last one is
            returned, with `accepted` false.
        probabilities: [2], how often each environment is drawn; None for equally often.

    Returns:
        A world factory; only samples of its world are known.

    Raises:
        ValueError: if an argument is out of range.
    """
    checks.choice("label", label, LABELS)
    checks.number("least_bias", least_bias, minimum=0)
    checks.integer("rejection_examples", rejection_examples, maximum=10**9)
    checks.integer("candidates", candidates)
    if probabilities is not None:
        checks.probabilities("probabilities", probabilities, 2)
    sample = _sampler(label)

    def judged(key: Key, index: Array) -> SampledWorld:
        own = random.fold_in(key, index)
        found = SampledWorld(
            sample=sample,
            coefficients=_drawn(random.fold_in(own, 0)),
            probabilities=weights_of(probabilities, 2),
            target=jnp.zeros(DIM),
            causal=jnp.arange(DIM) < PARENTS,
            accepted=jnp.zeros((), bool),
        )
        counts = jnp.full(2, rejection_examples)
        second = found.draw_moments(random.fold_in(own, 1), jnp.arange(2), counts)
        pooled = _least_squares(jnp.mean(second, 0))
        each = jnp.stack([_least_squares(second[0]), _least_squares(second[1])])
        bias = jnp.mean(jnp.sum((each - pooled[None]) ** 2, 1))
        return SampledWorld(
            sample,
            found.coefficients,
            found.probabilities,
            found.target,
            found.causal,
            bias > least_bias,
        )

    def world(key: Key) -> SampledWorld:
        found = first_accepted(judged, key, candidates)
        own = random.fold_in(key, candidates)
        x = _uniform(own, (PARENTS, REFERENCE), -1.5, 1.5)
        centered = jnp.concatenate([x, _signal(label, x)[None]])
        centered = centered - jnp.mean(centered, 1, keepdims=True)
        second = linalg.product(centered, centered.T) / REFERENCE
        best = linalg.solve(second[:PARENTS, :PARENTS], second[:PARENTS, PARENTS:])[:, 0]
        target = jnp.zeros(DIM).at[:PARENTS].set(best)
        return SampledWorld(
            sample,
            found.coefficients,
            found.probabilities,
            target,
            found.causal,
            found.accepted,
        )

    return world


def _least_squares(second: Array) -> Array:
    """The weights [p] from moments [q, q], with an intercept."""
    means = second[:-1, -1]
    centered = second[:-1, :-1] - means[:, None] * means[None]
    return linalg.solve(centered[:DIM, :DIM], centered[:DIM, DIM:])[:, 0]


def _uniform(key: Key, shape: tuple[int, ...], low: float, high: float) -> Array:
    words = random.bits(key, int(np.prod(shape)))
    levels = random.uniforms(words, jnp.result_type(float)).reshape(shape)
    return low + (high - low) * levels


def _drawn(key: Key) -> Coefficients:
    keys = [random.fold_in(key, place) for place in range(7)]
    first = _uniform(keys[0], (CHILDREN,), -1.5, 1.5)
    # On [-5, first - 3] and [first + 3, 5], of the lengths first + 2 and 2 - first, where positive.
    below, above = jnp.maximum(first + 2, 0), jnp.maximum(2 - first, 0)
    place = _uniform(keys[1], (CHILDREN,), 0, 1) * (below + above)
    second = jnp.where(place < below, place - 5, first + 3 + place - below)
    inputs = PARENTS + CHILDREN
    order = jnp.argsort(_uniform(keys[2], (OTHERS, inputs), 0, 1), axis=1)
    number = jnp.floor(_uniform(keys[3], (OTHERS, 1), 0, FEW + 1))
    chosen = order < number
    weights = jnp.where(chosen, _uniform(keys[4], (OTHERS, inputs), -1, 1), 0)
    kinds = _uniform(keys[5], (OTHERS, inputs), 0, 3) >= 2
    spreads = 2 + _uniform(keys[6], (2, OTHERS), 0, 0.5) + jnp.array([[0.0], [0.5]])
    levels = _uniform(random.fold_in(key, 7), (2, CHILDREN), 1, 1.5)
    return Coefficients(jnp.stack([first, second]), levels, weights, kinds, spreads)


def _signal(label: str, x: Array) -> Array:
    """The label [n] without noise, from its parents [5, n]."""
    if label == "additive":
        plain = jnp.maximum(x[3], 0) + x[4]
        return jnp.sin(x[0]) + jnp.sin(x[1]) + jnp.tanh(x[2]) + plain
    middle = 2 * jnp.log(1 + jnp.exp(jnp.tanh(x[2])) + jnp.exp(x[3]))
    return x[0] * x[1] ** 3 + middle + jnp.sin(x[4])


@functools.cache  # one function per label, so that worlds of one kind are one kind of pytree
def _sampler(label: str):
    def sample(
        key: Key, coefficients: Coefficients, environment: Array, size: int
    ) -> tuple[Array, Array]:
        effects, levels, weights, kinds, spreads = coefficients
        x = _uniform(random.fold_in(key, 0), (PARENTS, size), -1.5, 1.5)
        noise = random.normals(random.fold_in(key, 1), (1 + CHILDREN + OTHERS, size), x.dtype)
        y = _signal(label, x) + noise[0]
        children = effects[environment][:, None] * jnp.tanh(y)[None]
        children = children + levels[environment][:, None] * noise[1 : 1 + CHILDREN]
        inner = jnp.concatenate([x, children])
        others = linalg.product(jnp.where(kinds, 0, weights), jnp.sin(inner))
        others = others + linalg.product(jnp.where(kinds, weights, 0), jnp.tanh(inner))
        others = others + spreads[environment][:, None] * noise[1 + CHILDREN :]
        return jnp.concatenate([inner, others]).T, y

    return sample
