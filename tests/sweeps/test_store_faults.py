"""Nothing computed is lost and nothing false is read, whatever happens to a sweep or its store."""

from __future__ import annotations

import functools
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
import pytest
import xarray as xr

import causal_sgd
from causal_sgd.sweeps import sweep
from causal_sgd.sweeps.store import Store, StoreError, open_results, repair
from causal_sgd.sweeps.store._exported import status_array
from causal_sgd.sweeps.store._journal import FIELDS, encode_rows, record_size
from support import interrupted
from support.stores import chunk, edit

IN_FLIGHT = 4  # tiles under way at a time: two for each of two devices
WAITING = 2 * interrupted.TILES_PER_UNIT  # tiles that wait for others of their units
SCRIPT = Path(interrupted.__file__)


def swept(path: Path | None) -> xr.Dataset:
    """In this process, on both devices."""
    return sweep(
        interrupted.CELL,
        axes=interrupted.AXES,
        seeds=interrupted.SEEDS,
        tile=interrupted.TILE,
        store=path,
        devices=jax.local_devices(),
    )


@functools.cache
def uninterrupted() -> xr.Dataset:
    return swept(None)


@pytest.fixture(scope="module")
def complete(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("complete") / "complete.zarr"
    swept(path)
    return path


@pytest.fixture
def store(complete, tmp_path) -> Path:
    """A complete store of the test's own."""
    return Path(shutil.copytree(complete, tmp_path / "own.zarr"))


def begun(path: Path, log: Path, *more: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(SCRIPT), str(path), str(log), *more],
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
    )


def lines(log: Path) -> list[str]:
    return log.read_text().splitlines() if log.exists() else []


def killed_and_resumed(folder: Path, kills: int, seed: int) -> None:
    """Kill a sweep at random moments, let it finish, and check every bit and the tiles computed."""
    moments = random.Random(seed)
    path, log = folder / "killed.zarr", folder / "log"
    landed = 0
    for _ in range(kills):
        before = len(lines(log))
        process = begun(path, log)
        # Usually after the first tile of this process has begun, sometimes while it starts.
        early, deadline = moments.random() < 0.1, time.monotonic() + 60
        while not early and len(lines(log)) == before and process.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.002)
        time.sleep(moments.random() * (3.0 if early else 0.04))
        landed += process.poll() is None and len(lines(log)) > before
        process.send_signal(signal.SIGKILL)
        process.communicate()
    left = Store(path)
    assert left.writer() is None, "a killed process writes no more"
    assert not left.faults()
    process = begun(path, log)
    _, error = process.communicate(timeout=280)
    assert process.returncode == 0, error
    assert landed >= kills * 0.6, f"only {landed} of {kills} kills came while tiles were computed"
    assert not Store(path).faults()
    found = swept(path)
    assert found.equals(uninterrupted())
    begins: Counter[str] = Counter()
    ended: set[str] = set()
    for line in lines(log):
        event, tile = line.split()
        if event == "end":
            ended.add(tile)
        else:
            assert tile not in ended, f"tile {tile} was computed again although it was done"
            begins[tile] += 1
    again = sum(begins.values()) - interrupted.NUM_TILES
    assert again <= kills * (IN_FLIGHT + WAITING), f"{again} tiles were begun again"


@pytest.mark.slow
def test_a_killed_sweep_resumes_to_the_same_bits(tmp_path) -> None:
    killed_and_resumed(tmp_path, 1, seed=1)


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("seed", range(10))
def test_fifty_kills(tmp_path, seed: int) -> None:
    killed_and_resumed(tmp_path, 5, seed=100 + seed)


@pytest.mark.slow
def test_a_full_disk_stops_the_sweep_and_loses_nothing(tmp_path) -> None:
    path, log = tmp_path / "full.zarr", tmp_path / "log"
    process = begun(path, log, "full", "5")
    _, error = process.communicate(timeout=280)
    assert process.returncode == 1
    assert "full.zarr cannot be written" in error
    assert "what was done before is kept" in error
    ended = [line for line in lines(log) if line.startswith("end")]
    assert int(Store(path).done.sum()) == len(ended)
    assert len(ended) == 5 * Store(path).tiles_per_unit
    assert not Store(path).faults()
    assert swept(path).equals(uninterrupted())


@pytest.mark.slow
def test_two_processes_at_once_do_no_harm(tmp_path) -> None:
    path = tmp_path / "shared.zarr"
    processes = [begun(path, tmp_path / f"log{index}") for index in range(2)]
    errors = [process.communicate(timeout=280)[1] for process in processes]
    codes = [process.returncode for process in processes]
    assert 0 in codes
    for code, error in zip(codes, errors, strict=True):
        if code:  # it came while the other wrote
            assert "is being written by" in error
    assert open_results(path).drop_vars("done").equals(uninterrupted())


def test_a_second_writer_is_told_who_the_first_is(store: Path) -> None:
    first = Store(store)
    with first.writing():
        with pytest.raises(StoreError, match=rf"is being written by process {os.getpid()} on"):
            sweep(interrupted.CELL, axes=interrupted.AXES, seeds=20, store=store)
        # What is there can be read, and a sweep with nothing to compute is no writer.
        assert swept(store).equals(uninterrupted())
    assert sweep(interrupted.CELL, axes=interrupted.AXES, seeds=13, store=store).sizes["seed"] == 13


READ_ONLY = """
import ctypes, os, sys
if os.geteuid() == 0:  # root may write anywhere until this thread gives up its capabilities
    header, none = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
    assert ctypes.CDLL(None).capset(header, none) == 0
import causal_sgd
from causal_sgd.sweeps.store._exported import status_array
from support import interrupted
own, new = sys.argv[1:]
for path, seeds in ((own, interrupted.SEEDS), (own, 20), (new, 1)):
    options = {"axes": interrupted.AXES, "seeds": seeds, "tile": 4, "store": path}
    try:
        results = causal_sgd.sweep(interrupted.CELL, **options)
        print(float(results.spurious_signal.sum()))
    except causal_sgd.StoreError as error:
        print(error)
"""


@pytest.mark.slow
def test_a_read_only_folder_can_be_read_and_is_named(store: Path) -> None:
    folders = [store.parent, *(path for path in store.rglob("*") if path.is_dir())]
    for folder in folders:
        folder.chmod(0o555)
    try:
        script = [sys.executable, "-c", READ_ONLY, str(store), str(store.with_name("new.zarr"))]
        path = os.pathsep.join([str(SCRIPT.parents[1]), str(SCRIPT.parents[2])])
        run = subprocess.run(
            script,
            capture_output=True,
            text=True,
            env=os.environ | {"PYTHONPATH": path},
            check=False,
        )
    finally:
        for folder in folders:
            folder.chmod(0o755)
    assert run.returncode == 0, run.stderr
    total, grow, new = run.stdout.splitlines()
    assert float(total) == pytest.approx(float(uninterrupted().spurious_signal.sum()))
    assert "own.zarr cannot be written" in grow
    assert "new.zarr must be a place that can be written" in new


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 3] ^= 4
    path.write_bytes(content)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def swap(path: Path) -> None:
    """Another unit's chunk: whole, with a valid checksum of its own, and wrong here."""
    shutil.copy(path.with_name(path.name.replace(f"c.{UNIT}", "c.0")), path)


UNIT = 5


def computed_tiles(monkeypatch) -> list[int]:
    """A list of the tiles that are computed from now on."""
    computed: list[int] = []
    columns = Store.columns
    monkeypatch.setattr(
        Store, "columns", lambda self, tile: (computed.append(tile), columns(self, tile))[1]
    )
    return computed


@pytest.mark.parametrize("name", ["spurious_signal", "diverged_at"])
@pytest.mark.parametrize("harm", [flip, truncate, empty, swap, Path.unlink])
def test_a_damaged_chunk_is_found_named_and_recomputed_alone(
    store: Path, name: str, harm: Callable, monkeypatch
) -> None:
    if name == "diverged_at" and harm is swap:
        pytest.skip("the same values: no harm done")
    whole = {path: path.stat().st_mtime_ns for path in store.rglob("*") if path.is_file()}
    harm(chunk(store, name, UNIT))
    with pytest.raises(StoreError, match=rf"{name} of unit {UNIT} .*causal-sgd repair"):
        open_results(store)[name].load()
    faults = Store(store).faults()
    assert list(faults) == [UNIT]
    assert name in faults[UNIT]
    computed = computed_tiles(monkeypatch)
    assert repair(store) == faults
    assert swept(store).equals(uninterrupted())
    size = Store(store).tiles_per_unit
    assert sorted(set(computed)) == list(range(UNIT * size, (UNIT + 1) * size))
    for path, written in whole.items():  # the chunks of the results, and no other unit's
        if path.parent.name in Store(store).variables and path.name.startswith("c."):
            own = path.name.split(".")[1] == str(UNIT)
            assert (path.stat().st_mtime_ns != written) == own, path
    assert not Store(store).faults()


SIZE = record_size(num_variables=3)


def test_a_torn_record_at_the_end_is_a_missing_unit(store: Path, monkeypatch) -> None:
    journal = store / "status" / "journal"
    whole = journal.read_bytes()
    # The status is exported at the end of a sweep, which a killed one did not reach.
    opened = Store(store)
    status = np.zeros_like(opened._ledger.status.records)
    status_array(opened.variables).put_all(opened._files, status)
    for length in range(1, SIZE + 1, 7):
        journal.write_bytes(whole[:-length])
        left = Store(store)
        assert not left.faults()
        assert int((~left.done).sum()) == left.tiles_per_unit
    journal.write_bytes(whole[:-1] + bytes(1))  # as a power failure may leave it
    computed = computed_tiles(monkeypatch)
    assert swept(store).equals(uninterrupted())
    assert len(set(computed)) == interrupted.TILES_PER_UNIT
    assert journal.read_bytes() == whole


def test_a_damaged_record_is_named_and_restored(store: Path) -> None:
    journal = store / "status" / "journal"
    content = bytearray(journal.read_bytes())
    content[3 * SIZE + 20] ^= 1
    journal.write_bytes(content)
    assert list(Store(store).faults().values()) == [
        "record 3 of status/journal is damaged",
        "status/journal has lost the records of 1 units",
    ]
    assert not open_results(store).done.all()
    assert repair(store)
    assert not Store(store).faults()
    assert open_results(store).done.all(), "the exported status had the record, too"
    assert open_results(store).drop_vars("done").equals(uninterrupted())


def forged(store: Path, unit: int, change: Callable[[np.ndarray], None]) -> None:
    """Append a record with a valid checksum of its own that tells something else of a unit."""
    row = Store(store)._ledger.status.records[unit].copy()
    change(row)
    with (store / "status" / "journal").open("ab") as journal:
        journal.write(encode_rows(row[None]))


def test_a_record_that_vouches_for_other_data_or_another_sweep_is_found(store: Path) -> None:
    names = [*FIELDS, *Store(store).variables]
    other = Store(store)._ledger.status.records[2].copy()

    def set_field(name: str, value: int) -> Callable[[np.ndarray], None]:
        return lambda row: row.__setitem__(names.index(name), value)

    forged(store, 1, set_field("spurious_signal", other[names.index("spurious_signal")]))
    forged(store, 3, set_field("configuration", 7))
    forged(store, 4, set_field("inputs", other[names.index("inputs")]))
    forged(store, 6, set_field("state", 9))
    faults = Store(store).faults()
    assert set(faults) == {1, 3, 4, 6}
    assert "checksum" in faults[1]
    assert "another configuration" in faults[3]
    assert "other runs" in faults[4]
    assert "unknown status 9" in faults[6]
    assert set(repair(store)) == {1, 3, 4, 6}
    assert swept(store).equals(uninterrupted())
    assert not Store(store).faults()


@pytest.mark.parametrize("name", ["seed", "spread", "step"])
@pytest.mark.parametrize("harm", [flip, truncate, Path.unlink])
def test_damaged_coordinates_are_named_and_rebuilt(store: Path, name: str, harm: Callable) -> None:
    harm(store / name / "c.0")
    assert list(Store(store).faults()) == [name]
    assert swept(store).equals(uninterrupted()), "the results do not depend on them"
    assert list(repair(store)) == [name]
    assert not Store(store).faults()
    table = xr.open_zarr(store, consolidated=False, chunks=None).load()
    assert table.seed.min() == 0
    assert set(np.unique(table.spread)) == set(interrupted.AXES["spread"])
    np.testing.assert_array_equal(table.step, uninterrupted().step)


def edit_dim(store: Path) -> None:
    edit(store, lambda header: header["configuration"]["experiment"].update(dim=7))


def edit_hash(store: Path) -> None:
    edit(store, lambda header: header.update(configuration_hash="0" * 64))


def edit_version(store: Path) -> None:
    edit(store, lambda header: header.update(format_version=99))


def remove_format(store: Path) -> None:
    edit(store, lambda header: header.pop("format"))


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (edit_dim, "does not match its hash"),
        (edit_hash, "does not match its hash"),
        (edit_version, "format 99, which a newer causal_sgd wrote"),
        (remove_format, "is a zarr group but not a sweep's results"),
        (lambda store: (store / "zarr.json").unlink(), "is not a sweep's results: it has no zarr"),
        (lambda store: truncate(store / "zarr.json"), "cannot be opened as zarr"),
        (lambda store: shutil.rmtree(store / "status"), "status/journal is gone"),
        (shutil.rmtree, "does not exist"),
    ],
)
def test_anything_but_a_store_is_refused_and_left_alone(
    store: Path, harm: Callable[[Path], None], message: str
) -> None:
    harm(store)
    with pytest.raises(StoreError, match=message):
        open_results(store)
    if store.exists():
        kept = {path: path.read_bytes() for path in store.rglob("*") if path.is_file()}
        with pytest.raises(StoreError, match=message):
            swept(store)
        assert kept == {path: path.read_bytes() for path in store.rglob("*") if path.is_file()}, (
            "it was touched"
        )


def test_a_file_or_a_full_folder_is_not_taken_for_a_store(tmp_path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    for path in (tmp_path / "notes.txt", tmp_path):
        with pytest.raises(StoreError, match="is not a sweep's results"):
            swept(path)
    with pytest.raises(StoreError, match="must be a place that can be written"):
        swept(tmp_path / "nowhere" / "new.zarr")


def test_nothing_is_unpickled_from_a_store(store: Path, monkeypatch) -> None:
    import pickle

    import cloudpickle

    for module in (pickle, cloudpickle):
        for name in ("load", "loads"):
            monkeypatch.setattr(
                module, name, lambda *args, **options: pytest.fail("something was unpickled")
            )
    monkeypatch.setattr(np, "load", lambda *args, **options: pytest.fail("a NumPy file was read"))
    open_results(store).load()
    assert not Store(store).faults()


def test_an_interruption_keeps_what_is_done(tmp_path, monkeypatch) -> None:
    path, write = tmp_path / "stopped.zarr", Store.write
    seen: list[int] = []

    def stopped(self, unit, tiles, *rest):
        write(self, unit, tiles, *rest)
        seen.extend(tiles)
        if len(seen) >= 6:
            monkeypatch.setattr(Store, "write", write)
            raise KeyboardInterrupt

    monkeypatch.setattr(Store, "write", stopped)
    with pytest.raises(KeyboardInterrupt):
        swept(path)
    left = Store(path)
    done = int(left.done.sum())
    assert 6 <= done <= len(seen) + IN_FLIGHT + WAITING, "tiles under way are kept, none is begun"
    assert not left.faults()
    assert swept(path).equals(uninterrupted())
    assert jax.local_device_count() == 2
    assert causal_sgd.open_results(path).done.all()
