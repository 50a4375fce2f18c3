"""Count the runs that refinement saves: the boundary of a 64 x 64 diagram, uniform and refined.

The cell is the scalar map of one spurious direction (`models.diagonal`, population gradients):
spread on one axis, learning rate on the other, two-point eigenvalues. The reference is the boundary
of the same grid with `--reference-seeds` seeds of another key. Errors are root mean squares over
the rows and the keys, in cells. Both diagrams use the same seeds, so runs that both need are
identical.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import xarray as xr

import causal_sgd as cs
from causal_sgd import analysis
from causal_sgd.experiment import Experiment

LEVEL = 0.1
EXPERIMENT = Experiment(
    dim=2,
    invariant_rank=1,
    spurious_rank=1,
    measurement="population",
    model="diagonal",
    basis="canonical",
    init_scale=1e-3,
    steps=600,
    metrics=("spurious_signal",),
)


class Comparison(NamedTuple):
    """One row of the table: means over the keys."""

    seeds: int
    uniform_runs: int
    refined_runs: float
    uniform_error: float  # in cells
    refined_error: float
    uniform_seconds: float
    refined_seconds: float

    @property
    def ratio(self) -> float:
        """Runs of the uniform diagram over those of the refined one."""
        return self.uniform_runs / self.refined_runs


def grid(size: int) -> dict[str, np.ndarray]:
    """The axes of the diagram."""
    return {"spread": np.linspace(1, 9, size), "learning_rate": np.geomspace(0.03, 0.2, size)}


def boundary(dataset: xr.Dataset) -> np.ndarray:
    """The spread at which half of the seeds reject, for each learning rate."""
    result = analysis.rejection_boundary(
        dataset, "spurious_signal", along="spread", level=LEVEL, resamples=1
    )
    return result["value"].values


def compare(size: int, seeds: Sequence[int], keys: int, reference_seeds: int) -> list[Comparison]:
    """Compare uniform and refined diagrams with the reference, for each number of seeds."""
    cell, axes = EXPERIMENT.cell(), grid(size)
    width = axes["spread"][1] - axes["spread"][0]
    truth = boundary(cs.sweep(cell, axes=axes, seeds=reference_seeds, key=keys, label="reference"))
    rows = []
    for count in seeds:
        errors, runs, seconds = [], [], []
        for key in range(keys):
            begin = time.perf_counter()
            uniform = cs.sweep(cell, axes=axes, seeds=count, key=key, label="uniform")
            middle = time.perf_counter()
            refined = cs.refine(cell, axes=axes, level=LEVEL, max_seeds=count, key=key)
            seconds.append((middle - begin, time.perf_counter() - middle))
            errors.append([(boundary(dataset) - truth) / width for dataset in (uniform, refined)])
            runs.append(int(refined.done.sum()))
        rms = np.sqrt(np.nanmean(np.square(errors), axis=(0, 2)))
        missing = int(np.isnan(np.array(errors)[:, 1] + 0 * np.array(errors)[:, 0]).sum())
        assert not missing, f"{missing} rows of the refined diagrams show no boundary"
        mean_runs, mean_seconds = float(np.mean(runs)), np.mean(seconds, 0)
        rows.append(Comparison(count, size**2 * count, mean_runs, *rms, *mean_seconds))
    return rows


def report(rows: Sequence[Comparison]) -> str:
    """The comparisons as a Markdown table."""
    pairs = [
        f"{what}, {which}" for what in ("error", "seconds") for which in ("uniform", "refined")
    ]
    columns = ["seeds", "runs, uniform", "runs, refined", "times fewer", *pairs]
    lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    for row in rows:
        cells = [f"{row.seeds}", f"{row.uniform_runs:,}", f"{row.refined_runs:,.0f}"]
        cells += [f"{row.ratio:.1f}", f"{row.uniform_error:.3f}", f"{row.refined_error:.3f}"]
        cells += [f"{row.uniform_seconds:.1f}", f"{row.refined_seconds:.1f}"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(
        description="Compare refined and uniform diagrams: runs, errors, seconds."
    )
    parser.add_argument("--size", type=int, default=64, help="cells along each axis")
    parser.add_argument(
        "--seeds", type=int, nargs="+", default=[8, 32, 64], help="largest number of seeds per cell"
    )
    parser.add_argument(
        "--keys", type=int, default=4, help="root keys over which errors and runs are averaged"
    )
    parser.add_argument("--reference-seeds", type=int, default=1024)
    options = parser.parse_args(arguments)
    for name in ("size", "keys", "reference_seeds"):
        if getattr(options, name) < 2:
            option = name.replace("_", "-")
            parser.error(f"--{option} must be at least 2, got {getattr(options, name)}")
    if min(options.seeds) < 8:
        parser.error(
            f"--seeds must be at least 8, the first seeds of a cell, got {min(options.seeds)}"
        )
    cs.use_cpu_cores()
    begin = time.perf_counter()
    rows = compare(options.size, options.seeds, options.keys, options.reference_seeds)
    print(f"{options.size} x {options.size} cells, {EXPERIMENT.steps} steps; ", end="")
    print(f"means over {options.keys} keys; ", end="")
    print(f"errors against {options.reference_seeds} seeds of another key\n")
    print(report(rows))
    print(f"\ntook {time.perf_counter() - begin:.0f} s")


if __name__ == "__main__":
    main()
