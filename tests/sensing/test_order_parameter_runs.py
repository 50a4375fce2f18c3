"""Runs of order parameters against runs of the full factor, in law; their limit; refusals."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import stats

from causal_sgd import linalg, sweep
from causal_sgd.sensing import measurements, metrics, models, nonstationary, worlds
from causal_sgd.training import algorithms, optimizers, run, samplers
from causal_sgd.types import Algorithm, Array
from support.cases import few

pytestmark = pytest.mark.usefixtures("quickly_compiled")

RANKS: Mapping[str, Any] = {"invariant_rank": 2, "spurious_rank": 1, "mean": 1.0}
WATCHED = {
    "invariant": metrics.invariant_signal,
    "spurious": metrics.spurious_signal,
    "complement": metrics.complement_signal,
    "error": metrics.invariant_error,
    "rank": metrics.effective_rank,
}


def algorithm_of(
    measurement: str = "order_parameter_law",
    *,
    dim: Any = 50,
    batch_size: Any = 100,
    spread: Any = 3.0,
    noise: float = 0.0,
    rank: int = 4,
    slots: int = 1,
    init_scale: Any = 0.1,
    sampler: Callable[..., Any] = samplers.hetero,
    optimizer: Any = None,
    method: str = "sgd",
    **options: Any,
) -> Algorithm:
    """A run of the full factor, or the same run of its order parameters."""
    if measurement.startswith("order"):
        model = models.order_parameters(
            dim=dim, rank=rank, frame=3, slots=slots, init_scale=init_scale
        )
        world = worlds.reduced(worlds.two_point(dim=3, spread=spread, **RANKS), rows=model.rows)
    else:
        model = models.factored(dim=dim, rank=rank, init_scale=init_scale, init="gaussian")
        world = worlds.two_point(dim=dim, spread=spread, **RANKS)
    own = {"batch_ratio": batch_size / dim} if measurement == "order_parameter_limit" else {}
    return getattr(algorithms, method)(
        world=world,
        sampler=sampler(batch_size=batch_size),
        measurement=getattr(measurements, measurement)(noise=noise, **own),
        model=model,
        optimizer=optax.sgd(0.1) if optimizer is None else optimizer,
        **options,
    )


def last_values(
    seed: int, runs: int, *, steps: int, every: int | None = None, **options: Any
) -> dict[str, np.ndarray]:
    """Metrics of independent runs at the end, [runs]; all frames [runs, F] with `every`."""

    @jax.jit
    def all_runs(keys: Array) -> Any:
        def one(key: Array) -> Any:
            return run(
                key,
                algorithm=algorithm_of(**options),
                metrics=WATCHED,
                num_steps=steps,
                record_every=every or steps,
            ).metrics

        return jax.vmap(one)(keys)

    values = all_runs(jax.random.split(jax.random.key(seed), runs))
    return {
        name: np.asarray(value)[:, slice(None) if every else -1] for name, value in values.items()
    }


MOMENTUM: dict[str, Any] = {"optimizer": optax.sgd(0.05, momentum=0.5)}
AVERAGE: dict[str, Any] = {
    "optimizer": optax.chain(optax.sgd(0.1), optimizers.tail_average(start=10)),
    "evaluate": optimizers.averaged,
}
LAWS: dict[str, tuple[str, dict[str, Any]]] = {
    "smallest dim": ("gaussian_law", {"dim": 12, "batch_size": 30, "noise": 0.5}),
    "label noise": ("low_rank_law", {"dim": 12, "batch_size": 30, "noise": 0.5}),
    "dim 50": ("low_rank_law", {"dim": 50, "batch_size": 100}),
    "strong": ("gaussian_law", {"dim": 50, "batch_size": 100, "spread": 6.0, "noise": 0.5}),
    "all environments": (
        "low_rank_law",
        {"dim": 12, "batch_size": 30, "noise": 0.5, "sampler": samplers.stratified},
    ),
    "pooled": ("low_rank_law", {"dim": 12, "batch_size": 30, "sampler": samplers.pooled}),
    "momentum": ("low_rank_law", {"dim": 16, "batch_size": 40, "slots": 2, **MOMENTUM}),
    "average": ("low_rank_law", {"dim": 16, "batch_size": 40, "slots": 2, **AVERAGE}),
    "idle slots": ("low_rank_law", {"dim": 20, "batch_size": 40, "slots": 3}),
}


@pytest.mark.parametrize("name", few(LAWS, {}, {"smallest dim"}))
def test_final_metrics_have_the_law_of_the_full_factor(name: str) -> None:
    """45 tests of Kolmogorov and Smirnov; the least p-value is below 1e-4 in one of 200 suites."""
    law, options = LAWS[name]
    found = last_values(1, 2000, steps=50, **options)
    dense = {key: value for key, value in options.items() if key != "slots"}
    expected = last_values(2, 2000, steps=50, measurement=law, **dense)
    for metric in WATCHED:
        test: Any = stats.ks_2samp(found[metric], expected[metric])
        assert test.pvalue > 1e-4, metric


def test_the_limit_is_its_recursion() -> None:
    """A+ = A - eta (A Gamma - D A) and B+ by hand, in double precision."""
    rate, ratio, noise, steps = 0.1, 2.0, 0.5, 12
    algorithm = algorithm_of(
        "order_parameter_limit",
        dim=50,
        batch_size=100,
        noise=noise,
        rank=2,
        sampler=samplers.cyclic,
    )

    @jax.jit
    def ends(key: Array) -> tuple[Any, Any]:
        first = algorithm.init(key)
        last = jax.lax.fori_loop(0, steps, lambda _, state: algorithm.step(key, state), first)
        return first, last

    with jax.enable_x64(True):
        first, last = ends(jax.random.key(0))
    cores = np.asarray(first.world.spurious_cores)
    x, y = np.asarray(first.params), np.asarray(last.params)
    assert y.dtype == np.float64
    a, b = x[:3], x[3:].T @ x[3:]
    for step in range(steps):
        signal = np.diag([1.0, 1.0, float(cores[step % 2, 0, 0])])
        gamma = a.T @ a + b
        square = np.trace(gamma @ gamma) - 2 * np.trace(a.T @ signal @ a) + np.sum(signal**2)
        nu, shrink = (square + noise**2) / (2 * ratio), np.eye(2) - rate * gamma
        a = a @ shrink + rate * signal @ a
        b = shrink @ b @ shrink + rate**2 * nu * gamma
    np.testing.assert_allclose(y[:3], a, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(y[3:].T @ y[3:], b, rtol=1e-9, atol=1e-12)


def paths(measurement: str, dims: tuple[int, ...], ratio: int) -> np.ndarray:
    """|U*'U|^2, |V'U|^2, tr B and the error of 32 runs over time, [dims, runs, steps, 4].

    All dimensions have the same starts: those of the model have signals of order d^(-1/2), like the
    noise that they gather, so that runs differ by when their signals have grown.
    """
    rows = (
        np.random.default_rng(0).normal(size=(32, 3, 4)),
        np.broadcast_to(np.eye(8, 4), (32, 8, 4)),
    )
    starts = jnp.asarray(0.1 * np.concatenate(rows, 1), jnp.float32)
    shared = jnp.diag(jnp.array([1.0, 1.0] + 9 * [0.0]))

    def one(key: Array, dim: Array, start: Array) -> Array:
        algorithm = algorithm_of(measurement, dim=dim, batch_size=ratio * dim)

        def advance(state: Any, _: None) -> tuple[Any, Array]:
            state = algorithm.step(key, state)
            x = state.params
            parts = [x[:2], x[2:3], x[3:], linalg.product(x, x.T) - shared]
            return state, jnp.stack([jnp.sum(part**2) for part in parts])

        state = algorithm.init(key)._replace(params=start)
        return jax.lax.scan(advance, state, None, length=300)[1]

    every = jax.jit(jax.vmap(jax.vmap(one, (0, None, 0)), (None, 0, None)))
    values = np.array(every(jax.random.split(jax.random.key(3), 32), jnp.asarray(dims), starts))
    values[..., 3] **= 0.5
    return values


@pytest.mark.slow
@pytest.mark.parametrize("ratio", [2, 5])
def test_the_chain_approaches_its_limit_like_one_over_the_root_of_dim(ratio: int) -> None:
    """Root mean square over time of the difference on the same keys, median over sequences."""
    dims, names = (10**2, 10**3, 10**4, 10**5, 10**6), list(WATCHED)[:4]
    chain = paths("order_parameter_law", dims, ratio)
    squares = (chain - paths("order_parameter_limit", dims[:1], ratio)) ** 2
    deviations = np.median(np.sqrt(squares.mean(2)), 1)
    for name, values in zip(names, deviations.T, strict=True):
        slope = np.polyfit(np.log(dims), np.log(values), 1)[0]
        assert -0.6 < slope < -0.4, (name, values)


@pytest.mark.slow
def test_dim_and_batch_size_are_axes_of_one_program() -> None:
    traced: list[Any] = []

    def cell(key: Array, *, dim: Array, batch_size: Array) -> Any:
        traced.append(dim)
        scale = 0.5 / jnp.sqrt(jnp.asarray(dim, float))
        algorithm = algorithm_of(dim=dim, batch_size=batch_size, rank=2, init_scale=scale)
        return run(key, algorithm=algorithm, metrics=[metrics.invariant_error], num_steps=20)

    axes = {"dim": [100, 10**6], "batch_size": [1000, 10**7]}
    result = sweep(cell, axes=axes, seeds=2, tile=16, progress=False)
    assert len(traced) == 3  # both ends, and the program
    values = result.invariant_error.isel(step=-1).mean("seed").values
    assert np.isfinite(values[0]).all()
    assert np.isfinite(values[1, 1])
    # With a hundredth of the examples that its dim needs, a run diverges.
    assert (result.diverged_at.sel(dim=10**6, batch_size=1000) >= 0).all()


@pytest.mark.slow
def test_a_traced_dim_below_the_rows_ends_its_run() -> None:
    def last(key: Array, dim: Array) -> Array:
        algorithm = algorithm_of(dim=dim, rank=2)
        return algorithm.step(key, algorithm.init(key)).params

    values = jax.jit(jax.vmap(last, (None, 0)))(jax.random.key(0), jnp.array([6, 7]))
    assert np.isnan(values[0]).any()
    assert np.isfinite(values[1]).all()


BAD: dict[str, tuple[Callable[[], object], str]] = {
    "small dim": (lambda: algorithm_of(dim=10), r"^dim must be at least .* = 11 .* got 10"),
    "no rows": (lambda: worlds.reduced(worlds.two_point(dim=3, **RANKS), rows=0), "^rows must be"),
    "no slots": (lambda: algorithm_of(slots=0), "^slots must be a whole number"),
    "no ratio": (
        lambda: measurements.order_parameter_limit(batch_ratio=0.0),
        "^batch_ratio must be",
    ),
    "clients": (
        lambda: algorithm_of(method="fedavg"),
        "^model must not be reduced .* fedavg, fedprox and scaffold",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_what_order_parameters_cannot_do_is_refused(name: str) -> None:
    make, message = BAD[name]
    with pytest.raises(ValueError, match=message):
        make()


def step_of(**parts: Any) -> None:
    model = models.order_parameters(dim=100, rank=2, frame=3)
    given = {
        "world": worlds.reduced(worlds.two_point(dim=3, **RANKS), rows=model.rows),
        "sampler": samplers.hetero(batch_size=9),
        "measurement": measurements.order_parameter_law(),
        "model": model,
        "optimizer": optax.sgd(0.1),
    } | parts
    algorithm = algorithms.sgd(**given)
    jax.eval_shape(lambda key: algorithm.step(key, algorithm.init(key)), jax.random.key(0))


WHOLE = worlds.two_point(dim=7, **RANKS)
MISFITS: dict[str, tuple[dict[str, Any], str]] = {
    **{
        name: (
            {"measurement": make()},
            f"^measurement must be right for reduced parameters .* got {name}",
        )
        for name, make in {
            "gaussian_law": measurements.gaussian_law,
            "low_rank_law": measurements.low_rank_law,
            "streamed": measurements.streamed,
            "completion": measurements.completion,
            "rank_one": measurements.rank_one,
            "examples": measurements.examples,
            "in_context": lambda: measurements.in_context(4),
            "fixed_design": lambda: measurements.fixed_design(num_examples=9),
        }.items()
    },
    "whole world": ({"world": WHOLE}, r"^world must be worlds.reduced\(..., rows=7\)"),
    "whole world in the mean": (
        {"world": WHOLE, "measurement": measurements.population()},
        r"^world must be worlds.reduced\(..., rows=7\)",
    ),
    "large frame": (
        {
            "world": worlds.reduced(
                worlds.two_point(dim=4, invariant_rank=2, spurious_rank=2), rows=7
            )
        },
        "^frame must be at least r1 . r2 = 4",
    ),
    "few rows": (
        {"world": worlds.reduced(worlds.two_point(dim=3, **RANKS), rows=2)},
        "^rows must be at least r1 . r2 = 3",
    ),
    "rotation": (
        {"evolve": nonstationary.rotate(angle=0.1)},
        "^evolve must keep the spurious_basis of a reduced world",
    ),
    "whole model": (
        {"model": models.factored(dim=7, rank=2)},
        "^model must be models.order_parameters for order_parameter_law",
    ),
}


@pytest.mark.parametrize("name", few(MISFITS, {"gaussian_law", "rotation", "whole model"}))
def test_parts_that_do_not_fit_order_parameters_are_refused(name: str) -> None:
    parts, message = MISFITS[name]
    with pytest.raises(ValueError, match=message):
        step_of(**parts)


@pytest.mark.slow
def test_worlds_may_drift_and_be_redrawn() -> None:
    step_of(evolve=nonstationary.drift(rate=0.1))
    step_of(evolve=nonstationary.redraw(worlds.two_point(dim=3, **RANKS)))
    step_of(measurement=measurements.population())
