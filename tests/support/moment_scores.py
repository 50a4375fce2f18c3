"""z-scores of draws of moments against draws by the definition."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

MAX_Z = 4.5


def entries(second: np.ndarray) -> np.ndarray:
    """The different entries of moments [n, q, q] but for the constant, [n, f]."""
    rows, columns = np.triu_indices(second.shape[-1])
    return np.asarray(second, np.float64)[:, rows[:-1], columns[:-1]]


def by_definition(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The moments [..., q, q] of z = (x, y, 1) of examples x [..., n, p], y [..., n]."""
    z = np.concatenate([x, y[..., None], np.ones((*y.shape, 1))], -1).astype(np.float64)
    return np.swapaxes(z, -1, -2) @ z / z.shape[-2]


def scores(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """z of the moments of order 1 to 4 of two samples [n, f], of features and of 24 mixtures."""
    one, other = (np.asarray(sample, np.float64) for sample in (one, other))
    center, spread = other.mean(0), other.std(0)
    keep = spread > 1e-6 * np.abs(center).max()
    assert keep.any()
    np.testing.assert_allclose(one[:, ~keep].mean(0), center[~keep], atol=1e-4)
    mixtures = np.random.default_rng(3).normal(size=(keep.sum(), 24)) / keep.sum() ** 0.5
    z = []
    lengths = []
    for sample in (one, other):
        scaled = ((sample - center) / np.where(keep, spread, 1))[:, keep]
        lengths.append(np.concatenate([scaled, scaled @ mixtures], 1))
    for order in (1, 2, 3, 4):
        (here, here_error), (there, there_error) = (_mean(values, order) for values in lengths)
        z.append((here - there) / np.hypot(here_error, there_error))
    return np.concatenate(z)


def _mean(values: np.ndarray, order: int) -> tuple[np.ndarray, np.ndarray]:
    """The moments of an order and their standard errors."""
    powers = values.copy()
    for _ in range(order - 1):
        powers *= values
    return powers.mean(0), powers.std(0) / len(values) ** 0.5


def judge(z: np.ndarray) -> None:
    """Require that all z-scores are below 4.5."""
    assert np.isfinite(z).all()
    print(f"rms z {np.sqrt(np.mean(z**2)):.2f}, max |z| {np.abs(z).max():.2f} of {z.size}")
    assert np.abs(z).max() < MAX_Z


@jax.jit
def _populations(world: Any) -> tuple[jax.Array, jax.Array]:
    return world.second_moments, world.test_moments


def populations(world: Any) -> tuple[np.ndarray, np.ndarray]:
    """Moments [E, q, q] and [T, q, q] of a world; op by op, each would be compiled."""
    return jax.device_get(_populations(world))


def drawn_once(world: Any, seed: int, counts: Any) -> np.ndarray:
    """Moments [E, q, q] of one sample of every environment, in one program."""
    keys, environments = jax.random.key(seed), jnp.arange(len(counts))
    return np.asarray(jax.jit(world.draw_moments)(keys, environments, jnp.asarray(counts, float)))


def drawn_moments(world: Any, environment: int, count: Any, draws: int, seed: int = 0) -> Any:
    """Moments [draws, q, q] of independent samples of one environment."""
    keys = jax.random.split(jax.random.key(seed), draws)
    environments = jnp.array([environment])

    def draw(key: jax.Array) -> jax.Array:
        return world.draw_moments(key, environments, jnp.array([count], float))[0]

    return np.asarray(jax.jit(jax.vmap(draw))(keys))


def drawn_by_definition(
    world: Any, environment: int, count: int, draws: int, seed: int = 1
) -> np.ndarray:
    """The same from examples that are really drawn."""
    x, y = jax.jit(lambda key: world.draw_examples(key, jnp.array(environment), count * draws))(
        jax.random.key(seed)
    )
    dim = x.shape[-1]
    return by_definition(np.reshape(x, (draws, count, dim)), np.reshape(y, (draws, count)))


def population_scores(second: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """z of moments [q, q] of a law against examples x [n, p], y [n]."""
    z = np.concatenate([x, y[:, None], np.ones((len(y), 1))], 1).astype(np.float64)
    found = z.T @ z / len(y)
    error = np.sqrt(np.maximum((z**2).T @ z**2 / len(y) - found**2, 0) / len(y))
    certain = error < 1e-7
    np.testing.assert_allclose(found[certain], np.asarray(second)[certain], atol=1e-5)
    return ((found - second)[~certain]) / error[~certain]
