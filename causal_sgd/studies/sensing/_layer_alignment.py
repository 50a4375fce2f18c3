"""Settings and cells of the study `layer-alignment`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import xarray as xr

    from causal_sgd.sensing.models import MatrixModel
    from causal_sgd.sensing.worlds import World
    from causal_sgd.types import Array, Key, Snapshot, Trace

__all__ = [
    "COLUMNS",
    "DEEP_RATE",
    "DEEP_SPREADS",
    "DEEP_STEPS",
    "DEPTH",
    "EVERY",
    "HIDDEN",
    "LOGISTIC_EVERY",
    "LOGISTIC_RATE",
    "LOGISTIC_STEPS",
    "MEAN",
    "POINTS",
    "RATE",
    "SPREADS",
    "STEPS",
    "deep_cell",
    "deep_logs",
    "logistic_cell",
    "pair_cell",
    "rotated",
]

# U V' from a small start.
RATE, MEAN, DIM, COLUMNS, ALPHA = 0.2, 1.0, 4, 4, 1e-6
SPREADS = np.array([0.0, 3.0, 5.0, 6.0, 7.0])  # M_c = 4.58
STEPS, EVERY = 600, 5
# Three layers that differ, in the direction of V.
DEPTH, DEEP_STEPS = 3, 300
DEEP_START = np.array([0.6, 0.5, 0.4])
DEEP_RATE, DEEP_SPREADS = 0.1, np.array([0.0, 4.0, 6.0, 7.0])
# Three layers with one output on four points y x, of which the first of each environment supports.
POINTS = np.array([[[1.0, 2.0], [3.0, 1.6]], [[1.0, -0.8], [2.5, -0.5]]])
HIDDEN, SCALE, LOGISTIC_RATE, LOGISTIC_STEPS, LOGISTIC_EVERY = 6, 0.1, 0.1, 20_000, 50


def pair_cell(key: Key, *, spread: Array) -> Trace:
    """U V' with U and V independent, population gradients of one environment at a time."""
    import optax

    from causal_sgd.sensing import measurements, metrics
    from causal_sgd.training import run, samplers, sgd

    algorithm = sgd(
        world=lambda key: _world(DIM, spread),
        sampler=samplers.hetero(batch_size=1),
        measurement=measurements.population(),
        model=rotated(),
        optimizer=optax.sgd(RATE),
    )
    return run(
        key,
        algorithm=algorithm,
        metrics={
            "log_imbalance": _log_imbalance,
            "log_ratio": _log_ratio,
            "log_power": _log_power,
            "log_sine": _log_sine,
            "log_excess": _log_excess,
            "layer_alignment": metrics.layer_alignment,
        },
        num_steps=STEPS,
        record_every=EVERY,
    )


def deep_cell(key: Key, *, spread: Array) -> Trace:
    """Three layers with commuting signals, unequal along V: three scalars."""
    import dataclasses

    import jax.numpy as jnp
    import optax

    from causal_sgd.sensing import measurements, metrics, models
    from causal_sgd.training import run, samplers, sgd

    start = jnp.stack([jnp.diag(jnp.array([1.0, scale])) for scale in DEEP_START])
    model = models.deep(dim=2, depth=DEPTH)

    def weights(snapshot: Snapshot) -> Array:
        return snapshot.params[:, 1, 1]

    algorithm = sgd(
        world=lambda key: _world(2, spread),
        sampler=samplers.hetero(batch_size=1),
        measurement=measurements.population(),
        model=dataclasses.replace(model, init=lambda key: start),
        optimizer=optax.sgd(DEEP_RATE),
    )
    return run(
        key,
        algorithm=algorithm,
        metrics={
            "weights": weights,
            "eigenvalue": _next_eigenvalue,
            "imbalance": metrics.imbalance,
        },
        num_steps=DEEP_STEPS,
        record_every=1,
    )


def deep_logs(deep: xr.Dataset) -> tuple[np.ndarray, np.ndarray]:
    """Log of the imbalance of the first two layers over its start, and the sum of the factors.

    Both are [spread, seed, step].
    """
    weights = deep.weights.transpose("spread", "seed", "step", "weights_0").values.astype(float)
    eigenvalues = deep.eigenvalue.transpose("spread", "seed", "step").values.astype(float)
    residuals = weights.prod(-1) - eigenvalues
    factors = np.log(np.abs(1 - (DEEP_RATE * residuals * weights[..., 2] / 2) ** 2))
    predicted = np.cumsum(factors, -1) - factors
    imbalances = np.abs(weights[..., 0] ** 2 - weights[..., 1] ** 2)
    start = np.log(abs(DEEP_START[0] ** 2 - DEEP_START[1] ** 2))
    with np.errstate(divide="ignore"):  # of equal layers
        return np.log(imbalances) - start, predicted


def logistic_cell(key: Key) -> Trace:
    """Gradient descent of a linear network on separable data, by the logistic loss."""
    import jax.numpy as jnp
    import optax

    from causal_sgd.supervised import losses, measurements, models, worlds
    from causal_sgd.training import run, samplers, sgd

    algorithm = sgd(
        world=worlds.separable(POINTS),
        sampler=samplers.stratified(batch_size=2),
        measurement=measurements.counts(losses.logistic),
        model=models.linear_network(dim=2, hidden=HIDDEN, depth=DEPTH, init_scale=SCALE),
        optimizer=optax.sgd(LOGISTIC_RATE),
    )
    metrics = {
        "first": lambda snapshot: snapshot.params["layers"][0],
        "second": lambda snapshot: snapshot.params["layers"][1],
        "head": lambda snapshot: snapshot.params["layers"][2],
        "loss": lambda snapshot: jnp.mean(snapshot.risks(snapshot.params)),
    }
    return run(
        key,
        algorithm=algorithm,
        metrics=metrics,
        num_steps=LOGISTIC_STEPS,
        record_every=LOGISTIC_EVERY,
    )


def rotated() -> MatrixModel:
    """`models.asymmetric` in the coordinates P = (U + V)/sqrt2 and Q = (U - V)/sqrt2.

    Gradient descent is the same in rotated coordinates, but a tiny Q keeps its digits beside P. The
    residual's antisymmetric part is that of the estimate, and is taken from P and Q for that.
    """
    import jax.numpy as jnp

    from causal_sgd import linalg
    from causal_sgd.sensing import models
    from causal_sgd.sensing.models import MatrixModel

    plain = models.asymmetric(dim=DIM, rank=COLUMNS, init_scale=ALPHA, init="gaussian")

    def start(key: Key) -> Array:
        left, right = plain.init(key)
        return jnp.stack([left + right, left - right]) / 2**0.5

    def layers(params: Array) -> tuple[Array, Array]:
        p, q = params
        return (p - q).T / 2**0.5, (p + q) / 2**0.5

    def estimate(params: Array) -> Array:
        right, left = layers(params)
        return linalg.product(left, right)

    def pullback(params: Array, cotangent: Array) -> Array:
        p, q = params
        symmetric = (cotangent + cotangent.T) / 2
        across = linalg.product(q, p.T) / 4
        skew = across - across.T
        return jnp.stack(
            [
                linalg.product(symmetric, p) - linalg.product(skew, q),
                linalg.product(skew, p) - linalg.product(symmetric, q),
            ]
        )

    return MatrixModel(start, estimate, pullback=pullback, layers=layers, symmetric=False)


def _world(dim: int, spread: Array) -> World:
    """A* of one direction with eigenvalue 1, and V beside it with mu +- M."""
    import jax.numpy as jnp

    from causal_sgd.sensing.worlds import World

    eye = jnp.eye(dim)
    cores = (MEAN + spread * jnp.array([1.0, -1.0])).reshape(2, 1, 1)
    return World(eye[:, :1], jnp.ones(1), eye[:, 1:2], cores, jnp.full(2, 0.5))


def _next_eigenvalue(snapshot: Snapshot) -> Array:
    """The spurious eigenvalue [] of the next step's environment."""
    assert snapshot.next_batch is not None
    _, world, batch = snapshot.next_batch()
    return world.spurious_cores[batch.environments[0], 0, 0]


def _log_excess(snapshot: Snapshot) -> Array:
    """Log|1 - (eta r/2)^2| in the direction of V less that for r = -s, the mean over the next s."""
    import jax.numpy as jnp

    s = snapshot.world.spurious_cores[:, 0, 0]
    residuals = jnp.stack([snapshot.estimate[1, 1] - s, s])
    logs = jnp.log(jnp.abs(1 - (RATE * residuals / 2) ** 2))
    return jnp.mean(logs[0] - logs[1])


def _rows(snapshot: Snapshot) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
    """The directions of the rows p and q of P and Q along V, and the logarithms of their lengths.

    They are sum and difference of the rows f of U and g of V, over sqrt2.
    """
    sums, differences = (part[1] for part in snapshot.params)
    return _unit(sums), _unit(differences)


def _log_imbalance(snapshot: Snapshot) -> Array:
    """Log of |f f' - g g'|_F = |p q' + q p'|_F, the `metrics.imbalance` of these rows alone."""
    import jax.numpy as jnp

    (p, size_p), (q, size_q) = _rows(snapshot)
    return size_p + size_q + jnp.log(2 * (1 + jnp.sum(p * q) ** 2)) / 2


def _log_ratio(snapshot: Snapshot) -> Array:
    """Log |q|/|p|."""
    (_, size_p), (_, size_q) = _rows(snapshot)
    return size_q - size_p


def _log_power(snapshot: Snapshot) -> Array:
    """Log of |f||g|."""
    import jax.numpy as jnp

    p, q = (part[1] for part in snapshot.params)
    return _unit(p + q)[1] + _unit(p - q)[1] - jnp.log(2)


def _log_sine(snapshot: Snapshot) -> Array:
    """Log of the sine of the angle between f and g, whose cosine is their layers' alignment."""
    import jax.numpy as jnp

    (p, size_p), (q, size_q) = _rows(snapshot)
    across = q - jnp.sum(p * q) * p
    return size_p + size_q + _unit(across)[1] - _log_power(snapshot)


def _unit(vector: Array) -> tuple[Array, Array]:
    """A vector [k] of length one, and the logarithm of its length, scaled by the largest entry."""
    import jax.numpy as jnp

    peak = jnp.max(jnp.abs(vector))
    scaled = vector / jnp.where(peak > 0, peak, 1)
    size = jnp.sqrt(jnp.sum(scaled**2))
    return scaled / jnp.where(size > 0, size, 1), jnp.log(peak) + jnp.log(size)
