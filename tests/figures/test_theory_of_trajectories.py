"""Dashed curves of a theory beside medians over seeds."""

from __future__ import annotations

import matplotlib as mpl
import numpy as np
import pytest
import xarray as xr
from matplotlib.axes import Axes

from causal_sgd import figures
from support.figures import empty_axes, entries, partly_diverged

ax, grid = pytest.fixture(empty_axes), pytest.fixture(partly_diverged)


def limit(*, spreads=(0.0, 1.0), sequences: int = 0, steps=(0, 10, 20, 100)) -> xr.Dataset:
    """A theory [spread, (seed,) step] with its own steps."""
    rng = np.random.default_rng(1)
    dims = ("spread", *(("seed",) if sequences else ()), "step")
    shape = (len(spreads), *((sequences,) if sequences else ()), len(steps))
    return xr.Dataset(
        {"spurious_signal": (dims, rng.uniform(0.5, 2, shape))},
        {"spread": list(spreads), "step": list(steps)},
    )


def brightness(colour) -> float:
    return sum(mpl.colors.to_rgb(colour))


def test_each_line_has_a_dashed_curve_in_a_darker_shade(ax: Axes, grid: xr.Dataset) -> None:
    cells = grid.isel(learning_rate=1).sel(spread=[0, 1, 2])
    theory = limit(spreads=(1.0, 0.0))  # in any order, and not for every line
    artists = figures.trajectories(ax, cells, "spurious_signal", over="spread", theory=theory)
    assert len(artists.lines) == 3
    assert len(artists.curves) == 2
    assert artists.edges == []
    for curve, index in zip(artists.curves, (1, 0), strict=True):
        spread = cells.spread.values[index]
        np.testing.assert_array_equal(curve.get_xdata(), theory.step)
        np.testing.assert_allclose(
            np.asarray(curve.get_ydata()), theory.spurious_signal.sel(spread=spread)
        )
        assert curve.is_dashed()
        assert curve.get_marker() in ("", "None")
        line = artists.lines[index].get_color()
        shade = np.array(mpl.colors.to_rgb(curve.get_color()))
        np.testing.assert_allclose(shade, 0.45 * np.array(mpl.colors.to_rgb(line)))
    assert entries(artists.legend) == ["$M$ = 0", "$M$ = 1", "$M$ = 2", "theory"]


def test_sequences_of_environments_give_medians_and_quantiles(ax: Axes, grid: xr.Dataset) -> None:
    cell = grid.isel(learning_rate=1).sel(spread=[0, 1])
    theory = limit(sequences=9)
    theory.spurious_signal[0, 3, -1] = np.inf  # it diverges, and counts nowhere
    artists = figures.trajectories(
        ax, cell, "spurious_signal", over="spread", theory=theory, quantiles=(0.2, 0.7)
    )
    for index, curve in enumerate(artists.curves):
        kept = np.delete(theory.spurious_signal.values[index], [3] if index == 0 else [], axis=0)
        low, median, high = np.quantile(kept, [0.2, 0.5, 0.7], axis=0)
        np.testing.assert_allclose(np.asarray(curve.get_ydata()), median)
        edges = artists.edges[2 * index : 2 * index + 2]
        for edge, values in zip(edges, (low, high), strict=True):
            np.testing.assert_allclose(np.asarray(edge.get_ydata()), values)
            assert edge.get_linewidth() < curve.get_linewidth()
    assert len(artists.edges) == 4


def test_a_theory_without_the_dim_of_the_lines_is_one_black_curve(
    ax: Axes, grid: xr.Dataset
) -> None:
    cells = grid.isel(learning_rate=1).sel(spread=[0, 1])
    theory = limit().isel(spread=0, drop=True)
    (curve,) = figures.trajectories(
        ax, cells, "spurious_signal", over="spread", theory=theory
    ).curves
    assert curve.get_color() == "black"


def test_metrics_without_a_theory_have_no_curve(ax: Axes, grid: xr.Dataset) -> None:
    cell = grid.isel(learning_rate=1, spread=1)
    theory = limit(spreads=(1.0,))  # of length one, as no axis
    artists = figures.trajectories(ax, cell, theory=theory)
    assert len(artists.lines) == 2
    (curve,) = artists.curves
    assert brightness(curve.get_color()) < brightness(artists.lines[0].get_color())
    assert entries(artists.legend)[-1] == "theory"
    plain = figures.trajectories(ax, cell, "spurious_signal")
    assert (plain.curves, plain.edges, plain.legend) == ([], [], None)


def test_the_accessor_hands_it_on(ax: Axes, grid: xr.Dataset) -> None:
    cell = grid.isel(learning_rate=1, spread=1, drop=True)
    theory = limit(spreads=(1.0,))
    artists = figures.Runs(cell).plot("spurious_signal", ax=ax, theory=theory)
    assert len(artists.curves) == 1
    assert artists.curves[0].get_linestyle() == "--"


@pytest.mark.parametrize(
    ("theory", "words"),
    [
        (limit(spreads=(0.0, 7.0)), "theory must have only values of 'spread' .* also 7.0"),
        (limit().rename(spurious_signal="other"), "theory must have at least one of the metrics"),
        (lambda x: x, "theory must be a dataset of metrics"),
        (limit().isel(step=-1), "must have the dimension 'step'"),
    ],
)
def test_theories_that_do_not_fit_are_refused(ax: Axes, grid: xr.Dataset, theory, words) -> None:
    cells = grid.isel(learning_rate=1).sel(spread=[0, 1])
    with pytest.raises(ValueError, match=words):
        figures.trajectories(ax, cells, "spurious_signal", over="spread", theory=theory)
