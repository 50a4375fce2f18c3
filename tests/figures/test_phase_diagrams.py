"""Phase diagrams show the medians, the three phases, boundaries and bands."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from causal_sgd import figures
from support.figures import RATES, SPREADS, by_hand, empty_axes, entries, partly_diverged

ax, grid = pytest.fixture(empty_axes), pytest.fixture(partly_diverged)


def test_phase_diagram_shows_medians_and_three_phases(ax: Axes, grid: xr.Dataset) -> None:
    curve = (np.array([1.0, 9.0]), np.array([0.01, 0.3]))
    artists = figures.phase_diagram(
        ax,
        grid,
        "spurious_signal",
        x="spread",
        y="learning_rate",
        theory={"law": curve},
        boundary=(SPREADS[:4], RATES, SPREADS[:4] - 0.2, SPREADS[:4] + 0.2),
        level=1.2,
    )
    cells = np.ma.asarray(artists.mesh.get_array()).reshape(len(RATES), len(SPREADS))
    fraction = (grid.diverged_at >= 0).mean("seed").values
    never = np.zeros_like(fraction, bool)
    never[0, 4] = True
    np.testing.assert_array_equal(np.ma.getmaskarray(cells), (fraction >= 0.5) | never)
    for row, column in zip(*np.nonzero(~np.ma.getmaskarray(cells)), strict=True):
        cell = grid.isel(learning_rate=row, spread=column, step=-1)
        np.testing.assert_allclose(cells[row, column], by_hand(cell)[1])
    assert artists.hatch is not None
    assert artists.missing is not None
    assert artists.partial is not None
    hatched = [np.asarray(path.vertices)[:4].mean(0)[0] for path in artists.hatch.get_paths()]
    np.testing.assert_allclose(hatched, SPREADS[fraction[-1] >= 0.5])
    assert artists.hatch.get_hatch() != artists.missing.get_hatch()
    assert len(artists.missing.get_paths()) == 1
    assert list(np.asarray(artists.partial.get_xdata())) == [0, 1]
    np.testing.assert_array_equal(artists.curves[0].get_xdata(), curve[0])
    assert artists.contour is not None
    assert list(artists.contour.levels) == [1.2]
    assert artists.colorbar is not None
    assert artists.colorbar.ax.get_ylabel() == figures.NAMES["spurious_signal"]
    assert (ax.get_xlabel(), ax.get_ylabel()) == (
        figures.NAMES["spread"],
        figures.NAMES["learning_rate"],
    )
    assert entries(artists.legend) == [
        "law",
        "median 1.2",
        "measured",
        "some diverged",
        r"$\geq$ 50% diverged",
        "not run",
    ]


def test_phase_diagram_edges_are_midpoints_of_the_axis_scale(ax: Axes, grid: xr.Dataset) -> None:
    mesh = figures.phase_diagram(ax, grid, "my_metric", x="spread", y="learning_rate").mesh
    edges = np.asarray(mesh.get_coordinates())
    np.testing.assert_allclose(edges[0, :, 0], np.arange(6) - 0.5)
    ratio = RATES[1] / RATES[0]
    np.testing.assert_allclose(edges[:, 0, 1], RATES[0] * ratio ** (np.arange(5) - 0.5))
    assert (ax.get_xscale(), ax.get_yscale()) == ("linear", "log")
    np.testing.assert_allclose([*ax.get_xlim(), *ax.get_ylim()], [-0.5, 4.5, *edges[[0, -1], 0, 1]])


def test_phase_diagram_scale_and_threshold_can_be_overridden(ax: Axes, grid: xr.Dataset) -> None:
    artists = figures.phase_diagram(
        ax,
        grid,
        "my_metric",
        x="learning_rate",
        y="spread",
        logx=False,
        diverged=1,
        colorbar=False,
        legend=False,
    )
    assert ax.get_xscale() == "linear"
    assert artists.hatch is not None
    assert len(artists.hatch.get_paths()) == 1
    assert artists.colorbar is artists.legend is None


def test_diagrams_of_a_metric_in_one_figure_share_their_scale(grid: xr.Dataset) -> None:
    def draw(ax: Axes, data: xr.Dataset, norm: Normalize | None = None) -> figures.Diagram:
        metric = str(data.attrs.get("metric", "spurious_signal"))
        return figures.phase_diagram(ax, data, metric, x="spread", y="learning_rate", norm=norm)

    left, middle, right, apart = Figure().subplots(1, 4)
    first = draw(left, grid)
    low, high = first.mesh.get_clim()
    second = draw(middle, grid.assign(spurious_signal=3 * grid.spurious_signal))
    assert first.mesh.get_clim() == second.mesh.get_clim()
    np.testing.assert_allclose(first.mesh.get_clim(), (low, 3 * high))
    assert first.colorbar is not None
    np.testing.assert_allclose(first.colorbar.vmax, 3 * high)  # drawn before, and follows
    own = draw(right, grid, Normalize())
    other = draw(apart, grid.rename(spurious_signal="another").assign_attrs(metric="another"))
    assert own.mesh.get_clim() == other.mesh.get_clim() == (low, high)
    middle.clear()  # a panel that is drawn anew leaves nothing behind
    draw(middle, grid)
    assert first.mesh.get_clim() == (low, high)


def test_phase_diagram_survives_a_grid_that_diverged_everywhere(ax: Axes, grid: xr.Dataset) -> None:
    gone = grid.assign(diverged_at=xr.zeros_like(grid.diverged_at))
    artists = figures.phase_diagram(ax, gone, "my_metric", x="spread", y="learning_rate", level=1)
    assert artists.contour is None
    assert artists.hatch is not None
    assert len(artists.hatch.get_paths()) == len(RATES) * len(SPREADS)
    ax.figure.canvas.draw()


def test_legend_stays_below_the_axes_and_inside_a_laid_out_figure(grid: xr.Dataset) -> None:
    with figures.style():
        figure = Figure()
        canvas = FigureCanvasAgg(figure)
        ax = figure.add_subplot()
        artists = figures.phase_diagram(ax, grid, "spurious_signal", x="spread", y="learning_rate")
        canvas.draw()
    assert artists.legend is not None
    box, page = artists.legend.get_window_extent(), figure.bbox
    label = ax.xaxis.label.get_window_extent()
    assert box.y1 <= label.y0
    assert page.x0 <= box.x0 < box.x1 <= page.x1
    assert page.y0 <= box.y0


def bounds(axis: str, places: np.ndarray, middle: float) -> xr.Dataset:
    values = {"value": middle, "low": middle - 0.5, "high": np.inf}
    return xr.Dataset(
        {name: (axis, np.full(len(places), value)) for name, value in values.items()},
        {axis: places},
    )


def test_a_measured_boundary_is_a_curve_in_its_band_along_either_axis(
    ax: Axes, grid: xr.Dataset
) -> None:
    options = {"x": "spread", "y": "learning_rate"}
    upright = figures.phase_diagram(
        ax, grid, "my_metric", band=bounds("learning_rate", RATES, 2.0), **options
    )
    assert upright.curve is not None
    assert upright.band is not None
    np.testing.assert_array_equal(upright.curve.get_xdata(), np.full(4, 2.0))
    corners = upright.band.get_paths()[0].vertices
    assert corners[:, 0].min() == 1.5
    assert corners[:, 0].max() == ax.get_xlim()[1], "an infinite bound ends at the rim"
    level = figures.phase_diagram(
        ax, grid, "my_metric", band=bounds("spread", SPREADS, 0.05), **options
    )
    assert level.curve is not None
    np.testing.assert_array_equal(level.curve.get_ydata(), np.full(5, 0.05))
    with pytest.raises(
        ValueError, match="band must have value, low and high over 'spread' or over 'learning_rate'"
    ):
        figures.phase_diagram(ax, grid, "my_metric", band=bounds("rate", RATES, 2.0), **options)


def test_undecided_cells_are_hatched_and_cells_without_runs_merge_with_neighbours(
    ax: Axes, grid: xr.Dataset
) -> None:
    sparse = grid.copy(deep=True)
    sparse["my_metric"][:2, 1:] = np.nan
    undecided = xr.zeros_like(grid.diverged_at.isel(seed=0), dtype=bool)
    undecided[0, 0] = undecided[2, 3] = True
    undecided[-1, -1] = True  # diverged: drawn as such
    options = {"x": "spread", "y": "learning_rate", "undecided": undecided}
    plain = figures.phase_diagram(ax, sparse, "my_metric", **options)
    assert plain.missing is not None
    assert len(plain.missing.get_paths()) == 8
    assert plain.undecided is not None
    assert len(plain.undecided.get_paths()) == 2
    merged = figures.phase_diagram(ax, sparse, "my_metric", merge=True, **options)
    assert merged.missing is None
    assert merged.outlines is not None
    values = merged.mesh.get_array()
    assert values is not None
    values = np.asarray(values).reshape(4, 5)
    assert values[0, 1] == values[0, 0]
    assert values[1, 3] == values[2, 3]
    assert merged.undecided is not None
    assert len(merged.undecided.get_paths()) >= 4, "each with its merged neighbours"
