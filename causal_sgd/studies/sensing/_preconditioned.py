"""The cells of the study of preconditioned gradients, with a traced condition number."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import optax

    from causal_sgd.studies._cells import Cell
    from causal_sgd.types import Array, Key, Trace

__all__ = ["RATE", "balance_cell", "rate_cell"]

DIM, RANK, RATE = 24, 2, 0.5
BALANCED_DIM, BALANCED_RANK = 10, 4


def rate_cell(finite: bool, steps: int) -> Cell:
    """U U' with k = r columns from a small start, over the condition number of A*.

    Args:
        finite: 5 d r measurements, all in every step, instead of the population.
        steps: length of the runs.
    """
    import jax.numpy as jnp

    from causal_sgd.sensing import measurements, metrics, models, worlds
    from causal_sgd.training import run, samplers, sgd

    def cell(key: Key, *, condition: Array, scaled: Array) -> Trace:
        algorithm = sgd(
            world=worlds.two_point(
                dim=DIM,
                invariant_rank=RANK,
                spurious_rank=0,
                invariant_spectrum=jnp.linspace(1, 1 / condition, RANK),
            ),
            sampler=samplers.hetero(batch_size=1),
            measurement=measurements.fixed_design(num_examples=5 * DIM * RANK, full=True)
            if finite
            else measurements.population(),
            model=models.factored(dim=DIM, rank=RANK, init_scale=0.03),
            optimizer=_stepper(scaled, 0.0),
        )
        return run(
            key,
            algorithm=algorithm,
            metrics=[metrics.relative_invariant_error],
            num_steps=steps,
            record_every=1,
        )

    return cell


def balance_cell(slowest: float, damping: float, steps: int) -> Cell:
    """U V' with more columns than the signal has, over alpha.

    Args:
        slowest: the smallest eigenvalue of A*, whose largest is 1.
        damping: of preconditioned gradients.
        steps: length of the runs.
    """
    import jax.numpy as jnp

    from causal_sgd.sensing import measurements, metrics, models, worlds
    from causal_sgd.training import run, samplers, sgd

    def cell(key: Key, *, init_scale: Array, scaled: Array) -> Trace:
        algorithm = sgd(
            world=worlds.two_point(
                dim=BALANCED_DIM,
                invariant_rank=2,
                spurious_rank=0,
                invariant_spectrum=jnp.array([1.0, slowest]),
            ),
            sampler=samplers.hetero(batch_size=1),
            measurement=measurements.population(),
            model=models.asymmetric(dim=BALANCED_DIM, rank=BALANCED_RANK, init_scale=init_scale),
            optimizer=_stepper(scaled, damping),
        )
        return run(
            key,
            algorithm=algorithm,
            metrics=[metrics.imbalance, metrics.invariant_error],
            num_steps=steps,
            record_every=1,
        )

    return cell


def _stepper(scaled: Array, damping: float) -> optax.GradientTransformation:
    """Steps of RATE along the gradients, preconditioned where `scaled` is 1, in one program."""
    import jax
    import jax.numpy as jnp
    import optax

    from causal_sgd.training import optimizers

    preconditioner = optimizers.scaled(damping=damping)

    def update(
        updates: optax.Updates, state: optax.OptState, params: optax.Params | None = None
    ) -> tuple[optax.Updates, optax.OptState]:
        other, state = preconditioner.update(updates, state, params)
        chosen = jax.tree.map(lambda one, two: jnp.where(scaled > 0, one, two), other, updates)
        return chosen, state

    either = optax.GradientTransformation(preconditioner.init, update)
    return optax.chain(either, optax.sgd(RATE))
