"""Stores in a bucket: the same guarantees as in a folder, and the same commands."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import obstore.store
import pytest
import xarray as xr
import zarr.storage

from causal_sgd import compare, refine
from causal_sgd.sweeps import sweep
from causal_sgd.sweeps.store import Store, StoreError, _objects, open_results, repair
from causal_sgd.sweeps.store._bucket import Bucket
from support import buckets, interrupted
from support.executors import CELL, OPTIONS, reference
from support.shell import call, words
from support.stores import forget


@pytest.fixture(scope="module")
def environment() -> Iterator[dict[str, str]]:
    with buckets.bucket() as environment:
        yield environment


@pytest.fixture
def url(environment, monkeypatch, tmp_path) -> str:
    """Of a place without a store; the present folder is empty, too."""
    buckets.use(environment, monkeypatch)
    monkeypatch.chdir(tmp_path)
    return f"s3://{buckets.BUCKET}/{uuid.uuid4().hex}/own.zarr"


@pytest.fixture(scope="module")
def complete(environment) -> str:
    """The URL of a complete store, which no test changes."""
    url = f"s3://{buckets.BUCKET}/complete/own.zarr"
    with pytest.MonkeyPatch.context() as patch:
        buckets.use(environment, patch)
        assert sweep(CELL, store=url, **OPTIONS).equals(reference())
    return url


@pytest.fixture
def store(complete, url) -> str:
    """The URL of a complete store of the test's own."""
    objects = Bucket(complete)
    for name in names(complete):
        Bucket(url).put(name, objects.get(name))
    return url


def names(url: str) -> set[str]:
    return {item["path"] for item in obstore.store.from_url(url).list().collect()}


@pytest.mark.slow
def test_a_sweep_into_a_bucket_has_the_results_of_one_in_memory(complete, url) -> None:
    assert open_results(complete).drop_vars("done").equals(reference())
    assert Store(complete).progress() == (24, 24)
    assert not Store(complete).faults()
    assert Store(complete).writer() is None
    merged = [name for name in names(complete) if name.startswith("status/journal")]
    assert merged == ["status/journal"]


def test_other_readers_read_the_table(complete, url) -> None:
    opened = zarr.storage.ObjectStore(obstore.store.from_url(complete), read_only=True)
    table = xr.open_zarr(opened, consolidated=False)
    assert table.sizes["run"] == 24
    own = reference().sel(spread=4.0, learning_rate=0.05, seed=1)
    run = (table.spread == 4) & (table.learning_rate == np.float32(0.05)) & (table.seed == 1)
    np.testing.assert_array_equal(
        table.spurious_signal.values[run.values][0], own.spurious_signal.values
    )


def test_commands_take_a_url_and_write_files_here(complete, url, tmp_path, capsys) -> None:
    code, out, _ = call("status", complete, "--verify", capsys=capsys)
    assert code == 0
    assert f"{complete}: 24 of 24 runs done" in out
    for command, file in (("export", "own.nc"), ("explore", "own.html")):
        code, out, err = call(command, complete, capsys=capsys)
        assert code == 0, err
        assert out.startswith(f"{file}: ")
    assert {path.name for path in tmp_path.iterdir()} == {"own.nc", "own.html"}
    with xr.open_dataset("own.nc") as exported:
        np.testing.assert_array_equal(exported.spurious_signal, reference().spurious_signal)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("status s3://missing/own.zarr", "s3://missing/own.zarr cannot be read: there is no such"),
        ("status s3://bucket/none.zarr", "s3://bucket/none.zarr does not exist"),
        ("export s3://bucket", "must be a path or a URL such as s3://bucket/prefix"),
    ],
)
def test_mistakes_in_a_url_end_in_one_line(url, capsys, line: str, message: str) -> None:
    code, _, err = call(*words(line), capsys=capsys)
    assert code == 2
    (only,) = err.strip().splitlines()
    assert message in only


@pytest.mark.slow
def test_the_same_call_resumes_and_more_seeds_are_added(store, tmp_path) -> None:
    before = names(store)
    assert sweep(CELL, store=f"{store}/", **OPTIONS).equals(reference())
    assert names(store) == before
    more: dict[str, Any] = OPTIONS | {"seeds": 6}
    assert sweep(CELL, store=store, **more).equals(sweep(CELL, **more))
    assert Store(store).progress() == (36, 36)
    assert not Store(store).faults()
    assert not list(tmp_path.iterdir())
    with pytest.raises(StoreError, match=f"{store} holds another configuration"):
        sweep(CELL, store=store, **OPTIONS, config={"a": 1})


class Killed(BaseException):
    """In place of the end of the process."""


@pytest.mark.slow
def test_a_sweep_that_ended_at_any_request_resumes_to_the_same_bits(url, monkeypatch) -> None:
    count, limit = 0, 0

    def dying(act: Any) -> Any:
        def request(*args: Any, **options: Any) -> Any:
            nonlocal count
            count += 1
            if count > limit:
                raise Killed
            return act(*args, **options)

        return request

    finished = False
    while not finished:
        place, count = f"{url}-{limit}", 0
        with monkeypatch.context() as patch:
            for name in ("put", "put_if", "delete"):
                patch.setattr(_objects.Objects, name, dying(getattr(_objects.Objects, name)))
            try:
                sweep(CELL, store=place, **OPTIONS)
                finished = True
            except Killed:
                pass
        files = Bucket(place)
        if files.writer() is not None:  # as if the process had ended, too
            files.remove("status/lease")
        if files.exists():
            assert not Store(place).faults()
        assert sweep(CELL, store=place, **OPTIONS).equals(reference())
        assert not Store(place).faults()
        limit += 5
    assert limit > 50


@pytest.mark.slow
def test_a_damaged_object_is_named_and_repaired(store, capsys) -> None:
    files = Bucket(store)
    name = Store(store)._arrays["spurious_signal"].chunk(1)
    content = files.get(name)
    files.put(name, content[:-5] + b"x" + content[-4:])
    code, out, _ = call("status", store, "--verify", capsys=capsys)
    assert code == 1
    assert f"repair it with: causal-sgd repair {store}" in out
    with pytest.raises(StoreError, match=f"{store}: spurious_signal of unit 1 is damaged"):
        open_results(store).load()
    fault = "spurious_signal of unit 1 is damaged (its content does not match its checksum)"
    assert repair(store) == {1: fault}
    assert not open_results(store).done.all()
    files.remove("zarr.json")
    with pytest.raises(StoreError, match=r"has no zarr\.json, but a copy of it"):
        Store(store)
    assert "zarr.json" in repair(store)
    assert not Store(store).faults()


@pytest.mark.slow
def test_damaged_and_missing_units_are_computed_again_from_the_shell(store, capsys) -> None:
    files = Bucket(store)
    name = Store(store)._arrays["spurious_signal"].chunk(1)
    content = files.get(name)
    files.remove(name)
    code, out, err = call("repair", store, capsys=capsys)
    assert code == 0, err
    assert f"{store}: 24 of 24 runs done" in out
    assert files.get(name) == content
    forget(store, [0])
    assert f"complete it with: causal-sgd resume {store}" in call("status", store, capsys=capsys)[1]
    code, out, err = call("resume", store, capsys=capsys)
    assert code == 0, err
    assert f"{store}: 24 of 24 runs done" in out
    assert open_results(store).drop_vars("done").equals(reference())


def test_a_second_writer_is_refused_and_readers_are_not(store) -> None:
    with Store(store).writing():
        named = f"{store} is being written by process {os.getpid()} on .*; wait for it"
        with pytest.raises(StoreError, match=named), Store(store).writing():
            pass
        assert f"process {os.getpid()} on" in (Store(store).writer() or "")
        assert open_results(store).done.all()
    assert Store(store).writer() is None


@pytest.mark.slow
def test_a_sweep_into_a_store_that_is_being_written_is_refused(store) -> None:
    more: dict[str, Any] = OPTIONS | {"seeds": 5}
    with Store(store).writing():
        with pytest.raises(StoreError, match=f"{store} is being written by process"):
            sweep(CELL, store=store, **more)
        assert sweep(CELL, store=store, **OPTIONS).equals(reference())  # which writes nothing
    assert sweep(CELL, store=store, **more).sizes["seed"] == 5


def test_a_place_with_other_objects_is_refused(url) -> None:
    Bucket(url).put("notes.txt", b"mine")
    with pytest.raises(StoreError, match=f"{url} is not a sweep's results: it has no zarr.json"):
        sweep(CELL, store=url, **OPTIONS)
    assert names(url) == {"notes.txt"}
    with pytest.raises(StoreError, match=f"{url}-2 does not exist"):
        open_results(f"{url}-2")


@pytest.mark.slow
def test_a_bucket_that_cannot_be_reached_stops_the_sweep(url, monkeypatch) -> None:
    put, left = _objects.Objects.put, iter(range(20))

    def failing(self: _objects.Objects, name: str, content: bytes) -> None:
        if next(left, None) is None:
            monkeypatch.setattr(self, "_writes", obstore.store.from_url("s3://missing/x"))
        put(self, name, content)

    with monkeypatch.context() as patch:
        patch.setattr(_objects.Objects, "put", failing)
        with pytest.raises(StoreError, match=f"{url} cannot be written: there is no such bucket"):
            sweep(CELL, store=url, **OPTIONS)
    Bucket(url).remove("status/lease")  # which could not be released
    assert sweep(CELL, store=url, **OPTIONS).equals(reference())


@pytest.mark.slow
def test_a_command_computes_into_a_bucket(url, tmp_path, capsys) -> None:
    line = words("phase --x spread=0:4:3 --y learning-rate=0.05,0.2 --metrics spurious_signal")
    line += words("--dim 4 --invariant-rank 1 --spurious-rank 1 --steps 20 --seeds 2")
    line += words("--measurement population --model diagonal --basis canonical")
    code, _, err = call(*line, "--out", url, capsys=capsys)
    assert code == 0, err
    assert open_results(url).done.all()
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_stores_of_several_cells_lie_below_one_url(url) -> None:
    both = compare({"one": CELL, "two": CELL}, store=url, **OPTIONS)
    assert both.sel(variant="two", drop=True).equals(reference())
    assert open_results(f"{url}/one.zarr").done.all()


@pytest.mark.slow
def test_a_refinement_keeps_its_runs_in_a_bucket(url) -> None:
    options: dict[str, Any] = {
        "axes": {"spread": np.linspace(0, 4, 9), "learning_rate": np.linspace(0.02, 0.2, 9)},
        "level": 0.5,
        "max_seeds": 8,
    }
    assert refine(CELL, store=url, **options).equals(refine(CELL, **options))
    assert refine(CELL, store=url, **options).equals(refine(CELL, **options))


def begun(url: str, log: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, interrupted.__file__, url, str(log)],
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
    )


@pytest.mark.slow
def test_a_killed_process_loses_no_unit_and_its_lease_at_once(url, tmp_path) -> None:
    log = tmp_path / "log"
    for ends in (1, 20):
        process = begun(url, log)
        deadline = time.monotonic() + 100
        while not log.exists() or log.read_text().count("end") < ends:
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.002)
        process.send_signal(signal.SIGSTOP)  # else it may be done before its lease is read
        writer = Store(url).writer()
        process.kill()
        process.communicate()
        assert f"process {process.pid} on" in (writer or "")
        assert Store(url).writer() is None
        assert not Store(url).faults()
        assert int(Store(url).done.sum()) >= log.read_text().count("end")
    process = begun(url, log)
    _, error = process.communicate(timeout=100)
    assert process.returncode == 0, error
    assert not Store(url).faults()
    options: dict[str, Any] = {
        "axes": interrupted.AXES,
        "seeds": interrupted.SEEDS,
        "tile": interrupted.TILE,
        "devices": jax.local_devices(),
    }
    found = sweep(interrupted.CELL, store=url, **options)
    assert found.equals(sweep(interrupted.CELL, **options))
