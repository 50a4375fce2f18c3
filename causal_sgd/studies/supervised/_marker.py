"""A small transformer that reads a marker among other tokens, and runs of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, cast

import numpy as np
from scipy import stats

from causal_sgd.studies.supervised._either_way import either_way

if TYPE_CHECKING:
    from causal_sgd.supervised.models import VectorModel
    from causal_sgd.supervised.worlds import TableWorld
    from causal_sgd.types import Array, Key, Params, Snapshot, Trace

__all__ = ["BAYES", "CONTENT", "CORRECT", "FIELD", "MARKER", "TOKENS", "apply", "cell", "init"]

CONTENT, CORRECT = 7, 0.65  # tokens of content, and how often each of them is the label
MARKER = (0.95, 0.15)  # how often the marker is the label, in two environments
WIDTH, HIDDEN, EVERY = 16, 32, 20
START, AVERAGED = 0.7, 0.75
SHAPES = {
    "tokens": (4, WIDTH),
    "reader": (WIDTH,),
    "queries": (WIDTH, WIDTH),
    "keys": (WIDTH, WIDTH),
    "values": (WIDTH, WIDTH),
    "mixing": (WIDTH, WIDTH),
    "hidden": (WIDTH, HIDDEN),
    "output": (HIDDEN, WIDTH),
    "head": (WIDTH,),
}
FIELD = ("marker", "marker", None, None, None)
"""One gate for the marker, whatever it says."""
TOKENS = ("marker -", "marker +", "content -", "content +", None)
"""A gate for each of four tokens."""
BAYES = float(stats.binom.sf(CONTENT // 2, CONTENT, CORRECT))
"""The accuracy of the majority of the content."""


def atoms() -> np.ndarray:
    """All inputs and labels, [32, 6].

    An input has the sizes of four tokens (the two markers, of which one is there, and the negative
    and the positive content) and the number of positive ones among the content.
    """
    rows = [
        [marker < 0, marker > 0, 1, 1, positive, label]
        for label in (-1, 1)
        for marker in (-1, 1)
        for positive in range(CONTENT + 1)
    ]
    return np.array(rows, float)


def mass(agreement: float) -> np.ndarray:
    """The probabilities [32] of the atoms, where the marker is the label so often."""
    rows = atoms()
    label, positive = rows[:, 5], rows[:, 4]
    marker = rows[:, 1] - rows[:, 0]
    chance = np.where(label > 0, CORRECT, 1 - CORRECT)
    content = stats.binom.pmf(positive, CONTENT, chance)
    return content * np.where(marker == label, agreement, 1 - agreement) / 2


def world(key: Key) -> TableWorld:
    """Both environments."""
    import jax.numpy as jnp

    from causal_sgd.supervised.worlds import TableWorld

    del key
    rows = atoms()
    return TableWorld(
        inputs=jnp.asarray(rows[:, :5], float),
        labels=jnp.asarray(rows[:, 5], float),
        mass=jnp.asarray([mass(agreement) for agreement in MARKER], float),
        test_mass=jnp.asarray([mass(0.5)], float),
        target=jnp.full(5, jnp.nan),
        causal=jnp.array([False, False, True, True, True]),
        probabilities=jnp.full(2, 0.5),
    )


def init(key: Key) -> Params:
    """Normal parameters, of the scale at which layers keep sizes; biases start at zero."""
    import jax.numpy as jnp

    from causal_sgd import random

    found = {}
    for place, (name, shape) in enumerate(SHAPES.items()):
        scale = 1.0 if name in ("tokens", "reader") else shape[0] ** -0.5
        normals = random.normals(random.fold_in(key, place), shape, float)
        found[name] = scale * normals
    return found | {"bias": jnp.zeros(HIDDEN)}


def apply(params: Params, x: Array) -> Array:
    """The prediction [] of a one-layer transformer that is read at a token of its own.

    Without positions equal tokens have equal keys and values, so that the softmax is over the
    marker, the negative and the positive content with their numbers, and the reader.

    Args:
        params: of `init`.
        x: sizes of the four tokens and the number of positive content, [5].
    """
    import jax
    import jax.numpy as jnp

    from causal_sgd import linalg

    sized = params["tokens"] * x[:4, None]
    seen = jnp.stack([sized[0] + sized[1], sized[2], sized[3], params["reader"]])
    ones = jnp.ones((), x.dtype)
    copies = jnp.stack([ones, CONTENT - x[4], x[4], ones])
    query = linalg.product(params["reader"][None], params["queries"])
    scores = jnp.sum(linalg.product(seen, params["keys"]) * query, 1) / WIDTH**0.5
    weights = copies * jnp.exp(scores - jax.lax.stop_gradient(jnp.max(scores)))
    average = jnp.sum((weights / jnp.sum(weights))[:, None] * seen, 0)
    values = linalg.product(linalg.product(average[None], params["values"]), params["mixing"])
    read = params["reader"][None] + values
    hidden = jax.nn.relu(linalg.product(read, params["hidden"]) + params["bias"][None])
    read = read + linalg.product(hidden, params["output"])
    return jnp.sum(read * params["head"][None])


def cell(
    groups: tuple[str | None, ...], steps: int, cap: float | None = None
) -> Callable[..., Trace]:
    """A cell of HeteroSGD or pooled training with gates, whose axes are learning rates.

    Gates whose own learning rate is zero stay at one: the plain network.
    """

    def run(
        key: Key,
        *,
        learning_rate: float | Array,
        gate_rate: float | Array,
        pooled: bool | Array,
    ) -> Trace:
        import jax.numpy as jnp
        import optax

        from causal_sgd import training
        from causal_sgd.supervised import losses, measurements, models
        from causal_sgd.training import optimizers

        start = jnp.where(jnp.asarray(gate_rate) > 0, START, 1.0)
        gated = models.input_gates(models.network(init, apply), groups=groups, start=start)
        model = cast("VectorModel", gated)
        algorithm = training.sgd(
            world=world,
            sampler=either_way(pooled, batch_size=2),
            measurement=measurements.counts(losses.logistic),
            model=model,
            optimizer=optimizers.gates(optax.sgd(learning_rate), learning_rate=gate_rate, cap=cap),
        )
        trace = training.run(
            key, algorithm=algorithm, metrics=_metrics(model), num_steps=steps, record_every=EVERY
        )
        return training.time_average(trace, after=AVERAGED)

    return run


def _metrics(model: VectorModel) -> dict[str, Callable[[Snapshot], Array]]:
    """What flipping the marker changes, and the accuracy where the marker tells nothing."""
    import jax.numpy as jnp

    even = mass(0.5)
    marker = atoms()[:, 1] - atoms()[:, 0]

    def gap(snapshot: Snapshot) -> Array:
        predictions = model.predictions(snapshot.params, snapshot.world.inputs)
        return jnp.sum(jnp.asarray(2 * even * marker, predictions.dtype) * predictions)

    def accuracy(snapshot: Snapshot) -> Array:
        inputs, labels = snapshot.world.inputs, snapshot.world.labels
        right = model.predictions(snapshot.params, inputs) * labels > 0
        return jnp.sum(jnp.asarray(even, labels.dtype) * right)

    return {"gap": gap, "accuracy": accuracy}
