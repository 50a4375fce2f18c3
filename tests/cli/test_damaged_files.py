"""World files and netCDF files that are damaged or of another kind are refused in one line."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from causal_sgd.experiment import Experiment
from causal_sgd.sensing import worlds
from support.shell import call

OWN = np.diag([0.0, 0.0, 1.0])
SIGNALS = {"invariant": np.diag([1.0, 1.0, 0.0]), "spurious": np.stack([OWN, -OWN])}
RESULTS = xr.Dataset(
    {
        "spurious_signal": (("mean", "spread", "seed"), np.ones((2, 3, 4))),
        "diverged_at": (("mean", "spread", "seed"), np.full((2, 3, 4), -1)),
    },
    {"mean": [0.0, 1.0], "spread": [1.0, 2.0, 3.0], "seed": np.arange(4)},
)


def archive(**arrays: object) -> bytes:
    file = io.BytesIO()
    np.savez(file, **arrays)  # pyright: ignore[reportArgumentType]
    return file.getvalue()


def netcdf(dataset: xr.Dataset) -> bytes:
    return bytes(dataset.to_netcdf(engine="scipy"))


def changed(whole: bytes, place: int, value: int) -> bytes:
    return whole[:place] + bytes([value]) + whole[place + 1 :]


WORLD, DIAGRAM = archive(**SIGNALS), netcdf(RESULTS)
KINDS = {
    "empty": b"",
    "text": b"mean,spread\n0,1\n",
    "array": (lambda file: (np.save(file, OWN), file.getvalue())[1])(io.BytesIO()),
    "signature alone": b"PK\x03\x04",
    "version alone": b"CDF\x01",
}
WORLDS = {
    **KINDS,
    "netCDF": DIAGRAM,
    **{f"first {size}": WORLD[:size] for size in (10, 100, len(WORLD) // 2, len(WORLD) - 1)},
    # version, flags, compression, sum, size, place
    **{
        f"directory {place}": changed(WORLD, WORLD.index(b"PK\x01\x02") + place, 127)
        for place in (6, 8, 10, 16, 20, 42)
    },
    "shape": WORLD.replace(b"(3, 3)", b"(9, 9)"),
    "size": WORLD.replace(b"(3, 3), ", b"(99999, 99999), "[:8]),
    "names": archive(a=OWN),
    "shapes": archive(invariant=np.eye(2), spurious=np.stack([OWN, -OWN])),
    "not finite": archive(invariant=np.full((3, 3), np.nan), spurious=SIGNALS["spurious"]),
    "not symmetric": archive(invariant=np.triu(np.ones((3, 3))), spurious=SIGNALS["spurious"]),
    "probabilities": archive(**SIGNALS, probabilities=np.array([3.0, 1.0])),
    "texts": archive(invariant=np.array([["a"]]), spurious=SIGNALS["spurious"]),
}
DIAGRAMS = {
    **KINDS,
    "world file": WORLD,
    **{f"first {size}": DIAGRAM[:size] for size in (3, 10, 100, len(DIAGRAM) // 2)},
    **{f"byte {place}": changed(DIAGRAM, place, 127) for place in (3, 11, 15, 19)},
    "not of a sweep": netcdf(xr.Dataset({"a": ("x", [1.0])})),
    "no metric": netcdf(RESULTS[["diverged_at"]]),
    "no seed": netcdf(RESULTS.isel(seed=0)),
    "no axis": netcdf(RESULTS.isel({dim: 0 for dim in RESULTS.diverged_at.dims if dim != "seed"})),
    "no values": netcdf(RESULTS.isel(mean=[])),
    "axis of NaN": netcdf(RESULTS.assign_coords(mean=[0.0, np.nan])),
}
ATTRIBUTES = ["x", "[]", "{}", "null", '{"dim": "x"}', '{"model": 3}', '{"nonsense": {}}', 3, [1.0]]


def python(path: Path) -> object:
    return worlds.from_file(path)


def experiment(path: Path) -> object:
    return Experiment(world_file=path).cell()


@pytest.mark.parametrize("kind", WORLDS)
@pytest.mark.parametrize("read", [python, experiment])
def test_a_damaged_world_file_is_named(
    read: Callable[[Path], object], kind: str, tmp_path: Path
) -> None:
    (tmp_path / "world.npz").write_bytes(WORLDS[kind])
    with pytest.raises(ValueError, match=r"world\.npz") as error:
        read(tmp_path / "world.npz")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("kind", ["text", "first 100", "directory 10", "not symmetric"])
def test_a_damaged_world_file_ends_a_command(kind: str, tmp_path: Path, capsys) -> None:
    path = tmp_path / "world.npz"
    path.write_bytes(WORLDS[kind])
    code, out, err = call("run", "--world-file", str(path), capsys=capsys)
    assert (code, out, err.count("\n")) == (2, "", 1), err
    assert str(path) in err


@pytest.mark.parametrize("kind", DIAGRAMS)
def test_a_damaged_diagram_ends_a_command(kind: str, tmp_path: Path, capsys) -> None:
    path = tmp_path / "diagram.nc"
    path.write_bytes(DIAGRAMS[kind])
    code, out, err = call("explore", str(path), capsys=capsys)
    assert (code, out, err.count("\n")) == (2, "", 1), err
    assert str(path) in err
    assert not path.with_suffix(".html").exists()


@pytest.mark.parametrize("description", ATTRIBUTES, ids=json.dumps)
def test_attributes_of_other_programs_do_no_harm(
    description: object, tmp_path: Path, capsys
) -> None:
    path = tmp_path / "diagram.nc"
    path.write_bytes(netcdf(RESULTS.assign_attrs(experiment=description, cell=b"\xff")))
    code, _, err = call("explore", str(path), capsys=capsys)
    assert (code, err) == (0, "")
    assert path.with_suffix(".html").exists()
