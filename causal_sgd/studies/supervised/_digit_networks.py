"""Networks on coloured digits, with and without gates before their inputs, and runs of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from causal_sgd.studies.supervised import _digits as digits
from causal_sgd.studies.supervised._digits import BATCH

if TYPE_CHECKING:
    import optax

    from causal_sgd.supervised.models import VectorModel
    from causal_sgd.types import Array, Key, Objective, Params, Sampler, Snapshot, Trace

__all__ = [
    "GROUPS",
    "HIDDEN",
    "LATE",
    "REJECTED",
    "SIDE",
    "START",
    "cnn",
    "gated",
    "mlp",
    "opposite",
    "trained",
]

SIDE = 14
PIXELS, HIDDEN = SIDE**2, 32
CHANNELS = (8, 16)  # of both layers of convolutions
START = 0.7  # initial gates, which multiply their inputs by the square
LATE = 0.75  # the transient, which no mean includes
EVERY = 100
REJECTED = 0.01  # of the gap of a run that rejects the colour
GROUPS = {
    "feature": ("luminance",) * PIXELS + ("colour",),
    "chroma": ("luminance",) * PIXELS + ("colour",) * PIXELS,
}
"""Labels of the inputs by their encoding: one gate for the image and one for the colour."""


def mlp(encoding: str = "feature") -> VectorModel:
    """One hidden layer of 32 rectified units; weights have variances of 2 and of 1 over inputs.

    Args:
        encoding: of `worlds.coloured_digits`.
    """
    import jax
    import jax.numpy as jnp

    from causal_sgd.supervised import models

    dim = PIXELS + 1 if encoding == "feature" else 2 * PIXELS

    def init(key: Key) -> Params:
        return {
            "first": _layer(key, 0, (dim, HIDDEN), 2 / dim),
            "offsets": jnp.zeros(HIDDEN),
            "last": _layer(key, 1, (HIDDEN,), 1 / HIDDEN),
            "intercept": jnp.zeros(()),
        }

    def apply(params: Params, x: Array) -> Array:
        hidden = jax.nn.relu(x @ params["first"] + params["offsets"])
        return hidden @ params["last"] + params["intercept"]

    return models.network(init, apply)


def cnn() -> VectorModel:
    """Two layers of convolutions of luminance and chroma, and a linear one.

    The first is of 2 x 2 pixels to 8 channels at 7 x 7 places, the second of 3 x 3 places to 16
    channels at 3 x 3; both have steps of 2. Weights of rectified units have variances of 2 over
    inputs.
    """
    import jax
    import jax.numpy as jnp

    from causal_sgd.supervised import models

    first, second = CHANNELS
    half = SIDE // 2
    size = (half - 1) // 2
    shapes = {"first": (8, first), "second": (9 * first, second), "last": (size**2 * second,)}

    def init(key: Key) -> Params:
        kernels = {
            name: _layer(key, place, shape, (1 if name == "last" else 2) / shape[0])
            for place, (name, shape) in enumerate(shapes.items())
        }
        offsets = {f"{name}_offsets": jnp.zeros(shape[1:]) for name, shape in shapes.items()}
        return kernels | offsets

    def apply(params: Params, x: Array) -> Array:
        blocks = x.reshape(2, half, 2, half, 2).transpose(1, 3, 0, 2, 4)
        image = blocks.reshape(half, half, 8) @ params["first"]
        image = jax.nn.relu(image + params["first_offsets"][None, None])
        ends = (2 * size + i - 1 for i in range(3))
        spans = [slice(i, end, 2) for i, end in enumerate(ends)]
        patches = jnp.concatenate([image[rows, columns] for rows in spans for columns in spans], -1)
        image = jax.nn.relu(patches @ params["second"] + params["second_offsets"][None, None])
        return image.ravel() @ params["last"] + params["last_offsets"]

    return models.network(init, apply)


def gated(
    model: VectorModel,
    groups: int | tuple[str, ...] = PIXELS + 1,
    start: float | Array = START,
) -> VectorModel:
    """A model behind gates.

    Args:
        model: a network.
        groups: of `models.input_gates`; a gate for each pixel and the colour by default.
        start: of all gates; may be traced. Gates that start at 1 and have no step of their own
            (`optimizers.gates` with a learning rate of 0) are none.
    """
    from causal_sgd.supervised import models

    return models.input_gates(model, groups=groups, start=start)


def opposite(spread: float | Array) -> Array:
    """How often the colour agrees with the label in two environments: 2 p - 1 = 0.2 +- M, [2].

    Args:
        spread: M; may be traced.
    """
    import jax.numpy as jnp

    return (1 + digits.MEAN + jnp.array([1.0, -1.0]) * spread) / 2


def trained(
    key: Key,
    *,
    model: VectorModel,
    optimizer: optax.GradientTransformation,
    sampler: Sampler,
    agreements: Array,
    steps: int,
    encoding: str = "feature",
    objective: Objective | None = None,
    probabilities: Array | None = None,
    metrics: Mapping[str, Callable[[Snapshot], Array]] | None = None,
    test_share: float = 0.2,
    of_each: int | None = None,
) -> Trace:
    """One run on fresh examples, as the mean of its metrics over the last quarter.

    Args:
        key: of the run.
        model: network, of inputs of this encoding.
        optimizer: of optax.
        sampler: of batches of 128 examples.
        agreements: how often the colour agrees with the label in each environment, [E].
        steps: number of steps, static.
        encoding: of `worlds.coloured_digits`.
        objective: of the losses of environments; None for their mean.
        probabilities: of the environments [E]; None for equal ones.
        metrics: of a snapshot, by name; None for the gap of the colour, [], and the shares of
            right signs, [4] (`digits.accuracies`).
        test_share: of the images that nothing trains on.
        of_each: the most examples of one environment in a batch, which makes a step cheaper than
            None, for as many as the batch has.
    """
    from causal_sgd import training
    from causal_sgd.supervised import losses, measurements, worlds
    from causal_sgd.training import objectives

    algorithm = training.algorithms.penalised(
        world=worlds.coloured_digits(
            invariant_flip=digits.ALPHA,
            spurious_flips=1 - agreements,
            encoding=encoding,
            probabilities=probabilities,
            test_share=test_share,
        ),
        sampler=sampler,
        measurement=measurements.examples(
            fresh=of_each or BATCH, slots=None if of_each else BATCH, loss=losses.logistic
        ),
        model=model,
        objective=objectives.mean() if objective is None else objective,
        optimizer=optimizer,
    )
    if metrics is None:
        metrics = {"gap": digits.gap, "accuracies": digits.accuracies}
    trace = training.run(
        key, algorithm=algorithm, metrics=metrics, num_steps=steps, record_every=EVERY
    )
    return training.time_average(trace, after=LATE)


def _layer(key: Key, place: int, shape: tuple[int, ...], variance: float) -> Array:
    """Normal weights."""
    from causal_sgd import random

    return variance**0.5 * random.normals(random.fold_in(key, place), shape, float)
