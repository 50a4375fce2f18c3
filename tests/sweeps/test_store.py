"""A stored sweep has the bits of a sweep in memory, whatever was requested before, in any order."""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from causal_sgd.analysis import final, metric_names, summary
from causal_sgd.sensing import measurements, metrics, models, worlds
from causal_sgd.sweeps import sweep
from causal_sgd.sweeps._grid import Grid, zipped
from causal_sgd.sweeps.store import Store, export_results, open_results
from causal_sgd.sweeps.store._rows import Table
from causal_sgd.training import run, samplers
from causal_sgd.training.algorithms import sgd
from causal_sgd.types import Trace


def cell(key: jax.Array, *, spread: Any = 3.0, learning_rate: Any = 0.1) -> Trace:
    algorithm = sgd(
        world=worlds.two_point(
            dim=4, invariant_rank=1, spurious_rank=1, spread=spread, basis="canonical"
        ),
        sampler=samplers.hetero(batch_size=50),
        measurement=measurements.population(),
        model=models.factored(dim=4, rank=2, init_scale=0.1),
        optimizer=optax.sgd(learning_rate),
    )
    watched = {"spurious": metrics.spurious_signal, "values": metrics.singular_values}
    return run(key, algorithm=algorithm, metrics=watched, num_steps=8, record_every=3)


SPREADS, RATES, SEEDS = [1.0, 3.0, 6.0], [0.05, 0.2, 1e6], [0, 1, 2, 7]  # the last rate diverges


@functools.cache
def reference() -> xr.Dataset:
    """Every combination of the pools, in memory."""
    return sweep(
        cell,
        axes={"spread": SPREADS, "learning_rate": RATES},
        seeds=SEEDS,
        tile=4,
        devices=jax.devices()[:1],
    )


def subset(pool: list[Any]) -> st.SearchStrategy[list[Any]]:
    return st.lists(st.sampled_from(pool), min_size=1, unique=True)


REQUEST = st.tuples(
    subset(SPREADS), subset(RATES), subset(SEEDS), st.booleans(), st.sampled_from([1, 2])
)


@pytest.mark.slow
@given(requests=st.lists(REQUEST, min_size=1, max_size=3))
@settings(max_examples=6)
def test_a_store_grows_to_the_bits_of_one_sweep(requests: list[tuple]) -> None:
    """More seeds, other values, other orders, one device or two: only new runs are computed."""
    asked: set[tuple] = set()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "grown.zarr"
        for spreads, rates, seeds, swap, devices in requests:
            axes = {"spread": spreads, "learning_rate": rates}
            axes = dict(reversed(axes.items())) if swap else axes
            before = Store(path).num_units if path.exists() else 0
            runs = {(m, rate, seed) for m in spreads for rate in rates for seed in seeds}
            found = sweep(
                cell, axes=axes, seeds=seeds, tile=4, store=path, devices=jax.devices()[:devices]
            )
            expected = reference().sel(spread=spreads, learning_rate=rates, seed=seeds)
            assert found.transpose(*expected["values"].dims).equals(expected)
            assert Store(path).num_units - before == -(-len(runs - asked) // 4), (
                "more was computed than is new"
            )
            asked |= runs
        whole = open_results(path)
        coordinates = {name: whole[name] for name in ("spread", "learning_rate", "seed")}
        for name, values in coordinates.items():
            assert set(values.values) == {
                run[["spread", "learning_rate", "seed"].index(name)] for run in asked
            }
        done = {
            (m, rate, seed)
            for m, rate, seed in asked
            if bool(whole.done.sel(spread=m, learning_rate=rate, seed=seed))
        }
        assert done == asked
        assert int(whole.done.sum()) == len(asked)
        expected = reference().sel(coordinates).transpose(*whole["values"].dims)
        assert whole["spurious"].equals(expected["spurious"].where(whole.done))
        assert whole["diverged_at"].equals(expected["diverged_at"].where(whole.done, -1))


POINTS = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=9)


@given(requests=st.lists(POINTS, max_size=4), tile=st.integers(1, 5))
@settings(max_examples=100)
def test_every_run_has_one_row(requests: list[list[tuple[int, int]]], tile: int) -> None:
    """Compare with a dictionary from runs to rows."""
    grids = [
        Grid.make(
            lambda key, *, a, b: None,
            {"point": zipped(a=[float(a) for a, _ in points], b=[b for _, b in points])},
            2,
        )
        for points in requests
    ]
    table = Table.make(grids, {"a": "float32", "b": "int32"}, tile)
    rows: dict[tuple[int, int, int], int] = {}
    size = 0
    for points in requests:
        new = dict.fromkeys(
            (a, b, seed) for a, b in points for seed in range(2) if (a, b, seed) not in rows
        )
        rows |= {key: size + index for index, key in enumerate(new)}
        size += -(-len(new) // tile) * tile
    assert table.size == size
    assert int(table.filled.sum()) == len(rows)
    for grid, points in zip(grids, requests, strict=True):
        assert table.rows(grid).tolist() == [
            rows[a, b, seed] for a, b in points for seed in range(2)
        ]
    for (a, b, seed), row in rows.items():
        assert [column[row] for column in table.columns] == [seed, a, b]
    absent = Grid.make(lambda key, *, a, b: None, {"a": [9.0], "b": [0]}, 1)
    assert table.rows(absent).tolist() == [-1]


def test_zero_has_one_sign_and_rates_are_known_as_programs_see_them(tmp_path) -> None:
    path = tmp_path / "zero.zarr"
    sweep(cell, axes={"spread": [0.0], "learning_rate": [0.1]}, seeds=2, tile=4, store=path)
    same = np.nextafter(0.1, 1)  # another number, but not in single precision
    sweep(cell, axes={"spread": [-0.0], "learning_rate": [same]}, seeds=2, store=path)
    assert Store(path).num_units == 1
    assert dict(open_results(path).sizes)["learning_rate"] == 1


@pytest.mark.parametrize(
    "tile", [1, *(pytest.param(tile, marks=pytest.mark.slow) for tile in (2, 3)), 5]
)
def test_a_store_keeps_its_tile(tmp_path, tile: int) -> None:
    path = tmp_path / "tile.zarr"
    axes = {"spread": SPREADS[:2]}
    found = sweep(cell, axes=axes, seeds=3, tile=tile, store=path)
    assert found.equals(sweep(cell, axes=axes, seeds=3, tile=tile))
    assert found.attrs["tile"] == tile
    assert sweep(cell, axes=axes, seeds=5, store=path).attrs["tile"] == tile
    with pytest.raises(ValueError, match=f"tile must be that of the store, {tile}"):
        sweep(cell, axes=axes, seeds=5, tile=tile + 1, store=path)


def test_values_are_read_on_access(tmp_path, monkeypatch) -> None:
    path = tmp_path / "lazy.zarr"
    sweep(cell, axes={"spread": SPREADS}, seeds=8, tile=4, store=path)
    read = []
    read_chunks = Store.read

    def watched(self: Store, name: str, units: np.ndarray) -> np.ndarray:
        read.append((name, list(units)))
        return read_chunks(self, name, units)

    monkeypatch.setattr(Store, "read", watched)
    whole = open_results(path)
    assert not read
    point = whole["values"].sel(spread=3.0, seed=[1, 5], step=8)
    assert not read
    loaded = (
        sweep(cell, axes={"spread": [3.0]}, seeds=[1, 5], tile=4)["values"]
        .isel(spread=0)
        .sel(step=8)
    )
    assert point.drop_vars("done").equals(loaded)
    assert read == [("values", [2, 3])], "the units of one point of the axis, of one variable"
    np.testing.assert_array_equal(
        whole["values"][{"step": [3, 0], "values_0": slice(None, None, 2)}].shape, (3, 8, 2, 1)
    )
    np.testing.assert_array_equal(
        whole["spurious"].values[..., [3, 1]], whole["spurious"].isel(step=[3, 1])
    )


@pytest.mark.slow
def test_zipped_axes_and_no_axes_are_stored_too(tmp_path) -> None:
    axis = zipped(spread=[1.0, 3.0, 6.0], learning_rate=[0.2, 0.05, 0.2])
    path = tmp_path / "zipped.zarr"
    found = sweep(cell, axes={"point": axis}, seeds=2, tile=4, store=path)
    assert found.equals(sweep(cell, axes={"point": axis}, seeds=2, tile=4))
    sweep(cell, axes={"spread": [1.0], "learning_rate": [0.2, 0.05]}, seeds=2, store=path)
    whole = open_results(path)
    assert whole["spurious"].dims == ("point", "seed", "step")
    assert list(zip(whole.spread.values, whole.learning_rate.values, strict=True)) == [
        (1, 0.2),
        (3, 0.05),
        (6, 0.2),
        (1, 0.05),
    ]
    assert whole.done.all()
    plain = tmp_path / "plain.zarr"
    assert sweep(cell, seeds=3, tile=4, store=plain).equals(sweep(cell, seeds=3, tile=4))
    sweep(cell, seeds=range(2, 5), store=plain)
    assert open_results(plain).seed.values.tolist() == [0, 1, 2, 3, 4]


def test_a_single_number_of_a_store_is_read(tmp_path) -> None:
    path = tmp_path / "own.zarr"
    found = sweep(cell, axes={"spread": [1.0, 3.0]}, seeds=3, tile=4, store=path)
    assert found.diverged_at.isel(spread=1, seed=2).values == -1
    assert found.spurious.isel(spread=1, seed=2, step=3).load() == found.spurious[1, 2, 3]


def test_summaries_leave_out_what_is_missing(tmp_path) -> None:
    path = tmp_path / "hole.zarr"
    sweep(cell, axes={"spread": [1.0, 3.0]}, seeds=3, tile=4, store=path)
    sweep(cell, axes={"spread": [6.0]}, seeds=1, store=path)
    whole = open_results(path)
    assert metric_names(whole) == ["spurious", "values"]
    assert whole.done.sum("seed").values.tolist() == [3, 3, 1]
    table = summary(final(whole), "spurious")
    assert float(table["median"].sel(spread=6.0)) == float(
        whole.spurious.sel(spread=6.0, seed=0)[-1]
    )
    assert (table.diverged_fraction == 0).all()


def test_an_unknown_kind_of_file_is_named(tmp_path) -> None:
    with pytest.raises(ValueError, match=r"out's suffix must be one of .nc, .csv, got '.txt'"):
        export_results(tmp_path, tmp_path / "results.txt")
