"""Several studies at a time: the same numbers as one after another, and no process left behind."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from causal_sgd.studies._selection import chosen
from causal_sgd.studies.reproduction._running import outcomes
from support.shell import call
from support.studies import computed, write

LINE = ("reproduce", "./one.py", "./two.py", "./three.py", "--out")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with three studies."""
    for name in ("one", "two", "three"):
        write(tmp_path, name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_report_is_that_of_studies_one_after_another(folder: Path, capsys) -> None:
    write(folder, "two", trouble="raise ValueError('lost')")
    tables = []
    for jobs in ("1", "2"):
        code, out, err = call(*LINE, jobs, "--jobs", jobs, capsys=capsys)
        assert code == 1, err
        assert "ERROR  two: ValueError: lost" in out
        assert sorted(computed(folder)) == ["one", "three", "two"]
        tables.append(json.loads((folder / jobs / "claims.json").read_text()))
        for study in ("one", "three"):
            assert (folder / jobs / f"{study}.png").is_file()
    for table in tables:
        assert [row["study"] for row in table["claims"]] == ["one"] * 3 + ["three"] * 3
    assert tables[0]["claims"] == tables[1]["claims"]


@pytest.mark.slow
def test_constants_that_were_set_reach_the_other_processes(folder: Path) -> None:
    wanted = chosen(LINE[1:3], ["one:BASE.spread=3.0"])
    done = {outcome.name: outcome for outcome in outcomes(wanted, folder / "out", jobs=2)}
    assert set(done) == {"one[BASE.spread=3.0]", "two"}
    assert not any(outcome.error for outcome in done.values())
    assert done["one[BASE.spread=3.0]"].constants["BASE.spread"].value == "3.0"


@pytest.mark.slow
def test_a_process_that_dies_costs_its_own_study_alone(folder: Path, capsys) -> None:
    write(folder, "one", trouble="os.kill(os.getpid(), signal.SIGKILL)")
    code, out, _ = call(*LINE, "out", "--jobs", "2", capsys=capsys)
    assert code == 1
    assert "ERROR  one: RuntimeError: its process was killed; the memory may be too small" in out
    assert "4 of 4 claims hold; 2 findings; 1 of 3 studies stopped with an error" in out


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_no_process_survives_the_command(folder: Path, number: signal.Signals) -> None:
    for name in ("one", "two", "three"):
        write(folder, name, trouble="import time; time.sleep(60)")
    command = [sys.executable, "-m", "causal_sgd", *LINE, "out", "--jobs", "2"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    log = folder / "log"
    while not log.exists() or len(log.read_text().split()) < 2:
        assert process.poll() is None
        time.sleep(0.1)
    children = psutil.Process(process.pid).children(recursive=True)
    assert len(children) >= 2
    process.send_signal(number)
    _, err = process.communicate(timeout=20)
    assert process.returncode == (-number if number == signal.SIGKILL else 130)
    if number != signal.SIGKILL:
        assert "0 of 3 studies are finished and cached; continue with: the same command" in err
    assert not psutil.wait_procs(children, timeout=10)[1]
