"""The cell of the study `catapult`: U V' with one entry."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np

from causal_sgd.studies._cells import Cell

if TYPE_CHECKING:
    from causal_sgd.sensing.models import MatrixModel
    from causal_sgd.types import Array, Key, Snapshot, Trace

FEW, LONG, SETTLED = 8, 200, 100
# A start from which the output stays small; in more steps u + v may become rounding of u.
SMALL, LINEAR = 1e-8, 10
TRACKED = 16  # steps in which an imbalance is a difference well above rounding


def one_entry_cell(columns: int, steps: int, *, tracked: bool = False) -> Cell:
    """A cell of U V' with one entry, from a given S; every step is recorded, or sums of them.

    Args:
        columns: k.
        steps: of a run.
        tracked: record the logarithms of a few frames only, for many seeds.
    """

    def cell(key: Key, *, learning_rate: Array, mean: Array, spread: Array, start: Array) -> Trace:
        import jax.numpy as jnp
        import optax

        from causal_sgd.sensing import measurements, metrics
        from causal_sgd.sensing.worlds import World
        from causal_sgd.training import run, samplers, sgd

        one = jnp.ones((1, 1))
        cores = (mean + spread * jnp.array([1.0, -1.0])).reshape(2, 1, 1)
        world = World(one, jnp.zeros(1), one, cores, jnp.full(2, 0.5))
        algorithm = sgd(
            world=lambda key: world,
            sampler=samplers.hetero(batch_size=1),
            measurement=measurements.population(),
            model=_model(columns, start),
            optimizer=optax.sgd(learning_rate),
        )
        trace = run(
            key,
            algorithm=algorithm,
            metrics={
                "output": _output,
                "sharpness": _sharpness,
                "imbalance": _imbalance,
                "log_sharpness": _log_sharpness,
                "log_sum": _log_sum,
                "loss": metrics.batch_loss,
            },
            num_steps=steps,
            record_every=1,
        )
        return _summary(trace, learning_rate) if tracked else trace

    return cell


def _summary(trace: Trace, rate: Array) -> Trace:
    """A trace of one frame: what the claims on environments need.

    The loss of a step is r^2/4 of the residual before it, so that 1 - (eta r/2)^2 is 1 - eta^2
    loss.
    """
    import jax.numpy as jnp

    output, sharpness, imbalance, loss = (
        trace.metrics[name] for name in ("output", "sharpness", "imbalance", "loss")
    )
    log, log_sum = trace.metrics["log_sharpness"], trace.metrics["log_sum"]
    logs = jnp.log(jnp.abs(1 - rate**2 * loss[1:]))
    numbers = {
        "exponent": logs[SETTLED:].mean(),
        "predicted": logs[:TRACKED].sum(),
        "tracked": jnp.log(jnp.abs(imbalance[TRACKED] / imbalance[0])),
        "slope": (log[-1] - log[SETTLED]) / (LONG - SETTLED),
        "exponent_of_sum": (log_sum[LINEAR] - log_sum[0]) / LINEAR,
        "largest": sharpness.max(),
        "sharpness": sharpness[-1],
        "output": output[-1],
    }
    kept = {name: value[None] for name, value in numbers.items()}
    return trace._replace(step=trace.step[-1:], metrics=kept | {"log_sharpness": log[None, ::20]})


def _model(columns: int, start: Array) -> MatrixModel:
    """`models.asymmetric` with one entry, scaled to a given S at the start."""
    import jax
    import jax.numpy as jnp

    from causal_sgd.sensing import models

    model = models.asymmetric(dim=1, rank=columns, init_scale=1.0, init="gaussian")

    def init(key: Key) -> models.Factors:
        params = model.init(key)
        size = jnp.sqrt(_size(params) / start)
        return jax.tree.map(lambda leaf: leaf / size, params)

    return dataclasses.replace(model, init=init)


def _size(params: object) -> Array:
    import jax
    import jax.numpy as jnp

    return sum((jnp.sum(leaf**2) for leaf in jax.tree.leaves(params)), jnp.zeros(())) / 2


def _output(snapshot: Snapshot) -> Array:
    """F = u'v."""
    return snapshot.estimate[0, 0]


def _sharpness(snapshot: Snapshot) -> Array:
    """S = (|u|^2 + |v|^2)/2."""
    return _size(snapshot.params)


def _log_sharpness(snapshot: Snapshot) -> Array:
    """Log S, also where S itself is below the smallest number."""
    import jax.numpy as jnp

    left, right = snapshot.params
    return _log_square(jnp.concatenate([left, right], 1)) - np.log(2)


def _log_sum(snapshot: Snapshot) -> Array:
    """Log(S + f), as that of |u + v|^2/2."""
    left, right = snapshot.params
    return _log_square(left + right) - np.log(2)


def _log_square(vector: Array) -> Array:
    """Log |vector|^2, scaled by the largest entry."""
    import jax.numpy as jnp

    peak = jnp.max(jnp.abs(vector))
    return 2 * jnp.log(peak) + jnp.log(jnp.sum((vector / peak) ** 2))


def _imbalance(snapshot: Snapshot) -> Array:
    """|u|^2 - |v|^2, as (u + v)'(u - v)."""
    left, right = snapshot.params
    return ((left + right) * (left - right)).sum()
