"""Full disks and failing writes: the file or the store is named, and what was there stays."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib.figure
import pytest
import xarray as xr

from causal_sgd.cli.outputs import draw
from causal_sgd.figures.explorer import write_page
from causal_sgd.sweeps import StoreError, sweep
from causal_sgd.sweeps._netcdf import write_netcdf
from causal_sgd.sweeps.store import Store, _exports, export_results, repair
from causal_sgd.sweeps.store._files import Folder
from support.cases import few
from support.executors import CELL, OPTIONS, reference
from support.stores import chunk


@pytest.fixture(scope="module")
def complete(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("complete") / "own.zarr"
    sweep(CELL, store=path, **OPTIONS)
    return path


def full(*_: Any, **__: Any) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


# Names of files that are written as a store grows, in this order.
GROWTH = ["status/inputs", "zarr.json", "status/header", "seed/c.0", "seed/zarr.json"]
GROWTH += ["spurious_signal/c.7.0", "diverged_at/c.7", "status/journal", "status/c.0.0"]


@pytest.mark.parametrize("name", few(GROWTH, ["zarr.json", "status/journal"]))
@pytest.mark.parametrize("written", [0, 7])
def test_a_disk_that_is_full_at_growth_names_the_store(
    tmp_path, monkeypatch, name: str, written: int
) -> None:
    """With the disk full at any file, of which some bytes may have been written."""
    path = tmp_path / "own.zarr"
    sweep(CELL, store=path, **OPTIONS)
    more: dict[str, Any] = OPTIONS | {"seeds": 8}
    put, append = Folder.put, Folder.append

    def putting(self: Folder, file: str, content: bytes) -> None:
        full() if file == name else put(self, file, content)

    def appending(self: Folder, file: str, offset: int, content: bytes) -> None:
        append(self, file, offset, content[:written] if file == name else content)
        if file == name:
            full()

    with monkeypatch.context() as patch:
        patch.setattr(Folder, "put", putting)
        patch.setattr(Folder, "append", appending)
        with pytest.raises(StoreError, match="own.zarr cannot be written: No space left") as error:
            sweep(CELL, store=path, **more)
        assert "what was done before is kept, and the same call resumes" in str(error.value)
    assert not Store(path).faults()
    assert sweep(CELL, store=path, **OPTIONS).equals(reference())
    assert sweep(CELL, store=path, **more).equals(sweep(CELL, **more))
    assert not Store(path).faults()


def test_a_repair_on_a_full_disk_names_the_store(tmp_path, monkeypatch) -> None:
    path = tmp_path / "own.zarr"
    sweep(CELL, store=path, **OPTIONS)
    chunk(path, "diverged_at", 0).unlink()
    monkeypatch.setattr(Folder, "append", full)
    with pytest.raises(StoreError, match="own.zarr cannot be written: No space left"):
        repair(path)


def half(path: Path) -> None:
    """Write some bytes, and find the disk full."""
    Path(path).write_bytes(b"half")
    full()


WRITERS: dict[str, Callable[[Path, Path], object]] = {
    "export.nc": export_results,
    "export.csv": export_results,
    "netcdf.nc": lambda _, out: write_netcdf(reference(), out),
    "page.html": lambda _, out: write_page(out, reference()),
    "figure.png": lambda _, out: draw(out, lambda *_: None),
}


@pytest.mark.parametrize("name", WRITERS)
def test_a_file_that_cannot_be_written_stays_as_it_was(
    complete, tmp_path, monkeypatch, name: str
) -> None:
    out = tmp_path / name
    out.write_text("earlier")
    with monkeypatch.context() as patch:
        patch.setattr(xr.Dataset, "to_netcdf", lambda _, path, **__: half(path))
        patch.setattr(_exports, "_write_table", lambda _, path: half(path))
        patch.setattr(matplotlib.figure.Figure, "savefig", lambda _, path: half(path))
        patch.setattr(Path, "write_text", lambda path, *_: half(path))
        with pytest.raises(OSError, match=f"{name} cannot be written: No space left"):
            WRITERS[name](complete, out)
    assert out.read_bytes() == b"earlier"
    assert list(tmp_path.iterdir()) == [out]
    out.chmod(0o640)
    WRITERS[name](complete, out)
    assert out.stat().st_size > 100
    assert out.stat().st_mode & 0o777 == 0o640
    assert list(tmp_path.iterdir()) == [out]


def test_an_export_of_a_damaged_store_leaves_the_earlier_file(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(_exports, "NUMBERS_AT_ONCE", 1)  # pieces, of which the first is intact
    path, out = tmp_path / "own.zarr", tmp_path / "own.csv"
    sweep(CELL, store=path, **OPTIONS)
    export_results(path, out)
    before = out.read_text()
    chunk(path, "spurious_signal", 5).write_bytes(b"damaged")
    with pytest.raises(StoreError, match="damaged"):
        export_results(path, out)
    assert out.read_text() == before
