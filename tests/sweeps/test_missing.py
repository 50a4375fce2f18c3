"""Missing runs count as values nowhere, whatever the type of a metric."""

from __future__ import annotations

import base64
import csv
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr

from causal_sgd import analysis
from causal_sgd.figures.explorer._payload import payload
from causal_sgd.sweeps import SweepError, compare, refine, refinement, sweep, tell
from causal_sgd.sweeps.store import export_results, open_results
from causal_sgd.types import Trace
from support.cases import few

KINDS = ("bool", "int8", "uint8", "int16", "uint16", "int32", "uint32", "float16", "float32")
WIDENED = ("bfloat16", "float8_e4m3fn", "int4", "uint4")
STEPS = 3


def cell(key: jax.Array, *, spread: Any, level: Any = 0.0) -> Trace:
    """Frames 1, 2, 3 plus the spread, in all types; a run of spread 3 and above diverges."""
    frames = jnp.arange(1, STEPS + 1) + spread + level
    values = {kind: frames.astype(kind) for kind in KINDS}
    values["complex64"] = frames + 1j
    diverged_at = jnp.where(spread >= 3, 1, -1).astype(jnp.int32)
    return Trace(jnp.arange(STEPS, dtype=jnp.int32), values, diverged_at)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six seeds of spread 0, two of spread 1."""
    path = tmp_path_factory.mktemp("missing") / "holes.zarr"
    sweep(cell, axes={"spread": [0.0]}, seeds=6, tile=2, store=path)
    sweep(cell, axes={"spread": [1.0]}, seeds=2, store=path)
    return path


@pytest.mark.parametrize("kind", KINDS)
def test_summaries_and_fractions_count_the_runs_there_are(store: Path, kind: str) -> None:
    dataset = open_results(store)
    values = np.array([3, 4]).astype(kind)  # the last frames
    table = dataset.sgd.summary(kind).isel(step=-1)
    for name in ("low", "median", "high"):
        np.testing.assert_array_equal(table[name], values)
    fraction = analysis.rejecting_fraction(dataset, kind, level=3.5)
    np.testing.assert_array_equal(fraction.runs, [6, 2])
    np.testing.assert_array_equal(fraction.fraction, values < 3.5)
    crossing = analysis.rejection_boundary(dataset, kind, along="spread", level=3.5, resamples=9)
    assert np.isfinite(crossing.value) == (kind != "bool")
    np.testing.assert_array_equal(
        np.isnan(analysis.level_crossing(dataset, kind, along="spread", level=3.5)), False
    )


@pytest.mark.parametrize("kind", [*KINDS, "complex64"])
def test_missing_runs_are_nan(store: Path, kind: str) -> None:
    dataset = open_results(store)
    assert np.isnan(dataset[kind].values[1, 2:]).all()
    assert dataset[kind].dtype.kind in "fc"
    whole = sweep(cell, axes={"spread": [0.0, 1.0]}, seeds=2, store=store)  # nothing is missing
    assert whole[kind].dtype == np.dtype(kind)
    np.testing.assert_array_equal(dataset[kind].isel(seed=slice(2)), whole[kind])
    assert dataset.diverged_at.dtype == np.int32
    np.testing.assert_array_equal(dataset.diverged_at, -1)


def test_growth_rates_and_order_parameters_count_the_runs_there_are(store: Path) -> None:
    dataset = open_results(store)
    rates = analysis.growth_rate(dataset, "int32")
    np.testing.assert_allclose(rates.rate, [np.log(3 / 2), np.log(4 / 3)])
    jittered = dataset.assign(int32=dataset.int32 + 0.1 * dataset.seed)
    error = analysis.growth_rate(jittered, "int32").standard_error[1]
    logs = np.log((4 + 0.1 * np.arange(2)) / (3 + 0.1 * np.arange(2)))
    np.testing.assert_allclose(error, logs.std(ddof=1) / np.sqrt(2))
    mirrored = dataset.assign_coords(spread=[5.0, 4.0])
    boundary = analysis.order_parameter_boundary(mirrored, metric="int32", power=1, resamples=9)
    np.testing.assert_allclose(boundary.value, 8)


def test_files_of_older_versions_are_masked_by_done() -> None:
    """They hold -1 where an integer is missing."""
    dims = ("spread", "seed")
    dataset = xr.Dataset(
        {"steps": (dims, [[3, 3], [4, -1]]), "diverged_at": (dims, -np.ones((2, 2), int))},
        {"spread": [0.0, 1.0], "done": (dims, [[True, True], [True, False]])},
    )
    np.testing.assert_array_equal(analysis.summary(dataset, "steps")["median"], [3, 4])
    assert analysis.rejecting_fraction(dataset, "steps", level=3.5).runs.values.tolist() == [2, 1]
    rates = analysis.summary(dataset.assign(steps=dataset.steps > 3), "steps")["median"]
    np.testing.assert_array_equal(rates, [0, 1])


def test_complex_metrics_have_no_median(store: Path) -> None:
    dataset = open_results(store)
    calls: list[Callable[[], object]] = [
        lambda: dataset.sgd.summary("complex64"),
        lambda: analysis.rejecting_fraction(dataset, "complex64", level=1.0),
        lambda: analysis.growth_rate(dataset, "complex64"),
        lambda: tell(refinement({"spread": [0, 1]}, metric="complex64", level=1), dataset),
    ]
    for call in calls:
        with pytest.raises(ValueError, match="metric must hold real numbers, got 'complex64'"):
            call()
    with pytest.raises(ValueError, match="metric must be a real number a frame"):
        refine(cell, axes={"spread": [0.0, 1.0]}, metric="complex64", level=1.0)


def test_tables_leave_missing_runs_out(store: Path, tmp_path: Path) -> None:
    export_results(store, tmp_path / "runs.csv")
    with (tmp_path / "runs.csv").open() as file:
        rows = list(csv.DictReader(file))
    done = open_results(store).done
    runs = [(float(row["spread"]), int(row["seed"])) for row in rows[::STEPS]]
    assert runs == [
        (spread, seed)
        for spread in done.spread.values
        for seed in done.seed.values
        if done.sel(spread=spread, seed=seed)
    ]
    assert len(rows) == STEPS * len(runs) < STEPS * done.size
    assert [row["int32"] for row in rows[:STEPS]] == ["1", "2", "3"], "whole numbers stay whole"
    assert {row["bool"] for row in rows} == {"True"}


@pytest.mark.parametrize("kind", few(["bool", "uint8", "int32", "uint32"], ["bool"]))
def test_the_explorer_shows_the_runs_there_are(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "two.zarr"
    sweep(cell, axes={"spread": [0.0], "level": [0.0, 1.0]}, seeds=6, tile=2, store=path)
    sweep(cell, axes={"spread": [1.0], "level": [1.0]}, seeds=2, store=path)
    dataset = open_results(path)[[kind, "complex64", "diverged_at"]]
    data = payload({"": dataset})
    assert [metric["name"] for metric in data["metrics"]] == [kind]
    runs, final = (
        np.frombuffer(base64.b64decode(text), "<f4") for text in (data["runs"], data["final"])
    )
    np.testing.assert_array_equal(runs, [6, 6, 0, 2])  # [spread, level]
    expected = np.array([3, 4, np.nan, 5])
    expected[[0, 1, 3]] = expected[[0, 1, 3]].astype(kind)
    np.testing.assert_array_equal(final.reshape(5, 4), np.broadcast_to(expected, (5, 4)))


def test_a_failed_sweep_has_nan_for_what_it_lacks() -> None:
    def failing(key: jax.Array, *, spread: Any) -> Trace:
        def check(value: np.ndarray) -> np.ndarray:
            if value == 1:
                raise RuntimeError("no")
            return value

        shape = jax.ShapeDtypeStruct((), jnp.float32)
        return cell(key, spread=jax.pure_callback(check, shape, spread, vmap_method="sequential"))

    with pytest.raises(SweepError) as error:
        sweep(failing, axes={"spread": [0.0, 1.0]}, seeds=2, tile=2, retries=0)
    dataset = error.value.dataset
    assert dataset.done.values.tolist() == [[True, True], [False, False]]
    for kind in (*KINDS, "complex64"):
        assert np.isnan(dataset[kind].values[1]).all()
        assert dataset[kind].dtype.kind in "fc"
    np.testing.assert_array_equal(dataset.sgd.summary("uint8")["median"][0], [1, 2, 3])
    assert np.isnan(dataset.sgd.summary("uint8")["median"][1]).all()


def test_compared_cells_may_lack_metrics_of_every_type() -> None:
    def lacking(key: jax.Array, *, spread: Any) -> Trace:
        trace = cell(key, spread=spread)
        return trace._replace(metrics={"float32": trace.metrics["float32"]})

    dataset = compare({"all": cell, "some": lacking}, axes={"spread": [0.0]}, seeds=2)
    for kind in (*KINDS, "complex64"):
        assert dataset[kind].dtype.kind in "fc"
        assert np.isnan(dataset[kind].sel(variant="some")).all() == (kind != "float32")
    median = dataset.sgd.summary("bool")["median"]
    np.testing.assert_array_equal(median.isel(spread=0), [[1, 1, 1], [np.nan] * 3])


def test_types_that_only_jax_has_are_widened(tmp_path: Path) -> None:
    def narrow(key: jax.Array, *, spread: Any) -> Trace:
        values = {kind: jnp.asarray(spread).astype(kind)[None] for kind in WIDENED}
        return Trace(jnp.zeros(1, jnp.int32), values, jnp.int32(-1))

    sweep(narrow, axes={"spread": [1.0, 2.0]}, tile=2, store=tmp_path / "narrow.zarr")
    sweep(narrow, axes={"spread": [3.0]}, seeds=2, store=tmp_path / "narrow.zarr")
    found = open_results(tmp_path / "narrow.zarr")
    for kind in WIDENED:
        np.testing.assert_array_equal(found[kind].isel(seed=0, step=0), [1, 2, 3])
        np.testing.assert_array_equal(found.sgd.summary(kind)["median"][:, 0], [1, 2, 3])

    def keys(key: jax.Array, *, spread: Any) -> Trace:
        return Trace(jnp.zeros(1, jnp.int32), {"key": key[None]}, jnp.int32(-1))

    with pytest.raises(ValueError, match=r"metrics must hold numbers, got key"):
        sweep(keys, axes={"spread": [1.0]})


def test_a_refined_diagram_has_the_numbers_of_its_metric() -> None:
    def large(key: jax.Array, *, spread: Any) -> Trace:
        value = 2**24 + jnp.round(spread).astype(jnp.int32)
        return Trace(jnp.zeros(1, jnp.int32), {"count": value[None]}, jnp.int32(-1))

    axis = [0.0, 1.0, 2.0, 3.0]
    dataset = refine(large, axes={"spread": axis}, metric="count", level=2**24 + 1.5)
    assert dataset["count"].values[:, 0, -1].tolist() == [2**24 + value for value in range(4)]
    assert (dataset["count"].isel(step=-1).isnull() == ~dataset.done).all()


@pytest.mark.slow
def test_whole_numbers_that_floating_point_cannot_hold_are_not_rounded_silently(
    tmp_path: Path,
) -> None:
    def counting(key: jax.Array, *, spread: Any) -> Trace:
        value = jnp.asarray(2**53 + 1, jnp.int64) * jnp.where(spread > 0, 1, 0)
        return Trace(jnp.zeros(1, jnp.int32), {"count": value[None]}, jnp.int32(-1))

    with jax.enable_x64(True):
        for spread, seeds in ((0.0, 2), (1.0, 1)):
            sweep(counting, axes={"spread": [spread]}, seeds=seeds, tile=1, store=tmp_path / "x")
    with pytest.warns(UserWarning, match=r"metric 'count' has whole numbers beyond 2\^53"):
        open_results(tmp_path / "x")["count"].load()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert open_results(tmp_path / "x")["count"][0].values.tolist() == [[0], [0]]
