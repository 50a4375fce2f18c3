"""The page on stores: its code reads every store, its tables are complete, its commands run."""

from __future__ import annotations

import re
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr

from causal_sgd.sweeps import sweep
from causal_sgd.sweeps.store import Store, open_results, repair
from causal_sgd.sweeps.store._header import Header
from causal_sgd.sweeps.store._journal import FIELDS
from causal_sgd.types import Trace
from support.shell import call, words
from support.stores import chunk, edit, forget

HERE = Path(__file__).parent
PAGE = (HERE.parents[1] / "docs" / "stores.md").read_text("utf-8")
CODE = re.findall(r"(?s)```python\n(.*?)```", PAGE)
AXES: dict[str, Any] = {"spread": [0.5, 1.0, 2.0], "count": [1, 2, 3, 4]}


def cell(key: jax.Array, *, spread: Any, count: Any) -> Trace:
    """Three frames of metrics of several types and shapes, which differ between all runs."""
    value = jax.random.uniform(key) + 10 * spread + 100 * count
    metrics = {
        "value": value + jnp.arange(3),
        "pair": value * jnp.ones((3, 2)),
        "whole": jnp.int32(1000 * value) + jnp.arange(3, dtype=jnp.int32),
        "large": jnp.full(3, value > 200),
    }
    diverged_at = jnp.where(value > 400, 5, -1).astype(jnp.int32)
    return Trace(5 * jnp.arange(3, dtype=jnp.int32), metrics, diverged_at)


@pytest.fixture(scope="module")
def read_store() -> Callable[[Path, str], tuple[np.ndarray, np.ndarray]]:
    """The function that the page defines."""
    (code,) = (block for block in CODE if "def read_store" in block)
    names: dict[str, Any] = {}
    exec(compile(code, "stores.md", "exec"), names)
    return names["read_store"]


@pytest.fixture(scope="module")
def complete(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("complete") / "own.zarr"
    sweep(cell, axes=AXES, seeds=9, tile=2, store=path)
    return path


@pytest.fixture
def store(complete: Path, tmp_path: Path) -> Path:
    """A store of the test's own, with 54 tiles in units of 4."""
    path = Path(shutil.copytree(complete, tmp_path / "own.zarr"))
    assert (Store(path).num_tiles, Store(path).tiles_per_unit) == (56, 4), "two are padding"
    return path


def whole(path: Path) -> None:
    """A store without missing runs."""


def grown(path: Path) -> None:
    """Padding inside, and a second request."""
    sweep(cell, axes=AXES | {"spread": [7.0]}, seeds=[20, 3], store=path)


def with_gaps(path: Path) -> None:
    """A missing unit, one that holds some of its tiles, and a torn record at the end."""
    forget(path, [2, 5])
    sweep(cell, axes=AXES | {"count": [3]}, seeds=9, store=path)
    done = Store(path).done.reshape(-1, 4)
    assert [done[2].any(), done[2].all(), done[5].any()] == [True, False, False]
    with (path / "status" / "journal").open("ab") as journal:
        journal.write(b"torn")


def old(path: Path) -> None:
    """A converted store whose tiles have one seed each."""
    shutil.rmtree(path)
    with zipfile.ZipFile(HERE / "old_stores" / "regression.zip") as archive:
        archive.extractall(path)
    repair(path, convert=True)


@pytest.mark.parametrize(
    ("prepare", "is_full"), [(whole, True), (grown, False), (with_gaps, False), (old, True)]
)
def test_the_function_reads_what_the_package_reads(
    store: Path, prepare: Callable[[Path], None], is_full: bool, read_store: Callable
) -> None:
    """Bit for bit, all runs that are done and no others."""
    prepare(store)
    opened, dataset = Store(store), open_results(store)
    assert dataset.done.values.all() == is_full
    for name, kind in opened.parameters.items():
        dataset = dataset.assign_coords({name: dataset[name].astype(kind)})
    for name in opened.variables:
        runs, values = read_store(store, name)
        assert len(runs) == len(np.unique(runs)) == int(dataset.done.sum()) > 0
        inputs = {each: ("run", runs[each]) for each in (*opened.parameters, "seed")}
        found = dataset.sel(xr.Dataset(inputs).data_vars)
        assert found.done.values.all()
        # Where runs are missing, the package reads booleans and whole numbers as floating-point.
        expected = found[name].transpose("run", ...).values.astype(values.dtype)
        assert expected.tobytes() == values.tobytes(), name


def flip(file: Path, place: int) -> None:
    content = bytearray(file.read_bytes())
    content[place] ^= 1
    file.write_bytes(content)


HARMS: dict[str, Callable[[Path], object]] = {
    "header": lambda store: edit(store, lambda header: header["requests"].clear()),
    "inputs": lambda store: flip(store / "status" / "inputs", 30),
    "values": lambda store: flip(chunk(store, "value", 3), 30),
    "other unit": lambda store: shutil.copy(chunk(store, "value", 2), chunk(store, "value", 3)),
}


@pytest.mark.parametrize("harm", HARMS)
def test_the_function_refuses_damage(store: Path, harm: str, read_store: Callable) -> None:
    """A changed byte of the header, the inputs or a chunk, and a chunk of another unit."""
    HARMS[harm](store)
    with pytest.raises(AssertionError):
        read_store(store, "value")


def test_the_function_leaves_out_a_unit_with_a_damaged_record(
    store: Path, read_store: Callable
) -> None:
    flip(store / "status" / "journal", 5 * 4 * (8 + 5) + 30)  # of a unit of 8 runs
    assert len(read_store(store, "value")[0]) == 108 - 8


def test_the_line_for_xarray_selects_the_runs_that_are_done(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It drops padding and rows without results, and leaves every run once."""
    forget(store, [13])
    chunk(store, "diverged_at", 13).unlink()
    monkeypatch.chdir(store.parent)
    (code,) = (block for block in CODE if "open_zarr" in block)
    names: dict[str, Any] = {}
    exec(compile(code.replace("diagram.zarr", "own.zarr"), "stores.md", "exec"), names)
    runs, done = names["runs"], open_results(store)
    assert runs.sizes["run"] == int(done.done.sum())
    for run in range(0, runs.sizes["run"], 7):
        one = runs.isel(run=run)
        same = done.sel(spread=float(one.spread), count=int(one["count"]), seed=int(one.seed))
        for name in ("value", "pair", "whole", "large"):
            np.testing.assert_array_equal(one[name], same[name])


def test_the_tables_name_every_attribute_and_field() -> None:
    """All attributes of a header, and the fields of a record in their order."""
    rows = re.findall(r"(?m)^\| (.*?) \|", PAGE)
    named = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    assert not Header.__annotations__.keys() - named
    fields = re.findall(r"(?m)^\| \d+-\d+ \| `(\w+)` \|", PAGE)
    assert tuple(fields) == FIELDS


@pytest.mark.slow
def test_the_commands_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    """In their order, on the store that the first lines of the page make."""
    monkeypatch.chdir(tmp_path)
    exec(compile(CODE[0], "stores.md", "exec"), {})
    commands = re.findall(r"(?m)^    causal-sgd ([^#\n]+)", PAGE)
    assert len(commands) >= 8
    for command in commands:
        code, _, err = call(*words(command), capsys=capsys)
        assert code == 0, f"{command}: {err}"
    assert {path.name for path in tmp_path.iterdir()} >= {"diagram.nc", "diagram.html"}
