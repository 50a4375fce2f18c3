"""The training methods of an experiment, from names and numbers to algorithms and optax transformations."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from causal_sgd import checks

if TYPE_CHECKING:
    import optax

    from causal_sgd.experiment._experiment import Experiment
    from causal_sgd.types import Algorithm

__all__ = ["algorithm", "optimizer"]

WARM_UP = 0.1  # share of a run


def algorithm(experiment: Experiment, values: Mapping[str, Any], **parts: Any) -> Algorithm:
    """The algorithm that an experiment names.

    Args:
        experiment: the names.
        values: the numbers, by the names in `experiment.SWEEPABLE`; may be traced.
        **parts: world, sampler, measurement, model and what else all algorithms take.
    """
    import optax

    from causal_sgd.training import algorithms, optimizers

    averages = {
        "moving": lambda: optimizers.moving_average(decay=values["average_decay"]),
        "tail": lambda: optimizers.tail_average(start=values["average_start"]),
    }
    kept = [averages[experiment.average]()] if experiment.average != "none" else []
    parts |= {"evaluate": optimizers.averaged if kept else None}
    if experiment.algorithm == "sgd":
        return algorithms.sgd(optimizer=_chain(optimizer(experiment, values), *kept), **parts)
    rate = checks.number("server_learning_rate", values["server_learning_rate"], above=0)
    parts |= {
        "optimizer": optimizer(experiment, values),
        "server": _chain(optax.sgd(rate), *kept),
        "local_steps": values["local_steps"],
        "weights": experiment.client_weights,
    }
    if experiment.algorithm == "fedprox":
        parts["proximal"] = values["proximal"]
    return getattr(algorithms, experiment.algorithm)(**parts)


def optimizer(experiment: Experiment, values: Mapping[str, Any]) -> optax.GradientTransformation:
    """The optimizer that an experiment names: clipped, accumulated and sharpness-aware where it says so.

    Args:
        experiment: the names.
        values: the numbers; may be traced.
    """
    import optax

    from causal_sgd.training import optimizers

    batches = checks.number("accumulate", values["accumulate"], minimum=1)
    several = checks.concrete(batches) != 1
    found = _plain(experiment, values)
    if values["clip_norm"] is not None:
        bound = checks.number("clip_norm", values["clip_norm"], above=0)
        found = optax.chain(optax.clip_by_global_norm(bound), found)
    if several:
        found = optax.MultiSteps(found, lambda update: batches).gradient_transformation()
    if values["sam_radius"] is not None:
        found = optimizers.sam(found, radius=values["sam_radius"])
    return found


def _plain(experiment: Experiment, values: Mapping[str, Any]) -> optax.GradientTransformation:
    import optax

    checks.number("learning_rate", values["learning_rate"], above=0)
    rate = _scheduled(experiment, values)
    momentum = checks.number("momentum", values["momentum"], minimum=0, maximum=1)
    decay = checks.number("weight_decay", values["weight_decay"], minimum=0)
    match experiment.optimizer:
        case "momentum":
            return optax.sgd(rate, momentum=momentum)
        case "nesterov":
            return optax.sgd(rate, momentum=momentum, nesterov=True)
        case "sgdw":
            return optax.chain(optax.add_decayed_weights(decay), optax.sgd(rate))
        case "adam":
            return optax.adam(rate)
        case "adamw":
            return optax.adamw(rate, weight_decay=decay)
        case "lion":
            return optax.lion(rate, weight_decay=decay)
        case "sign":
            return optax.sign_sgd(rate)
        case "noisy-sgd":
            return optax.noisy_sgd(rate)
        case _:
            return optax.sgd(rate)


def _scheduled(experiment: Experiment, values: Mapping[str, Any]) -> Any:
    """The learning rate, a number or a function of the updates done."""
    import optax

    if experiment.schedule == "constant":
        return values["learning_rate"]
    share = {
        "linear": lambda: optax.linear_schedule(1.0, 0.0, experiment.steps),
        "cosine": lambda: optax.cosine_decay_schedule(1.0, experiment.steps),
        "warm-up": lambda: optax.linear_schedule(
            0.0, 1.0, max(1, round(WARM_UP * experiment.steps))
        ),
    }[experiment.schedule]()
    # The schedule is one of steps, of which an update takes several where batches accumulate.
    return lambda update: values["learning_rate"] * share(update * values["accumulate"])


def _chain(
    first: optax.GradientTransformation, *others: optax.GradientTransformation
) -> optax.GradientTransformation:
    import optax

    return optax.chain(first, *others) if others else first
