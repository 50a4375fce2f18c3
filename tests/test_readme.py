"""README fits its limits, its code and commands run, and what it says agrees with its sources."""

from __future__ import annotations

import html
import importlib
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from benchmarks.cold_start import README, example
from causal_sgd import studies
from support.markdown import broken, commands
from support.shell import call, words

ROOT = README.parent
TEXT = README.read_text("utf-8")
BENCHMARKS = ROOT / "benchmarks" / "README.md"


def test_readme_is_short_and_begins_with_what_a_visitor_tries() -> None:
    lines = TEXT.splitlines()
    assert len(lines) <= 200
    assert max(map(len, lines)) <= 100
    starts = ("# causal", "**Sim", "<img", "*HeteroSGD", "**The question", "    pip", "```python")
    places = [
        next(place for place, line in enumerate(lines) if line.startswith(start))
        for start in starts
    ]
    assert places == sorted(places)
    assert places[-1] < 30, "on one screen"
    assert len(example().splitlines()) <= 10


def test_the_first_pages_of_the_site_agree_with_readme() -> None:
    start, index = (
        " ".join((ROOT / "docs" / name).read_text("utf-8").split())
        for name in ("start.md", "index.md")
    )
    result = re.search(r"```\n\n((?:    .*\n)+)", TEXT)
    sentence, question = re.findall(
        r"(?m)^(\*\*Sim(?:.+\n)+)|^\*\*The question\.\*\* ((?:.+\n)+)", TEXT
    )
    assert result is not None
    assert " ".join(example().split()) in start
    assert " ".join(result[1].split()) in start
    assert " ".join(sentence[0].split()) in index
    assert " ".join(question[1].split()) in index
    for page in (start, index):
        assert "pip install -e ." in page


def test_two_commands_set_up_run_and_test() -> None:
    lines = [line.split("#")[0].strip() for line in re.findall(r"(?m)^    (pip .*)$", TEXT)]
    assert lines == [
        "pip install -e . && causal-sgd reproduce",
        "pip install -e '.[test]' && pytest",
    ]
    script = ROOT / ".ci" / "run"
    if script.exists():  # the sdist has none
        assert lines[1] in script.read_text("utf-8").splitlines()


@pytest.mark.slow
def test_the_example_prints_the_stated_table(capsys) -> None:
    names: dict = {}
    exec(compile(example(), str(README), "exec"), names)
    assert dict(names["runs"].sizes) == {"variant": 2, "spread": 5, "seed": 64, "step": 2}
    stated = re.search(r"(?m)^    spread .*\n    variant\n((?:    \w+SGD .*\n)+)", TEXT)
    assert stated is not None
    printed = capsys.readouterr().out.splitlines()[-2:]
    for shown, line in zip(stated[1].splitlines(), printed, strict=True):
        (name, *values), (method, *numbers) = shown.split(), line.split()
        assert name == method
        np.testing.assert_allclose(np.array(numbers, float), np.array(values, float), atol=0.02)


@pytest.mark.parametrize(
    "page", [README, BENCHMARKS, ROOT / "CHANGELOG.md"], ids=["README", "benchmarks", "changelog"]
)
def test_links_lead_somewhere(page: Path) -> None:
    assert not list(broken(page))


def test_the_files_that_readme_names_exist() -> None:
    for path in re.findall(r"`(?:python )?((?:notebooks|benchmarks|docs)/[\w./]*)", TEXT):
        assert (ROOT / path).exists(), path


def test_findings_are_in_the_words_of_their_studies() -> None:
    linked = re.findall(r'<a href="(\S+)"><code>(\S+)</code></a>:\n(.+)', TEXT)
    linked += [
        (path, name, text)
        for name, path, text in re.findall(r"- \[`(\S+)`\]\((causal_sgd/\S+)\):\n  (.+)", TEXT)
    ]
    assert len(linked) == TEXT.count("causal_sgd/studies/") >= 9
    for path, name, text in linked:
        study = studies.load(name)
        assert html.unescape(text) == studies.title(study)
        assert (ROOT / path).samefile(str(study.__file__))
    systems = {studies.system_of(name) for _, name, _ in linked}
    assert systems == {"sensing", "supervised"}


def test_the_benchmarks_of_readme_are_those_of_the_benchmarks_page() -> None:
    summary = importlib.import_module("benchmarks.summary")
    shown = summary.rows_of(README, summary.PLACE)
    assert summary.table(BENCHMARKS) in TEXT, "run: python benchmarks/summary.py --write ."
    assert len(shown) == 4
    assert all(float(row["times as long"].replace(",", "")) > 1 for row in shown)


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """A table of inputs, a label and environments, as README's commands ask for."""
    rng = np.random.default_rng(0)
    environment = np.repeat(["a", "b"], 50)
    cause = rng.normal(size=100)
    y = cause + rng.normal(size=100)
    columns = {"cause": cause, "effect": y * np.where(environment == "a", 2, -0.5), "y": y}
    path = tmp_path / "table.csv"
    pd.DataFrame(columns | {"environment": environment}).to_csv(path, index=False)
    return path


SMALLER = {"phase": "--steps 5 --seeds 2", "reproduce": "--quick"}
"""Flags that make a command small; the last of a flag that is given twice counts."""
GROUPS = ("table.csv", "diagram", "--world", "reproduce", "")
"""What commands have in common that are run in turn; the last group has all others."""


def test_readme_shows_a_command_of_every_kind() -> None:
    verbs = {line.split()[1] for line in commands(TEXT)}
    assert verbs >= {"list", "run", "phase", "status", "resume", "export", "explore", "reproduce"}
    assert "report" in verbs


@pytest.mark.slow
@pytest.mark.parametrize("group", GROUPS)
def test_the_commands_of_readme_run(group: str, table: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(table.parent)
    lines = [
        line for line in commands(TEXT) if group == next(name for name in GROUPS if name in line)
    ]
    assert lines
    for line in lines:
        smaller = words(SMALLER.get(line.split()[1], ""))
        code, _, err = call(*words(line)[1:], *smaller, capsys=capsys)
        assert code == 0, f"{line}: {err}"
    made = {path.name for path in table.parent.iterdir()}
    if group == "diagram":
        assert made >= {"diagram.png", "diagram.zarr", "diagram.csv", "diagram.html"}
    if group == "reproduce":
        assert (table.parent / "figures" / "report.html").exists()


def test_the_paper_is_cited_alike_for_tools_and_for_bibtex() -> None:
    citation = (README.parent / "CITATION.cff").read_text()
    preferred = citation.partition("preferred-citation:")[2]
    page = (README.parent / "docs" / "start.md").read_text()
    for field, entry in (("title", r'title: "(.+)"'), ("url", r"url: (\S+)")):
        match = re.search(entry, preferred)
        assert match is not None, field
        assert f"{{{match[1]}}}" in page
    families = re.findall(r"family-names: (\w+)\n +given-names: (\w+)", preferred)
    assert " and ".join(f"{last}, {first}" for last, first in families) in page
