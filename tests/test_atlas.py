"""The atlas of the site: a page for every study with what is kept of its results; formulas."""

from __future__ import annotations

import csv
import sys
from pathlib import Path
from types import ModuleType

import pytest

from causal_sgd import studies

DOCS = Path(__file__).parents[1] / "docs"


@pytest.fixture(scope="module")
def keep_results() -> ModuleType:
    return module("keep_results")


def module(name: str) -> ModuleType:
    """A module of `docs/`, which is no package."""
    sys.path.insert(0, str(DOCS))
    try:
        return __import__(name)
    finally:
        sys.path.remove(str(DOCS))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("atlas")
    module("_atlas").atlas(folder)
    return folder


@pytest.fixture(scope="module")
def pages(folder: Path) -> dict[str, str]:
    return {page.stem: page.read_text("utf-8") for page in folder.glob("*.md")}


def test_what_is_kept_matches_the_registered_claims(keep_results: ModuleType) -> None:
    kept = keep_results.kept()
    assert kept
    assert set(kept) <= set(studies.NAMES)
    for name, entry in kept.items():
        assert set(entry["measured"]) == set(studies.load(name).CLAIMS), (
            f"the claims of {name} were renamed: repeat `python docs/keep_results.py`"
        )
        assert entry["seconds"] > 0
        assert all(data["seeds"] > 0 and data["runs"] > 0 for data in entry["data"])


def test_what_is_kept_has_a_small_figure_each(keep_results: ModuleType) -> None:
    images = {path.stem: path.stat().st_size for path in keep_results.KEPT.glob("*.webp")}
    assert set(images) == set(keep_results.kept())
    assert max(images.values()) <= keep_results.LARGEST
    assert sum(images.values()) < 3_000_000


def test_a_renamed_claim_has_no_verdict(keep_results: ModuleType) -> None:
    name, entry = next(iter(keep_results.kept().items()))
    assert keep_results.measured(entry, name)
    short, *others = entry["measured"]
    renamed = {"renamed": entry["measured"][short]} | {
        other: entry["measured"][other] for other in others
    }
    assert keep_results.measured(entry | {"measured": renamed}, name) == {}


def test_every_study_has_a_page(pages: dict[str, str], keep_results: ModuleType) -> None:
    kept = keep_results.kept()
    for name in studies.NAMES:
        page = pages[name]
        assert f"causal-sgd reproduce {name}" in page
        assert "{py:obj}`" in page, f"{name} links to no part"
        if name in kept:
            judged = sum(claim.judged for claim in studies.load(name).CLAIMS.values())
            assert f"{{figure}} {name}.webp" in page
            assert page.count("[✓ holds]") + page.count("[✗ fails]") == judged
        else:
            assert "No results of this study are kept" in page


def test_measured_values_are_linked_as_tables(
    folder: Path, pages: dict[str, str], keep_results: ModuleType
) -> None:
    everything = {}
    for name, entry in keep_results.kept().items():
        file = f"{name}-claims.csv"
        assert f"{{download}}`{file} <{file}>`" in pages[name]
        assert f"`figures/{name}.csv`" in pages[name]
        rows = list(csv.DictReader((folder / file).open(encoding="utf-8")))
        measured = {row["claim"]: float(row["measured"]) for row in rows}
        expected = {short: float(value) for short, value in entry["measured"].items()}
        assert measured == pytest.approx(expected, rel=0, nan_ok=True)
        everything |= {(name, short): value for short, value in measured.items()}
    rows = list(csv.DictReader((folder / "claims.csv").open(encoding="utf-8")))
    whole = {(row["study"], row["claim"]): float(row["measured"]) for row in rows}
    assert whole == pytest.approx(everything, rel=0, nan_ok=True)
    assert "{download}`claims.csv <claims.csv>`" in pages["index"]


def test_the_index_shows_every_study_under_its_question(pages: dict[str, str]) -> None:
    parts = pages["index"].split("\n## ")
    sections = {part.partition("\n")[0]: part for part in parts}
    for question, names in studies.QUESTIONS.items():
        for name in names:
            assert f"**[{name}]({name}.md)**" in sections[question]


def test_a_page_names_the_parts_that_its_study_uses() -> None:
    parts = module("_parts").parts_of("federated")
    assert "causal_sgd.theory.lyapunov_federated" in parts["theory"]
    assert "causal_sgd.algorithms.scaffold" in parts["algorithms"]  # by name only
    assert "causal_sgd.sensing.metrics.spurious_signal" in parts["sensing.metrics"]


@pytest.mark.parametrize(
    ("tex", "expected"),
    [
        (r"\frac12 x", r"\frac{1}{2} x"),
        (r"\tfrac12\log", r"\tfrac{1}{2}\log"),
        (r"\frac uv", r"\frac uv"),
        (r"x^12", r"x^{1}2"),
        (r"10^{-12}", r"10^{-12}"),
    ],
)
def test_a_digit_is_an_argument_as_in_tex(tex: str, expected: str) -> None:
    assert module("_mathml").spelled_out(tex) == expected
