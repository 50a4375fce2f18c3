"""The products of a design with residuals, for one run and for many that share it.

With weights w_i, all functions give sum_i w_i r_i x_i [p] and sum_i w_i r_i^2 [] for r_i = x_i . estimate - y_i. What
they cost is memory traffic: a data set of d = 50 and n = 1000 is 5 MB. How many runs meet on it decides how it is best
read, so the functions say themselves how they are mapped over runs; what that gives, `benchmarks/designs.py` measures.

A design is an array [E, n, p], or one array [n, p] for each environment: then the one that is picked is read where it lies,
where XLA copies what it picks from one array, which takes as long as both products of a few runs (`benchmarks/designs.py`).
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp

from causal_sgd import linalg
from causal_sgd.types import Array

__all__ = ["each_environment", "of_environments", "of_rows"]

Design = Array | tuple[Array, ...]
SLAB = (
    2**17
)  # numbers of a design that are used at once: they and the residuals stay in a core's cache
TOGETHER = (
    8  # runs of one environment that share a pass over its data, or more where there are more
)


@jax.custom_batching.custom_vmap
def of_environments(
    design: Design, labels: Array, environments: Array, weights: Array, estimate: Array
) -> tuple[Array, Array]:
    """The sums over whole environments.

    Args:
        design: [E, n, p], or E arrays [n, p].
        labels: [E, n].
        environments: [B], all different.
        weights: [B, n], of the examples of those environments.
        estimate: [p].

    Returns:
        The weighted sums [p] and [].
    """
    if environments.shape[0] == labels.shape[0]:
        return _all(design, labels, environments, weights, estimate)
    sums, losses = each_environment(
        design, environments, labels[environments][:, None], weights[:, None],
        jnp.broadcast_to(estimate, (environments.shape[0], 1, *estimate.shape)),
    )  # fmt: skip
    return jnp.sum(sums, (0, 1)), jnp.sum(losses)


def _all(
    design: Design, labels: Array, environments: Array, weights: Array, estimate: Array
) -> tuple[Array, Array]:
    """All environments are in the batch: products with the whole design, which `vmap` makes products of matrices."""
    weights = jnp.zeros_like(weights).at[environments].set(weights)
    if not isinstance(design, tuple):
        design = (design.reshape(-1, design.shape[2]),)
    size = design[0].shape[0]
    sums, losses = jnp.zeros_like(estimate), jnp.zeros((), estimate.dtype)
    for rows, y, w in zip(design, labels.reshape(-1, size), weights.reshape(-1, size), strict=True):
        gain, loss = _products(rows, y, w, estimate)
        sums, losses = sums + gain, losses + loss
    return sums, losses


def _products(rows: Array, labels: Array, weights: Array, estimates: Array) -> tuple[Array, Array]:
    """Of one data set [n, p] with labels and weights [..., n] and estimates [..., p]."""
    residuals = linalg.product(estimates, rows.T) - labels
    return linalg.product(weights * residuals, rows), jnp.sum(weights * residuals**2, -1)


def each_environment(
    design: Design, environments: Array, labels: Array, weights: Array, estimates: Array
) -> tuple[Array, Array]:
    """Go through K data sets, each with T runs: environments [K], labels and weights [K, T, n], estimates [K, T, p]."""

    def one(environment: Array, *some: Array) -> tuple[Array, Array]:
        if not isinstance(design, tuple):
            return _by_slabs(design, environment, *some)
        return jax.lax.switch(
            environment, [functools.partial(_products, rows) for rows in design], *some
        )

    if environments.shape[0] == 1:
        sums, losses = one(environments[0], labels[0], weights[0], estimates[0])
        return sums[None], losses[None]
    return jax.lax.map(lambda task: one(*task), (environments, labels, weights, estimates))


def _by_slabs(
    design: Array, environment: Array, labels: Array, weights: Array, estimates: Array
) -> tuple[Array, Array]:
    """Slab by slab, as the second product finds in the cache what was copied for the first."""
    size, width = design.shape[1:]
    slab = min(size, max(1, SLAB // width))

    def add_slab(index: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
        sums, losses = carry
        first = jnp.minimum(index * slab, size - slab)  # the last slab starts earlier to be full
        rows = jax.lax.dynamic_slice(design, (environment, first, 0), (1, slab, width))[0]
        some_labels = jax.lax.dynamic_slice_in_dim(labels, first, slab, 1)
        some_weights = jax.lax.dynamic_slice_in_dim(weights, first, slab, 1)
        some_weights = jnp.where(
            (first + jnp.arange(slab) >= index * slab)[None, :], some_weights, 0
        )
        gain, loss = _products(rows, some_labels, some_weights, estimates)
        return sums + gain, losses + loss

    zero = jnp.zeros_like(estimates), jnp.zeros_like(estimates[:, 0])
    return jax.lax.fori_loop(0, -(-size // slab), add_slab, zero)


@of_environments.def_vmap
def _environments_of_runs(
    runs: int,
    mapped: list[Any],
    design: Design,
    labels: Array,
    environments: Array,
    weights: Array,
    estimate: Array,
) -> tuple[tuple[Array, Array], tuple[bool, bool]]:
    """Many runs. Those that share a design and have different environments are sorted by environment.

    So groups of runs share a pass over the data of their environment. In prototypes gathering each run's data, going run
    after run, and products with all environments, most of them thrown away, all took longer.
    """
    own = any(jax.tree.leaves(mapped[0]))
    if own and isinstance(
        design, tuple
    ):  # a choice among arrays that differ between runs would take all of them
        of_each = [
            rows if is_mapped else jnp.broadcast_to(rows, (runs, *rows.shape))
            for rows, is_mapped in zip(design, mapped[0], strict=True)
        ]
        design = jnp.stack(of_each, 1)
    arguments = design, labels, environments, weights, estimate
    num_environments, per_run = labels.shape[-2], weights.shape[-2]
    if own or per_run == num_environments:
        plain = _all if per_run == num_environments else of_environments.fun
        axes = (0 if own else None, *(0 if is_mapped else None for is_mapped in mapped[1:]))
        return jax.vmap(plain, axes)(*arguments), (True, True)
    labels, environments, weights, estimate = (
        array if is_mapped else jnp.broadcast_to(array, (runs, *array.shape))
        for array, is_mapped in zip(arguments[1:], mapped[1:], strict=True)
    )
    pairs = runs * per_run
    owner = jnp.arange(pairs) // per_run
    chosen = environments.reshape(pairs)
    order = jnp.argsort(chosen)
    sums, losses = _groups(
        design, jnp.sum(chosen[None, :] == jnp.arange(num_environments)[:, None], 1), order,
        labels[owner, chosen], weights.reshape(pairs, -1), estimate[owner],
    )  # fmt: skip
    sums, losses = sums.reshape(runs, per_run, -1), losses.reshape(runs, per_run)
    return (jnp.sum(sums, 1), jnp.sum(losses, 1)), (True, True)


def _groups(
    design: Design, counts: Array, order: Array, labels: Array, weights: Array, estimates: Array
) -> tuple[Array, Array]:
    """Sums of K pairs of a run and an environment, `order` [K] by environment, `counts` [E] of them in each.

    A group holds up to T pairs of one environment; a short one is filled up with pairs whose results are dropped.
    """
    pairs = order.shape[0]
    together = min(max(TOGETHER, pairs // counts.shape[0]), pairs)
    groups = -(-counts // together)
    ends = jnp.cumsum(groups)

    def add_group(index: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
        environment = jnp.sum(ends <= index)
        before = (index - (ends - groups)[environment]) * together
        lane = jnp.arange(together)
        places = (jnp.cumsum(counts) - counts)[environment] + before + lane
        members = order[jnp.minimum(places, pairs - 1)]
        found = each_environment(
            design,
            environment[None],
            labels[members][None],
            weights[members][None],
            estimates[members][None],
        )
        # what only fills up is written nowhere
        target = jnp.where(lane < counts[environment] - before, members, pairs)
        return carry[0].at[target].set(found[0][0], mode="drop"), carry[1].at[target].set(
            found[1][0], mode="drop"
        )

    return jax.lax.fori_loop(
        0, ends[-1], add_group, (jnp.zeros_like(estimates), jnp.zeros_like(estimates[:, 0]))
    )


@jax.custom_batching.custom_vmap
def of_rows(
    design: Array, labels: Array, places: Array, weights: Array, estimate: Array
) -> tuple[Array, Array]:
    """The sums over some rows.

    Args:
        design: [E, n, p].
        labels: [E, n].
        places: [M], of the rows among all E n.
        weights: [M].
        estimate: [p].

    Returns:
        The weighted sums [p] and [].
    """
    size = design.shape[1]
    rows = design[places // size, places % size]
    residuals = linalg.product(rows, estimate) - labels[places // size, places % size]
    return linalg.product(weights * residuals, rows), jnp.sum(weights * residuals**2)


@of_rows.def_vmap
def _rows_of_runs(
    runs: int, mapped: list[bool], *arguments: Array
) -> tuple[tuple[Array, Array], tuple[bool, bool]]:
    """Run after run on a CPU, where the rows of one run stay in the cache; on others side by side."""

    def one(some: Any) -> tuple[Array, Array]:
        varying = iter(some)
        return of_rows.fun(
            *(
                next(varying) if is_mapped else array
                for array, is_mapped in zip(arguments, mapped, strict=True)
            )
        )

    def in_turn(*arrays: Array) -> tuple[Array, Array]:
        return jax.lax.map(
            one, tuple(a for a, is_mapped in zip(arrays, mapped, strict=True) if is_mapped)
        )

    axes = tuple(0 if is_mapped else None for is_mapped in mapped)
    out = jax.lax.platform_dependent(*arguments, cpu=in_turn, default=jax.vmap(of_rows.fun, axes))
    return out, (True, True)
