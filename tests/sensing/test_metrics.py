"""Metrics are what their definitions say, in double precision and dense."""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.linalg
from scipy import stats

import causal_sgd as cs
from causal_sgd import random
from causal_sgd.sensing import World, measurements, metrics, models, worlds
from causal_sgd.sensing.models import MatrixModel
from causal_sgd.training import samplers
from causal_sgd.types import Snapshot, Trace
from support.arrays import symmetric
from support.cases import few
from support.contracts import DIM, RANKS, draw_world, own_signals

pytestmark = pytest.mark.usefixtures("quickly_compiled")

FACTORED = models.factored(dim=DIM)
DENSE = MatrixModel(lambda key: jnp.zeros((DIM, DIM)), lambda params: params)


@functools.cache
def tilted_world() -> World:
    spectrum = np.array([1.0, 2.0])
    return draw_world(
        worlds.gaussian(**RANKS, num_environments=3, invariant_spectrum=spectrum, tilt=0.4), 2
    )


def make_snapshot(kind: str) -> Snapshot:
    """A snapshot of a factor with k below, at and above the ranks, in several worlds."""
    rng = np.random.default_rng(5)
    world = tilted_world()
    factor = rng.normal(size=(DIM, {"one column": 1, "three columns": 3}.get(kind, DIM)))
    if kind == "almost learned":
        basis, spectrum = np.asarray(world.invariant_basis), np.asarray(world.invariant_spectrum)
        factor = (
            np.concatenate([basis * np.sqrt(spectrum), np.zeros((DIM, DIM - 2))], 1) + 1e-3 * factor
        )
    if kind == "overlapping signals":  # U* and V share a direction
        world = worlds.from_arrays(**own_signals(), probabilities=[0.2, 0.3, 0.5])(
            jax.random.key(0)
        )
    if kind == "spurious signals in every direction":
        world = worlds.from_arrays(own_signals()["invariant"], symmetric(rng, 2, DIM, DIM))(
            jax.random.key(0)
        )
    measurement = measurements.population()
    return Snapshot(
        step=jnp.asarray(3),
        params=jnp.asarray(factor, jnp.float32),
        world=world,
        batch_loss=jnp.asarray(1.5),
        model=FACTORED,
        measurement=measurement,
        data=measurement.init(jax.random.key(0), world),
    )


def of_estimate(snapshot: Snapshot) -> Snapshot:
    """The same estimate by a model that has no factor."""
    return dataclasses.replace(snapshot, params=snapshot.estimate, model=DENSE)


KINDS = few(
    (
        "one column",
        "square",
        "almost learned",
        "three columns",
        "overlapping signals",
        "spurious signals in every direction",
    ),
    {"square"},
)


class Dense(NamedTuple):
    """The same in double precision, dense, for the definitions."""

    factor: np.ndarray
    estimate: np.ndarray
    shared_basis: np.ndarray
    own_basis: np.ndarray
    invariant: np.ndarray
    spurious: np.ndarray
    probabilities: np.ndarray


def dense(snapshot: Snapshot) -> Dense:
    world = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), snapshot.world)
    factor = np.asarray(snapshot.params, np.float64)
    return Dense(
        factor=factor,
        estimate=factor @ factor.T,
        shared_basis=world.invariant_basis,
        own_basis=world.spurious_basis,
        invariant=world.invariant_basis * world.invariant_spectrum @ world.invariant_basis.T,
        spurious=world.spurious_basis @ world.spurious_cores @ world.spurious_basis.T,
        probabilities=world.probabilities,
    )


def pooled_signal(d: Dense) -> np.ndarray:
    return d.invariant + np.einsum("e,eij->ij", d.probabilities, d.spurious)


def complement(d: Dense) -> np.ndarray:
    inside = scipy.linalg.orth(np.concatenate([d.shared_basis, d.own_basis], 1), rcond=1e-4)
    return d.factor - inside @ inside.T @ d.factor


def entropy_rank(d: Dense) -> np.ndarray:
    values = np.linalg.svd(d.factor, compute_uv=False) ** 2
    return np.exp(stats.entropy(values))


def leading_angle(d: Dense) -> float:
    left = np.linalg.svd(d.factor, full_matrices=False)[0][:, : d.shared_basis.shape[1]]
    if left.shape[1] < d.shared_basis.shape[1]:
        return np.pi / 2
    return scipy.linalg.subspace_angles(d.shared_basis, left).max()


def losses(d: Dense) -> np.ndarray:
    return ((d.estimate - d.invariant - d.spurious) ** 2).sum((1, 2)) / 4


def normal_inputs(projection: np.ndarray) -> np.ndarray:
    """256 normal inputs, the same at every time, projected."""
    normals = random.normals(jax.random.key(0), 256 * DIM, jnp.float32)
    return np.asarray(normals, np.float64).reshape(256, DIM) @ projection


def forms(matrix: np.ndarray, inputs: np.ndarray) -> np.ndarray:
    return np.einsum("ni,ij,nj->n", inputs, matrix, inputs)


def invariant_prediction_error(d: Dense) -> float:
    inputs = normal_inputs(d.shared_basis @ d.shared_basis.T)
    return norm(forms(d.estimate - d.invariant, inputs)) / norm(forms(d.invariant, inputs))


def prediction(d: Dense, inputs: np.ndarray) -> float:
    size = norm((inputs**2).sum(1))
    return norm(forms(d.estimate, inputs)) / size if size > 1e-3 else 0.0


def outside_inputs(d: Dense) -> np.ndarray:
    inside = scipy.linalg.orth(np.concatenate([d.shared_basis, d.own_basis], 1), rcond=1e-4)
    return normal_inputs(np.eye(DIM) - inside @ inside.T)


norm = np.linalg.norm
DEFINITIONS: dict[str, Callable[[Dense], Any]] = {
    "batch_loss": lambda d: 1.5,
    "gradient_norm": lambda d: norm((d.estimate - pooled_signal(d)) @ d.factor),
    "training_loss": lambda d: d.probabilities @ losses(d),
    "complement_prediction": lambda d: prediction(d, outside_inputs(d)),
    "complement_signal": lambda d: norm(complement(d)),
    "effective_rank": entropy_rank,
    "environment_losses": losses,
    "invariant_prediction_error": invariant_prediction_error,
    "invariant_error": lambda d: norm(d.estimate - d.invariant),
    "invariant_signal": lambda d: norm(d.shared_basis.T @ d.factor),
    "largest_principal_angle": leading_angle,
    "pooled_error": lambda d: norm(d.estimate - pooled_signal(d)),
    "relative_invariant_error": lambda d: norm(d.estimate - d.invariant) / norm(d.invariant),
    "relative_pooled_error": lambda d: norm(d.estimate - pooled_signal(d)) / norm(pooled_signal(d)),
    "singular_values": lambda d: np.linalg.svd(d.factor, compute_uv=False) ** 2,
    "spurious_prediction": lambda d: prediction(d, normal_inputs(d.own_basis @ d.own_basis.T)),
    "spurious_power": lambda d: norm(d.own_basis.T @ d.factor) ** 2,
    "spurious_signal": lambda d: norm(d.own_basis.T @ d.factor),
    "trace": lambda d: np.trace(d.estimate),
    "worst_environment_loss": lambda d: losses(d).max(),
}
OF_LAYERS = {"imbalance", "layer_alignment"}
NAMES = tuple(name for name in metrics.__all__ if name not in OF_LAYERS)


def measure(snapshot: Snapshot, names: Iterable[str] = NAMES) -> dict[str, jax.Array]:
    return {name: getattr(metrics, name)(snapshot) for name in names}


@jax.jit
def measure_both(snapshot: Snapshot) -> tuple[dict[str, jax.Array], dict[str, jax.Array]]:
    """All metrics, with the factor of the estimate and without it."""
    return measure(snapshot), measure(of_estimate(snapshot))


OF_RISKS = {"gradient_norm", "training_loss"}
VECTORS = {"environment_losses", "singular_values"}


def test_every_metric_has_a_definition() -> None:
    assert set(DEFINITIONS) == set(NAMES)


@pytest.mark.parametrize("kind", KINDS)
def test_metrics_agree_with_their_definitions(kind: str) -> None:
    """To 2e-5 of the definition in double precision, or of the signals where they cancel."""
    snapshot = make_snapshot(kind)
    found, again = measure_both(snapshot)
    d = dense(snapshot)
    for name, value in found.items():
        expected = DEFINITIONS[name](d)
        chex.assert_type(value, jnp.float32)
        chex.assert_shape(value, np.shape(expected))
        assert (value.ndim > 0) == (name in VECTORS)
        # of a signal in no direction only rounding is left, and its square root for the estimate
        np.testing.assert_allclose(value, expected, rtol=2e-5, atol=2e-5, err_msg=name)
        # A metric of the estimate alone gives the same; a sum of squares that cancels leaves the
        # root of its rounding.
        if name == "largest_principal_angle" and kind == "one column":
            continue  # an estimate does not say how many columns it came from
        if name == "gradient_norm":
            expected = norm(d.estimate - pooled_signal(d)) / 2  # with respect to the estimate
        padded = (
            np.pad(expected, (0, DIM - len(expected))) if name == "singular_values" else expected
        )
        loose = 5e-3 if name.endswith("_signal") else 1e-4
        np.testing.assert_allclose(
            again[name], padded, rtol=1e-4, atol=loose, err_msg=f"{name} of the estimate"
        )


def test_metrics_do_not_depend_on_the_choice_of_basis() -> None:
    snapshot = make_snapshot("square")
    rotation = jnp.asarray(
        np.linalg.qr(np.random.default_rng(0).normal(size=(2, 2)))[0], jnp.float32
    )
    world = snapshot.world
    world = world._replace(
        spurious_basis=world.spurious_basis @ rotation,
        spurious_cores=rotation.T[None] @ world.spurious_cores @ rotation[None],
    )
    rotated, plain = (
        measure_both(dataclasses.replace(snapshot, world=world))[0],
        measure_both(snapshot)[0],
    )
    chex.assert_trees_all_close(rotated, plain, rtol=1e-4)


@pytest.mark.slow
def test_metrics_map_over_runs_and_compile_once() -> None:
    snapshots = jax.tree.map(lambda *leaves: jnp.stack(leaves), *[make_snapshot("square")] * 3)
    scales = jnp.array([1.0, 0.5, 2.0])
    snapshots = dataclasses.replace(snapshots, params=snapshots.params * scales[:, None, None])
    chex.clear_trace_counter()
    mapped = jax.jit(jax.vmap(chex.assert_max_traces(measure, n=1)))
    together = mapped(snapshots)
    mapped(dataclasses.replace(snapshots, batch_loss=2 * snapshots.batch_loss))
    for lane in range(3):
        alone, _ = measure_both(jax.tree.map(lambda leaf, lane=lane: leaf[lane], snapshots))
        chex.assert_trees_all_close(
            jax.tree.map(lambda leaf, lane=lane: leaf[lane], together), alone, rtol=1e-4
        )


def test_metrics_of_a_zero_estimate_are_numbers() -> None:
    snapshot = make_snapshot("square")
    zero = dataclasses.replace(snapshot, params=0 * snapshot.params)
    for values in measure_both(zero):
        chex.assert_tree_all_finite(values)
        assert values["effective_rank"] == 0
        assert values["spurious_signal"] == 0


@pytest.mark.parametrize("kind", ["asymmetric", "deep"])
def test_metrics_of_layers_agree_with_their_definitions(kind: str) -> None:
    snapshot, rng = make_snapshot("square"), np.random.default_rng(3)
    if kind == "asymmetric":
        model = models.asymmetric(dim=DIM, rank=3)
        left, right = rng.normal(size=(2, DIM, 3))
        params, layers = models.Factors(left, right), [right.T, left]
    else:
        model = models.deep(dim=DIM, depth=3)
        params = rng.normal(size=(3, DIM, DIM))
        layers = list(params)
    params = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), params)
    names = [*OF_LAYERS, "trace"]
    measured = jax.jit(lambda snapshot: measure(snapshot, names))
    found = measured(dataclasses.replace(snapshot, params=params, model=model))
    imbalance, alignments = 0.0, []
    for one, two in itertools.pairwise(layers):
        imbalance += norm(two.T @ two - one @ one.T) ** 2
        alignments.append(abs(np.linalg.svd(two)[2][0] @ np.linalg.svd(one)[0][:, 0]))
    expected = functools.reduce(lambda product, layer: layer @ product, layers)
    np.testing.assert_allclose(found["imbalance"], imbalance**0.5, rtol=1e-5)
    np.testing.assert_allclose(found["layer_alignment"], min(alignments), rtol=1e-4)
    np.testing.assert_allclose(found["trace"], np.trace(expected), rtol=1e-5)


@pytest.mark.parametrize("name", sorted(OF_LAYERS))
def test_metrics_of_layers_refuse_a_single_factor(name: str) -> None:
    with pytest.raises(ValueError, match=f"^{name} needs a model with several factors"):
        getattr(metrics, name)(make_snapshot("square"))


@pytest.mark.slow
def test_metrics_of_predictions_ask_the_network() -> None:
    world = draw_world(worlds.two_point(**RANKS), 1)
    model = models.relu(dim=DIM, neurons=6, init_scale=0.5)
    params = model.init(jax.random.key(0))._replace(offset=jnp.asarray(3.0))
    snapshot = Snapshot(jnp.asarray(0), params, world, jnp.asarray(1.0), model)
    names = [name for name in NAMES if name not in OF_RISKS]
    found = jax.jit(lambda snapshot: measure(snapshot, names))(snapshot)
    found = {name: np.asarray(value) for name, value in found.items()}
    chex.assert_tree_all_finite(found)

    def answers(inputs: np.ndarray) -> np.ndarray:
        return np.maximum(inputs @ np.asarray(params.weights).T, 0) @ np.asarray(params.outputs)

    inputs = normal_inputs(world.invariant_basis @ world.invariant_basis.T)
    labels = forms(np.asarray(world.invariant), inputs)
    np.testing.assert_allclose(
        found["invariant_prediction_error"],
        norm(answers(inputs) - labels) / norm(labels),
        rtol=1e-4,
    )
    inputs = normal_inputs(world.spurious_basis @ world.spurious_basis.T)
    np.testing.assert_allclose(
        found["spurious_prediction"], norm(answers(inputs)) / norm((inputs**2).sum(1)), rtol=1e-4
    )


@pytest.mark.slow
@pytest.mark.skipif(
    jax.default_backend() != "cpu", reason="counts the products of a program for CPUs"
)
def test_metrics_of_distance_share_their_products() -> None:
    def products(*chosen: Callable[[Snapshot], jax.Array]) -> int:
        def one(key: jax.Array) -> Trace:
            algorithm = cs.sgd(
                world=worlds.two_point(dim=8, invariant_rank=1, spurious_rank=1, spread=3.0),
                sampler=samplers.hetero(batch_size=10),
                measurement=measurements.population(),
                model=models.factored(dim=8),
                optimizer=optax.sgd(0.1),
            )
            return cs.run(key, algorithm=algorithm, metrics=chosen, num_steps=20, record_every=5)

        return jax.jit(one).lower(jax.random.key(0)).compile().as_text().count(" dot(")

    several = (
        metrics.invariant_error,
        metrics.pooled_error,
        metrics.relative_pooled_error,
        metrics.environment_losses,
    )
    one, none = products(metrics.invariant_error), products(metrics.batch_loss)
    assert products(*several) - one < (one - none) / 2


@pytest.mark.parametrize("size", [1e-36, 1e-25, 1e-12])
def test_signals_keep_their_digits_however_small(size: float) -> None:
    """The square of 1e-25 is zero in single precision."""
    factor = np.random.default_rng(3).normal(size=(DIM, DIM)).astype(np.float32)
    snapshot = Snapshot(
        jnp.asarray(0), jnp.asarray(factor), tilted_world(), jnp.asarray(1.0), FACTORED
    )
    tiny = dataclasses.replace(snapshot, params=snapshot.params * size)
    for metric in (metrics.spurious_signal, metrics.invariant_signal):
        assert float(metric(tiny)) == pytest.approx(size * float(metric(snapshot)), rel=1e-5)
