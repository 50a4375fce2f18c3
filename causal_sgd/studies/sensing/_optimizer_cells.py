"""The cells of the study of optimisers: one program for all methods that differ in numbers only."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import optax
    from jax.typing import ArrayLike

    from causal_sgd.studies._cells import Cell
    from causal_sgd.types import Array, Key, Params, Trace

__all__ = [
    "EVERY",
    "MEAN",
    "METHODS",
    "NORMALISED",
    "PLAIN",
    "STEPS",
    "Method",
    "optimizer_cell",
]

MEAN, STEPS, EVERY = 1.0, 2000, 20
NORMALISED = ("sign", "lion", "adam")
"""The programs with normalised updates; the others are "linear" and "nesterov"."""

PLAIN = {
    "momentum": 0.0,
    "decay": 0.0,
    "bound": 1e9,
    "radius": 0.0,
    "average": 0.0,
    "cosine": 0.0,
    "warm": 1.0,
}


class Method(NamedTuple):
    """A program, and the numbers that differ from the plain ones."""

    program: str
    numbers: dict[str, float]


METHODS = {
    "SGD": Method("linear", {}),
    "momentum 0.5": Method("linear", {"momentum": 0.5}),
    "momentum 0.9": Method("linear", {"momentum": 0.9}),
    "Nesterov 0.9": Method("nesterov", {"momentum": 0.9}),
    "weight decay 0.3": Method("linear", {"decay": 0.3}),
    "clipping at 0.3": Method("linear", {"bound": 0.3}),
    "average over 100": Method("linear", {"average": 0.99}),
    "warm-up": Method("linear", {"warm": 0.2 * STEPS}),
    "cosine decay": Method("linear", {"cosine": 1.0}),
    "SAM, radius 0.05": Method("linear", {"radius": 0.05}),
    "sign": Method("sign", {}),
    "Lion": Method("lion", {}),
    "Adam": Method("adam", {}),
    "AdamW, decay 0.3": Method("adam", {"decay": 0.3}),
}


def optimizer_cell(program: str) -> Cell:
    """The cell of a program, whose parameters are the numbers in which its methods differ."""
    return _normalised(program) if program in NORMALISED else _linear(program == "nesterov")


def _linear(nesterov: bool) -> Cell:
    import jax.numpy as jnp
    import optax

    from causal_sgd.training import optimizers

    def cell(
        key: Key,
        *,
        spread: Array,
        learning_rate: Array,
        init_scale: Array,
        momentum: Array,
        decay: Array,
        bound: Array,
        radius: Array,
        average: Array,
        cosine: Array,
        warm: Array,
    ) -> Trace:
        def schedule(update: ArrayLike) -> Array:
            shape = 1 - cosine + cosine * optax.cosine_decay_schedule(1.0, STEPS)(update)
            return learning_rate * (1 - momentum) * shape * jnp.minimum((update + 1) / warm, 1)

        stepper = optax.chain(
            optax.clip_by_global_norm(bound),
            optax.add_decayed_weights(decay),
            optax.sgd(schedule, momentum=momentum, nesterov=nesterov),
        )
        optimizer = optax.chain(
            optimizers.sam(stepper, radius=radius), optimizers.moving_average(decay=average)
        )
        return _train(key, spread, init_scale, optimizer, optimizers.averaged)

    return cell


def _normalised(program: str) -> Cell:
    import optax

    def cell(
        key: Key,
        *,
        spread: Array,
        learning_rate: Array,
        init_scale: Array,
        decay: float | Array = 0.0,
    ) -> Trace:
        optimizer = {
            "sign": lambda: optax.sign_sgd(learning_rate),
            "lion": lambda: optax.lion(learning_rate, weight_decay=decay),
            "adam": lambda: optax.adamw(learning_rate, weight_decay=decay),
        }[program]()
        return _train(key, spread, init_scale, optimizer)

    return cell


def _train(
    key: Key,
    spread: Array,
    init_scale: Array,
    optimizer: optax.GradientTransformation,
    evaluate: Callable[[optax.OptState, Params], Params] | None = None,
) -> Trace:
    from causal_sgd.sensing import measurements, metrics, models, worlds
    from causal_sgd.training import run, samplers, sgd

    algorithm = sgd(
        world=worlds.two_point(
            dim=2, invariant_rank=1, spurious_rank=1, mean=MEAN, spread=spread, basis="canonical"
        ),
        sampler=samplers.hetero(batch_size=1),
        measurement=measurements.population(),
        model=models.diagonal(dim=2, init_scale=init_scale),
        optimizer=optimizer,
        evaluate=evaluate,
    )
    recorded = [metrics.spurious_signal, metrics.invariant_signal]
    return run(key, algorithm=algorithm, metrics=recorded, num_steps=STEPS, record_every=EVERY)
