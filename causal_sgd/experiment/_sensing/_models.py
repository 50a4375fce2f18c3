"""What is trained."""

from __future__ import annotations

import dataclasses
from types import ModuleType
from typing import TYPE_CHECKING, Literal

from causal_sgd import checks
from causal_sgd.experiment._fields import Axis
from causal_sgd.experiment._table import (
    Computed,
    Parts,
    Table,
    absent,
    excluded,
    given,
    one_of,
    only,
    option,
    zero,
)

if TYPE_CHECKING:
    from causal_sgd.experiment import Experiment

__all__ = ["MODELS", "ModelFields"]

COORDINATES = "it has no directions but the coordinates"
DIAGONAL = (
    only("basis", "canonical", COORDINATES),
    zero("tilt", COORDINATES),
    zero("rotation", COORDINATES),
    excluded("family", "goe", COORDINATES),
    excluded("evolution", "rotate", COORDINATES),
    absent("world_file", COORDINATES),
    absent("rank", "its parameters are vectors of length dim"),
    absent("init", "its parameters are vectors of length dim"),
)
REDUCED = (
    one_of(
        "measurement",
        ("order-parameter-law", "order-parameter-limit", "population"),
        "the others are laws of all d rows",
    ),
    given("rank", "the chain is that of a factor with few columns"),
    absent("init", "its start is gaussian"),
    one_of(
        "optimizer",
        ("sgd", "momentum", "nesterov", "sgdw", "scaled"),
        "the others act on single entries of the factor, which the chain does not hold",
    ),
    only("algorithm", "sgd", "the ends of several clients span more directions"),
    excluded("evolution", "rotate", "its coordinates are taken along fixed directions"),
)
# The dimension of a world from a file is that of its arrays.
DIM = Computed(lambda experiment, parts: parts["dim"], ("dim",))


def _slots(experiment: Experiment, parts: Parts) -> int:
    """The arrays of the factor's shape that a step carries: itself and the optimizer's buffers."""
    momentum = experiment.optimizer in ("momentum", "nesterov")
    accumulated = checks.concrete(experiment.accumulate) != 1
    return 1 + momentum + accumulated + (experiment.average != "none")


def _module() -> ModuleType:
    from causal_sgd.sensing import models

    return models


MODELS = Table(
    "model",
    "model",
    _module,
    {
        "factored": option("rank", "init", "init_scale", dim=DIM, curve=True),
        "order-parameters": option(
            "rank",
            "init_scale",
            dim=DIM,
            frame=Computed(lambda experiment, parts: parts["frame"]),
            slots=Computed(_slots),
            requires=REDUCED,
            curve=True,
        ),
        "diagonal": option("init_scale", dim=DIM, requires=DIAGONAL, curve=True),
        "signed-diagonal": option("init_scale", dim=DIM, requires=DIAGONAL),
        "asymmetric": option("rank", "init", "init_scale", dim=DIM),
        "deep": option("depth", "init", "init_scale", dim=DIM),
        "quadratic": option(
            "neurons", "init_scale", dim=DIM, negative="negative_neurons", curve=True
        ),
        "relu": option(
            "neurons",
            "trained_layers",
            "init_scale",
            dim=DIM,
            requires=(
                only("measurement", "examples", "its predictions are not linear in a matrix"),
            ),
        ),
    },
)

if TYPE_CHECKING:
    ModelName = str
else:
    ModelName = Literal[tuple(MODELS.options)]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelFields:
    """The model and its numbers."""

    model: ModelName = "factored"
    """What is trained: factored (U U'), order-parameters (factored with few columns by its order
    parameters, for any dim), diagonal (diag(u)^2: equal to factored under population
    gradients in the canonical basis, at a cost of d a step), signed-diagonal (diag(u^2 - v^2)),
    asymmetric (U V'), deep (a product of depth matrices), quadratic or relu (two-layer
    networks)."""
    rank: int | None = None
    """Columns k of the factors (factored, asymmetric, order-parameters); d by default."""
    depth: int = 3
    """Number of factors (deep)."""
    neurons: int | None = None
    """Number of neurons. Default: 2 dim (quadratic), 32 (relu)."""
    negative_neurons: int | None = None
    """Neurons with a negative output weight (quadratic); half of them by default."""
    trained_layers: Literal["both", "first"] = "both"
    """Layers that are trained (relu)."""
    init_scale: Axis[float] = 1e-3
    """Scale alpha of the initial parameters."""
    init: Literal["identity", "gaussian"] | None = None
    """Initial factors (factored, asymmetric, deep); identity, which needs k = d, where possible by
    default."""
