"""The cells of the study of sharpness-aware steps, and what plain NumPy says about them."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from causal_sgd.studies._cells import Cell
    from causal_sgd.types import Array, Key, Trace

__all__ = ["SPECTRUM", "matrix_cell", "pair_cell", "scalar_floor", "slide", "valley_cell"]

SPECTRUM = (1.0, 0.8, 0.5)
DIM, COLUMNS = 6, 4
SIGNAL = 1.0  # the entry of the valley


def matrix_cell(steps: int, every: int) -> Cell:
    """U U' with as many columns as the signal has.

    Args:
        steps: length of the runs.
        every: steps between frames; odd, so that both phases of the cycle occur.
    """
    import jax.numpy as jnp
    import optax

    from causal_sgd.sensing import measurements, metrics, models, worlds
    from causal_sgd.training import curvature, optimizers, run, samplers, sgd

    def cell(key: Key, *, learning_rate: Array, radius: Array) -> Trace:
        algorithm = sgd(
            world=worlds.two_point(
                dim=DIM,
                invariant_rank=len(SPECTRUM),
                spurious_rank=0,
                basis="canonical",
                invariant_spectrum=jnp.array(SPECTRUM),
            ),
            sampler=samplers.hetero(batch_size=1),
            measurement=measurements.population(),
            model=models.factored(dim=DIM, rank=len(SPECTRUM), init_scale=0.3),
            optimizer=optimizers.sam(optax.sgd(learning_rate), radius=radius),
        )
        return run(
            key,
            algorithm=algorithm,
            metrics=[metrics.invariant_error, metrics.gradient_norm, curvature.sharpness],
            num_steps=steps,
            record_every=every,
        )

    return cell


def valley_cell(steps: int, every: int) -> Cell:
    """U V' with one entry from a start of given sharpness at its minimum.

    Args:
        steps: length of the runs.
        every: steps between frames; odd, so that both phases of the cycle occur.
    """
    import jax.numpy as jnp
    import optax

    from causal_sgd.sensing import measurements, metrics, models
    from causal_sgd.sensing.worlds import World
    from causal_sgd.training import optimizers, run, samplers, sgd

    def cell(key: Key, *, learning_rate: Array, radius: Array, start: Array) -> Trace:
        one = jnp.ones((1, 1))
        world = World(one, jnp.full(1, SIGNAL), one, jnp.zeros((1, 1, 1)), jnp.ones(1))
        model = models.asymmetric(dim=1, rank=COLUMNS, init_scale=1.0, init="gaussian")

        def init(key: Key) -> models.Factors:
            # The entry is SIGNAL in the first column; noise of the radius breaks the symmetry.
            long = jnp.sqrt(start + jnp.sqrt(start**2 - SIGNAL**2))
            noise = model.init(key)
            first = jnp.eye(1, COLUMNS)
            return models.Factors(
                long * first + 0.1 * radius * noise.left,
                SIGNAL / long * first + 0.1 * radius * noise.right,
            )

        algorithm = sgd(
            world=lambda key: world,
            sampler=samplers.hetero(batch_size=1),
            measurement=measurements.population(),
            model=dataclasses.replace(model, init=init),
            optimizer=optimizers.sam(optax.sgd(learning_rate), radius=radius),
        )
        return run(
            key,
            algorithm=algorithm,
            metrics={
                "sharpness": lambda snapshot: (
                    sum((jnp.sum(factor**2) for factor in snapshot.params), jnp.zeros(())) / 2
                ),
                "imbalance": metrics.imbalance,
                "gradient_norm": metrics.gradient_norm,
            },
            num_steps=steps,
            record_every=every,
        )

    return cell


def pair_cell(steps: int, every: int) -> Cell:
    """One learned direction at its two-cycle and one spurious direction, in two coordinates.

    Args:
        steps: length of the runs.
        every: steps between frames.
    """
    import jax.numpy as jnp
    import optax

    from causal_sgd.sensing import measurements, metrics, models, worlds
    from causal_sgd.training import optimizers, run, samplers, sgd

    def cell(
        key: Key, *, learning_rate: Array, radius: Array, mean: Array, spread: Array, start: Array
    ) -> Trace:
        a = 2 * learning_rate
        amplitude = a * radius / (2 - a)
        model = models.diagonal(dim=2)
        algorithm = sgd(
            world=worlds.two_point(
                dim=2,
                invariant_rank=1,
                spurious_rank=1,
                mean=mean,
                spread=spread,
                basis="canonical",
            ),
            sampler=samplers.hetero(batch_size=1),
            measurement=measurements.population(),
            model=dataclasses.replace(
                model, init=lambda key: jnp.stack([1 + amplitude, start * jnp.ones(())])
            ),
            optimizer=optimizers.sam(optax.sgd(learning_rate), radius=radius),
        )
        return run(
            key,
            algorithm=algorithm,
            metrics={
                "spurious_signal": metrics.spurious_signal,
                "invariant_move": lambda snapshot: jnp.abs(snapshot.params[0] - 1),
            },
            num_steps=steps,
            record_every=every,
        )

    return cell


def scalar_floor(
    rate: float, radius: float, mean: float, spread: float, *, draws: int, steps: int
) -> tuple[np.ndarray, float]:
    """One direction that environments shake alone, after the first half of the runs.

    Args:
        rate: eta.
        radius: rho, at which the runs start.
        mean: mu.
        spread: M.
        draws: independent orders of the environments.
        steps: length of the runs.

    Returns:
        The time averages of v^2 [draws], and the exponent of a small deviation in a learned
        direction of eigenvalue 1, which shares the norm of the gradient: E log|1 - eta lambda (1 +
        rho lambda/|g|)|, lambda = 2.
    """
    random = np.random.default_rng(0)
    v, total, logs = np.full(draws, radius), np.zeros(draws), 0.0
    for step in range(steps):
        s = mean + spread * random.choice([-1.0, 1.0], size=draws)
        gradient = (v * v - s) * v
        ascended = v + radius * np.sign(gradient)
        v = v - rate * (ascended * ascended - s) * ascended
        if step >= steps // 2:
            total += v * v
            factor = 1 - 2 * rate * (1 + 2 * radius / np.abs(gradient))
            logs += float(np.mean(np.log(np.abs(factor))))
    return total / (steps - steps // 2), logs / (steps - steps // 2)


def slide(rate: float, radius: float, start: float, frames: np.ndarray) -> np.ndarray:
    """The sharpness of U V' at frames by the exponent of its imbalance alone.

    Args:
        rate: eta.
        radius: rho.
        start: S at first.
        frames: steps [n] at which it is returned.
    """
    square, path = start**2 - SIGNAL**2, []
    for _ in range(frames[-1] + 1):
        path.append(np.sqrt(square + SIGNAL**2))
        square *= np.exp(-8 * rate * (radius / (2 - rate * path[-1])) ** 2)
    return np.array(path)[frames]
