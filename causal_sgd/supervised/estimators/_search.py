"""Searches of subsets for the least loss with a penalty of invariance: EILLS and linear FAIR."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from causal_sgd import checks, linalg
from causal_sgd.supervised._moments import MomentData
from causal_sgd.supervised.estimators._data import Sample, finished, sample_of
from causal_sgd.supervised.estimators._least_squares import solve
from causal_sgd.supervised.estimators._subsets import (
    check_exhaustive,
    corners,
    masked_corners,
    membership,
)
from causal_sgd.supervised.worlds import SupervisedWorld
from causal_sgd.types import Array, Estimator, Fit

__all__ = ["eills", "fair"]

SEARCHES = ("exact", "greedy")
AUGMENTED = 6  # environments up to which EILLS has one row per constraint


def eills(
    gamma: float | Array,
    *,
    penalty: float | Array = 0.0,
    refit: bool = False,
    search: str = "exact",
    intercept: bool = False,
) -> Estimator:
    """Environment invariant linear least squares.

    The set S and the weights w that minimise 1/2 [R(w) + gamma sum over j in S and e of share_e
    (E_e x_j (y - x'w))^2] + penalty |S|, for w zero outside of S (Fan, Fang, Gu and Zhang 2024).

    Args:
        gamma: weight of the invariance, at least 0; may be traced.
        penalty: of each chosen input, at least 0; may be traced.
        refit: whether the weights are those of pooled least squares on the chosen set.
        search: "exact" visits all 2^p sets, for p up to 15; "greedy" adds or removes one input at a
            time while the value falls, once from the empty set and once from all inputs.
        intercept: whether the constant is an input that belongs to every set.

    Returns:
        An estimator.

    Raises:
        ValueError: if an argument is out of range, or (when it runs) there are too many inputs for
            an exact search.
    """
    _check(gamma, penalty, search)
    checks.flags(refit=refit, intercept=intercept)

    def estimator(data: MomentData, world: SupervisedWorld) -> Fit:
        sample = sample_of(data, world)
        moments, shares = _with_constant(sample, intercept), sample.shares
        forced = int(intercept)

        def values(masks: Array) -> Array:
            held = jnp.concatenate([jnp.ones((forced, masks.shape[1]), bool), masks])
            if search == "greedy" and len(shares) <= AUGMENTED:
                return _solved_values(moments, shares, gamma, held)
            return _eills_values(moments, shares, jnp.asarray(gamma, shares.dtype), held)

        if search == "exact":
            check_exhaustive("eills with search='exact'", sample.dim, "; use search='greedy'")
            if len(shares) > AUGMENTED:
                support = _least(values(jnp.asarray(membership(sample.dim))), sample.dim, penalty)
            else:
                system = _augmented(moments, shares, gamma)
                corner = corners(system[None], 1 + len(shares), forced)[0]
                support = _least(corner / 2, sample.dim, penalty)
        else:
            support = _greedy(lambda masks: values(masks) + penalty * jnp.sum(masks, 0), sample.dim)
        if refit:
            weights = solve(sample.centered(sample.pooled, intercept), support)
            return finished(sample, weights, support, intercept=intercept)
        held = jnp.concatenate([jnp.ones(forced, bool), support])
        weights = _eills_weights(_augmented(moments, shares, gamma), held)
        fit = finished(sample, weights[forced:], support, intercept=False)
        return fit._replace(intercept=weights[0]) if intercept else fit

    return estimator


def fair(
    gamma: float | Array,
    *,
    penalty: float | Array = 0.0,
    search: str = "exact",
    intercept: bool = False,
) -> Estimator:
    """FAIR with linear predictors and linear critics, by a search of subsets.

    The set S and the weights w that minimise 1/2 R(w) + gamma/2 sum_e share_e max over f in the
    span of x_S of E_e [2 (y - x'w) f - f^2] + penalty |S|, for w zero outside of S (Gu, Fang,
    Buehlmann and Fan 2024). On any set the weights are those of pooled least squares, so that there
    is nothing to refit. Sets with as many inputs as an environment has examples are left out.

    Args:
        gamma: weight of the invariance, at least 0; may be traced.
        penalty: of each chosen input, at least 0; may be traced.
        search: see `eills`.
        intercept: whether the constant is an input that belongs to every set.

    Returns:
        An estimator.

    Raises:
        ValueError: if an argument is out of range, or (when it runs) there are too many inputs for
            an exact search.
    """
    _check(gamma, penalty, search)
    checks.flags(intercept=intercept)

    def estimator(data: MomentData, world: SupervisedWorld) -> Fit:
        sample = sample_of(data, world)
        each = sample.centered(sample.second, intercept)
        all_moments = jnp.concatenate([sample.centered(sample.pooled, intercept)[None], each])
        room = jnp.min(jnp.where(sample.sizes > 0, sample.sizes, jnp.inf)) - int(intercept)

        def values(residuals: Array, sizes: Array) -> Array:
            """From mean squared residuals of pooled and separate fits, [1 + E, N]."""
            separate = jnp.sum(sample.shares[:, None] * residuals[1:], 0)
            value = (residuals[0] + gamma * (residuals[0] - separate)) / 2 + penalty * sizes
            return jnp.where(sizes < room, value, jnp.inf)

        if search == "exact":
            check_exhaustive("fair with search='exact'", sample.dim, "; use search='greedy'")
            sizes = jnp.sum(jnp.asarray(membership(sample.dim)), 0)
            support = _least(values(corners(all_moments), sizes), sample.dim)
        else:

            def of_masks(masks: Array) -> Array:
                spread = (*all_moments.shape, masks.shape[1])
                matrices = jnp.broadcast_to(all_moments[..., None], spread)
                residuals = jax.vmap(masked_corners, (0, None))(matrices, masks)
                return values(residuals, jnp.sum(masks, 0))

            support = _greedy(of_masks, sample.dim)
        return finished(sample, solve(all_moments[0], support), support, intercept=intercept)

    return estimator


def _check(gamma: float | Array, penalty: float | Array, search: str) -> None:
    checks.number("gamma", gamma, minimum=0)
    checks.number("penalty", penalty, minimum=0)
    checks.choice("search", search, SEARCHES)


def _with_constant(sample: Sample, intercept: bool) -> Array:
    """The moments [E, m + 1, m + 1] of the inputs and the label, with the constant in front."""
    if not intercept:
        return sample.second[:, :-1, :-1]
    order = jnp.roll(jnp.arange(sample.dim + 2), 1)
    return sample.second[:, order][:, :, order]


def _augmented(moments: Array, shares: Array, gamma: float | Array) -> Array:
    """A matrix whose Schur complements are twice the values of EILLS, in blocks of an input each.

    The constraint j of environment e is a row of its own, sqrt(gamma share_e) times row j of the
    moments, with -1 on the diagonal. Products of moments, which would square their condition
    number, are not formed.

    Args:
        moments: of (inputs, label), [E, m + 1, m + 1].
        shares: [E].
        gamma: [].

    Returns:
        [m (1 + E) + 1, m (1 + E) + 1].
    """
    size, dim = moments.shape[0], moments.shape[1] - 1
    mean = jnp.tensordot(shares, moments, 1, precision="highest")
    rows = jnp.sqrt(gamma * shares)[:, None, None] * moments[:, :dim]
    constraints = jnp.swapaxes(rows[:, :, :dim], 0, 1)  # [input, E, weight]
    system = jnp.zeros((dim, 1 + size, dim, 1 + size), moments.dtype)
    system = system.at[:, 0, :, 0].set(mean[:dim, :dim])
    system = system.at[:, 1:, :, 0].set(constraints)
    system = system.at[:, 0, :, 1:].set(jnp.transpose(constraints, (2, 0, 1)))
    each = jnp.arange(dim)
    system = system.at[each, 1:, each, 1:].set(-jnp.eye(size, dtype=moments.dtype)[None])
    system = system.reshape(dim * (1 + size), -1)
    label = jnp.concatenate([mean[:dim, dim:], rows[:, :, dim].T], 1).reshape(-1, 1)
    top = jnp.concatenate([system, label], 1)
    return jnp.concatenate([top, jnp.concatenate([label.T, mean[dim:, dim:]], 1)], 0)


def _eills_weights(system: Array, held: Array) -> Array:
    """The minimiser [m] on the inputs of a set [m], from the matrix of `_augmented`."""
    rows = jnp.repeat(held, (system.shape[0] - 1) // len(held))
    both = rows[:, None] & rows[None, :]
    matrix = jnp.where(both, system[:-1, :-1], jnp.eye(len(rows), dtype=system.dtype))
    solution = linalg.solve(matrix, jnp.where(rows, system[:-1, -1], 0)[:, None])[:, 0]
    return jnp.where(held, solution.reshape(len(held), -1)[:, 0], 0)


@jax.custom_batching.sequential_vmap  # the matrices of one run fill the cache
def _eills_values(moments: Array, shares: Array, gamma: Array, held: Array) -> Array:
    """The values of EILLS [N] on sets [m, N], from matrices of their own.

    A set's moments are the pooled ones plus gamma sum over its j of the mean of row_j row_j'.
    """
    mean = jnp.tensordot(shares, moments, 1, precision="highest")
    rows = moments[:, :-1]
    products = jnp.einsum("e,eki,ekj->ijk", shares, rows, rows, precision="highest")
    matrices = linalg.product(products, held.astype(moments.dtype))
    return masked_corners(mean[..., None] + gamma * matrices, held) / 2


def _solved_values(moments: Array, shares: Array, gamma: float | Array, held: Array) -> Array:
    """The values of EILLS [N] on sets [m, N], each at its own minimiser.

    The value is flat at the minimiser, so that errors of the weights hardly matter: in single
    precision those of the values are a hundredth of those from products of moments, by which
    searches of 70 inputs end far from where they do in double precision.
    """
    system = _augmented(moments, shares, gamma)

    def value(held: Array) -> Array:
        vector = jnp.append(_eills_weights(system, held), -jnp.ones((), moments.dtype))
        applied = linalg.product(moments, vector[:, None])[..., 0]
        risks = jnp.sum(applied * vector[None], 1)
        penalties = jnp.sum(jnp.where(held[None], applied[:, :-1] ** 2, 0), 1)
        return jnp.sum(shares * (risks + gamma * penalties)) / 2

    return jax.lax.map(value, held.T)


def _least(values: Array, dim: int, penalty: float | Array = 0.0) -> Array:
    """The set [p] of the least of all 2^p values; of equal ones the first."""
    masks = jnp.asarray(membership(dim))
    best = jnp.argmin(values + penalty * jnp.sum(masks, 0))
    return (best >> jnp.arange(dim)) & 1 == 1


def _greedy(values: Callable[[Array], Array], dim: int) -> Array:
    """The better [p] of two searches that change one input at a time, from no and from all inputs.

    Args:
        values: of sets [p, N], [N].
        dim: p.
    """
    changes = jnp.eye(dim, dtype=bool)

    def step(carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        mask, value, _ = carry
        candidates = mask[:, None] ^ changes
        found = values(candidates)
        best = jnp.argmin(found)
        better = found[best] < value  # false for NaN, so that the search ends
        return (
            jnp.where(better, candidates[:, best], mask),
            jnp.where(better, found[best], value),
            better,
        )

    masks, found = [], []
    for start in (jnp.zeros(dim, bool), jnp.ones(dim, bool)):
        begin = start, values(start[:, None])[0], jnp.asarray(True)
        mask, value, _ = jax.lax.while_loop(lambda carry: carry[2], step, begin)
        masks.append(mask)
        found.append(value)
    return jnp.where(found[1] < found[0], masks[1], masks[0])
