"""Worlds whose training environments are those of the test."""

from __future__ import annotations

import jax.numpy as jnp

from causal_sgd import checks
from causal_sgd.supervised.worlds._linear import LinearWorld
from causal_sgd.supervised.worlds._mixture import MixtureWorld
from causal_sgd.supervised.worlds._table import TableWorld
from causal_sgd.supervised.worlds._world import SupervisedWorld, WorldFactory
from causal_sgd.types import Array, Key

__all__ = ["on_tests"]


def on_tests(factory: WorldFactory) -> WorldFactory:
    """The same world, whose training environments are those of the test: for an oracle.

    What is trained in it knows what the test looks like. The draws are those of the factory. Where
    there are as many environments of the test as of training, they keep the probabilities;
    otherwise they are equally frequent.

    Args:
        factory: of linear, mixture or table worlds with environments of the test.

    Returns:
        A world factory.

    Raises:
        ValueError: if it is no factory, or (when it is called) its world is of another kind or has
            no environments of the test.
    """
    checks.function("factory", factory, 1, "a world factory, such as worlds.sem() makes")

    def world(key: Key) -> SupervisedWorld:
        trained = factory(key)
        if isinstance(trained, LinearWorld):
            swapped = trained._replace(
                mixing=trained.test_mixing, means=trained.test_means, counts=None
            )
            size = len(trained.test_mixing)
        elif isinstance(trained, MixtureWorld):
            swapped = trained._replace(
                weights=trained.test_weights, means=trained.test_means, labels=trained.test_labels
            )
            size = len(trained.test_weights)
        elif isinstance(trained, TableWorld):
            swapped = trained._replace(mass=trained.test_mass)
            size = len(trained.test_mass)
        else:
            raise ValueError(
                f"factory must make a linear, mixture or table world, got {type(trained).__name__}"
            )
        if size == 0:
            raise ValueError("factory must make a world with environments of the test, got none")
        return swapped._replace(probabilities=_probabilities(trained.probabilities, size))

    return world


def _probabilities(known: Array, size: int) -> Array:
    return known if len(known) == size else jnp.full(size, 1 / size, known.dtype)
