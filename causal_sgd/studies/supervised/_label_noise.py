"""Regressions on one design, the noise of their gradients, and the cells of the study."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    import optax
    from jax.typing import ArrayLike

    from causal_sgd.studies._cells import Cell
    from causal_sgd.supervised.worlds import WorldFactory
    from causal_sgd.types import Array, Key, Measurement, Trace

__all__ = [
    "DIM",
    "EXAMPLES",
    "METHODS",
    "RATES",
    "SUPPORT",
    "Noise",
    "compared_cell",
    "dimension",
    "predicted_cell",
    "recovery_cell",
]

DIM, EXAMPLES, SUPPORT = 100, 40, 5  # d, n and the number of ones of w* (HaoChen et al. 2020)
START = 1.0  # alpha
RATES = (0.05, 0.02)  # of the first and the last part of a run
FIRST = 0.375  # share of the first part
AFTER = 0.7  # share of a run before the averages
PAIRS = 32  # of environments w* + M e_j and w* - M e_j
SWEEPS = 100  # of the weighted Lasso
EVERY = 20  # steps between two frames of an average


class Noise(NamedTuple):
    """What shakes the gradient of a method."""

    label: float = 0.0  # delta, of one random example
    temperature: float = 0.0  # T of Langevin noise
    spread: float = 0.0  # M
    shaken: int = 1  # number of inputs j that differ between environments
    batch_size: int = EXAMPLES  # examples in a gradient
    first: float = RATES[0]  # learning rate of the first part


METHODS = {
    "gradient descent": Noise(),
    "batches of 10": Noise(batch_size=10),
    "Langevin": Noise(temperature=1e-6),
    "hot Langevin": Noise(temperature=1e-3),
    "label noise": Noise(label=1.0),
    "HeteroSGD, 1 input": Noise(spread=18.0, first=RATES[1]),
    "HeteroSGD, 32 inputs": Noise(spread=9.0, shaken=PAIRS),
    "label noise and 32 inputs": Noise(label=1.0, spread=9.0, shaken=PAIRS),
}
"""HaoChen et al. add normal numbers of size 0.01 to gradients at learning rates of 0.01: T is the
rate times 0.01^2 / 2, here that of a rate of 0.02."""


def compared_cell(steps: int) -> Cell:
    """The cell of all methods: time averages of the weights u^2 after AFTER of the run.

    Args:
        steps: of a run.
    """
    import jax.numpy as jnp

    from causal_sgd.supervised import measurements, worlds
    from causal_sgd.training import optimizers

    def cell(key: Key, *, method: float | Array) -> Trace:
        noise = _chosen(method)

        def rate(step: ArrayLike) -> Array:
            return jnp.where(jnp.asarray(step) < FIRST * steps, noise.first, RATES[1])

        return _trained(
            key,
            worlds.fixed_design(_environments(noise), design=_design(key, EXAMPLES, DIM)),
            measurements.examples(label_noise=noise.label * EXAMPLES**0.5),
            jnp.asarray(noise.batch_size, int),
            optimizers.langevin(rate, temperature=noise.temperature),
            steps,
        )

    return cell


def predicted_cell() -> Cell:
    """The cell of the limits: the Lasso with penalties (eta / 2) V_i, and that of gradient flow."""
    import jax.numpy as jnp

    from causal_sgd import linalg
    from causal_sgd.theory import sparse
    from causal_sgd.types import Trace

    def cell(key: Key, *, method: float | Array) -> Trace:
        noise = _chosen(method)
        design, weights = _design(key, EXAMPLES, DIM), _environments(noise)
        second = linalg.product(design.T, design) / EXAMPLES
        cross = linalg.product(weights, second)
        variances = sparse.gradient_variances(
            jnp.zeros(DIM), second, cross, label_noise=noise.label
        )
        mean = jnp.mean(cross, 0)
        lasso = sparse.weighted_lasso(second, mean, RATES[1] / 2 * variances, sweeps=SWEEPS)
        labels = jnp.sum(design[:, :SUPPORT], 1)
        flow = sparse.hyperbolic_interpolator(design, labels, START**2, nonnegative=True)
        metrics = {"lasso": lasso[None], "flow": flow[None]}
        return Trace(jnp.zeros(1, jnp.int32), metrics, jnp.asarray(-1, jnp.int32))

    return cell


def recovery_cell(steps: int) -> Cell:
    """The cell of how many examples recover w*: |theta - w*| / |w*| of the time average.

    Inputs beyond d of DIM and examples beyond n of EXAMPLES are zero, so that one program serves
    all d and n, with label noise and without.

    Args:
        steps: of a run.
    """
    import jax.numpy as jnp
    import optax

    from causal_sgd.supervised import measurements, worlds

    def cell(
        key: Key, *, dim: float | Array, num_examples: float | Array, label: float | Array
    ) -> Trace:
        inputs = jnp.arange(DIM)
        inside = (inputs < dim)[None] & (jnp.arange(EXAMPLES) < num_examples)[:, None]
        # With these factors means over all rows are means over the first n.
        factor = jnp.sqrt(EXAMPLES / num_examples)
        design = jnp.where(inside, _design(key, EXAMPLES, DIM), 0) * factor
        signal = jnp.where(inputs < SUPPORT, 1.0, 0.0)
        trace = _trained(
            key,
            worlds.fixed_design(signal[None], design=design),
            measurements.examples(full=True, label_noise=label * EXAMPLES**0.5),
            EXAMPLES,
            optax.sgd(RATES[0]),
            steps,
        )
        off = jnp.where(inputs < dim, trace.metrics["weights"][0] - signal, 0)
        return trace._replace(metrics={"error": jnp.sqrt(jnp.sum(off**2) / SUPPORT)[None]})

    return cell


def dimension(dim: float, *, ordered: bool = True) -> float:
    """The examples at which w* among d inputs is recovered with weights >= 0, by theory.

    Args:
        dim: d.
        ordered: whether the l1 norm counts; else w* is the only solution beyond this number.
    """
    from causal_sgd.theory import sparse

    threshold = None if ordered else 0.0
    return float(sparse.sparse_dimension(dim, SUPPORT, threshold, nonnegative=True))


def _chosen(method: float | Array) -> Noise:
    """The noise of a method, whose number may be traced."""
    import jax.numpy as jnp

    rows = np.array([(*noise,) for noise in METHODS.values()])
    return Noise(*jnp.asarray(rows, float)[jnp.asarray(method, int)])


def _design(key: Key, number: int, dim: int) -> Array:
    """Standard normal inputs [n, d], the same for all methods of a seed."""
    from causal_sgd import random
    from causal_sgd.training.algorithms import stream

    return random.normals(random.fold_in(stream(key, "world"), 1), (number, dim), float)


def _environments(noise: Noise) -> Array:
    """Weights w* + M e_j and w* - M e_j of environments, for as many inputs j, [2 PAIRS, d]."""
    import jax.numpy as jnp

    numbers = jnp.arange(2 * PAIRS)
    places = SUPPORT + (numbers // 2) % jnp.asarray(noise.shaken, int)
    signs = jnp.where(numbers % 2 == 0, 1.0, -1.0)
    inputs = jnp.arange(DIM)[None]
    away = jnp.where(inputs == places[:, None], noise.spread * signs[:, None], 0)
    return jnp.where(inputs < SUPPORT, 1.0, 0.0) + away


def _trained(
    key: Key,
    world: WorldFactory,
    measurement: Measurement,
    batch_size: int | Array,
    optimizer: optax.GradientTransformation,
    steps: int,
) -> Trace:
    """The time average of the weights u^2 in one environment a step."""
    from causal_sgd.supervised import metrics, models
    from causal_sgd.training import run, samplers, sgd, time_average

    algorithm = sgd(
        world=world,
        sampler=samplers.hetero(batch_size=batch_size),
        measurement=measurement,
        model=models.hadamard(dim=DIM, init_scale=START),
        optimizer=optimizer,
    )
    watched = [metrics.weights]
    trace = run(key, algorithm=algorithm, metrics=watched, num_steps=steps, record_every=EVERY)
    return time_average(trace, after=AFTER)
