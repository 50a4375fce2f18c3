"""Time the benchmarks of two checkouts in turns on one machine, and print medians and ratios.

    python benchmarks/side_by_side.py OLD_TREE NEW_TREE --repeats 5

In every round each benchmark runs once per checkout, in alternating order, each in its own process
with PYTHONPATH set to its checkout. A row's ratio is the median over the rounds of new over old, so
a slow minute of the machine affects both. Rows of the two outputs pair by position, since names may
differ between versions; different numbers of rows are an error.

The benchmarks are `roofline.py` (time of a step), `versus.py --works c` (a step, and the phase
diagram), `sweep_overhead.py` and `cold_start.py`. Smaller numbers are better in all of them.
"""

from __future__ import annotations

import argparse
import os
import re
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

Table = list[dict[str, str]]


class Benchmark(NamedTuple):
    """A script, its arguments, and where its output has the numbers."""

    script: str
    arguments: tuple[str, ...]
    column: str  # matches the header of the timed column
    unit: str
    name: str | None = None  # only rows whose first cell begins with this


BENCHMARKS: Mapping[str, Benchmark] = {
    "roofline": Benchmark(
        "roofline.py",
        ("--repeats", "3", "--low-rank-dims", "1000", "--ranks", "20"),
        "step, us a run",
        "us",
        "exact|low-rank",  # laws that earlier versions have, too
    ),
    "versus": Benchmark(
        "versus.py",
        ("--repeats", "1", "--works", "c", "--peer-steps", "2"),
        "us a step and run|seconds",
        "us; the diagram s",
        r"\d+$|causal_sgd",
    ),
    "sweep_overhead": Benchmark("sweep_overhead.py", ("--repeats", "3"), "seconds", "s"),
    "cold_start": Benchmark("cold_start.py", ("--repeats", "1"), "s$", "s"),
}


def tables(text: str) -> list[Table]:
    """The Markdown tables of a text, each a list of rows by column name."""
    parsed = []
    for block in re.findall(r"(?:^\|.*\|$\n?)+", text, re.MULTILINE):
        head, _, *rows = (
            [cell.strip() for cell in line.split("|")[1:-1]] for line in block.splitlines()
        )
        parsed.append([dict(zip(head, row, strict=True)) for row in rows])
    return parsed


def timings(benchmark: Benchmark, text: str) -> dict[str, float]:
    """The timed numbers in a benchmark's output, by row.

    Raises:
        ValueError: If the output has none.
    """
    numbers: dict[str, float] = {}
    for table in tables(text):
        header = list(table[0])
        column = next((name for name in header if re.match(benchmark.column, name)), None)
        if column is None:
            continue
        for cells in table:
            labels = [cells[name] for name in header[: header.index(column)]]
            if benchmark.name is None or re.match(benchmark.name, labels[0]):
                label = ", ".join(labels).partition(" (the first call")[0]
                numbers[label] = float(cells[column].replace(",", ""))
    if not numbers:
        raise ValueError(f"{benchmark.script} printed no numbers:\n{text}")
    return numbers


def measure(benchmark: Benchmark, tree: Path) -> dict[str, float]:
    """Run a benchmark of a checkout in a process of its own.

    Raises:
        ValueError: If it fails, with what it wrote to stderr.
    """
    script = tree / "benchmarks" / benchmark.script
    completed = subprocess.run(
        [sys.executable, script, *benchmark.arguments],
        capture_output=True,
        text=True,
        cwd=tree,
        env=os.environ | {"PYTHONPATH": str(tree)},
    )
    if completed.returncode:
        raise ValueError(f"{script} failed with {completed.returncode}:\n{completed.stderr}")
    return timings(benchmark, completed.stdout)


class Row(NamedTuple):
    """One number of a benchmark: one sample per round and checkout."""

    name: str
    old: list[float]
    new: list[float]

    def text(self, benchmark: str, unit: str) -> str:
        """A line of the table: medians, the median ratio and its range."""
        ratios = [new / old for old, new in zip(self.old, self.new, strict=True)]
        medians = f"{statistics.median(self.old):.4g} | {statistics.median(self.new):.4g}"
        spread = f"{min(ratios):.3f} to {max(ratios):.3f}"
        ratio = statistics.median(ratios)
        return f"| {benchmark} | {self.name} | {unit} | {medians} | {ratio:.3f} | {spread} |"


def alternate(
    benchmark: Benchmark,
    trees: Sequence[Path],
    repeats: int,
    run: Callable[[Benchmark, Path], dict[str, float]] = measure,
) -> list[Row]:
    """Measure a benchmark of both checkouts in turns; odd rounds begin with the new one.

    Raises:
        ValueError: If the outputs of the checkouts have different numbers of rows.
    """
    samples: list[list[dict[str, float]]] = [[], []]
    for repeat in range(repeats):
        for index in (0, 1) if repeat % 2 == 0 else (1, 0):
            samples[index].append(run(benchmark, trees[index]))
    lengths = {len(numbers) for side in samples for numbers in side}
    if len(lengths) > 1:
        raise ValueError(f"{benchmark.script} of the checkouts prints {sorted(lengths)} rows")
    columns = [zip(*(numbers.values() for numbers in side), strict=True) for side in samples]
    names = samples[1][0]
    return [Row(name, list(old), list(new)) for name, old, new in zip(names, *columns, strict=True)]


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("old", type=Path, metavar="OLD_TREE")
    parser.add_argument("new", type=Path, metavar="NEW_TREE")
    parser.add_argument("--repeats", type=int, default=5, help="rounds")
    parser.add_argument("--only", nargs="+", choices=BENCHMARKS, default=list(BENCHMARKS))
    options = parser.parse_args(arguments)
    if options.repeats < 1:
        parser.error(f"--repeats must be at least 1, got {options.repeats}")
    trees = [options.old.resolve(), options.new.resolve()]
    for tree in trees:
        if not (tree / "benchmarks").is_dir() or not (tree / "causal_sgd").is_dir():
            parser.error(f"{tree} must be a checkout with causal_sgd/ and benchmarks/")
    print(f"old: {trees[0]}\nnew: {trees[1]}\n{options.repeats} rounds\n")
    print("| benchmark | row | unit | old | new | new / old | least to most |")
    print("|---|---|---|---|---|---|---|")
    worst: list[tuple[float, str]] = []
    for name in options.only:
        benchmark = BENCHMARKS[name]
        for each in alternate(benchmark, trees, options.repeats):
            print(each.text(name, benchmark.unit), flush=True)
            ratio = statistics.median(b / a for a, b in zip(each.old, each.new, strict=True))
            worst.append((ratio, f"{name}, {each.name}"))
    ratio, name = max(worst)
    print(f"\nlargest ratio: {ratio:.3f} ({name})")


if __name__ == "__main__":
    main()
