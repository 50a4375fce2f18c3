"""Time what a large store costs beyond its runs: to fill it, to ask again, to append, read, verify.

The cell simulates nothing: a run has four metrics of 64 frames, about 1 KB, that follow from its
key and its axis values. A store of a grid of two axes and seeds, equally many of each, is filled
once for each tile. Then the script times, in the same process,

- a call with nothing to do;
- one metric as a whole;
- a small sweep of 2 new runs into the store, and the same in memory and into a new store;
- one more seed at every point of the grid;
- the verification of all checksums (`causal-sgd status --verify`);
- the small sweep into a store of its own after many such requests, and into a new one.

`--only` selects some. Files that were just written are in the page cache. Figures are medians; what
takes longer than `--patience` is not repeated.

Run `python benchmarks/stores.py`; by default 10^6 runs, about 1 GB a store. The script uses the
public interface only: with PYTHONPATH set to a checkout of another revision it measures that
revision. In formats 1 and 2, tiles of 16 fill hundreds of thousands of small files.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import causal_sgd as cs
from causal_sgd.sweeps.store import Store, open_results
from causal_sgd.types import Key, Trace

FRAMES = 64
MEASURED = ("nothing", "metric", "append", "seed", "verify", "requests")
ROWS: dict[str, tuple[str, float | None]] = {
    "files": ("files", None),
    "fill": ("the sweep that fills it", None),
    "nothing": ("a call with nothing to do", 0.3),
    "metric": ("one metric as a whole", 1.5),
    "append": ("2 new runs", None),
    "append, memory": ("the same in memory", None),
    "append, new": ("the same into a new store", None),
    "append - memory": ("2 new runs, beyond the same in memory", 0.3),
    "append - new": ("2 new runs, beyond the same into a new store", None),
    "seed": ("one more seed of every point", None),
    "verify": ("verification", 4.0),
    "requests": ("2 new runs after {requests} requests", None),
    "requests, new": ("the same into a new store", None),
    "requests - new": ("2 new runs after {requests} requests, beyond a new store", None),
}
"""What the table shows: a label and the goal for 10^6 runs, in seconds."""


def cell(key: Key, *, first: Any, second: Any) -> Trace:
    """A run that costs nothing, with results that differ between runs, metrics and frames."""
    draw = jax.random.uniform(key)
    steps = jnp.arange(FRAMES, dtype=jnp.int32)
    metrics = {f"metric{index}": draw + first * steps + index * second for index in range(4)}
    return Trace(steps, metrics, jnp.int32(-1))


class Bench:
    """The measurements of stores with one tile, in an empty folder."""

    def __init__(self, folder: Path, tile: int, repeats: int, patience: float) -> None:
        """Compile the program, and import what stores need."""
        self.folder, self.tile, self.repeats, self.patience = folder, tile, repeats, patience
        self.figures: dict[str, float] = {}
        self.stores = self.points = 0
        self.add_runs(None)
        self.add_runs(self.new_store())

    def new_store(self) -> Path:
        """The path of one more store."""
        self.stores += 1
        return self.folder / f"{self.stores}.zarr"

    def sweep(self, axes: dict[str, list[float]], seeds: Any, store: Path | None) -> None:
        """Sweep in memory or in a store."""
        cs.sweep(cell, axes=axes, seeds=seeds, tile=self.tile, store=store, progress=False)

    def add_runs(self, store: Path | None) -> None:
        """Sweep 2 runs that no other sweep has."""
        self.points += 1
        self.sweep({"first": [-float(self.points)], "second": [-1.0, -2.0]}, 1, store)

    def keep(self, name: str, figure: float) -> None:
        """Record a figure and show it at once."""
        self.figures[name] = figure
        print(f"tile {self.tile}, {name}: {figure:.3g}", file=sys.stderr, flush=True)

    def time(self, **actions: Callable[[], object]) -> None:
        """Keep the medians of the seconds of some actions, timed in turns, and of differences.

        Args:
            actions: the first is compared with the others, whose figures have its name, too.
        """
        turns: list[list[float]] = []
        while len(turns) < self.repeats and sum(map(sum, turns)) < self.patience:
            turns.append([seconds(action) for action in actions.values()])
        name, *others = actions
        self.keep(name, statistics.median(turn[0] for turn in turns))
        for place, other in enumerate(others, 1):
            self.keep(f"{name}, {other}", statistics.median(turn[place] for turn in turns))
            beyond = statistics.median(turn[0] - turn[place] for turn in turns)
            self.keep(f"{name} - {other}", beyond)

    def measure(self, side: int, requests: int, only: Sequence[str]) -> None:
        """Fill a store with a grid of `side` values and seeds, and time what is selected."""
        path, many = self.folder / "grid.zarr", self.folder / "many.zarr"
        values = [float(index) for index in range(side)]
        grid = {"first": values, "second": values}
        self.keep("fill", seconds(lambda: self.sweep(grid, side, path)))
        self.keep("files", sum(len(names) for _, _, names in os.walk(path)))
        seeds = iter(range(side, 10**9))
        if "nothing" in only:
            self.time(nothing=lambda: self.sweep(grid, side, path))
        if "metric" in only:
            self.time(metric=lambda: open_results(path)["metric0"].load())
        if "append" in only:
            self.time(
                append=lambda: self.add_runs(path),
                memory=lambda: self.add_runs(None),
                new=lambda: self.add_runs(self.new_store()),
            )
        if "seed" in only:
            self.time(seed=lambda: self.sweep(grid, [next(seeds)], path))
        if "verify" in only:
            self.time(verify=lambda: verify(path))
        if "requests" in only:
            for _ in range(requests):
                self.add_runs(many)
            self.time(
                requests=lambda: self.add_runs(many), new=lambda: self.add_runs(self.new_store())
            )


def seconds(action: Callable[[], object]) -> float:
    """The time of one call."""
    begin = time.perf_counter()
    action()
    return time.perf_counter() - begin


def verify(path: Path) -> None:
    """Verify a store.

    Raises:
        RuntimeError: if it is damaged.
    """
    if faults := Store(path).faults():
        raise RuntimeError(f"{path} is damaged: {next(iter(faults.values()))}")


def table(columns: dict[int, dict[str, float]], requests: int) -> str:
    """The figures of each tile as Markdown."""
    head = ["seconds", *(f"tile {tile}" for tile in columns), "goal at 10^6 runs"]
    lines = [head, ["---"] * len(head)]
    for name, (label, goal) in ROWS.items():
        figures = [figures[name] for figures in columns.values() if name in figures]
        if figures:
            shown = [f"{each:,}" if name == "files" else f"{each:.3g}" for each in figures]
            aim = "" if goal is None else f"{goal:g}"
            lines.append([label.format(requests=requests), *shown, aim])
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--runs", type=int, default=10**6, help="of the grid, rounded to a cube")
    parser.add_argument("--tiles", type=int, nargs="+", default=[16, 1024])
    parser.add_argument("--requests", type=int, default=300, help="before the last measurement")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--patience", type=float, default=10, help="no repeats after these seconds")
    parser.add_argument("--only", nargs="+", choices=MEASURED, default=MEASURED)
    parser.add_argument("--folder", type=Path, help="where the stores are made, and removed again")
    options = parser.parse_args(arguments)
    for name in ("runs", "requests", "repeats", "tiles"):
        least = np.min(getattr(options, name))
        if least < 1:
            parser.error(f"--{name} must be at least 1, got {least}")
    if options.patience <= 0:
        parser.error(f"--patience must be above 0, got {options.patience}")
    if options.folder is not None and not options.folder.is_dir():
        parser.error(f"--folder must be a folder that exists, got {options.folder}")
    cores = cs.use_cpu_cores()
    side = round(np.cbrt(options.runs))
    columns: dict[int, dict[str, float]] = {}
    for tile in options.tiles:
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            bench = Bench(Path(folder), tile, options.repeats, options.patience)
            bench.measure(side, options.requests, options.only)
            columns[tile] = bench.figures
    print(f"{side**3:,} runs, {cores} devices, load {os.getloadavg()[0]:.1f}, ", end="")
    print(f"jax {jax.__version__}; medians of up to {options.repeats}\n")
    print(table(columns, options.requests))


if __name__ == "__main__":
    main()
