"""A store that `refine` filled: its grid, its page, its status."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr

from causal_sgd import sweeps
from causal_sgd.experiment import Experiment
from causal_sgd.figures import explorer
from causal_sgd.sweeps import sweep, zipped
from causal_sgd.sweeps.store import Store, open_results
from causal_sgd.types import Trace
from support.shell import call

EXPERIMENT = Experiment(
    dim=2,
    invariant_rank=1,
    spurious_rank=1,
    measurement="population",
    model="diagonal",
    basis="canonical",
    steps=40,
    record_every=10,
    metrics=("spurious_signal", "invariant_signal"),
)
AXES = {"spread": np.linspace(2, 8, 17), "learning_rate": np.geomspace(0.08, 0.2, 9)}


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("refined") / "diagram.zarr"


@pytest.fixture(scope="module")
def refined(path: Path) -> xr.Dataset:
    options = {"axes": AXES, "level": 1e-3, "max_seeds": 12, "tile": 64, "progress": False}
    dataset = sweeps.refine(EXPERIMENT.cell(), **options, store=path).load()
    assert 100 < int(dataset.done.sum()) < dataset.diverged_at.size / 2
    return dataset


@pytest.mark.slow
def test_its_results_open_as_the_grid_of_its_parameters(path: Path, refined: xr.Dataset) -> None:
    listed = open_results(path)
    assert listed.spurious_signal.dims == ("point", "seed", "step"), "as it was stored"
    grid = open_results(path, unzip=True)
    visited = refined.isel(
        {name: np.flatnonzero(refined.done.any({*refined.done.dims} - {name})) for name in AXES}
    )
    assert grid.sizes == visited.sizes
    assert grid.load().equals(visited)


def test_its_page_shows_the_cells_of_the_grid(path: Path, refined: xr.Dataset, capsys) -> None:
    code, out, _ = call("explore", str(path), capsys=capsys)
    assert code == 0
    assert "open it in a browser" in out
    text = path.with_suffix(".html").read_text("utf-8")
    data = json.loads(re.findall(r'(?s)id="data">(.*?)</script>', text)[0])
    assert [axis["name"] for axis in data["axes"]] == ["spread", "learning_rate"]
    assert data["steps"] == refined.step.values.tolist()
    assert data["merge"], "cells that were not run are drawn as part of the nearest"
    shape = [len(axis["values"]) for axis in data["axes"]]
    runs = np.frombuffer(base64.b64decode(data["runs"]), "<f4").reshape(shape)
    values = dict(zip(AXES, (axis["values"] for axis in data["axes"]), strict=True))
    expected = refined.done.sum("seed").sel(values).transpose("spread", "learning_rate")
    np.testing.assert_array_equal(runs, expected)
    assert (runs == 0).any(), "cells that were not run"
    final = np.frombuffer(base64.b64decode(data["final"]), "<f4").reshape(2, -1, *shape)
    assert (np.isnan(final[0, 0]) == (runs == 0)).all()


def test_its_points_are_no_diagram_and_the_error_says_how_to_make_one(
    path: Path, refined: xr.Dataset
) -> None:
    with pytest.raises(ValueError, match=r"two axes.*open_results\(PATH, unzip=True\)"):
        explorer.page(open_results(path))
    assert "spread" in explorer.page(open_results(path, unzip=True))


def test_its_status_has_the_axes_of_its_grid(path: Path, refined: xr.Dataset, capsys) -> None:
    code, out, _ = call("status", str(path), capsys=capsys)
    assert code == 0
    grid = open_results(path, unzip=True)
    points = int(refined.done.any("seed").sum())
    lines = [" ".join(line.split()) for line in out.splitlines()]
    assert f"spread {grid.sizes['spread']} values, 2 to 8" in lines
    assert f"learning_rate {grid.sizes['learning_rate']} values, 0.08 to 0.2" in lines
    assert f"points {points} of a grid of {grid.sizes['spread']} x 9" in lines
    code, out, _ = call("status", str(path), "--json", capsys=capsys)
    assert json.loads(out)["axes"] == {
        name: grid[name].values.tolist() for name in ("spread", "learning_rate", "seed")
    }


def plain(key: jax.Array, *, a: Any, b: Any, c: Any = 0.0) -> Trace:
    return Trace(jnp.zeros(1, jnp.int32), {"sum": jnp.asarray(a + b + c)[None]}, jnp.int32(-1))


def test_an_axis_of_the_user_stays_zipped_unless_asked(tmp_path: Path, capsys) -> None:
    path = tmp_path / "pairs.zarr"
    pairs = zipped(a=[3.0, 1.0, 3.0], b=[0.25, 0.5, 0.75])
    swept = sweep(plain, axes={"pair": pairs, "c": [8.0, 4.0]}, seeds=2, store=path)
    assert open_results(path).drop_vars("done").equals(swept)
    grid = open_results(path, unzip=True)
    assert grid["sum"].dims == ("a", "b", "c", "seed", "step")
    assert grid.a.values.tolist() == [1, 3]
    assert grid.c.values.tolist() == [8, 4], "an axis of one parameter keeps its order"
    sums = grid["sum"].isel(c=0, seed=0, step=0).values
    np.testing.assert_array_equal(sums, [[np.nan, 9.5, np.nan], [11.25, np.nan, 11.75]])
    assert (grid["sum"].isel(step=0).notnull() == grid.done).all()
    lines = [
        " ".join(line.split()) for line in call("status", str(path), capsys=capsys)[1].split("\n")
    ]
    assert "a 3 values, 1 to 3" in lines


def test_a_grid_that_is_too_large_is_refused(tmp_path: Path, capsys) -> None:
    path = tmp_path / "random.zarr"
    values = np.random.default_rng(0).uniform(size=(3, 3000))
    points = zipped(**dict(zip("abc", values, strict=True)))
    sweep(plain, axes={"point": points}, tile=1000, store=path)
    with pytest.raises(ValueError, match=r"3000 x 3000 x 3000 x 1 in .*of which 3000 were"):
        open_results(path, unzip=True)
    assert open_results(path)["sum"].sizes["point"] == 3000
    code, _, err = call("explore", str(path), capsys=capsys)
    assert code == 2
    assert "the values of a, b, c and of the seeds must have at most" in err
    assert err.count("\n") == 1
    assert call("status", str(path), capsys=capsys)[0] == 0
    assert Store(path).progress() == (3000, 3000)
