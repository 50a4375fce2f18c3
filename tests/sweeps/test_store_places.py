"""One writer whatever the spelling of the path, and none in a folder that went away."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from causal_sgd.sweeps import sweep
from causal_sgd.sweeps.store import Store, StoreError, open_results, repair
from support.executors import CELL, OPTIONS, reference
from support.shell import call, words

MORE: dict[str, Any] = OPTIONS | {"seeds": 8}


@pytest.fixture
def store(tmp_path: Path) -> Path:
    path = tmp_path / "results" / "own.zarr"
    path.parent.mkdir()
    sweep(CELL, store=path, **OPTIONS)
    return path


def spelled(path: Path, how: str) -> Path:
    if how == "relative":
        return Path(os.path.relpath(path))
    if how == "dots":
        return path.parent / ".." / path.parent.name / path.name
    link = path.parent.parent / "link"
    link.symlink_to(path if how == "link to the store" else path.parent)
    return link if how == "link to the store" else link / path.name


@pytest.mark.parametrize("how", ["relative", "dots", "link to the store", "link to its folder"])
def test_a_second_writer_under_another_spelling_is_refused(store: Path, how: str) -> None:
    other = spelled(store, how)
    with Store(store).writing():
        assert f"process {os.getpid()} on" in str(Store(other).writer())
        with pytest.raises(StoreError, match=f"is being written by process {os.getpid()} on"):
            sweep(CELL, store=other, **MORE)
    assert Store(other).writer() is None
    assert sweep(CELL, store=other, **MORE).equals(sweep(CELL, **MORE))
    assert Store(store).progress() == (48, 48), "it is the same store"


def moved(path: Path) -> None:
    path.rename(path.with_name("elsewhere.zarr"))


def replaced(path: Path) -> None:
    moved(path)
    shutil.copytree(path.with_name("elsewhere.zarr"), path)


HARMS: dict[str, Callable[[Path], object]] = {
    "moved": moved,
    "removed": shutil.rmtree,
    "without header": lambda path: (path / "zarr.json").unlink(),
    "replaced": replaced,
}


@pytest.mark.parametrize("harm", HARMS)
def test_a_sweep_stops_when_its_store_goes_away(store: Path, monkeypatch, harm: str) -> None:
    write, written = Store.write, []

    def once(self: Store, *arguments: Any) -> None:
        write(self, *arguments)
        written.append(arguments[0])
        if len(written) == 2:
            HARMS[harm](store)

    monkeypatch.setattr(Store, "write", once)
    with pytest.raises(StoreError, match="own.zarr was moved, replaced or removed, or lost its"):
        sweep(CELL, store=store, **MORE)
    monkeypatch.setattr(Store, "write", write)
    assert len(written) == 2, "it stopped at the next unit"
    left = store.with_name("elsewhere.zarr")
    assert store.exists() == (harm in ("without header", "replaced"))
    if harm == "without header":
        repair(store)
        left = store
    if harm != "removed":
        assert not Store(left).faults()
        assert int(open_results(left).done.sum()) == 24 + 2 * 4
        assert sweep(CELL, store=left, **MORE).equals(sweep(CELL, **MORE))
    if harm == "replaced":
        assert sweep(CELL, store=store, **OPTIONS).equals(reference())


REMOVING = """
import shutil, sys
from causal_sgd.sweeps.store import Store
from causal_sgd.cli import main
write = Store.write
def once(self, *arguments):
    write(self, *arguments)
    shutil.rmtree(sys.argv[-1])
Store.write = once
sys.exit(main())
"""


@pytest.mark.slow
def test_a_command_whose_store_goes_away_fails_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "own.zarr"
    command = (
        "run --dim 4 --invariant-rank 1 --spurious-rank 1 --steps 20 --seeds 64 --model diagonal"
    )
    command += " --measurement population --basis canonical --out"
    script = [sys.executable, "-c", REMOVING, *words(command), str(path)]
    environment = os.environ | {"JAX_PLATFORMS": "cpu"}
    run = subprocess.run(script, capture_output=True, text=True, env=environment, check=False)
    assert run.returncode == 2, run.stderr
    last = run.stderr.strip().splitlines()[-1]
    assert "own.zarr was moved, replaced or removed" in last
    assert not path.exists()


@pytest.mark.slow
def test_a_command_can_wait_for_the_disk(tmp_path: Path, monkeypatch, capsys) -> None:
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", synced.append)
    command = words("run --dim 4 --invariant-rank 1 --spurious-rank 1 --steps 20 --seeds 2")
    command += words("--model diagonal --measurement population --basis canonical --out")
    assert call(*command, str(tmp_path / "own.zarr"), "--fsync", capsys=capsys)[0] == 0
    assert synced
    code, _, err = call(*command, str(tmp_path / "own.nc"), "--fsync", capsys=capsys)
    assert code == 2
    assert "--fsync must not be given without a store as --out" in err
