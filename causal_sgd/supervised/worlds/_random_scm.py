"""Random additive structural models, of which environments change everything but the label."""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from causal_sgd import checks, random
from causal_sgd.supervised.worlds._placement import Numbers, weights_of
from causal_sgd.supervised.worlds._sampled import SampledWorld, first_accepted
from causal_sgd.supervised.worlds._world import WorldFactory
from causal_sgd.types import Array, Key

__all__ = ["random_scm"]

KINDS = 5
"""Functions of a parent: itself, sin, sigmoid, cos, and sin of pi times it."""


class Additive(NamedTuple):
    """Node i = sum over j and k of effects[i, j, k] f_k(node j) + scales[i] N, per environment."""

    effects: Array  # [E, r, r, 5]
    scales: Array  # [E, r]


def random_scm(
    *,
    dim: int = 15,
    num_environments: int = 2,
    same_variance: bool = True,
    least_bias: float | Array = 0.5,
    rejection_examples: int = 100_000,
    candidates: int = 8,
    probabilities: Numbers | None = None,
) -> WorldFactory:
    """A random nonlinear model, as the experiments of FAIR draw them (Gu et al. 2024).

    The label is the middle one of p + 1 nodes in order. Every node goes through its predecessors in
    random order and takes each as a parent with probability 0.4, up to 4 of them. The label's
    children are then made 5 or 6 by adding or removing random ones, and its parents at least 5 by
    adding the first nodes. Node i is the sum of c f(parent) and scale N. In every environment, on
    the same edges: f is one of z, sin z, 1 / (1 + exp(-z)), cos z and sin(pi z), c ~ U(-3/2, 3/2)
    and scale ~ 1/2 + U(0, 3/2). The label is linear in its parents with the same coefficients
    +-U(1, 3/2) in all environments and noise N(0, 1). A child's coefficient of the label is
    +-U(1/2, 3/2) and differs in size by more than 1/2 from a number of the same distribution that
    all environments share.

    A candidate is rejected if pooled least squares is close to w*, |w - w*|^2 <= `least_bias`, on
    examples of its own. After as many rejections as there are candidates the last one is returned,
    with `accepted` false. (In about one of four worlds of 15 inputs eight are not enough.)

    Args:
        dim: number of inputs p, at least 4.
        num_environments: E.
        same_variance: whether the label's noise is the same in all environments; if not, its scale
            is drawn as those of others.
        least_bias: 1/2 in the source; may be traced.
        rejection_examples: of every environment, for this decision.
        candidates: the most models that are drawn, at least 1.
        probabilities: [E], how often each environment is drawn; None for equally often.

    Returns:
        A world factory; only samples of its world are known.

    Raises:
        ValueError: if an argument is out of range.
    """
    checks.integer("dim", dim, minimum=4)
    checks.integer("num_environments", num_environments)
    checks.flags(same_variance=same_variance)
    checks.number("least_bias", least_bias, minimum=0)
    checks.integer("rejection_examples", rejection_examples, maximum=10**9)
    checks.integer("candidates", candidates)
    if probabilities is not None:
        checks.probabilities("probabilities", probabilities, num_environments)
    label = (dim + 1) // 2
    sample = _sampler(label)
    size = num_environments

    def candidate(key: Key) -> SampledWorld:
        coefficients, weights, edges = _drawn_model(key, dim + 1, size, same_variance)
        return SampledWorld(
            sample=sample,
            coefficients=coefficients,
            probabilities=weights_of(probabilities, size),
            target=jnp.delete(weights, label, assume_unique_indices=True),
            causal=jnp.delete(edges, label, assume_unique_indices=True),
            accepted=jnp.zeros((), bool),
        )

    def judged(key: Key, index: Array) -> SampledWorld:
        own = random.fold_in(key, index)
        found = candidate(random.fold_in(own, 0))
        counts = jnp.full(size, rejection_examples)
        second = found.draw_moments(random.fold_in(own, 1), jnp.arange(size), counts)
        pooled = jnp.mean(second, 0)
        bias = jnp.sum((_solve(pooled[:dim, :dim], pooled[:dim, dim]) - found.target) ** 2)
        return SampledWorld(
            sample,
            found.coefficients,
            found.probabilities,
            found.target,
            found.causal,
            bias > least_bias,
        )

    def world(key: Key) -> SampledWorld:
        return first_accepted(judged, key, candidates)

    return world


# One system after the other under `vmap`; see `causal_sgd.linalg`.
@jax.custom_batching.sequential_vmap
def _solve(matrix: Array, vector: Array) -> Array:
    return jnp.linalg.solve(matrix, vector)


def _uniforms(key: Key, shape: tuple[int, ...]) -> Array:
    words = random.bits(key, int(np.prod(shape)))
    return random.uniforms(words, jnp.result_type(float)).reshape(shape)


def _graph(key: Key, nodes: int) -> Array:
    """Edges [r, r] bool: whether node j < i is a parent of node i."""
    label = nodes // 2
    priority, chance = _uniforms(random.fold_in(key, 0), (2, nodes, nodes))
    place = jnp.arange(nodes)
    wanted = (place[None, :] < place[:, None]) & (chance < 0.4)
    # The place of j among the predecessors that i wants, in the order in which it visits them.
    earlier = wanted[:, None, :] & (priority[:, None, :] < priority[:, :, None])
    edges = wanted & (jnp.sum(earlier, 2) < 4)
    children, parents = edges[:, label], edges[label]
    orders = _uniforms(random.fold_in(key, 1), (nodes,))
    children = _first(children, orders, place > label, jnp.clip(jnp.sum(children), 5, 6))
    parents = _first(parents, place / nodes, place < label, jnp.maximum(jnp.sum(parents), 5))
    return edges.at[:, label].set(children).at[label].set(parents)


def _first(members: Array, order: Array, allowed: Array, number: Array) -> Array:
    """A set [r] of a number of allowed nodes: members first, then others, by an order in [0, 1)."""
    rank = jnp.where(allowed, order + ~members, 3.0)
    return allowed & (jnp.sum(rank[None, :] < rank[:, None], 1) < number)


def _signed(uniform: Array) -> Array:
    """Random signs from numbers in (0, 1)."""
    return jnp.where(uniform < 0.5, -1.0, 1.0)


def _drawn_model(
    key: Key, nodes: int, environments: int, same_variance: bool
) -> tuple[Additive, Array, Array]:
    """A model, the label's coefficients [r] and its parents [r]."""
    label = nodes // 2
    edges = _graph(random.fold_in(key, 0), nodes)
    shared = _uniforms(random.fold_in(key, 1), (3, nodes))
    parents, children = edges[label], edges[:, label]
    weights = jnp.where(parents, _signed(shared[0]) * (1 + shared[1] / 2), 0)

    def environment(key: Key) -> tuple[Array, Array]:
        kind, coefficient = _uniforms(random.fold_in(key, 0), (2, nodes, nodes))
        own, sign, scale = _uniforms(random.fold_in(key, 1), (3, nodes))
        values = jnp.where(edges, 3 * coefficient - 1.5, 0)
        # In (0, 1) at a distance of more than 1/2 from the shared number, uniformly.
        base = shared[2]
        far = jnp.where(base < 0.5, base + 0.5 + own * (0.5 - base), own * (base - 0.5))
        values = values.at[:, label].set(jnp.where(children, _signed(sign) * (0.5 + far), 0))
        values = values.at[label].set(weights)
        kinds = jnp.floor(KINDS * kind).astype(int).at[label].set(0)
        scales = 0.5 + 1.5 * scale
        if same_variance:
            scales = scales.at[label].set(1.0)
        return values[:, :, None] * jax.nn.one_hot(kinds, KINDS, dtype=values.dtype), scales

    keys = random.fold_in(random.fold_in(key, 2), jnp.arange(environments))
    return Additive(*jax.vmap(environment)(keys)), weights, parents


@functools.cache  # one function per label, so that worlds of one kind are one kind of pytree
def _sampler(label: int):
    def sample(
        key: Key, coefficients: Additive, environment: Array, size: int
    ) -> tuple[Array, Array]:
        effects, scales = coefficients.effects[environment], coefficients.scales[environment]
        nodes = scales.shape[0]
        noise = scales[:, None] * random.normals(key, (nodes, size), scales.dtype)

        def add(node: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
            values, functions = carry
            value = noise[node] + jnp.tensordot(effects[node], functions, 2, precision="highest")
            of_value = jnp.stack(
                [
                    value,
                    jnp.sin(value),
                    jax.nn.sigmoid(value),
                    jnp.cos(value),
                    jnp.sin(jnp.pi * value),
                ]
            )
            return values.at[node].set(value), functions.at[node].set(of_value)

        start = (jnp.zeros_like(noise), jnp.zeros((nodes, KINDS, size), noise.dtype))
        values, _ = jax.lax.fori_loop(0, nodes, add, start)
        return jnp.delete(values, label, axis=0, assume_unique_indices=True).T, values[label]

    return sample
