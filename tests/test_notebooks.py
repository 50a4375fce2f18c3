"""The notebooks as they are stored: with results, an introduction, an end, and links that lead on.

`pytest -m slow notebooks` runs them; here nothing runs.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
GENERATED = ROOT / "docs" / "atlas"  # a folder that docs/conf.py writes


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.name)
def path(request: pytest.FixtureRequest) -> Path:
    return request.param


def cells(path: Path, kind: str) -> list[dict]:
    content = json.loads(path.read_text("utf-8"))["cells"]
    return [cell for cell in content if cell["cell_type"] == kind]


def test_a_notebook_says_what_it_teaches_how_long_it_takes_and_where_to_go_next(path: Path) -> None:
    prose = ["".join(cell["source"]) for cell in cells(path, "markdown")]
    title, about = prose[0].split("\n\n")[:2]
    assert title.startswith("# ")
    assert about.startswith("You ")
    assert re.search(r"It takes about [a-z0-9 ]*(second|minute)s? on two CPU cores", about)
    assert "## Where to go next\n" in prose[-1]


def test_a_notebook_was_stored_after_one_run_from_top_to_bottom(path: Path) -> None:
    """All code cells have run, in order, in one kernel, and none shows an error or a warning."""
    code = cells(path, "code")
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    for output in (output for cell in code for output in cell["outputs"]):
        assert output["output_type"] != "error"
        assert output.get("name") != "stderr", output


def test_links_of_a_notebook_lead_to_files(path: Path) -> None:
    prose = "\n".join("".join(cell["source"]) for cell in cells(path, "markdown"))
    links = re.findall(r"\]\((?!http)([^)#]+)(?:#[^)]*)?\)", prose)
    assert links
    for link in links:
        target = (path.parent / link).resolve()
        assert target.exists() or target.is_relative_to(GENERATED), link
