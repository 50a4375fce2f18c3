"""The spectrum and the losses of linear models against drawn designs and quadrature in scipy."""

from __future__ import annotations

from collections.abc import Callable

import jax
import numpy as np
import pytest
from scipy import integrate, special

from causal_sgd.theory import linear_dynamics
from support.cases import few

pytestmark = pytest.mark.usefixtures("quickly_compiled")

SIZE = 60  # inputs of drawn designs
DRAWS = 12


def mean(function: Callable[[float], float], ratio: float) -> float:
    """A mean over eigenvalues, by the density of Marchenko and Pastur as it is written."""
    low, high = (1 - ratio**0.5) ** 2, (1 + ratio**0.5) ** 2

    def weighted(root: float) -> float:  # in the root of nu, as the density may diverge at zero
        nu = root**2
        density = np.sqrt(max(high - nu, 0) * max(nu - low, 0)) / (2 * np.pi * ratio * nu)
        return 2 * root * density * function(nu)

    ends = low**0.5, high**0.5
    value = integrate.quad(weighted, *ends, limit=500, epsabs=1e-12, epsrel=1e-9)[0]
    return value + max(0, 1 - 1 / ratio) * function(0.0)


@pytest.mark.parametrize("ratio", [0.02, 0.25, 0.9, 0.999, 1.01, 4.0])
@pytest.mark.parametrize("time", [0.0, 1.0, 50.0])
def test_means_over_the_spectrum_are_those_of_its_density(ratio: float, time: float) -> None:
    values, weights = (np.asarray(part, float) for part in linear_dynamics.spectrum(ratio))
    for power in (0, 1):
        exact = mean(lambda nu, power=power: nu**power * np.exp(-time * nu), ratio)
        found = (weights * values**power * np.exp(-time * values)).sum()
        assert found == pytest.approx(exact, rel=1e-5, abs=1e-9)


def test_the_spectrum_is_that_of_drawn_designs() -> None:
    rng = np.random.default_rng(0)
    size, draws = 40, 400
    for ratio in (0.5, 1.0, 2.0):
        x = rng.normal(size=(draws, round(size / ratio), size))
        drawn = np.linalg.eigvalsh(x.swapaxes(1, 2) @ x / x.shape[1])
        found = linear_dynamics.spectrum(ratio, size)
        values, weights = (np.asarray(part, float) for part in found)
        for time in (0.3, 3.0, 30.0):
            means = np.exp(-time * drawn).mean(1)
            error = means.std() / draws**0.5
            expected = (weights * np.exp(-time * values)).sum()
            assert abs(means.mean() - expected) < 4.5 * error + 1e-3 * expected


def second_moments(
    designs: list[np.ndarray], spread: float, rate: float, steps: int, *, hetero: bool
) -> tuple[float, float]:
    """The losses after some steps, averaged over starts, directions of a_e and orders.

    Environments have a_e = v and -v. The second moments of (D, v) are followed step by step.
    """
    size = designs[0].shape[1]
    one = np.eye(size)
    maps, risks = [], []
    for x, sign in zip(designs, (1, -1), strict=True):
        s = x.T @ x / len(x)
        maps.append(np.block([[one - rate / 2 * s, sign * rate / 2 * s], [0 * one, one]]))
        both = np.hstack([one, -sign * one])
        risks.append(both.T @ s @ both)
    if not hetero:
        maps = [(maps[0] + maps[1]) / 2]
    c = np.diag(np.repeat([1 / size, spread**2 / size], size))
    for _ in range(steps):
        c = np.mean([m @ c @ m.T for m in maps], 0)
    training = np.mean([np.sum(risk * c) for risk in risks])
    return float(training), np.trace(c[:size, :size])


CASES = [
    # design, sampler, ratio, learning rate, steps, spread
    ("shared", "stratified", 0.9, 0.8, 40, 0.3),
    ("shared", "hetero", 0.9, 0.8, 40, 0.3),
    ("shared", "hetero", 0.3, 1.2, 12, 0.5),
    ("own", "stratified", 0.9, 0.8, 40, 0.3),
    ("own", "stratified", 0.3, 1.3, 5, 0.5),
    ("own", "stratified", 1.5, 0.5, 30, 0.5),
]


@pytest.mark.parametrize(
    ("design", "sampler", "ratio", "rate", "steps", "spread"), few(CASES, {CASES[1], CASES[4]})
)
def test_losses_are_those_of_drawn_designs(
    design: str, sampler: str, ratio: float, rate: float, steps: int, spread: float
) -> None:
    rng = np.random.default_rng(1)
    n = 2 * round(SIZE / ratio / 2)
    found = []
    for _ in range(DRAWS):
        x = rng.normal(size=(n, SIZE))
        designs = [x, x] if design == "shared" else np.split(x, 2)
        found.append(second_moments(designs, spread, rate, steps, hetero=sampler == "hetero"))
    law = np.array(
        linear_dynamics.losses(
            steps, rate, SIZE / n, spread, dim=SIZE, design=design, sampler=sampler
        )
    )
    errors = np.std(found, 0) / DRAWS**0.5
    assert (errors < 0.04 * law).all()
    assert (abs(np.mean(found, 0) - law) < 4.5 * errors + 0.005 * law).all()


def stationary_noise(designs: list[np.ndarray], rate: float) -> tuple[float, float]:
    """What HeteroSGD adds to the limits of both losses, averaged over directions of a_e."""
    size = designs[0].shape[1]
    one = np.eye(size)
    first, second = (x.T @ x / len(x) for x in designs)
    limit = np.linalg.solve(first + second, first - second)
    steps = [one - rate / 2 * s for s in (first, second)]
    shocks = [rate / 2 * s @ (sign * one - limit) for s, sign in ((first, 1), (second, -1))]
    power = np.mean([shock @ shock.T for shock in shocks], 0) / size
    moments = np.eye(size**2) - np.mean([np.kron(step, step) for step in steps], 0)
    c = np.linalg.solve(moments, power.ravel()).reshape(size, size)
    return float(np.sum((first + second) / 2 * c)), float(np.trace(c))


@pytest.mark.parametrize("ratio", few([0.3, 0.8], {0.3}))
def test_noise_on_own_designs_is_that_of_the_residuals_of_the_fit(ratio: float) -> None:
    rng = np.random.default_rng(4)
    size, draws, rate = 16, 60, 0.1
    n = 2 * round(size / ratio / 2)
    found = [stationary_noise(np.split(rng.normal(size=(n, size)), 2), rate) for _ in range(draws)]
    hetero, whole = (
        linear_dynamics.losses(1e9, rate, size / n, 1.0, dim=size, design="own", sampler=sampler)
        for sampler in ("hetero", "stratified")
    )
    law = np.array(hetero) - np.array(whole)
    errors = np.std(found, 0) / draws**0.5
    # what is missing is of the relative orders of the learning rate and of 1/p
    assert (abs(np.mean(found, 0) - law) < 4.5 * errors + 0.05 * law).all()
    assert (errors < 0.06 * law).all()


def test_the_limits_of_contradictory_labels() -> None:
    ratio, spread, late = np.array([0.1, 0.382, 0.8]), 0.7, 100_000
    own = linear_dynamics.losses(late, 0.5, ratio, spread, design="own")
    np.testing.assert_allclose(own.training, spread**2 * (1 - ratio), rtol=1e-4)
    np.testing.assert_allclose(own.test, spread**2 * ratio / (1 - ratio), rtol=1e-4)
    shared = linear_dynamics.losses(late, 0.5, ratio, spread)
    np.testing.assert_allclose(shared.training, spread**2, rtol=1e-5)
    assert np.max(shared.test) < 1e-6


@pytest.mark.slow
def test_times_are_those_of_the_curves() -> None:
    ratio, level = np.array([0.2, 0.9]), 0.02
    for options in (
        {},
        {"spread": 0.1, "sampler": "hetero"},
        {"spread": 0.02, "design": "own"},
    ):
        times = linear_dynamics.grokking_times(0.6, ratio, level, **options)
        for place, time in enumerate(times):
            loss = linear_dynamics.losses(time, 0.6, ratio, **options)[place]
            np.testing.assert_allclose(loss, level, rtol=1e-3)
            earlier = linear_dynamics.losses(0.99 * time, 0.6, ratio, **options)[place]
            assert (np.asarray(earlier) > level).all()


def test_gaps_diverge_at_the_critical_ratio_and_at_the_edge_of_the_spectrum() -> None:
    critical = float(linear_dynamics.critical_ratio(0.02))
    near = linear_dynamics.grokking_times(0.6, critical * np.array([0.999, 1.001]), 0.02).test
    assert np.isfinite(near[0])
    assert np.isinf(near[1])
    # at low levels both losses are those of the last eigenvalue, whichever end it is
    for rate in (0.4, 1.75):
        times = linear_dynamics.grokking_times(rate, 0.25, 1e-25)
        late = float(linear_dynamics.late_gap(rate, 0.25))
        assert float(times.test - times.training) == pytest.approx(late, rel=0.05)
        assert (late > 0) == (rate < 2 / 1.25)
    rest = 1e-2
    expected = 8 / 0.4 * np.log(2 / rest) / rest**2
    assert float(linear_dynamics.late_gap(0.4, 1 - rest)) == pytest.approx(expected, rel=0.02)
    ends = linear_dynamics.late_gap(0.4, np.array([1.0, 2.0]))
    assert np.isinf(ends[0])
    assert np.isnan(ends[1])
    # at ratio 1 they fall by power laws, and gaps are finite
    losses = linear_dynamics.losses(1e6, 0.5, 1.0)
    np.testing.assert_allclose(losses.test, (np.pi * 5e5) ** -0.5, rtol=1e-4)
    np.testing.assert_allclose(losses.training, (4 * np.pi) ** -0.5 * 5e5**-1.5, rtol=1e-4)


@pytest.mark.parametrize("sampler", linear_dynamics.SAMPLERS)
def test_the_gap_vanishes_at_its_spread(sampler: str) -> None:
    ratio = np.array([0.3, 0.9])
    spread = linear_dynamics.vanishing_spread(0.5, ratio, 0.02, sampler=sampler)
    for factor in (0.99, 1.01):
        times = linear_dynamics.grokking_times(0.5, ratio, 0.02, factor * spread, sampler=sampler)
        gap = np.asarray(times.test - times.training)
        assert ((gap > 0) == (factor < 1)).all()
    assert np.isnan(linear_dynamics.vanishing_spread(0.5, 1.1, 0.02, sampler=sampler))


def test_accuracies_are_those_of_residuals() -> None:
    rng = np.random.default_rng(2)
    p, n, rate, steps, tolerance = 900, 1000, 0.8, 20, 0.05
    x, d = rng.normal(size=(n, p)), rng.normal(size=p) / p**0.5
    for _ in range(steps):
        d = d - rate / 2 * x.T @ (x @ d) / n
    for place, inputs in enumerate((x, rng.normal(size=(n, p)))):
        residuals = inputs @ d
        loss = linear_dynamics.losses(steps, rate, p / n)[place]
        expected = float(linear_dynamics.accuracy(loss, tolerance))
        share = np.mean(residuals**2 <= tolerance)
        # the loss of one run has a relative error of the order of 1/sqrt(p)
        assert share == pytest.approx(expected, abs=4.5 * (expected * (1 - expected) / n) ** 0.5)
    shares = np.array([0.1, 0.9, 0.9999])
    np.testing.assert_allclose(
        linear_dynamics.loss_at(shares, tolerance),
        tolerance / (2 * special.erfinv(shares) ** 2),
        rtol=1e-4,
    )


def test_they_compile_and_name_wrong_arguments() -> None:
    ratios = np.array([0.3, 0.9])
    batched = jax.jit(jax.vmap(lambda ratio: linear_dynamics.grokking_times(0.5, ratio, 0.02)))
    times = linear_dynamics.grokking_times(0.5, ratios, 0.02)
    np.testing.assert_allclose(batched(ratios).test, times.test, rtol=1e-4)
    with pytest.raises(ValueError, match="^design must be one of"):
        linear_dynamics.losses(1, 0.5, 0.5, design="none")
    with pytest.raises(ValueError, match="^sampler must be one of"):
        linear_dynamics.vanishing_spread(0.5, 0.5, 0.1, sampler="pooled")
    with pytest.raises(ValueError, match="^ratio must be"):
        linear_dynamics.spectrum(0.0)
    with pytest.raises(ValueError, match="^step must be"):
        linear_dynamics.losses(-1, 0.5, 0.5)
