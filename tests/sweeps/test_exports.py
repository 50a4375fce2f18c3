"""Exports: only the runs there are, in pieces, and an earlier file survives a failure."""

from __future__ import annotations

import resource
import shutil
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
import xarray as xr

from causal_sgd import sweeps
from causal_sgd.figures import _files
from causal_sgd.sweeps import _classic, _netcdf, sweep
from causal_sgd.sweeps.store import Store, StoreError, _exports, export_results, open_results
from causal_sgd.types import Trace
from support.shell import call

FRAMES, SUFFIXES = 4, (".nc", ".csv")
SPREADS, RATES = np.array([1.0, 1.1, 3.0, 7.0]), np.array([0.25, 0.05])


def cell(key: jax.Array, *, spread: Any, rate: Any = 0.5) -> Trace:
    """Numbers of several types; a run diverges where the spread is 7."""
    frames = spread + rate * jnp.arange(FRAMES) + jax.random.uniform(key, (FRAMES,))
    metrics = {
        "signal": frames,
        "count": jnp.round(100 * frames).astype(jnp.int32),
        "small": jnp.round(frames).astype(jnp.uint8),
        "above": frames > 2,
        "both": jnp.stack([frames, -frames], 1),
    }
    steps = jnp.arange(0, 2 * FRAMES, 2, dtype=jnp.int32)
    return Trace(steps, metrics, jnp.where(spread > 6, 4, -1).astype(jnp.int32))


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A full grid, several requests that are none, and a refined diagram."""
    folder = tmp_path_factory.mktemp("stores")
    paths = {name: folder / f"{name}.zarr" for name in ("full", "several", "refined")}
    axes = {"spread": SPREADS, "rate": RATES}
    sweep(cell, axes=axes, seeds=3, tile=5, store=paths["full"])
    sweep(
        cell, axes={"spread": SPREADS[2:], "rate": RATES}, seeds=3, tile=4, store=paths["several"]
    )
    sweep(
        cell, axes={"spread": SPREADS[:1], "rate": RATES[:1]}, seeds=[7, 1], store=paths["several"]
    )
    sweeps.refine(
        cell,
        axes={"spread": np.linspace(0, 4, 17), "rate": np.linspace(0, 1, 9)},
        metric="signal",
        level=3.0,
        max_seeds=12,
        tile=32,
        store=paths["refined"],
        progress=False,
    )
    return paths


def runs_of(path: Path) -> xr.Dataset:
    """The runs of a store that are done along one dimension, in ascending order."""
    whole = open_results(path, unzip=True).load()
    flat = whole.stack(run=whole.done.dims, create_index=False)
    return flat.isel(run=flat.done.values).sortby(["spread", "rate", "seed"]).drop_vars("done")


@pytest.mark.parametrize("name", ["full", "several", "refined"])
def test_a_table_has_the_runs_that_are_done(stores, name: str, tmp_path: Path) -> None:
    export_results(stores[name], tmp_path / "runs.csv")
    table = pd.read_csv(tmp_path / "runs.csv")
    first = ["spread", "rate", "seed", "step"]
    assert list(table)[:4] == first
    assert set(table) == {
        *first, "signal", "count", "small", "above", "both_0", "both_1", "diverged_at"
    }  # fmt: skip
    assert len(table) == FRAMES * Store(stores[name]).progress()[1]
    if name == "full":
        points = table[first].iloc[:: 3 * FRAMES]
        grid = [(spread, rate, 0, 0) for spread in SPREADS for rate in RATES]
        assert list(points.itertuples(index=False, name=None)) == grid, "in the order of the axes"
    expected = runs_of(stores[name])
    table = table.sort_values(first)
    for column in ("spread", "rate", "seed", "diverged_at"):
        np.testing.assert_array_equal(table[column].iloc[::FRAMES], expected[column])
    for column in ("signal", "count", "small", "above"):
        values = expected[column].transpose("run", "step").values.ravel()
        np.testing.assert_allclose(table[column], values, rtol=1e-6)
    np.testing.assert_array_equal(table["both_1"], -table["both_0"])
    assert [table[column].dtype.kind for column in ("count", "small", "above")] == ["i", "i", "b"]


@pytest.mark.parametrize("name", ["several", "refined"])
def test_a_netcdf_file_of_no_full_grid_has_its_runs_along_one_dimension(
    stores, name: str, tmp_path: Path, capsys
) -> None:
    out = tmp_path / "runs.nc"
    exported = export_results(stores[name], out)
    runs = Store(stores[name]).progress()[1]
    with xr.open_dataset(out) as stored:
        assert stored.sizes == {"run": runs, "step": FRAMES, "both_0": 2}
        assert set(stored.coords) == {"spread", "rate", "seed", "step"}
        assert stored["count"].dtype.kind == "i", "nothing is missing"
        assert stored.load().equals(exported)
        expected = runs_of(stores[name])
        for variable in ("spread", "rate", "seed", "signal", "count", "both", "diverged_at"):
            values = expected[variable].transpose("run", ...)
            np.testing.assert_array_equal(stored[variable], values)
    assert exported.attrs == open_results(stores[name]).attrs
    code, text, _ = call("export", str(stores[name]), str(out), "--force", capsys=capsys)
    assert code == 0
    assert text == f"{out}: {runs} runs\n"
    code, _, err = call("explore", str(out), capsys=capsys)
    assert code == 2
    assert "explore the store itself" in err


def test_a_netcdf_file_of_a_full_grid_has_its_labels(stores, tmp_path: Path) -> None:
    export_results(stores["full"], tmp_path / "grid.nc")
    with xr.open_dataset(tmp_path / "grid.nc") as stored:
        assert stored.load().equals(open_results(stores["full"]))


@pytest.fixture
def half_done(tmp_path: Path) -> Path:
    """A full grid of which some runs are missing."""

    def failing(key: jax.Array, *, spread: Any) -> Trace:
        def check(value: np.ndarray) -> np.ndarray:
            if value == 3:
                raise RuntimeError("no")
            return value

        shape = jax.ShapeDtypeStruct((), jnp.float32)
        return cell(key, spread=jax.pure_callback(check, shape, spread, vmap_method="sequential"))

    path = tmp_path / "half.zarr"
    with pytest.raises(sweeps.SweepError):
        sweep(failing, axes={"spread": SPREADS[1:3]}, seeds=2, tile=2, retries=0, store=path)
    return path


def test_the_command_says_how_many_runs_are_missing(half_done: Path, tmp_path, capsys) -> None:
    table, file = str(tmp_path / "runs.csv"), str(tmp_path / "grid.nc")
    text = call("export", str(half_done), table, capsys=capsys)[1]
    assert text == f"{table}: 2 runs; 2 missing runs are left out\n"
    assert pd.read_csv(table)["spread"].tolist() == [1.1] * 2 * FRAMES
    text = call("export", str(half_done), file, capsys=capsys)[1]
    assert text == f"{file}: 4 runs, of which 2 are missing\n"
    with xr.open_dataset(file) as stored:
        assert stored.done.values.tolist() == [[True, True], [False, False]]


def test_a_store_without_results_has_no_table(tmp_path: Path, capsys) -> None:
    def never(key: jax.Array, *, spread: Any) -> Trace:
        def fail(value: np.ndarray) -> np.ndarray:
            raise RuntimeError("no")

        shape = jax.ShapeDtypeStruct((), jnp.float32)
        return cell(key, spread=jax.pure_callback(fail, shape, spread, vmap_method="sequential"))

    path = tmp_path / "empty.zarr"
    with pytest.raises(sweeps.SweepError):
        sweep(never, axes={"spread": [1.0]}, retries=0, store=path)
    code, _, err = call("export", str(path), str(tmp_path / "out.csv"), capsys=capsys)
    assert code == 2
    assert err == f"causal-sgd: error: {path} must have runs that are done, got none\n"
    assert not (tmp_path / "out.csv").exists()


@pytest.mark.parametrize("names", [("run", "values"), ("values", "run")])
def test_names_of_the_user_may_be_that_of_the_dimension(
    names: tuple[str, str], tmp_path: Path
) -> None:
    parameter, metric = names

    def named(key: jax.Array, **values: Any) -> Trace:
        number = jnp.asarray(values[parameter])
        return Trace(jnp.zeros(1, jnp.int32), {metric: number[None]}, jnp.int32(-1))

    path = tmp_path / "own.zarr"
    for seeds, values in ((1, [1.0, 2.0]), (2, [3.0])):
        sweep(named, axes={parameter: values}, seeds=seeds, store=path)
    for suffix in SUFFIXES:
        export_results(path, tmp_path / f"out{suffix}")
    assert pd.read_csv(tmp_path / "out.csv")[parameter].tolist() == [1, 2, 3, 3]
    with xr.open_dataset(tmp_path / "out.nc") as stored:
        assert stored[metric].dims == ("run_", "step")
        assert stored[metric].values[:, 0].tolist() == [1, 2, 3, 3]


@pytest.mark.parametrize(
    ("name", "at_once"),
    [("full", 1), ("full", 100), ("several", 1), ("several", 100), ("refined", 2000)],
)
def test_large_results_are_written_in_pieces(
    stores, name: str, at_once: int, tmp_path: Path, monkeypatch
) -> None:
    for suffix in SUFFIXES:
        export_results(stores[name], tmp_path / f"once{suffix}")
    monkeypatch.setattr(_exports, "NUMBERS_AT_ONCE", at_once)
    monkeypatch.setattr(_classic, "AT_ONCE", at_once)
    monkeypatch.setattr(_netcdf, "AT_ONCE", 0)
    monkeypatch.setattr(xr.Dataset, "load", watched(xr.Dataset.load, at_once))
    for suffix in SUFFIXES:
        export_results(stores[name], tmp_path / f"pieces{suffix}")
    assert (tmp_path / "once.csv").read_text() == (tmp_path / "pieces.csv").read_text()
    with (
        xr.open_dataset(tmp_path / "once.nc", engine="scipy") as once,
        xr.open_dataset(tmp_path / "pieces.nc", engine="scipy") as pieces,
    ):
        assert pieces.identical(once)
        for variable in once.variables:
            assert pieces[variable].dtype == once[variable].dtype
            for key in ("dtype", "coordinates"):
                assert pieces[variable].encoding.get(key) == once[variable].encoding.get(key)


def watched(load: Callable[..., xr.Dataset], at_once: int) -> Callable[..., xr.Dataset]:
    """`load` of no more than a piece, or than one run where this is more."""

    def loaded(dataset: xr.Dataset) -> xr.Dataset:
        runs = dataset.sizes.get("run", 1)
        assert runs == 1 or dataset.nbytes <= 10 * at_once
        return load(dataset)

    return loaded


@pytest.mark.slow
@pytest.mark.parametrize(("suffix", "points"), [(".nc", 60), (".csv", 2)])
@pytest.mark.parametrize("name", ["grid", "list"])
def test_an_export_needs_the_memory_of_a_piece(
    name: str, suffix: str, points: int, tmp_path: Path, monkeypatch
) -> None:
    """The values take 12 MB, and the table of fewer of them 9 MB."""

    def long(key: jax.Array, *, spread: Any) -> Trace:
        frames = spread + jax.random.uniform(key, (1000,))
        return Trace(jnp.arange(1000), {"signal": frames}, jnp.int32(-1))

    path = tmp_path / "long.zarr"
    sweep(long, axes={"spread": np.arange(float(points))}, seeds=50, tile=10, store=path)
    if name == "list":
        sweep(long, axes={"spread": [80.0]}, seeds=1, store=path)
    monkeypatch.setattr(_exports, "NUMBERS_AT_ONCE", 10**4)
    monkeypatch.setattr(_classic, "AT_ONCE", 10**5)
    monkeypatch.setattr(_netcdf, "AT_ONCE", 10**5)
    export_results(path, tmp_path / "first.nc")  # modules are imported here
    tracemalloc.start()
    export_results(path, tmp_path / f"out{suffix}")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4e6


def test_what_version_3_cannot_hold_is_not_written_in_pieces() -> None:
    def can_write(kind: str, **coordinates: Any) -> bool:
        values = np.zeros((2, 3), kind)
        dataset = xr.Dataset({"u": (("x", "y"), values), "v": ("x", np.zeros(2))}, coordinates)
        return _classic.can_write(dataset, "x")

    assert can_write("float32", y=np.array([0, 1, 2**31 - 1]))
    assert not can_write("float32", y=np.array([0, 1, 2**31]))
    assert not any(map(can_write, ("complex64", "int64", "float16", "uint32")))
    large = np.broadcast_to(np.float32(0), (1000, 2**29))
    wide = xr.Dataset({"u": (("x", "y"), large), "v": ("x", np.zeros(1000))})
    assert not _classic.can_write(wide, "x"), "a record has more than 2 GiB"
    assert _classic.can_write(wide.isel(y=slice(2**28)), "x"), "the whole may have more"
    assert not _classic.can_write(wide[["u"]].transpose("y", "x"), "y"), "one variable"
    assert not _classic.can_write(wide, "y"), "the first dimension has the records"


def interrupt(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


@pytest.fixture(params=["whole", "pieces"])
def writing(request: pytest.FixtureRequest, monkeypatch) -> str:
    """netCDF files are written as a whole or in pieces; tables are always written in pieces."""
    monkeypatch.setattr(_exports, "NUMBERS_AT_ONCE", 1)
    monkeypatch.setattr(_classic, "AT_ONCE", 1)
    if request.param == "pieces":
        monkeypatch.setattr(_netcdf, "AT_ONCE", 0)
    return request.param


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("stop", ["interrupt", "damage"])
@pytest.mark.usefixtures("writing")
def test_the_earlier_file_survives_a_failure_of_reading(
    stores, suffix: str, stop: str, tmp_path: Path, monkeypatch
) -> None:
    out, path = tmp_path / "out" / f"runs{suffix}", tmp_path / "own.zarr"
    out.parent.mkdir()
    shutil.copytree(stores["full"], path)
    export_results(path, out)
    before = out.read_bytes()
    calls = []

    def read(store: Store, name: str, units: np.ndarray) -> np.ndarray:
        calls.append(name)
        if len(calls) > 4:  # when some of the file has been written
            raise KeyboardInterrupt if stop == "interrupt" else StoreError("damaged")
        return plain(store, name, units)

    plain = Store.read
    monkeypatch.setattr(Store, "read", read)
    with pytest.raises(KeyboardInterrupt if stop == "interrupt" else StoreError):
        export_results(path, out)
    assert out.read_bytes() == before
    assert list(out.parent.iterdir()) == [out]


@pytest.fixture
def full_disk() -> Iterator[None]:
    """Files can have no more than 2000 bytes."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.usefixtures("writing", "full_disk")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # of scipy's file
def test_the_earlier_file_survives_a_full_disk(stores, suffix: str, tmp_path: Path, capsys) -> None:
    out = tmp_path / f"runs{suffix}"
    out.write_text("earlier")
    with pytest.raises(OSError, match="cannot be written: File too large"):
        export_results(stores["full"], out)
    assert out.read_text() == "earlier"
    assert list(tmp_path.iterdir()) == [out]


def test_a_file_in_a_folder_that_takes_no_new_files_survives_too(
    stores, tmp_path: Path, monkeypatch
) -> None:
    out = tmp_path / "runs.csv"
    out.write_text("earlier")
    monkeypatch.setattr(_files.os, "access", lambda path, mode: path != tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(pd.DataFrame, "to_csv", interrupt)
        with pytest.raises(KeyboardInterrupt):
            export_results(stores["full"], out)
    assert out.read_text() == "earlier"

    def torn(source: Path, target: Path) -> None:
        if target == out and source.suffix == ".csv":
            out.write_text("half")
            raise OSError(28, "No space left on device")
        copy(source, target)

    copy = shutil.copyfile
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "copyfile", torn)
        with pytest.raises(OSError, match=r"runs.csv cannot be written: No space left"):
            export_results(stores["full"], out)
    assert out.read_text() == "earlier"
    export_results(stores["full"], out)
    assert len(pd.read_csv(out)) == 4 * 2 * 3 * FRAMES
    assert list(tmp_path.iterdir()) == [out]
