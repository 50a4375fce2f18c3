"""The table of the contradiction world against minimisation on explicit moments, in NumPy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import optimize

from causal_sgd import theory
from causal_sgd.supervised import estimators, measurements, models, worlds
from causal_sgd.theory.invariance import contradiction
from causal_sgd.training import algorithms, objectives, samplers

pytestmark = pytest.mark.usefixtures("quickly_compiled")

WORLDS = [(0.5, 0.3, 4.0), (0.5, 1.2, 4.0), (1.4, 0.6, 1.7), (-0.8, 0.5, 3.0)]
"""Mean and spread of the biases, and the variance of the spurious input."""


def moments(mean: float, spread: float, variance: float, noises: tuple = (1.0, 1.0)) -> np.ndarray:
    """Of (x1, x2, y) in both environments."""
    result = []
    for bias, noise in zip((mean + spread, mean - spread), noises, strict=True):
        result.append([[1, 0, 1], [0, variance, bias], [1, bias, 1 + noise]])
    return np.array(result)


class Environment:
    """What penalties are made of, from the moments of one environment."""

    def __init__(self, second: np.ndarray, w: np.ndarray) -> None:
        r, f = np.append(w, -1), np.append(w, 0)
        self.loss = r @ second @ r / 4
        self.slope = r @ second @ f / 2  # of the loss in a factor of the prediction
        self.gradient = (second @ r)[:2] / 2
        # of single examples' gradients r x/2, by Isserlis' theorem
        self.variances = 4 * self.loss * np.diag(second)[:2] / 4 + self.gradient**2


Penalty = Callable[[list[Environment]], Any]
PENALTIES: dict[str, Penalty] = {
    "erm": lambda each: 0.0,
    "vrex": lambda each: np.var([e.loss for e in each]),
    "irmv1": lambda each: np.mean([e.slope**2 for e in each]),
    "iga": lambda each: np.sum(np.var([e.gradient for e in each], axis=0)),
    "fishr": lambda each: np.sum(np.var([e.variances for e in each], axis=0)),
}


def minimised(second: np.ndarray, penalty: Penalty, weight: float) -> np.ndarray:
    """The best of several descents."""

    def value(w: np.ndarray) -> Any:
        each = [Environment(one, w) for one in second]
        return np.mean([e.loss for e in each]) + weight * penalty(each)

    starts = ([1.0, 0.0], [1.0, 0.4], [0.7, -0.3], [0.1, 0.1])
    results = [optimize.minimize(value, start, method="BFGS", tol=1e-9) for start in starts]
    return min(results, key=lambda result: result.fun).x


@pytest.mark.parametrize("name", PENALTIES)
def test_penalties_have_these_minima(name: str) -> None:
    weights = {"vrex": (0.3, 40.0), "irmv1": (0.3, 7.0, 40.0, 400.0), "fishr": (0.2, 30.0)}
    for mean, spread, variance in WORLDS:
        for weight in weights.get(name, (3.0,)):
            expected = minimised(moments(mean, spread, variance), PENALTIES[name], weight)
            options = {"weight": weight} if name in weights else {}
            found = getattr(contradiction, name)(mean, spread, variance=variance, **options)
            np.testing.assert_allclose(np.array(found), expected, atol=2e-5)


def test_noises_of_different_variance_bias_vrex_alone() -> None:
    second = moments(0.5, 0.3, 4.0, (1.6, 1.0))
    found = contradiction.vrex(0.5, 0.3, weight=40.0, noise_spread=0.3)
    np.testing.assert_allclose(found, minimised(second, PENALTIES["vrex"], 40.0), atol=2e-5)
    found = contradiction.irmv1(0.5, 0.3, weight=40.0)
    np.testing.assert_allclose(found, minimised(second, PENALTIES["irmv1"], 40.0), atol=2e-5)
    limit = contradiction.vrex(0.5, 0.3, weight=1e6, noise_spread=0.3).spurious
    assert float(limit) == pytest.approx((1.6 - 1.0) / (2 * 0.6), rel=1e-4)


def test_irmv1_has_a_second_minimum_near_the_origin() -> None:
    """Descent from the origin's side ends there; below a weight of 8 it reaches the first one."""

    def descend(weight: float) -> float:
        w = np.array([0.01, 0.0])
        for _ in range(1000):
            each = [Environment(one, w) for one in moments(0.0, 0.5, 2.0)]
            slope = np.mean([e.gradient for e in each], 0)
            for e, second in zip(each, moments(0.0, 0.5, 2.0), strict=True):
                f = np.append(w, 0)
                slope = slope + weight * e.slope * (e.gradient + (second @ f)[:2] / 2)
            w = w - 0.5 / (1 + weight) * slope
        return w[0]

    for weight in (9.0, 40.0):
        trap = float(contradiction.irmv1_trap(weight))
        assert descend(weight) == pytest.approx(trap, abs=1e-5)
        assert trap < 0.25
    assert np.isnan(contradiction.irmv1_trap(7.9))
    assert descend(7.0) == pytest.approx(1.0, abs=1e-4)


def test_group_dro_minimises_the_largest_risk() -> None:
    for mean, spread, variance in WORLDS:
        grid = np.linspace(-1, 1, 4001)
        biases = np.array([mean + spread, mean - spread])
        risks = variance * grid[:, None] ** 2 - 2 * biases[None] * grid[:, None]
        best = grid[np.argmin(risks.max(1))]
        found = contradiction.group_dro(mean, spread, variance=variance)
        assert float(found.spurious) == pytest.approx(best, abs=5e-4)
        assert float(found.invariant) == 1


def test_andmask_stops_where_signs_no_longer_agree() -> None:
    for mean, spread, variance in WORLDS:
        w = np.zeros(2)
        for _ in range(1500):
            each = [Environment(one, w) for one in moments(mean, spread, variance)]
            gradients = np.array([e.gradient for e in each])
            agree = np.abs(np.sign(gradients).sum(0)) == 2
            w = w - 0.02 * agree * gradients.mean(0)
        found = contradiction.andmask(mean, spread, variance=variance)
        np.testing.assert_allclose(found, w, atol=0.02)  # a step


@pytest.mark.parametrize("method", ["eills", "fair"])
def test_subset_searches_choose_by_their_threshold(method: str) -> None:
    """Over all four sets, just below and above the threshold."""
    for mean, spread, variance in WORLDS:
        second = moments(mean, spread, variance)
        threshold = getattr(contradiction, f"{method}_threshold")(mean, spread, variance=variance)
        for gamma in (0.98 * float(threshold), 1.02 * float(threshold)):
            values = {}
            for chosen in ([], [0], [1], [0, 1]):
                x = second[:, :2, :2][:, chosen][:, :, chosen]
                c = second[:, :2, 2][:, chosen]
                inverse = [
                    np.eye(len(chosen)) if method == "eills" else np.linalg.inv(s) for s in x
                ]
                pairs = list(zip(x, c, inverse, strict=True))
                system = np.mean([s + gamma * s @ i @ s for s, _, i in pairs], 0)
                right = np.mean([v + gamma * s @ i @ v for s, v, i in pairs], 0)
                w = np.linalg.solve(system, right)
                constant = np.mean([v @ i @ v for _, v, i in pairs])
                full = np.zeros(2)
                full[chosen] = w
                values[tuple(full)] = gamma * constant / 2 - right @ w / 2
            best = np.array(min(values, key=values.__getitem__))
            found = getattr(contradiction, method)(mean, spread, gamma=gamma, variance=variance)
            np.testing.assert_allclose(found, best, atol=1e-6)


def test_icp_selects_by_the_changes_of_its_input() -> None:
    """Sets whose population residuals have equal variances in both environments are accepted."""
    for inputs, noise in ((0.0, 0.0), (0.3, 0.0), (0.0, 0.2), (0.3, 0.2)):
        second = moments(0.5, 0.3, 4.0, (1 + noise, 1 - noise))
        for sign, one in zip((1, -1), second, strict=True):
            one[0, 0] += sign * inputs
            one[0, 2] = one[2, 0] = one[0, 0]
            one[2, 2] += sign * inputs
        accepted = []
        for chosen in ([], [0], [1], [0, 1]):
            pooled = second.mean(0)
            v = np.array([0.0, 0, -1])
            v[chosen] = np.linalg.solve(pooled[chosen][:, chosen], pooled[chosen, 2])
            variances = [v @ one @ v for one in second]
            if abs(variances[0] - variances[1]) < 1e-9:
                accepted.append(set(chosen))
        selected = set.intersection(*accepted) if accepted else set()
        found = contradiction.icp(0.5, 0.3, input_spread=inputs, noise_spread=noise)
        assert (float(found.invariant), float(found.spurious)) == (float(0 in selected), 0)
        assert 1 not in selected


def test_blind_methods_see_no_difference() -> None:
    """Neither the means nor the second moments of the inputs differ in the world itself."""
    world = worlds.contradiction(mean=0.5, spread=0.3, variance=4.0)(jax.random.key(0))
    inputs = np.delete(np.asarray(world.second_moments)[:, [0, 1, 3]], 2, 2)
    np.testing.assert_allclose(inputs[0], inputs[1], atol=1e-6)
    data = measurements.moments().init(jax.random.key(0), world)
    anchored = estimators.anchor(100.0)(data, world).estimate
    for name in ("coral", "anchor", "iga"):
        found = getattr(contradiction, name)(0.5, 0.3, variance=4.0)
        np.testing.assert_allclose(found, anchored, rtol=1e-5)
    assert np.isnan(contradiction.causal_dantzig(0.5, 0.3)).all()


def test_the_excess_risk_is_that_of_moments() -> None:
    for mean, spread, variance in WORLDS:
        biases = (mean + spread, mean - spread)
        for bias, second in zip(biases, moments(mean, spread, variance), strict=True):
            found = contradiction.excess_risk(0.7, 0.2, bias=bias, variance=variance)
            loss = Environment(second, np.array([0.7, 0.2])).loss
            assert float(found) == pytest.approx(4 * loss - 1, abs=1e-6)


def test_figures_of_the_canonical_world() -> None:
    vrex = contradiction.vrex(0.5, 0.3, weight=40.0).spurious
    irmv1 = contradiction.irmv1(0.5, 0.3, weight=40.0).spurious
    np.testing.assert_allclose([vrex, irmv1], [0.0658, 0.0658], atol=6e-5)
    limit = contradiction.fishr(1.0, 0.3, weight=1e6).spurious
    assert float(limit) == pytest.approx(8 / 65, rel=1e-4)
    spreads = [float(theory.critical_spread(rate, 1.0)) for rate in (0.05, 0.1, 0.2)]
    np.testing.assert_allclose(spreads, [6.40, 4.58, 3.32], atol=5e-3)


def table(mean: Any, spread: Any) -> dict[str, Any]:
    """The weights of all methods."""
    methods = {}
    for name in set(contradiction.__all__) - {"Weights", "excess_risk", "irmv1_trap"}:
        options = {"weight": 2.0} if name in ("vrex", "irmv1", "fishr") else {}
        options |= {"gamma": 2.0} if name in ("eills", "fair") else {}
        methods[name] = getattr(contradiction, name)(mean, spread, **options)
    return methods


def test_formulas_map_and_trace() -> None:
    means, spreads = jnp.array([0.5, 0.7]), jnp.array([0.1, 1.0])
    mapped = jax.jit(jax.vmap(table))(means, spreads)
    for lane in range(2):
        one = table(means[lane], spreads[lane])
        for found, expected in zip(jax.tree.leaves(mapped), jax.tree.leaves(one), strict=True):
            np.testing.assert_allclose(found[lane], expected, rtol=1e-5)


METHODS: dict[str, tuple[Any, float]] = {
    "vrex": (objectives.vrex(weight=40.0), 0.05),
    "irmv1": (objectives.irmv1(weight=40.0), 0.02),
    "iga": (objectives.iga(weight=3.0), 0.05),
    "fishr": (objectives.fishr(weight=30.0, decay=0.0), 0.005),
    "group_dro": (objectives.group_dro(rate=1.0), 0.02),
    "andmask": (objectives.andmask(threshold=0.9), 0.02),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", METHODS)
def test_runs_of_an_objective_end_at_its_formula(name: str) -> None:
    """From least squares, where the second minimum of IRMv1 is far; ANDMask from the origin."""
    objective, rate = METHODS[name]
    algorithm = algorithms.penalised(
        world=worlds.contradiction(mean=0.5, spread=0.3, variance=4.0),
        sampler=samplers.stratified(batch_size=2),
        measurement=measurements.moments(),
        model=models.linear(dim=2),
        objective=objective,
        optimizer=optax.sgd(rate),
    )

    def last(key: jax.Array) -> jax.Array:
        state = algorithm.init(key)
        start = jnp.array([0.0, 0.0] if name == "andmask" else [1.0, 0.125])
        state = state._replace(params={"weights": start})
        state = jax.lax.fori_loop(0, 4000, lambda _, each: algorithm.step(key, each), state)
        return state.params["weights"]

    options = {"vrex": 40.0, "irmv1": 40.0, "fishr": 30.0}
    options = {"weight": options[name]} if name in options else {}
    found = getattr(contradiction, name)(0.5, 0.3, **options)
    weights = jax.jit(last)(jax.random.key(0))
    tolerance = 0.01 if name == "andmask" else 2e-4  # a step
    np.testing.assert_allclose(weights, np.array(found), atol=tolerance)
