"""What a method adds to the gradient of a loss: objectives of several risks, and one-step fits."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

from causal_sgd.types._parts import (
    AnyModel,
    Array,
    Batch,
    Choice,
    Params,
    PyTree,
    RiskFunction,
    State,
)

__all__ = ["Estimator", "Fit", "Measured", "Objective"]


class Measured(Protocol):
    """The examples of one step, as an objective sees them."""

    @property
    def model(self) -> AnyModel:
        """What is trained."""
        ...

    @property
    def batch(self) -> Batch:
        """Environments and counts [B]."""
        ...

    @property
    def shares(self) -> Array:
        """The share of each environment in the examples, [B]; sums to one."""
        ...

    def measure(self, params: Params) -> tuple[Params, Array]:
        """The gradient and the value [] of the mean loss, weighted by the shares."""
        ...

    def risks(self) -> RiskFunction:
        """(params, scale) -> the losses [B] of the environments.

        Where what is drawn depends on params (`types.Risks.directions`), every call draws for its
        own params. The losses can then be differentiated once with respect to params, and any
        number of times with respect to scale and shift, in any order.

        Raises:
            ValueError: if the measurement has no risks on a batch.
        """
        ...

    def hessian_products(self, params: Params, choose: Choice) -> tuple[Array, Params, Params]:
        """The losses [B], their gradients, and sum_b H_b d_b with their Hessians H_b.

        This is the gradient of sum_b <gradient_b, d_b> with d held fixed: all that an objective of
        the gradients (IGA) needs, also where what is drawn depends on params.

        Args:
            params: of the model.
            choose: (losses, gradients) -> d; both are params with a leading axis [B]. A weight of
                the environments is part of d.

        Raises:
            ValueError: if the measurement has no such risks.
        """
        ...

    @property
    def squared(self) -> bool:
        """Whether the losses are mean squared residuals over 4; static."""
        ...

    def mean_squares(self) -> Callable[[Params], Array]:
        """Params -> the mean squared prediction in every environment, [B].

        Raises:
            ValueError: if the measurement does not know it.
        """
        ...

    def halves(self) -> tuple[RiskFunction, RiskFunction]:
        """The losses [B] on two independent halves of the batch.

        Raises:
            ValueError: if the measurement does not draw fresh examples.
        """
        ...

    def shifted_risks(self) -> RiskFunction:
        """`risks`, whose functions also take `shift`, a number added to the prediction.

        Raises:
            ValueError: if the measurement's losses take none.
        """
        ...

    def normals(self, count: int) -> Array:
        """Standard normal numbers [count] of this step for the objective's own draws."""
        ...

    def features(self) -> Callable[[Params], tuple[Array, Array]]:
        """Params -> means [B, k] and covariances [B, k, k] of the model's features.

        Raises:
            ValueError: if the measurement does not know them.
        """
        ...

    def variances(self) -> Callable[[Params], Params]:
        """Params -> the variances of single examples' gradients, params with a leading axis [B].

        Raises:
            ValueError: if the measurement does not know them.
        """
        ...


class Objective(NamedTuple):
    """What is minimised: the losses of the environments, combined.

    Attributes:
        init: (how often each environment occurs [E], params) -> state.
        gradient: (step, state, examples, params) -> (gradient with respect to params, the value [],
            state). The same arguments give the same result.
    """

    init: Callable[[Array, Params], State]
    gradient: Callable[[Array, State, Measured, Params], tuple[Params, Array, State]]


class Fit(NamedTuple):
    """The parameters of a run whose method is an estimator in closed form or a search."""

    estimate: Array  # [p]
    support: Array  # [p] bool, the chosen inputs, in the coordinates of the data
    low: Array  # [p] lower end of the confidence interval; NaN where the method has none
    high: Array  # [p] upper end
    accepted: Array  # [] int32, the number of sets that a test accepted; -1 where none is tested
    intercept: Array | float = 0.0  # [] b of the prediction x'w + b


Estimator = Callable[[PyTree, PyTree], Fit]
"""(The measurement's data, the world) -> a fit; only an oracle reads the world."""
