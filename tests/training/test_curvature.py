"""Risks have the gradients that train; curvatures are those of dense Hessians and closed forms."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.extend.core import jaxprs_in_params as inner_of
from jax.flatten_util import ravel_pytree

from causal_sgd.sensing import World, measurements, metrics, models, worlds
from causal_sgd.sensing.measurements.designs import shared_design
from causal_sgd.sensing.models import MatrixModel
from causal_sgd.training import curvature, run, samplers, sgd
from causal_sgd.training.algorithms import fedavg, stream
from causal_sgd.types import Batch, Measurement, Snapshot
from support.cases import few

pytestmark = pytest.mark.usefixtures("quickly_compiled")

DIM, MEAN, NOISE = 8, 1.5, 0.5
SPECTRUM = np.array([1.0, 2.0])
KEY = jax.random.key(0)
RANKS: dict[str, Any] = {"dim": DIM, "invariant_rank": 2, "spurious_rank": 2}
BATCH = Batch(jnp.array([2, 0, 1]), jnp.array([5, 0, 3], jnp.int32))
DESIGN: dict[str, Any] = {"num_examples": 9, "noise": NOISE}
FACTORED = models.factored(dim=DIM, rank=3)
MODELS: dict[str, MatrixModel] = {
    "factored": FACTORED,
    "without a factor": MatrixModel(FACTORED.init, FACTORED.estimate),
    "diagonal": models.diagonal(dim=DIM),
    "signed diagonal": models.signed_diagonal(dim=DIM),
    "asymmetric": models.asymmetric(dim=DIM, rank=3),
}
MEASUREMENTS: dict[str, Callable[[], Measurement]] = {
    "population": measurements.population,
    "full design": lambda: measurements.fixed_design(**DESIGN, full=True),
    "whole matrices": lambda: measurements.fixed_design(**DESIGN, symmetric=False),
    "without replacement": lambda: measurements.fixed_design(**DESIGN, fresh_noise=0.3),
    "with replacement": lambda: measurements.fixed_design(**DESIGN, replacement=True),
    "gathered rows": lambda: measurements.fixed_design(
        num_examples=40, noise=NOISE, largest_batch=10
    ),
    "shared design": lambda: measurements.fixed_design(
        design=shared_design(KEY, dim=DIM, num_environments=4, num_examples=9),
        noise=NOISE,
    ),
}


@functools.cache
def nature(basis: Any = "random") -> World:
    factory = worlds.two_point(
        **RANKS, mean=MEAN, spread=4.0, invariant_spectrum=SPECTRUM, basis=basis
    )
    with jax.ensure_compile_time_eval():
        return jax.jit(factory)(KEY)


def params_of(model: MatrixModel) -> Any:
    """Parameters of order one, without symmetries."""
    start, restore = ravel_pytree(model.init(KEY))
    return restore(0.5 * jnp.cos(1 + jnp.arange(start.shape[0], dtype=start.dtype)))


def taken(
    params: Any,
    model: MatrixModel = FACTORED,
    measurement: Measurement | None = None,
    *,
    world: World | None = None,
) -> Snapshot:
    world = nature() if world is None else world
    measurement = measurements.population() if measurement is None else measurement
    data = measurement.init(jax.random.key(1), world)
    return Snapshot(jnp.asarray(0), params, world, jnp.asarray(0.0), model, measurement, data)


def pairs() -> list[Any]:
    """Of every measurement one model, and of the population every model."""
    of_design = {"whole matrices": "asymmetric"}
    rows = [("population", model) for model in MODELS]
    rows += [
        (name, of_design.get(name, "factored")) for name in MEASUREMENTS if name != "population"
    ]
    quick = {("population", "factored"), ("with replacement", "factored")}
    return few(rows, quick | {("whole matrices", "asymmetric")})


@pytest.mark.parametrize(("kind", "name"), pairs())
def test_the_gradient_of_the_risk_of_a_batch_is_the_gradient_that_trains(
    kind: str, name: str
) -> None:
    measurement, model = MEASUREMENTS[kind](), MODELS[name]
    world, params = nature("canonical" if "diagonal" in name else "random"), params_of(model)
    assert measurement.risks is not None
    on_batch = measurement.risks.batch
    assert on_batch is not None

    @jax.jit
    def both(params: Any) -> tuple[Any, Any]:
        data = measurement.init(jax.random.key(1), world)
        fixed = jax.random.key(2), jnp.asarray(5), data, model
        risks = on_batch(*fixed, world, BATCH)
        shares = BATCH.counts / BATCH.counts.sum()
        loss, gradient = jax.value_and_grad(lambda params: shares @ risks(params))(params)
        trained, batch_loss = measurement.gradient(*fixed, params, world, BATCH)
        return (gradient, loss), (trained, batch_loss)

    mine, theirs = both(params)
    chex.assert_trees_all_close(mine, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "kind", few(["population", "full design", "shared design"], {"full design"})
)
def test_the_whole_of_the_data_is_a_batch_of_everything(kind: str) -> None:
    measurement = MEASUREMENTS[kind]()
    everything = Batch(jnp.arange(4), jnp.full(4, 9, jnp.int32))
    assert measurement.risks is not None
    on_batch = measurement.risks.batch
    assert on_batch is not None
    params = params_of(FACTORED)
    for scale in (1.0, 0.7):
        snapshot = taken(params, FACTORED, measurement)
        of_all = on_batch(KEY, snapshot.step, snapshot.data, FACTORED, snapshot.world, everything)
        np.testing.assert_allclose(
            of_all(params, scale), snapshot.risks(params, scale), rtol=1e-5, err_msg=str(scale)
        )


@pytest.mark.parametrize("law", [measurements.gaussian_law, measurements.low_rank_law])
@pytest.mark.parametrize("name", few(["factored", "diagonal"], {"factored"}))
def test_risks_of_laws_are_population_losses_with_label_noise(law: Any, name: str) -> None:
    model, world = MODELS[name], nature("canonical")
    params = params_of(model)
    dense = [world.invariant + world.spurious(core) for core in world.spurious_cores]
    for scale in (1.0, -0.5):
        found = taken(params, model, law(noise=NOISE), world=world).risks(params, scale)
        residuals = [scale * model.estimate(params) - signal for signal in dense]
        expected = [(float(jnp.sum(matrix**2)) + NOISE**2) / 4 for matrix in residuals]
        np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.slow
def test_the_derivative_by_the_scale_is_that_of_the_prediction() -> None:
    params, world = params_of(FACTORED), nature()
    risks = taken(params).risks
    slope = jax.jacfwd(lambda scale: risks(params, scale))(1.0)
    estimate = FACTORED.estimate(params)
    for environment, core in enumerate(world.spurious_cores):
        residual = estimate - world.invariant - world.spurious(core)
        expected = float(jnp.sum(estimate * residual)) / 2
        np.testing.assert_allclose(slope[environment], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("columns", few([DIM, 9], {9}))
def test_the_invariant_solution_is_a_strict_saddle_of_the_pooled_loss(columns: int) -> None:
    """Eigenvalues at U U' = A* with spare columns zero; 64 parameters are dense, 72 are not."""

    @jax.jit
    def found(key: jax.Array) -> tuple[dict[str, jax.Array], jax.Array, jax.Array]:
        world = nature()
        solution = world.invariant_basis * jnp.sqrt(world.invariant_spectrum)[None, :]
        params = jnp.pad(solution, ((0, 0), (0, columns - 2)))
        snapshot = taken(params, models.factored(dim=DIM, rank=columns))
        hessian = jax.hessian(snapshot.pooled_risk())(params).reshape(DIM * columns, -1)
        values = {name: getattr(curvature, name)(snapshot) for name in NAMES}
        return values, hessian, metrics.gradient_norm(snapshot)

    values, hessian, gradient = found(KEY)
    invariant = [sum(pair) for pair in ((1, 1), (1, 2), (2, 2))]
    complement = [1] * (DIM - 4) + [2] * (DIM - 4)
    spurious = [1 - MEAN] * 2 + [2 - MEAN] * 2
    saddle = [-MEAN] * (2 * (columns - 2))
    expected = invariant + complement + spurious + saddle
    expected = np.sort(np.pad(expected, (0, DIM * columns - len(expected))))
    np.testing.assert_allclose(np.linalg.eigvalsh(hessian), expected, atol=1e-4)
    np.testing.assert_allclose(values["sharpness"], 4, rtol=1e-5)
    np.testing.assert_allclose(values["lowest_curvature"], -MEAN, rtol=1e-5)
    # Environment e has -s_e along V, and all others are as above.
    largest_negative = -np.asarray(nature().spurious_cores)[:, range(2), range(2)].min(1)
    np.testing.assert_allclose(
        values["environment_sharpness"], np.maximum(4, largest_negative + 2), rtol=1e-5
    )
    assert gradient < 1e-5
    if columns == DIM:
        np.testing.assert_allclose(values["hessian_trace"], expected.sum(), rtol=1e-4)


NAMES = [name for name in curvature.__all__ if name != "batch_sharpness"]


@pytest.mark.slow
def test_lanczos_agrees_with_dense_hessians_of_many_runs_at_once() -> None:
    """120 parameters of a fixed design; the ends to 1e-3, the trace within 4 standard errors."""
    model = models.factored(dim=DIM, rank=15)
    measurement = measurements.fixed_design(num_examples=30)

    def one(key: jax.Array) -> tuple[dict[str, jax.Array], jax.Array, jax.Array]:
        world = worlds.two_point(**RANKS, spread=3.0)(key)
        params = 0.4 * jax.random.normal(key, (DIM, 15))
        snapshot = taken(params, model, measurement, world=world)
        risks = snapshot.risks
        dense = jax.jacfwd(jax.jacrev(risks))(params).reshape(4, params.size, params.size)
        return {name: getattr(curvature, name)(snapshot) for name in NAMES}, dense, params

    values, dense, _ = jax.jit(jax.vmap(one))(jax.random.split(KEY, 3))
    every = np.linalg.eigvalsh(dense)
    pooled = np.asarray(dense, np.float64).mean(1)
    spectrum = np.linalg.eigvalsh(pooled)
    np.testing.assert_allclose(values["sharpness"], spectrum[:, -1], rtol=1e-3)
    span = spectrum[:, -1] - spectrum[:, 0]
    assert (np.abs(values["lowest_curvature"] - spectrum[:, 0]) < 1e-2 * span).all()
    np.testing.assert_allclose(values["environment_sharpness"], every[:, :, -1], rtol=1e-3)
    off = pooled - np.einsum("nij,ij->nij", pooled, np.eye(pooled.shape[1]))
    error = np.sqrt(2 * (off**2).sum((1, 2)) / curvature.PROBES)
    trace = np.trace(pooled, axis1=1, axis2=2)
    assert (np.abs(values["hessian_trace"] - trace) < 4 * error).all()


def test_lanczos_finds_both_ends_of_a_spectrum_that_power_iteration_does_not() -> None:
    """Equal ends of both signs, and an operator of few eigenvalues, whose vectors run out."""
    diagonal = jnp.concatenate([jnp.array([3.0, -3.0]), jnp.linspace(-1, 1, 198)])
    few = jnp.where(jnp.arange(200) < 3, 2.0, 5.0)
    for values in (diagonal, few):
        matrix = jax.jit(
            lambda values: curvature._lanczos(lambda v: values * v, 200, 40, values.dtype)
        )(values)
        ends = np.linalg.eigvalsh(matrix)[[0, -1]]
        np.testing.assert_allclose(ends, [values.min(), values.max()], rtol=1e-4)


def trained(sampler: Any, method: Any = sgd, measurement: Any = None, **options: Any) -> Any:
    """The curvatures of a run, by `run` with metrics as users name them."""
    algorithm = method(
        world=worlds.two_point(**RANKS, spread=3.0),
        sampler=sampler,
        measurement=measurements.population() if measurement is None else measurement,
        model=models.factored(dim=DIM, rank=3, init_scale=0.1),
        optimizer=optax.sgd(0.1),
    )
    watched = [curvature.batch_sharpness, curvature.sharpness, metrics.training_loss, params]
    return run(KEY, algorithm=algorithm, metrics=watched, num_steps=4, record_every=1, **options)


def params(snapshot: Snapshot) -> jax.Array:
    return snapshot.params


@pytest.mark.slow
def test_the_sharpness_of_a_batch_is_that_of_the_batch_that_comes_next() -> None:
    trace = jax.jit(lambda: trained(samplers.cyclic(batch_size=10)))()
    with jax.ensure_compile_time_eval():
        world = worlds.two_point(**RANKS, spread=3.0)(stream(KEY, "world"))

    @jax.jit
    def expected(point: jax.Array, environment: jax.Array) -> jax.Array:
        def risk(flat: jax.Array) -> jax.Array:
            estimate = FACTORED.estimate(flat.reshape(DIM, 3))
            core = world.spurious_cores[environment]
            return jnp.sum((estimate - world.invariant - world.spurious(core)) ** 2) / 4

        gradient, hessian = jax.grad(risk)(point), jax.hessian(risk)(point)
        return gradient @ hessian @ gradient / jnp.sum(gradient**2)

    for step in range(5):
        point = trace.metrics["params"][step].reshape(-1)
        np.testing.assert_allclose(
            trace.metrics["batch_sharpness"][step], expected(point, step % 4), rtol=2e-3, atol=1e-4
        )


def test_what_has_no_risk_is_refused_by_name() -> None:
    hetero = samplers.hetero(batch_size=10)
    for measurement, metric, message in (
        (measurements.streamed(), "training_loss", "got streamed, which has only a gradient"),
        (measurements.rank_one(), "gradient_norm", "got rank_one, which has only a gradient"),
    ):
        with pytest.raises(ValueError, match=message):
            getattr(metrics, metric)(taken(params_of(FACTORED), FACTORED, measurement))
    with pytest.raises(ValueError, match="draws do not depend on the parameters, got gaussian_law"):
        trained(hetero, measurement=measurements.gaussian_law())
    with pytest.raises(ValueError, match="one gradient by one batch in every step"):
        trained(hetero, fedavg)
    relu = models.relu(dim=DIM)
    with pytest.raises(ValueError, match="measurements.examples trains it"):
        metrics.training_loss(taken(relu.init(KEY), relu))
    asymmetric = MODELS["asymmetric"]
    snapshot = taken(params_of(asymmetric), asymmetric, measurements.fixed_design(num_examples=3))
    with pytest.raises(ValueError, match="pass symmetric=False"):
        metrics.training_loss(snapshot)


def test_a_value_is_computed_once_and_anew_within_a_transformation() -> None:
    calls = []

    def counted(snapshot: Snapshot) -> jax.Array:
        calls.append(1)
        return jnp.sum(snapshot.params)

    @jax.jit
    def both(params: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        snapshot = taken(params)
        inner = jax.grad(lambda scale: scale * snapshot.once(counted))(2.0)
        return inner, snapshot.once(counted), snapshot.once(counted)

    values = both(jnp.ones((DIM, 3)))
    np.testing.assert_allclose(values, [3 * DIM] * 3)
    assert len(calls) == 2


@pytest.mark.parametrize("shared", few([False, True], {True}))
def test_the_sharpness_of_an_environment_reads_its_own_data_alone(shared: bool) -> None:
    """Its products read a quarter of what those of the pooled risk of four environments read."""
    size, width = 9, DIM * (DIM + 1) // 2
    given = np.ones((4, size, width), np.float32) if shared else None
    measurement = measurements.fixed_design(
        num_examples=None if shared else size, design=given, noise=NOISE
    )
    snapshot = taken(jnp.ones((DIM, 3)), FACTORED, measurement)

    def numbers_read(jaxpr: Any) -> int:
        total = sum(numbers_read(inner) for one in jaxpr.eqns for inner in inner_of(one.params))
        products = [one for one in jaxpr.eqns if one.primitive.name == "dot_general"]
        shapes = [variable.aval.shape for one in products for variable in one.invars]
        return total + sum(math.prod(s) for s in shapes if s[-2:] in {(size, width), (width, size)})

    own, pooled = (
        numbers_read(jax.make_jaxpr(metric)(snapshot).jaxpr)
        for metric in (curvature.environment_sharpness, curvature.sharpness)
    )
    assert 0 < own <= pooled / 4
