"""The law of the batch gradient by its definition, and z-scores of draws against it.

Features of a draw are the d (d + 1) / 2 entries of G and the loss.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from causal_sgd.sensing import World
from support.arrays import symmetric

DIM = 5
DRAWS = 100_000
MAX_Z, RMS_Z = 5.0, 1.7
UPPER = np.triu_indices(DIM)


class Case(NamedTuple):
    """What a batch sees: the world, the estimate and how many examples of which environment."""

    world: World
    estimate: np.ndarray  # [d, d]
    counts: np.ndarray  # [E]

    @property
    def residuals(self) -> np.ndarray:
        """R_e = estimate - A* - A_e in double precision, [E, d, d]."""
        world = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), self.world)
        shared = world.invariant_basis * world.invariant_spectrum @ world.invariant_basis.T
        return (
            self.estimate
            - shared
            - world.spurious_basis @ world.spurious_cores @ world.spurious_basis.T
        )


def make_case(
    counts: list[int], *, cores: list[int], spurious_rank: int = 2, error: str = "generic"
) -> Case:
    """Environments with the numbered cores in a tilted random world; equal numbers, equal cores."""
    rng = np.random.default_rng(7)
    frame = np.linalg.qr(rng.normal(size=(DIM, DIM)))[0]
    shared = frame[:, :2]
    own = np.linalg.qr(frame[:, -spurious_rank:] + 0.3 * rng.normal(size=(DIM, spurious_rank)))[0]
    every_core = symmetric(rng, 4, spurious_rank, spurious_rank)
    factor = 0.7 * rng.normal(size=(DIM, DIM))
    if error in (
        "zero",
        "none here",
    ):  # small whole numbers, so that a vanishing residual is exactly zero
        shared, own = np.eye(DIM)[:, :2], np.eye(DIM)[:, 2 : 2 + spurious_rank]
        every_core = np.array([np.diag(np.arange(spurious_rank) + k + 1.0) for k in range(4)])
    invariant = shared * np.array([1.0, 2.0]) @ shared.T
    estimate = {
        "generic": factor @ factor.T,
        "within the spurious span": invariant
        + own @ symmetric(rng, spurious_rank, spurious_rank) @ own.T,
        "zero": invariant + own @ every_core[cores[0]] @ own.T,
        "none here": invariant + own @ every_core[cores[0]] @ own.T,
    }[error]
    world = World(
        shared, np.array([1.0, 2.0]), own, every_core[cores], np.full(len(cores), 1 / len(cores))
    )
    world = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), world)
    return Case(world, np.asarray(estimate, np.float32), np.array(counts))


LAWS = ("law", "low rank")


def features(gradient: np.ndarray, loss: np.ndarray) -> np.ndarray:
    """The d (d + 1) / 2 entries of G and the loss, [n, 16]."""
    return np.column_stack([gradient[:, UPPER[0], UPPER[1]], loss]).astype(np.float64)


def definition(case: Case, noise: float, *, seed: int = 1) -> np.ndarray:
    """The same features, from drawn measurements and nothing else, [n, 16]."""
    rng = np.random.default_rng(seed)
    owners = np.repeat(np.arange(len(case.counts)), case.counts)
    size, parts = len(owners), []
    for _ in range(20):  # a slab at a time, for the memory
        measured = rng.standard_normal((DRAWS // 20, size, DIM, DIM), np.float32)
        residual = np.einsum("nmij,mij->nm", measured, case.residuals[owners], optimize=True)
        residual = residual - noise * rng.standard_normal(residual.shape)
        gradient = np.einsum("nm,nmij->nij", residual, measured, optimize=True) / size
        gradient = (gradient + np.swapaxes(gradient, 1, 2)) / 2
        parts.append(features(gradient, (residual**2).sum(1) / (4 * size)))
    return np.concatenate(parts)


def closed_form(case: Case, noise: float) -> tuple[np.ndarray, np.ndarray]:
    """Mean [16] and covariance [16, 16] of the features.

    For one example, with v = |R|^2 + noise^2 and Isserlis' theorem: E r sym(X) = R,
    Var(r^2) = 2 v^2, Cov(r sym(X)) = v cov(sym X) + R R' and Cov(r^2, r sym(X)) = 2 v R; examples
    add up.
    """
    goe = np.append(np.where(UPPER[0] == UPPER[1], 1.0, 0.5), 0.0)
    mean, covariance, size = np.zeros(16), np.zeros((16, 16)), case.counts.sum()
    for count, residual in zip(case.counts, case.residuals, strict=True):
        own = np.append(residual[UPPER], 0)
        variance = (residual**2).sum() + noise**2
        last = np.eye(16)[-1]
        mean += count / size * (own + last * variance / 4)
        both = np.outer(own, last)
        covariance += (
            count
            / size**2
            * (
                variance * np.diag(goe)
                + np.outer(own, own)
                + np.outer(last, last) * variance**2 / 8
                + (both + both.T) * variance / 2
            )
        )
    return mean, covariance


def scores(found: np.ndarray, expected: np.ndarray, error: np.ndarray) -> np.ndarray:
    """z-scores of what is random; what is not must agree to rounding."""
    certain = error <= 1e-7
    np.testing.assert_allclose(found[certain], expected[certain], atol=1e-5)
    return (found - expected)[~certain] / error[~certain]


def low_moments(sample: np.ndarray, mean: np.ndarray, covariance: np.ndarray) -> np.ndarray:
    """z-scores of the mean [f] and the covariance [f, f] of draws [n, f] from known ones."""
    assert np.isfinite(sample).all()
    centred, num = sample - mean, len(sample)
    z_mean = scores(sample.mean(0), mean, sample.std(0) / np.sqrt(num))
    products, squares = centred.T @ centred / num, (centred**2).T @ centred**2 / num
    half = np.triu_indices(len(mean))
    spread = np.sqrt(np.maximum(squares - products**2, 0) / num)
    z_covariance = scores(products[half], covariance[half], spread[half])
    return np.concatenate([z_mean, z_covariance])


def high_moments(sample: np.ndarray, oracle: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """z-scores of third and fourth moments of every feature and 24 mixtures, against the oracle."""
    mixtures = np.random.default_rng(3).normal(size=(len(mean), 24)) / oracle.std(0)[:, None] / 4
    directions = np.concatenate([np.diag(1 / oracle.std(0)), mixtures], 1)
    z = []
    lengths = [(draws - mean) @ directions for draws in (sample, oracle)]
    for factors in (3, 4):
        here, there = (functools.reduce(np.multiply, [x] * factors) for x in lengths)
        error = np.sqrt(here.var(0) / len(here) + there.var(0) / len(there))
        z.append(scores(here.mean(0), there.mean(0), error))
    return np.concatenate(z)


def judge(z: np.ndarray, *, enough: int) -> None:
    assert len(z) >= enough, "the test looks at too little"
    rms, largest = np.sqrt(np.mean(z**2)), np.abs(z).max()
    print(f"rms z {rms:.2f}, max |z| {largest:.2f} of {len(z)}")
    assert largest < MAX_Z
    assert 0.3 < rms < RMS_Z
