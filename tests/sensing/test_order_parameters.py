"""A step, worlds and metrics of order parameters are those of the full factor."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from causal_sgd import linalg
from causal_sgd.sensing import World, measurements, models, worlds
from causal_sgd.types import Array, Batch, Snapshot
from support.cases import few
from support.contracts import METRIC_ROOMS, draw_world

pytestmark = pytest.mark.usefixtures("quickly_compiled")
RATE, DIM, FRAME = 0.1, 12, 3
COUNTS = {"pure": [7], "two": [3, 4], "one of two is empty": [7, 0]}
DRAWS = 40_000


def state(slots: int, rank: int) -> tuple[Any, World, Array]:
    """A model, a tilted world, and generic parameters whose last k rows are zero."""
    model = models.order_parameters(dim=DIM, rank=rank, frame=FRAME, slots=slots)
    family = worlds.two_point(
        dim=FRAME, invariant_rank=2, spurious_rank=1, mean=1.0, spread=2.0, tilt=0.4
    )
    world = draw_world(worlds.reduced(family, rows=model.rows), 3)
    inside = 0.6 * np.random.default_rng(0).normal(size=(model.inner_rows, rank))
    zero = np.zeros((model.rows - model.inner_rows, rank))
    return model, world, jnp.asarray(np.concatenate([inside, zero]), jnp.float32)


def moments(params: Array, world: World, counts: list[int], noise: float) -> dict[str, np.ndarray]:
    """E A+, E B+ and the covariance of A+ [rk, rk] after one step, in double precision.

    From E[G P G] = (1 + 1/m) RPR + nu (tr P I + P) and
    Cov(G_ij, G_kl) = nu (d_ik d_jl + d_il d_jk) + sum_e share_e R_ij R_kl / m.
    """
    x = np.asarray(params, float)
    a, gamma = x[:FRAME], x.T @ x
    b, m = gamma - a.T @ a, sum(counts)
    bases = np.asarray(world.bases, float)
    shared = bases[:, :2] * np.asarray(world.invariant_spectrum, float) @ bases[:, :2].T
    shares = np.array(counts) / m
    signals = [
        shared + bases[:, 2:] @ np.asarray(world.spurious_cores[e], float) @ bases[:, 2:].T
        for e in range(len(counts))
    ]
    mean = sum(share * signal for share, signal in zip(shares, signals, strict=True))
    residuals = [x @ x.T - signal for signal in signals]
    square = sum(s * np.sum(r**2) for s, r in zip(shares, residuals, strict=True))
    nu = (square + noise**2) / (2 * m)
    drift = (x @ x.T - mean) @ x
    left, right = drift[:FRAME], drift[FRAME:]
    second = sum(
        s * (r @ x)[FRAME:].T @ (r @ x)[FRAME:] for s, r in zip(shares, residuals, strict=True)
    )
    outside = x[FRAME:].T @ right
    after = b - RATE * (outside + outside.T)
    after += RATE**2 * (right.T @ right + second / m + nu * ((DIM - FRAME) * gamma + b))
    covariance = nu * (
        np.einsum("ij,ab->iajb", np.eye(FRAME), gamma) + np.einsum("ja,ib->iajb", a, a)
    )
    for share, residual in zip(shares, residuals, strict=True):
        own = (residual @ x)[:FRAME]
        covariance += share / m * np.einsum("ia,jb->iajb", own, own)
    size = FRAME * x.shape[1]
    return {
        "mean": (a - RATE * left).reshape(-1),
        "complement": after.reshape(-1),
        "covariance": RATE**2 * covariance.reshape(size, size),
    }


def steps(counts: list[int], noise: float, slots: int, rank: int) -> tuple[np.ndarray, np.ndarray]:
    """A+ [n, r k] and B+ [n, k k] of many first steps."""
    model, world, params = state(slots, rank)
    batch = Batch(jnp.arange(len(counts)), jnp.asarray(counts, jnp.int32))
    law = measurements.order_parameter_law(noise=noise)

    @jax.jit
    def draw(keys: Array) -> tuple[Array, Array]:
        def one(key: Array) -> tuple[Array, Array]:
            gradient, _ = law.gradient(key, jnp.asarray(0), (), model, params, world, batch)
            (new,) = model.reduce((params - RATE * gradient,))
            return new[:FRAME].reshape(-1), linalg.product(new[FRAME:].T, new[FRAME:]).reshape(-1)

        return jax.lax.map(one, keys, batch_size=2000)

    along, across = draw(jax.random.split(jax.random.key(5), DRAWS))
    return np.asarray(along, float), np.asarray(across, float)


@pytest.mark.parametrize(
    ("kind", "noise", "slots", "rank"),
    few(
        [
            ("pure", 8.0, 1, 2),  # so much noise that 5 % less of it shows
            ("pure", 8.0, 1, 3),
            ("pure", 0.8, 1, 3),
            ("pure", 0.0, 2, 3),
            ("two", 0.8, 1, 3),
            ("one of two is empty", 0.0, 1, 3),
        ],
        {("pure", 8.0, 1, 2)},
    ),
)
def test_a_step_has_the_moments_of_the_full_factor(
    kind: str, noise: float, slots: int, rank: int
) -> None:
    """About 30 z-scores a case; the largest of them exceeds 4.5 in one of 5000 suites."""
    counts = COUNTS[kind]
    _, world, params = state(slots, rank)
    expected = moments(params, world, counts, noise)
    along, across = steps(counts, noise, slots, rank)
    for name, values in (("mean", along), ("complement", across)):
        error = values.std(0) / DRAWS**0.5
        assert (np.abs(values.mean(0) - expected[name]) < 4.5 * error).all(), name
    covariance = np.cov(along.T)
    scale = np.sqrt(np.outer(np.diag(covariance), np.diag(covariance)) * 2 / DRAWS)
    assert (np.abs(covariance - expected["covariance"]) < 5 * scale).all()


@pytest.mark.parametrize("dim", few([4, 9], {4}))
def test_a_reduced_world_has_the_products_and_cores_of_the_world(dim: int) -> None:
    ranks: dict[str, Any] = {"invariant_rank": 2, "spurious_rank": 2, "num_environments": 4}
    numbers = {"tilt": 0.3, "rotation": 0.5, "invariant_spectrum": np.array([1.0, 2.0])}
    whole = draw_world(worlds.goe(dim=30, **ranks, **numbers))
    reduced = draw_world(worlds.reduced(worlds.goe(dim=dim, **ranks, **numbers), rows=11))
    assert reduced.estimate_shape == (11, 11)
    np.testing.assert_array_equal(reduced.spurious_cores, whole.spurious_cores)
    np.testing.assert_allclose(
        reduced.bases.T @ reduced.bases, whole.bases.T @ whole.bases, atol=1e-5
    )
    np.testing.assert_allclose(reduced.bases[:4, :2], np.eye(4, 2), atol=1e-5)
    assert not np.any(reduced.bases[4:])


@pytest.mark.parametrize(
    ("rows", "columns"), few([(7, 3), (3, 5), (30, 12), (12, 12), (4, 1)], {(7, 3), (30, 12)})
)
def test_the_triangle_has_the_products_of_the_matrix(rows: int, columns: int) -> None:
    matrix = np.random.default_rng(0).normal(size=(rows, columns))
    matrix[:, -1] *= 1e-25  # whose square is no number of single precision
    if columns > 2:
        matrix[:, 1] = matrix[:, 0]
    found = np.asarray(jax.jit(linalg.triangle)(jnp.asarray(matrix, jnp.float32)), float)
    assert found.shape == (columns, columns)
    assert not np.tril(found, -1).any()
    assert (np.diag(found) >= 0).all()
    norms = np.linalg.norm(matrix, axis=0)
    np.testing.assert_allclose(
        found.T @ found / np.outer(norms, norms),
        matrix.T @ matrix / np.outer(norms, norms),
        atol=1e-6,
    )


@pytest.mark.slow
def test_the_triangle_of_nothing_is_zero() -> None:
    assert linalg.triangle(jnp.zeros((0, 2))).shape == (2, 2)
    assert not linalg.triangle(jnp.zeros((3, 2))).any()


def test_the_triangle_keeps_directions_below_the_rounding_of_others() -> None:
    matrix = jnp.array([[1.0, 2.0], [0.0, 1e-12], [0.0, 0.0]])
    np.testing.assert_allclose(linalg.triangle(matrix)[1, 1], 1e-12, rtol=1e-6)


@functools.cache
def pair() -> tuple[Snapshot, Snapshot]:
    """A factor in a tilted world, and its order parameters."""
    dim, rank, rng = 20, 3, np.random.default_rng(2)
    options: dict[str, Any] = {"invariant_rank": 2, "spurious_rank": 2, "num_environments": 3}
    family = functools.partial(worlds.goe, tilt=0.4, **options)
    world = draw_world(family(dim=dim))
    factor = 0.6 * rng.normal(size=(dim, rank))
    model = models.order_parameters(dim=dim, rank=rank, frame=4)
    frame, triangle = np.linalg.qr(np.asarray(world.bases, float))
    inside = (frame * np.sign(np.diag(triangle))).T @ factor
    outside = np.linalg.qr(factor - frame @ (frame.T @ factor))[1]
    reduced = np.concatenate([inside, outside, np.zeros((rank, rank))])
    return (
        snapshot_of(models.factored(dim=dim, rank=rank), factor, world),
        snapshot_of(model, reduced, draw_world(worlds.reduced(family(dim=4), rows=model.rows))),
    )


def snapshot_of(model: Any, params: np.ndarray, world: Any) -> Snapshot:
    measurement = measurements.population()
    batch = Batch(jnp.arange(2), jnp.array([3, 5], jnp.int32))
    return Snapshot(
        step=jnp.asarray(3),
        params=jnp.asarray(params, jnp.float32),
        world=world,
        batch_loss=jnp.asarray(1.5),
        model=model,
        measurement=measurement,
        data=measurement.init(jax.random.key(0), world),
        next_batch=jax.tree_util.Partial(lambda world: (jax.random.key(0), world, batch), world),
    )


REFUSED = (
    "complement_prediction",
    "hessian_trace",
    "invariant_prediction_error",
    "spurious_prediction",
)
OF_SEVERAL_FACTORS = {"imbalance", "layer_alignment"}
METRICS = {
    name: getattr(module, name)
    for module, rows in METRIC_ROOMS.values()
    for name in rows
    if name not in OF_SEVERAL_FACTORS
}


@pytest.mark.parametrize("name", few(sorted(set(METRICS) - set(REFUSED)), {"complement_signal"}))
def test_a_metric_of_order_parameters_is_that_of_the_factor(name: str) -> None:
    whole, reduced = pair()
    metric = jax.jit(METRICS[name])
    np.testing.assert_allclose(metric(reduced), metric(whole), rtol=2e-4)


@pytest.mark.parametrize("name", REFUSED)
def test_a_metric_of_the_whole_factor_is_refused_by_name(name: str) -> None:
    with pytest.raises(ValueError, match=f"^metric {name} must see all parameters"):
        METRICS[name](pair()[1])
