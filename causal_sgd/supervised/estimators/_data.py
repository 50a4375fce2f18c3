"""What estimators take from a measurement's data, and the fits that they return."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp

from causal_sgd import checks
from causal_sgd.supervised._moments import MomentData, augmented
from causal_sgd.supervised.worlds import SupervisedWorld
from causal_sgd.types import Array, Fit

__all__ = ["Sample", "check_level", "finished", "sample_of"]


class Sample(NamedTuple):
    """The moments of the environments, and how much each counts."""

    second: Array  # [E, q, q] of (x, y, 1)
    sizes: Array  # [E] examples; see `sample_of` for those of a population
    finite: Array  # [] bool, whether it is a sample rather than the population

    @property
    def dim(self) -> int:
        """The number p of inputs."""
        return self.second.shape[-1] - 2

    @property
    def shares(self) -> Array:
        """The share of each environment in all examples, [E]; sums to one."""
        return self.sizes / jnp.sum(self.sizes)

    @property
    def pooled(self) -> Array:
        """The moments [q, q] of all environments together."""
        return jnp.tensordot(self.shares, self.second, 1, precision="highest")

    def centered(self, second: Array, intercept: bool) -> Array:
        """Moments of (x, y), [..., p + 1, p + 1], around the means where there is an intercept."""
        means = second[..., :-1, -1]
        products = means[..., :, None] * means[..., None, :] if intercept else 0
        return second[..., :-1, :-1] - products

    def around_pooled_means(self) -> Array:
        """The moments [E, q, q] of (x, y, 1) with the pooled means of x and y subtracted."""
        means = self.second[:, :-1, -1] - self.pooled[None, :-1, -1]
        return augmented(self.centered(self.second, True), means)


def sample_of(
    data: object, world: SupervisedWorld, *, name: str = "", environments: int = 1
) -> Sample:
    """The training moments of a measurement's data.

    The numbers of examples are at most (64 eps)^-2, which is 2e10 in float32, and a population has
    as many per environment on average: what is within rounding of zero is then no evidence.

    Args:
        data: of a measurement that keeps moments.
        world: of which only the probabilities are read.
        name: of the estimator, for the message.
        environments: how many it needs.

    Raises:
        ValueError: if the data hold no moments, or those of too few environments, or the world is
            none.
    """
    if not isinstance(data, MomentData) or data.training is None:
        raise ValueError(
            "measurement must keep moments of its data for an estimator, as measurements.moments "
            "does, got "
            + ("fresh examples" if isinstance(data, MomentData) else type(data).__name__)
        )
    if not hasattr(world, "probabilities"):
        raise ValueError(f"world must be a world, drawn by its factory, got {type(world).__name__}")
    moments = data.training
    size = moments.second.shape[0]
    if size < environments:
        raise ValueError(f"{name} needs at least {environments} environments, got {size}")
    kind = moments.second.dtype
    most = float(64 * jnp.finfo(kind).eps) ** -2
    finite = jnp.isfinite(moments.counts).all()
    counts = jnp.minimum(moments.counts.astype(kind), most)
    population = size * most * world.probabilities.astype(kind)
    return Sample(moments.second, jnp.where(finite, counts, population), finite)


def finished(
    sample: Sample,
    weights: Array,
    support: Array,
    *,
    intercept: bool,
    low: Array | None = None,
    high: Array | None = None,
    accepted: Array | None = None,
) -> Fit:
    """The fit of some weights; NaN where the moments or the weights are not finite.

    Args:
        sample: what was fitted to.
        weights: w [p].
        support: [p] bool.
        intercept: whether the pooled residual is to have mean zero.
        low: ends of confidence intervals [p]; None where there are none.
        high: their other ends.
        accepted: number of accepted sets []; None where none is tested.
    """
    valid = jnp.isfinite(sample.second).all() & jnp.isfinite(weights).all()
    weights = jnp.where(valid, weights, jnp.nan)
    means = sample.pooled[:-1, -1]
    shift = means[-1] - jnp.sum(weights * means[:-1]) if intercept else jnp.zeros_like(means[-1])
    nothing = jnp.full_like(weights, jnp.nan)
    return Fit(
        weights,
        support,
        nothing if low is None else low,
        nothing if high is None else high,
        jnp.asarray(-1 if accepted is None else accepted, jnp.int32),
        shift,
    )


def check_level(level: float | Array) -> None:
    """Refuse a level of tests that is not between 0 and 1.

    Raises:
        ValueError: if it is concrete and out of range.
    """
    checks.number("level", level, above=0)
    value = checks.concrete(level)
    if value is not None and value >= 1:
        raise ValueError(f"level must be a number above 0 and below 1, got {level}")
