"""Data sets with any number of inputs at one cost, and what is trained and fitted on them.

All methods of the study turn with the inputs. Noise in d > n directions can therefore be written in
the n directions that it spans: as the triangle of a QR factorisation, whose law is known.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, cast

from causal_sgd.studies.supervised._fits import joined
from causal_sgd.studies.supervised._whole import whole

if TYPE_CHECKING:
    from causal_sgd.supervised._moments import MomentData
    from causal_sgd.supervised.worlds import MixtureWorld, SupervisedWorld
    from causal_sgd.types import (
        Array,
        Fit,
        Key,
        Measured,
        Metric,
        Objective,
        Params,
        Sampler,
        Snapshot,
        State,
        Trace,
    )

__all__ = [
    "CORE",
    "EXAMPLES",
    "FEW",
    "SPURIOUS",
    "STEPS",
    "balancing",
    "fits",
    "learning_rate",
    "penalised",
    "weighted",
]

EXAMPLES, FEW = 100, 20  # all, and those of the minority
CORE, SPURIOUS = 1.0, 2.0  # signals, in units of the noise
STEPS, FRAMES = 1000, 50
WEIGHT = 3.0  # of the penalties of V-REx and IRMv1
ADAPTATION = 0.1  # rate of GroupDRO's weights
SWEEPS = 300  # of the dual problem of the margin
TOY_EXAMPLES, TOY_NOISE, TOY_STEPS = 500, 600, 100  # of the toy of balancing


def learning_rate(dim: int | Array) -> float | Array:
    """A stable rate for every number of inputs."""
    return 0.5 / (1 + dim / EXAMPLES)


def weighted(
    key: Key,
    *,
    dim: int | Array,
    balanced: float | Array,
    subsampled: float | Array,
    single: float | Array,
    robust: float | Array,
) -> Trace:
    """ERM, RWG (balanced), SUBG (balanced, subsampled), HeteroSGD (single), GroupDRO (robust)."""
    from causal_sgd import training

    objective = training.objectives.group_dro(
        rate=ADAPTATION, weight=robust, risk_weight=1 - robust
    )
    return _trained(key, dim, _world(dim, balanced, subsampled), whole(single=single), objective)


def penalised(key: Key, *, dim: int | Array, vrex: float | Array, irmv1: float | Array) -> Trace:
    """V-REx or IRMv1 on balanced groups, by the weights of their penalties."""
    from causal_sgd import training

    objectives = training.objectives
    both = (objectives.vrex(weight=vrex), objectives.irmv1(weight=irmv1, risk_weight=0.0))
    return _trained(key, dim, _world(dim, 1.0, 0.0), whole(), _sum(*both))


def _sum(one: Objective, other: Objective) -> Objective:
    """The sum of two objectives without states."""
    import jax

    from causal_sgd.types import Objective

    def gradient(
        step: Array, state: State, examples: Measured, params: Params
    ) -> tuple[Params, Array, State]:
        first, second = (
            each.gradient(step, each.init(examples.shares, params), examples, params)
            for each in (one, other)
        )
        slope = jax.tree.map(lambda a, b: a + b, first[0], second[0])
        return slope, first[1] + second[1], state

    return Objective(lambda probabilities, params: (), gradient)


def fits(key: Key, *, dim: int | Array) -> Trace:
    """Least norm with two weights of the groups, and the margin of all data and of a subsample."""
    from causal_sgd import training
    from causal_sgd.supervised import measurements

    made = {
        "least_norm": functools.partial(_least_norm, dim=dim, factor=1.0),
        "least_norm_balanced": functools.partial(_least_norm, dim=dim, factor=EXAMPLES / FEW - 1),
        "margin": functools.partial(_margin, majority=EXAMPLES - FEW),
        "margin_subsampled": functools.partial(_margin, majority=FEW),
    }
    watched: dict[str, Metric] = {name: _error(name, "max") for name in made}
    watched["margin_subsampled"] = _error("margin_subsampled", "mean")
    algorithm = training.algorithms.fitted(
        world=_world(dim, 0.0, 0.0), measurement=measurements.examples(), estimator=joined(made)
    )
    return training.run(key, algorithm=algorithm, metrics=watched, num_steps=1)


def balancing(
    key: Key, *, noise: float | Array, balanced: float | Array, subsampled: float | Array
) -> Trace:
    """The toy of balancing: ERM, RWG or SUBG."""
    import jax.numpy as jnp
    import optax

    from causal_sgd import training
    from causal_sgd.supervised import losses, measurements, metrics, models, worlds

    drawn = worlds.balancing(dim_noise=TOY_NOISE, num_examples=TOY_EXAMPLES, noise_scale=noise)

    def world(key: Key) -> MixtureWorld:
        made = cast("MixtureWorld", drawn(key))
        assert made.rows is not None
        return _regrouped(made, jnp.min(made.rows.counts), balanced, subsampled)

    algorithm = training.sgd(
        world=world,
        sampler=whole(),
        measurement=measurements.examples(loss=losses.logistic, full=True),
        model=models.linear(dim=2 + TOY_NOISE),
        optimizer=optax.sgd(1 / (17 + noise**2)),
    )
    return training.run(
        key,
        algorithm=algorithm,
        metrics=[metrics.training_error, metrics.worst_test_error],
        num_steps=TOY_STEPS,
        record_every=1,
    )


def _trained(
    key: Key,
    dim: int | Array,
    world: Callable[[Key], MixtureWorld],
    sampler: Sampler,
    objective: Objective,
) -> Trace:
    """Full-batch training from zero under logistic loss."""
    import optax

    from causal_sgd import training
    from causal_sgd.supervised import losses, measurements, metrics, models

    algorithm = training.algorithms.penalised(
        world=world,
        sampler=sampler,
        measurement=measurements.examples(loss=losses.logistic, full=True),
        model=models.linear(dim=2 + EXAMPLES),
        objective=objective,
        optimizer=optax.sgd(learning_rate(dim)),
    )
    return training.run(
        key,
        algorithm=algorithm,
        metrics=[metrics.training_error, metrics.test_error, metrics.worst_test_error],
        num_steps=STEPS,
        record_every=STEPS // FRAMES,
    )


def _world(
    dim: int | Array, balanced: float | Array, subsampled: float | Array
) -> Callable[[Key], MixtureWorld]:
    """The world with its examples, in the directions of its two signals and of their noise."""
    import jax.numpy as jnp

    from causal_sgd import random
    from causal_sgd.supervised import worlds
    from causal_sgd.supervised._moments import Rows

    size, many = EXAMPLES, EXAMPLES - FEW
    law = worlds.malign_overfitting(
        dim=2 + size,
        signal=CORE,
        spurious_signal=SPURIOUS,
        shifts=(1.0, -1.0),
        probabilities=(many / size, FEW / size),
    )

    def world(key: Key) -> MixtureWorld:
        own = random.fold_in(key, 1)
        rest = jnp.asarray(dim, float) - 2
        normals = random.normals(random.fold_in(own, 0), random.bartlett_normals(size), float)
        words = random.bits(random.fold_in(own, 1), random.bartlett_words(size))
        triangle = random.bartlett(normals, words, jnp.maximum(rest, size), size)
        square = normals[: size**2].reshape(size, size)
        plain = jnp.where(jnp.arange(size)[None] < rest, square, 0)
        # Both laws read the same numbers, of which only one is used.
        noise = jnp.where(rest >= size, triangle.T, plain)
        inner = random.normals(random.fold_in(own, 2), (size, 2), float)
        labels = jnp.where(jnp.arange(size) % 2 == 0, 1.0, -1.0)
        shifts = jnp.where(jnp.arange(size) < many, 1.0, -1.0)
        signals = jnp.stack([CORE * labels, SPURIOUS * shifts * labels], 1)
        inputs = jnp.concatenate([signals + inner, noise], 1)

        def grouped(array: Array) -> Array:
            padding = ((0, many - FEW),) + ((0, 0),) * (array.ndim - 1)
            return jnp.stack([array[:many], jnp.pad(array[many:], padding)])

        rows = Rows(grouped(inputs), grouped(labels), jnp.array([many, FEW], float))
        used = (jnp.arange(2 + size) < jnp.asarray(dim)).astype(float)
        made = cast("MixtureWorld", law(key))._replace(rows=rows, root=used)
        return _regrouped(made, jnp.asarray(FEW, float), balanced, subsampled)

    return world


def _regrouped(
    world: MixtureWorld, least: Array, balanced: float | Array, subsampled: float | Array
) -> MixtureWorld:
    """The world with equally likely groups, and with as many examples of each as the least has.

    Its examples are in no order, so that the first ones are a random choice.
    """
    import jax.numpy as jnp

    assert world.rows is not None
    equal = jnp.full_like(world.probabilities, 1 / len(world.probabilities))
    counts = jnp.where(jnp.asarray(subsampled) > 0, least, world.rows.counts)
    return world._replace(
        probabilities=jnp.where(jnp.asarray(balanced) > 0, equal, world.probabilities),
        rows=world.rows._replace(counts=counts),
    )


def _signed(data: MomentData) -> Array:
    """The signed inputs y x of all examples, [n, p], those of the majority first."""
    import jax.numpy as jnp

    assert data.rows is not None
    signed = data.rows.inputs * data.rows.labels[..., None]
    return jnp.concatenate([signed[0], signed[1, :FEW]])


def _fit(weights: Array) -> Fit:
    import jax.numpy as jnp

    from causal_sgd.types import Fit

    none = jnp.full_like(weights, jnp.nan)
    return Fit(weights, jnp.ones_like(weights, bool), none, none, jnp.asarray(-1))


def _least_norm(
    data: MomentData, world: SupervisedWorld, *, dim: int | Array, factor: float
) -> Fit:
    """Least squares with weights of the minority, or the least norm among exact solutions."""
    import jax.numpy as jnp

    from causal_sgd import linalg

    signed = _signed(data)
    majority = jnp.arange(EXAMPLES) < EXAMPLES - FEW
    root = jnp.sqrt(jnp.where(majority, 1.0, factor))
    rows = root[:, None] * signed
    gram = linalg.product(rows, rows.T)
    unused = jnp.where(jnp.arange(rows.shape[1]) < jnp.asarray(dim), 0.0, 1.0)
    normal = linalg.product(rows.T, rows) + jnp.diag(unused)
    over = linalg.product(rows.T, jnp.linalg.solve(gram, root)[:, None])[:, 0]
    under = jnp.linalg.solve(normal, linalg.product(rows.T, root[:, None])[:, 0])
    return _fit(jnp.where(jnp.asarray(dim) > EXAMPLES, over, under))


def _margin(data: MomentData, world: SupervisedWorld, *, majority: int) -> Fit:
    """The largest margin on some examples of the majority and all others, by coordinate descent
    in the dual problem; weights that separate nothing where there is no margin.
    """
    import jax
    import jax.numpy as jnp

    signed = _signed(data)
    place = jnp.arange(EXAMPLES)
    used = (place < majority) | (place >= EXAMPLES - FEW)
    squares = jnp.sum(signed**2, 1)

    def update(step: Array, state: tuple[Array, Array]) -> tuple[Array, Array]:
        duals, weights = state
        at = step % EXAMPLES
        missing = 1 - jnp.sum(signed[at] * weights)
        new = jnp.where(used[at], jnp.maximum(duals[at] + missing / squares[at], 0), 0)
        return duals.at[at].set(new), weights + (new - duals[at]) * signed[at]

    start = jnp.zeros(EXAMPLES), jnp.zeros(signed.shape[1])
    return _fit(jax.lax.fori_loop(0, SWEEPS * EXAMPLES, update, start)[1])


def _error(name: str, reduction: str) -> Metric:
    """The largest or the mean error of the groups by an estimator."""
    import jax.numpy as jnp

    def error(snapshot: Snapshot) -> Array:
        rates = snapshot.world.test_error_rates(snapshot.params.named[name].estimate)
        return jnp.max(rates) if reduction == "max" else jnp.mean(rates)

    return error
