"""The restricted isometry constant of a design against brute force, an eigenvalue and its law."""

from __future__ import annotations

import functools

import jax
import numpy as np
import pytest

from causal_sgd.sensing.measurements import designs
from support.cases import few

pytestmark = pytest.mark.usefixtures("quickly_compiled")


@functools.partial(jax.jit, static_argnames=("rank", "starts", "iterations"))
def constants(design: jax.Array, rank: int, **options: int) -> jax.Array:
    return designs.restricted_isometry(jax.random.key(0), design, rank=rank, **options)


@pytest.mark.parametrize("dim", few([2, 3], {3}))
def test_the_isometry_constant_is_that_of_a_grid(dim: int) -> None:
    design = np.random.default_rng(dim).normal(size=(2, 12, dim, dim)).astype(np.float32)
    found = constants(design, rank=1)
    angle = np.linspace(0, np.pi, 361)  # the ratio is smooth: at most 1e-4 is missed between these
    if dim == 2:
        vectors = np.stack([np.cos(angle), np.sin(angle)], 1)
    else:
        polar, turn = (grid.ravel() for grid in np.meshgrid(angle, np.linspace(0, 2 * np.pi, 721)))
        vectors = np.stack(
            [np.sin(polar) * np.cos(turn), np.sin(polar) * np.sin(turn), np.cos(polar)], 1
        )
    for environment, rows in zip(found, design, strict=True):
        inner = np.einsum("kij,vi,vj->vk", rows, vectors, vectors, optimize=True)
        expected = np.abs((inner**2).mean(1) - 1).max()
        assert environment <= expected * (1 + 1e-3), "a lower bound"
        np.testing.assert_allclose(environment, expected, rtol=1e-3)


def test_the_isometry_constant_of_full_rank_is_an_eigenvalue() -> None:
    design = np.random.default_rng(0).normal(size=(1, 60, 3, 3)).astype(np.float32)
    packed = np.asarray(jax.jit(designs.pack)(design), np.float64)[0]
    expected = np.abs(np.linalg.eigvalsh(packed.T @ packed / 60) - 1).max()
    found = constants(design, rank=3, iterations=300)
    np.testing.assert_allclose(found, [expected], rtol=1e-3)


@pytest.mark.slow
def test_the_isometry_constant_grows_with_the_rank_and_falls_with_the_root_of_the_examples() -> (
    None
):
    def constant(rank: int, num_examples: int) -> float:
        design = np.random.default_rng(1).normal(size=(3, num_examples, 36)).astype(np.float32)
        return float(constants(design, rank=rank, starts=6).mean())

    ones, fours, many = constant(1, 400), constant(4, 400), constant(1, 6400)
    assert ones < fours
    assert ones / many == pytest.approx(4, rel=0.3)  # exactly 4 for n -> infinity


@pytest.mark.parametrize(
    ("options", "message"),
    [({"rank": 4}, "rank must be .* at most 3"), ({"rank": 1, "starts": 0}, "starts must be")],
)
def test_bad_arguments_are_named(options: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        designs.restricted_isometry(jax.random.key(0), np.ones((2, 3, 6), np.float32), **options)
