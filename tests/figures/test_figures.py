"""Figures show exactly the numbers of the dataset and leave the state of matplotlib unchanged."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings

import matplotlib as mpl
import numpy as np
import pytest
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.patches import Rectangle

from causal_sgd import figures
from causal_sgd.analysis import _summaries
from causal_sgd.figures import _tables
from support.figures import RATES, SPREADS, STEPS, by_hand, empty_axes, entries, partly_diverged

ax, grid = pytest.fixture(empty_axes), pytest.fixture(partly_diverged)
LINES = {"along": "spread", "over": "learning_rate"}


def upper_and_lower(band: PolyCollection, x: float) -> tuple[float, float]:
    heights = band.get_paths()[0].vertices
    here = np.asarray(heights)[np.isclose(np.asarray(heights)[:, 0], x), 1]
    return here.min(), here.max()


def texts(ax: Axes) -> list[str]:
    return [text.get_text() for text in ax.texts]


def test_summary_equals_nanquantile_and_counts_diverged_runs(grid: xr.Dataset) -> None:
    table = _summaries.summary(grid, "spurious_signal", (0.2, 0.7))
    left_out = (grid.diverged_at >= 0).values[..., None]
    values = np.where(left_out, np.nan, grid.spurious_signal.values)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # all-NaN slices
        expected = np.nanquantile(values, [0.2, 0.5, 0.7], axis=2)
    for name, numbers in zip(("low", "median", "high"), expected, strict=True):
        assert table[name].dims == ("learning_rate", "spread", "step")
        np.testing.assert_allclose(table[name].values, numbers)
    assert table.diverged_fraction.dims == ("learning_rate", "spread")
    np.testing.assert_array_equal(table.diverged_fraction[-1], np.array([1, 3, 4, 6, 8]) / 8)
    assert np.isnan(table.diverged_fraction[0, 4])
    assert (table.diverged_fraction[1:3] == 0).all()


def test_summary_without_diverged_at_counts_no_diverged_run(grid: xr.Dataset) -> None:
    table = _summaries.summary(grid.drop_vars("diverged_at").isel(step=-1), "spurious_signal")
    assert (table.diverged_fraction.dropna("spread") == 0).all()
    assert np.isnan(table["median"][-1, -1])


def test_trajectories_draw_medians_bands_and_references(ax: Axes, grid: xr.Dataset) -> None:
    cells = grid.isel(learning_rate=-1).sel(spread=[0, 1])
    artists = figures.trajectories(
        ax, cells, "spurious_signal", over="spread", reference={"mean": 1.25}, logy=True
    )
    for index, line in enumerate(artists.lines):
        expected = by_hand(cells.isel(spread=index))
        np.testing.assert_array_equal(line.get_xdata(), STEPS)
        np.testing.assert_allclose(np.asarray(line.get_ydata()), expected[1])
        np.testing.assert_allclose(upper_and_lower(artists.bands[index], 50), expected[[0, 2], 1])
    assert entries(artists.legend) == ["$M$ = 0 (12% diverged)", "$M$ = 1 (38% diverged)"]
    assert list(np.asarray(artists.references[0].get_ydata())) == [1.25, 1.25]
    assert artists.references[0].get_linestyle() == ":"
    assert texts(ax) == ["mean"]
    assert (ax.get_xlabel(), ax.get_yscale()) == ("step", "log")
    assert ax.get_ylabel() == figures.NAMES["spurious_signal"]


def test_trajectories_of_all_metrics_by_variant_group_their_legend(
    ax: Axes, grid: xr.Dataset
) -> None:
    cell = grid.isel(learning_rate=1, spread=0)
    both = xr.concat(
        [cell, cell], xr.DataArray(["hetero", "pooled"], dims="variant", name="variant")
    )
    both.my_metric.attrs["long_name"] = "my own metric"
    artists = figures.trajectories(ax, both, over="variant", label="norm")
    assert len(artists.lines) == len(artists.bands) == 4
    assert entries(artists.legend) == [
        "hetero",
        "pooled",
        figures.NAMES["spurious_signal"],
        "my own metric",
    ]
    colours = [line.get_color() for line in artists.lines]
    dashes = [line.get_linestyle() for line in artists.lines]
    assert colours[:2] == colours[2:]
    assert colours[0] != colours[1]
    assert dashes[0] == dashes[1] != dashes[2] == dashes[3]
    assert ax.get_ylabel() == "norm"


def test_lines_differ_in_colour_dash_and_marker(ax: Axes, grid: xr.Dataset) -> None:
    lines = figures.trajectories(ax, grid.isel(learning_rate=1), "my_metric", over="spread").lines
    for of in (lambda line: tuple(line.get_color()), lambda line: line.get_marker()):
        assert len({of(line) for line in lines}) == len(SPREADS)
    assert ax.get_ylabel() == "my metric"


def test_final_value_marks_partial_divergence_and_hatches_the_rest(
    ax: Axes, grid: xr.Dataset
) -> None:
    row = grid.isel(learning_rate=-1)
    artists = figures.final_value(
        ax,
        row,
        "spurious_signal",
        along="spread",
        theory={"law": lambda x: 2 * x},
        mark={"$M_c$": 2.5},
    )
    expected = np.array([by_hand(row.isel(spread=index, step=-1))[1] for index in range(3)])
    drawn = np.asarray(artists.lines[0].get_ydata())
    np.testing.assert_allclose(drawn[:3], expected)
    assert np.isnan(drawn[3:]).all()
    np.testing.assert_allclose(np.asarray(artists.partial[0].get_ydata())[:3], expected)
    assert artists.partial[0].get_markerfacecolor() == "white"
    assert texts(ax) == ["12%", "38%", "50%", "$M_c$"]
    (span,) = artists.spans
    assert isinstance(span, Rectangle)
    assert (span.get_x(), span.get_width(), span.get_height()) == (2.5, 2.0, 1.0)
    assert span.get_hatch()
    (law,) = artists.curves
    np.testing.assert_allclose(np.asarray(law.get_ydata()), 2 * np.asarray(law.get_xdata()))
    assert list(np.asarray(artists.marks[0].get_xdata())) == [2.5, 2.5]
    assert entries(artists.legend) == ["median over seeds", "law", "some diverged", "most diverged"]


def test_final_value_of_several_lines_hatches_strips_above_the_data(
    ax: Axes, grid: xr.Dataset
) -> None:
    reduced = grid.isel(step=-1, drop=True).isel(spread=slice(None, None, -1))  # any order, no step
    artists = figures.final_value(
        ax,
        reduced.isel(learning_rate=[1, -1]),
        "spurious_signal",
        along="spread",
        over="learning_rate",
    )
    assert list(np.asarray(artists.lines[0].get_xdata())) == list(SPREADS)
    (strip,) = artists.spans
    assert isinstance(strip, Rectangle)
    bottom = ax.transData.inverted().transform(ax.transAxes.transform((0, strip.get_y())))[1]
    tops = [np.asarray(band.get_paths()[0].vertices)[:, 1].max() for band in artists.bands]
    assert bottom >= max(tops)
    assert entries(artists.legend)[0] == rf"$\eta$ = {RATES[1]:.4g}"


def test_labels_show_whole_numbers_in_full_and_others_with_four_digits(
    ax: Axes, grid: xr.Dataset
) -> None:
    chosen = grid.isel(step=-1, drop=True, learning_rate=[0, 1])
    renamed = chosen.rename(learning_rate="dim").assign_coords(dim=[10000.0, 1 / 3])
    artists = figures.final_value(ax, renamed, "spurious_signal", along="spread", over="dim")
    assert {label.split(" = ")[1] for label in entries(artists.legend)[:2]} == {"10000", "0.3333"}


def test_final_value_on_a_geometric_axis_is_logarithmic(ax: Axes, grid: xr.Dataset) -> None:
    column = grid.isel(spread=0)
    figures.final_value(
        ax, column, "my_metric", along="learning_rate", theory=(RATES, RATES), logy=True
    )
    assert (ax.get_xscale(), ax.get_yscale()) == ("log", "log")
    assert ax.get_xlabel() == figures.NAMES["learning_rate"]
    figures.final_value(ax, column, "my_metric", along="learning_rate", logx=False)


@pytest.mark.parametrize(
    ("values", "geometric"),
    [
        (np.geomspace(0.01, 1, 7), True),
        (np.array([20.0, 54, 104, 200]) / 1000, True),
        (2.0 ** np.arange(5), True),
        (np.linspace(0.01, 0.1, 8), False),
        (np.array([0.0, 1, 10, 100]), False),
        (np.array([1.0, 100]), False),
        (np.geomspace(1, 1.5, 5), False),
    ],
)
def test_geometric_spacing_is_recognised(values: np.ndarray, geometric: bool) -> None:
    assert _tables.is_geometric(values) is geometric


@pytest.mark.parametrize(
    ("centres", "log", "expected"),
    [
        (np.array([3.0]), False, [2.5, 3.5]),
        (np.array([1.0, 2, 4]), False, [0.5, 1.5, 3, 5]),
        (np.array([1.0, 4, 64]), True, [0.5, 2, 16, 256]),
    ],
)
def test_edges(centres: np.ndarray, log: bool, expected: list[float]) -> None:
    np.testing.assert_allclose(_tables.edges("x", centres, log), expected)


@pytest.mark.parametrize(
    ("function", "arguments", "words"),
    [
        (
            "trajectories",
            {"metrics": "spurios_signal"},
            "metric .*; did you mean 'spurious_signal'",
        ),
        ("trajectories", {"metrics": []}, "metrics must name at least one"),
        ("trajectories", {"metrics": "my_metric"}, r"\.sel\({'learning_rate': 0.02}\) or .*over="),
        ("trajectories", {"over": "spred"}, "over must be one of .*'spred'; did you mean 'spread'"),
        ("final_value", {"along": "spread"}, "'learning_rate' with 4 values.* or pass over="),
        (
            "final_value",
            {"along": "seed"},
            "along must be one of learning_rate, spread, got 'seed'",
        ),
        ("final_value", {"along": "spread", "over": "spread"}, "must be different axes"),
        ("final_value", {**LINES, "logx": True}, "along must .* above 0"),
        ("final_value", {**LINES, "quantiles": (1, 0)}, "quantiles"),
        ("phase_diagram", {"y": "spread"}, "x and y must be different axes"),
        ("phase_diagram", {"y": "rate"}, "y must be one of learning_rate, spread"),
        (
            "phase_diagram",
            {"diverged": 0},
            "diverged must be a finite number above 0 and at most 1",
        ),
        ("phase_diagram", {"logx": True}, "x must have values above 0"),
        ("phase_diagram", {"boundary": ([1], [1, 2])}, "boundary must be"),
        ("phase_diagram", {"theory": {"a": ([1],)}}, "theory 'a' must be"),
    ],
)
def test_bad_input_is_reported(
    ax: Axes, grid: xr.Dataset, function: str, arguments: dict, words: str
) -> None:
    if function == "phase_diagram":
        arguments = {"x": "spread", "y": "learning_rate"} | arguments
    metric = {} if function == "trajectories" else {"metric": "spurious_signal"}
    with pytest.raises(ValueError, match=words):
        getattr(figures, function)(ax, grid, **metric, **arguments)


def test_bad_datasets_are_reported(ax: Axes, grid: xr.Dataset) -> None:
    cell = grid.isel(learning_rate=1, spread=0)
    with pytest.raises(ValueError, match="must have the dimension 'seed'"):
        _summaries.summary(cell.isel(seed=0), "my_metric")
    with pytest.raises(ValueError, match="must have the dimension 'step'"):
        figures.trajectories(ax, cell.isel(step=-1), "my_metric")
    vector = cell.assign(vector=cell.my_metric.expand_dims(component=["a", "b"]))
    with pytest.raises(
        ValueError, match=r"'vector' has 'component' with 2 values.*\.sel\({'component': 'a'}\)"
    ):
        figures.trajectories(ax, vector, "vector")
    methods = grid.isel(learning_rate=1).assign_coords(spread=list("abcde"))
    with pytest.raises(ValueError, match="along must be an axis of distinct finite numbers"):
        figures.final_value(ax, methods, "my_metric", along="spread")


def test_dimensions_of_length_one_need_no_selection(ax: Axes, grid: xr.Dataset) -> None:
    artists = figures.final_value(ax, grid.isel(learning_rate=[1]), "my_metric", along="spread")
    assert len(artists.lines) == 1


def test_rcparams_are_restored(ax: Axes, grid: xr.Dataset) -> None:
    before = dict(mpl.rcParams)
    with figures.style():
        assert mpl.rcParams["savefig.dpi"] == 300
        figures.phase_diagram(ax, grid, "my_metric", x="spread", y="learning_rate")
    assert dict(mpl.rcParams) == before


def test_importing_figures_loads_neither_jax_nor_pyplot() -> None:
    code = (
        "import sys, causal_sgd.figures._tables, causal_sgd.figures.explorer; "
        "print([m for m in ('jax', 'matplotlib.pyplot') if m in sys.modules])"
    )
    here = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=here, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_a_backend_that_starts_within_the_style_stays_interactive() -> None:
    before = mpl.is_interactive()
    try:
        with figures.style():
            mpl.interactive(not before)
        assert mpl.is_interactive() is not before
    finally:
        mpl.interactive(before)
