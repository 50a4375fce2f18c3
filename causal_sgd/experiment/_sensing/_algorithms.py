"""The training methods: SGD, and rounds of local steps."""

from __future__ import annotations

import dataclasses
from types import ModuleType
from typing import TYPE_CHECKING, Literal, cast

from causal_sgd import checks
from causal_sgd.experiment._fields import Axis
from causal_sgd.experiment._table import Computed, Option, Parts, Source, Table, only, option, part
from causal_sgd.experiment._training import (
    STEP_FIELDS,
    average_of,
    averaging,
    evaluation,
    stepping,
)

if TYPE_CHECKING:
    from causal_sgd.sensing.worlds import WorldFactory

__all__ = ["ALGORITHMS", "AlgorithmFields"]


def _algorithms() -> ModuleType:
    from causal_sgd.training import algorithms

    return algorithms


def _server(experiment: AlgorithmFields, parts: Parts) -> object:
    from causal_sgd.experiment import _optimizers

    rate = checks.number("server_learning_rate", experiment.server_learning_rate, above=0)
    return _optimizers.chain(_optimizers.sgd(rate), average_of(parts))


def _world(experiment: AlgorithmFields, parts: Parts) -> object:
    from causal_sgd.sensing import models, worlds

    world = cast("WorldFactory", parts["world"])
    model = parts["model"]
    if not isinstance(model, models.ReducedModel):
        return world
    return worlds.reduced(world, rows=model.rows)


PARTS: dict[str, str | Source] = {
    "world": Computed(_world),
    "sampler": part("sampler"),
    "measurement": part("measurement"),
    "model": part("model"),
    "evaluate": Computed(evaluation),
    "evolve": part("evolve"),
}


def _rounds(*fields: str) -> Option:
    """A row of an algorithm whose steps are rounds of local steps."""
    return option(
        PARTS,
        "local_steps",
        *fields,
        weights="client_weights",
        optimizer=Computed(stepping, STEP_FIELDS),
        server=Computed(_server, ("server_learning_rate",)),
        requires=(only("schedule", "constant", "local steps start anew in every round"),),
    )


ALGORITHMS = Table(
    "algorithm",
    "algorithm",
    _algorithms,
    {
        "sgd": option(PARTS, optimizer=Computed(averaging, STEP_FIELDS), curve=True),
        "fedavg": _rounds(),
        "fedprox": _rounds("proximal"),
        "scaffold": _rounds(),
    },
)

if TYPE_CHECKING:
    AlgorithmName = str
else:
    AlgorithmName = Literal[tuple(ALGORITHMS.options)]


@dataclasses.dataclass(frozen=True, kw_only=True)
class AlgorithmFields:
    """The method and its numbers."""

    algorithm: AlgorithmName = "sgd"
    """sgd (one batch a step), or rounds of local steps in every environment of the batch, whose end
    points are averaged: fedavg, fedprox (with a proximal term), scaffold (with control
    variates)."""
    local_steps: Axis[int] = 5
    """Local steps in every environment of a round (fedavg, fedprox, scaffold)."""
    proximal: Axis[float] = 1.0
    """Strength of the proximal term (fedprox)."""
    server_learning_rate: Axis[float] = 1.0
    """Step size of the server along the mean change of a round; 1 takes the mean itself."""
    client_weights: Literal["examples", "probabilities"] = "examples"
    """Weights of the mean of a round: examples in each environment, or probabilities of the
    environments."""
