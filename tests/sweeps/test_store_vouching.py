"""A store knows which runs its numbers belong to, whatever is restored, edited or moved there."""

from __future__ import annotations

import functools
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr
import zarr
from zarr.codecs import ZstdCodec

from causal_sgd.sweeps import SweepError, sweep
from causal_sgd.sweeps.store import Store, StoreError, open_results, repair
from causal_sgd.sweeps.store import _results as store_results
from causal_sgd.types import Trace
from support.stores import edit

SPREADS, RATES, SEEDS = [0.5, 1.0, 2.0], [0.1, 0.2, 0.3, 0.4], 8


def cell(key: jax.Array, *, spread: Any, rate: Any) -> Trace:
    """Three frames that differ between all runs."""
    value = jax.random.uniform(key) + 10 * spread + 100 * rate
    frames = jnp.arange(3, dtype=jnp.int32)
    values = {"value": value + frames, "pair": value * jnp.ones((3, 2))}
    return Trace(frames * 5, values, jnp.asarray(-1, jnp.int32))


def swept(path: Path | None, **changes: Any) -> xr.Dataset:
    options: dict[str, Any] = {"axes": {"spread": SPREADS, "rate": RATES}, "seeds": SEEDS}
    return sweep(cell, **(options | {"tile": 2, "store": path} | changes))


@functools.cache
def in_memory() -> xr.Dataset:
    return swept(None)


@functools.cache
def larger() -> xr.Dataset:
    return swept(None, seeds=2 * SEEDS)


@pytest.fixture(scope="module")
def complete(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("complete") / "own.zarr"
    swept(path)
    return path


@pytest.fixture
def store(complete: Path, tmp_path: Path) -> Path:
    """A store of the test's own, of 48 tiles in units of 4."""
    path = Path(shutil.copytree(complete, tmp_path / "own.zarr"))
    assert Store(path).tiles_per_unit == 4
    return path


def test_an_older_header_over_newer_results_is_refused_and_restored(store: Path) -> None:
    older = (store / "zarr.json").read_bytes()
    swept(store, seeds=2 * SEEDS)
    newer = (store / "zarr.json").read_bytes()
    (store / "zarr.json").write_bytes(older)
    for use in (open_results, Store, swept):
        with pytest.raises(StoreError, match=r"older zarr.json than its data; .*causal-sgd repair"):
            use(store)
    assert list(repair(store)) == ["zarr.json"]
    assert (store / "zarr.json").read_bytes() == newer
    assert open_results(store).drop_vars("done").equals(larger())


def test_an_older_header_with_its_copy_gets_its_results_back(store: Path) -> None:
    """As a backup of some files leaves it; the runs are in no request any more."""
    older = {name: (store / name).read_bytes() for name in ("zarr.json", "status/header")}
    swept(store, seeds=2 * SEEDS)
    for name, content in older.items():
        (store / name).write_bytes(content)
    assert open_results(store).drop_vars("done").equals(in_memory())
    assert "does not know 12 units" in Store(store).faults()["zarr.json"]
    with pytest.raises(StoreError, match="has data of 12 units that its zarr.json"):
        swept(store, seeds=2 * SEEDS)
    assert next(iter(repair(store))) == "zarr.json"
    assert not Store(store).faults()
    assert open_results(store).drop_vars("done").equals(larger())
    before = (store / "status" / "journal").read_bytes()
    assert swept(store, seeds=2 * SEEDS).equals(larger())
    assert (store / "status" / "journal").read_bytes() == before, "nothing was computed again"


EDITS: dict[str, Callable[[dict[str, Any]], object]] = {
    "seeds of a request": lambda header: header["requests"][0].update(seeds={"range": [1, 9]}),
    "values of a request": lambda header: header["requests"][0]["axes"]["rate"].update(
        rate=[0.1, 0.2, 0.3, 0.5]
    ),
    "steps": lambda header: header.update(steps=[0, 50, 100]),
    "type of a parameter": lambda header: header["parameters"].update(rate="int32"),
    "order of the variables": lambda header: header["variables"].reverse(),
    "tile": lambda header: header.update(tile=4),
    "tiles in a unit": lambda header: header.update(tiles_per_unit=2),
    "number of rows": lambda header: header.update(rows=48),
    "environment": lambda header: header["environments"][0].update(device="another"),
    "key": lambda header: header["configuration"].update(key="0 1"),
    "hash": lambda header: header.update(header_hash="0" * 64),
}


@pytest.mark.parametrize("name", EDITS)
def test_an_edited_header_is_refused_named_and_restored(store: Path, name: str) -> None:
    whole = (store / "zarr.json").read_bytes()
    edit(store, EDITS[name])
    for use in (open_results, swept):
        with pytest.raises(StoreError, match=r"own.zarr was altered: .*causal-sgd repair"):
            use(store)
    assert "does not match" in repair(store)["zarr.json"]
    assert (store / "zarr.json").read_bytes() == whole
    assert not Store(store).faults()


@pytest.mark.parametrize("harm", [Path.unlink, lambda file: file.write_bytes(b"{")])
def test_a_lost_header_is_restored(store: Path, harm: Callable[[Path], object]) -> None:
    harm(store / "zarr.json")
    with pytest.raises(StoreError, match="causal-sgd repair"):
        open_results(store)
    assert list(repair(store)) == ["zarr.json"]
    assert open_results(store).drop_vars("done").equals(in_memory())


def test_results_of_a_sibling_store_are_found(store: Path, tmp_path: Path) -> None:
    """The same configuration with other runs: chunks and their valid records are copied."""
    other = tmp_path / "sibling.zarr"
    swept(other, seeds=range(SEEDS, 2 * SEEDS))
    for folder in ("value", "pair", "diverged_at"):
        shutil.copytree(other / folder, store / folder, dirs_exist_ok=True)
    faults = Store(store).faults()
    assert set(faults) == set(range(12))
    shutil.copy(other / "status" / "journal", store / "status" / "journal")
    faults = Store(store).faults()
    assert set(faults) == set(range(12))
    assert "unit 3 holds other runs than those of its rows" in faults[3]
    assert not open_results(store).done.any()
    assert set(repair(store)) == set(range(12))
    assert swept(store).equals(in_memory())


@pytest.mark.parametrize("name", ["seed", "rate", "spread"])
def test_edited_coordinates_are_found(store: Path, name: str) -> None:
    """Valid chunks, written by zarr, that name other runs."""
    array = zarr.open_array(store / name, mode="r+")
    array[:] = np.roll(np.asarray(array[:]), 3)
    assert Store(store).faults() == {name: f"{name} does not name the runs of the store"}
    assert open_results(store).drop_vars("done").equals(in_memory()), "they are not read"
    assert list(repair(store)) == [name]
    assert not Store(store).faults()
    np.testing.assert_array_equal(
        zarr.open_array(store / name, mode="r")[:8],
        {"seed": np.arange(8), "rate": [np.float32(0.1)] * 8, "spread": [0.5] * 8}[name],
    )


def damage(file: Path, place: int) -> None:
    content = bytearray(file.read_bytes())
    content[place] ^= 1
    file.write_bytes(content)


def test_damaged_inputs_are_found_and_restored_from_the_coordinates(store: Path) -> None:
    inputs = store / "status" / "inputs"
    whole = inputs.read_bytes()
    damage(inputs, len(whole) // 2)
    faults = Store(store).faults()
    assert "other runs" in faults[6]
    assert "status/inputs is damaged" in faults["status/inputs"]
    assert set(faults) == {6, "status/inputs"}
    assert not open_results(store).done.all()
    with pytest.raises(StoreError, match=r"status/inputs is damaged.*causal-sgd repair"):
        swept(store)
    repair(store)
    assert inputs.read_bytes() == whole
    assert not Store(store).faults()
    assert open_results(store).drop_vars("done").equals(in_memory()), "nothing was lost"


def test_damaged_inputs_without_coordinates_keep_what_is_vouched_for(store: Path) -> None:
    damage(store / "status" / "inputs", 20)
    shutil.rmtree(store / "rate")
    repair(store)
    left = Store(store)
    assert not left.faults()
    assert int(left.done.sum()) == 44
    assert swept(store).equals(in_memory())
    assert Store(store).num_tiles == 52, "the runs of the damaged unit have new rows"
    assert open_results(store).drop_vars("done").equals(in_memory())


def test_a_lost_journal_is_restored_from_the_exported_status(store: Path) -> None:
    (store / "status" / "journal").unlink()
    for use in (open_results, swept):
        with pytest.raises(StoreError, match=r"status/journal is gone.*causal-sgd repair"):
            use(store)
    assert list(repair(store)) == ["status/journal"]
    assert open_results(store).drop_vars("done").equals(in_memory())
    shutil.rmtree(store / "status")
    found = {"status/journal", "status/inputs", "status/header", "status/zarr.json"}
    assert set(repair(store)) >= found
    assert not open_results(store).done.any(), "nothing vouches for the results"
    assert swept(store).equals(in_memory())


@pytest.mark.parametrize("harm", ["cut", "a byte less", "nothing left"])
def test_records_that_the_journal_lost_are_taken_from_the_exported_status(
    store: Path, harm: str
) -> None:
    journal = store / "status" / "journal"
    content = journal.read_bytes()
    size = len(content) // 12
    left = {"cut": content[: 5 * size], "a byte less": content[:100] + content[101:]}
    journal.write_bytes(left.get(harm, b""))
    lost = {"cut": 7, "a byte less": 12 - 100 // size}.get(harm, 12)
    assert int(Store(store).done.sum()) == 4 * (12 - lost)
    assert f"has lost the records of {lost} units" in Store(store).faults()["status/journal"]
    assert list(repair(store)) == ["status/journal"]
    assert not Store(store).faults()
    assert open_results(store).drop_vars("done").equals(in_memory())


@pytest.mark.parametrize(
    "name", ["status/header", "value/zarr.json", "status/zarr.json", "diverged_at/zarr.json"]
)
@pytest.mark.parametrize("harm", [Path.unlink, lambda file: file.write_bytes(b"{")])
def test_damage_of_any_other_file_is_found_and_mended(
    store: Path, name: str, harm: Callable[[Path], object]
) -> None:
    whole = (store / name).read_bytes()
    harm(store / name)
    assert list(Store(store).faults()) == [name]
    assert open_results(store).drop_vars("done").equals(in_memory()), "it is not needed"
    assert list(repair(store)) == [name]
    assert not Store(store).faults()
    if name != "status/header":  # which has another generation now
        assert (store / name).read_bytes() == whole
    assert xr.open_zarr(store, consolidated=False).sizes["run"] == 96


def test_runs_of_a_sibling_that_are_kept_are_none_of_those_requested(
    store: Path, tmp_path: Path
) -> None:
    """All files of a sibling but the header, which does not vouch for their inputs."""
    other = tmp_path / "sibling.zarr"
    swept(other, seeds=range(SEEDS, 2 * SEEDS))
    kept = {name: (store / name).read_bytes() for name in ("zarr.json", "status/header")}
    shutil.copytree(other, store, dirs_exist_ok=True)
    for name, content in kept.items():
        (store / name).write_bytes(content)
    repair(store)
    assert not Store(store).faults()
    assert Store(store).progress() == (192, 96)
    assert not open_results(store).done.any()
    assert swept(store).equals(in_memory())


def test_arrays_of_another_layout_are_read_by_zarr_and_not_written(store: Path) -> None:
    values = np.asarray(zarr.open_array(store / "value", mode="r")[:])
    header = json.loads((store / "value" / "zarr.json").read_text())
    shutil.rmtree(store / "value")
    array = zarr.create_array(
        store / "value",
        shape=values.shape,
        dtype=values.dtype,
        chunks=(6, 2),
        compressors=ZstdCodec(),
    )
    array[:] = values
    assert header["shape"] == list(values.shape)
    assert open_results(store).drop_vars("done").equals(in_memory())
    assert not Store(store).faults()
    assert swept(store).equals(in_memory()), "nothing is missing, so nothing is written"
    with pytest.raises(StoreError, match="the array value has another layout"):
        swept(store, seeds=2 * SEEDS)
    assert not repair(store), "nor by a repair, which would cost all results"
    assert open_results(store).drop_vars("done").equals(in_memory())
    array[7] = 0
    assert "value of unit 0 does not have the checksum" in Store(store).faults()[0]


def test_a_header_that_states_another_layout_than_the_chunks_have_is_restored(store: Path) -> None:
    header = store / "value" / "zarr.json"
    whole = header.read_bytes()
    header.write_bytes(whole.replace(b"float32", b"float64"))
    with pytest.raises(StoreError, match="the array value has another layout"):
        swept(store, seeds=2 * SEEDS)
    repair(store)
    assert header.read_bytes() == whole
    assert swept(store, seeds=2 * SEEDS).equals(larger())


MANY_RATES = np.arange(1, 17) / 10


def failing(key: jax.Array, *, spread: Any, rate: Any) -> Trace:
    """The cell, but for one point that cannot be computed as long as a file is there."""

    def check(spread: np.ndarray, rate: np.ndarray) -> np.ndarray:
        if spread == 1 and rate == np.float32(0.6) and Path(os.environ["FAILS"]).exists():
            raise RuntimeError("no")
        return np.float32(0)

    zero = jax.pure_callback(
        check, jax.ShapeDtypeStruct((), np.float32), spread, rate, vmap_method="sequential"
    )
    return cell(key, spread=spread, rate=rate + zero)


def test_a_failed_tile_leaves_the_others_of_its_unit(tmp_path: Path, monkeypatch) -> None:
    path, flag = tmp_path / "failed.zarr", tmp_path / "flag"
    monkeypatch.setenv("FAILS", str(flag))
    flag.touch()
    axes = {"spread": SPREADS, "rate": MANY_RATES}
    options: dict[str, Any] = {"axes": axes, "seeds": 2, "tile": 2, "retries": 0}
    with pytest.raises(SweepError):
        sweep(failing, store=path, **options)
    left = Store(path)
    assert left.tiles_per_unit == 4
    assert (int(left.done.sum()), left.num_tiles, left.progress()) == (47, 48, (96, 94))
    assert not left.faults()
    found = open_results(path)
    assert found.done.values.sum() == 94
    assert not found.done.sel(spread=1.0, rate=0.6).any()
    np.testing.assert_array_equal(found.value.isel(step=0).isnull(), ~found.done)
    flag.unlink()
    expected = sweep(cell, **options)
    assert sweep(failing, store=path, **options).equals(expected)
    whole = Store(path)
    assert whole.progress() == (96, 96)
    assert whole.num_units == left.num_units + 1, "the runs that failed are in a unit of their own"
    assert not whole.faults()
    table = xr.open_zarr(path, consolidated=False, chunks=None).load()
    assert int(table.value.isel(step=0).notnull().sum()) == 96


def test_a_unit_holds_the_tiles_of_a_second_or_a_megabyte(tmp_path: Path, monkeypatch) -> None:
    assert Store(_filled(tmp_path / "quick.zarr")).tiles_per_unit == 4, "an eighth of the tiles"
    with monkeypatch.context() as patch:
        patch.setattr(store_results, "UNIT_BYTES", 200)  # a tile has 2 x (3 + 6 + 1) x 4 bytes
        assert Store(_filled(tmp_path / "large.zarr")).tiles_per_unit == 2
    with monkeypatch.context() as patch:
        patch.setattr(store_results, "UNIT_SECONDS", 0.0)
        slow = Store(_filled(tmp_path / "slow.zarr"))
        assert slow.tiles_per_unit == 1
        assert slow.num_units == 48
    for name in ("quick", "large", "slow"):
        assert open_results(tmp_path / f"{name}.zarr").drop_vars("done").equals(in_memory())


def _filled(path: Path) -> Path:
    swept(path)
    return path


def test_many_small_requests_are_merged_to_few(tmp_path: Path) -> None:
    path = tmp_path / "merged.zarr"
    for seeds in range(1, 5):
        swept(path, seeds=seeds)
    for rates in ([0.4, 0.2], [0.5], [0.1, 0.2]):
        swept(path, axes={"spread": SPREADS, "rate": rates}, seeds=4)
    (request,) = Store(path).requests
    assert request.shape == (3, 5, 4)
    expected = swept(None, axes={"spread": SPREADS, "rate": [*RATES, 0.5]}, seeds=4)
    assert open_results(path).drop_vars("done").equals(expected)


def test_fsync_writes_the_same_store(tmp_path: Path, store: Path, monkeypatch) -> None:
    synced: list[int] = []
    fsync = os.fsync
    monkeypatch.setattr(os, "fsync", lambda file: (synced.append(file), fsync(file))[1])
    swept(tmp_path / "plain.zarr")
    assert not synced
    swept(tmp_path / "synced.zarr", fsync=True)
    assert len(synced) > 3 * 12 * 2, "every chunk and its folder"
    for name in ("status/inputs", "value/c.3.0", "rate/c.0"):
        assert (tmp_path / "synced.zarr" / name).read_bytes() == (store / name).read_bytes()
