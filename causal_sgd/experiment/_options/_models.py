"""What is trained."""

from __future__ import annotations

import dataclasses
from types import ModuleType
from typing import TYPE_CHECKING, Literal

from causal_sgd.experiment._options._table import (
    Axis,
    Computed,
    Table,
    absent,
    excluded,
    only,
    option,
    zero,
)

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
# The dimension of a world from a file is that of its arrays.
DIM = Computed(lambda experiment, parts: parts["dim"], ("dim",))


def _module() -> ModuleType:
    from causal_sgd.sensing import models

    return models


MODELS = Table(
    "model",
    "model",
    _module,
    {
        "factored": option("rank", "init", "init_scale", dim=DIM, curve=True),
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
    """What is trained: factored (U U'), diagonal (diag(u)^2: equal to factored under population
    gradients in the canonical basis, at a cost of d a step), signed-diagonal (diag(u^2 - v^2)),
    asymmetric (U V'), deep (a product of depth matrices), quadratic or relu (two-layer
    networks)."""
    rank: int | None = None
    """Columns k of the factors (factored, asymmetric); d by default."""
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
