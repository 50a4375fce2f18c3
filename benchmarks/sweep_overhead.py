"""Time the overhead of a sweep over its compiled program: in memory, in a store, on one device.

The bare program runs over the same tiles, fed by one host thread per device; its results are copied
to the host and dropped. Everything is compiled beforehand. The variants run in turns in one
process, and the ratios are medians over the repeats.

Run `python benchmarks/sweep_overhead.py`; by default a phase diagram of 640 runs of 600 steps at
d = 50.
"""

from __future__ import annotations

import argparse
import itertools
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import numpy as np

import causal_sgd as cs
from causal_sgd.experiment import Experiment
from causal_sgd.sweeps._grid import Grid
from causal_sgd.sweeps._keys import root_key
from causal_sgd.sweeps._programs import Program

SEEDS = 8
AXES = {"spread": np.linspace(0, 9, 10), "learning_rate": np.geomspace(0.02, 0.2, 8)}


def bare(cell: Any, tile: int) -> Callable[[], None]:
    """Run all tiles of the sweep through the compiled program on all devices, and nothing else."""
    grid, root = Grid.make(cell, AXES, SEEDS), root_key(0)
    columns = grid.runs(np.arange(grid.size))
    program = Program.make(cell, grid.names, [column.dtype for column in columns[1:]], root)
    starts = range(0, grid.size, tile)
    last = grid.size - 1
    tiles = [
        tuple(column[np.minimum(np.arange(i, i + tile), last)] for column in columns)
        for i in starts
    ]
    compiled = program.compile(tiles[0], jax.local_devices())

    def run() -> None:
        shared = iter(tiles)

        def work(call: Callable[..., Any]) -> None:
            for tile in shared:
                jax.tree.map(np.asarray, call(tile))

        with ThreadPoolExecutor(len(compiled)) as pool:
            list(pool.map(work, compiled.values()))

    return run


def main() -> None:
    """Time the variants in turns and print the table."""
    parser = argparse.ArgumentParser(description="Time a sweep beyond its compiled program.")
    parser.add_argument("--dim", type=int, default=50)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    if options.repeats < 1:
        parser.error(f"--repeats must be at least 1, got {options.repeats}")
    cores = cs.use_cpu_cores()
    cell = Experiment(dim=options.dim, steps=options.steps, batch_size=4000).cell()
    sweep = {"axes": AXES, "seeds": SEEDS, "progress": False}
    tile = int(cs.sweep(cell, **sweep).attrs["tile"])
    folder = Path(tempfile.mkdtemp())
    names = (folder / f"{index}.zarr" for index in itertools.count())

    def stored(**more: Any) -> None:
        dataset = cs.sweep(cell, store=next(names), **sweep, **more)
        assert dataset.sizes["seed"] == SEEDS

    variants: dict[str, Callable[[], object]] = {
        "bare program": bare(cell, tile),
        "sweep in memory": lambda: cs.sweep(cell, **sweep),
        "sweep in a store": stored,
    }
    if cores > 1:
        variants["sweep in a store, one device"] = lambda: stored(devices=jax.local_devices()[:1])
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    for repeat in range(options.repeats + 1):
        for name, variant in variants.items():
            begin = time.perf_counter()
            variant()
            if repeat:  # the first round warms up
                seconds[name].append(time.perf_counter() - begin)
    shutil.rmtree(folder)
    runs = SEEDS * int(np.prod([len(values) for values in AXES.values()]))
    print(f"{runs} runs, d = {options.dim}, {options.steps} steps, tiles of {tile}, ", end="")
    print(f"{cores} devices, medians of {options.repeats}\n")
    print("| variant | seconds | over the bare program |\n|---|---|---|")
    for name, times in seconds.items():
        pairs = zip(times, seconds["bare program"], strict=True)
        ratio = statistics.median(each / base for each, base in pairs)
        print(f"| {name} | {statistics.median(times):.2f} | {ratio:.3f} |")
    if cores > 1:
        pairs = zip(
            seconds["sweep in a store, one device"], seconds["sweep in a store"], strict=True
        )
        speedup = statistics.median(one / several for one, several in pairs)
        print(f"\n{cores} devices over one: {speedup:.2f} times as fast")


if __name__ == "__main__":
    main()
