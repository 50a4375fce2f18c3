"""Studies whose packages are not installed: skipped with one clear line, never an error."""

from __future__ import annotations

import importlib.metadata
import json
from pathlib import Path

import pytest

from causal_sgd import studies
from support.shell import call
from support.studies import computed, draw_nothing, one, three_studies, write

shelf, undrawn = pytest.fixture(three_studies), pytest.fixture(draw_nothing)

ABSENT = "no-package-of-this-name"
NEEDS = f"needs {ABSENT}: pip install 'causal_sgd[data]'"


def require(shelf: Path, name: str = "first-one", package: str = ABSENT) -> None:
    write(shelf, name, **{"SPREADS =": f"REQUIRES = {{{package!r}: 'data'}}\nSPREADS ="})


def test_a_study_says_what_it_needs(shelf: Path) -> None:
    assert studies.lacking(studies.load("second-one")) == ""
    require(shelf)
    assert studies.lacking(studies.load("first-one")) == NEEDS
    require(shelf, package="packaging")
    assert studies.lacking(studies.load("first-one")) == ""


def test_all_studies_run_but_for_the_one_whose_package_is_missing(
    shelf: Path, tmp_path: Path, undrawn, capsys
) -> None:
    require(shelf)
    code, out, _ = call("reproduce", "--all", "--quick", "--out", str(tmp_path), capsys=capsys)
    assert code == 0
    assert computed(shelf) == ["second-one", "third-one"]
    assert "3 studies; packages are missing for first-one" in out
    assert f"SKIPPED  first-one: {NEEDS}" in out
    assert "4 of 4 claims hold; 2 findings; 1 of 3 studies skipped" in out
    table = json.loads((tmp_path / "claims.json").read_text(encoding="utf-8"))
    assert table["skipped"] == {"first-one": NEEDS}
    assert table["errors"] == {}
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "<strong>1 was skipped</strong>" in page
    assert "Skipped:" in page
    code, out, _ = call(
        "reproduce", "--all", "--quick", "--json", "--out", str(tmp_path), capsys=capsys
    )
    report = json.loads(out)
    assert [study["skipped"] for study in report["studies"]] == [NEEDS, None, None]
    assert (report["totals"]["skipped"], report["totals"]["errors"]) == (1, 0)


def test_a_study_that_was_named_is_skipped_with_an_exit_code(
    shelf: Path, tmp_path: Path, undrawn, capsys
) -> None:
    require(shelf)
    code, out, err = call("reproduce", "first-one", "--out", str(tmp_path), capsys=capsys)
    assert code == 1
    assert f"SKIPPED  {NEEDS}" in out
    assert "Traceback" not in out + err
    assert not computed(shelf)


def test_saved_results_are_shown_without_the_package(
    shelf: Path, tmp_path: Path, undrawn, monkeypatch: pytest.MonkeyPatch
) -> None:
    require(shelf, package="packaging")
    assert not one(tmp_path).skipped
    distribution = importlib.metadata.distribution

    def without(name: str) -> importlib.metadata.Distribution:
        if name == "packaging":
            raise importlib.metadata.PackageNotFoundError(name)
        return distribution(name)

    monkeypatch.setattr(importlib.metadata, "distribution", without)
    assert studies.lacking(studies.load("first-one"))
    computed(shelf)
    again = one(tmp_path)
    assert again.reused
    assert len(again.verdicts) == 3
    for options in ({"fresh": True}, {"seed": 1}, {"seed": 1, "redraw": True}):
        other = one(tmp_path, **options)
        assert other.skipped, options
        assert other.error is None
    assert not computed(shelf)


def test_results_depend_on_the_version_of_the_package(
    shelf: Path, tmp_path: Path, undrawn, monkeypatch: pytest.MonkeyPatch
) -> None:
    require(shelf, package="packaging")
    one(tmp_path)
    version = importlib.metadata.version
    monkeypatch.setattr(
        importlib.metadata,
        "version",
        lambda name: "999" if name == "packaging" else version(name),
    )
    assert one(tmp_path).outdated == [f"packaging is 999, was {version('packaging')}"]


def test_the_list_says_what_is_needed(shelf: Path, tmp_path: Path, capsys) -> None:
    require(shelf)
    _, out, _ = call("list", "--out", str(tmp_path), capsys=capsys)
    assert NEEDS in out
    _, out, _ = call("list", "first-one", "--out", str(tmp_path), capsys=capsys)
    assert f"needs     {ABSENT} ({NEEDS})" in out
    _, out, _ = call("list", "first-one", "--json", "--out", str(tmp_path), capsys=capsys)
    (study,) = json.loads(out)["studies"]
    assert study["requires"] == {ABSENT: "data"}
    assert study["lacking"] == NEEDS
