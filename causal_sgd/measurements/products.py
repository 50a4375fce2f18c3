"""The products of a design with residuals, for one run and for many that share it.

With weights w_i, all functions give sum_i w_i r_i x_i [p] and sum_i w_i r_i^2 [] for r_i = x_i . estimate - y_i. What
they cost is memory traffic: a data set of d = 50 and n = 1000 is 5 MB. How many runs meet on it decides how it is best
read, so the functions say themselves how they are mapped over runs. The numbers: us a run, one CPU core, d = 50,
n = 1000.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from causal_sgd.types import Array

__all__ = ["each_environment", "of_environments", "of_rows"]

SLAB = 2**17  # numbers of a design that are used at once: they and the residuals stay in a core's cache
TOGETHER = 8  # runs of one environment that share a pass over its data, or more where there are more


@jax.custom_batching.custom_vmap
def of_environments(
    design: Array, labels: Array, environments: Array, weights: Array, estimate: Array
) -> tuple[Array, Array]:
    """The sums over whole environments.

    Args:
        design: [E, n, p].
        labels: [E, n].
        environments: [B], all different.
        weights: [B, n], of the examples of those environments.
        estimate: [p].

    Returns:
        The weighted sums [p] and [].
    """
    if environments.shape[0] == design.shape[0]:
        return _all(design, labels, environments, weights, estimate)
    sums, losses = each_environment(
        design, environments, labels[environments][:, None], weights[:, None],
        jnp.broadcast_to(estimate, (environments.shape[0], 1, *estimate.shape)),
    )  # fmt: skip
    return jnp.sum(sums, (0, 1)), jnp.sum(losses)


def _all(design: Array, labels: Array, environments: Array, weights: Array, estimate: Array) -> tuple[Array, Array]:
    """All environments are in the batch: one product with the whole design, which `vmap` makes one of matrices."""
    rows = design.reshape(-1, design.shape[2])
    weights = jnp.zeros_like(weights).at[environments].set(weights).reshape(-1)
    residuals = jnp.matmul(rows, estimate, precision="highest") - labels.reshape(-1)
    return jnp.matmul(weights * residuals, rows, precision="highest"), jnp.sum(weights * residuals**2)


def each_environment(
    design: Array, environments: Array, labels: Array, weights: Array, estimates: Array
) -> tuple[Array, Array]:
    """Go through K data sets, each with T runs: environments [K], labels and weights [K, T, n], estimates [K, T, p].

    Slab by slab, as the second product finds in the cache what the first has read, and as XLA copies what it picks from
    the design: 500 where whole environments take 1150.
    """
    size, width = design.shape[1:]
    slab = min(size, max(1, SLAB // width))

    def one(task: tuple[Array, Array, Array, Array]) -> tuple[Array, Array]:
        environment, own_labels, own_weights, own_estimates = task

        def add_slab(index: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
            sums, losses = carry
            first = jnp.minimum(index * slab, size - slab)  # the last slab starts earlier to be full
            rows = jax.lax.dynamic_slice(design, (environment, first, 0), (1, slab, width))[0]
            some_labels = jax.lax.dynamic_slice_in_dim(own_labels, first, slab, 1)
            some_weights = jax.lax.dynamic_slice_in_dim(own_weights, first, slab, 1)
            some_weights = jnp.where((first + jnp.arange(slab) >= index * slab)[None, :], some_weights, 0)
            residuals = jnp.matmul(own_estimates, rows.T, precision="highest") - some_labels
            gain = jnp.matmul(some_weights * residuals, rows, precision="highest")
            return sums + gain, losses + jnp.sum(some_weights * residuals**2, 1)

        zero = jnp.zeros_like(own_estimates), jnp.zeros_like(own_estimates[:, 0])
        return jax.lax.fori_loop(0, -(-size // slab), add_slab, zero)

    if environments.shape[0] == 1:
        sums, losses = one((environments[0], labels[0], weights[0], estimates[0]))
        return sums[None], losses[None]
    return jax.lax.map(one, (environments, labels, weights, estimates))


@of_environments.def_vmap
def _environments_of_runs(
    runs: int, mapped: list[bool], design: Array, labels: Array, environments: Array, weights: Array, estimate: Array
) -> tuple[tuple[Array, Array], tuple[bool, bool]]:
    """Many runs. Those that share a design and have different environments are sorted by environment.

    8 environments and 64 runs that each draw one: gathering each run's data takes 3100, run after run 940, products
    with all environments (of which 7 in 8 are thrown away) 390, groups of 8 runs 160-230. Full batches of one
    environment, where there is nothing to pick: 35-45.
    """
    arguments = design, labels, environments, weights, estimate
    num_environments, per_run = design.shape[-3], weights.shape[-2]
    if mapped[0] or per_run == num_environments:
        plain = _all if per_run == num_environments else of_environments.fun
        axes = tuple(0 if is_mapped else None for is_mapped in mapped)
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
    design: Array, counts: Array, order: Array, labels: Array, weights: Array, estimates: Array
) -> tuple[Array, Array]:
    """Sums of K pairs of a run and an environment, `order` [K] by environment, `counts` [E] of them in each.

    A group holds up to T pairs of one environment; a short one is filled up with pairs whose results are dropped.
    """
    pairs = order.shape[0]
    together = min(max(TOGETHER, pairs // design.shape[0]), pairs)
    groups = -(-counts // together)
    ends = jnp.cumsum(groups)

    def add_group(index: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
        environment = jnp.sum(ends <= index)
        before = (index - (ends - groups)[environment]) * together
        lane = jnp.arange(together)
        places = (jnp.cumsum(counts) - counts)[environment] + before + lane
        members = order[jnp.minimum(places, pairs - 1)]
        found = each_environment(
            design, environment[None], labels[members][None], weights[members][None], estimates[members][None]
        )
        # what only fills up is written nowhere
        target = jnp.where(lane < counts[environment] - before, members, pairs)
        return carry[0].at[target].set(found[0][0], mode="drop"), carry[1].at[target].set(found[1][0], mode="drop")

    return jax.lax.fori_loop(0, ends[-1], add_group, (jnp.zeros_like(estimates), jnp.zeros_like(estimates[:, 0])))


@jax.custom_batching.custom_vmap
def of_rows(design: Array, labels: Array, places: Array, weights: Array, estimate: Array) -> tuple[Array, Array]:
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
    residuals = jnp.matmul(rows, estimate, precision="highest") - labels[places // size, places % size]
    return jnp.matmul(weights * residuals, rows, precision="highest"), jnp.sum(weights * residuals**2)


@of_rows.def_vmap
def _rows_of_runs(runs: int, mapped: list[bool], *arguments: Array) -> tuple[tuple[Array, Array], tuple[bool, bool]]:
    """Run after run on a CPU, where the rows of one run stay in the cache: 70 for 100 rows, 110 side by side."""

    def one(some: Any) -> tuple[Array, Array]:
        varying = iter(some)
        return of_rows.fun(
            *(next(varying) if is_mapped else array for array, is_mapped in zip(arguments, mapped, strict=True))
        )

    def in_turn(*arrays: Array) -> tuple[Array, Array]:
        return jax.lax.map(one, tuple(a for a, is_mapped in zip(arrays, mapped, strict=True) if is_mapped))

    axes = tuple(0 if is_mapped else None for is_mapped in mapped)
    out = jax.lax.platform_dependent(*arguments, cpu=in_turn, default=jax.vmap(of_rows.fun, axes))
    return out, (True, True)
