"""Objectives against the sources' formulas in NumPy, in the sources' scales of the loss.

A source's loss is the mean squared residual, four times the house's. Each row states the objective
with converted weights beside the source's formula; gradients are central differences of it.
"""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from causal_sgd.supervised import measurements, models, worlds
from causal_sgd.supervised._moments import MomentData, Moments
from causal_sgd.training import objectives
from causal_sgd.training.algorithms._examples import Examples
from causal_sgd.training.objectives import _heads
from causal_sgd.types import Batch, Objective

pytestmark = pytest.mark.usefixtures("quickly_compiled")
DIM, SIZE = 3, 3
INPUTS = [0, 1, 2, 4]  # of z = (x, y, 1), whose weights are parameters
POINT = np.array([0.7, -0.4, 1.1, 0.3])  # w and b
COUNTS = np.array([6, 6, 6])


def moments() -> np.ndarray:
    """Moments [3, 5, 5] of environments with means."""
    factor = np.random.default_rng(1).normal(size=(SIZE, 4, 6)) / 2
    mean = np.random.default_rng(2).normal(size=(SIZE, 4)) / 2
    second = np.zeros((SIZE, 5, 5))
    second[:, :4, :4] = factor @ factor.transpose(0, 2, 1) + mean[:, :, None] * mean[:, None, :]
    second[:, :4, 4] = second[:, 4, :4] = mean
    second[:, 4, 4] = 1
    return second


SECOND = moments()


class Source(NamedTuple):
    """What sources compute, for every environment."""

    risks: np.ndarray  # [E] mean r^2
    by_scale: np.ndarray  # [E]
    by_shift: np.ndarray  # [E]
    gradients: np.ndarray  # [E, p + 1]
    squares: np.ndarray  # [E] mean f^2
    by_head: np.ndarray  # [E, p]
    variances: np.ndarray  # [E, p + 1] of single examples' gradients


def source(point: np.ndarray) -> Source:
    residual, prediction = np.insert(point, 3, -1), np.insert(point, 3, 0)
    applied = SECOND @ residual
    mean = SECOND[:, :, 4]
    covariance = SECOND - mean[:, :, None] * mean[:, None, :]
    cross, own = covariance @ residual, np.einsum("eii->ei", covariance)
    variance, average = (cross @ residual)[:, None], (mean @ residual)[:, None]
    products = (variance + average**2) * own + cross**2
    products = products + mean**2 * variance + 2 * average * mean * cross
    return Source(
        risks=applied @ residual,
        by_scale=2 * applied @ prediction,
        by_shift=2 * applied[:, 4],
        gradients=2 * applied[:, INPUTS],
        squares=np.einsum("i,eij,j->e", prediction, SECOND, prediction),
        by_head=2 * applied[:, :3] * point[:3],
        variances=4 * products[:, INPUTS],
    )


def spread(values: np.ndarray) -> np.ndarray:
    """|value - mean|^2 of each environment."""
    return ((values - values.mean(0)) ** 2).reshape(len(values), -1).sum(1)


def examples(counts: np.ndarray = COUNTS, model: Any = None, **changes: Any) -> Examples:
    """The examples of a step whose moments are known."""
    data = MomentData(Moments(jnp.asarray(SECOND), jnp.full(SIZE, jnp.inf)))
    parts = Examples(
        measurements.moments(),
        jax.random.key(0),
        jnp.asarray(5),
        data,
        model or models.linear(dim=DIM, intercept=True),
        SimpleNamespace(gaussian=True),
        Batch(jnp.arange(SIZE, dtype=jnp.int32), jnp.asarray(counts, jnp.int32)),
    )
    return parts._replace(**changes)


def params_at(point: np.ndarray) -> dict[str, jax.Array]:
    return {"weights": jnp.asarray(point[:3]), "intercept": jnp.asarray(point[3])}


def flat(gradient: Any) -> np.ndarray:
    return np.append(gradient["weights"], gradient["intercept"])


def evaluated(objective: Objective, state: Any = None, **changes: Any) -> tuple[Any, Any, Any]:
    """Gradient [p + 1], value and state at the point, in double precision."""

    def result() -> Any:
        params = params_at(POINT)
        start = objective.init(jnp.full(SIZE, 1 / SIZE), params) if state is None else state
        return objective.gradient(jnp.asarray(5), start, examples(**changes), params)

    gradient, value, new = jax.jit(result)()
    return flat(gradient), float(value), new


LAM, RATE, DEVIATION, DRAWS = 0.7, 0.3, 0.4, 5


def dro_weights(risks: np.ndarray) -> np.ndarray:
    weights = np.exp(RATE * risks)
    return weights / weights.sum()


def scales() -> np.ndarray:
    """The scales [draws, E] at which the step evaluates BIRM's penalty."""
    with jax.enable_x64(True):
        return 1 + DEVIATION * np.asarray(examples().normals(DRAWS * SIZE)).reshape(DRAWS, SIZE)


Q = dro_weights(source(POINT).risks)  # which the gradient holds fixed
ROWS: dict[str, tuple[Callable[[], Objective], Callable[[Source], Any]]] = {
    "IRM": (
        lambda: objectives.irm(risk_weight=4 * LAM * SIZE, weight=16 * (1 - LAM) * SIZE),
        lambda s: LAM * s.risks.sum() + (1 - LAM) * (s.by_head**2).mean(1).sum(),
    ),
    "IRMv1 of the unit tests": (
        lambda: objectives.irmv1(risk_weight=4 * (1 - LAM), weight=16 * LAM * SIZE, intercept=True),
        lambda s: (1 - LAM) * s.risks.mean() + LAM * (s.by_scale**2 + s.by_shift**2).sum(),
    ),
    "IRMv1 of coloured digits": (
        lambda: objectives.irmv1(risk_weight=4 / 90, weight=16),
        lambda s: (s.risks.mean() + 90 * (s.by_scale**2).mean()) / 90,
    ),
    "BIRM": (
        lambda: objectives.birm(
            risk_weight=4 / (1 + LAM), weight=16 * LAM / (1 + LAM), deviation=DEVIATION
        ),
        lambda s: (
            (s.risks + LAM * (s.by_scale**2 + 4 * DEVIATION**2 * s.squares**2)).mean() / (1 + LAM)
        ),
    ),
    "BIRM by draws": (
        lambda: objectives.birm(
            **{"risk_weight": 4 / (1 + LAM), "weight": 16 * LAM / (1 + LAM)},
            **{"deviation": DEVIATION, "draws": DRAWS},
        ),
        # The derivative of E (v f - y)^2 in v is linear in v.
        lambda s: (
            (s.risks.mean() + LAM * ((s.by_scale + 2 * (scales() - 1) * s.squares) ** 2).mean())
            / (1 + LAM)
        ),
    ),
    "V-REx": (
        lambda: objectives.vrex(risk_weight=4, weight=16 * LAM),
        lambda s: s.risks.mean() + LAM * spread(s.risks).mean(),
    ),
    "GroupDRO": (
        lambda: objectives.group_dro(rate=4 * RATE, weight=4),
        lambda s: (Q * s.risks).sum(),
    ),
    "IGA": (
        lambda: objectives.iga(risk_weight=4, weight=16 * LAM * SIZE),
        lambda s: s.risks.mean() + LAM * spread(s.gradients).sum(),
    ),
    "Fishr": (
        lambda: objectives.fishr(risk_weight=4, weight=256 * LAM),
        lambda s: s.risks.mean() + LAM * spread(s.variances).mean(),
    ),
    "SD": (
        lambda: objectives.sd(risk_weight=4, weight=LAM),
        lambda s: s.risks.mean() + LAM * s.squares.mean(),
    ),
}


@pytest.mark.parametrize("name", ROWS)
def test_an_objective_is_the_formula_of_its_source(name: str) -> None:
    make, formula = ROWS[name]
    with jax.enable_x64(True):
        gradient, value, _ = evaluated(make())
    np.testing.assert_allclose(value, formula(source(POINT)), rtol=1e-10)
    step = 1e-5
    expected = [
        (formula(source(POINT + step * unit)) - formula(source(POINT - step * unit))) / (2 * step)
        for unit in np.eye(4)
    ]
    np.testing.assert_allclose(gradient, expected, rtol=1e-6, atol=1e-7)


def test_means_over_environments_are_weighted_by_their_shares() -> None:
    counts, now = np.array([3, 0, 9]), source(POINT)
    shares = counts / 12
    gradient = shares @ now.gradients / 4
    risk = shares @ now.risks / 4
    center = shares @ now.variances
    penalties = {
        "vrex": (objectives.vrex, shares @ (now.risks / 4 - risk) ** 2),
        "irmv1": (objectives.irmv1, shares @ (now.by_scale / 4) ** 2),
        "iga": (objectives.iga, shares @ ((now.gradients / 4 - gradient) ** 2).sum(1)),
        "fishr": (objectives.fishr, shares @ ((now.variances - center) ** 2).sum(1) / 256),
        "sd": (objectives.sd, shares @ now.squares),
    }
    with jax.enable_x64(True):
        for name, (factory, penalty) in penalties.items():
            value = evaluated(factory(weight=2.0, risk_weight=3.0), counts=counts)[1]
            np.testing.assert_allclose(value, 3 * risk + 2 * penalty, rtol=1e-10, err_msg=name)


def masked_by_loop(name: str, gradients: np.ndarray, threshold: float) -> np.ndarray:
    """The sources' loops over arrays of parameters, w and b."""
    result = []
    for place in (slice(0, 3), slice(3, 4)):
        own = gradients[:, place].copy()
        if name == "unit_tests" and place.start == 0:
            own = own / np.linalg.norm(own, axis=1, keepdims=True)
        agreement = np.abs(np.sign(own).mean(0))
        if name == "unit_tests":
            result.append((np.abs(np.sign(own).sum(0)) > len(own) * threshold) * own.mean(0))
            continue
        if name == "domainbed":
            mask = (agreement >= threshold).astype(float)
        else:
            mask = np.maximum(np.tanh(0.3 * (agreement - threshold) / own.var(0, ddof=1)), 0)
        result.append(mask * own.mean(0) / (1e-10 + mask.mean()))
    return np.concatenate(result)


@pytest.mark.parametrize("threshold", [0.2, 1 / 3, 0.9, 1.0])
@pytest.mark.parametrize("name", ["unit_tests", "domainbed", "sandmask"])
def test_masks_are_those_of_the_sources_loops(name: str, threshold: float) -> None:
    def objective(threshold: float) -> Objective:
        if name == "sandmask":
            return objectives.sandmask(threshold=threshold, sharpness=0.3 / 16, risk_weight=4)
        # Normalised gradients have no scale, but the intercept's has.
        return objectives.andmask(threshold=threshold, variant=name, risk_weight=4)

    gradients = source(POINT).gradients
    assert 0 < (np.abs(np.sign(gradients).sum(0)) == 3).sum() < 4  # some agree and some do not
    with jax.enable_x64(True):
        gradient, value, _ = evaluated(objective(threshold))
    expected = masked_by_loop(name, gradients, threshold)
    if name == "unit_tests":
        gradient = gradient * np.array([0.25, 0.25, 0.25, 1])
    np.testing.assert_allclose(gradient, expected, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(value, source(POINT).risks.mean(), rtol=1e-10)


def test_environments_without_examples_have_no_vote() -> None:
    gradients = source(POINT).gradients[[0, 2]] / 4
    for name in ("domainbed", "unit_tests"):
        made = objectives.andmask(threshold=0.9, variant=name)
        with jax.enable_x64(True):
            gradient = evaluated(made, counts=np.array([5, 0, 5]))[0]
        np.testing.assert_allclose(gradient, masked_by_loop(name, gradients, 0.9), rtol=1e-9)


def test_a_mask_of_equal_gradients_is_the_gradient() -> None:
    """Also for one environment, as in batches of HeteroSGD."""
    batch = Batch(jnp.array([1], jnp.int32), jnp.array([7], jnp.int32))
    for made in (
        objectives.andmask(threshold=1.0),
        objectives.sandmask(threshold=0.5, sharpness=10.0),
        *(factory(weight=5.0) for factory in (objectives.vrex, objectives.iga, objectives.coral)),
    ):
        with jax.enable_x64(True):
            gradient = evaluated(made, batch=batch)[0]
        np.testing.assert_allclose(gradient, source(POINT).gradients[1] / 4, rtol=1e-8)


@pytest.mark.parametrize("counts", [(6, 6, 6), (4, 8, 12)])
def test_coral_compares_all_pairs_of_environments(counts: tuple[int, ...]) -> None:
    """With equal counts this is the loop of DomainBed over pairs."""
    model = models.featurised(dim=DIM, features=2)
    matrix = np.random.default_rng(7).normal(size=(DIM, 2))

    def by_hand(matrix: np.ndarray) -> float:
        means = SECOND[:, :3, 4] @ matrix
        raw = SECOND[:, :3, :3] - SECOND[:, :3, 4:] * SECOND[:, 4:, :3]
        covariances = matrix.T @ raw @ matrix
        total = weights = 0.0
        for i in range(SIZE):
            for j in range(i):
                both = counts[i] * counts[j]
                weights += both
                total += both * ((means[i] - means[j]) ** 2).mean()
                total += both * ((covariances[i] - covariances[j]) ** 2).mean()
        residual = np.array([*matrix.sum(1), -1, 0])
        risks = np.einsum("i,eij,j->e", residual, SECOND, residual)
        return np.average(risks, weights=counts) + LAM * total / weights

    with jax.enable_x64(True):
        made, number = objectives.coral(risk_weight=4, weight=LAM), np.array(counts)
        step = jax.jit(
            lambda params: made.gradient(jnp.asarray(0), (), examples(number, model), params)
        )
        gradient, value, _ = step({"features": jnp.asarray(matrix)})
    np.testing.assert_allclose(value, by_hand(matrix), rtol=1e-10)
    for place in np.ndindex(matrix.shape):
        change = np.zeros_like(matrix)
        change[place] = 1e-5
        slope = (by_hand(matrix + change) - by_hand(matrix - change)) / 2e-5
        np.testing.assert_allclose(gradient["features"][place], slope, rtol=1e-6)


def test_the_penalty_of_halves_is_that_of_domainbed() -> None:
    """Its loop over environments takes every second row, of which the first half has one more."""
    rng, number = np.random.default_rng(3), 7
    rows = np.concatenate(
        [rng.normal(0.3, 1, (SIZE, number, 4)), np.ones((SIZE, number, 1))], axis=2
    )

    def domainbed(point: np.ndarray) -> float:
        risks, penalty = 0.0, 0.0
        for one in rows:
            prediction = one[:, :3] @ point[:3] + point[3]
            residual = prediction - one[:, 3]
            slopes = [(2 * (residual * prediction)[half::2]).mean() for half in (0, 1)]
            risks += (residual**2).mean()
            penalty += slopes[0] * slopes[1]
        return (risks + LAM * penalty) / SIZE

    def on_half(key: Any, step: Any, data: Any, model: Any, world: Any, batch: Batch) -> Any:
        odd, even = (
            np.einsum("eni,enj->eij", half, half) / half.shape[1]
            for half in (rows[:, 1::2], rows[:, ::2])
        )
        second = jnp.where(batch.counts[0] == number // 2, odd, even)
        known = MomentData(Moments(second, jnp.full(SIZE, jnp.inf)))
        return whole.batch(key, step, known, model, world, batch)

    measurement = measurements.moments()
    whole: Any = measurement.risks
    halved = measurement._replace(risks=whole._replace(batch=on_half, fresh=True))
    made = objectives.irmv1(risk_weight=4, weight=16 * LAM, halves=True)
    with jax.enable_x64(True):
        counts = np.full(SIZE, number)
        gradient, value, _ = evaluated(made, counts=counts, measurement=halved)
    np.testing.assert_allclose(value, domainbed(POINT), rtol=1e-10)
    expected = [
        (domainbed(POINT + 1e-5 * unit) - domainbed(POINT - 1e-5 * unit)) / 2e-5
        for unit in np.eye(4)
    ]
    np.testing.assert_allclose(gradient, expected, rtol=1e-6)


def test_the_weights_of_group_dro_follow_the_losses_of_their_batches() -> None:
    risks = source(POINT).risks / 4
    made = objectives.group_dro(rate=0.8, weight=2.0, risk_weight=1.0)
    weights, state = np.full(SIZE, 1 / SIZE), None
    with jax.enable_x64(True):
        for environments in ([0, 1, 2], [2, 0], [1]):
            counts = np.arange(2, 2 + len(environments))
            batch = Batch(jnp.array(environments, jnp.int32), jnp.array(counts, jnp.int32))
            value, state = evaluated(made, state, batch=batch)[1:]
            for one in environments:
                weights[one] *= np.exp(0.8 * risks[one])
            weights = weights / weights.sum()
            expected = (2 * weights[environments] + counts / counts.sum()) @ risks[environments]
            np.testing.assert_allclose(value, expected, rtol=1e-10)
            np.testing.assert_allclose(np.exp(state), weights, rtol=1e-10)


@pytest.mark.slow
def test_fishr_sums_the_variances_of_earlier_steps() -> None:
    variances = source(POINT).variances / 16
    made = objectives.fishr(weight=1.0, risk_weight=0.0, decay=0.9)
    with jax.enable_x64(True):
        state: Any = None
        total = 0 * variances
        for _ in range(3):
            value, state = evaluated(made, state)[1:]
            total = 0.9 * total + variances
            np.testing.assert_allclose(value, spread(total).mean(), rtol=1e-9)
        np.testing.assert_allclose(state["intercept"], total[:, 3], rtol=1e-9)


@pytest.mark.slow
def test_sampled_scales_have_the_closed_form_as_their_mean() -> None:
    """(D + (v - 1) H)^2 of 3 x 4000 independent scales, within 4.5 standard errors."""
    draws, now = 4000, source(POINT)
    slope, curvature = now.by_scale / 4, now.squares / 2
    with jax.enable_x64(True):
        options: dict[str, Any] = {"weight": 1.0, "risk_weight": 0.0, "deviation": 0.3}
        value = evaluated(objectives.birm(**options, draws=draws))[1]
        exact = evaluated(objectives.birm(**options))[1]
    normal = 0.3 * curvature
    variance = (2 * normal**4 + 4 * slope**2 * normal**2).mean() / SIZE / draws
    assert abs(value - exact) < 4.5 * np.sqrt(variance)
    assert value != exact


@pytest.mark.slow
def test_two_halves_of_a_batch_are_an_unbiased_penalty() -> None:
    """The mean of 4000 fresh batches within 4.5 standard errors; one batch squared is not."""
    world = worlds.contradiction(biases=np.array([1.5, -0.5, 0.7]))(jax.random.key(0))
    params = {"weights": jnp.array([0.6, 0.3])}
    batch = Batch(jnp.arange(3, dtype=jnp.int32), jnp.array([20, 21, 20], jnp.int32))
    measurement = measurements.batch_moments()

    def penalty(key: jax.Array, halves: bool) -> jax.Array:
        drawn = Examples(measurement, key, jnp.asarray(0), (), models.linear(dim=2), world, batch)
        made = objectives.irmv1(weight=1.0, risk_weight=0.0, halves=halves)
        return made.gradient(jnp.asarray(0), (), drawn, params)[1]

    keys = jax.random.split(jax.random.key(3), 4000)
    vector, prediction = np.array([0.6, 0.3, -1, 0]), np.array([0.6, 0.3, 0, 0])
    slopes = np.asarray(world.second_moments) @ prediction @ vector / 2
    exact = np.array([20, 21, 20]) / 61 @ slopes**2
    scores = []
    for halves in (True, False):
        values = np.asarray(jax.jit(jax.vmap(lambda key, h=halves: penalty(key, h)))(keys))
        scores.append((values.mean() - exact) / (values.std() / np.sqrt(len(values))))
    assert abs(scores[0]) < 4.5
    assert scores[1] > 10


def test_irm_of_many_environments_is_that_of_few(monkeypatch: pytest.MonkeyPatch) -> None:
    with jax.enable_x64(True):
        gradient, value, _ = evaluated(objectives.irm(weight=3.0))
        monkeypatch.setattr(_heads, "UNROLLED", 0)
        other, height, _ = evaluated(objectives.irm(weight=3.0))
    np.testing.assert_allclose(other, gradient, rtol=1e-12)
    assert height == pytest.approx(value, rel=1e-12)
