"""Measure how the cost of `causal_sgd.sweep` grows: steps, totals, compilation and memory.

Run `python benchmarks/curves.py`; it prints Markdown tables and writes figures/curves.png and .pdf.
It measures:

- *A step*: the difference of two sweeps of the same shapes with different numbers of steps, per
  step and run. Compilation, tracing and start cancel. The runs fill one tile on each device.
- *A total*: one call of `sweep` with a compiled program, including its fixed costs (dry run of the
  cell, labels).
- *Compilation*: from the call of `sweep` with a new cell to the end of its last XLA compilation:
  dry run and tracing of the cell, lowering, and XLA for each device, but no run. The process is
  warm: jax is imported and its own small functions are traced.
- *Peak memory*: the peak resident set (VmHWM on Linux, else `ru_maxrss`) of a new process that runs
  one sweep: Python, jax, compilation, tiles and results.

A slope belongs to a line through the logarithms: 0 is flat, 1 is linear.
"""

from __future__ import annotations

import argparse
import functools
import os
import re
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.monitoring
import numpy as np
from curve_reports import Curve, draw, report

import causal_sgd as cs
from causal_sgd.experiment import Experiment
from causal_sgd.sweeps import _programs

WORK: dict[str, Any] = {
    "dim": 50,
    "invariant_rank": 3,
    "spurious_rank": 3,
    "mean": 1.0,
    "spread": 6.0,
    "learning_rate": 0.1,
    "batch_size": 1000,
    "metrics": ("spurious_signal",),
}
MEBIBYTE = 2**20


class Sizes(NamedTuple):
    """The sizes of the benchmark; each tuple is the horizontal axis of a curve."""

    batch_sizes: tuple[int, ...] = (100, 1000, 10_000, 100_000, 1_000_000)
    dims: tuple[int, ...] = (10, 25, 50, 100, 200, 400)
    low_rank_dims: tuple[int, ...] = (200, 500, 1000, 2000, 5000, 10_000)
    columns: tuple[int, ...] = (3, 10, 30, 100)
    columns_dim: int = 100
    low_rank: int = 20
    steps: tuple[int, ...] = (100, 200, 400, 800, 1600, 3200, 6400, 12_800)
    seeds: tuple[int, ...] = (1, 4, 16, 64, 256, 1024, 4096)
    cells: tuple[int, ...] = (1, 4, 16, 64, 256, 1024, 4096)
    runs: tuple[int, ...] = (1, 10, 100, 1000, 10_000, 100_000)  # for peak memory
    compiled: int = 4  # number of sizes in a compilation curve
    step_seconds: float = 0.4  # target for the difference of two sweeps


QUICK = Sizes(
    batch_sizes=(100, 10_000),
    dims=(5,),
    low_rank_dims=(20,),
    columns=(2,),
    columns_dim=10,
    low_rank=2,
    steps=(20, 40),
    seeds=(1, 4),
    cells=(1, 4),
    runs=(1, 100),
    compiled=1,
    step_seconds=0.01,
)

_last_compilation = [0.0]


def _record(event: str, duration_secs: float, **_: Any) -> None:
    if "backend_compile" in event:
        _last_compilation[0] = time.perf_counter()


jax.monitoring.register_event_duration_secs_listener(_record)


def seconds(cell: Any, **options: Any) -> float:
    """Time one sweep."""
    begin = time.perf_counter()
    cs.sweep(cell, progress=False, **options)
    return time.perf_counter() - begin


def compile_seconds(cell: Any, **options: Any) -> float:
    """Time from the call of a sweep to the end of its last compilation; the cell must be new."""
    _programs._executables.clear()  # an earlier cell may have had the same program
    begin = time.perf_counter()
    cs.sweep(cell, progress=False, **options)
    assert _last_compilation[0] > begin, "the cell was compiled before"
    return _last_compilation[0] - begin


class Point(NamedTuple):
    """Two compiled sweeps that differ only in their number of steps."""

    cells: dict[int, Any]
    options: dict[str, Any]

    def measure(self) -> float:
        """Seconds per step and run."""
        short, long = self.cells
        times = {steps: seconds(cell, **self.options) for steps, cell in self.cells.items()}
        return (times[long] - times[short]) / (long - short) / self.options["seeds"]


def point(sizes: Sizes, changes: Mapping[str, Any], **options: Any) -> Point:
    """Compile two sweeps of an experiment whose times differ by about `sizes.step_seconds`."""
    short, shortest_difference, more = 20, 10, 4
    cell = _cell(**changes, steps=short)
    tile = int(cs.sweep(cell, seeds=1, progress=False, **options).attrs["tile"])
    runs = tile * len(jax.local_devices())
    seconds(cell, seeds=runs, **options)
    # More tiles estimate the time of a step, which sets the number of steps, without a compilation.
    extra = seconds(cell, seeds=(1 + more) * runs, **options) - seconds(cell, seeds=runs, **options)
    steps = sizes.step_seconds / max(extra / more / short, 1e-6)
    long = short + int(np.clip(steps, shortest_difference, 5000))
    pair = Point({short: cell, long: _cell(**changes, steps=long)}, options | {"seeds": runs})
    pair.measure()  # compiles
    return pair


def interleaved(calls: Mapping[int, Callable[[], float]], repeats: int) -> dict[int, list[float]]:
    """Call all of them in turns, so that a slow moment of the machine affects all of them."""
    samples: dict[int, list[float]] = {size: [] for size in calls}
    for _ in range(repeats):
        for size, call in calls.items():
            samples[size].append(call())
    return samples


def step_curves(sizes: Sizes, repeats: int) -> Iterable[Curve]:
    """Microseconds per step and run against the batch size, d and k."""

    def curve(
        panel: str,
        label: str,
        size: str,
        points: dict[int, Point],
        expected: float | None = None,
        fitted_from: int = 0,
    ) -> Curve:
        samples = interleaved({value: point.measure for value, point in points.items()}, repeats)
        micro = {value: [1e6 * x for x in times] for value, times in samples.items()}
        return Curve(panel, label, size, "µs a step and run", micro, expected, fitted_from)

    base = point(sizes, {}, axes={"batch_size": sizes.batch_sizes[:1]})
    batches = {
        m: base._replace(options=base.options | {"axes": {"batch_size": [m]}})
        for m in sizes.batch_sizes
    }
    yield curve("a step, batch size", "gaussian_law", "batch size $m$", batches, 0)
    low = {"measurement": "low-rank-law"}
    low_rank = low | {"rank": sizes.low_rank}
    dims = {
        "gaussian_law, k = d": (sizes.dims, {}),
        f"low_rank_law, k = {sizes.low_rank}": (sizes.low_rank_dims, low_rank),
    }
    for label, (values, changes) in dims.items():
        points = {d: point(sizes, changes | _ranks(d) | {"dim": d}) for d in values}
        yield curve(
            "a step, dimension",
            label,
            "dimension $d$",
            points,
            fitted_from=values[len(values) // 2 - 1],
        )
    for label, changes in {"gaussian_law": {}, "low_rank_law": low}.items():
        fixed = {
            "dim": sizes.columns_dim,
            "init": "gaussian",
            **_ranks(sizes.columns_dim),
            **changes,
        }
        points = {k: point(sizes, fixed | {"rank": k}) for k in sizes.columns}
        yield curve(f"a step, columns (d = {sizes.columns_dim})", label, "columns $k$", points)


def total_curves(sizes: Sizes, repeats: int) -> Iterable[Curve]:
    """Seconds of a whole sweep against the number of its steps, seeds and grid cells."""
    steps = {n: _cell(steps=n) for n in sizes.steps}
    tile = int(cs.sweep(steps[sizes.steps[0]], seeds=1, progress=False).attrs["tile"])
    fill = tile * len(jax.local_devices())
    cell = steps[sizes.steps[0]]

    def curve(
        size: str, setting: str, options: Mapping[int, tuple[Any, dict[str, Any]]], fitted_from: int
    ) -> Curve:
        calls = {n: functools.partial(seconds, one, **how) for n, (one, how) in options.items()}
        for call in calls.values():
            call()  # compiles
        samples = interleaved(calls, repeats)
        return Curve(
            f"a sweep, {size}", "gaussian_law", f"{size} ({setting})", "s", samples, 1, fitted_from
        )

    large = sizes.seeds[len(sizes.seeds) // 2]
    lengths = {n: (one, {"seeds": large}) for n, one in steps.items()}
    yield curve("steps", f"{large} seeds", lengths, sizes.steps[(len(sizes.steps) - 1) // 2])
    # With fewer runs than fill the devices, padding and fixed costs dominate.
    many = min(16 * fill, sizes.seeds[-1] // 4)
    setting = f"{sizes.steps[0]} steps"
    yield curve("seeds", setting, {n: (cell, {"seeds": n}) for n in sizes.seeds}, many)
    grids = {n: (cell, {"axes": {"spread": np.linspace(0, 9, n)}}) for n in sizes.cells}
    yield curve("grid cells", f"{setting}, 1 seed", grids, many)


def compile_curves(sizes: Sizes, repeats: int) -> Iterable[Curve]:
    """Seconds of compilation against each size of a sweep."""

    def thin(values: Sequence[int]) -> list[int]:
        count = min(sizes.compiled, len(values))
        return [
            values[index] for index in np.linspace(0, len(values) - 1, count).round().astype(int)
        ]

    def curve(
        panel: str, name: str, values: Sequence[int], setting: Callable[[int], tuple[dict, dict]]
    ) -> Curve:
        def call(value: int) -> float:
            changes, options = setting(value)
            return compile_seconds(_cell(**changes), **options)

        samples = interleaved(
            {value: functools.partial(call, value) for value in thin(values)}, repeats
        )
        expected = None if "dimension" in panel else 0
        return Curve(
            panel,
            name,
            name if "dimension" in panel else "batch size, seeds, ...",
            "s",
            samples,
            expected,
        )

    few = {"steps": 20}
    seconds(_cell(**few))  # warms up jax's own functions
    flat = "compilation, other sizes"
    # The last compilation comes before the first run; few and short runs only save time.
    yield curve(flat, "batch size", sizes.batch_sizes, lambda m: (few | {"batch_size": m}, {}))
    yield curve(flat, "seeds", sizes.seeds, lambda n: (few, {"seeds": n}))
    yield curve(
        flat, "grid cells", sizes.cells, lambda n: (few, {"axes": {"spread": np.linspace(0, 9, n)}})
    )
    yield curve(flat, "steps", sizes.steps, lambda n: ({"steps": n}, {}))
    yield curve(
        "compilation, dimension",
        "dimension $d$",
        sizes.dims,
        lambda d: (few | {"dim": d} | _ranks(d), {}),
    )


def memory_curves(sizes: Sizes, repeats: int) -> Iterable[Curve]:
    """Peak resident set of a separate process against the number of runs."""
    calls = {runs: functools.partial(_peak_mebibytes, runs) for runs in sizes.runs}
    yield Curve(
        "peak memory of the process", "gaussian_law", "runs", "MiB", interleaved(calls, repeats), 0
    )


def _peak_mebibytes(runs: int) -> float:
    command = [sys.executable, __file__, "--peak-of", str(runs)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def _print_peak(runs: int) -> None:
    """The work of a process of `memory_curves`."""
    cs.use_cpu_cores()
    cs.sweep(_cell(steps=10), seeds=runs, progress=False)
    print(_peak_bytes() / MEBIBYTE)


def _peak_bytes() -> float:
    """The peak resident set of this process."""
    status = Path("/proc/self/status")
    if status.exists():  # on Linux a child inherits its parent's ru_maxrss
        match = re.search(r"VmHWM:\s*(\d+) kB", status.read_text())
        if match:
            return int(match.group(1)) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _cell(**changes: Any) -> Any:
    """A new cell."""
    return Experiment(**(WORK | changes)).cell()


def _ranks(dim: int) -> dict[str, int]:
    """The ranks of the signals, smaller for tiny d."""
    rank = min(3, dim // 2)
    return {"invariant_rank": rank, "spurious_rank": rank}


GROUPS: dict[str, Callable[[Sizes, int], Iterable[Curve]]] = {
    "steps": step_curves,
    "totals": total_curves,
    "compilation": compile_curves,
    "memory": memory_curves,
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print tables and write the figure."""
    parser = argparse.ArgumentParser(
        description="Measure, print and plot the cost curves of the engine."
    )
    parser.add_argument(
        "--repeats",
        type=int,
        default=5,
        help="repeats of each time; at most 3 of compilation and memory",
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        help="tiny sizes, unoptimised: a check that the script works",
    )
    parser.add_argument(
        "--only", nargs="+", choices=GROUPS, default=list(GROUPS), help="which groups of curves"
    )
    parser.add_argument("--out", type=Path, default=Path("figures/curves.png"))
    parser.add_argument("--peak-of", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.peak_of is not None:
        _print_peak(options.peak_of)
        return
    if options.repeats < 1:
        parser.error(f"--repeats must be at least 1, got {options.repeats}")
    jax.config.update(
        "jax_enable_compilation_cache", False
    )  # else a cached program is not compiled
    if options.quick:
        jax.config.update("jax_disable_most_optimizations", True)  # compiles in half the time
    cs.use_cpu_cores()
    sizes = QUICK if options.quick else Sizes()
    fewer = min(options.repeats, 3)
    curves: list[Curve] = []
    for name in options.only:
        begin = time.perf_counter()
        repeats = fewer if name in ("compilation", "memory") else options.repeats
        group = list(GROUPS[name](sizes, repeats))
        curves += group
        # Intermediate results survive an interruption.
        elapsed = time.perf_counter() - begin
        print(f"{name}, in {elapsed:.0f} s\n{report(group)}\n", file=sys.stderr, flush=True)
    device = jax.local_devices()[0]
    load = f"load {os.getloadavg()[0]:.1f}, jax {jax.__version__}"
    print(
        f"{len(jax.local_devices())} x {device.device_kind} ({device.platform}), {load}; ", end=""
    )
    print(f"d = {WORK['dim']} unless stated otherwise; median of {options.repeats} ", end="")
    print(f"(compilation and memory: {fewer})", end="")
    print("; QUICK: tiny sizes, unoptimised\n" if options.quick else "\n")
    print(report(curves))
    print("\nwritten:", *draw(curves, options.out))


if __name__ == "__main__":
    main()
