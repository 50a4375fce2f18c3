"""The nouns of a run's parts: worlds, batches, samplers, models, risks and measurements."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax

__all__ = [
    "AnyModel",
    "Array",
    "Batch",
    "Choice",
    "Evolution",
    "Key",
    "Measurement",
    "Model",
    "Params",
    "PyTree",
    "RiskFunction",
    "Risks",
    "Sampler",
    "State",
    "World",
    "WorldFactory",
]

Array = jax.Array
Key = jax.Array
PyTree = Any
"""Arrays in nested containers that jax knows; the type checker has no type for it."""
Params = PyTree
State = PyTree
AnyModel = Any
"""A `Model` of which a system may require more, so that it accepts only its own."""


@runtime_checkable
class World(Protocol):
    """One draw of nature: any pytree with these two attributes. Each system defines its own."""

    @property
    def probabilities(self) -> Array:
        """How often each environment is drawn, [E]; sums to one."""
        ...

    @property
    def estimate_shape(self) -> tuple[int, ...]:
        """The shape *S of an estimate of the signal."""
        ...


WorldFactory = Callable[[Key], World]
"""How the world of a run is drawn: a pure function of a key."""


Evolution = Callable[[Key, Array, PyTree], PyTree]
"""How the world changes before a step: (key, step, world) -> world of the same shapes.

The measurement's data are made once, from the first world, and samplers receive the probabilities
once: an evolution must leave both valid.
"""


class Batch(NamedTuple):
    """The environments that feed one step.

    B is static: with B = 1 a measurement knows at trace time that the batch is pure, which makes a
    step of HeteroSGD cheap.
    """

    environments: Array  # [B] int32, indices into the world's environments, all different
    counts: Array  # [B] int32, number of examples of each; may be zero; sums to the batch size


class Sampler(NamedTuple):
    """Which environments feed a step. The sampler *is* the experiment: nothing below sees its name.

    Attributes:
        init: (key, probabilities [E]) -> state.
        draw: (key, step, state) -> (batch, state). The environments of a batch are all different
            and its counts sum to the batch size; B is the same in every step.
        batch_size: the number of examples of every batch; may be traced.
        checked: whether all batches are known to be valid. From other samplers a few batches are
            drawn and checked before a run is compiled.
    """

    init: Callable[[Key, Array], State]
    draw: Callable[[Key, Array, State], tuple[Batch, State]]
    batch_size: int | Array
    checked: bool = False


class Model(Protocol):
    """Parameters and the estimate that they stand for. Each system defines its own models.

    A model whose `estimate` refuses, such as a network, has `check`: (params, the world's
    estimate_shape) -> None, which refuses what does not fit when a run begins.
    """

    @property
    def init(self) -> Callable[[Key], Params]:
        """Key -> initial parameters, any pytree."""
        ...

    @property
    def estimate(self) -> Callable[[Params], Array]:
        """Parameters -> array [*S], the estimate that measurements and metrics see."""
        ...

    @property
    def predict(self) -> Callable[[Params, Array], Array] | None:
        """(parameters, input) -> prediction []; None where the estimate implies it."""
        ...

    @property
    def reduce(self) -> Callable[[PyTree], PyTree] | None:
        """(Parameters, optimizer state) -> an equivalent pair, after every update; None for none.

        For parameters that stand for all that differ from them by a symmetry of the problem; such a
        model has `embed`, too, by which optimizers are tested for the symmetry.
        """
        ...

    def bound(self, params: Params) -> Array:
        """Numbers that are finite exactly where the estimate is; otherwise the run diverged."""
        ...


class RiskFunction(Protocol):
    """The losses of several environments as one differentiable function."""

    def __call__(self, params: Params, scale: float | Array = 1.0) -> Array:
        """Return the loss of each environment, [E] or [B].

        Args:
            params: of the model.
            scale: factor of the prediction, []; the dummy classifier of IRMv1, whose penalty is the
                squared derivative of the losses with respect to it at 1.
        """
        ...


Choice = Callable[[Array, Params], Params]
"""(Losses [B], their gradients) -> directions; both params with a leading axis [B]."""


class Risks(NamedTuple):
    """How a measurement turns its examples into losses that penalties and metrics differentiate.

    The mean of the losses, weighted by the shares of the environments, has the gradient that the
    measurement's `gradient` returns for these shares.

    Attributes:
        whole: (data, model, world) -> the losses of all environments, [E], over everything that
            there is: the population or the data set.
        batch: (key, step, data, model, world, batch) -> the losses of the batch's environments,
            [B], on the examples that `gradient` uses with the same arguments; the loss of an
            environment without examples is 0. None where what is drawn depends on the parameters.
        single: (data, model, world, environment []) -> the loss of one environment, [1], as `whole`
            has it but at the cost of one; None where it is taken from `whole`.
        features: the arguments of `batch` -> a function params -> (means [B, k], covariances
            [B, k, k]) of the model's features on these examples; None where there are none.
        variances: the arguments of `batch` -> a function params -> variances over the examples of
            an environment of the gradients of single examples' losses, params with a leading axis
            [B]; None where they are unknown.
        mean_squares: the arguments of `batch` -> a function params -> the mean squared prediction
            on these examples, [B]; None where it is unknown, and not needed where `squared`.
        directions: the arguments of `gradient` -> the losses [B] as a function near these params,
            where what is drawn depends on them and `batch` is None. At these params it has the
            values and the first derivatives of the losses of one batch, and at every scale and
            shift. It is of no use elsewhere and knows no second derivatives with respect to params;
            `types.Measured.risks` sees to both.
        products: the arguments of `gradient` and `choose` -> (losses [B], their gradients, sum_b
            H_b d_b) on the examples of `gradient`, with the Hessians H_b of the losses and d =
            choose(losses, gradients), directions that may depend on what was drawn. Gradients and
            directions are params with a leading axis [B]. None where `batch` is differentiated.
        each: (data, model, world) -> the losses of single examples as a function (params, scale) ->
            [E, n], and how much each counts in the mean over all of them, [E, n], sum one; None
            where no examples are kept.
        loss: (predictions, labels [...]) -> the losses of single examples, [...]; None where only
            means are known.
        shifted: whether the losses take a third argument `shift` [], added to the prediction.
        fresh: whether different keys give independent examples, so that a batch can be halved.
        squared: whether the losses are mean squared residuals over 4.
    """

    whole: Callable[[PyTree, AnyModel, PyTree], RiskFunction]
    batch: Callable[[Key, Array, PyTree, AnyModel, PyTree, Batch], RiskFunction] | None = None
    single: Callable[[PyTree, AnyModel, PyTree, Array], RiskFunction] | None = None
    features: (
        Callable[
            [Key, Array, PyTree, AnyModel, PyTree, Batch], Callable[[Params], tuple[Array, Array]]
        ]
        | None
    ) = None
    variances: (
        Callable[[Key, Array, PyTree, AnyModel, PyTree, Batch], Callable[[Params], Params]] | None
    ) = None
    mean_squares: (
        Callable[[Key, Array, PyTree, AnyModel, PyTree, Batch], Callable[[Params], Array]] | None
    ) = None
    shifted: bool = False
    fresh: bool = False
    squared: bool = True
    directions: (
        Callable[[Key, Array, PyTree, AnyModel, Params, PyTree, Batch], RiskFunction] | None
    ) = None
    products: (
        Callable[
            [Key, Array, PyTree, AnyModel, Params, PyTree, Batch, Choice],
            tuple[Array, Params, Params],
        ]
        | None
    ) = None
    each: Callable[[PyTree, AnyModel, PyTree], tuple[Callable[..., Array], Array]] | None = None
    loss: Callable[[Array, Array], Array] | None = None


class Measurement(NamedTuple):
    """How examples become a gradient.

    Attributes:
        init: (key, world) -> data; () when examples are streamed.
        gradient: (key, step, data, model, params, world, batch) -> (gradient with respect to
            params, batch loss []). The same key gives the same draws whatever the traced numbers
            are.
        capacity: the number of environments in a batch -> the most examples that it can hold, or
            None for no limit; `sgd` refuses samplers whose batches are known to be larger. None for
            never a limit.
        holds_labels: whether the data hold labels, which were drawn once from the first world;
            `sgd` refuses to let the world evolve under them.
        risks: the losses of the environments as differentiable functions; None where there is only
            the gradient, and what needs a risk refuses the measurement.
        differentiates_loss: whether the gradient is the derivative of the batch loss with respect
            to params at the same key. It is not where what is drawn depends on the parameters, as
            by an exact law; `sgd` then refuses optimizers that search along the loss.
        client: the arguments of `gradient` and the position [] of an environment in the batch ->
            the gradient and loss of that environment alone, on its part of the examples that
            `gradient` draws with the same arguments; zero for an environment without examples.
            Environments of one batch are independent. None where `gradient` cannot be divided:
            clients of federated methods then draw with keys of their own.
        takes_reduced: whether it is right for models with `reduce`, whose parameters are fewer than
            those that they stand for; other measurements are refused for them.
    """

    init: Callable[[Key, PyTree], PyTree]
    gradient: Callable[[Key, Array, PyTree, AnyModel, Params, PyTree, Batch], tuple[Params, Array]]
    capacity: Callable[[int], int | None] | None = None
    holds_labels: bool = False
    risks: Risks | None = None
    differentiates_loss: bool = False
    client: (
        Callable[[Key, Array, PyTree, AnyModel, Params, PyTree, Batch, Array], tuple[Params, Array]]
        | None
    ) = None
    takes_reduced: bool = False

    @property
    def repeats_examples(self) -> bool:
        """Whether the same key gives the same examples at all parameters."""
        has_losses = self.risks is not None and self.risks.batch is not None
        return has_losses or self.differentiates_loss

    @property
    def name(self) -> str:
        """The name of the factory that made it, for messages."""
        return getattr(self.gradient, "__qualname__", repr(self.gradient)).split(".")[0]
