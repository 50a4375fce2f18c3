"""A store is whole after every single operation on a file, so also wherever a process is killed."""

from __future__ import annotations

import functools
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr

from causal_sgd.sweeps import sweep
from causal_sgd.sweeps.store import Store, StoreError, open_results, repair
from causal_sgd.sweeps.store._files import Folder
from causal_sgd.types import Trace
from support.stores import chunk

RATES, SEEDS = np.arange(1, 9) / 10, 4


def cell(key: jax.Array, *, rate: Any) -> Trace:
    """Two frames that differ between all runs."""
    frames = jnp.arange(2, dtype=jnp.int32)
    value = jax.random.uniform(key) + rate
    return Trace(frames, {"value": value + frames}, jnp.asarray(-1, jnp.int32))


def swept(path: Path | None, seeds: int = SEEDS) -> xr.Dataset:
    """Sixteen tiles with four seeds, in units of two."""
    return sweep(cell, axes={"rate": RATES}, seeds=seeds, tile=2, store=path)


@functools.cache
def expected(seeds: int) -> xr.Dataset:
    return swept(None, seeds)


def watched(patch: pytest.MonkeyPatch, look: Callable[[], None]) -> None:
    """Call `look` after every operation that changes a file of a store in its place."""
    busy = []

    def after(method: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(method)
        def called(self: Folder, *arguments: Any) -> None:
            method(self, *arguments)
            if not busy and Path(str(self)).suffix == ".zarr":
                busy.append(True)
                look()
                busy.clear()

        return called

    for name in ("put", "append", "remove"):
        patch.setattr(Folder, name, after(getattr(Folder, name)))


def check_readable(path: Path) -> int:
    """No fault, and every value that is there is right; return the number of runs done."""
    assert not Store(path).faults()
    store = Store(path)
    if not store.requests:
        return 0
    found = store.dataset().load()
    whole = expected(2 * SEEDS).sel(rate=found.rate, seed=found.seed)
    np.testing.assert_array_equal(found.value, whole.value.where(found.done))
    return int(found.done.sum())


def test_a_reader_finds_no_fault_at_any_moment(tmp_path: Path, monkeypatch) -> None:
    path, counts = tmp_path / "own.zarr", [0]
    with monkeypatch.context() as patch:
        watched(patch, lambda: counts.append(check_readable(path)))
        swept(path)
        swept(path, 2 * SEEDS)
    assert counts == sorted(counts), "what was done stays done"
    assert (counts[-1], len(set(counts))) == (64, 1 + 8 + 8)


@pytest.mark.slow
@pytest.mark.parametrize("begun", [0, SEEDS])
def test_a_sweep_killed_after_any_operation_resumes_to_the_same_bits(
    tmp_path: Path, monkeypatch, begun: int
) -> None:
    path, copies = tmp_path / "own.zarr", []

    def keep() -> None:
        copies.append(shutil.copytree(path, tmp_path / f"{len(copies)}.zarr"))

    if begun:
        swept(path, begun)
    with monkeypatch.context() as patch:
        watched(patch, keep)
        swept(path, 2 * SEEDS)
    assert len(copies) > 8 * 3
    for copy in copies:
        check_readable(copy)
        assert swept(copy, 2 * SEEDS).equals(expected(2 * SEEDS))
        assert not Store(copy).faults()
        assert Store(copy).num_tiles == 32, "no run was laid out twice"


@pytest.mark.slow
@pytest.mark.parametrize("harm", ["chunk", "header", "journal", "inputs", "older header"])
def test_a_repair_killed_after_any_operation_can_be_repeated(
    tmp_path: Path, monkeypatch, harm: str
) -> None:
    path, copies = tmp_path / "own.zarr", []
    swept(path)
    older = {name: (path / name).read_bytes() for name in ("zarr.json", "status/header")}
    swept(path, 2 * SEEDS)
    if harm == "chunk":
        chunk(path, "value", 3).write_bytes(b"")
    elif harm == "header":
        (path / "zarr.json").unlink()
    elif harm == "older header":
        for name, content in older.items():
            (path / name).write_bytes(content)
    else:
        file = path / "status" / harm
        content = bytearray(file.read_bytes())
        content[30] ^= 1
        file.write_bytes(content)

    def keep() -> None:
        copies.append(shutil.copytree(path, tmp_path / f"{len(copies)}.zarr"))

    with monkeypatch.context() as patch:
        watched(patch, keep)
        repair(path)
    assert copies
    for copy in [path, *copies]:
        repair(copy)
        assert not Store(copy).faults()
        assert swept(copy, 2 * SEEDS).equals(expected(2 * SEEDS))
        assert open_results(copy).drop_vars("done").equals(expected(2 * SEEDS))


def test_a_new_store_that_was_being_made_is_no_store(tmp_path: Path, monkeypatch) -> None:
    """Only the whole folder gets the name, so nothing half-made is ever found there."""
    path = tmp_path / "own.zarr"
    monkeypatch.setattr("os.rename", lambda *_: (_ for _ in ()).throw(OSError("killed")))
    with pytest.raises(StoreError, match="own.zarr must be a place that can be written"):
        swept(path)
    assert not path.exists()
    monkeypatch.undo()
    assert swept(path).equals(expected(SEEDS))
