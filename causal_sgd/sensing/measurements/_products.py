"""Products of a design with residuals, for one run and for many runs that share it.

With weights w_i, all functions return sum_i w_i r_i x_i [p] and sum_i w_i r_i^2 [] for
r_i = x_i . estimate - y_i. Their cost is memory traffic: a data set with d = 50 and n = 1000 takes
5 MB. The best way to read it depends on the number of runs that use it, so the functions define
their own rules for `vmap`. `benchmarks/designs.py` measures the effect.

A design is an array [E, n, p], or one array [n, p] for each environment. The latter is read in
place, whereas XLA copies what is selected from one array, which takes as long as both products of a
few runs.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp

from causal_sgd import linalg
from causal_sgd.sensing.measurements._algebra import Designs
from causal_sgd.types import Array, PyTree

# Numbers of a design that are used at once: they and the residuals stay in a core's cache.
CACHED = 2**17
# Least number of runs of one environment that share a pass over its data.
TOGETHER = 8


@jax.custom_batching.custom_vmap
def of_environments(
    design: Designs, labels: Array, environments: Array, weights: Array, estimate: Array
) -> tuple[Array, Array]:
    """The sums over all examples of the batch's environments.

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
    # K = B data sets with T = 1 run on each.
    estimates = jnp.broadcast_to(estimate, (environments.shape[0], 1, *estimate.shape))
    sums, losses = each_environment(
        design, environments, labels[environments][:, None], weights[:, None], estimates
    )
    return jnp.sum(sums, (0, 1)), jnp.sum(losses)


def _all(
    design: Designs, labels: Array, environments: Array, weights: Array, estimate: Array
) -> tuple[Array, Array]:
    """`of_environments` for a batch of all: products with the whole design.

    `vmap` turns them into products of matrices.
    """
    # From the order of the batch to the order of the design.
    weights = jnp.zeros_like(weights).at[environments].set(weights)
    if not isinstance(design, tuple):
        # One data set of E n rows: two large products instead of 2 E small ones.
        design = (design.reshape(-1, design.shape[2]),)
    size = design[0].shape[0]
    sums, losses = jnp.zeros_like(estimate), jnp.zeros((), estimate.dtype)
    for rows, y, w in zip(design, labels.reshape(-1, size), weights.reshape(-1, size), strict=True):
        gain, loss = _products(rows, y, w, estimate)
        sums, losses = sums + gain, losses + loss
    return sums, losses


def _products(rows: Array, labels: Array, weights: Array, estimates: Array) -> tuple[Array, Array]:
    """The sums for one data set [n, p], labels and weights [..., n] and estimates [..., p]."""
    residuals = linalg.product(estimates, rows.T) - labels
    return linalg.product(weights * residuals, rows), jnp.sum(weights * residuals**2, -1)


def each_environment(
    design: Designs, environments: Array, labels: Array, weights: Array, estimates: Array
) -> tuple[Array, Array]:
    """The sums over each of K data sets, for T runs on each.

    Args:
        design: [E, n, p], or E arrays [n, p].
        environments: indices of the data sets [K].
        labels: [K, T, n].
        weights: [K, T, n].
        estimates: [K, T, p].

    Returns:
        The weighted sums [K, T, p] and [K, T].
    """

    def one(environment: Array, *some: Array) -> tuple[Array, Array]:
        if not isinstance(design, tuple):
            return _by_slabs(design, environment, *some)
        # An index that differs between runs would make `vmap` evaluate every branch; the rule below
        # calls this once for many runs of one environment instead.
        return jax.lax.switch(
            environment, [functools.partial(_products, rows) for rows in design], *some
        )

    if environments.shape[0] == 1:
        sums, losses = one(environments[0], labels[0], weights[0], estimates[0])
        return sums[None], losses[None]
    return jax.lax.map(lambda task: one(*task), (environments, labels, weights, estimates))


def selected(design: Designs, environment: Array) -> Array:
    """The data set [n, p] of one environment [], as a copy that many products may read."""
    if not isinstance(design, tuple):
        return design[environment]
    return jax.lax.switch(environment, [lambda rows=rows: rows for rows in design])


def _by_slabs(
    design: Array, environment: Array, labels: Array, weights: Array, estimates: Array
) -> tuple[Array, Array]:
    """Slab by slab, so that the second product finds the rows of the first in the cache."""
    size, width = design.shape[1:]
    slab = min(size, max(1, CACHED // width))

    def add_slab(index: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
        sums, losses = carry
        # The last slab starts early to be full; rows that an earlier one had get no weight.
        first = jnp.minimum(index * slab, size - slab)
        place = environment.astype(first.dtype), first, jnp.zeros_like(first)
        rows = jax.lax.dynamic_slice(design, place, (1, slab, width))[0]
        some_labels = jax.lax.dynamic_slice_in_dim(labels, first, slab, 1)
        some_weights = jax.lax.dynamic_slice_in_dim(weights, first, slab, 1)
        is_new = first + jnp.arange(slab) >= index * slab
        some_weights = jnp.where(is_new[None, :], some_weights, 0)
        gain, loss = _products(rows, some_labels, some_weights, estimates)
        return sums + gain, losses + loss

    zero = jnp.zeros_like(estimates), jnp.zeros_like(estimates[:, 0])
    return jax.lax.fori_loop(0, -(-size // slab), add_slab, zero)


@of_environments.def_vmap
def _environments_of_runs(
    runs: int,
    mapped: PyTree,  # of booleans, in the structure of the arguments
    design: Designs,
    labels: Array,
    environments: Array,
    weights: Array,
    estimate: Array,
) -> tuple[tuple[Array, Array], tuple[bool, bool]]:
    """The rule of `of_environments` for many runs.

    Runs that share a design and have different environments are sorted by environment, so that
    groups of runs share a pass over the data of their environment. Three prototypes took longer:
    gathering the data of each run, one run after the other, and products with all environments.
    """
    own = any(jax.tree.leaves(mapped[0]))
    if own and isinstance(design, tuple):
        # Selecting among arrays that differ between runs would evaluate all of them.
        design = jnp.stack(linalg.broadcast_unmapped(runs, mapped[0], design), 1)
    arguments = design, labels, environments, weights, estimate
    num_environments, per_run = labels.shape[-2], weights.shape[-2]
    # Nothing to sort: runs with designs of their own share no data, and a batch of all environments
    # reads the whole design.
    if own or per_run == num_environments:
        plain = _all if per_run == num_environments else of_environments.fun
        axes = (0 if own else None, *(0 if is_mapped else None for is_mapped in mapped[1:]))
        return jax.vmap(plain, axes)(*arguments), (True, True)
    labels, environments, weights, estimate = linalg.broadcast_unmapped(
        runs, mapped[1:], arguments[1:]
    )
    # A pair is a run and one of the environments of its batch.
    pairs = runs * per_run
    owner = jnp.arange(pairs) // per_run
    chosen = environments.reshape(pairs)
    sums, losses = _groups(
        design,
        jnp.sum(chosen[None, :] == jnp.arange(num_environments)[:, None], 1),
        jnp.argsort(chosen),
        labels[owner, chosen],
        weights.reshape(pairs, -1),
        estimate[owner],
    )
    sums, losses = sums.reshape(runs, per_run, -1), losses.reshape(runs, per_run)
    return (jnp.sum(sums, 1), jnp.sum(losses, 1)), (True, True)


def _groups(
    design: Designs, counts: Array, order: Array, labels: Array, weights: Array, estimates: Array
) -> tuple[Array, Array]:
    """The sums for K pairs of a run and an environment, in groups that share a pass over the data.

    A group has T pairs of one environment. A short one is padded with pairs whose results are
    dropped.

    Args:
        design: [E, n, p], or E arrays [n, p].
        counts: pairs of each environment [E].
        order: the pairs sorted by environment [K].
        labels: [K, n].
        weights: [K, n].
        estimates: [K, p].

    Returns:
        The weighted sums [K, p] and [K].
    """
    pairs = order.shape[0]
    # T is a shape, hence static: the mean number of pairs of an environment, at least TOGETHER. An
    # environment with more pairs has several groups, one without pairs none.
    together = min(max(TOGETHER, pairs // counts.shape[0]), pairs)
    groups = -(-counts // together)
    ends = jnp.cumsum(groups)  # [E], the number of groups up to each environment

    def add_group(index: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
        # Groups are numbered by environment; `before` pairs of this one are in earlier groups.
        environment = jnp.sum(ends <= index)
        before = (index - (ends - groups)[environment]) * together
        lane = jnp.arange(together)
        places = (jnp.cumsum(counts) - counts)[environment] + before + lane
        # A group may reach into the next environment or past the end; see `target`.
        members = order[jnp.minimum(places, pairs - 1)]
        gain, loss = each_environment(
            design,
            environment[None],
            labels[members][None],
            weights[members][None],
            estimates[members][None],
        )
        # Padding gets an index out of range, whose writes are dropped.
        target = jnp.where(lane < counts[environment] - before, members, pairs)
        sums, losses = carry
        sums = sums.at[target].set(gain[0], mode="drop")
        return sums, losses.at[target].set(loss[0], mode="drop")

    zero = jnp.zeros_like(estimates), jnp.zeros_like(estimates[:, 0])
    return jax.lax.fori_loop(0, ends[-1], add_group, zero)


@jax.custom_batching.custom_vmap
def of_rows(
    design: Array, labels: Array, places: Array, weights: Array, estimate: Array
) -> tuple[Array, Array]:
    """The sums over single examples.

    Args:
        design: [E, n, p].
        labels: [E, n].
        places: indices of the rows among all E n, [M].
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
    """One run after the other on a CPU, whose cache holds the rows of one run; else together."""

    def one(mapped_arguments: tuple[Array, ...]) -> tuple[Array, Array]:
        varying = iter(mapped_arguments)
        pairs = zip(arguments, mapped, strict=True)
        return of_rows.fun(*(next(varying) if is_mapped else array for array, is_mapped in pairs))

    def in_turn(*arrays: Array) -> tuple[Array, Array]:
        pairs = zip(arrays, mapped, strict=True)
        return jax.lax.map(one, tuple(array for array, is_mapped in pairs if is_mapped))

    axes = tuple(0 if is_mapped else None for is_mapped in mapped)
    out = jax.lax.platform_dependent(*arguments, cpu=in_turn, default=jax.vmap(of_rows.fun, axes))
    return out, (True, True)
