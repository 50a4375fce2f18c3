"""Compare the engine with what people write today, in one process.

There are five workloads:

(a) one run: d = 50, batch 1000, 400 steps;
(b) 64 seeds of (a);
(c) a phase diagram: 8 learning rates x 10 spreads x 64 seeds, d = 50, batch 4000, 600 steps;
(d) one run at d = 1000 with 20 columns, batch 64,000 (required by the noise of a batch at that
    dimension), 400 steps: the engine on its low-rank law;
(e) the diagram of (c) at d = 100,000 with 4 columns and r1 = r2 = 2, batch 400,000: the engine on
    the chain of order parameters.

The engine runs each workload in full, as `causal_sgd.sweep` does on all cores, after compilation;
the extra time of the first call is shown beside it. Peers (`peers/`; `tests/test_peers.py` checks
that they agree in distribution) are timed on a few warmed-up steps of some runs and extrapolated:
each step, run and, in (d) and (e), measurement costs the same. No machine holds a measurement of
(e): peers are extrapolated from d = 1000, where it has d^2 numbers, too. All times are medians over
the repeats. The first two tables are the cost of a step of the engine at three batch sizes, and of
the chain over dimensions and batch sizes, by the difference of two sweeps with different numbers of
steps and one compilation each.

Run `python benchmarks/versus.py`, with `--write .` to put the tables into benchmarks/README.md, and
README's table from them (`summary.py`); the PyTorch rows need `pip install torch==2.13.0`.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).parent))

import jax
import numpy as np
import peers
import summary

import causal_sgd as cs
from causal_sgd.experiment import Experiment

SYSTEM: dict[str, Any] = {
    "dim": 50,
    "invariant_rank": 3,
    "spurious_rank": 3,
    "mean": 1.0,
    "spread": 6.0,
    "learning_rate": 0.1,
    "init_scale": 1e-3,
}
WORKS = ["a", "b", "c", "d", "e"]
WHOLE = {summary.DIAGRAM: {"a", "b", "c", "d"}, summary.CHAIN: {"e"}}
"""The works of each table of benchmarks/README.md."""
LARGE = SYSTEM | {"dim": 1000, "rank": 20, "learning_rate": 0.02}
FEW: dict[str, Any] = SYSTEM | {"invariant_rank": 2, "spurious_rank": 2, "rank": 4}
CHAIN: dict[str, Any] = FEW | {"model": "order-parameters", "measurement": "order-parameter-law"}
CHAIN_POINTS = (
    *({"dim": dim, "batch_size": 10 * dim} for dim in (10**2, 10**3, 10**5, 10**7)),
    *({"dim": 10**3, "batch_size": size} for size in (10**3, 10**6)),
)
DIAGRAM = {"learning_rate": np.geomspace(0.02, 0.2, 8), "spread": np.linspace(0, 9, 10)}
Point = Mapping[str, int]
"""Values of the axes of a sweep."""


def step_costs(
    system: Mapping[str, Any],
    points: Sequence[Point],
    repeats: int,
    seeds: int,
    steps: tuple[int, int] = (100, 600),
) -> list[list[float]]:
    """Seconds per step and run, at each point in each repeat, with one compilation."""
    short, long = steps
    cells = {
        length: Experiment(**system, steps=length, metrics=("spurious_signal",)).cell()
        for length in steps
    }

    def seconds(length: int, point: Point) -> float:
        axes = {name: [value] for name, value in point.items()}
        begin = time.perf_counter()
        cs.sweep(cells[length], axes=axes, seeds=seeds, progress=False)
        return time.perf_counter() - begin

    for length in cells:
        seconds(length, points[0])
    samples: list[list[float]] = [[] for _ in points]
    for repeat in range(repeats):
        # Interleaved, back and forth, so that slow moments and drifts of the machine affect all
        # points.
        for index in range(len(points))[:: 1 if repeat % 2 == 0 else -1]:
            spent = seconds(long, points[index]) - seconds(short, points[index])
            samples[index].append(spent / (long - short) / seeds)
    return samples


def ratio(costs: Sequence[float], reference: Sequence[float]) -> float:
    """The median ratio of costs in the same repeat."""
    return statistics.median(one / other for one, other in zip(costs, reference, strict=True))


def engine(
    experiment: Experiment, axes: Mapping[str, Any], seeds: int, repeats: int
) -> tuple[float, float]:
    """Seconds of a sweep, and the extra seconds of its first call."""
    cell = experiment.cell()
    tile = 1 if seeds == 1 else None  # the default would pad a single run to eight

    def seconds() -> float:
        begin = time.perf_counter()
        cs.sweep(cell, axes=axes, seeds=seeds, tile=tile, progress=False)
        return time.perf_counter() - begin

    first = seconds()
    warm = statistics.median(seconds() for _ in range(repeats))
    return warm, first - warm


def alone(
    names: tuple[str, ...], problem: peers.DrawnProblem, repeats: int, batch: int = 4
) -> dict[str, float]:
    """Seconds of a step and run of each peer; batched peers simulate `batch` runs at once."""
    seconds = {}
    for name in names:
        peer: Callable[..., peers.PeerResult] = getattr(peers, name)
        many = name in ("torch_batched", "torch_func", "jax_drawn")
        seeds = {"seeds": range(batch)} if many else {"seed": 0}
        seconds[name] = statistics.median(
            peer(problem, **seeds).seconds_per_step_and_run for _ in range(repeats)
        )
    return seconds


def print_chain_costs(repeats: int, seeds: int) -> None:
    """Print a table of the cost of a step over dimensions and batch sizes, and of other laws."""
    print("\n| r + k = 8 | d | batch | us a step and run | over d = 100, in the same repeat |")
    print("|---|---|---|---|---|")

    def row(law: str, point: Point, values: Sequence[float], over: str) -> None:
        cost = f"{statistics.median(values) * 1e6:,.2f}"
        print(f"| {law} | {point['dim']} | {point['batch_size']} | {cost} | {over} |", flush=True)

    # Tiles are large: full ones on every core.
    costs = step_costs(CHAIN, CHAIN_POINTS, repeats, 8 * seeds)
    for point, values in zip(CHAIN_POINTS, costs, strict=True):
        row("chain", point, values, f"{ratio(values, costs[0]):.3f}")
    for dim in (100, 1000):
        point = {"dim": dim, "batch_size": 10 * dim}
        law: dict[str, Any] = FEW | {"dim": dim, "measurement": "low-rank-law"}
        (values,) = step_costs(
            law, [{"batch_size": 10 * dim}], repeats, max(seeds // 4, 1), (20, 100)
        )
        row("low-rank", point, values, "")


class Work(NamedTuple):
    """The times of one workload."""

    title: str
    size: str  # batch and steps
    seconds: float
    first: float  # extra seconds of the engine's first call
    peers: Mapping[str, float]

    def table(self) -> str:
        """A Markdown table with one row per peer."""
        lines = ["| what | seconds | times the engine |", "|---|---|---|"]
        lines.append(
            f"| causal_sgd (the first call: {self.first:+.1f} s) | {self.seconds:,.3g} | 1 |"
        )
        lines += [
            f"| {LABELS[name]} | {value:,.3g} | {value / self.seconds:,.0f} |"
            for name, value in self.peers.items()
        ]
        return "\n".join(lines)


def overview(works: Mapping[str, Work]) -> str:
    """A Markdown table of all workloads: seconds, and in brackets multiples of the engine's."""

    def row(name: str, cells: Iterable[str]) -> str:
        return "| " + " | ".join([name, *cells]) + " |"

    every = works.values()
    lines = [
        row("", [f"({letter}) {work.title}" for letter, work in works.items()]),
        "|---" * (len(works) + 1) + "|",
    ]
    lines.append(row("batch, steps", [work.size for work in every]))
    lines.append(row("causal_sgd", [f"{work.seconds:,.3g}" for work in every]))
    lines.append(row("its first call takes more by", [f"{work.first:.1f}" for work in every]))
    for name in dict.fromkeys(name for work in every for name in work.peers):
        cells = [
            f"{work.peers[name]:,.3g} ({work.peers[name] / work.seconds:,.0f})"
            if name in work.peers
            else "-"
            for work in every
        ]
        lines.append(row(LABELS[name], cells))
    return "\n".join(lines)


def written(letters: Iterable[str]) -> set[str]:
    """The works that fill tables: all of a table's are among these."""
    every = set(letters)
    return set().union(*(part for part in WHOLE.values() if part <= every))


def write_tables(folder: Path, works: Mapping[str, Work]) -> None:
    """Put the tables whose works are all there into benchmarks/README.md, and sum them up."""
    path = folder / "benchmarks" / "README.md"
    if written(works) >= WHOLE[summary.DIAGRAM]:
        drawn = {letter: works[letter] for letter in sorted(WHOLE[summary.DIAGRAM])}
        summary.write(path, summary.DIAGRAM, overview(drawn))
    if written(works) >= WHOLE[summary.CHAIN]:
        summary.write(path, summary.CHAIN, works["e"].table())
    summary.summarise(folder)


LABELS = {
    "low_rank_law": "`low_rank_law` of causal_sgd",
    "numpy_plain": "NumPy loop as one writes it first",
    "numpy_loop": "NumPy loop tuned, threaded draws",
    "jax_drawn": "jit(vmap) over drawn measurements",
    "torch_loop": "PyTorch loop, threaded draws",
    "torch_func": "PyTorch, torch.func.vmap",
    "torch_batched": "PyTorch batched by hand, threaded draws",
}


def main() -> None:
    """Measure and print Markdown tables."""
    parser = argparse.ArgumentParser(
        description="Compare the engine with what people write today; print Markdown tables."
    )
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument(
        "--seeds", type=int, default=256, help="runs in the sweeps that time a step"
    )
    parser.add_argument("--peer-steps", type=int, default=10)
    parser.add_argument("--works", nargs="*", default=WORKS, choices=WORKS)
    parser.add_argument(
        "--write",
        type=Path,
        metavar="FOLDER",
        help="also write the tables into benchmarks/README.md, and README's from them",
    )
    options = parser.parse_args()
    if options.write is not None and set(options.works) - written(options.works):
        parser.error("--write needs the works a, b, c and d, or e: a part must not replace a table")
    cs.use_cpu_cores()
    repeats, steps = options.repeats, options.peer_steps
    without_torch = not importlib.util.find_spec("torch")
    names = tuple(
        name
        for name in LABELS
        if name != "low_rank_law" and not ("torch" in name and without_torch)
    )
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, jax {jax.__version__}; ", end="")
    print(f"median of {repeats}\n")
    print("| batch | us a step and run, d = 50 | over batch 4000, in the same repeat |")
    print("|---|---|---|")
    sizes = (100, 1000, 4000)
    points = [{"batch_size": size} for size in sizes]
    costs = step_costs(SYSTEM, points, max(repeats, 9), options.seeds)
    for size, values in zip(sizes, costs, strict=True):
        share = ratio(values, costs[-1])
        print(f"| {size} | {statistics.median(values) * 1e6:,.2f} | {share:.3f} |", flush=True)
    print_chain_costs(max(repeats, 9), options.seeds)

    works: dict[str, Work] = {}

    def show(letter: str, work: Work, note: str) -> None:
        works[letter] = work
        print(f"\n({letter}) {work.title}; batch, steps: {work.size}. ", end="")
        print(f"Peers extrapolated from {note}.\n\n{work.table()}", flush=True)

    selected = set(options.works)
    several = f"{steps} steps, batched peers from 4 runs"
    if selected & {"a", "b"}:
        base = Experiment(**SYSTEM, steps=400, metrics=("spurious_signal",))
        one = alone(names, peers.DrawnProblem(**SYSTEM, batch_size=1000, steps=steps), repeats)
        for letter, seeds in (("a", 1), ("b", 64)):
            if letter in selected:
                ours = engine(base, {"batch_size": [1000]}, seeds, repeats)
                every = {name: value * seeds * 400 for name, value in one.items()}
                show(
                    letter,
                    Work(f"{seeds} run{'s' * (seeds > 1)}, d = 50", "1000, 400", *ours, every),
                    several,
                )
    if "c" in selected:
        base = Experiment(**SYSTEM, batch_size=4000, steps=600, metrics=("spurious_signal",))
        ours = engine(base, DIAGRAM, 64, repeats)
        one = alone(names, peers.DrawnProblem(**SYSTEM, batch_size=4000, steps=steps), repeats)
        every = {name: value * 8 * 10 * 64 * 600 for name, value in one.items()}
        show("c", Work("diagram, 8 x 10 x 64 runs, d = 50", "4000, 600", *ours, every), several)
    if "d" in selected:
        base = Experiment(
            **LARGE, measurement="low-rank-law", steps=400, metrics=("spurious_signal",)
        )
        ours = engine(base, {"batch_size": [64_000]}, 1, repeats)
        small, large = (
            alone(names, peers.DrawnProblem(**LARGE, batch_size=size, steps=5), repeats, 1)
            for size in (40, 80)
        )
        # The cost of a measurement, and the rest of a step.
        every = {
            name: 400 * (small[name] + (large[name] - small[name]) / 40 * (64_000 - 40))
            for name in names
        }
        show(
            "d",
            Work("1 run, d = 1000, 20 columns", "64,000, 400", *ours, every),
            "5 steps with batches of 40 and 80",
        )

    if "e" in selected:
        dim, size, runs = 100_000, 400_000, 8 * 10 * 64
        base = Experiment(
            **CHAIN, batch_size=size, steps=600, metrics=("spurious_signal",)
        ).replace(dim=dim)
        ours = engine(base, DIAGRAM, 64, repeats)
        law: dict[str, Any] = FEW | {"dim": dim, "measurement": "low-rank-law"}
        (cost,) = step_costs(law, [{"batch_size": size}], repeats, 2, steps=(2, 6))
        every = {"low_rank_law": statistics.median(cost)}
        problem: dict[str, Any] = FEW | {"dim": 1000, "steps": 5}
        small, large = (
            alone(names, peers.DrawnProblem(**problem, batch_size=count), repeats, 1)
            for count in (40, 80)
        )
        every |= {
            name: (large[name] - small[name]) / 40 * size * (dim / 1000) ** 2 for name in names
        }
        show(
            "e",
            Work(
                "diagram, 8 x 10 x 64 runs, d = 100,000, 4 columns",
                "400,000, 600",
                *ours,
                {name: value * runs * 600 for name, value in every.items()},
            ),
            "5 steps with batches of 40 and 80 at d = 1000, the low-rank law from 4 steps of 2 "
            "runs",
        )

    if options.write is not None:
        write_tables(options.write, works)


if __name__ == "__main__":
    main()
