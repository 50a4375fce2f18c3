"""Runs of the study `diagnostic`, with the exponents and defects of the colour's weights."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import numpy as np

from causal_sgd.studies._cells import Cell
from causal_sgd.studies.supervised import _digit_networks as networks
from causal_sgd.studies.supervised import _digits as digits

if TYPE_CHECKING:
    from causal_sgd.supervised.models import VectorModel
    from causal_sgd.types import Algorithm, Array, Key, Snapshot, Trace, WorldFactory

__all__ = ["gated", "plain", "squares"]

BATCHES = 300  # of an exponent
FRAMES = 24
COLOUR = np.arange(networks.SIDE**2 + 1) == networks.SIDE**2  # the last input


def gated(steps: int) -> Cell:
    """Runs of a network behind gates by their step size and the agreements of both environments."""

    def cell(
        key: Key, *, learning_rate: float | Array, one: float | Array, other: float | Array
    ) -> Trace:
        import jax
        import jax.numpy as jnp

        mask = {"gates": COLOUR, "network": False}

        def found(snapshot: Snapshot) -> Array:
            return jax.lax.cond(
                (snapshot.step == 0) | (snapshot.step == steps),
                lambda: _exponent(snapshot, mask, learning_rate),
                lambda: jnp.zeros(2),
            )

        model = networks.gated(networks.mlp())
        algorithm = _algorithm(model, learning_rate, _world(one, other))
        trace = _trained(key, algorithm, steps, found)
        # Of the exponents only those at the first and the last weights are computed.
        both = {name: trace.metrics[name][jnp.array([0, -1])] for name in ("exponent", "error")}
        return _summary(trace, both)

    return cell


def squares(steps: int) -> Cell:
    """Runs of u^2 - v^2, in worlds with a colour or without, and exponents in those with it."""

    def cell(
        key: Key,
        *,
        learning_rate: float | Array,
        one: float | Array,
        other: float | Array,
        colour: float | Array,
    ) -> Trace:
        import jax
        import jax.numpy as jnp

        from causal_sgd.supervised import models

        mask = {"positive": COLOUR, "negative": False}

        def found(snapshot: Snapshot) -> Array:
            seen = dataclasses.replace(snapshot.world, colour=jnp.ones_like(snapshot.world.colour))
            shown = dataclasses.replace(snapshot, world=seen)
            return jax.lax.cond(
                snapshot.step == steps,
                lambda: _exponent(shown, mask, learning_rate),
                lambda: jnp.zeros(2),
            )

        model = models.hadamard(dim=len(COLOUR), signed=True)
        algorithm = _algorithm(model, learning_rate, _world(one, other, colour))
        trace = _trained(key, algorithm, steps, found)
        return _summary(trace, {name: trace.metrics[name][-1] for name in ("exponent", "error")})

    return cell


def plain(steps: int) -> Cell:
    """Runs of the plain network by their step size, in the first world."""

    def cell(key: Key, *, learning_rate: float | Array) -> Trace:
        import jax.numpy as jnp

        from causal_sgd import diagnosis, training

        colours = {"first": COLOUR[:, None], "offsets": False, "last": False, "intercept": False}

        def defect(snapshot: Snapshot) -> Array:
            """The gradient on the colour's weights over their curvature, in an environment."""
            sampler = training.samplers.hetero(batch_size=digits.BATCH)
            found = diagnosis.disturbances(snapshot, sampler=sampler, subspace=colours)
            return jnp.min(found.defect / found.stiffness)

        algorithm = _algorithm(networks.mlp(), learning_rate, _world(*digits.CONTRADICTION))
        return training.run(
            key,
            algorithm=algorithm,
            metrics={"gap": digits.gap, "defect": defect},
            num_steps=steps,
        )

    return cell


def _world(one: float | Array, other: float | Array, colour: float | Array = 1.0) -> WorldFactory:
    """Digits whose colour agrees with the label as often as told in two environments."""
    import jax.numpy as jnp

    from causal_sgd.supervised import worlds

    return worlds.coloured_digits(
        invariant_flip=digits.ALPHA,
        spurious_flips=1 - jnp.stack([jnp.asarray(one, float), jnp.asarray(other, float)]),
        colour=colour,
    )


def _algorithm(model: VectorModel, learning_rate: float | Array, world: WorldFactory) -> Algorithm:
    """HeteroSGD on batches of examples that are drawn anew."""
    import optax

    from causal_sgd import training
    from causal_sgd.supervised import losses, measurements

    return training.sgd(
        world=world,
        sampler=training.samplers.hetero(batch_size=digits.BATCH),
        measurement=measurements.examples(fresh=digits.BATCH, loss=losses.logistic),
        model=model,
        optimizer=optax.sgd(learning_rate),
    )


def _exponent(snapshot: Snapshot, mask: Mapping[str, object], rate: float | Array) -> Array:
    """The exponent a step of one weight at zero, and its standard error, [2]."""
    import jax.numpy as jnp

    from causal_sgd import diagnosis, training

    exponents, errors = diagnosis.exponents(
        snapshot,
        sampler=training.samplers.hetero(batch_size=digits.BATCH),
        subspace=mask,
        learning_rate=rate,
        num_steps=BATCHES,
        burn_in=0,
    )
    return jnp.stack([exponents[0, 0], errors[0, 0]])


def _trained(
    key: Key, algorithm: Algorithm, steps: int, found: Callable[[Snapshot], Array]
) -> Trace:
    """A run with gaps, exponents and their errors."""
    from causal_sgd import training

    metrics: dict[str, Callable[[Snapshot], Array]] = {
        "gap": digits.gap,
        "exponent": lambda snapshot: snapshot.once(found)[0],
        "error": lambda snapshot: snapshot.once(found)[1],
    }
    return training.run(
        key, algorithm=algorithm, metrics=metrics, num_steps=steps, record_every=steps // FRAMES
    )


def _summary(trace: Trace, found: Mapping[str, Array]) -> Trace:
    """One frame: the mean gap of the last quarter, and what was found."""
    from causal_sgd import training

    late = training.time_average(trace, after=networks.LATE)
    values = {name: value[None] for name, value in found.items()}
    return late._replace(metrics={"gap": late.metrics["gap"], **values})
