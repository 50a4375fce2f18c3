"""The tables beside the figures: the same numbers as computed directly from the datasets."""

from __future__ import annotations

import csv
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
import xarray as xr

from causal_sgd.analysis import Boundary
from causal_sgd.studies import Study
from causal_sgd.studies._tables import intervals, points
from causal_sgd.studies.reproduction import _tables
from causal_sgd.studies.reproduction._tables import STATISTICS, write


def table_of(path: Path, data: dict[str, xr.Dataset], **functions: object) -> list[dict[str, str]]:
    study = cast(Study, SimpleNamespace(**functions))
    with write(study, data, path / "a-study").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def sweep() -> xr.Dataset:
    """Two axes, one of them a setting with the name of a statistic, 7 seeds and 3 frames."""
    random = np.random.default_rng(0)
    diverged = np.full((2, 3, 7), -1)
    diverged[0, 1, :2], diverged[1, 2] = 4, 5
    dims = ("method", "mean", "seed")
    return xr.Dataset(
        {
            "error": ((*dims, "step"), random.normal(size=(2, 3, 7, 3)).astype(np.float32)),
            "spectrum": ((*dims, "step", "spectrum_0"), random.normal(size=(2, 3, 7, 3, 4))),
            "exact": ((*dims, "step"), random.random((2, 3, 7, 3)) < 0.5),
            "label": (("method",), ["a", "b"]),
            "diverged_at": (dims, diverged),
        },
        {"method": ["SGD, plain", "IRM"], "mean": [0.5, 1.0, 2.0], "step": [0, 10, 20]},
    )


def test_rows_are_summaries_over_the_seeds_that_did_not_diverge(tmp_path: Path) -> None:
    dataset = sweep()
    rows = table_of(tmp_path, {"runs": dataset})
    assert list(rows[0]) == [
        *("dataset", "method", "setting_mean", "step", "index", "metric"),
        *STATISTICS,
    ]
    assert len(rows) == 2 * 3 * 3 * (1 + 4 + 1)
    for row in rows:
        at = {"method": row["method"], "mean": float(row["setting_mean"]), "step": int(row["step"])}
        values = dataset[row["metric"]].sel(at).astype(float)
        assert (row["index"] != "") == (row["metric"] == "spectrum")
        values = values.isel(spectrum_0=int(row["index"])) if row["index"] else values
        survived = dataset.diverged_at.sel({name: at[name] for name in ("method", "mean")}) < 0
        kept = values.values[survived.values]
        assert float(row["diverged"]) == pytest.approx(1 - survived.values.mean())
        assert int(row["count"]) == len(kept)
        if not len(kept):
            assert all(row[name] == "" for name in ("median", "q10", "q90", "mean", "sd"))
            continue
        expected = [*np.quantile(kept, [0.5, 0.1, 0.9]), kept.mean(), kept.std(ddof=1)]
        shown = [float(row[name]) for name in ("median", "q10", "q90", "mean", "sd")]
        np.testing.assert_allclose(shown, expected, rtol=2e-7, atol=1e-8)


def test_a_single_number_is_its_own_summary_and_comes_from_the_study_too(tmp_path: Path) -> None:
    law = xr.Dataset(
        {"boundary": (("rate", "case"), np.array([[1.0, np.inf], [np.nan, 4.0]]))},
        {"rate": [0.1, 0.2], "mean": ("case", [5.0, 6.0])},
    )
    rows = table_of(tmp_path, {"runs": sweep()}, table=lambda data: {"law": law})
    rows = [row for row in rows if row["dataset"] == "law"]
    numbers = ("rate", "setting_mean", "step", *STATISTICS)
    assert [tuple(row[name] for name in numbers) for row in rows] == [
        ("0.1", "5.0", "", "1", "1", "1", "1", "", "1", ""),
        ("0.1", "6.0", "", "inf", "inf", "inf", "inf", "", "1", ""),
        ("0.2", "5.0", "", "", "", "", "", "", "0", ""),
        ("0.2", "6.0", "", "4", "4", "4", "4", "", "1", ""),
    ]
    with pytest.raises(ValueError, match="must name its datasets unlike those of run, got 'law'"):
        table_of(tmp_path, {"law": law}, table=lambda data: {"law": law})


def test_long_runs_keep_the_first_the_last_and_evenly_spaced_frames(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = np.arange(2 * 3 * 1001.0).reshape(2, 3, 1001)
    dataset = xr.Dataset({"m": (("rate", "seed", "step"), values)}, {"step": np.arange(1001)})
    rows = table_of(tmp_path, {"runs": dataset})
    steps = np.array([int(row["step"]) for row in rows if row["rate"] == "1"])
    assert (steps[0], steps[-1], len(steps)) == (0, 1000, _tables.MOST_FRAMES)
    assert set(np.diff(steps)) == {2, 3}
    monkeypatch.setattr(_tables, "MOST_ROWS", 20)
    assert len(table_of(tmp_path, {"runs": dataset})) == 20
    monkeypatch.setattr(_tables, "MOST_ROWS", 1)
    assert [row["step"] for row in table_of(tmp_path, {"runs": dataset})] == ["0", "1000"] * 2


def test_a_table_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    before = table_of(tmp_path, {"runs": sweep()})
    with pytest.raises(ZeroDivisionError):
        table_of(tmp_path, {"runs": sweep()}, table=lambda data: {"law": 1 / 0})
    assert table_of(tmp_path, {"runs": sweep()}) == before
    assert [path.name for path in tmp_path.iterdir()] == ["a-study.csv"]


def test_derived_numbers_stand_at_their_settings(tmp_path: Path) -> None:
    bounds = [Boundary(1.0, 0.9, 1.1), Boundary(2.0, 1.9, np.nan)]
    derived = {
        "boundary": points({"rate": [0.1, 0.2], "kind": "haar"}, intervals(bounds)),
        "grid": points({"rate": np.array([[0.1], [0.2]]), "dim": [3, 4]}, {"law": np.eye(2)}),
        "theory": points({}, {"critical": 4.5}),
    }
    rows = table_of(tmp_path, {}, table=lambda data: derived)
    names = ("dataset", "rate", "kind", "dim", "metric", "mean")
    assert [tuple(row[name] for name in names) for row in rows] == [
        ("boundary", "0.1", "haar", "", "measured", "1"),
        ("boundary", "0.2", "haar", "", "measured", "2"),
        ("boundary", "0.1", "haar", "", "low", "0.9"),
        ("boundary", "0.2", "haar", "", "low", "1.9"),
        ("boundary", "0.1", "haar", "", "high", "1.1"),
        ("boundary", "0.2", "haar", "", "high", ""),
        ("grid", "0.1", "", "3", "law", "1"),
        ("grid", "0.1", "", "4", "law", "0"),
        ("grid", "0.2", "", "3", "law", "0"),
        ("grid", "0.2", "", "4", "law", "1"),
        ("theory", "", "", "", "critical", "4.5"),
    ]
