"""Stores from the shell: start, inspect, resume, repair, export, and mistakes in one line."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr

import causal_sgd
from causal_sgd.experiment import Experiment
from causal_sgd.sweeps import sweep
from causal_sgd.sweeps.store import Store
from support.shell import call, words
from support.stores import chunk, forget

SMALL = words("--dim 4 --invariant-rank 1 --spurious-rank 1 --steps 20 --measurement population")
SMALL += words("--model diagonal --basis canonical")  # compiles quickly
FIELDS = {
    "dim": 4,
    "invariant_rank": 1,
    "spurious_rank": 1,
    "steps": 20,
    "measurement": "population",
}
EXPERIMENT = Experiment(**FIELDS, model="diagonal", basis="canonical", metrics=("spurious_signal",))
DIAGRAM = words("phase --x spread=0:4:3 --y learning-rate=0.05,0.2 --metrics spurious_signal")
DIAGRAM += SMALL


@pytest.fixture
def store(tmp_path, capsys) -> str:
    path = str(tmp_path / "diagram.zarr")
    code, out, _ = call(*DIAGRAM, "--seeds", "2", "--out", path, capsys=capsys)
    assert code == 0
    assert "12 runs" in out
    return path


def test_status_prints_the_contents(store: str, capsys) -> None:
    code, out, _ = call("status", store, "--verify", capsys=capsys)
    assert code == 0
    assert "12 of 12 runs done (100.0%), 0 missing, 0 diverged" in out
    for text in (
        "3 values, 0 to 4",
        "2 values, 0.05 to 0.2",
        "spurious_signal",
        "computed by",
        "jax",
    ):
        assert text in out
    code, out, _ = call("status", store, "--json", capsys=capsys)
    report = json.loads(out)
    counts = {name: report[name] for name in ("runs", "done", "missing", "diverged")}
    assert counts == {"runs": 12, "done": 12, "missing": 0, "diverged": 0}
    assert report["damaged"] == {}
    assert report["axes"] == {"spread": [0, 2, 4], "learning_rate": [0.05, 0.2], "seed": [0, 1]}
    assert report["configuration"]["experiment"]["dim"] == 4


def test_the_same_command_adds_seeds_and_values(store: str, capsys) -> None:
    before = Store(store).num_tiles
    wider = [*DIAGRAM[:2], "spread=0:6:4", *DIAGRAM[3:]]
    code, out, _ = call(*wider, "--seeds", "4", "--out", store, "--json", capsys=capsys)
    assert code == 0
    axes = {"spread": np.linspace(0, 6, 4), "learning_rate": [0.05, 0.2]}
    expected = (
        sweep(EXPERIMENT.cell(), axes=axes, seeds=4).spurious_signal.isel(step=-1).median("seed")
    )
    np.testing.assert_allclose(
        json.loads(out)["median"], expected.transpose("learning_rate", "spread"), rtol=1e-6
    )
    tile = Store(store).tile
    assert Store(store).num_tiles - before == -(-(4 * 2 * 4 - 12) // tile)


def test_another_experiment_is_refused_in_one_line(store: str, capsys) -> None:
    code, out, err = call(*DIAGRAM, "--batch-size", "7", "--out", store, capsys=capsys)
    assert (code, out) == (2, "")
    assert len(err.strip().splitlines()) == 1
    assert "--batch-size is 1000 in the store and 7 now" in err


def test_a_repaired_store_is_whole(store: str, capsys) -> None:
    whole = causal_sgd.open_results(store).load()
    file = chunk(Path(store), "spurious_signal", 0)
    file.write_bytes(file.read_bytes()[:-1])
    code, out, _ = call("status", store, "--verify", capsys=capsys)
    assert code == 1
    assert "damaged: spurious_signal of unit 0 is damaged" in out
    assert f"causal-sgd repair {store}" in out
    code, out, err = call("export", store, f"{store}.csv", capsys=capsys)
    assert code == 2
    assert "causal-sgd repair" in err
    code, out, _ = call("repair", store, capsys=capsys)
    assert code == 0
    assert "1 of 1 units are damaged" in out
    assert "12 of 12 runs done" in out
    assert causal_sgd.open_results(store).equals(whole)
    assert "0 of 1 units are damaged" in call("repair", store, capsys=capsys)[1]
    assert "nothing is missing" in call("resume", store, capsys=capsys)[1]


@pytest.mark.parametrize("suffix", [".nc", ".csv"])
def test_export(store: str, capsys, suffix: str) -> None:
    out = f"{store}{suffix}"
    code, text, _ = call("export", store, out, capsys=capsys)
    assert code == 0
    assert f"{out}: 12 runs" in text
    if suffix == ".nc":
        assert str(Path(store).with_suffix(".nc")) in call("export", store, capsys=capsys)[1], (
            "the default"
        )
        with xr.open_dataset(out) as stored:
            assert dict(stored.sizes) == {"spread": 3, "learning_rate": 2, "seed": 2, "step": 2}
    else:
        assert len(pd.read_csv(out)) == 3 * 2 * 2 * 2


def test_a_store_from_python_says_how_to_complete_it(tmp_path, capsys) -> None:
    def own(key, *, spread):
        return EXPERIMENT.cell()(key, spread=spread)

    path = tmp_path / "own.zarr"
    sweep(own, axes={"spread": [1.0, 2.0]}, seeds=2, tile=2, store=path)
    chunk(path, "diverged_at", 0).unlink()
    code, out, _ = call("repair", str(path), capsys=capsys)
    assert code == 0
    assert "run the same sweep of the cell test_a_store_from" in out
    code, _, err = call("resume", str(path), capsys=capsys)
    assert code == 2
    assert "was created from Python" in err
    assert "complete it with: run the same sweep" in call("status", str(path), capsys=capsys)[1]


# A process in the background of a shell ignores SIGINT, and so do its children.
LISTENING = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)
from causal_sgd.cli import main
main()
"""


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_command_prints_how_to_continue(tmp_path, how: int, capsys) -> None:
    path = tmp_path / "long.zarr"
    command = words("phase --x spread=0:4:40 --y learning-rate=0.01:0.05:20 --steps 4000")
    options = ["--seeds", "64", "--metrics", "spurious_signal", "--out", str(path)]
    process = subprocess.Popen(
        [sys.executable, "-c", LISTENING, *command, *SMALL[:6], *SMALL[8:], *options],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
    )
    deadline = time.monotonic() + 100
    while process.poll() is None and not (
        (path / "status" / "journal").exists() and (path / "status" / "journal").stat().st_size
    ):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(how)
    out, err = process.communicate(timeout=100)
    assert process.returncode == 130, err
    assert out == ""
    last = err.strip().splitlines()[-1]
    store = Store(path)
    runs, done = store.progress()
    assert 0 < done < runs
    progress = f"{done} of {runs} runs are saved"
    assert last == f"causal-sgd: interrupted; {progress}; continue with: causal-sgd resume {path}"
    assert not store.faults()
    assert "stopped: KeyboardInterrupt" in Path(f"{path}.log").read_text(), (
        "without a terminal there is a log"
    )
    assert (
        f"complete it with: causal-sgd resume {path}" in call("status", str(path), capsys=capsys)[1]
    )


def test_resume_computes_the_missing_runs(store: str, capsys) -> None:
    whole = causal_sgd.open_results(store).load()
    forget(Path(store), [0])
    code, out, _ = call("resume", store, capsys=capsys)
    assert code == 0
    assert "12 of 12 runs done" in out
    assert causal_sgd.open_results(store).equals(whole)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("status nowhere.zarr", "nowhere.zarr does not exist"),
        ("status .", "is not a sweep's results"),
        ("resume nowhere.zarr", "nowhere.zarr does not exist"),
        ("repair .", "is not a sweep's results"),
        ("export nowhere.zarr out.csv", "nowhere.zarr does not exist"),
        ("export nowhere.zarr out.txt", "must end in .nc or .csv"),
        ("status", "PATH"),
        ("run --out nowhere/at/all.zarr --steps 2", "all.zarr must be a place that can be written"),
        ("run --cache pyproject.toml --steps 2", "--cache: folder must be one that can be written"),
    ],
)
def test_a_mistake_is_one_line(arguments: str, message: str, capsys, monkeypatch) -> None:
    monkeypatch.chdir(Path(__file__).parents[2])
    code, out, err = call(*arguments.split(), capsys=capsys)
    assert code == 2
    assert out == ""
    assert len(err.strip().splitlines()) == 1
    assert message in err
