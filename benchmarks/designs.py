"""Finite data sets, and measurements really drawn, beside NumPy and PyTorch on the same work, in one process.

What is measured is a step of HeteroSGD at d = 50: 8 environments of 1000 examples each that all the runs share (41 MB in
packed coordinates), of which a step of a run takes all 1000 of one environment, or 100 drawn without replacement; for one
run, and for 64 seeds at once. Under "drawn" every step of every run draws 1000 new measurements (`streamed`). The engine
is timed as `causal_sgd.sweep` runs it, by the difference of two numbers of steps at the same shapes, which leaves out
compilation and start. The peers (`peers/`) time themselves on warmed-up steps; that they compute the
same is tested in `tests/test_design_peers.py` and `tests/test_peers.py`.

A run keeps to one core, whatever runs beside it, so that its bits do not depend on that; the peers use all for one run too. A second
table therefore shows what one core can do with a data set and 1 to 64 runs: the two products of a step by XLA, where each data set
is an array of its own (as for shared designs of few environments) and where one is picked from an array of all, and by
PyTorch on one thread and on all.

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
from causal_sgd.sensing.measurements._designs import shared_design
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
    """A function that measures the seconds of a step of one run; what compiles has been compiled."""
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
        cs.sweep(cell, seeds=seeds, tile=1 if seeds == 1 else None, progress=False)  # else padded
        return time.perf_counter() - begin

    for cell in cells:
        seconds(cell)
    return lambda: (seconds(cells[1]) - seconds(cells[0])) / (counts[1] - counts[0]) / seeds


def finite(
    design: jax.Array, batch_size: int | None, seeds: int, steps: int
) -> dict[str, Callable[[], float]]:
    """Name -> a function that measures the seconds of a step of one run on the shared data sets."""
    options: dict[str, Any] = (
        {"full": True} if batch_size is None else {"largest_batch": batch_size}
    )
    world = worlds.two_point(**WORLD, basis="canonical")(jax.random.key(0))
    problem = peers.FiniteProblem(
        design=np.array(design),  # a copy, which PyTorch may consider writable
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
    """The same for measurements that are drawn in every step; NumPy goes run by run."""
    problem = peers.DrawnProblem(
        **WORLD, learning_rate=RATE, init_scale=SCALE, batch_size=EXAMPLES, steps=max(5, steps)
    )
    calls = {
        "causal_sgd": engine(streamed(), EXAMPLES, seeds, steps),
        "NumPy": lambda: peers.numpy_loop(problem, seed=0).seconds_per_step,
    }
    if importlib.util.find_spec("torch"):
        calls["PyTorch"] = lambda: (
            (
                peers.torch_loop(problem, seed=0)
                if seeds == 1
                else peers.torch_batched(problem, seeds=range(seeds))
            ).seconds_per_step_and_run
        )
    return calls


def on_one_core(design: jax.Array, runs: int) -> dict[str, Callable[[], float]]:
    """Name -> seconds a run of the products of so many runs with one data set, another one each time."""
    size, width = design.shape[1:]
    shape = 1, runs, size
    core = jax.devices()[0]
    held, *some = jax.device_put(
        (
            design,
            np.ones(shape, np.float32),
            np.ones(shape, np.float32),
            np.ones((1, runs, width), np.float32),
        ),
        core,
    )
    places = [jax.device_put(np.array([place], np.int32), core) for place in range(ENVIRONMENTS)]

    def program(sets: Any) -> Callable[[int], Any]:
        lowered = jax.jit(_products.each_environment).lower(sets, places[0], *some)
        compiled = lowered.compile(compiler_options=_programs.CPU_OPTIONS)
        return lambda place: jax.block_until_ready(compiled(sets, places[place], *some))

    separate, stacked = program(tuple(held)), program(held)

    def timed(step: Callable[[int], Any]) -> float:
        begin = time.perf_counter()
        rounds = max(8, 2000 // runs)
        for count in range(rounds):
            step(count % ENVIRONMENTS)
        return (time.perf_counter() - begin) / rounds / runs

    calls = {"separate": lambda: timed(separate), "stacked": lambda: timed(stacked)}
    if importlib.util.find_spec("torch"):
        torch: Any = importlib.import_module(
            "torch"
        )  # by name, as types are checked without it too
        data, ones = torch.from_numpy(np.array(design)), torch.ones(runs, width)
        targets = torch.ones(runs, size)
        threads = torch.get_num_threads()

        def by_torch(place: int) -> None:
            residuals = torch.addmm(targets, ones, data[place].T, beta=-1)
            _ = (residuals**2).sum(1), residuals @ data[place]

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
    """Medians in us; interleaved, so that a slow moment of the machine hits all of them."""
    samples: dict[str, list[float]] = {what: [] for what in calls}
    for _ in range(repeats):
        for what, call in calls.items():
            samples[what].append(call() * 1e6)
    return {what: statistics.median(values) for what, values in samples.items()}


def print_products(design: jax.Array, repeats: int) -> None:
    """Measure and print the table of products on one core."""
    print("\nThe two products of a step with one data set, us a run:\n")
    columns = {
        "separate": "XLA, each data set an array", "stacked": "XLA, all in one array",
        "PyTorch, 1 thread": "PyTorch, 1 thread", "PyTorch, all": "PyTorch, all",
    }  # fmt: skip
    print(f"| runs | {' | '.join(columns.values())} |\n|---|---|---|---|---|")
    for runs in (1, 2, 4, 8, 16, 64):
        found = medians_of(on_one_core(design, runs), repeats)
        cells = [f"{found[what]:,.0f}" if what in found else "-" for what in columns]
        print(f"| {runs} | {' | '.join(cells)} |", flush=True)


def main() -> None:
    """Measure and print a Markdown table."""
    parser = argparse.ArgumentParser(
        description="Measure data sets and drawn measurements beside NumPy and PyTorch; print a Markdown table."
    )
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument(
        "--products", action="store_true", help="only the second table, products on one core"
    )
    parser.add_argument("--seeds", type=int, default=64, help="runs that go together")
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
    print(
        f"d = 50, {cores} cores, load {os.getloadavg()[0]:.1f}, jax {jax.__version__}; median of {options.repeats}\n"
    )
    if options.products:
        print_products(design, options.repeats)
        return
    print(
        "| us a step and run | causal_sgd | NumPy | PyTorch | best peer / causal_sgd |\n|---|---|---|---|---|"
    )
    for name, prepare in rows.items():
        medians = medians_of(prepare(), options.repeats)
        ours, best = (
            medians["causal_sgd"],
            min(value for what, value in medians.items() if what != "causal_sgd"),
        )
        torch = f"{medians['PyTorch']:,.0f}" if "PyTorch" in medians else "-"
        print(
            f"| {name} | {ours:,.0f} | {medians['NumPy']:,.0f} | {torch} | {best / ours:.2f} |",
            flush=True,
        )
    print_products(design, options.repeats)


if __name__ == "__main__":
    main()
