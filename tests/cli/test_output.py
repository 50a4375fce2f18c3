"""Results are printed and written whatever happens to standard error, figures and other files."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
import xarray as xr
from matplotlib import pyplot as plt

from causal_sgd import figures
from causal_sgd.cli import diagrams, runs
from causal_sgd.cli.computation import Workplace
from causal_sgd.experiment import Experiment
from causal_sgd.sweeps import _netcdf
from causal_sgd.sweeps._progress import Progress
from support.cases import few
from support.shell import call, words

RUN = words("run --metrics spurious_signal --json")
PHASE = words("phase --x spread=0:6:2 --y mean=1,2 --metrics spurious_signal --json")


class Silent:
    """An object in place of standard error, with none of its methods."""


def closed() -> io.StringIO:
    stream = io.StringIO()
    stream.close()
    return stream


STREAMS = {"None": lambda: None, "closed": closed, "another object": Silent}


@pytest.fixture
def swept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands that receive results without a sweep."""

    def sweep(self: Workplace, cell: object, **options: object) -> xr.Dataset:
        axes = options.get("axes", {})
        shape = [len(values) for values in axes.values()]
        dims = (*axes, "seed")
        return xr.Dataset(
            {
                "spurious_signal": ((*dims, "step"), np.ones((*shape, 3, 2))),
                "diverged_at": (dims, np.full((*shape, 3), -1)),
            },
            {**axes, "seed": range(3), "step": [0, 400]},
        )

    monkeypatch.setattr(Workplace, "sweep", sweep)
    Experiment().cell()  # loads what logs to standard error, while there is one


@pytest.mark.parametrize("stream", STREAMS.values(), ids=list(STREAMS))
@pytest.mark.parametrize("shown", [None, True])
def test_progress_needs_no_standard_error(stream, shown, monkeypatch) -> None:
    monkeypatch.setattr(sys, "stderr", stream())
    with Progress("sweep", 4, 0, shown=shown, log_file=None) as progress:
        progress.add(4, 1)
    assert progress.done == 4


@pytest.mark.parametrize("stream", STREAMS.values(), ids=list(STREAMS))
def test_commands_need_no_standard_error(stream, swept, capsys, monkeypatch) -> None:
    monkeypatch.setattr(sys, "stderr", stream())
    code, out, _ = call(*RUN, capsys=capsys)
    assert (code, json.loads(out)["metrics"]["spurious_signal"]["median"]) == (0, 1.0)
    assert call("run", "--dmi", "3", capsys=capsys)[:2] == (2, "")


@pytest.mark.parametrize(("command", "module"), [(RUN, runs), (PHASE, diagrams)])
def test_a_figure_that_fails_costs_no_results(
    command, module, swept, capsys, monkeypatch, tmp_path
) -> None:
    def fail(*_: object) -> None:
        raise OSError("no space left for the figure")

    monkeypatch.setattr(module, "draw", fail)
    files = ["--plot", str(tmp_path / "run.png"), "--out", str(tmp_path / "run.nc")]
    code, out, err = call(*command, *files, capsys=capsys)
    assert (code, err) == (1, "causal-sgd: no space left for the figure\n")
    assert "config" in json.loads(out)
    with xr.open_dataset(tmp_path / "run.nc") as stored:
        assert stored.sizes["seed"] == 3


@pytest.mark.parametrize("command", [RUN, pytest.param(PHASE, marks=pytest.mark.slow)])
def test_a_file_that_fails_costs_no_results(command, swept, capsys, monkeypatch, tmp_path) -> None:
    def fail(*_: object) -> None:
        raise OSError("no space left for the file")

    monkeypatch.setattr(_netcdf, "write_netcdf", fail)
    files = ["--plot", str(tmp_path / "run.png"), "--out", str(tmp_path / "run.nc")]
    code, out, err = call(*command, *files, capsys=capsys)
    assert (code, err) == (1, "causal-sgd: no space left for the file\n")
    assert "config" in json.loads(out)
    assert (tmp_path / "run.png").exists()


def test_a_missing_backend_is_replaced_by_agg(monkeypatch) -> None:
    backend = mpl.get_backend()
    dict.__setitem__(mpl.rcParams, "backend", "module://nowhere.backend_inline")
    try:
        with figures.style():
            plt.close(plt.figure())
            assert mpl.get_backend().lower() == "agg"
    finally:
        mpl.use(backend)


BACKENDS = ["module://nowhere.backend_inline", "nonsense", "TkAgg"]


@pytest.mark.parametrize("backend", few(BACKENDS, (), BACKENDS[:1]))
def test_commands_need_no_backend_and_no_open_stream(backend: str, tmp_path: Path) -> None:
    options = "--steps 5 --seeds 2 --measurement population --plot run.png"
    result = subprocess.run(
        f"{sys.executable} -m causal_sgd {' '.join(RUN)} {options} 2>&-",
        shell=True,
        cwd=tmp_path,
        env=os.environ | {"MPLBACKEND": backend, "PYTHONPATH": str(Path(__file__).parents[2])},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    assert "spurious_signal" in json.loads(result.stdout)["metrics"]
    assert (tmp_path / "run.png").exists()
