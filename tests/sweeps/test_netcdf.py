"""netCDF files: every value is held exactly, or the file is refused with what to install."""

from __future__ import annotations

import importlib.util
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
import xarray as xr

from causal_sgd import cli
from causal_sgd.sweeps import sweep
from causal_sgd.sweeps._netcdf import netcdf_engine, write_netcdf
from causal_sgd.sweeps.store import export_results
from causal_sgd.types import Trace


@pytest.fixture
def scipy_alone(monkeypatch) -> None:
    find = importlib.util.find_spec
    hidden = ("netCDF4", "h5netcdf", "h5py")
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *more: name not in hidden and find(name, *more)
    )


@pytest.mark.parametrize(
    "installed", [[], ["h5netcdf"]]
)  # the second without the h5py that it writes with
def test_netcdf_needs_no_library_beyond_the_required_ones(
    installed: list[str], tmp_path, monkeypatch
) -> None:
    dataset = xr.Dataset({"error": ("seed", [1.0, 2.0])})
    with monkeypatch.context() as patch:
        patch.setattr(importlib.util, "find_spec", lambda name: name in installed or None)
        write_netcdf(dataset, tmp_path / "results.nc")
    assert (tmp_path / "results.nc").read_bytes().startswith(b"CDF")  # version 3
    with xr.open_dataset(tmp_path / "results.nc", engine="scipy") as stored:
        assert stored.load().equals(dataset)


EXACT: dict[str, tuple[str, Any]] = {
    "bool": ("bool", True),
    "int8": ("int8", -100),
    "uint8": ("uint8", 200),
    "uint16": ("uint16", 60_000),
    "int32": ("int32", -(2**31)),
    "uint32": ("uint32", 2**31 - 1),
    "int64": ("int64", -(2**31)),
    "float32": ("float32", np.nan),
    "float64": ("float64", 1e300),
}


@pytest.mark.usefixtures("scipy_alone")
@pytest.mark.parametrize("kind", EXACT)
def test_values_are_held_exactly(kind: str, tmp_path) -> None:
    name, value = EXACT[kind]
    dataset = xr.Dataset({"u": ("seed", np.full(3, value, name))}, {"seed": np.arange(3)})
    write_netcdf(dataset, tmp_path / "results.nc")
    assert xr.load_dataset(tmp_path / "results.nc", engine="scipy").equals(dataset)


BEYOND: dict[str, tuple[Any, Any, str]] = {
    "complex64": ("complex64", 1j, "complex numbers"),
    "complex128": ("complex128", 1j, "complex numbers"),
    "float16": ("float16", 0.5, "numbers of type float16"),
    "bfloat16": (ml_dtypes.bfloat16, 0.5, "numbers of type bfloat16"),
    "uint32": ("uint32", 2**31, "whole numbers from 2147483648 to 2147483648"),
    "int64": ("int64", -(2**31) - 1, "whole numbers from -2147483649"),
    "uint64": ("uint64", 2**64 - 1, "whole numbers from"),
}


@pytest.mark.usefixtures("scipy_alone")
@pytest.mark.parametrize("where", ["metric", "axis"])
@pytest.mark.parametrize("kind", BEYOND)
def test_what_cannot_be_held_is_refused_with_what_to_install(
    kind: str, where: str, tmp_path
) -> None:
    name, value, words = BEYOND[kind]
    array = np.full(3, value, name)
    dataset = xr.Dataset({"u": ("x", array)} if where == "metric" else {}, {"x": range(3)})
    if where == "axis":
        dataset = dataset.assign_coords(u=("x", array))
    with pytest.raises(ValueError, match=f"^u must be .* netCDF can hold, got {words}") as error:
        write_netcdf(dataset, tmp_path / "results.nc")
    assert "pip install 'causal_sgd[netcdf4]'" in str(error.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("scipy_alone")
def test_a_variable_that_is_too_large_is_refused() -> None:
    netcdf_engine({"u": jax.ShapeDtypeStruct((2**29 - 1,), jnp.float32)})
    with pytest.raises(ValueError, match="^u must be .*, got 2 GiB, more than the 2 GiB"):
        netcdf_engine({"u": jax.ShapeDtypeStruct((2**29,), jnp.float32)})


def test_libraries_for_version_4_hold_more(monkeypatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    assert netcdf_engine({"u": np.full(3, 2**40)}) == "netcdf4"
    assert netcdf_engine({"u": np.full(3, 1j)}) == "h5netcdf"
    assert netcdf_engine({"u": np.ones(3, np.float16)}) == "h5netcdf"
    with pytest.raises(ValueError, match="bfloat16; keep a store"):
        netcdf_engine({"u": np.ones(3, ml_dtypes.bfloat16)})


@pytest.mark.usefixtures("scipy_alone")
def test_an_export_with_large_seeds_is_refused_before_anything_is_written(tmp_path) -> None:
    def cell(key: jax.Array) -> Trace:
        return Trace(jnp.arange(2), {"u": jax.random.normal(key, (2,))}, jnp.int32(-1))

    sweep(cell, seeds=[0, 3 * 10**9], store=tmp_path / "own.zarr")
    with pytest.raises(ValueError, match="^seed must be of .*pip install 'causal_sgd"):
        export_results(tmp_path / "own.zarr", tmp_path / "own.nc")
    assert not (tmp_path / "own.nc").exists()
    export_results(tmp_path / "own.zarr", tmp_path / "own.csv")


@pytest.mark.usefixtures("scipy_alone")
@pytest.mark.parametrize(
    "command",
    [
        "run --seeds 2000000",
        "phase --refine --x spread=0:9:300 --y learning-rate=0.02:0.2:300 --seeds 32",
    ],
)
def test_a_command_is_refused_before_it_computes(
    command: str, tmp_path, capsys, monkeypatch
) -> None:
    monkeypatch.setattr("causal_sgd.sweeps._sweep.Sweep.run", None)  # it is not reached
    out = tmp_path / "own.nc"
    command = [*command.split(), "--steps", "400", "--record-every", "1"]
    with pytest.raises(SystemExit) as stop:
        cli.main([*command, "--out", str(out)])
    assert stop.value.code == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("causal-sgd: error: --out: ")
    assert "2 GiB of a variable in version 3; pip install" in line
    assert not out.exists()
