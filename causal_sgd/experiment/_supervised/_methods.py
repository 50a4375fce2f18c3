"""The methods: objectives that are minimised step by step, and estimators that fit in one."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from types import ModuleType
from typing import TYPE_CHECKING, Literal

from causal_sgd.experiment._fields import Axis
from causal_sgd.experiment._table import (
    Computed,
    Option,
    Requirement,
    Source,
    Table,
    one_of,
    only,
    option,
    part,
)
from causal_sgd.experiment._training import STEP_FIELDS, averaging, evaluation

__all__ = ["ALGORITHMS", "ESTIMATORS", "METHODS", "MethodFields"]


def _objectives() -> ModuleType:
    from causal_sgd.training import objectives

    return objectives


def _estimators() -> ModuleType:
    from causal_sgd.supervised import estimators

    return estimators


def _algorithms() -> ModuleType:
    from causal_sgd.training import algorithms

    return algorithms


SEVERAL = one_of(
    "sampler",
    ("stratified", "pooled", "mixed"),
    "it compares the environments of a batch",
)
FIT = (
    only("measurement", "moments", "it fits the moments of all environments"),
    only("evolution", "none", "it fits once"),
)


def _objective(
    *fields: str | Mapping[str, str | Source], requires: tuple[Requirement, ...] = ()
) -> Option:
    """A row of an objective with two weights."""
    return option("weight", "risk_weight", *fields, requires=requires)


def _estimator(*fields: str | Mapping[str, str | Source], factory: str | None = None) -> Option:
    """A row of an estimator."""
    return option(*fields, factory=factory, requires=FIT, module=_estimators)


METHODS = Table(
    "method",
    "method",
    _objectives,
    {
        "erm": option(factory="mean", curve=True),
        "vrex": _objective(requires=(SEVERAL,)),
        "pooled": _estimator(),
    },
)
ESTIMATORS = tuple(name for name, row in METHODS.options.items() if row.module is _estimators)
"""The methods that fit in one step, without a model, a sampler and an optimizer."""

DATA: dict[str, str | Source] = {"world": part("world"), "measurement": part("measurement")}
TRAINED: dict[str, str | Source] = DATA | {
    "sampler": part("sampler"),
    "model": part("model"),
    "optimizer": Computed(averaging, STEP_FIELDS),
    "evaluate": Computed(evaluation),
    "evolve": part("evolve"),
}


def _algorithm(name: str) -> Option:
    """The row of the algorithm that a method needs."""
    if name in ESTIMATORS:
        return option(DATA, factory="fitted", estimator=part("method"))
    if name == "erm":
        return option(TRAINED, factory="sgd", curve=True)
    return option(TRAINED, factory="penalised", objective=part("method"))


ALGORITHMS = Table(
    "method", "algorithm", _algorithms, {name: _algorithm(name) for name in METHODS.options}
)

if TYPE_CHECKING:
    MethodName = str
else:
    MethodName = Literal[tuple(METHODS.options)]


@dataclasses.dataclass(frozen=True, kw_only=True)
class MethodFields:
    """The method and its numbers."""

    method: MethodName = "erm"
    """What finds the predictor. Step by step: erm (the mean loss; HeteroSGD with the sampler
    hetero), vrex. In one step, without a model, a sampler and an optimizer: pooled (least
    squares)."""
    weight: Axis[float] = 1.0
    """Weight of the penalty, for losses that are mean squared residuals over 4 (vrex)."""
    risk_weight: Axis[float] = 1.0
    """Weight of the mean loss beside the penalty."""
