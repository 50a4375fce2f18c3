"""A stored sweep has the bits of a sweep in memory, whatever was requested before, in any order."""

from __future__ import annotations

import functools
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
import pandas as pd
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from causal_sgd.analysis import final, metric_names, summary
from causal_sgd.experiment import Experiment
from causal_sgd.sensing import measurements, metrics, models, worlds
from causal_sgd.sweeps import compare, sweep
from causal_sgd.sweeps._grid import Grid, zipped
from causal_sgd.sweeps._programs import Program
from causal_sgd.sweeps.store import Store, StoreError, _exports, export_results, open_results
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


def test_a_resumed_sweep_of_an_equal_cell_compiles_nothing(tmp_path) -> None:
    compiled = []
    path = tmp_path / "resumed.zarr"
    sweep(experiment(), axes=AXES, seeds=3, tile=2, store=path)
    jax.monitoring.register_event_duration_secs_listener(
        lambda event, _, **__: compiled.append(event) if "backend_compile" in event else None
    )
    sweep(experiment(), axes=AXES | {"spread": [1.0, 2.0, 5.0]}, seeds=9, store=path)
    assert not compiled


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


def experiment(**changes: Any) -> Any:
    fields = {
        "dim": 4,
        "invariant_rank": 1,
        "spurious_rank": 1,
        "steps": 3,
        "metrics": ("spurious_signal",),
    }
    fields |= {
        "measurement": "population",
        "model": "diagonal",
        "basis": "canonical",
    }  # quickly compiled
    return Experiment(**(fields | changes)).cell()


def closure(factor: float) -> Any:
    def cell(key: jax.Array, *, spread: Any) -> Trace:
        return experiment()(key, spread=factor * spread)

    return cell


def other_closure(key: jax.Array, *, spread: Any) -> Trace:
    return experiment(batch_size=9)(key, spread=spread)


AXES: dict[str, Any] = {"spread": [1.0, 2.0]}


@pytest.mark.parametrize(
    ("first", "then", "messages"),
    [
        (
            experiment(),
            {"cell": experiment(batch_size=7, label_noise=0.5)},
            [
                "experiment.batch_size is 1000 in the store and 7 now",
                "experiment.label_noise is 0.0 in the store and 0.5 now",
            ],
        ),
        (
            experiment(),
            {"cell": experiment(steps=4)},
            ["experiment.steps is 3 in the store and 4 now"],
        ),
        (
            experiment(),
            {"cell": experiment(metrics=("spurious_signal", "batch_loss"))},
            ["metrics.batch_loss is nothing in"],
        ),
        (experiment(), {"key": 5}, ["key is 0 0 in the store and 0 5 now"]),
        (
            experiment(),
            {"axes": {"mean": [1.0]}},
            ["parameters.mean is nothing in the store and float32 now"],
        ),
        (
            experiment(),
            {"axes": {"spread": [1, 2]}},
            ["parameters.spread is float32 in the store and int32 now"],
        ),
        (
            experiment(),
            {"config": {"note": "mine"}},
            ["config is nothing in the store and {'note': 'mine'} now"],
        ),
        (
            closure(1.0),
            {"cell": closure(2.0)},
            ["the cell computes something else", "refers to changed"],
        ),
        (
            closure(1.0),
            {"cell": other_closure},
            ["cell is closure.<locals>.cell in the store and other_closure now"],
        ),
    ],
)
def test_another_configuration_is_refused_with_every_difference(
    tmp_path, first: Any, then: dict, messages: Sequence[str]
) -> None:
    path = tmp_path / "first.zarr"
    sweep(first, axes=AXES, tile=2, store=path)
    before = {file: file.read_bytes() for file in path.rglob("*") if file.is_file()}
    with pytest.raises(StoreError) as error:
        sweep(**({"cell": first, "axes": AXES, "seeds": 4, "store": path} | then))
    for message in (*messages, "Give this sweep a store of its own"):
        assert message in str(error.value)
    assert before == {file: file.read_bytes() for file in path.rglob("*") if file.is_file()}


def test_a_store_of_another_version_is_used_with_a_warning(tmp_path) -> None:
    path = tmp_path / "old.zarr"
    sweep(closure(1.0), axes=AXES, tile=2, store=path)
    file = path / "zarr.json"
    content = json.loads(file.read_text())
    environment = content["attributes"]["environments"][0]
    environment["versions"]["jax"], environment["program"] = "0.9.9", "as another jax prints it"
    file.write_text(json.dumps(content))
    with pytest.warns(UserWarning, match=r"rounding only: versions.jax is 0.9.9 in the store and"):
        sweep(closure(1.0), axes=AXES, seeds=3, store=path)
    assert open_results(path).attrs["environments"] == 2
    # Both are recorded now, and each version's program is compared with its own.
    with pytest.raises(StoreError, match="computes something else"):
        sweep(closure(2.0), axes=AXES, seeds=4, store=path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"config": {"array": np.zeros(3)}}, "config must hold plain values that JSON can hold"),
        ({"config": {"rate": float("nan")}}, "config must hold plain values"),
        (
            {"executor": 3},
            "executor must be a concurrent.futures.Executor or a function that makes one, got 3",
        ),
        ({"tiles_per_task": 0}, "tiles_per_task must be a whole number, at least 1"),
        ({"retries": -1}, "retries must be a whole number, at least 0"),
        ({"seeds": [2**32]}, "seeds must be at most 4294967295"),
    ],
)
def test_bad_options_are_named_before_a_store_is_made(
    tmp_path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        sweep(experiment(), axes=AXES, store=tmp_path / "bad.zarr", **options)
    assert not list(tmp_path.iterdir())


def test_a_metric_that_cannot_be_stored_under_its_name(tmp_path) -> None:
    def named(key: jax.Array, *, spread: Any) -> Trace:
        trace = experiment()(key, spread=spread)
        return trace._replace(metrics={"_seed": trace.metrics["spurious_signal"]})

    with pytest.raises(StoreError, match="metric '_seed' cannot be stored under that name"):
        sweep(named, axes=AXES, store=tmp_path / "named.zarr")
    assert not list(tmp_path.iterdir())


def test_provenance_is_kept(tmp_path) -> None:
    path = tmp_path / "own.zarr"
    sweep(experiment(), axes=AXES, tile=2, store=path, config={"note": "mine"})
    store = Store(path)
    assert store.configuration["experiment"]["dim"] == 4
    assert "spread" not in store.configuration["experiment"], (
        "what is an axis is no part of the configuration"
    )
    assert store.configuration["config"] == {"note": "mine"}
    assert store.configuration["key_implementation"] == str(jax.random.key_impl(jax.random.key(0)))
    (environment,) = store.environments
    assert environment["versions"]["jax"] == jax.__version__
    assert {
        "platform",
        "device",
        "machine",
        "cpu",
        "x64",
        "matmul_precision",
        "git_commit",
        "program",
    } < set(environment)
    assert (
        Experiment.parse(store.configuration["experiment"]).cell().configuration
        == experiment().configuration
    )


def test_compared_methods_have_a_store_each(tmp_path, monkeypatch) -> None:
    cells = {"hetero": experiment(), "pooled": experiment(sampler="pooled")}
    found = compare(cells, axes=AXES, seeds=2, tile=2, store=tmp_path / "methods")
    assert {path.name for path in (tmp_path / "methods").glob("[!.]*.zarr")} == {
        "hetero.zarr",
        "pooled.zarr",
    }
    assert found.equals(compare(cells, axes=AXES, seeds=2, tile=2))
    monkeypatch.setattr(Program, "begin", None)  # what is complete is not compiled
    assert found.equals(compare(cells, axes=AXES, seeds=2, store=tmp_path / "methods"))


@pytest.mark.parametrize("suffix", [".nc", ".csv"])
def test_results_are_exported(tmp_path, suffix: str) -> None:
    path, out = tmp_path / "own.zarr", tmp_path / f"results{suffix}"
    axes = {"spread": [1.0, 3.0], "learning_rate": [0.05, 1e6]}
    sweep(cell, axes=axes, seeds=3, tile=4, store=path)
    sweep(cell, axes={"spread": [6.0], "learning_rate": [0.05]}, seeds=1, store=path)
    whole = export_results(path, out).load()
    if suffix == ".nc":
        with xr.open_dataset(out) as stored:
            assert stored.load().equals(whole)
        return
    table = pd.read_csv(out)
    columns = "spread learning_rate seed step spurious diverged_at values_0 values_1 done"
    assert set(table.columns) == set(columns.split())
    assert len(table) == 3 * 2 * 3 * 4
    for row in table.sample(20, random_state=0).itertuples():
        point = whole.sel(spread=row.spread, learning_rate=row.learning_rate, seed=row.seed)
        assert bool(point.done) == row.done
        frame = point.sel(step=row.step)
        np.testing.assert_allclose(row.spurious, float(frame.spurious), rtol=1e-6)
        np.testing.assert_allclose([row.values_0, row.values_1], frame["values"].values, rtol=1e-6)
        assert row.diverged_at == int(point.diverged_at)


def test_a_large_table_is_written_in_pieces(tmp_path, monkeypatch) -> None:

    path = tmp_path / "own.zarr"
    sweep(cell, axes={"spread": SPREADS}, seeds=3, tile=4, store=path)
    export_results(path, tmp_path / "once.csv")
    monkeypatch.setattr(_exports, "ROWS_AT_ONCE", 5)
    export_results(path, tmp_path / "pieces.csv")
    assert (tmp_path / "once.csv").read_text() == (tmp_path / "pieces.csv").read_text()


def test_an_unknown_kind_of_file_is_named(tmp_path) -> None:
    with pytest.raises(ValueError, match=r"out's suffix must be one of .nc, .csv, got '.txt'"):
        export_results(tmp_path, tmp_path / "results.txt")
