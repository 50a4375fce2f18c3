"""The table of README: what the tables of benchmarks/README.md say, in four rows.

`versus.py`, `unit_tests.py` and `networks.py` with `--write .` put their tables into
benchmarks/README.md, each between two comments, and then call this script. Nothing is measured
here. `python benchmarks/summary.py --write .` does the same for tables that are there already.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path

PLACE = "benchmarks/summary.py"
DIAGRAM, CHAIN = "versus.py, all works", "versus.py, the chain"
UNIT_TESTS, NETWORKS = "unit_tests.py", "networks.py"
Row = dict[str, str]
"""A row of a Markdown table by the names of its columns."""


def write(path: Path, name: str, text: str) -> None:
    """Replace the text between the comments of this name in a Markdown file."""
    document = path.read_text("utf-8")
    before, _, after = _parts(document, name, path)
    path.write_text(f"{before}\n{text}\n{after}", "utf-8")


def _parts(document: str, name: str, path: Path) -> tuple[str, str, str]:
    """What is before, between and after the comments of this name."""
    begin, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
    if document.count(begin + "\n") != 1 or document.count("\n" + end) != 1:
        raise ValueError(f"{path} must have the lines {begin!r} and {end!r} once each")
    before, rest = document.split(begin + "\n")
    between, after = rest.split("\n" + end)
    return before + begin, between, end + after


def rows_of(path: Path, name: str) -> list[Row]:
    """The rows of the first table between the comments of this name."""
    _, between, _ = _parts(path.read_text("utf-8"), name, path)
    lines = [line for line in between.split("\n\n")[0].splitlines() if line.startswith("|")]
    head, _, *rows = ([cell.strip() for cell in line.split("|")[1:-1]] for line in lines)
    return [dict(zip(head, row, strict=True)) for row in rows]


def one_row(row: Row) -> str:
    """A Markdown table of one row."""
    return f"| {' | '.join(row)} |\n{'|---' * len(row)}|\n| {' | '.join(row.values())} |"


def table(path: Path) -> str:
    """README's table, from the tables of benchmarks/README.md.

    Args:
        path: of benchmarks/README.md.

    Raises:
        ValueError: if one of them is not between its two comments.
    """
    lines = ["| work | here | the fastest peer | times as long |", "|---|---|---|---|"]
    entries = (
        _diagram(rows_of(path, DIAGRAM)),
        _chain(rows_of(path, CHAIN)),
        _unit_tests(rows_of(path, UNIT_TESTS)),
        _network(rows_of(path, NETWORKS)),
    )
    return "\n".join([*lines, *(f"| {' | '.join(entry)} |" for entry in entries)])


Entry = tuple[str, str, str, str]
"""The work, the time of the engine, the fastest peer, and how many times as long that takes."""


def _number(text: str) -> float:
    return float(text.replace(",", ""))


def _diagram(rows: list[Row]) -> Entry:
    """The column of the diagram, whose cells are `seconds (times the engine)`."""
    (column,) = (name for name in rows[0] if "diagram" in name)
    times = {
        row[""]: match[1]
        for row in rows
        if (match := re.search(r"\((.+)\)", row[column])) is not None
    }
    peer = min(times, key=lambda name: _number(times[name]))
    (ours,) = (row[column] for row in rows if row[""] == "causal_sgd")
    work = "phase diagram, 5120 runs of 600 steps, d = 50"
    return work, f"{ours} s", peer, times[peer]


def _chain(rows: list[Row]) -> Entry:
    ours, *peers = rows
    peer = min(peers, key=lambda row: _number(row["times the engine"]))
    work = "the same at d = 100,000, in order parameters"
    return work, f"{ours['seconds']} s", peer["what"], peer["times the engine"]


def _unit_tests(rows: list[Row]) -> Entry:
    (row,) = rows
    work = f"invariance unit tests, {row['runs']} runs of 10,000 steps"
    return work, f"{row['s']} s", "PyTorch, job after job", row["runs in a job's time"]


def _network(rows: list[Row]) -> Entry:
    ours, *peers = rows
    kind, seconds, *_ = ours
    peer = min(peers, key=lambda row: _number(row["times the engine"]))
    work = f"gated network on digits, {seconds.removeprefix('s, ')}"
    return work, f"{ours[seconds]} s", peer[kind], peer["times the engine"]


def summarise(folder: Path) -> str:
    """Write README's table into the README of a repository's folder, and return it."""
    text = table(folder / "benchmarks" / "README.md")
    write(folder / "README.md", PLACE, text)
    return text


def main() -> None:
    """Print the table, or write it, too."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "--write", type=Path, metavar="FOLDER", help="also write the table into README.md"
    )
    options = parser.parse_args()
    folder = options.write or Path(__file__).parents[1]
    print(summarise(folder) if options.write else table(folder / "benchmarks" / "README.md"))


if __name__ == "__main__":
    main()
