"""Two redundant features against plain iterations of their map."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import integrate

from causal_sgd.theory import stability


def trained(
    eta: float, v: float, u: float, start: float, labels: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The paths of s and w for labels [steps, ...]."""
    s = np.full(labels.shape[1:], start)
    w, path = s, []
    for label in labels:
        r = label - v * s**2 - u * w**2
        s, w = s * (1 + eta * v * r), w * (1 + eta * u * r)
        path.append((s, w))
    return tuple(np.moveaxis(np.array(path), 1, 0))


@pytest.mark.parametrize(("eta", "v", "u"), [(0.8, 1.0, 0.2), (1.2, 1.0, 0.2), (0.55, 2.0, 1.0)])
def test_a_small_weak_feature_grows_at_its_exponent(eta: float, v: float, u: float) -> None:
    w = trained(eta, v, u, 1e-30, np.ones(1000))[1]
    slope = (np.log(w[999]) - np.log(w[799])) / 200
    assert float(stability.weak_exponent(eta, v, u)) == pytest.approx(slope, abs=1e-6)


def test_the_weak_exponent_has_a_closed_form_up_to_the_two_cycle() -> None:
    assert np.isfinite(stability.weak_exponent(1.23, 1.0, 0.5))
    assert np.isnan(stability.weak_exponent(1.24, 1.0, 0.5))


@pytest.mark.parametrize(("eta", "v", "u"), [(1.1, 1.0, 0.1), (1.5, 1.0, 0.2), (0.55, 2.0, 1.0)])
def test_an_oscillation_ends_slightly_beyond_the_edge(eta: float, v: float, u: float) -> None:
    found = stability.oscillation_end(eta, v, u)
    edge, end = (float(share) for share in found)
    assert edge * v + (1 - edge) * u == pytest.approx(1 / eta)
    for start in (0.01, 0.05):
        s, w = (path[-1] for path in trained(eta, v, u, start, np.ones(20_000)))
        assert v * s**2 + u * w**2 == pytest.approx(1, abs=1e-9)
        # The next order is relative h: a share of less than 0.04 of the overshoot.
        assert (v * s**2 - edge) / (end - edge) == pytest.approx(1, abs=0.04)


@pytest.mark.parametrize("eta", [0.9, 6.0])
def test_without_an_edge_between_the_features_there_is_no_end(eta: float) -> None:
    assert np.isnan(stability.oscillation_end(eta, 1.0, 0.2)).all()
    assert np.isnan(stability.oscillation_end(1 / 0.6, 0.2, 1.0)).all()


def test_the_share_time_is_an_integral() -> None:
    eta, spread, v, u = 0.3, 0.7, 1.5, 0.4

    def pace(f: float) -> float:
        g = v * f + u * (1 - f)
        fall = eta**2 / 2 * (v - u) * spread**2 / (1 - eta * g)
        return g / (2 * u * v * f * (1 - f)) / fall

    expected = integrate.quad(pace, 0.2, 0.97)[0]
    found = stability.share_time(0.2, 0.97, eta, spread, v, u)
    assert float(found) == pytest.approx(expected, rel=1e-5)


def test_contrary_labels_remove_the_strong_feature_in_that_time() -> None:
    eta, spread, v, u = 0.2, 0.5, 1.0, 0.3
    rng = np.random.default_rng(0)
    labels = 1 + spread * rng.choice([-1.0, 1.0], (7000, 100))
    s, w = trained(eta, v, u, 0.1, labels)
    strong, weak = v * s**2, u * w**2
    shares = np.median(strong / (strong + weak), axis=1)[100:]  # with the strong feature learned
    for share in (0.9, 0.5, 0.1):
        steps = np.argmax(shares < share)
        expected = stability.share_time(share, shares[0], eta, spread, v, u)
        assert steps / float(expected) == pytest.approx(1, abs=0.03)
    assert shares[-1] < 0.01
