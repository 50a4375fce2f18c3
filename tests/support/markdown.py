"""What tests ask of Markdown pages: code, commands, links and headings."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path


def blocks(text: str) -> list[str]:
    """The Python blocks of a page."""
    return re.findall(r"(?s)```python\n(.*?)```", text)


def save_files(text: str, folder: Path) -> None:
    """Save the blocks of a page that begin with the name of a file, such as `# my_study.py`."""
    for block in blocks(text):
        if found := re.match(r"# (\w+\.py)\n", block):
            (folder / found[1]).write_text(block, "utf-8")


def commands(text: str) -> list[str]:
    """The lines of indented blocks that call the program, continued lines joined."""
    joined = text.replace("\\\n", " ")
    return [
        re.sub(r"  +#.*", "", line) for line in re.findall(r"(?m)^    (causal-sgd .*)$", joined)
    ]


def anchors(text: str) -> set[str]:
    """The headings of a page as GitHub and the site link to them."""
    prose = re.sub(r"(?s)```.*?```", "", text)
    titles = re.findall(r"(?m)^#+ (.+)$", prose)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def links(text: str) -> set[str]:
    """What a page links to or shows, other than addresses of the web."""
    prose = re.sub(r"(?s)```.*?```", "", text)
    found = re.findall(r"\]\(([^)\s]+)\)", prose)
    found += re.findall(r'(?:href|src)="([^"]+)"', prose)
    return {link for link in found if not re.match(r"[a-z]+:", link)}


def broken(page: Path, generated: tuple[Path, ...] = ()) -> Iterator[str]:
    """The links of a page that lead nowhere: to no file, or to no heading of it.

    Args:
        page: a file.
        generated: folders that the site writes; links into them are not followed.
    """
    for link in sorted(links(page.read_text("utf-8"))):
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if any(folder in target.parents for folder in generated):
            continue
        if not target.exists() or (anchor and anchor not in anchors(target.read_text("utf-8"))):
            yield link
