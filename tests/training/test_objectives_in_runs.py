"""Objectives within runs: the mean is sgd, schedules are two runs glued, and what is refused."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from causal_sgd import sensing
from causal_sgd.supervised import measurements, models, worlds
from causal_sgd.training import algorithms, objectives, optimizers, samplers
from causal_sgd.types import Fit, Objective
from support.cases import few

pytestmark = pytest.mark.usefixtures("quickly_compiled")
PARTS: dict[str, Any] = {
    "world": worlds.contradiction(biases=np.array([1.5, -0.5, 0.7])),
    "sampler": samplers.stratified(batch_size=30),
    "measurement": measurements.moments(100),
    "model": models.linear(dim=2, init_scale=0.5),
    "optimizer": optax.adam(0.1),
}
SENSING: dict[str, Any] = {
    "world": sensing.worlds.two_point(dim=4, invariant_rank=1, spurious_rank=1, spread=2.0),
    "model": sensing.models.factored(dim=4, init_scale=0.1),
}
CASES: dict[str, dict[str, Any]] = {
    "pooled": {"sampler": samplers.pooled(batch_size=20)},
    "hetero": {"sampler": samplers.hetero(batch_size=20), "optimizer": optax.sgd(0.1, 0.9)},
    "fresh": {"measurement": measurements.batch_moments(), "model": models.hadamard(dim=2)},
    "law": SENSING | {"measurement": sensing.measurements.gaussian_law()},
}


PADDED: dict[str, Callable[[], Objective]] = {
    "andmask": lambda: objectives.andmask(threshold=0.5),
    "fishr": lambda: objectives.fishr(weight=1.0),
    "group_dro": lambda: objectives.group_dro(rate=0.1),
    "iga": lambda: objectives.iga(weight=1.0),
    "irmv1": lambda: objectives.irmv1(weight=1.0),
    "sandmask": lambda: objectives.sandmask(threshold=0.1, sharpness=0.1),
    "vrex": lambda: objectives.vrex(weight=1.0),
}


def last(method: Any, steps: int, key: jax.Array) -> Any:
    step = functools.partial(method.step, key)
    return jax.lax.fori_loop(0, steps, lambda _, before: step(before), method.init(key))


def equal(one: Any, other: Any) -> bool:
    return jax.tree.all(jax.tree.map(np.array_equal, one, other))


@pytest.mark.parametrize("name", few(CASES, ()))
def test_the_mean_objective_is_sgd_to_the_bit(name: str) -> None:
    parts = PARTS | CASES[name]
    states = [
        jax.jit(functools.partial(last, method, 20))(jax.random.key(1))
        for method in (
            algorithms.sgd(**parts),
            algorithms.penalised(**parts, objective=objectives.mean()),
        )
    ]
    assert equal(*((state.params, state.optimizer, state.loss) for state in states))
    assert np.isfinite(states[0].loss)


@pytest.mark.slow
def test_an_annealed_and_restarted_run_is_two_runs_in_turn() -> None:
    """Every number of the schedule is traced."""
    key, change, steps = jax.random.key(2), 3, 7

    @jax.jit
    def scheduled(at: jax.Array, early: jax.Array, late: jax.Array) -> Any:
        method = algorithms.penalised(
            **PARTS
            | {
                "objective": objectives.annealed(
                    functools.partial(objectives.irmv1, intercept=True),
                    start=at,
                    before={"weight": early, "risk_weight": 1.0},
                    after={"weight": late, "risk_weight": 0.25},
                ),
                "optimizer": optimizers.restarted(optax.adam(0.1), at=at),
            }
        )
        return last(method, steps, key)

    def with_weights(weight: float, risk_weight: float) -> Any:
        objective = objectives.irmv1(weight=weight, risk_weight=risk_weight, intercept=True)
        return algorithms.penalised(**PARTS, objective=objective)

    @jax.jit
    def in_turn() -> Any:
        first, second = with_weights(1.0, 1.0), with_weights(50.0, 0.25)
        state = last(first, change, key)
        state = state._replace(optimizer=optax.adam(0.1).init(state.params))
        step = functools.partial(second.step, key)
        return jax.lax.fori_loop(change, steps, lambda _, before: step(before), state)

    found, expected = scheduled(jnp.asarray(change), jnp.asarray(1.0), jnp.asarray(50.0)), in_turn()
    assert found.optimizer.updates == steps
    pairs = (
        (found.params["weights"], expected.params["weights"]),
        (found.loss, expected.loss),
        (found.optimizer.inner[0].mu["weights"], expected.optimizer[0].mu["weights"]),
    )
    for one, other in pairs:
        np.testing.assert_allclose(one, other, rtol=1e-5)
    assert found.optimizer.inner[0].count == expected.optimizer[0].count == steps - change
    other = scheduled(jnp.asarray(4), jnp.asarray(1.0), jnp.asarray(50.0))
    assert not np.allclose(other.params["weights"], found.params["weights"], rtol=1e-3)


MASK: dict[str, Any] = {"threshold": 0.5}
REFUSED: dict[str, tuple[Callable[[], Objective], dict[str, Any], str]] = {
    name: (make, SENSING | {"measurement": sensing.measurements.gaussian_law()}, message)
    for name, make, message in [
        ("irmv1", lambda: objectives.irmv1(weight=1.0), "risks of environments on a batch"),
        ("vrex", lambda: objectives.vrex(weight=1.0), "risks of environments on a batch"),
        ("birm", lambda: objectives.birm(weight=1.0, deviation=0.1), "risks of environments"),
        ("group_dro", lambda: objectives.group_dro(rate=1.0), "risks of environments"),
        ("iga", lambda: objectives.iga(weight=1.0), "risks of environments"),
        ("andmask", lambda: objectives.andmask(**MASK), "risks of environments"),
        ("sandmask", lambda: objectives.sandmask(**MASK, sharpness=1.0), "risks of environments"),
        ("sd", lambda: objectives.sd(weight=1.0), "risks of environments"),
        ("irm", lambda: objectives.irm(weight=1.0), "risks of environments"),
        ("coral", lambda: objectives.coral(weight=1.0), "means and covariances of features"),
        ("fishr", lambda: objectives.fishr(weight=1.0), "variances of single examples' gradients"),
    ]
} | {
    "halves of a data set": (
        lambda: objectives.irmv1(weight=1.0, halves=True),
        {},
        "measurement must draw fresh examples in every step .* got moments",
    ),
    "intercepts of matrices": (
        lambda: objectives.irmv1(weight=1.0, intercept=True),
        SENSING | {"measurement": sensing.measurements.population()},
        "measurement must have losses with an intercept .* got population",
    ),
    "no head": (
        lambda: objectives.irm(weight=1.0),
        {"model": models.hadamard(dim=2)},
        "model must have a head for the penalty of irm",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_objectives_name_what_is_missing(name: str) -> None:
    make, changes, message = REFUSED[name]
    method = algorithms.penalised(**PARTS | changes, objective=make())
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(functools.partial(last, method, 1), jax.random.key(0))


def own(*changes: Any) -> Objective:
    """The mean, of which the last results are others."""

    def gradient(step: Any, state: Any, examples: Any, params: Any) -> Any:
        results = *examples.measure(params), state
        return results[: 3 - len(changes)] + changes

    return Objective(lambda probabilities, params: (), gradient)


def pair(*_: Any) -> Any:
    """Without a state."""
    return 0.0, 0.0


@pytest.mark.parametrize(
    ("objective", "message"),
    [
        (own(jnp.zeros(3), jnp.zeros(()), ()), "objective's gradient must have the shapes"),
        (own(jnp.zeros(3), ()), r"objective's value must have the shape \[\]"),
        (own(jnp.zeros(2)), "objective's state must have the shapes"),
        (
            Objective(lambda probabilities, params: (), pair),
            r"objective.gradient must return \(gradient, value, state\), got a tuple of 2",
        ),
        (
            objectives.from_value(lambda examples, params: examples.risks()(params)),
            r"value must return one number, \[\], got an array \[3\]",
        ),
    ],
)
def test_results_of_the_users_objectives_are_checked(objective: Objective, message: str) -> None:
    method = algorithms.penalised(**PARTS, objective=objective)
    with pytest.raises((ValueError, AssertionError), match=message):
        jax.eval_shape(functools.partial(last, method, 1), jax.random.key(0))


def test_results_of_the_users_estimators_are_checked() -> None:
    def refused(result: Any) -> Any:
        method = algorithms.fitted(
            world=PARTS["world"],
            measurement=PARTS["measurement"],
            estimator=lambda data, world: result,
        )
        return lambda: jax.eval_shape(method.init, jax.random.key(0))

    with pytest.raises(ValueError, match="the estimator's result must be a types.Fit"):
        refused(jnp.zeros(2))()
    wide = jnp.zeros(3)
    with pytest.raises(AssertionError, match="the estimate does not have the shape of the world's"):
        refused(Fit(wide, wide > 0, wide, wide, jnp.zeros((), int)))()


def wrong(factory: Callable[..., Any], message: str, **arguments: Any) -> Any:
    name = f"{factory.__name__}-{'-'.join(arguments)}"
    return pytest.param(factory, arguments, message, id=name)


@pytest.mark.parametrize(
    ("factory", "arguments", "message"),
    [
        *(
            wrong(factory, "weight must be a finite number at least 0, got -1", weight=-1)
            for factory in (
                *(objectives.irm, objectives.irmv1, objectives.vrex, objectives.iga),
                *(objectives.fishr, objectives.coral, objectives.sd),
            )
        ),
        wrong(objectives.irmv1, "risk_weight must be .* got nan", weight=1, risk_weight=np.nan),
        wrong(objectives.irmv1, "halves must be True or False", weight=1, halves=2),
        wrong(objectives.birm, "deviation must be .* at least 0", weight=1, deviation=-0.1),
        wrong(objectives.birm, "draws must be .* at least 1", weight=1, deviation=1, draws=0),
        wrong(objectives.group_dro, "rate must be .* at least 0, got -1", rate=-1),
        wrong(objectives.andmask, "threshold must be .* at most 1, got 2", threshold=2),
        wrong(objectives.andmask, "variant must be one of domainbed", threshold=1, variant="x"),
        wrong(objectives.sandmask, "sharpness must be .* above 0", threshold=1, sharpness=0),
        wrong(objectives.fishr, "decay must be .* at most 1, got 1.5", weight=1, decay=1.5),
        wrong(
            objectives.annealed,
            "before and after must name the same numbers",
            objective=objectives.vrex,
            start=1,
            before={"weight": 1.0},
            after={"risk_weight": 1.0},
        ),
        wrong(
            objectives.annealed,
            "weight must be .* at least 0, got -2",
            objective=objectives.vrex,
            start=1,
            before=1.0,
            after=-2,
        ),
        wrong(
            objectives.annealed,
            "objective must be a factory that takes weight",
            objective=objectives.mean,
            start=1,
            before=1.0,
            after=2.0,
        ),
        wrong(optimizers.restarted, "at must be .* at least 0", optimizer=optax.sgd(0.1), at=-1),
        wrong(optimizers.restarted, "optimizer must be an optax", optimizer=optax.sgd, at=1),
    ],
)
def test_wrong_arguments_are_named(
    factory: Callable[..., Any], arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        factory(**arguments)


@pytest.mark.parametrize("name", few(PADDED, ()))
def test_environments_that_do_not_occur_change_nothing(name: str) -> None:
    def final(**environments: Any) -> jax.Array:
        algorithm = algorithms.penalised(
            world=worlds.unit_test_regression(dim_causal=2, dim_spurious=1, **environments),
            sampler=samplers.stratified(batch_size=3),
            measurement=measurements.moments(),
            model=models.linear(dim=3),
            optimizer=optax.adam(1e-2),
            objective=PADDED[name](),
        )
        return last(algorithm, 50, jax.random.key(0)).params["weights"]

    absent = np.array([1 / 3, 1 / 3, 1 / 3, 0.0, 0.0])
    padded = final(num_environments=5, probabilities=absent)
    np.testing.assert_allclose(padded, final(num_environments=3), rtol=1e-4, atol=1e-6)
