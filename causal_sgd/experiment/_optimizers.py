"""The optimizers of an experiment: those of optax, and what an experiment adds to them."""

from __future__ import annotations

import jax.numpy as jnp
import optax
from optax import adam, adamw, lion, noisy_sgd, sgd, sign_sgd

from causal_sgd import checks
from causal_sgd.training import optimizers
from causal_sgd.training.optimizers import langevin
from causal_sgd.types import Array

__all__ = [
    "adam",
    "adamw",
    "chain",
    "langevin",
    "lion",
    "noisy_sgd",
    "scaled",
    "scheduled",
    "sgd",
    "sgdw",
    "sign_sgd",
    "with_options",
]


def sgdw(
    learning_rate: optax.ScalarOrSchedule, *, weight_decay: float | Array
) -> optax.GradientTransformation:
    """SGD with decoupled weight decay.

    Args:
        learning_rate: a number or a schedule.
        weight_decay: at least 0; may be traced.
    """
    return optax.chain(optax.add_decayed_weights(weight_decay), optax.sgd(learning_rate))


def scaled(
    learning_rate: optax.ScalarOrSchedule, *, damping: float | Array
) -> optax.GradientTransformation:
    """SGD whose gradients are preconditioned by the factors' Gram matrices.

    Args:
        learning_rate: a number or a schedule.
        damping: at least 0; may be traced.
    """
    return optax.chain(optimizers.scaled(damping=damping), optax.sgd(learning_rate))


def scheduled(
    learning_rate: float | Array, schedule: optax.Schedule | None, accumulate: int | Array
) -> optax.ScalarOrSchedule:
    """The learning rate: a number, or a function of the number of updates.

    Args:
        learning_rate: above 0; may be traced.
        schedule: the factor of the learning rate by the number of steps; None for 1.
        accumulate: the steps in an update; may be traced.
    """
    checks.number("learning_rate", learning_rate, above=0)
    if schedule is None:
        return learning_rate
    # Of whole numbers, optax makes factors in single precision, with x64 too.
    return lambda update: learning_rate * schedule(jnp.asarray(update * accumulate, float))


def with_options(
    optimizer: optax.GradientTransformation,
    *,
    accumulate: int | Array,
    clip_norm: float | Array | None,
    sam_radius: float | Array | None,
) -> optax.GradientTransformation:
    """An optimizer with clipped and accumulated gradients and sharpness-aware steps.

    Args:
        optimizer: the one that makes the update.
        accumulate: batches whose mean gradient makes one update.
        clip_norm: the largest norm of a gradient; None for no limit.
        sam_radius: radius of the sharpness-aware step; None for a plain step.
    """
    checks.number("accumulate", accumulate, minimum=1)
    if clip_norm is not None:
        checks.number("clip_norm", clip_norm, above=0)
        optimizer = optax.chain(optax.clip_by_global_norm(clip_norm), optimizer)
    if checks.concrete(accumulate) != 1:
        steps = optax.MultiSteps(optimizer, lambda update: accumulate)
        # As it is returned, it would drop the key of optimizers that draw.
        optimizer = optax.GradientTransformationExtraArgs(*steps.gradient_transformation())
    if sam_radius is not None:
        checks.number("sam_radius", sam_radius, minimum=0)
        optimizer = optimizers.sam(optimizer, radius=sam_radius)
    return optimizer


def chain(
    optimizer: optax.GradientTransformation, average: optax.GradientTransformation | None
) -> optax.GradientTransformation:
    """An optimizer that also keeps an average of the iterates, if there is one."""
    return optimizer if average is None else optax.chain(optimizer, average)
