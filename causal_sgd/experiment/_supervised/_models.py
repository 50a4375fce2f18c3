"""What is trained."""

from __future__ import annotations

import dataclasses
from types import ModuleType
from typing import TYPE_CHECKING, Literal, cast

from causal_sgd.experiment._fields import Axis
from causal_sgd.experiment._supervised._data_file import number_of_classes
from causal_sgd.experiment._table import AnyExperiment, Computed, Parts, Table, option

if TYPE_CHECKING:
    from causal_sgd.supervised.worlds import WorldFactory
    from causal_sgd.types import Key

__all__ = ["MODELS", "ModelFields"]


def _module() -> ModuleType:
    from causal_sgd.supervised import models

    return models


def _dim(experiment: AnyExperiment, parts: Parts) -> int:
    """The number of inputs, which the world knows."""
    import jax

    del experiment
    world = cast("WorldFactory", parts["world"])
    shape = jax.eval_shape(lambda: world(cast("Key", jax.random.key(0))).target).shape
    return shape[0]


DIM = Computed(_dim)
CLASSES = Computed(number_of_classes)


def _scales(experiment: AnyExperiment, parts: Parts) -> object:
    """The initial values of u and v, with the defaults of the factory."""
    del parts
    first, second = experiment.init_scale, experiment.second_scale
    return 0.1 if first is None else first, 0.0 if second is None else second


SCALES = Computed(_scales, ("init_scale", "second_scale"))

MODELS = Table(
    "model",
    "model",
    _module,
    {
        "linear": option("intercept", "init", "init_scale", dim=DIM, outputs=CLASSES),
        "hadamard": option(
            "depth",
            "signed",
            "intercept",
            "init_scale",
            dim=DIM,
            negative_scale="second_scale",
            curve=True,
        ),
        "products": option("intercept", dim=DIM, init_scales=SCALES),
        "linear-network": option("depth", "intercept", "init_scale", dim=DIM, hidden="width"),
        "featurised": option("features", "intercept", dim=DIM),
        "gated": option("intercept", "init", "init_scale", dim=DIM, init_logit="gate_logit"),
    },
)

if TYPE_CHECKING:
    ModelName = str
else:
    ModelName = Literal[tuple(MODELS.options)]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelFields:
    """The model and its numbers."""

    model: ModelName = "linear"
    """What is trained: linear (w), hadamard (u^depth, or u^depth - v^depth if signed, of every
    input by itself), products (u v of every input by itself), linear-network (fully connected,
    without nonlinearities), featurised (linear features under a fixed head), gated (linear, a gate
    for every input)."""
    depth: int = 2
    """Power of the weights (hadamard) or number of layers (linear-network)."""
    signed: bool = False
    """Whether weights of both signs are possible (hadamard)."""
    width: int = 4
    """Width of the hidden layers (linear-network)."""
    features: int | None = None
    """Number of features (featurised); as many as inputs by default."""
    intercept: bool = False
    """Whether the predictor has an intercept; also of estimators, but for those that test."""
    init: Literal["gaussian", "uniform"] | None = None
    """Initial weights (linear, gated): gaussian (zero without init-scale), or uniform, as linear
    layers of PyTorch begin; gaussian by default."""
    init_scale: Axis[float | None] = None
    """Scale of the initial parameters. Default: 0 (linear, gated), 0.1 (hadamard, and u of
    products), 1 (linear-network)."""
    second_scale: Axis[float | None] = None
    """Initial value of v. Default: 0 (products), init-scale (hadamard if signed)."""
    gate_logit: Axis[float] = -3.0
    """Initial value of the logits of the gates (gated)."""
