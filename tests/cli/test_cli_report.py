"""`causal-sgd report`: a table of one's own in the shell."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from support.shell import call


def write(folder: Path) -> Path:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(90, 2))
    names = np.repeat(["a", "b", "c"], 30)
    label = x[:, 0] + np.where(names == "b", -1.0, 1.0) * x[:, 1]
    np.savez(folder / "table.npz", x=x, y=label, environment=names)
    frame = pd.DataFrame({"useful": x[:, 0], "spurious": x[:, 1], "wage": label, "region": names})
    frame.to_csv(folder / "table.csv", index=False)
    return folder / "table.csv"


def test_a_report_is_printed_and_written_as_json(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = (str(write(tmp_path)), "--label-column", "wage", "--environment-column", "region")
    code, out, _ = call("report", *words, capsys=capsys)
    assert code == 0
    assert "spurious" in out
    assert "largest stable step" in out
    code, out, _ = call("report", *words, "--json", capsys=capsys)
    found = json.loads(out)
    assert found["features"] == ["useful", "spurious"]
    assert found["dissent"][1] == pytest.approx(1 / 3)
    code, out, _ = call("report", str(tmp_path / "table.npz"), "--json", capsys=capsys)
    np.testing.assert_allclose(json.loads(out)["path"], found["path"], atol=1e-4)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--label-column", "pay"), "pay"),
        (("--label-column", "wage", "--environment-column", "pay"), "pay"),
        (("--batch-size", "0"), "--batch-size"),
    ],
)
def test_mistakes_are_one_line(
    tmp_path: Path, words: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ("--label-column", "wage", "--environment-column", "region")
    chosen = words if "--label-column" in words else (*given, *words)
    code, _, err = call("report", str(write(tmp_path)), *chosen, capsys=capsys)
    assert code == 2
    assert message in err
    assert len(err.strip().splitlines()) == 1
