"""How the parameters are updated: algorithm, optimizer, schedule and average of the iterates."""

from __future__ import annotations

import dataclasses
from types import ModuleType
from typing import TYPE_CHECKING, Literal, cast

from causal_sgd import checks
from causal_sgd.experiment._options._table import (
    Axis,
    Computed,
    Option,
    Parts,
    Source,
    Table,
    only,
    option,
    part,
)

if TYPE_CHECKING:
    import optax

__all__ = ["ALGORITHMS", "AVERAGES", "OPTIMIZERS", "SCHEDULES", "TrainingFields"]

WARM_UP = 0.1  # share of a run


def _algorithms() -> ModuleType:
    from causal_sgd.training import algorithms

    return algorithms


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


def _optimizer(experiment: TrainingFields, parts: Parts) -> optax.GradientTransformation:
    from causal_sgd.experiment import _optimizers

    return _optimizers.with_options(
        cast("optax.GradientTransformation", parts["optimizer"]),
        accumulate=experiment.accumulate,
        clip_norm=experiment.clip_norm,
        sam_radius=experiment.sam_radius,
    )


def _average(parts: Parts) -> optax.GradientTransformation | None:
    return cast("optax.GradientTransformation | None", parts["average"])


def _averaged(experiment: TrainingFields, parts: Parts) -> object:
    from causal_sgd.experiment import _optimizers

    return _optimizers.chain(_optimizer(experiment, parts), _average(parts))


def _server(experiment: TrainingFields, parts: Parts) -> object:
    from causal_sgd.experiment import _optimizers

    rate = checks.number("server_learning_rate", experiment.server_learning_rate, above=0)
    return _optimizers.chain(_optimizers.sgd(rate), _average(parts))


def _evaluate(experiment: TrainingFields, parts: Parts) -> object:
    from causal_sgd.training import optimizers

    return None if _average(parts) is None else optimizers.averaged


def _fixed(value: object) -> Computed:
    return Computed(lambda experiment, parts: value)


STEP_FIELDS = ("accumulate", "clip_norm", "sam_radius")


def _world(experiment: TrainingFields, parts: Parts) -> object:
    from causal_sgd.sensing import models, worlds

    world = cast("worlds.WorldFactory", parts["world"])
    model = parts["model"]
    if not isinstance(model, models.ReducedModel):
        return world
    return worlds.reduced(world, rows=model.rows)


PARTS: dict[str, str | Source] = {
    "world": Computed(_world),
    "sampler": part("sampler"),
    "measurement": part("measurement"),
    "model": part("model"),
    "evaluate": Computed(_evaluate),
    "evolve": part("evolve"),
}
RATE = Computed(_rate, ("learning_rate",))


def _rounds(*fields: str) -> Option:
    """A row of an algorithm whose steps are rounds of local steps."""
    return option(
        PARTS,
        "local_steps",
        *fields,
        weights="client_weights",
        optimizer=Computed(_optimizer, STEP_FIELDS),
        server=Computed(_server, ("server_learning_rate",)),
        requires=(only("schedule", "constant", "local steps start anew in every round"),),
    )


ALGORITHMS = Table(
    "algorithm",
    "algorithm",
    _algorithms,
    {
        "sgd": option(PARTS, optimizer=Computed(_averaged, STEP_FIELDS), curve=True),
        "fedavg": _rounds(),
        "fedprox": _rounds("proximal"),
        "scaffold": _rounds(),
    },
)

OPTIMIZERS = Table(
    "optimizer",
    "optimizer",
    _optimizers,
    {
        "sgd": option(learning_rate=RATE, curve=True),
        "momentum": option("momentum", factory="sgd", learning_rate=RATE),
        "nesterov": option("momentum", factory="sgd", learning_rate=RATE, nesterov=_fixed(True)),
        "sgdw": option("weight_decay", learning_rate=RATE),
        "adam": option(learning_rate=RATE),
        "adamw": option("weight_decay", learning_rate=RATE),
        "lion": option("weight_decay", learning_rate=RATE),
        "sign": option(factory="sign_sgd", learning_rate=RATE),
        "noisy-sgd": option(learning_rate=RATE),
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
    AlgorithmName = OptimizerName = ScheduleName = AverageName = str
else:
    AlgorithmName = Literal[tuple(ALGORITHMS.options)]
    OptimizerName = Literal[tuple(OPTIMIZERS.options)]
    ScheduleName = Literal[tuple(SCHEDULES.options)]
    AverageName = Literal[tuple(AVERAGES.options)]


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingFields:
    """Algorithm, optimizer and their numbers."""

    algorithm: AlgorithmName = "sgd"
    """sgd (one batch a step), or rounds of local steps in every environment of the batch, whose end
    points are averaged: fedavg, fedprox (with a proximal term), scaffold (with control
    variates)."""
    optimizer: OptimizerName = "sgd"
    """Optimizer of the steps, or of the local steps; sgdw is sgd with weight decay."""
    learning_rate: Axis[float] = 0.1
    """Step size of the optimizer."""
    momentum: Axis[float] = 0.9
    """Decay of the velocity (momentum, nesterov)."""
    weight_decay: Axis[float] = 1e-4
    """Decoupled weight decay (sgdw, adamw, lion)."""
    schedule: ScheduleName = "constant"
    """Schedule of the learning rate: linear or cosine (both to zero at the end), warm-up (over the
    first tenth)."""
    accumulate: Axis[int] = 1
    """Batches whose mean gradient makes one update."""
    clip_norm: Axis[float | None] = None
    """Largest norm of a gradient, to which larger ones are scaled down; no limit by default."""
    sam_radius: Axis[float | None] = None
    """Radius of sharpness-aware steps, which use the batch twice and therefore need a measurement
    other than gaussian-law and low-rank-law; plain steps by default."""
    average: AverageName = "none"
    """Average of the iterates that is measured in place of the last: moving (exponential) or tail
    (all after average-start)."""
    average_decay: Axis[float] = 0.99
    """Decay of the moving average."""
    average_start: Axis[int] = 0
    """Steps that the tail average leaves out."""
    local_steps: Axis[int] = 5
    """Local steps in every environment of a round (fedavg, fedprox, scaffold)."""
    proximal: Axis[float] = 1.0
    """Strength of the proximal term (fedprox)."""
    server_learning_rate: Axis[float] = 1.0
    """Step size of the server along the mean change of a round; 1 takes the mean itself."""
    client_weights: Literal["examples", "probabilities"] = "examples"
    """Weights of the mean of a round: examples in each environment, or probabilities of the
    environments."""
