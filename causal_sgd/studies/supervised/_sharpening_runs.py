"""The cell of the study of progressive sharpening: a signed diagonal network on two inputs."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from causal_sgd.studies._cells import Cell
    from causal_sgd.types import Array, Key, Params, Snapshot, Trace

__all__ = ["one_output_cell"]


def one_output_cell(steps: int, every: int, *, curvatures: bool = False) -> Cell:
    """One example (1, eps) for weights u^2 - v^2, of which u_1 and v_2 start away from zero.

    The learning rate is 1. With a = sqrt(2) u_1 and b = sqrt(2) v_2 the residual in environment e
    is z = (a^2 - eps b^2)/2 - y_e, and a step is a <- a (1 - z), b <- b (1 + eps z).

    Args:
        steps: length of the runs.
        every: steps between frames.
        curvatures: whether the curvatures of the loss are recorded, besides tangent kernel and b^2.
    """
    import jax.numpy as jnp
    import optax

    from causal_sgd.supervised import measurements, models, worlds
    from causal_sgd.training import curvature, run, samplers, sgd

    def cell(
        key: Key, *, ratio: Array, target: Array, spread: Array, first: Array, second: Array
    ) -> Trace:
        own = target + spread * jnp.array([1.0, -1.0])
        model = models.hadamard(dim=2, signed=True)

        def init(key: Key) -> Params:
            scale = 0.5**0.5
            return {
                "positive": scale * jnp.stack([first, 0 * first]),
                "negative": scale * jnp.stack([0 * second, second]),
            }

        def squares(snapshot: Snapshot) -> tuple[Array, Array]:
            """A^2 and b^2."""
            params = snapshot.params
            return 2 * params["positive"][0] ** 2, 2 * params["negative"][1] ** 2

        def kernel(snapshot: Snapshot) -> Array:
            a, b = squares(snapshot)
            return a + ratio**2 * b

        def residuals(snapshot: Snapshot) -> Array:
            a, b = squares(snapshot)
            return (a - ratio * b) / 2 - own

        def own_curvature(snapshot: Snapshot) -> Array:
            """J' diag(1, -eps) J."""
            a, b = squares(snapshot)
            return a - ratio**3 * b

        def along(snapshot: Snapshot) -> Array:
            """E g'H g of the environments, g = z J, H = J J' + z diag(1, -eps)."""
            z = residuals(snapshot)
            return jnp.mean(z**2 * (kernel(snapshot) ** 2 + z * own_curvature(snapshot)))

        metrics: Mapping[str, Callable[[Snapshot], Array]] = {
            "kernel": kernel,
            "slow": lambda snapshot: ratio * squares(snapshot)[1],
        }
        if curvatures:
            metrics = dict(metrics) | {
                "sharpness": curvature.sharpness,
                "worst": lambda snapshot: jnp.max(curvature.environment_sharpness(snapshot)),
                "batch_sharpness": curvature.batch_sharpness,
                "pooled_along": lambda snapshot: (
                    kernel(snapshot)
                    + jnp.mean(residuals(snapshot)) * own_curvature(snapshot) / kernel(snapshot)
                ),
                "along": along,
                "gradient_square": lambda snapshot: (
                    kernel(snapshot) * jnp.mean(residuals(snapshot) ** 2)
                ),
            }
        algorithm = sgd(
            world=worlds.fixed_design(
                jnp.stack([own, 0 * own], 1),
                design=jnp.stack([jnp.ones(()), ratio])[None],
            ),
            sampler=samplers.hetero(batch_size=1),
            measurement=measurements.moments(),
            model=dataclasses.replace(model, init=init),
            optimizer=optax.sgd(1.0),
        )
        return run(key, algorithm=algorithm, metrics=metrics, num_steps=steps, record_every=every)

    return cell
