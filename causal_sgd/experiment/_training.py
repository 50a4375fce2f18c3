"""How the parameters are updated: optimizer, schedule and average of the iterates."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from types import ModuleType
from typing import TYPE_CHECKING, Literal, cast

from causal_sgd.experiment._fields import Axis
from causal_sgd.experiment._table import Computed, Option, Parts, Table, one_of, option

if TYPE_CHECKING:
    import optax

    from causal_sgd.types import Params

__all__ = [
    "AVERAGES",
    "OPTIMIZERS",
    "SCHEDULES",
    "STEP_FIELDS",
    "TrainingFields",
    "average_of",
    "averaging",
    "evaluation",
    "stepping",
]

WARM_UP = 0.1  # share of a run


def _optimizers() -> ModuleType:
    from causal_sgd.experiment import _optimizers

    return _optimizers


def _schedules() -> ModuleType:
    import optax

    return optax


def _averages() -> ModuleType:
    from causal_sgd.training import optimizers

    return optimizers


def _rate(experiment: TrainingFields, parts: Parts) -> object:
    from causal_sgd.experiment import _optimizers

    schedule = cast("optax.Schedule | None", parts["schedule"])
    return _optimizers.scheduled(experiment.learning_rate, schedule, experiment.accumulate)


def stepping(experiment: TrainingFields, parts: Parts) -> optax.GradientTransformation:
    """The optimizer of single steps."""
    from causal_sgd.experiment import _optimizers

    return _optimizers.with_options(
        cast("optax.GradientTransformation", parts["optimizer"]),
        accumulate=experiment.accumulate,
        clip_norm=experiment.clip_norm,
        sam_radius=experiment.sam_radius,
    )


def average_of(parts: Parts) -> optax.GradientTransformation | None:
    """The average of the iterates, where there is one."""
    return cast("optax.GradientTransformation | None", parts["average"])


def averaging(experiment: TrainingFields, parts: Parts) -> optax.GradientTransformation:
    """The optimizer of single steps, with the average of the iterates."""
    from causal_sgd.experiment import _optimizers

    return _optimizers.chain(stepping(experiment, parts), average_of(parts))


def evaluation(
    experiment: TrainingFields, parts: Parts
) -> Callable[[optax.OptState, Params], Params] | None:
    """What reads the average from the optimizer's state, where there is one."""
    from causal_sgd.training import optimizers

    return None if average_of(parts) is None else optimizers.averaged


def _fixed(value: object) -> Computed:
    return Computed(lambda experiment, parts: value)


STEP_FIELDS = ("accumulate", "clip_norm", "sam_radius")
"""The fields that `stepping` and `averaging` read."""
RATE = Computed(_rate, ("learning_rate",))

OPTIMIZERS = Table(
    "optimizer",
    "optimizer",
    _optimizers,
    {
        "sgd": option(learning_rate=RATE, curve=True),
        "momentum": option("momentum", factory="sgd", learning_rate=RATE, curve=True),
        "nesterov": option(
            "momentum", factory="sgd", learning_rate=RATE, nesterov=_fixed(True), curve=True
        ),
        "sgdw": option("weight_decay", learning_rate=RATE),
        "adam": option(learning_rate=RATE),
        "adamw": option("weight_decay", learning_rate=RATE),
        "lion": option("weight_decay", learning_rate=RATE),
        "sign": option(factory="sign_sgd", learning_rate=RATE),
        "noisy-sgd": option(learning_rate=RATE),
        "langevin": option("temperature", learning_rate=RATE),
        "scaled": option(
            "damping",
            learning_rate=RATE,
            requires=(
                one_of(
                    "model",
                    ("factored", "asymmetric", "diagonal", "order-parameters"),
                    "it preconditions the factors of a matrix",
                ),
            ),
        ),
    },
)

SCHEDULES = Table(
    "schedule",
    "schedule",
    _schedules,
    {
        "constant": Option(None, curve=True),
        "linear": option(
            factory="linear_schedule",
            init_value=_fixed(1.0),
            end_value=_fixed(0.0),
            transition_steps="steps",
        ),
        "cosine": option(
            factory="cosine_decay_schedule", init_value=_fixed(1.0), decay_steps="steps"
        ),
        "warm-up": option(
            factory="linear_schedule",
            init_value=_fixed(0.0),
            end_value=_fixed(1.0),
            transition_steps=Computed(
                lambda experiment, parts: max(1, round(WARM_UP * experiment.steps)), ("steps",)
            ),
        ),
    },
)

AVERAGES = Table(
    "average",
    "average",
    _averages,
    {
        "none": Option(None, curve=True),
        "moving": option(factory="moving_average", decay="average_decay", curve=True),
        "tail": option(factory="tail_average", start="average_start", curve=True),
    },
)

if TYPE_CHECKING:
    OptimizerName = ScheduleName = AverageName = str
else:
    OptimizerName = Literal[tuple(OPTIMIZERS.options)]
    ScheduleName = Literal[tuple(SCHEDULES.options)]
    AverageName = Literal[tuple(AVERAGES.options)]


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingFields:
    """The optimizer and its numbers."""

    optimizer: OptimizerName = "sgd"
    """Optimizer of the steps, or of the local steps; sgdw is sgd with weight decay, scaled is
    ScaledGD, sgd preconditioned by the factors' Gram matrices (U U' and U V'), and langevin adds
    Gaussian noise to every step, drawn anew in every run."""
    learning_rate: Axis[float] = 0.1
    """Step size for the loss sum r^2/(4m) of a batch."""
    momentum: Axis[float] = 0.9
    """Decay of the velocity (momentum, nesterov)."""
    weight_decay: Axis[float] = 1e-4
    """Decoupled weight decay (sgdw, adamw, lion)."""
    damping: Axis[float] = 1.0
    """What is added to the Gram matrices' eigenvalues (scaled)."""
    temperature: Axis[float] = 1e-4
    """Temperature of the noise: exp(-loss / temperature) is stationary (langevin)."""
    schedule: ScheduleName = "constant"
    """Schedule of the learning rate: linear or cosine (both to zero at the end), warm-up (over the
    first tenth)."""
    accumulate: Axis[int] = 1
    """Batches whose mean gradient makes one update."""
    clip_norm: Axis[float | None] = None
    """Largest norm of a gradient, to which larger ones are scaled down; no limit by default."""
    sam_radius: Axis[float | None] = None
    """Radius of sharpness-aware steps, which use the batch twice and so need a measurement whose
    draws do not depend on the parameters (not gaussian-law, low-rank-law and batch-directions);
    plain steps by default."""
    average: AverageName = "none"
    """Average of the iterates that is measured in place of the last: moving (exponential) or tail
    (all after average-start)."""
    average_decay: Axis[float] = 0.99
    """Decay of the moving average."""
    average_start: Axis[int] = 0
    """Steps that the tail average leaves out."""
