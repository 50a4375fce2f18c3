"""The cell of the study of in-context regression, and its map in plain NumPy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from causal_sgd.studies._cells import Cell
    from causal_sgd.types import Array, Key, Trace

__all__ = ["TASKS", "map_of", "prompts_cell", "unit"]

TASKS = np.array([2.0, 1.0, 0.5, 0.2])  # variances of the tasks at tilt 1; the last is disputed


def unit(context_length: float, dim: int) -> float:
    """The factor a of u^2 in the map of a direction, for S = W = I."""
    return 1 + (1 + dim) / context_length


def prompts_cell(
    *, learning_rate: float, mean: float, init_scale: float, steps: int, every: int
) -> Cell:
    """Two sources in turn, in the mean over their prompts; records the diagonal of Q.

    The relations of the last of four directions are mean +- spread, the covariances of the inputs
    (1 +- contrast) I, and the variances of the tasks 1 (tilt 0) or `TASKS` (tilt 1).
    """
    import jax.numpy as jnp
    import optax

    from causal_sgd.sensing import measurements, models, worlds
    from causal_sgd.training import run, samplers, sgd
    from causal_sgd.types import Snapshot

    dim, signs = len(TASKS), jnp.array([1.0, -1.0])

    def spectrum(snapshot: Snapshot) -> Array:
        return jnp.diagonal(snapshot.estimate)

    def cell(
        key: Key, *, spread: Array, contrast: Array, context_length: Array, tilt: Array
    ) -> Trace:
        scales = 1 + signs * contrast
        measurement = measurements.in_context_population(
            context_length,
            covariance=scales[:, None, None] * jnp.eye(dim)[None],
            task_covariance=1 + tilt * (jnp.asarray(TASKS) - 1),
        )
        algorithm = sgd(
            world=worlds.discrete(
                dim=dim,
                invariant_rank=dim - 1,
                spurious_rank=1,
                eigenvalues=mean + signs * spread,
                basis="canonical",
            ),
            sampler=samplers.cyclic(batch_size=1),
            measurement=measurement,
            model=models.asymmetric(dim=dim, init_scale=init_scale),
            optimizer=optax.sgd(learning_rate),
        )
        return run(
            key,
            algorithm=algorithm,
            metrics={"spectrum": spectrum},
            num_steps=steps,
            record_every=every,
        )

    return cell


def map_of(
    case: Mapping[str, np.ndarray],
    *,
    learning_rate: float,
    mean: float,
    init_scale: float,
    steps: int,
    every: int,
) -> np.ndarray:
    """The levels u^2 [n, frames, d] of the scalar maps u <- u + (eta/2) (g_e - a_e u^2) u.

    Args:
        case: spread, contrast, context_length and tilt of each run, [n].
        learning_rate: eta.
        mean: mu.
        init_scale: u at the start.
        steps: length of the runs.
        every: steps between frames.
    """
    spread, contrast, length, tilt = (
        case[name][:, None] for name in ("spread", "contrast", "context_length", "tilt")
    )
    tasks = 1 + tilt * (TASKS - 1)
    disputed = np.arange(len(TASKS)) == len(TASKS) - 1
    signals, units = [], []
    for sign in (1, -1):
        s, relation = 1 + sign * contrast, np.where(disputed, mean + sign * spread, 1)
        signals.append(s**2 * tasks * relation)
        # a = s H with H = (1 + 1/N) s^2 omega + tr(S W) s / N
        second = (1 + 1 / length) * s**2 * tasks + s**2 * tasks.sum(1, keepdims=True) / length
        units.append(s * second)
    u = np.full(tasks.shape, init_scale)
    frames = [u**2]
    for step in range(steps):
        place = step % 2
        u = u + learning_rate / 2 * (signals[place] - units[place] * u**2) * u
        if (step + 1) % every == 0:
            frames.append(u**2)
    return np.stack(frames, 1)
