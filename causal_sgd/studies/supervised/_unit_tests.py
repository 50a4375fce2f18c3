"""Runs of the invariance unit tests (Aubin et al. 2021), which the benchmark command shares.

Hyperparameter seed s stands for the values of the source: s = 0 for its defaults, others for draws
of Python's generator with the seed 1000 + s. The objectives are those of the source on the scale of
the package: R = 4 R' for squared residuals, and R = R' for logistic loss.

V-REx and GroupDRO are not among the source's methods. They have the learning rates and decays of
ERM, and weights in the ranges of DomainBed (Gulrajani and Lopez-Paz 2021), drawn after them.
"""

from __future__ import annotations

import random as python_random
from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    import optax
    import xarray as xr

    from causal_sgd.supervised.worlds import WorldFactory
    from causal_sgd.types import Array, Key, Measured, Objective, Params, Snapshot, State, Trace

__all__ = [
    "DIM_CAUSAL",
    "EXAMPLES",
    "METHODS",
    "WEIGHTED",
    "Choice",
    "cell",
    "choose",
    "hyperparameters",
    "job_error",
    "job_selection",
    "job_world",
    "weighted",
]

EXAMPLES = ("Example1", "Example2", "Example3")
METHODS = ("ERM", "IRMv1", "ANDMask", "IGA", "Oracle")
WEIGHTED = ("ERM", "V-REx", "GroupDRO")  # of one program, see `weighted`
DIM_CAUSAL = 5
MULTIPLE = 2520  # of all numbers of environments up to ten, so that batches divide equally
RANGES = {  # method -> defaults, and ranges of log10 of the rate and the decay
    "ERM": ((1e-3, 0.0), (-4, -2), (-6, -2)),
    "Oracle": ((1e-3, 0.0), (-4, -2), (-6, -2)),
    "IRMv1": ((1e-3, 0.0, 0.9), (-4, -2), (-6, -2)),
    "ANDMask": ((1e-3, 0.0, 0.9), (-4, 0), (-5, 0)),
    "IGA": ((1e-3, 0.0, 1000.0), (-4, -2), (-6, -2)),
    "V-REx": ((1e-3, 0.0, 10.0), (-4, -2), (-6, -2)),
    "GroupDRO": ((1e-3, 0.0, 0.01), (-4, -2), (-6, -2)),
}


def hyperparameters(method: str, seeds: int) -> dict[str, np.ndarray]:
    """The learning rates, weight decays and strengths of hyperparameter seeds 0, ..., seeds - 1.

    The strength is lambda of IRMv1, tau of ANDMask, the penalty of IGA or V-REx, the rate of the
    weights of GroupDRO, and 0 for others.
    """
    default, rates, decays = RANGES[method]
    rows = []
    for seed in range(seeds):
        generator = python_random.Random(1000 + seed)
        row = [10 ** generator.uniform(*rates), 10 ** generator.uniform(*decays)]
        if method == "IRMv1":
            row.append(1 - 10 ** generator.uniform(-3, -0.3))
        elif method == "ANDMask":
            row.append(generator.uniform(0.8, 1))
        elif method == "IGA":
            row.append(10 ** generator.uniform(1, 5))
        elif method == "V-REx":
            row.append(10 ** generator.uniform(-1, 5))
        elif method == "GroupDRO":
            row.append(10 ** generator.uniform(-3, -1))
        rows.append(([*row, 0.0] if seed else [*default, 0.0])[:3])
    names = ("learning_rate", "decay", "strength")
    return dict(zip(names, np.array(rows).T, strict=True))


def weighted(seeds: int) -> dict[str, np.ndarray]:
    """The numbers of `cell` for all methods of `WEIGHTED`, one after the other.

    They share the objective sum_e q_e R_e + strength Var_e R_e, in which GroupDRO changes q at a
    rate, so that one program trains them all.
    """
    rows = {method: hyperparameters(method, seeds) for method in WEIGHTED}
    rates = {method: np.zeros(seeds) for method in WEIGHTED}
    rates["GroupDRO"] = rows["GroupDRO"].pop("strength")
    rows["GroupDRO"]["strength"] = np.zeros(seeds)
    numbers = {method: {**rows[method], "rate": rates[method]} for method in WEIGHTED}
    return {
        name: np.concatenate([numbers[method][name] for method in WEIGHTED])
        for name in numbers["ERM"]
    }


def cell(
    key: Key,
    *,
    learning_rate: Array,
    decay: Array,
    strength: Array,
    rate: Array | float = 0.0,
    scramble: Array | float = 0.0,
    environments: Array | int = 3,
    spurious: Array | int = 5,
    example: str,
    method: str,
    steps: int,
    most_environments: int = 3,
    most_spurious: int = 5,
    nodes: int = 16,
) -> Trace:
    """One job: a method on an example, with all data of the population.

    Args:
        key: of the world and the initial weights.
        learning_rate: of Adam, or of gradient descent (ANDMask, and "weighted" on Example1, where
            it starts at zero).
        decay: factor of the weights that is added to the gradient.
        strength: see `hyperparameters`.
        rate: of the weights of the environments, for "weighted".
        scramble: whether the inputs are rotated, above 0.5.
        environments: E, at most `most_environments`.
        spurious: number of spurious inputs, at most `most_spurious`.
        example: of `EXAMPLES`.
        method: of `METHODS`, or "weighted", see there.
        steps: of training.
        most_environments: places for environments in the program.
        most_spurious: places for spurious inputs in the program.
        nodes: of the quadrature.

    Returns:
        A trace of `selection` and `error`, the means over the environments of the squared residual
        or the share of wrong signs: in training (for Oracle in the test), and in the test.
    """
    import jax.numpy as jnp

    from causal_sgd import algorithms, samplers
    from causal_sgd.supervised import measurements, models, worlds
    from causal_sgd.training import run

    regression = example == "Example1"
    factory = job_world(example, scramble, environments, spurious, most_environments, most_spurious)
    used = DIM_CAUSAL + jnp.asarray(spurious, float)
    width = jnp.zeros(()) if regression and method == "weighted" else used**-0.5
    algorithm = algorithms.penalised(
        world=worlds.on_tests(factory) if method == "Oracle" else factory,
        sampler=samplers.stratified(batch_size=MULTIPLE),
        measurement=measurements.moments() if regression else measurements.quadrature(nodes=nodes),
        model=models.linear(
            dim=DIM_CAUSAL + most_spurious, intercept=True, init="uniform", init_scale=width
        ),
        objective=_objective(method, strength, rate, environments, regression=regression),
        optimizer=_optimizer(method, learning_rate, decay, regression=regression),
    )
    recorded = {"selection": job_selection, "error": job_error}
    return run(key, algorithm=algorithm, metrics=recorded, num_steps=steps)


def job_world(
    example: str,
    scramble: Array | float,
    environments: Array | int = 3,
    spurious: Array | int = 5,
    most_environments: int = 3,
    most_spurious: int = 5,
) -> WorldFactory:
    """The world of a job; see `cell`."""
    import jax
    import jax.numpy as jnp

    from causal_sgd.supervised import worlds

    make = {
        "Example1": worlds.unit_test_regression,
        "Example2": worlds.unit_test_cows,
        "Example3": worlds.unit_test_margin,
    }[example]
    present = (jnp.arange(most_environments) < environments).astype(float)
    plain, turned = (
        make(
            dim_causal=DIM_CAUSAL,
            dim_spurious=most_spurious,
            used_spurious=spurious,
            num_environments=most_environments,
            probabilities=present / jnp.sum(present),
            scramble=scrambled,
        )
        for scrambled in (False, True)
    )

    def world(key: Key) -> worlds.SupervisedWorld:
        return jax.tree.map(
            lambda one, other: jnp.where(jnp.asarray(scramble) > 0.5, other, one),
            plain(key),
            turned(key),
        )

    return world


def _objective(
    method: str,
    strength: Array,
    rate: Array | float,
    environments: Array | int,
    *,
    regression: bool,
) -> Objective:
    """The source's objective; its penalties are sums over environments and here they are means."""
    import jax.numpy as jnp

    from causal_sgd import objectives

    loss, square = (4.0, 16.0) if regression else (1.0, 1.0)
    if method == "ANDMask":
        return objectives.andmask(threshold=strength, variant="unit_tests")
    if method == "IRMv1":
        return objectives.irmv1(
            weight=square * strength * environments,
            risk_weight=loss * (1 - strength),
            intercept=True,
        )
    if method == "IGA":
        return objectives.iga(weight=square * strength * environments, risk_weight=loss)
    if method == "weighted":
        return _sum(
            objectives.group_dro(rate=loss * rate, weight=loss),
            objectives.vrex(weight=square * strength, risk_weight=0.0),
        )
    if not regression:
        return objectives.mean()
    return objectives.from_value(
        lambda examples, params: loss * jnp.sum(examples.shares * examples.risks()(params))
    )


def _sum(first: Objective, second: Objective) -> Objective:
    """The sum of two objectives, of which the second has no state."""
    import jax

    from causal_sgd.types import Objective

    def gradient(
        step: Array, state: State, examples: Measured, params: Params
    ) -> tuple[Params, Array, State]:
        slope, value, state = first.gradient(step, state, examples, params)
        other, height, _ = second.gradient(step, (), examples, params)
        return jax.tree.map(lambda one, two: one + two, slope, other), value + height, state

    return Objective(first.init, gradient)


def _optimizer(
    method: str, learning_rate: Array, decay: Array, *, regression: bool
) -> optax.GradientTransformation:
    import optax

    decayed = optax.add_decayed_weights(decay)
    if method == "weighted" and regression:
        return optax.chain(decayed, optax.sgd(learning_rate))
    if method != "ANDMask":
        return optax.chain(decayed, optax.adam(learning_rate))
    # Gradients of weights are normalised; that of the intercept has the scale of the loss.
    factor = 4.0 if regression else 1.0

    def rescaled(updates: Params, params: Params | None) -> Params:
        del params
        return {**updates, "intercept": factor * updates["intercept"]}

    return optax.chain(optax.stateless(rescaled), decayed, optax.sgd(learning_rate))


def job_selection(snapshot: Snapshot) -> Array:
    """The error in the run's own environments; []."""
    from causal_sgd.supervised import metrics
    from causal_sgd.supervised.worlds import LinearWorld

    regression = isinstance(snapshot.world, LinearWorld)
    return (metrics.training_risk if regression else metrics.training_error)(snapshot)


def job_error(snapshot: Snapshot) -> Array:
    """The error in the environments of the test, of which there are as many; []."""
    import jax.numpy as jnp

    from causal_sgd.supervised import metrics
    from causal_sgd.supervised.worlds import LinearWorld

    world = snapshot.world
    if isinstance(world, LinearWorld):
        intercept = jnp.reshape(snapshot.model.intercept(snapshot.params), 1)
        vector = jnp.concatenate([snapshot.estimate, -jnp.ones(1), intercept])
        errors = jnp.einsum("q,tqr,r->t", vector, world.test_moments, vector, precision="highest")
    else:
        errors = metrics.test_errors(snapshot)
    return jnp.sum(world.probabilities * errors)


class Choice(NamedTuple):
    """What the selection by held-out data of the training environments chooses."""

    seed: int  # hyperparameter seed
    errors: np.ndarray  # [data seeds] at this seed
    every: np.ndarray  # [hyperparameter seeds] mean errors


def choose(data: Mapping[str, xr.DataArray] | xr.Dataset) -> Choice:
    """The hyperparameters with the least selection error, as a mean over the data seeds.

    Args:
        data: `selection` and `error` [hyper, seed]. Runs that diverged are worse than all others.
    """
    selection = data["selection"].transpose("hyper", "seed").values
    error = data["error"].transpose("hyper", "seed").values
    means = np.where(np.isfinite(selection), selection, np.inf).mean(1)
    best = int(means.argmin())
    return Choice(best, error[best], error.mean(1))
