"""What states the version of a release, and its day, states the same one."""

from __future__ import annotations

import datetime
import re
from pathlib import Path

import causal_sgd

ROOT = Path(__file__).parent.parent


def test_package_changelog_and_citation_are_of_one_release() -> None:
    """The newest numbered heading of the changelog, CITATION.cff and `__version__` agree."""
    changelog = (ROOT / "CHANGELOG.md").read_text("utf-8")
    citation = (ROOT / "CITATION.cff").read_text("utf-8")
    releases = re.findall(r"^## (\d+\.\d+\.\d+) \((.+)\)$", changelog, re.MULTILINE)
    cited = re.search(r"^version: (.+)\ndate-released: (.+)$", citation, re.MULTILINE)
    assert cited is not None
    assert releases[0] == cited.groups()
    assert releases[0][0] == causal_sgd.__version__
    days = [datetime.date.fromisoformat(day) for _, day in releases]
    assert days == sorted(days, reverse=True)
