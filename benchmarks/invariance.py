"""Cost of invariant linear regression, beside a NumPy loop and PyTorch in the same process.

The first table has a step of ERM, IRMv1 and V-REx with all examples of three environments, p = 10,
n = 1000 each, by Adam. The engine reads the environments' moments, on all cores, by the difference
of two sweeps with different numbers of steps; peers train one run: a NumPy loop on moments, one on
the examples, and PyTorch as its users write it, by autograd on the examples
(`tests/test_peers_linear.py` checks that all end at the same weights). Engine and peers take turns,
and ratios are medians over single turns. The second table is EILLS over all 4096 subsets of twelve
inputs, the drawing of its data included, beside a NumPy loop over subsets. The third counts what is
traced and compiled for one n and for eight, from 10^2 to 10^9.

`--tables FOLDER` writes chain.csv and eills.csv instead, for comparison with the literature; see
`invariance_tables.py`. `--write .` puts the first two tables into benchmarks/README.md. The PyTorch
rows need `pip install torch==2.13.0`.
"""

from __future__ import annotations

import argparse
import functools
import importlib
import importlib.util
import os
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import jax
import jax.monitoring
import numpy as np
import optax
import peers
import summary

import causal_sgd as cs
from causal_sgd import algorithms, objectives
from causal_sgd.supervised import estimators, measurements, metrics, models, worlds
from causal_sgd.training import run, samplers
from causal_sgd.types import Array, Key, Objective, Trace

METHODS = {"erm": "ERM", "irmv1": "IRMv1", "vrex": "V-REx"}
LIMITS = {"erm": 0.15, "irmv1": 0.35, "vrex": 0.2}  # us a step and run, two idle cores
LABELS = {
    "numpy_moments": "NumPy loop, moments",
    "numpy_rows": "NumPy loop, examples",
    "torch_rows": "PyTorch, examples",
}
WEIGHT = 1.0
EXAMPLES = 1000
EILLS_LIMIT = 3.0  # ms a draw
GAMMA = 20.0

COMPILED: list[str] = []
jax.monitoring.register_event_duration_secs_listener(
    lambda event, duration_secs, **kwargs: (
        COMPILED.append(event) if "backend_compile" in event else None
    )
)


def objective(method: str, weight: float | Array) -> Objective:
    """A method on the authors' scale R = 4 (R / 4), D = 4 (D / 4)."""
    if method == "erm":
        return objectives.mean()
    if method == "irmv1":
        return objectives.irmv1(weight=16 * weight, risk_weight=4.0)
    return objectives.vrex(weight=16 * weight, risk_weight=4.0)


def cell(key: Key, *, weight: Array, method: str, steps: int, n: Array | int = EXAMPLES) -> Trace:
    """One run on the chain with three environments."""
    algorithm = algorithms.penalised(
        world=worlds.chain(training=(0, 1, 2)),
        measurement=measurements.moments(n),
        sampler=samplers.stratified(batch_size=3),
        model=models.linear(dim=10),
        objective=objective(method, weight),
        optimizer=optax.adam(1e-3),
    )
    return run(key, algorithm=algorithm, metrics=[metrics.estimation_error], num_steps=steps)


def engine_step(method: str, seeds: int, steps: tuple[int, int]) -> float:
    """Seconds of a step and run; the first call compiles."""
    spent = []
    for length in steps:
        # The same function object each time: an unchanged cell compiles nothing.
        begin = time.perf_counter()
        cs.sweep(
            _cells(method, length), axes={"weight": np.array([WEIGHT])}, seeds=seeds, progress=False
        )
        spent.append(time.perf_counter() - begin)
    return (spent[1] - spent[0]) / (steps[1] - steps[0]) / seeds


@functools.cache
def _cells(method: str, steps: int) -> Any:
    return functools.partial(cell, method=method, steps=steps)


def problem(method: str, steps: int) -> peers.LinearProblem:
    """The examples of one run of `cell`, for peers."""
    world = worlds.chain(training=(0, 1, 2))(jax.random.key(0))
    drawn = [
        world.draw_examples(jax.random.key(e + 1), jax.numpy.asarray(e), EXAMPLES) for e in range(3)
    ]
    x, y = (np.stack([np.asarray(pair[part]) for pair in drawn]) for part in (0, 1))
    return peers.LinearProblem(x, y, method, WEIGHT, 1e-3, steps)


def print_steps(repeats: int, seeds: int, steps: tuple[int, int], peer_steps: int) -> str:
    """Measure the first table, and return it."""
    names = [name for name in LABELS if "torch" not in name or importlib.util.find_spec("torch")]
    lines = ["| method | what | us a step and run | times the engine |", "|---|---|---|---|"]
    for method, title in METHODS.items():
        engine_step(method, seeds, steps)
        costs: dict[str, list[float]] = {name: [] for name in ("engine", *names)}
        posed = problem(method, peer_steps)
        for _ in range(repeats):
            costs["engine"].append(engine_step(method, seeds, steps))
            for name in names:
                costs[name].append(getattr(peers, name)(posed).seconds)
        for name, values in costs.items():
            share = statistics.median(
                one / other for one, other in zip(values, costs["engine"], strict=True)
            )
            label = f"causal_sgd (limit {LIMITS[method]})" if name == "engine" else LABELS[name]
            cost = f"{statistics.median(values) * 1e6:,.3g}"
            lines.append(f"| {title} | {label} | {cost} | {share:,.0f} |")
    return "\n".join(lines)


def eills_cell(key: Key, *, n: Array) -> Trace:
    """EILLS over all subsets of twelve inputs."""
    algorithm = algorithms.fitted(
        world=worlds.eills_demo(),
        measurement=measurements.moments(n),
        estimator=estimators.eills(GAMMA),
    )
    return run(key, algorithm=algorithm, metrics=[metrics.estimation_error], num_steps=1)


def print_search(repeats: int, draws: int) -> str:
    """Measure the second table, and return it."""
    world = worlds.eills_demo()(jax.random.key(0))
    second = np.asarray(
        world.draw_moments(
            jax.random.key(1), jax.numpy.arange(2), jax.numpy.full(2, float(EXAMPLES))
        ),
        float,
    )[:, :-1, :-1]
    ours, theirs = [], []
    for repeat in range(repeats + 1):
        begin = time.perf_counter()
        cs.sweep(eills_cell, axes={"n": np.array([float(EXAMPLES)])}, seeds=draws, progress=False)
        spent = (time.perf_counter() - begin) / draws
        if repeat > 0:  # the first call compiles
            ours.append(spent)
            theirs.append(peers.numpy_eills(second, GAMMA)[1])
    share = statistics.median(one / other for one, other in zip(theirs, ours, strict=True))
    rows = [
        (f"causal_sgd (limit {EILLS_LIMIT:.0f})", statistics.median(ours), 1.0),
        ("NumPy loop over subsets", statistics.median(theirs), share),
    ]
    lines = ["| EILLS, 4096 subsets | ms a draw | times the engine |", "|---|---|---|"]
    lines += [f"| {label} | {value * 1e3:,.3g} | {times:,.0f} |" for label, value, times in rows]
    return "\n".join(lines)


def print_sizes(steps: int, seeds: int) -> str:
    """Count traces and compilations of sweeps over n, and return the table."""
    lines = ["| values of n | traces of the cell | compilations | devices |", "|---|---|---|---|"]
    devices = len(jax.devices())
    # Small programs that every sweep needs are compiled here.
    cs.sweep(_cells("erm", 1), axes={"weight": np.array([WEIGHT])}, progress=False)
    for length, sizes in ((steps, [1e2]), (steps + 1, np.geomspace(1e2, 1e9, 8))):  # two programs
        traces: list[int] = []
        COMPILED.clear()
        cs.sweep(
            functools.partial(_counted, steps=length, traces=traces),
            axes={"n": np.asarray(sizes)},
            seeds=seeds,
            progress=False,
        )
        lines.append(f"| {len(sizes)} | {len(traces)} | {len(COMPILED)} | {devices} |")
    return "\n".join(lines)


def _counted(key: Key, *, n: Array, steps: int, traces: list[int]) -> Trace:
    traces.append(1)
    return cell(key, weight=jax.numpy.asarray(WEIGHT), method="erm", steps=steps, n=n)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print Markdown tables, or write tables of results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--seeds", type=int, default=1024, help="runs in a sweep that is timed")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, whose figures say little")
    parser.add_argument("--tables", type=Path, metavar="FOLDER", help="write the CSV files")
    parser.add_argument(
        "--write", type=Path, metavar="FOLDER", help="also write them into benchmarks/README.md"
    )
    options = parser.parse_args(arguments)
    cs.use_cpu_cores()
    if options.tables is not None:
        invariance_tables = importlib.import_module("invariance_tables")

        sizes = invariance_tables.QUICK if options.quick else invariance_tables.Sizes()
        runs, seconds = invariance_tables.write_tables(options.tables, sizes)
        print(f"{runs} runs, {seconds:.0f} s: chain.csv and eills.csv in {options.tables}")
        return
    repeats = 1 if options.quick else options.repeats
    seeds = 8 if options.quick else options.seeds
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, jax {jax.__version__}; ", end="")
    print(f"median of {repeats}\n", flush=True)
    few = options.quick
    shown = print_steps(repeats, seeds, (20, 40) if few else (500, 5500), 5 if few else 300)
    print(shown, flush=True)
    search = print_search(repeats, 2 if few else 200)
    print(f"\n{search}", flush=True)
    print(f"\n{print_sizes(10 if few else 1000, 8 if few else 128)}")
    if options.write is not None:
        path = options.write / "benchmarks" / "README.md"
        summary.write(path, "invariance.py", f"{shown}\n\n{search}")


if __name__ == "__main__":
    main()
