"""The summary, the figure and the files of a sweep's dataset."""

from __future__ import annotations

import matplotlib as mpl
import numpy as np
import pytest
import xarray as xr
from matplotlib.figure import Figure

from causal_sgd import figures
from causal_sgd.sweeps import _datasets  # noqa: F401  # registers `dataset.sgd`

mpl.use("Agg")
AXES = {"spread": np.array([0.0, 3.0, 6.0]), "learning_rate": np.array([0.05, 0.1])}


def results(*axes: str, variants: bool = False) -> xr.Dataset:
    rng = np.random.default_rng(0)
    dims = (*(("variant",) if variants else ()), *axes, "seed")
    coordinates = {name: AXES[name] for name in axes} | {
        "seed": np.arange(4),
        "step": np.array([0, 10]),
    }
    if variants:
        coordinates["variant"] = np.array(["HeteroSGD", "PooledSGD"])
    shape = tuple(len(coordinates[dim]) for dim in dims)
    diverged = np.full(shape, -1)
    diverged.reshape(-1)[0] = 3
    found = {
        name: ((*dims, "step"), rng.uniform(1, 2, (*shape, 2)))
        for name in ("batch_loss", "spurious_signal")
    }
    return xr.Dataset(found | {"diverged_at": (dims, diverged)}, coordinates)


def test_a_dataset_is_summarised_in_one_line() -> None:
    dataset = results("spread", "learning_rate")
    assert repr(dataset.sgd) == (
        "24 runs: spread (3) x learning_rate (2) x seed (4); 10 steps; 4.2% diverged; "
        "batch_loss, spurious_signal"
    )
    done = np.ones(dataset.diverged_at.shape, bool)
    done[0, 0, 0] = False
    missing = dataset.assign_coords(done=(dataset.diverged_at.dims, done))
    assert "; 1 missing; none diverged; " in repr(missing.sgd)
    assert "not the results of a sweep" in repr(dataset.drop_vars("diverged_at").sgd)


@pytest.mark.parametrize(
    ("dataset", "kind"),
    [
        (results("spread", "learning_rate"), figures.Diagram),
        (results("spread"), figures.FinalValue),
        (results("spread", variants=True), figures.FinalValue),
        (results(), figures.Trajectories),
        (results(variants=True), figures.Trajectories),
        (results("spread", "learning_rate").isel(learning_rate=[0]), figures.FinalValue),
    ],
)
def test_the_obvious_figure_is_drawn(dataset: xr.Dataset, kind: type) -> None:
    ax = Figure().add_subplot()
    assert isinstance(dataset.sgd.plot(ax=ax), kind)
    if kind is not figures.Diagram:
        assert "spurious" in ax.get_ylabel()
        assert len(ax.lines) >= (2 if "variant" in dataset.dims else 1)


def test_too_many_axes_for_a_figure_are_refused() -> None:
    with pytest.raises(
        ValueError, match=r"at most two axes.*got \['variant', 'spread', 'learning_rate'\].*\.sel\("
    ):
        results("spread", "learning_rate", variants=True).sgd.plot()
    with pytest.raises(ValueError, match="metric must be"):
        results("spread").sgd.plot("colour")


def test_numbers_are_those_of_the_results() -> None:
    dataset = results("spread")
    assert dataset.sgd.final().equals(dataset.isel(step=-1))
    assert float(
        dataset.sgd.summary("batch_loss")["median"].isel(spread=1, step=1)
    ) == pytest.approx(float(dataset.batch_loss.isel(spread=1, step=1).median()))
