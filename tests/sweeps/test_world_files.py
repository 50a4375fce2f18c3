"""A store holds what a world file contains; where the file is, is information."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from causal_sgd.experiment import Experiment
from causal_sgd.experiment._stored import stored_experiment
from causal_sgd.sensing.worlds._arrays import digest
from causal_sgd.sweeps import sweep
from causal_sgd.sweeps.store import Store, StoreError
from support.shell import call, words
from support.stores import chunk, forget

SMALL = "--steps 5 --measurement population --metrics spurious_signal --world-file"
FIELDS = {"steps": 5, "measurement": "population", "metrics": ("spurious_signal",)}


def write(path: Path, strength: float = 2.0) -> Path:
    own = np.diag([0.0, strength, 0.0])
    np.savez(path, invariant=np.diag([1.0, 0.0, 0.0]), spurious=np.stack([own, -own]))
    return path


def cell(path: Path):
    return Experiment(**FIELDS, world_file=path).cell()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a world file and a store of two of its runs, moved after these were done."""
    first = tmp_path / "first"
    first.mkdir()
    sweep(cell(write(first / "world.npz")), seeds=2, store=first / "d.zarr", tile=2)
    return first.rename(tmp_path / "second")


def test_a_moved_folder_is_the_same_configuration(folder: Path) -> None:
    dataset = sweep(cell(folder / "world.npz"), seeds=4, store=folder / "d.zarr")
    assert dataset.equals(sweep(cell(folder / "world.npz"), seeds=4, tile=2))
    store = Store(folder / "d.zarr")
    assert store.progress() == (4, 4)
    # The path of the last sweep that wrote.
    assert store.files == {"world_file": [str(folder / "world.npz"), "world.npz"]}
    experiment = stored_experiment(store)
    assert experiment is not None
    assert experiment.world_file == folder / "world.npz"


def test_a_changed_file_at_the_same_path_is_refused_by_name(folder: Path) -> None:
    write(folder / "world.npz", 2.5)
    with pytest.raises(StoreError, match="experiment.world_file is sha256:.* in the store and sha"):
        sweep(cell(folder / "world.npz"), seeds=4, store=folder / "d.zarr")


def test_commands_find_the_file_of_a_moved_folder(folder: Path, capsys) -> None:
    path = str(folder / "d.zarr")
    line = f"run {SMALL} {folder / 'world.npz'} --seeds 3 --out {path}"
    assert call(*words(line), capsys=capsys)[0] == 0
    forget(Path(path), [1])
    assert call("resume", path, capsys=capsys)[0] == 0
    folder = folder.rename(folder.with_name("third"))
    path = str(folder / "d.zarr")
    chunk(Path(path), "spurious_signal", 0).write_bytes(b"")
    assert call("repair", path, capsys=capsys)[0] == 0
    assert Store(path).progress() == (3, 3)
    assert not Store(path).faults()


def test_a_file_that_moved_on_its_own_is_given(folder: Path, tmp_path: Path, capsys) -> None:
    path = folder / "d.zarr"
    forget(path, [0])
    shutil.move(folder / "world.npz", tmp_path / "other.npz")
    code, _, err = call("resume", str(path), capsys=capsys)
    assert (code, len(err.splitlines())) == (2, 1)
    assert "--world-file must be the world file of" in err
    write(folder / "world.npz", 2.5)
    code, _, err = call("resume", str(path), capsys=capsys)
    assert code == 2
    assert "--world-file is sha256" in err
    line = f"resume {path} --world-file {tmp_path / 'other.npz'}"
    assert call(*words(line), capsys=capsys)[0] == 0
    assert Store(path).progress() == (2, 2)


def test_a_digest_is_of_the_values_whatever_their_layout() -> None:
    array = np.arange(6.0).reshape(2, 3)
    same = [np.asfortranarray(array), array.astype(">f8"), np.repeat(array, 2, axis=1)[:, ::2]]
    assert {digest({"a": each, "b": array}) for each in same} == {digest({"b": array, "a": array})}
    others = [{"a": array.astype(np.float32)}, {"a": array.T}, {"a": array + 1e-15}, {"b": array}]
    assert len({digest(each) for each in [{"a": array}, *others]}) == 5
