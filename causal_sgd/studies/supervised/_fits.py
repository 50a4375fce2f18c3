"""Several estimators on one data set as one estimator, so that each fits once in a run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple, cast

if TYPE_CHECKING:
    from causal_sgd.supervised._moments import MomentData
    from causal_sgd.supervised.worlds import SupervisedWorld
    from causal_sgd.types import Array, Estimator, Fit

__all__ = ["Fits", "joined"]


class Fits(NamedTuple):
    """The fits of several estimators; as one fit, that of the first."""

    estimate: Array  # [p]
    intercept: Array | float  # []
    named: dict[str, Fit]


def joined(estimators: Mapping[str, Estimator]) -> Estimator:
    """One estimator whose fit is that of all. Metrics find it in `snapshot.params.named`."""

    def estimator(data: MomentData, world: SupervisedWorld) -> Fits:
        named = {name: each(data, world) for name, each in estimators.items()}
        first = next(iter(named.values()))
        return Fits(first.estimate, first.intercept, named)

    return cast("Estimator", estimator)
