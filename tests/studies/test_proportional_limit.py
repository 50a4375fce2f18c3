"""The study of the limit of high dimension measures what it says, on data with known answers."""

from __future__ import annotations

import jax
import numpy as np
import pytest
import xarray as xr

from causal_sgd.studies.sensing import _proportional as settings
from causal_sgd.studies.sensing import proportional_limit as study


@pytest.mark.slow
def test_every_dimension_and_the_product_start_alike() -> None:
    key = jax.random.key(3)
    chain, product = (np.asarray(settings._start(key, rows)) for rows in (11, 50))
    np.testing.assert_array_equal(product[:11], chain)
    assert not product[11:].any()
    np.testing.assert_allclose(chain[3:7], settings.START * np.eye(4))


@pytest.mark.slow
def test_the_fields_of_the_plane_vanish_where_the_closed_forms_say() -> None:
    rates, spreads = np.array([settings.ETA]), np.array([6.0])
    lost, diverged = float(settings.retention(6.0)), float(settings.divergence(6.0))
    assert settings.boundaries(rates, spreads, lost)[1][0, 0] == pytest.approx(0, abs=1e-6)
    assert settings.boundaries(rates, spreads, diverged)[2][0, 0] == pytest.approx(0, abs=1e-6)
    critical = np.array([settings.critical(3.0)])
    rejected, *others = settings.boundaries(rates, critical - 0.01, 3.0)
    np.testing.assert_allclose(rejected, -0.01, atol=1e-4)
    assert np.isnan(others).all(), "they hold where the spurious part is rejected"


def test_exponents_of_known_deviations_and_bursts() -> None:
    dims = np.array(study.DIMS)
    deviations = xr.DataArray(
        np.broadcast_to(dims**-0.5, (2, 3, 4, len(dims))) * np.array([1, -1, 1, -1])[:, None],
        dims=("batch_ratio", "seed", "step", "dim"),
        coords={"dim": dims},
    )
    np.testing.assert_allclose(study._exponents(deviations), -0.5)
    count = 10_000
    shares = {dim: 0.1 * (dim / 1000) ** -0.25 for dim in study.BURST_DIMS}
    signals = [np.arange(count) < share * count for share in shares.values()]
    values = np.array(signals).astype(float)
    frames = np.random.default_rng(0).permutation(count)
    runs = xr.Dataset(
        {
            "spurious_signal": (("dim", "seed", "step"), values[:, None, frames]),
            "diverged_at": (("dim", "seed"), np.full((len(shares), 1), -1)),
        },
        {"dim": list(shares)},
    )
    assert study._burst_slope(runs) == pytest.approx(-0.25, abs=0.03)


def test_the_least_error_is_sought_after_the_change() -> None:
    steps = np.arange(0, 2001, 10)
    after = steps - settings.CHANGE
    errors = np.where(after < 0, 0.01, np.where(after < 500, 0.2 + abs(after - 100) / 1e4, 0.7))
    errors[steps > settings.CHANGE + study.ANNEALED_STEPS] = 9
    runs = xr.Dataset({"invariant_error": (("seed", "step"), errors[None])}, {"step": steps})
    assert study._annealed(runs) == pytest.approx((0.2, 0.7))
