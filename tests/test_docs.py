"""The code in the documentation runs as it stands, page by page from top to bottom."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[1] / "docs"
PAGES = {
    page.relative_to(DOCS).as_posix(): page.read_text("utf-8")
    for page in sorted(DOCS.rglob("*.md"))
}
WITH_CODE = [name for name, text in PAGES.items() if "```python" in text]
QUICK = ("system.md", "extending/samplers.md")  # every page compiles programs of its own


@pytest.mark.parametrize(
    "name",
    [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in WITH_CODE],
)
def test_the_code_of_a_page_runs(name: str) -> None:
    names: dict = {}
    for block in re.findall(r"(?s)```python\n(.*?)```", PAGES[name]):
        exec(compile(block, name, "exec"), names)


def test_the_pages_that_pages_link_to_exist() -> None:
    for name, text in PAGES.items():
        for link in re.findall(r"\]\((?!http)([^)#]+)\)", text):
            made = "reference/" in link or link.endswith("atlas.md")  # by conf.py
            assert made or (DOCS / name).parent.joinpath(link).exists(), f"{name} links to {link}"
