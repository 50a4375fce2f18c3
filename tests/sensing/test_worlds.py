"""Worlds have the geometry and the distribution that they promise.

Statistical tests are at the level 1e-3 each, with fixed seeds.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import stats

from causal_sgd.sensing import World, measurements, models, worlds
from causal_sgd.training import algorithms, samplers
from support.arrays import symmetric
from support.contracts import DIM, RANKS, draw_world, own_signals

pytestmark = pytest.mark.usefixtures("quickly_compiled")
LEVEL = 1e-3
# Spectra do not depend on the directions; drawing those takes most of the time that XLA needs.
SPECTRA = RANKS | {"basis": "canonical"}


@pytest.mark.parametrize("basis", ["random", "canonical"])
# more spurious than invariant directions, and the other way round: only the common ones lean
@pytest.mark.parametrize(("shared", "own"), [(1, 3), (3, 2)])
def test_spurious_directions_lean_towards_the_invariant_ones_by_the_tilt(
    basis: str, shared: int, own: int
) -> None:
    @jax.jit
    def draw(tilt: jax.Array) -> World:
        ranks = {"dim": 8, "invariant_rank": shared, "spurious_rank": own}
        return worlds.two_point(**ranks, tilt=tilt, basis=basis)(jax.random.key(3))

    for tilt in (0.0, 0.3, np.pi / 2):
        world = draw(tilt)
        expected = np.zeros((shared, own))
        np.fill_diagonal(expected, np.sin(tilt))
        np.testing.assert_allclose(
            world.invariant_basis.T @ world.spurious_basis, expected, atol=1e-6
        )
        np.testing.assert_allclose(
            world.spurious_basis.T @ world.spurious_basis, np.eye(own), atol=1e-6
        )


def unstack(mapped: World) -> list[World]:
    return [
        jax.tree.map(lambda leaf, lane=lane: leaf[lane], mapped)
        for lane in range(len(mapped.probabilities))
    ]


def eigenvalues(world: World) -> np.ndarray:
    """[E, r2]; the cores are diagonal."""
    cores = np.asarray(world.spurious_cores)
    diagonal = np.diagonal(cores, axis1=1, axis2=2)
    np.testing.assert_array_equal(cores, diagonal[:, :, None] * np.eye(cores.shape[1]))
    return diagonal


@pytest.mark.parametrize("rank", [1, 2, 5])
def test_two_point_makes_one_environment_for_each_pattern_of_signs(rank: int) -> None:
    world = draw_world(
        worlds.two_point(
            dim=9, invariant_rank=2, spurious_rank=rank, mean=1.0, spread=6.0, basis="canonical"
        )
    )
    found = sorted(map(tuple, eigenvalues(world)))
    assert found == sorted(itertools.product([7.0, -5.0], repeat=rank))


@pytest.mark.parametrize("name", ["uniform", "gaussian", "log_normal", "from_quantile", "goe"])
def test_every_family_has_its_mean_and_spread(name: str) -> None:
    """Within 2 %: five standard errors and more, from 40,000 numbers."""
    mean = -3.0
    options: dict[str, Any] = {"num_environments": 20_000, "spread": 1.5}
    if name == "log_normal":
        mean, options["spread"] = 3.0, 0.5
    if name == "from_quantile":
        options["quantile"] = lambda share: 12**0.5 * (share - 0.5)
    world = draw_world(getattr(worlds, name)(**SPECTRA, mean=mean, **options))
    values = np.diagonal(np.asarray(world.spurious_cores), axis1=1, axis2=2)
    deviation = options["spread"] / (3**0.5 if name == "uniform" else 1)
    assert values.mean() == pytest.approx(mean, rel=0.02)
    assert values.std() == pytest.approx(deviation, rel=0.02)


def test_balanced_environments_have_exactly_the_mean() -> None:
    keys = jax.random.split(jax.random.key(0), 3)
    for world in map(
        eigenvalues,
        unstack(jax.jit(jax.vmap(worlds.two_point(**SPECTRA, num_environments=10)))(keys)),
    ):
        assert set(world.ravel()) == {7.0, -5.0}
        np.testing.assert_array_equal(world.mean(0), 1.0)
    for family in (worlds.uniform, worlds.gaussian):
        factory = family(**SPECTRA, mean=1.0, spread=6.0, num_environments=9, balanced=True)
        for world in unstack(jax.jit(jax.vmap(factory))(keys)):
            np.testing.assert_allclose(eigenvalues(world).mean(0), 1.0, atol=1e-5)


def test_directions_of_a_balanced_world_are_shuffled_on_their_own() -> None:
    world = draw_world(worlds.uniform(**SPECTRA, num_environments=50, balanced=True))
    first, second = eigenvalues(world).T
    np.testing.assert_allclose(np.sort(first), np.sort(second), atol=1e-6)
    assert abs(stats.spearmanr(first, second).statistic) < 0.5  # 3.5 standard deviations


@pytest.mark.parametrize(
    ("family", "law"),
    [(worlds.uniform, stats.uniform(-2.0, 6.0)), (worlds.gaussian, stats.norm(1.0, 3.0))],
)
def test_spectra_have_their_distribution(family: Callable, law: Any) -> None:
    world = draw_world(family(**SPECTRA, mean=1.0, spread=3.0, num_environments=2000))
    for direction in eigenvalues(world).T:
        assert stats.kstest(direction, law.cdf).pvalue > LEVEL
    assert abs(stats.pearsonr(*eigenvalues(world).T).statistic) < 3.3 / np.sqrt(2000)


def test_a_family_takes_two_lines() -> None:
    def logistic(**options: Any) -> worlds.WorldFactory:
        return worlds.from_quantile(lambda u: 3**0.5 / np.pi * jnp.log(u / (1 - u)), **options)

    world = draw_world(logistic(**SPECTRA, mean=1.0, spread=3.0, num_environments=2000))
    for direction in eigenvalues(world).T:
        assert stats.kstest(direction, stats.logistic(1.0, 3.0 * 3**0.5 / np.pi).cdf).pvalue > LEVEL


def test_a_quantile_function_must_be_elementwise() -> None:
    family = worlds.from_quantile(jnp.sum, **RANKS, num_environments=3)
    with pytest.raises(ValueError, match=r"quantile must map .* same shape, got shape \(\)"):
        family(jax.random.key(0))
    with pytest.raises(ValueError, match="quantile must be an elementwise function"):
        worlds.from_quantile(0.5, **RANKS, num_environments=3)


def test_unbalanced_signs_are_independent_and_equally_likely() -> None:
    factory = worlds.two_point(
        **SPECTRA, mean=0.0, spread=1.0, num_environments=4001, balanced=False
    )
    signs = eigenvalues(draw_world(factory)) > 0
    patterns = np.bincount(signs @ [1, 2], minlength=4)
    assert stats.chisquare(patterns).pvalue > LEVEL


def test_random_directions_are_haar_distributed() -> None:
    # an entry x of a Haar frame in d dimensions has (x + 1) / 2 ~ Beta((d - 1) / 2, (d - 1) / 2)
    factory = worlds.two_point(dim=5, invariant_rank=2, spurious_rank=2)
    mapped = jax.jit(jax.vmap(factory))(jax.random.split(jax.random.key(0), 2000))
    for entry in (
        mapped.invariant_basis[:, 0, 0],
        mapped.invariant_basis[:, 4, 1],
        mapped.spurious_basis[:, 2, 1],
    ):
        assert stats.kstest((entry + 1) / 2, stats.beta(2, 2).cdf).pvalue > LEVEL


def test_worlds_of_one_key_differ_only_in_their_numbers() -> None:
    @jax.jit
    def draw(mean: float, spread: float) -> World:
        factory = worlds.gaussian(**RANKS, num_environments=5, mean=mean, spread=spread)
        return factory(jax.random.key(0))

    here, there = draw(0.0, 1.0), draw(2.0, 3.0)
    np.testing.assert_array_equal(here.invariant_basis, there.invariant_basis)
    np.testing.assert_array_equal(here.spurious_basis, there.spurious_basis)
    np.testing.assert_allclose(eigenvalues(there), 2 + 3 * eigenvalues(here), rtol=1e-5)


def test_arrays_and_files_give_back_their_signals(tmp_path: Path) -> None:
    signals = own_signals()
    np.savez(tmp_path / "world.npz", **signals)
    weights = [0.2, 0.3, 0.5]
    for factory in (
        worlds.from_arrays(**signals, probabilities=weights),
        worlds.from_file(tmp_path / "world.npz"),
    ):
        world = factory(jax.random.key(0))
        for core, spurious in zip(world.spurious_cores, signals["spurious"], strict=True):
            both = world.invariant + world.spurious(core)
            np.testing.assert_allclose(both, signals["invariant"] + spurious, atol=3e-6)
        np.testing.assert_allclose(world.invariant, signals["invariant"], atol=1e-6)
        assert (np.asarray(world.invariant_spectrum) < 0).any(), "the example should be indefinite"
    np.testing.assert_allclose(
        worlds.from_arrays(**signals, probabilities=weights)(jax.random.key(0)).probabilities,
        weights,
    )


def test_arrays_may_leave_an_environment_without_a_spurious_signal() -> None:
    signals = own_signals()
    world = worlds.from_arrays(signals["invariant"], 0 * signals["spurious"])(jax.random.key(0))
    chex.assert_shape(world.spurious_basis, (DIM, 0))
    np.testing.assert_array_equal(world.spurious(world.spurious_cores[0]), np.zeros((DIM, DIM)))


@pytest.mark.parametrize("size", [1e-4, 1e-7, 1e-20])
def test_every_environment_of_given_signals_is_judged_by_its_own_size(size: float) -> None:
    shared, own = np.diag([1.0, 0, 0, 0]), np.zeros((2, 4, 4))
    own[0, 1, 1] = 1
    own[1] = size * np.array([[0, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 2], [0, 0, 2, -1]])
    world = worlds.from_arrays(shared, own)(jax.random.key(0))
    assert world.spurious_basis.shape == (4, 3)
    basis, cores = np.asarray(world.spurious_basis, float), np.asarray(world.spurious_cores, float)
    for signal, found in zip(own, basis @ cores @ basis.T, strict=True):
        np.testing.assert_allclose(found, signal, atol=1e-6 * np.abs(signal).max())
    own[1, 2, 3] += 0.1 * size
    with pytest.raises(ValueError, match="spurious must be symmetric.*environment 1"):
        worlds.from_arrays(shared, own)


def test_rounding_adds_no_direction_to_given_signals() -> None:
    rng = np.random.default_rng(0)
    frame = np.linalg.qr(rng.normal(size=(30, 3)))[0]
    own = frame[:, 1:] @ symmetric(rng, 200, 2, 2) @ frame[:, 1:].T
    own *= np.geomspace(1e-6, 1e3, 200)[:, None, None]
    shared = np.outer(frame[:, 0], frame[:, 0])
    for dtype in (np.float32, np.float64):
        world = worlds.from_arrays(shared.astype(dtype), own.astype(dtype))(jax.random.key(0))
        assert world.spurious_basis.shape == (30, 2)


def test_every_direction_may_have_its_own_mean_and_spread() -> None:
    mean, spread = np.array([1.0, -2.0]), np.array([0.0, 3.0])
    world = eigenvalues(draw_world(worlds.two_point(**SPECTRA, mean=mean, spread=spread)))
    assert sorted(map(tuple, world)) == [(1.0, -5.0), (1.0, -5.0), (1.0, 1.0), (1.0, 1.0)]


def test_log_normal_and_discrete_spectra_have_their_values() -> None:
    mean, spread = 2.0, 3.0
    world = draw_world(
        worlds.log_normal(**SPECTRA, mean=mean, spread=spread, num_environments=2000)
    )
    width = np.sqrt(np.log1p((spread / mean) ** 2))
    law = stats.lognorm(width, scale=mean * np.exp(-(width**2) / 2))
    assert law.mean() == pytest.approx(mean)
    assert law.std() == pytest.approx(spread)
    for direction in eigenvalues(world).T:
        assert stats.kstest(direction, law.cdf).pvalue > LEVEL
    given, weights = np.array([3.0, -4.0, 0.0]), np.array([0.7, 0.2, 0.1])
    world = draw_world(worlds.discrete(**SPECTRA, eigenvalues=given, probabilities=weights))
    np.testing.assert_array_equal(
        eigenvalues(world), np.stack([given, given], 1).astype(np.float32)
    )
    np.testing.assert_allclose(world.mean_core, 1.3 * np.eye(2), atol=1e-6)


@functools.cache
def with_and_without_rotation() -> tuple[Callable[[float], World], World]:
    """Worlds of a rank at which there are too many patterns of signs for one environment each."""
    options = {"dim": 12, "invariant_rank": 2, "spurious_rank": 10, "num_environments": 6}

    @jax.jit
    def draw(rotation: jax.Array) -> World:  # traced, so that 0 is drawn too
        return worlds.two_point(**options, rotation=rotation)(jax.random.key(0))

    return draw, draw_world(worlds.two_point(**options))


@pytest.mark.parametrize("rotation", [0.0, 0.4, 1.0])
def test_rotation_turns_the_eigenbasis_of_each_environment_and_keeps_its_spectrum(
    rotation: float,
) -> None:
    draw, plain = with_and_without_rotation()
    world = draw(rotation)
    cores, expected = np.asarray(world.spurious_cores), eigenvalues(plain)
    np.testing.assert_allclose(np.linalg.eigvalsh(cores), np.sort(expected, 1), atol=2e-5)
    np.testing.assert_array_equal(world.spurious_basis, plain.spurious_basis)
    commutator = np.linalg.norm(cores[0] @ cores[1] - cores[1] @ cores[0])
    if rotation:
        assert commutator > 1
    else:
        np.testing.assert_allclose(cores, np.asarray(plain.spurious_cores), atol=1e-6)


def test_full_rotation_is_haar_and_full_coupling_the_orthogonal_ensemble() -> None:
    number = 4000
    ranks = {"dim": 6, "invariant_rank": 1, "spurious_rank": 3, "basis": "canonical"}
    # core = e1 e1' rotated: its first entry is the square of an entry of a Haar frame, which is
    # Beta(1/2, (n - 1)/2) distributed
    turned = worlds.discrete(
        **ranks, rotation=1.0, eigenvalues=np.tile([1.0, 0.0, 0.0], (number, 1))
    )
    corner = np.asarray(draw_world(turned).spurious_cores)[:, 0, 0]
    assert stats.kstest(corner, stats.beta(0.5, 1).cdf).pvalue > LEVEL
    options: Any = ranks | {"num_environments": number}
    cores = np.asarray(draw_world(worlds.goe(**options, mean=1.0, spread=2.0)).spurious_cores)
    for entry, law in (
        (cores[:, 0, 0], stats.norm(1, 2)),
        (cores[:, 2, 1], stats.norm(0, np.sqrt(2))),
    ):
        assert stats.kstest(entry, law.cdf).pvalue > LEVEL
    half = np.asarray(
        draw_world(worlds.goe(**options, mean=1.0, spread=2.0, coupling=0.5)).spurious_cores
    )
    np.testing.assert_allclose(half[:, 0, 1], cores[:, 0, 1] / 2, rtol=1e-6)
    np.testing.assert_array_equal(half[:, 1, 1], cores[:, 1, 1])


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("invariant_basis", 2 * np.eye(4, 1), "invariant_basis must have orthonormal columns"),
        ("invariant_basis", np.ones(4), "invariant_basis must have shape"),
        ("invariant_spectrum", np.ones(3), "invariant_spectrum must have shape"),
        ("invariant_spectrum", np.full(1, np.nan), "invariant_spectrum must be a finite number"),
        ("spurious_basis", np.ones((4, 2)), "spurious_basis must have orthonormal columns"),
        ("spurious_basis", np.eye(5, 2), "spurious_basis must have shape"),
        ("spurious_cores", np.ones((2, 3, 3)), "spurious_cores must have shape"),
        ("spurious_cores", np.array([np.eye(2), [[1, 2], [0, 1]]]), "cores must be symmetric"),
        ("probabilities", np.array([3.0, 1.0]), "probabilities must sum to one"),
        ("probabilities", np.array([1.5, -0.5]), "probabilities must be"),
        ("probabilities", np.ones(3) / 3, "probabilities must have shape"),
    ],
)
def test_a_world_of_one_s_own_is_checked(field: str, value: np.ndarray, message: str) -> None:
    own = World(np.eye(4, 1), np.ones(1), np.eye(4)[:, 2:], np.ones((2, 2, 2)), np.full(2, 0.5))

    def start(world: World) -> None:
        algorithm = algorithms.sgd(
            world=lambda key: world,
            sampler=samplers.hetero(batch_size=5),
            measurement=measurements.population(),
            model=models.factored(dim=4),
            optimizer=optax.sgd(0.1),
        )
        jax.eval_shape(algorithm.init, jax.random.key(0))

    start(own)
    with pytest.raises(ValueError, match=message):
        start(own._replace(**{field: value}))
