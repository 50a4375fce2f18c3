"""Do runs on the exact law end like runs on drawn data, and, for huge batches, the population?"""

from __future__ import annotations

import functools
import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import stats

from causal_sgd.sensing import measurements, metrics, models, worlds
from causal_sgd.training import run, samplers
from causal_sgd.training.algorithms import sgd
from causal_sgd.types import Batch, Sampler
from support.cases import few
from support.law import LAWS

pytestmark = pytest.mark.usefixtures("quickly_compiled")


def of_all_environments(sampler: Sampler) -> Sampler:
    """The same batches as mixtures of all environments, most of them without examples."""

    def draw(key: jax.Array, step: jax.Array, state: Any) -> tuple[Batch, Any]:
        batch, new = sampler.draw(key, step, state)
        counts = jnp.zeros(state.shape[0], jnp.int32)
        return Batch(
            jnp.arange(state.shape[0]), counts.at[batch.environments].set(batch.counts)
        ), new

    return sampler._replace(draw=draw)


@functools.partial(jax.jit, static_argnames=("sampler", "kind", "mixture"))
def final_values(
    keys: jax.Array, batch_size: float, *, sampler: str, kind: str, mixture: bool = False
) -> tuple[jax.Array, jax.Array]:
    """Spurious signal, which fluctuates, and invariant error after 200 steps at d = 8, [n] each."""

    def one(key: jax.Array) -> dict[str, jax.Array]:
        chosen = getattr(samplers, sampler)(batch_size=batch_size)
        algorithm = sgd(
            world=worlds.two_point(
                dim=8, invariant_rank=2, spurious_rank=2, mean=1.0, spread=3.0, basis="canonical"
            ),
            sampler=of_all_environments(chosen) if mixture else chosen,
            measurement={
                "law": lambda: measurements.gaussian_law(noise=0.3),
                "low rank": lambda: measurements.low_rank_law(noise=0.3),
                "streamed": lambda: measurements.streamed(noise=0.3, slab_size=25),
                "population": measurements.population,
            }[kind](),
            model=models.factored(dim=8, init_scale=0.1),
            optimizer=optax.sgd(0.05),
        )
        watched = (metrics.spurious_signal, metrics.invariant_error)
        return run(key, algorithm=algorithm, metrics=watched, num_steps=200).metrics

    values = jax.vmap(one)(keys)
    return values["spurious_signal"][:, -1], values["invariant_error"][:, -1]


def seeds(first: int) -> jax.Array:
    """200 of them always, so that the tests share their compiled runs."""
    return jax.vmap(jax.random.key)(jnp.arange(first, first + 200))


@pytest.mark.parametrize(
    ("sampler", "kind"),
    few(itertools.product(["hetero", "pooled"], LAWS), (), {("hetero", "law")}),
)
def test_runs_on_the_law_end_like_runs_on_drawn_measurements(sampler: str, kind: str) -> None:
    # Kolmogorov-Smirnov on independent seeds: each p-value is below 1e-3 by chance for one choice
    # of seeds in 1000
    law = final_values(seeds(0), 50.0, sampler=sampler, kind=kind)
    drawn = final_values(seeds(1000), 50.0, sampler=sampler, kind="streamed")
    for one, other in zip(law, drawn, strict=True):
        assert np.isfinite(one).all()
        assert np.std(one) > 0.01, "nothing fluctuates: there is nothing to test"
        assert stats.ks_2samp(one, other).pvalue > 1e-3


@pytest.mark.slow
def test_runs_of_one_environment_a_batch_end_alike_when_treated_as_mixtures() -> None:
    pure = final_values(seeds(0), 50.0, sampler="hetero", kind="law")
    mixture = final_values(seeds(1000), 50.0, sampler="hetero", kind="law", mixture=True)
    for one, other in zip(pure, mixture, strict=True):
        assert stats.ks_2samp(one, other).pvalue > 1e-3


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "mixture"),
    few(itertools.product(["law", "low rank"], [False, True]), {("law", False)}),
)
def test_a_batch_of_100_million_is_the_population(kind: str, mixture: bool) -> None:
    law = final_values(seeds(0), 1e8, sampler="hetero", kind=kind, mixture=mixture)
    mean = final_values(seeds(0), 1e8, sampler="hetero", kind="population")
    for one, other in zip(law, mean, strict=True):
        np.testing.assert_allclose(one, other, atol=2e-2)
    few = final_values(seeds(0), 50.0, sampler="hetero", kind=kind, mixture=mixture)
    assert np.abs(np.asarray(few) - np.asarray(mean)).max() > 0.2, (
        "the tolerance would hide any batch size"
    )


# `jax.random.gamma` has a rejection loop that never came to an end here on a CPU, for five runs.
@pytest.mark.slow  # `test_draws` looks at the draw itself, for more numbers of runs
def test_no_number_of_runs_side_by_side_locks_up_the_law() -> None:
    for value in final_values(seeds(0)[:5], 1e8, sampler="hetero", kind="law"):
        assert np.isfinite(value).all()
