"""Measure the peak memory of a sweep against its number of runs, in memory and in a store.

Each number is the peak resident set (Linux's VmHWM) of a separate process, including Python, jax
and compilation. The runs are small (d = 4, population gradients, 4 steps) and come in tiles of 64,
so that even the smallest sweep uses all devices and only the number of runs varies.

Run `python benchmarks/memory.py`.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

SCRIPT = """
import sys
import causal_sgd as cs
from causal_sgd.experiment import Experiment
cs.use_cpu_cores()
cell = Experiment(
    dim=4,
    invariant_rank=1,
    spurious_rank=1,
    measurement="population",
    steps=4,
    metrics=("spurious_signal",),
).cell()
seeds, path = int(sys.argv[1]) // 10, sys.argv[2]
axes = {"spread": [float(index) for index in range(10)]}
dataset = cs.sweep(cell, axes=axes, seeds=seeds, tile=64, store=path or None, progress=False)
assert dataset.sizes["seed"] == seeds
status = open("/proc/self/status").read()
print(int(status.partition("VmHWM:")[2].split()[0]) / 1024)
"""


def peak(runs: int, store: str) -> float:
    """Peak resident set in MiB of a process that runs such a sweep."""
    command = [sys.executable, "-c", SCRIPT, str(runs), store]
    completed = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(completed.stdout)


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(
        description="Peak memory of a sweep against the number of its runs."
    )
    parser.add_argument("--runs", type=int, nargs="+", default=[1000, 10_000, 100_000])
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    if options.repeats < 1:
        parser.error(f"--repeats must be at least 1, got {options.repeats}")
    print(f"medians of {options.repeats}\n")
    print("| runs | in memory, MiB | in a store, MiB |\n|---|---|---|")
    rows = []
    for runs in options.runs:
        cells = []
        for stored in (False, True):
            values = []
            for _ in range(options.repeats):
                with tempfile.TemporaryDirectory() as folder:
                    values.append(peak(runs, str(Path(folder) / "sweep.zarr") if stored else ""))
            cells.append(statistics.median(values))
        rows.append(cells)
        print(f"| {runs} | {cells[0]:.0f} | {cells[1]:.0f} |", flush=True)
    ratios = [last / first for first, last in zip(rows[0], rows[-1], strict=True)]
    print(f"\n{options.runs[-1]} runs over {options.runs[0]}: ", end="")
    print(f"{ratios[0]:.3f} in memory, {ratios[1]:.3f} in a store")


if __name__ == "__main__":
    main()
