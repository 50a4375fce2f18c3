"""README's example runs as it stands, and its links lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from benchmarks.cold_start import README, example


@pytest.mark.slow
def test_the_example_gives_the_stated_result() -> None:
    names: dict = {}
    exec(compile(example(), str(README), "exec"), names)
    dataset = names["dataset"]
    assert dict(dataset.sizes) == {"spread": 10, "learning_rate": 8, "seed": 8, "step": 2}
    median = dataset.spurious_signal.isel(step=-1).median("seed")
    learned, forgotten = (
        median.isel(spread=0, learning_rate=4),
        median.isel(spread=6, learning_rate=4),
    )
    assert (
        abs(float(learned) - 3**0.5) < 0.01
    )  # population dynamics at M = 0 end at |V'UU'V| = sqrt(3)
    assert (
        float(forgotten) < 3**0.5 / 3
    )  # beyond the phase boundary only the floor of the batch noise is left


def test_the_files_that_readme_names_exist() -> None:
    text = README.read_text()
    for path in re.findall(r"\]\((?!http)([^)#]+)\)", text) + re.findall(
        r"`((?:notebooks|benchmarks)/[^` ]+)`", text
    ):
        assert (Path(README.parent) / path).exists(), path


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
