"""Runs of the invariance unit tests by HeteroSGD and by a search of sets, which the source has not.

Both see the population, as the runs of `_unit_tests` do, and record the same numbers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from causal_sgd.studies.supervised._unit_tests import (
    DIM_CAUSAL,
    MULTIPLE,
    job_error,
    job_selection,
    job_world,
)

if TYPE_CHECKING:
    from causal_sgd.types import Array, Batch, Key, Sampler, State, Trace

__all__ = ["GAMMA", "searched", "squares"]

GAMMA = 20.0  # of EILLS, as in the demo of Fan et al. (2024)
START = 0.1  # of all u and v
DIM = 2 * DIM_CAUSAL


def squares(
    key: Key,
    *,
    rate: Array,
    hetero: Array,
    example: str,
    steps: int,
    environments: int = 3,
) -> Trace:
    """Gradient descent on the weights u^2 - v^2, in one environment a step or in all of them.

    Args:
        key: of the world and the order of the environments.
        rate: of the steps, on the scale of the package.
        hetero: whether a step sees one environment, drawn at random, above 0.5.
        example: of `EXAMPLES`, whose inputs are not rotated.
        steps: of training.
        environments: E.
    """
    import optax

    from causal_sgd.supervised import measurements, metrics, models
    from causal_sgd.training import run, sgd

    regression = example == "Example1"
    algorithm = sgd(
        world=job_world(example, 0.0, environments, most_environments=environments),
        sampler=_one_or_all(hetero),
        measurement=measurements.moments() if regression else measurements.quadrature(),
        model=models.hadamard(dim=DIM, signed=True, intercept=True, init_scale=START),
        optimizer=optax.sgd(rate),
    )
    recorded = {
        "selection": job_selection,
        "error": job_error,
        "spurious": metrics.spurious_weight,
    }
    return run(key, algorithm=algorithm, metrics=recorded, num_steps=steps)


def searched(key: Key, *, gamma: Array, scramble: Array) -> Trace:
    """EILLS on the first example: the best of all sets of inputs, as an error and `selection`.

    Args:
        key: of the world.
        gamma: of the constraints.
        scramble: whether the inputs are rotated, above 0.5.
    """
    from causal_sgd.supervised import estimators, measurements
    from causal_sgd.training import algorithms, run

    algorithm = algorithms.fitted(
        world=job_world("Example1", scramble),
        measurement=measurements.moments(),
        estimator=estimators.eills(gamma, intercept=True),
    )
    recorded = {"selection": job_selection, "error": job_error}
    return run(key, algorithm=algorithm, metrics=recorded, num_steps=1)


def _one_or_all(hetero: Array) -> Sampler:
    """Batches of one environment, or of all alike: a traced choice, for one program."""
    import jax.numpy as jnp

    from causal_sgd import samplers
    from causal_sgd.types import Batch, Sampler

    pure = samplers.hetero(batch_size=MULTIPLE)

    def draw(key: Key, step: Array, state: State) -> tuple[Batch, State]:
        chosen, state = pure.draw(key, step, state)
        every = jnp.arange(state.shape[0], dtype=jnp.int32)
        alone = jnp.where(every == chosen.environments[0], MULTIPLE, 0)
        equal = MULTIPLE // len(every)
        return Batch(every, jnp.where(jnp.asarray(hetero) > 0.5, alone, equal)), state

    return Sampler(pure.init, draw, MULTIPLE, checked=True)
