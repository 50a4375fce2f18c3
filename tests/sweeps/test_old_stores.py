"""Stores of formats 1 and 2, made by earlier revisions of the package, are read and grow.

`old_stores/make.py` states how they were made.
"""

from __future__ import annotations

import functools
import json
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from causal_sgd.sweeps import sweep
from causal_sgd.sweeps.store import Store, StoreError, open_results, repair
from sweeps.old_stores.cells import CALLS, MORE_SEEDS, SEEDS

HERE = Path(__file__).parent / "old_stores"
GROWING = [name for name in CALLS if name != "renamed"]


@pytest.fixture
def path(name: str, tmp_path: Path) -> Path:
    """A copy of an old store."""
    with zipfile.ZipFile(HERE / f"{name}.zip") as archive:
        archive.extractall(tmp_path / "old.zarr")
    return tmp_path / "old.zarr"


@functools.cache
def larger(name: str) -> xr.Dataset:
    """The larger sweep in memory."""
    call = CALLS[name]
    return sweep(call.cell, axes=call.more, seeds=MORE_SEEDS, tile=call.tile, config=call.config)


def grown(name: str, path: Path) -> xr.Dataset:
    """The larger sweep in the store."""
    call = CALLS[name]
    with pytest.warns(UserWarning, match="was begun elsewhere"):
        return sweep(call.cell, axes=call.more, seeds=MORE_SEEDS, store=path, config=call.config)


def format_version(path: Path) -> int:
    return json.loads((path / "zarr.json").read_text())["attributes"]["format_version"]


def check_old_runs(name: str, dataset: xr.Dataset) -> None:
    """The runs that the store had have the bits of the revision that computed them."""
    call = CALLS[name]
    runs = dataset.sel({**call.axes, "seed": range(SEEDS[-1])})
    with np.load(HERE / f"{name}.npz") as expected:
        done = expected["done"]
        assert set(runs.data_vars) == set(expected) - {"done"}
        for variable in runs.data_vars:
            found, old = runs[variable].values[done], expected[str(variable)][done]
            # Where runs are missing, bools and whole numbers are read as floating-point.
            assert found.astype(old.dtype).tobytes() == old.tobytes(), variable
            assert done.any()


def check_new_runs(name: str, dataset: xr.Dataset) -> None:
    """All runs are those of a sweep in memory, up to rounding."""
    expected = larger(name)
    assert dict(dataset.sizes) == dict(expected.sizes)
    for variable, values in expected.items():
        np.testing.assert_allclose(
            dataset[variable].transpose(*values.dims), values, rtol=1e-5, atol=1e-6
        )


def chunk(path: Path, variable: str, unit: int) -> Path:
    """The file of a chunk."""
    files = (path / variable / "c" / str(unit)).rglob("*")
    (file,) = (each for each in files if each.is_file())
    return file


def flip(file: Path) -> None:
    """Flip a bit in the middle."""
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


@pytest.mark.parametrize("name", CALLS)
def test_an_old_store_is_read_as_it_was_written(name: str, path: Path) -> None:
    """Values, labels and missing runs are the old ones, nothing is damaged, no file changes."""
    call = CALLS[name]
    before = {each: each.read_bytes() for each in path.rglob("*") if each.is_file()}
    dataset = open_results(path)
    check_old_runs(name, dataset)
    with np.load(HERE / f"{name}.npz") as expected:
        np.testing.assert_array_equal(dataset["done"], expected["done"])
    assert dataset.attrs["tile"] == call.tile
    for axis, values in {**call.axes, "seed": range(SEEDS[-1])}.items():
        assert dataset[axis].values.tolist() == list(values)
    store = Store(path)
    assert not store.faults()
    assert np.flatnonzero(~store.done).tolist() == list(call.missing)
    assert store.progress()[0] == dataset["done"].size
    assert before == {each: each.read_bytes() for each in path.rglob("*") if each.is_file()}
    assert format_version(path) == call.format_version


@pytest.mark.parametrize("name", GROWING)
def test_an_old_store_grows_in_its_format(name: str, path: Path) -> None:
    """More seeds and values are computed beside the old runs, which keep their bits."""
    dataset = grown(name, path)
    check_old_runs(name, dataset)
    check_new_runs(name, dataset)
    whole = open_results(path)
    assert bool(whole["done"].all())
    check_new_runs(name, whole)
    assert not Store(path).faults()
    assert format_version(path) == CALLS[name].format_version


@pytest.mark.parametrize("name", GROWING)
def test_damage_of_an_old_store_is_found_and_repaired(name: str, path: Path) -> None:
    """A flipped bit is never read; after a repair only its unit is computed again."""
    store = Store(path)
    variable, unit = store.variables[-2], store.num_units - 1
    flip(chunk(path, variable, unit))
    assert set(Store(path).faults()) == {unit}
    with pytest.raises(StoreError, match=f"{variable} of unit {unit} .*causal-sgd repair"):
        open_results(path)[variable].load()
    assert set(repair(path)) == {unit}
    repaired = open_results(path)
    missing = [*CALLS[name].missing, unit]
    assert np.flatnonzero(~Store(path).done).tolist() == missing
    with np.load(HERE / f"{name}.npz") as expected:
        done = repaired["done"].values
        assert not (done & ~expected["done"]).any()
        assert done.any()
        for each in repaired.data_vars:
            kind = expected[str(each)].dtype
            found = repaired[each].values[done].astype(kind)
            assert found.tobytes() == expected[str(each)][done].tobytes()
    check_new_runs(name, grown(name, path))
    assert not Store(path).faults()
    assert format_version(path) == CALLS[name].format_version


@pytest.mark.parametrize("name", ["descent"])
def test_every_damage_of_an_old_store_is_found(name: str, path: Path) -> None:
    """A lost chunk, a chunk of another unit in its place, and a status that cannot be read."""
    chunk(path, "position", 1).unlink()
    shutil.copy(chunk(path, "distance", 0), chunk(path, "distance", 2))
    flip(chunk(path, "status", 4))
    faults = Store(path).faults()
    assert set(faults) == {1, 2, 4}
    assert "position of unit 1 is gone" in faults[1]
    assert "distance of unit 2 does not have the checksum" in faults[2]
    assert "status of unit 4 is damaged" in faults[4]
    with pytest.raises(StoreError, match="distance of unit 2"):
        open_results(path)["distance"].load()
    assert not open_results(path)["done"].values.all()


@pytest.mark.parametrize("name", ["renamed"])
def test_an_old_store_of_other_fields_is_only_read(name: str, path: Path) -> None:
    """A sweep whose configuration has other fields is refused, and the store stays as it is."""
    call = CALLS[name]
    before = {each: each.read_bytes() for each in path.rglob("*") if each.is_file()}
    with pytest.raises(StoreError, match="experiment.turn is 0.01 in the store and nothing now"):
        sweep(call.cell, axes=call.more, seeds=MORE_SEEDS, store=path)
    assert before == {each: each.read_bytes() for each in path.rglob("*") if each.is_file()}


@pytest.mark.parametrize("name", CALLS)
def test_repair_converts_an_old_store(name: str, path: Path) -> None:
    """A converted store has the old bits in today's format, is intact, and grows."""
    call = CALLS[name]
    before = open_results(path).load()
    repair(path, convert=True)
    assert format_version(path) == 3
    after = open_results(path)
    assert after.load().identical(before)
    check_old_runs(name, after)
    store = Store(path)
    assert not store.faults()
    assert store.progress() == (before["done"].size, int(before["done"].sum()))
    assert (store.tile, store.configuration["key"]) == (call.tile, "0 0")
    if name in GROWING:
        dataset = grown(name, path)
        check_old_runs(name, dataset)
        check_new_runs(name, dataset)
        assert not Store(path).faults()
    assert format_version(path) == 3
