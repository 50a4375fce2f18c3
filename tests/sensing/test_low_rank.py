"""Does `low_rank_law` have the law of G U for every U, and do thin runs avoid d x d arrays?

The oracle is that of test_law.py: G U and the loss are linear in G and the loss, whose mean and
covariance are known and whose definition is simulated. Error rates are as in test_law.py: a case
has fewer than 260 z-scores, so `max |z| < 5` fails by chance in 1.5e-4 of all cases. Seeds are
fixed.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import chex
import jax
import jax.extend.core
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import stats

from causal_sgd.sensing import World, measurements, metrics, models, worlds
from causal_sgd.sensing.models import MatrixModel
from causal_sgd.training import run, samplers
from causal_sgd.training.algorithms import sgd
from causal_sgd.types import Algorithm, Batch, Params, Snapshot
from support.arrays import normal, orthogonal
from support.cases import few
from support.law import (
    DIM,
    UPPER,
    Case,
    closed_form,
    definition,
    high_moments,
    judge,
    low_moments,
    make_case,
)

pytestmark = pytest.mark.usefixtures("quickly_compiled")

DRAWS = 100_000
EPS = float(np.finfo(np.float32).eps)
FACTORED = models.factored(dim=DIM)  # its factor is its parameters, of any number of columns


class Factored(NamedTuple):
    """A batch of test_law.py with the estimate U U', and the tested mixtures G U mixing."""

    case: Case
    factor: np.ndarray  # [d, k] float32
    mixing: np.ndarray  # [k, c]

    @property
    def reading(self) -> np.ndarray:
        """From entries of G and the loss to those of G U mixing and the loss, [16, d c + 1]."""
        mixed = self.factor.astype(np.float64) @ self.mixing
        rows = []
        for i, j in zip(*UPPER, strict=True):
            entry = np.zeros((DIM, DIM))
            entry[i, j] = entry[j, i] = 1
            rows.append(np.append((entry @ mixed).ravel(), 0))
        return np.array([*rows, np.append(np.zeros(mixed.size), 1)])


def with_factor(
    factor: np.ndarray,
    counts: list[int],
    cores: list[int],
    mixing: np.ndarray | None = None,
    **world,
):
    factor = np.asarray(factor, np.float32)
    double = factor.astype(np.float64)
    case = make_case(counts, cores=cores, **world)._replace(estimate=double @ double.T)
    return Factored(case, factor, np.eye(factor.shape[1]) if mixing is None else mixing)


LEFT, RIGHT = orthogonal(DIM, 4, seed=4), orthogonal(4, 4, seed=5)
STEEP, MILD = np.array([1, 1e-3, 1e-6, 1e-9]), np.array([1, 3e-2, 1e-3, 3e-5])
TWO = {"counts": [7, 5], "cores": [0, 1]}
ONE = {"counts": [12], "cores": [0]}
CASES = {
    "r + k below d": with_factor(normal(DIM, 1), **TWO, spurious_rank=1),
    "k below the rank, one environment": with_factor(normal(DIM, 1), **ONE),
    "k below the rank": with_factor(normal(DIM, 2), **TWO),
    "k at the rank, one environment": with_factor(normal(DIM, 4), **ONE),
    "k at the rank": with_factor(normal(DIM, 4), **TWO),
    "k at the rank, empty environments": with_factor(normal(DIM, 4), [6, 0, 7, 0], [0, 1, 2, 3]),
    "k at the rank, counts of one": with_factor(normal(DIM, 4), [1, 1, 4, 6], [0, 1, 1, 2]),
    "k above d, one environment": with_factor(normal(DIM, 8), **ONE, mixing=normal(8, 4)),
    "k above d": with_factor(normal(DIM, 8), **TWO, mixing=normal(8, 4)),
    "spurious signals in every direction": with_factor(normal(DIM, 2), **TWO, spurious_rank=5),
    "duplicates and a zero": with_factor(
        normal(DIM, 2)[:, [0, 0, 1, 1]] * np.array([1, 1, 0, -2.0]), **TWO
    ),
    # every column to its own scale: a minute one must not be drowned by the errors of a large one
    "columns from 1 to 1e-9": with_factor(LEFT * STEEP, **TWO, mixing=np.diag(1 / STEEP)),
    "columns from 1e-9 to 1": with_factor(
        (LEFT * STEEP)[:, ::-1], **TWO, mixing=np.diag(1 / STEEP[::-1])
    ),
    "nearly parallel columns from 1 to 1e-9": with_factor(
        (LEFT + LEFT[:, :1]) * STEEP, **TWO, mixing=np.diag(1 / STEEP)
    ),
    # U itself is known to 6e-8, so smaller singular directions are not tested in their own scale
    "singular values from 1 to 3e-5": with_factor(
        LEFT * MILD @ RIGHT.T, **TWO, mixing=RIGHT / MILD
    ),
    "singular values from 1 to 1e-9": with_factor(LEFT * STEEP @ RIGHT.T, **TWO),
    "a minute U": with_factor(1e-6 * normal(DIM, 4), **TWO, mixing=1e6 * np.eye(4)),
    "U = 0": with_factor(np.zeros((DIM, 2)), **TWO),
}
QUICK = {  # one of each kind
    ("k at the rank", 0.0),
    ("k above d", 0.7),
    ("nearly parallel columns from 1 to 1e-9", 0.7),
    ("U = 0", 0.7),
}
NOISELESS = ("k at the rank, one environment", "k at the rank", "singular values from 1 to 3e-5")
HIGHER = (
    ("k below the rank", 0.7),
    ("k above d", 0.7),
    ("columns from 1 to 1e-9", 0.7),
    ("k below the rank, one environment", 0.7),
    ("k at the rank", 0.0),
    ("k at the rank, counts of one", 0.7),
)


@functools.partial(jax.jit, static_argnames="plain")
def gradients(
    keys: jax.Array,
    world: World,
    factor: jax.Array,
    counts: jax.Array,
    noise: float,
    *,
    plain: bool = False,
) -> tuple[jax.Array, jax.Array]:
    """G U [n, d, k] and batch loss [n] for each key; `plain` passes a plain 0 for the noise."""
    measurement = measurements.low_rank_law(noise=0.0 if plain else noise)
    batch, step = Batch(jnp.arange(len(counts)), counts), jnp.zeros((), jnp.int32)
    return jax.vmap(
        lambda key: measurement.gradient(key, step, (), FACTORED, factor, world, batch)
    )(keys)


def draw(which: Factored, noise: float, *, seed: int = 0) -> np.ndarray:
    """Features of so many batches, [n, d c + 1]."""
    keys = jax.random.split(jax.random.key(seed), DRAWS)
    counts = jnp.asarray(which.case.counts, jnp.int32)
    gradient, loss = gradients(
        keys, which.case.world, which.factor, counts, noise, plain=noise == 0
    )
    mixed = np.asarray(gradient, np.float64) @ which.mixing
    return np.column_stack([mixed.reshape(DRAWS, -1), loss])


def expected(which: Factored, noise: float) -> tuple[np.ndarray, np.ndarray]:
    mean, covariance = closed_form(which.case, noise)
    return mean @ which.reading, which.reading.T @ covariance @ which.reading


@pytest.mark.parametrize(
    ("name", "noise"),
    few([*((name, 0.7) for name in CASES), *((name, 0.0) for name in NOISELESS)], QUICK),
)
def test_g_u_has_the_exact_mean_and_covariance(name: str, noise: float) -> None:
    which = CASES[name]
    z = low_moments(draw(which, noise), *expected(which, noise))
    if name == "U = 0":  # only the loss is random
        assert np.abs(z).max() < 5
        return
    judge(z, enough=25)


@pytest.mark.parametrize(("name", "noise"), few(HIGHER, {("k above d", 0.7)}))
def test_g_u_has_the_third_and_fourth_moments_of_the_definition(name: str, noise: float) -> None:
    which = CASES[name]
    oracle = definition(which.case, noise) @ which.reading
    judge(low_moments(oracle, *expected(which, noise)), enough=25)  # the oracle itself
    judge(high_moments(draw(which, noise), oracle, expected(which, noise)[0]), enough=50)


EXACT = np.eye(DIM)[:, :4] * np.array(
    [1.0, 2.0, 3.0, 4.0]
)  # so that a vanishing residual is exactly zero


@pytest.mark.parametrize(
    "counts", [[7, 5], *(pytest.param(c, marks=pytest.mark.slow) for c in ([12], [12, 0]))]
)
def test_without_residuals_only_the_label_noise_moves_anything(counts: list[int]) -> None:
    axes = np.eye(DIM, dtype=np.float32)
    cores = np.repeat(np.diag([9.0, 16.0])[None], len(counts), 0)
    world = World(
        axes[:, :2],
        np.array([1.0, 4.0]),
        axes[:, 2:4],
        cores,
        np.full(len(counts), 1 / len(counts)),
    )
    world = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), world)
    which = Factored(
        Case(world, EXACT @ EXACT.T, np.array(counts)), EXACT.astype(np.float32), np.eye(4)
    )
    assert not which.case.residuals.any()
    assert not draw(which, 0.0).any()
    keys = jax.random.split(jax.random.key(0), DRAWS)
    traced = gradients(keys, world, which.factor, jnp.asarray(counts), 0.0, plain=False)
    assert not any(np.any(value) for value in traced)
    judge(low_moments(draw(which, 0.7), *expected(which, 0.7)), enough=150)


# Models


def scaled(dim: int, k: int) -> MatrixModel:
    """U = scale * shape: a factor that is not the parameters."""
    return MatrixModel(
        init=lambda key: {"scale": jnp.asarray(0.7), "shape": jax.random.normal(key, (dim, k))},
        estimate=lambda params: params["scale"] ** 2 * params["shape"] @ params["shape"].T,
        factor=lambda params: params["scale"] * params["shape"],
    )


def test_the_gradient_of_any_model_with_a_factor_is_that_of_the_population_for_huge_batches() -> (
    None
):
    case = CASES["k at the rank, counts of one"].case
    model = scaled(DIM, 3)
    params = model.init(jax.random.key(1))
    shares = jnp.asarray(case.counts / case.counts.sum(), jnp.float32)

    def population_loss(params: Params) -> jax.Array:
        error = model.estimate(params) - case.world.invariant
        spurious = jax.vmap(case.world.spurious)(case.world.spurious_cores)
        return jnp.sum(shares * jnp.sum((error[None] - spurious) ** 2, (1, 2))) / 4

    batch = Batch(jnp.arange(4), jnp.asarray(case.counts * 10**8, jnp.float32))
    step = jnp.zeros((), jnp.int32)
    found, loss = jax.jit(
        lambda key: measurements.low_rank_law().gradient(
            key, step, (), model, params, case.world, batch
        )
    )(jax.random.key(0))
    # 1.2e9 examples leave noise of about 5e-4, where entries are about 1
    mean_loss, mean = jax.jit(jax.value_and_grad(population_loss))(params)
    chex.assert_trees_all_close(found, mean, atol=2e-3, rtol=1e-3)
    np.testing.assert_allclose(loss, mean_loss, rtol=1e-3)


def test_a_model_without_a_factor_gets_one_clear_error_before_anything_runs() -> None:
    model = MatrixModel(init=lambda key: jnp.zeros((6, 6)), estimate=lambda params: params)
    algorithm = build(6, 2, "hetero", model=model)
    with pytest.raises(ValueError, match=r"model must have a factor .* for low_rank_law"):
        jax.eval_shape(
            lambda key: run(key, algorithm=algorithm, metrics=[metrics.batch_loss], num_steps=2),
            KEY,
        )


# Whole runs

KEY = jax.random.key(0)


def build(
    dim: int,
    k: int,
    sampler: str,
    *,
    law: str = "low_rank_law",
    rate: Any = 0.05,
    model: MatrixModel | None = None,
    basis: str = "random",
) -> Algorithm:
    return sgd(
        world=worlds.two_point(
            dim=dim, invariant_rank=2, spurious_rank=2, mean=1.0, spread=3.0, basis=basis
        ),
        sampler=samplers.mixed(batch_size=50, environments_per_batch=2)
        if sampler == "mixed"
        else getattr(samplers, sampler)(batch_size=50),
        measurement=getattr(measurements, law)(noise=0.3),
        model=model or models.factored(dim=dim, rank=k, init_scale=0.1),
        optimizer=optax.sgd(rate),
    )


@functools.partial(jax.jit, static_argnames=("k", "sampler", "law"))
def final_values(
    keys: jax.Array, rates: jax.Array, *, k: int, sampler: str, law: str
) -> tuple[dict[str, jax.Array], jax.Array]:
    """Three metrics after 200 steps and when a run diverged, [n] each; d = 12.

    At the rate 0.05 the signals keep fluctuating.
    """
    watched = [metrics.spurious_signal, metrics.invariant_error, metrics.complement_signal]

    def one(key: jax.Array, rate: jax.Array) -> Any:
        return run(
            key,
            algorithm=build(12, k, sampler, law=law, rate=rate, basis="canonical"),
            metrics=watched,
            num_steps=200,
        )

    traces = jax.vmap(one)(keys, rates)
    return {name: values[:, -1] for name, values in traces.metrics.items()}, traces.diverged_at


def seeds(first: int) -> jax.Array:
    """400 of them always, so that the tests share their compiled runs."""
    return jax.vmap(jax.random.key)(jnp.arange(first, first + 400))


@pytest.mark.parametrize(
    ("k", "sampler"),
    few(
        [(4, "pooled"), (3, "hetero"), (1, "pooled"), (6, "hetero"), (4, "mixed")],
        (),
        {(3, "hetero"), (4, "mixed")},
    ),
)
def test_runs_end_like_those_on_the_dense_law(k: int, sampler: str) -> None:
    # Kolmogorov-Smirnov on independent seeds: each p-value is below 1e-3 by chance for one choice
    # of seeds in 1000
    rates = np.full(400, 0.05, np.float32)
    low, _ = final_values(seeds(0), rates, k=k, sampler=sampler, law="low_rank_law")
    dense, _ = final_values(seeds(1000), rates, k=k, sampler=sampler, law="gaussian_law")
    for name, values in low.items():
        assert np.isfinite(values).all()
        assert np.std(values) > 0.01, "nothing fluctuates: there is nothing to test"
        assert stats.ks_2samp(values, dense[name]).pvalue > 1e-3, name


@pytest.mark.slow
@pytest.mark.parametrize(("k", "sampler"), [(3, "hetero"), (4, "pooled")])
def test_a_run_that_blows_up_is_flagged(k: int, sampler: str) -> None:
    """Beside runs that do not."""
    values, diverged_at = final_values(
        seeds(0), np.tile(np.float32([0.01, 5.0]), 200), k=k, sampler=sampler, law="low_rank_law"
    )
    assert (diverged_at[::2] == -1).all()
    assert ((diverged_at[1::2] > 0) & (diverged_at[1::2] < 40)).all()
    assert np.isfinite(values["invariant_error"][::2]).all()
    assert not np.isfinite(values["invariant_error"][1::2]).any()


def arrays(jaxpr: Any) -> Iterator[tuple[int, ...]]:
    """The shapes of all that a program computes, in every program that it contains."""
    for equation in jaxpr.eqns:
        yield from (
            value.aval.shape
            for value in (*equation.invars, *equation.outvars)
            if hasattr(value.aval, "shape")
        )
        for inner in jax.tree.leaves(
            list(equation.params.values()),
            is_leaf=lambda leaf: isinstance(
                leaf, jax.extend.core.ClosedJaxpr | jax.extend.core.Jaxpr
            ),
        ):
            if isinstance(inner, jax.extend.core.ClosedJaxpr | jax.extend.core.Jaxpr):
                yield from arrays(getattr(inner, "jaxpr", inner))


WIDE = 1000
PREDICTIONS = {name for name in metrics.__all__ if "prediction" in name}


def largest(law: str, sampler: str, names: Iterable[str]) -> int:
    """The size of the largest array in a run with these metrics, at d = 1000."""
    every: list[Callable[[Snapshot], jax.Array]] = [
        getattr(metrics, name) for name in sorted(names)
    ]

    def whole(key: jax.Array) -> Any:
        return run(
            key,
            algorithm=build(WIDE, 3, sampler, law=law),
            metrics=every,
            num_steps=3,
            record_every=1,
        )

    shapes = list(arrays(jax.make_jaxpr(whole)(KEY).jaxpr))
    assert len(shapes) > 500, "the walk misses the program"
    return max(int(np.prod(shape)) for shape in shapes)


@pytest.mark.parametrize("sampler", ["hetero", "mixed", "pooled"])
def test_no_array_of_a_whole_run_has_d_x_d_elements(sampler: str) -> None:
    every = set(metrics.__all__) - {"imbalance", "layer_alignment"}  # of several factors
    others = every - PREDICTIONS
    assert largest("low_rank_law", sampler, others) <= WIDE * (4 + 3)
    if sampler == "hetero":
        # predictions look at so many inputs, whatever d is
        assert largest("low_rank_law", sampler, every) <= WIDE * metrics.INPUTS
        assert largest("gaussian_law", sampler, others) >= WIDE**2, (
            "the walk would not see such an array"
        )
