"""Paths: a change of folder, ~ and URLs, at every function that takes one."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import causal_sgd
from causal_sgd import checks, cli
from causal_sgd.experiment import Experiment
from causal_sgd.figures.explorer import write_page
from causal_sgd.sensing import worlds
from causal_sgd.studies import reproduction
from causal_sgd.sweeps import compare, sweep, use_compilation_cache
from causal_sgd.sweeps.store import Store, export_results, open_results, repair
from support.cases import few
from support.executors import CELL, OPTIONS, reference

TAKE_A_STORE: dict[str, Callable[[str], object]] = {
    "sweep": lambda path: sweep(CELL, store=path, **OPTIONS),
    "compare": lambda path: compare({"one": CELL}, store=path, **OPTIONS),
    "refine": lambda path: causal_sgd.refine(
        CELL, axes={"spread": [0.0, 1.0]}, level=0.5, store=path
    ),
    "Store": Store,
    "repair": repair,
    "open_results": open_results,
    "export_results": lambda path: export_results(path, "out.nc"),
}
TAKE_A_PATH: dict[str, Callable[[str], object]] = {
    "export_results, out": lambda path: export_results("in.zarr", f"{path}.nc"),
    "use_compilation_cache": use_compilation_cache,
    "world_file": lambda path: Experiment(world_file=Path(path)),
    "from_file": worlds.from_file,
    "write_page": lambda path: write_page(path, xr.Dataset()),
    "pending": lambda path: reproduction.pending(["phase"], Path(path), quick=True, seed=0),
    "outcomes": lambda path: next(reproduction.outcomes([], Path(path)), None),
}


@pytest.mark.parametrize("name", TAKE_A_PATH)
def test_a_url_is_refused_by_name(name: str, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"must be a path on this machine, got the URL 's3:/"):
        TAKE_A_PATH[name]("s3://bucket/diagram.zarr")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", few(TAKE_A_STORE, TAKE_A_STORE.keys() - {"refine"}))
def test_a_url_of_another_kind_is_refused_for_a_store(name: str, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    allowed = r"must be a path or a URL such as s3://bucket/prefix, .*, got 'http://host/a.zarr'"
    with pytest.raises(ValueError, match=allowed):
        TAKE_A_STORE[name]("http://host/a.zarr")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "text",
    [
        "s3://bucket",
        "s3://bucket/",
        "s3:///a",
        "s3://b//a",
        "s3://key@b/a",
        "gs://b/a?x=1",
        "az:/b/a",
    ],
)
def test_a_url_has_a_bucket_and_a_prefix_and_nothing_more(text: str) -> None:
    with pytest.raises(
        ValueError, match=f"^store must be a path or a URL .*, got '{re.escape(text)}'"
    ):
        checks.place("store", text)


def test_a_url_is_not_made_a_path() -> None:
    url = checks.place("store", "s3://bucket/own folder/own.zarr/")
    assert url == "s3://bucket/own folder/own.zarr"
    assert (url.name, url.stem, url.suffix) == ("own.zarr", "own", ".zarr")
    assert str(url.parent / "other") == "s3://bucket/own folder/other"
    with pytest.raises(ValueError, match="got 's3:/bucket/own.zarr': pass it as text"):
        checks.place("store", Path("s3://bucket/own.zarr"))
    assert checks.place("store", "~") == Path.home()


@pytest.mark.parametrize("value", ["", b"diagram.zarr", 3, "a\0b", "~nobody-of-this-name/x"])
def test_other_values_than_paths_are_refused_by_name(value: object) -> None:
    with pytest.raises(ValueError, match="^store must be a path"):
        checks.path("store", value)


def test_a_path_is_absolute_and_a_drive_is_no_url(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/own")
    assert checks.path("store", "a.zarr") == tmp_path / "a.zarr"
    assert checks.path("store", "~/a.zarr") == Path("/home/own/a.zarr")
    assert checks.path("store", "c:/a.zarr", absolute=False) == Path("c:/a.zarr")


def test_results_survive_a_change_of_folder(tmp_path, monkeypatch) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "one")
    found = sweep(CELL, store="own.zarr", **OPTIONS)
    compared = compare({"first": CELL}, store="compared", **OPTIONS)
    store = Store(Path("own.zarr"))
    monkeypatch.chdir(tmp_path / "two")
    assert found.equals(reference())
    assert compared.sel(variant="first", drop=True).equals(reference())
    assert store.dataset().drop_vars("done").equals(reference())
    assert not repair(store.path)
    assert not list((tmp_path / "two").iterdir())


def test_home_is_expanded(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    sweep(CELL, store="~/own.zarr", **OPTIONS)
    assert open_results("~/own.zarr").done.all()
    with pytest.raises(SystemExit) as stop:
        cli.main(["export", "~/own.zarr", "~/own.csv"])
    assert not stop.value.code
    assert {"own.csv", "own.zarr"} <= {path.name for path in tmp_path.iterdir()}
    assert not (tmp_path / "~").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ["run", "--out", "http://b/a.zarr"],
        ["status", "http://b/a.zarr"],
        ["explore", "http://b/a.zarr"],
        ["run", "--plot", "http://b/a.png"],
        ["run", "--out", "gs://b/a.nc"],
        ["explore", "gs://b/a.nc"],
    ],
    ids=str,
)
def test_the_command_line_refuses_urls_in_one_line(arguments: list[str], capsys) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.main(arguments)
    assert stop.value.code == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert re.search("must be a path .*, got (the URL )?'(http|gs)://b/", line)


def test_a_world_file_is_found_from_another_folder(tmp_path, monkeypatch) -> None:
    (tmp_path / "own").mkdir()
    monkeypatch.chdir(tmp_path / "own")
    np.savez("world.npz", invariant=np.diag([1.0, 0]), spurious=np.zeros((1, 2, 2)))
    experiment = Experiment(world_file=Path("world.npz"))
    monkeypatch.chdir(tmp_path)
    assert experiment.resolved().dim == 2
    assert Experiment.parse(experiment.describe()).resolved().dim == 2
