"""Outputs of run and phase: quantiles of every step, tables, and files that exist."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from causal_sgd.cli.outputs import spread_out
from causal_sgd.cli.workers import watched
from causal_sgd.experiment import Experiment
from causal_sgd.sweeps import sweep
from support.shell import call, words

pytestmark = pytest.mark.usefixtures("quickly_compiled")

FIELDS = {"dim": 6, "invariant_rank": 2, "spurious_rank": 1, "steps": 20, "basis": "canonical"}
SMALL = words(
    "--dim 6 --invariant-rank 2 --spurious-rank 1 --steps 20 --basis canonical "
    "--measurement population --metrics spurious_signal environment_losses"
)


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
def test_run_gives_the_quantiles_of_every_recorded_step(capsys, tmp_path: Path) -> None:
    path = tmp_path / "traj.csv"
    run = ["run", *SMALL, "--seeds", "5", "--record-every", "5", "--json", "--out", str(path)]
    code, out, _ = call(*run, capsys=capsys)
    assert code == 0
    report = json.loads(out)["trajectories"]
    experiment = Experiment(
        **FIELDS, measurement="population", record_every=5, metrics=("spurious_signal",)
    )
    values = sweep(experiment.cell(), seeds=5).spurious_signal.transpose("step", "seed").values
    rows = [row for row in table(path) if row["metric"] == "spurious_signal"]
    assert report["step"] == [0, 5, 10, 15, 20]
    assert [int(row["step"]) for row in rows] == report["step"]
    for level, quantile in (("median", 0.5), ("q10", 0.1), ("q90", 0.9)):
        expected = np.quantile(values, quantile, axis=1)
        found = report["metrics"]["spurious_signal"][level]
        np.testing.assert_allclose(found, expected, rtol=1e-5)
        np.testing.assert_allclose([float(row[level]) for row in rows], expected, rtol=1e-5)
    losses = [row for row in table(path) if row["metric"] == "environment_losses"]
    assert [row["index"] for row in losses] == ["0", "1"] * 5
    assert np.shape(report["metrics"]["environment_losses"]["median"]) == (5, 2)
    code, _, err = call(*run, capsys=capsys)
    assert code == 2
    assert f"--out must be a new file, got {path}, which exists; replace it with --force" in err
    before = path.read_text()
    code, _, _ = call(*run, "--force", capsys=capsys)
    assert code == 0
    assert path.read_text() == before


@pytest.mark.parametrize("columns", [80, 200, 20])
def test_a_wide_diagram_fits_into_the_columns(
    columns: int, capsys, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    axes = words("--x spread=0:6:40 --y learning-rate=0.02:0.2:30:log --level 0.2 --seeds 2")
    path = tmp_path / "d.csv"
    code, out, _ = call("phase", *axes, *SMALL, "--out", str(path), capsys=capsys)
    assert code == 0
    lines = out.splitlines()
    heading = next(i for i, line in enumerate(lines) if line.endswith("columns spread"))
    lines = lines[heading + 1 :]
    cells = lines[: lines.index(next(line for line in lines if line.startswith("shown: ")))]
    assert len(cells) == 25
    fitting = len(cells[0].split())
    assert max(2, columns // 12) <= fitting
    assert max(map(len, cells)) <= max(columns, 30)
    assert f"shown: {fitting} of 40 columns and 24 of 30 rows" in out
    assert "all of them: --out diagram.csv or --json" in out
    assert "theory is that of these environments" in out
    rows = [row for row in table(path) if row["metric"] == "spurious_signal"]
    assert len(rows) == 1200
    assert len({(row["spread"], row["learning_rate"]) for row in rows}) == 1200
    # A cell of the printed table is the median of the file, at the first and the last column.
    for line, rate in ((cells[1], "0.02"), (cells[-1], "0.2")):
        own = [float(row["median"]) for row in rows if f"{float(row['learning_rate']):.4g}" == rate]
        first, last = line.split()[1], line.split()[-1]
        assert (first, last) == (f"{own[0]:.3g}", f"{own[-1]:.3g}")


def test_values_are_spread_out_with_both_ends() -> None:
    assert spread_out(5, 9).tolist() == [0, 1, 2, 3, 4]
    assert spread_out(50, 3).tolist() == [0, 24, 49]
    assert spread_out(50, 0).tolist() == [0, 49]
    assert spread_out(1, 9).tolist() == [0]


def test_lost_workers_are_told_at_once_and_at_the_end(capsys) -> None:
    present = {"tcp://a:1", "tcp://b:2", "tcp://c:3"}
    with watched(lambda: present, seconds=60):
        assert capsys.readouterr().err == ""
        present = {"tcp://b:2", "tcp://d:4"}
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "lost the worker tcp://a:1; 2 left",
        "lost the worker tcp://c:3; 2 left",
        "2 workers were lost; others computed their runs again",
    ]
