"""Time finite data sets and drawn measurements beside NumPy and PyTorch, in one process.

A step of HeteroSGD at d = 50 is timed. All runs share 8 environments of 1000 examples each (41 MB
in packed coordinates). A step of a run takes all 1000 examples of one environment, or 100 drawn
without replacement; for one run and for 64 seeds at once. Under "drawn" every step of every run
draws 1000 new measurements (`streamed`). The engine is timed as `causal_sgd.sweep` runs it, by the
difference of two sweeps of the same shapes with different numbers of steps, which cancels
compilation and start. The peers (`peers/`) time their own warmed-up steps;
`tests/sensing/test_design_peers.py` and `tests/test_peers.py` check that they compute the same.

A run of the engine uses one core, so that its bits do not depend on what runs beside it; the peers
use all cores even for one run. A second table therefore shows one core with one data set and 1 to
64 runs: the two products of a step by XLA, with each data set in its own array (as for shared
designs of few environments) or selected from one array of all, and by PyTorch on one thread and on
all.

Run `python benchmarks/designs.py`; the PyTorch rows need `pip install torch==2.13.0`.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import jax
import numpy as np
import optax
import peers

import causal_sgd as cs
from causal_sgd.sensing import metrics, models, worlds
from causal_sgd.sensing.measurements import _products, fixed_design, streamed
from causal_sgd.sensing.measurements.designs import shared_design
from causal_sgd.sweeps import _programs
from causal_sgd.training import samplers
from causal_sgd.training.algorithms import sgd
from causal_sgd.types import Measurement

DIM, ENVIRONMENTS, EXAMPLES, MINI = 50, 8, 1000, 100
RATE, SCALE = 0.01, 1e-3
WORLD = {"dim": DIM, "invariant_rank": 3, "spurious_rank": 3, "mean": 1.0, "spread": 6.0}


def engine(
    measurement: Measurement, batch_size: int, seeds: int, steps: int
) -> Callable[[], float]:
    """Compile, and return a function that measures the seconds of a step and run."""
    counts = steps, 4 * steps

    def make(num_steps: int) -> Callable[[Any], Any]:
        def cell(key: Any) -> Any:
            algorithm = sgd(
                world=worlds.two_point(**WORLD, basis="canonical"),
                sampler=samplers.hetero(batch_size=batch_size),
                measurement=measurement,
                model=models.factored(dim=DIM, init_scale=SCALE),
                optimizer=optax.sgd(RATE),
            )
            return cs.run(
                key, algorithm=algorithm, metrics=[metrics.spurious_signal], num_steps=num_steps
            )

        return cell

    cells = [make(count) for count in counts]

    def seconds(cell: Callable[[Any], Any]) -> float:
        begin = time.perf_counter()
        tile = 1 if seeds == 1 else None  # the default would pad a single run
        cs.sweep(cell, seeds=seeds, tile=tile, progress=False)
        return time.perf_counter() - begin

    for cell in cells:
        seconds(cell)
    return lambda: (seconds(cells[1]) - seconds(cells[0])) / (counts[1] - counts[0]) / seeds


def finite(
    design: jax.Array, batch_size: int | None, seeds: int, steps: int
) -> dict[str, Callable[[], float]]:
    """For each name, a function that measures the seconds of a step and run on shared data sets."""
    options: dict[str, Any] = (
        {"full": True} if batch_size is None else {"largest_batch": batch_size}
    )
    world = worlds.two_point(**WORLD, basis="canonical")(jax.random.key(0))
    problem = peers.FiniteProblem(
        design=np.array(design),  # a copy: PyTorch wants a writable array
        labels=np.array(fixed_design(design=design).init(jax.random.key(0), world)),
        order=np.random.default_rng(0).integers(ENVIRONMENTS, size=(max(5, steps), seeds)),
        init_scale=SCALE,
        learning_rate=RATE,
        batch_size=batch_size,
    )
    calls = {
        "causal_sgd": engine(
            fixed_design(design=design, **options), batch_size or EXAMPLES, seeds, steps
        ),
        "NumPy": lambda: peers.numpy_design(problem).seconds_per_step_and_run,
    }
    if importlib.util.find_spec("torch"):
        calls["PyTorch"] = lambda: peers.torch_design(problem).seconds_per_step_and_run
    return calls


def drawn(seeds: int, steps: int) -> dict[str, Callable[[], float]]:
    """The same for measurements drawn in every step; NumPy takes one run after another."""
    problem = peers.DrawnProblem(
        **WORLD, learning_rate=RATE, init_scale=SCALE, batch_size=EXAMPLES, steps=max(5, steps)
    )
    calls = {
        "causal_sgd": engine(streamed(), EXAMPLES, seeds, steps),
        "NumPy": lambda: peers.numpy_loop(problem, seed=0).seconds_per_step,
    }
    if importlib.util.find_spec("torch"):

        def by_torch() -> float:
            if seeds == 1:
                return peers.torch_loop(problem, seed=0).seconds_per_step_and_run
            return peers.torch_batched(problem, seeds=range(seeds)).seconds_per_step_and_run

        calls["PyTorch"] = by_torch
    return calls


def on_one_core(design: jax.Array, runs: int) -> dict[str, Callable[[], float]]:
    """For each name, a function that measures the products of some runs with one data set.

    Successive calls use different data sets. The functions return seconds per run.
    """
    size, width = design.shape[1:]
    core = jax.devices()[0]
    ones = [np.ones((1, runs, columns), np.float32) for columns in (size, size, width)]
    placed, *operands = jax.device_put((design, *ones), core)
    indices = [jax.device_put(np.array([index], np.int32), core) for index in range(ENVIRONMENTS)]

    def program(sets: Any) -> Callable[[int], Any]:
        lowered = jax.jit(_products.each_environment).lower(sets, indices[0], *operands)
        compiled = lowered.compile(compiler_options=_programs.CPU_OPTIONS)
        return lambda index: jax.block_until_ready(compiled(sets, indices[index], *operands))

    separate, stacked = program(tuple(placed)), program(placed)

    def timed(step: Callable[[int], Any]) -> float:
        begin = time.perf_counter()
        rounds = max(8, 2000 // runs)
        for count in range(rounds):
            step(count % ENVIRONMENTS)
        return (time.perf_counter() - begin) / rounds / runs

    calls = {"separate": lambda: timed(separate), "stacked": lambda: timed(stacked)}
    if importlib.util.find_spec("torch"):
        torch: Any = importlib.import_module("torch")  # optional, so pyright must not resolve it
        data, vectors = torch.from_numpy(np.array(design)), torch.ones(runs, width)
        targets = torch.ones(runs, size)
        threads = torch.get_num_threads()

        def by_torch(index: int) -> None:
            residuals = torch.addmm(targets, vectors, data[index].T, beta=-1)
            _ = (residuals**2).sum(1), residuals @ data[index]

        def with_threads(number: int) -> float:
            torch.set_num_threads(number)
            try:
                return timed(by_torch)
            finally:
                torch.set_num_threads(threads)

        calls |= {
            "PyTorch, 1 thread": lambda: with_threads(1),
            "PyTorch, all": lambda: with_threads(threads),
        }
    return calls


def medians_of(calls: dict[str, Callable[[], float]], repeats: int) -> dict[str, float]:
    """Medians in us; the calls alternate, so a slow moment of the machine affects all of them."""
    samples: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(repeats):
        for name, call in calls.items():
            samples[name].append(call() * 1e6)
    return {name: statistics.median(values) for name, values in samples.items()}


def print_products(design: jax.Array, repeats: int) -> None:
    """Measure and print the table of products on one core."""
    print("\nThe two products of a step with one data set, us a run:\n")
    columns = {
        "separate": "XLA, each data set an array",
        "stacked": "XLA, all in one array",
        "PyTorch, 1 thread": "PyTorch, 1 thread",
        "PyTorch, all": "PyTorch, all",
    }
    print(f"| runs | {' | '.join(columns.values())} |\n|---|---|---|---|---|")
    for runs in (1, 2, 4, 8, 16, 64):
        medians = medians_of(on_one_core(design, runs), repeats)
        cells = [f"{medians[name]:,.0f}" if name in medians else "-" for name in columns]
        print(f"| {runs} | {' | '.join(cells)} |", flush=True)


def main() -> None:
    """Measure and print a Markdown table."""
    parser = argparse.ArgumentParser(
        description="Time finite data sets and drawn measurements beside NumPy and PyTorch."
    )
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument(
        "--products", action="store_true", help="only the second table, products on one core"
    )
    parser.add_argument("--seeds", type=int, default=64, help="runs side by side")
    options = parser.parse_args()
    cs.use_cpu_cores()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    design = shared_design(
        jax.random.key(0), dim=DIM, num_environments=ENVIRONMENTS, num_examples=EXAMPLES
    )
    many = options.seeds
    rows = {
        "all 1000 of an environment, 1 run": lambda: finite(design, None, 1, 400),
        f"all 1000 of an environment, {many} runs": lambda: finite(design, None, many, 20),
        "100 of 1000, 1 run": lambda: finite(design, MINI, 1, 1000),
        f"100 of 1000, {many} runs": lambda: finite(design, MINI, many, 40),
        "1000 drawn, 1 run": lambda: drawn(1, 20),
        f"1000 drawn, {min(many, 4)} runs": lambda: drawn(min(many, 4), 6),
    }
    print(f"d = 50, {cores} cores, load {os.getloadavg()[0]:.1f}, jax {jax.__version__}; ", end="")
    print(f"median of {options.repeats}\n")
    if options.products:
        print_products(design, options.repeats)
        return
    print("| us a step and run | causal_sgd | NumPy | PyTorch | best peer / causal_sgd |")
    print("|---|---|---|---|---|")
    for name, prepare in rows.items():
        medians = medians_of(prepare(), options.repeats)
        ours = medians["causal_sgd"]
        best = min(value for peer, value in medians.items() if peer != "causal_sgd")
        torch = f"{medians['PyTorch']:,.0f}" if "PyTorch" in medians else "-"
        cells = [name, f"{ours:,.0f}", f"{medians['NumPy']:,.0f}", torch, f"{best / ours:.2f}"]
        print(f"| {' | '.join(cells)} |", flush=True)
    print_products(design, options.repeats)


if __name__ == "__main__":
    main()
