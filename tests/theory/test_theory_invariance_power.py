"""Power and level of ICP against the tests themselves on drawn data sets, in NumPy and scipy."""

from __future__ import annotations

import itertools
from typing import NamedTuple

import numpy as np
import pytest
from scipy import stats

from causal_sgd.theory import invariance
from support.cases import few

CAUSAL = np.array([True, False])
SETS = [np.array(chosen) for chosen in itertools.product((False, True), repeat=2)]


class Model(NamedTuple):
    """The Gaussian model x1 -> y -> x2, with inputs that are shifted and rescaled."""

    environments: int
    shift: float
    scale: float
    size: int

    def mixing(self) -> tuple[np.ndarray, np.ndarray]:
        """Of (x1, x2, y), and its means."""
        mixing, means = np.zeros((self.environments, 3, 3)), np.zeros((self.environments, 3))
        for e in range(self.environments):
            mixing[e, 0, 0] = 1 + self.scale * e
            mixing[e, 2] = mixing[e, 0] + [0, 0, 1]
            mixing[e, 1] = 0.8 * mixing[e, 2] + [0, 1 + 0.3 * self.scale * e, 0]
            means[e] = self.shift * e, 1.1 * self.shift * e, self.shift * e
        return mixing, means

    def moments(self) -> np.ndarray:
        mixing, means = self.mixing()
        means = np.append(means, np.ones((len(means), 1)), 1)
        second = means[:, :, None] * means[:, None, :]
        second[:, :3, :3] += mixing @ np.swapaxes(mixing, 1, 2)
        return second

    def counts(self) -> np.ndarray:
        """Not all equal."""
        return self.size * np.array([1, 2, 1])[: self.environments]

    def draw(self, draws: int) -> np.ndarray:
        """Moments of samples, [draws, E, q, q]."""
        rng, result = np.random.default_rng(0), []
        for mixing, mean, count in zip(*self.mixing(), self.counts(), strict=True):
            z = mean + rng.standard_normal((draws, count, 3)) @ mixing.T
            z = np.append(z, np.ones((draws, count, 1)), 2)
            result.append(np.swapaxes(z, 1, 2) @ z / count)
        return np.stack(result, 1)


def rejected(second: np.ndarray, counts: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """Whether a set is rejected at the level 0.05, of samples' moments [draws, E, q, q]."""
    size, q = second.shape[1:3]
    pooled = np.einsum("e,deij->dij", counts / counts.sum(), second)
    free = [*np.flatnonzero(chosen), q - 1]
    v = np.zeros((len(second), q))
    v[:, -2] = -1
    v[:, free] = np.linalg.solve(pooled[:, free][:, :, free], pooled[:, free, -2, None])[..., 0]
    means = np.einsum("dei,di->de", second[:, :, -1], v)
    squares = np.einsum("di,deij,dj->de", v, second, v)
    values = []
    for e in range(size):
        others = np.arange(size) != e
        n, rest = counts[e], counts[others].sum()
        mean, other_mean = means[:, e], means[:, others] @ counts[others] / rest
        variance = (squares[:, e] - mean**2) * n / (n - 1)
        other = squares[:, others] @ counts[others] / rest - other_mean**2
        other = other * rest / (rest - 1)
        below = stats.f.cdf(variance / other, n - 1, rest - 1)
        values.append(2 * np.minimum(below, 1 - below))
        one, two = variance / n, other / rest
        degrees = (one + two) ** 2 / (one**2 / (n - 1) + two**2 / (rest - 1))
        values.append(2 * stats.t.sf(np.abs(mean - other_mean) / np.sqrt(one + two), degrees))
    return np.min(values, 0) * 2 * (size - 1) < 0.05


MODELS = few(
    [
        Model(2, 0.5, 0.3, 100),
        Model(2, 0.0, 0.3, 100),
        Model(2, 0.5, 0.0, 300),
        Model(2, 1.5, 0.1, 100),
        Model(2, 0.2, 0.15, 400),
        Model(3, 0.3, 0.2, 100),
        Model(3, 0.3, 0.2, 400),
    ],
    {(2, 0.5, 0.3, 100)},
)


@pytest.mark.parametrize(("environments", "shift", "scale", "count"), MODELS)
def test_sets_are_rejected_as_often_as_in_drawn_data(
    environments: int, shift: float, scale: float, count: int
) -> None:
    """Within 0.03 of the estimate, or of the bounds where the tests depend on each other."""
    model = Model(environments, shift, scale, count)
    data, selected = model.draw(4000), np.ones((4000, 2), bool)
    for chosen in SETS:
        outcome = rejected(data, model.counts(), chosen)
        selected &= outcome[:, None] | chosen[None]
        found = invariance.icp_rejection(model.moments(), chosen, model.counts())
        assert found.low <= found.estimate <= found.high
        assert found.low - 0.03 < outcome.mean() < found.high + 0.03
        if environments == 2:
            assert abs(outcome.mean() - found.estimate) < 0.03, chosen
    exact = np.all(selected == CAUSAL, 1).mean()
    bounds = invariance.icp_recovery(model.moments(), CAUSAL, model.counts())
    assert bounds.low - 0.03 < exact < bounds.high + 0.03


def test_the_causal_set_is_rejected_at_the_level() -> None:
    """Where nothing shifts the means: the F test and the t test have half of it each."""
    second = Model(2, 0.0, 0.3, 100).moments()
    for level in (0.01, 0.05, 0.2):
        found = invariance.icp_rejection(second, CAUSAL, 200, level=level)
        assert found.high == pytest.approx(level, rel=0.02)
    three = invariance.icp_rejection(Model(3, 0.0, 0.3, 100).moments(), CAUSAL, 200)
    assert three.high == pytest.approx(0.05 * 3 / 2, rel=0.05)


def test_power_grows_with_the_number_of_examples() -> None:
    second = Model(2, 0.2, 0.15, 100).moments()
    bounds = [invariance.icp_recovery(second, CAUSAL, n) for n in (100, 1000, 10**4, 10**6)]
    highs = [bound.high for bound in bounds]
    assert highs == sorted(highs)
    assert bounds[-1].low == pytest.approx(0.95, abs=0.01)
    assert bounds[-1].high == pytest.approx(1.0)


def test_wrong_input_is_refused_by_name() -> None:
    second = Model(2, 0.2, 0.15, 100).moments()
    cases = {
        "^second must have at least 2 environments": (second[:1], CAUSAL, 100),
        "^second must be moments of": (2 * second, CAUSAL, 100),
        "^counts must be a finite number above 4": (second, CAUSAL, 4),
        "^counts must have the shape": (second, CAUSAL, np.ones(3) * 100),
    }
    for function in (invariance.icp_rejection, invariance.icp_recovery):
        for message, arguments in cases.items():
            with pytest.raises(ValueError, match=message):
                function(*arguments)
        with pytest.raises(ValueError, match="^level must be"):
            function(second, CAUSAL, 100, level=0.0)
    with pytest.raises(ValueError, match="^causal must hold at least one"):
        invariance.icp_recovery(second, ~CAUSAL & CAUSAL, 100)
    with pytest.raises(ValueError, match="^chosen must be truth values"):
        invariance.icp_rejection(second, np.array([1, 0]), 100)
