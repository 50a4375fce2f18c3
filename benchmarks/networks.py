"""Throughput of a network behind gates on coloured digits, beside the same runs in PyTorch.

A sweep trains the network (197 inputs, 32 hidden units, a gate for every input) by HeteroSGD with
batches of 128 examples of one environment: 8 seeds at 5 step sizes, 4000 steps each, judged in
three environments of the test every 200 steps. Labels and colours are drawn anew with every example
(`worlds.coloured_digits`), or the examples are rows of fixed arrays. The peer is a loop over runs
and steps with `nn.Module` and `torch.optim.SGD` (`pip install torch==2.13.0`), which indexes
tensors of the environment or asks a DataLoader, with all threads and with one. It runs some steps
in turns with the sweep, in the same process; ratios are medians over the turns. At the end it
trains all seeds at one step size in full, where it must reach the same accuracies.
"""

from __future__ import annotations

import argparse
import functools
import importlib
import importlib.util
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).parent))

import jax
import jax.numpy as jnp
import numpy as np
import optax
import peers
import summary
import xarray as xr

import causal_sgd as cs
from causal_sgd import random
from causal_sgd.supervised import losses, measurements, metrics, models, worlds
from causal_sgd.training import samplers
from causal_sgd.types import Array, Key, Params, Trace

HIDDEN, START = 32, 0.7
LABEL_FLIP, COLOUR_FLIPS, TEST_FLIPS = 0.25, (0.05, 0.75), (0.9, 0.5, 0.1)
RATES = (0.2, 0.4, 0.6, 0.8, 1.0)
COMPARED = 0.8  # the step size of the runs in full
LIMIT = 20.0  # seconds of a sweep, and how many times as long the peer takes at least
MOST_ERRORS = 4.5  # standard errors between the mean accuracies of both
KINDS = {"drawn": "labels and colours drawn anew", "rows": "rows of fixed arrays"}


class Sizes(NamedTuple):
    """How much is computed."""

    seeds: int = 8
    steps: int = 4000
    every: int = 200
    batch: int = 128
    peer_steps: int = 1000  # of a turn
    loader_steps: int = 200
    images: str | tuple[np.ndarray, np.ndarray] = "mnist"


def quick_sizes() -> Sizes:
    """Sizes whose figures say little, with images that need no package."""
    rng = np.random.default_rng(0)
    return Sizes(2, 8, 4, 16, 4, 4, (rng.random((60, 4)), np.arange(60) % 10))


def network(inputs: int) -> models.VectorModel:
    """One hidden layer behind a gate for every input; matrices as in PyTorch, [outputs, inputs]."""

    def init(key: Key) -> Params:
        first = random.normals(random.fold_in(key, 0), (HIDDEN, inputs), float)
        last = random.normals(random.fold_in(key, 1), (HIDDEN,), float)
        return {
            "first": first * (2 / inputs) ** 0.5,
            "offsets": jnp.zeros(HIDDEN),
            "last": last * HIDDEN**-0.5,
            "intercept": jnp.zeros(()),
        }

    def apply(params: Params, x: Array) -> Array:
        hidden = jax.nn.relu(params["first"] @ x + params["offsets"])
        return params["last"] @ hidden + params["intercept"]

    return models.input_gates(models.network(init, apply), groups=inputs, start=START)


def world_of(kind: str, sizes: Sizes) -> worlds.WorldFactory:
    """Coloured digits as a law, or as data."""
    return worlds.coloured_digits(
        invariant_flip=LABEL_FLIP,
        spurious_flips=COLOUR_FLIPS,
        test_flips=TEST_FLIPS,
        images=sizes.images,
        fixed=kind == "rows",
    )


def cell(key: Key, *, learning_rate: Array, kind: str, sizes: Sizes) -> Trace:
    """One run."""
    batch, loss = sizes.batch, losses.logistic
    world = world_of(kind, sizes)
    measurement = (
        measurements.examples(fresh=batch, loss=loss)
        if kind == "drawn"
        else measurements.examples(slots=batch, replacement=True, loss=loss)
    )
    algorithm = cs.sgd(
        world=world,
        sampler=samplers.hetero(batch_size=batch),
        measurement=measurement,
        model=network(jax.eval_shape(world, key).estimate_shape[0]),
        optimizer=optax.sgd(learning_rate),
    )
    return cs.run(
        key,
        algorithm=algorithm,
        metrics=[metrics.accuracies],
        num_steps=sizes.steps,
        record_every=sizes.every,
    )


class Spent(NamedTuple):
    """Seconds of a step and run, and those of all cores together."""

    wall: float
    cpu: float


def engine(kind: str, sizes: Sizes) -> tuple[Spent, xr.Dataset]:
    """The cost of the sweep, and its results."""
    begin, before = time.perf_counter(), time.process_time()
    runs = cs.sweep(
        functools.partial(cell, kind=kind, sizes=sizes),
        axes={"learning_rate": np.array(RATES)},
        seeds=sizes.seeds,
        progress=False,
    ).load()
    wall, cpu = time.perf_counter() - begin, time.process_time() - before
    work = len(RATES) * sizes.seeds * sizes.steps
    return Spent(wall / work, cpu / work), runs


def problem_of(sizes: Sizes) -> peers.NetworkProblem:
    """The same images and training for the peers."""
    law, fixed = (world_of(kind, sizes)(jax.random.key(0)) for kind in KINDS)
    assert isinstance(law, worlds.DigitsWorld)
    assert isinstance(fixed, worlds.DataWorld)
    return peers.NetworkProblem(
        images=np.asarray(law.images),
        bits=np.asarray(law.bits),
        rows=np.asarray(fixed.rows.inputs),
        labels=np.asarray(fixed.rows.labels),
        test_images=np.asarray(law.test_images),
        test_bits=np.asarray(law.test_bits),
        label_flip=LABEL_FLIP,
        colour_flips=COLOUR_FLIPS,
        test_flips=TEST_FLIPS,
        hidden=HIDDEN,
        batch=sizes.batch,
        start=START,
        steps=sizes.steps,
        record_every=sizes.every,
    )


def ways(kind: str, threads: Sequence[int]) -> list[tuple[str, str, int]]:
    """Rows of PyTorch: name, batches and threads; none without PyTorch."""
    if importlib.util.find_spec("torch") is None:
        return []
    numbers = sorted(set(threads) or {1, importlib.import_module("torch").get_num_threads()})
    return [
        (f"PyTorch, {name}, {count} thread{'s' * (count > 1)}", batches, count)
        for name, batches in (("indexing", kind), ("DataLoader", f"{kind}, DataLoader"))
        for count in numbers
    ]


def compare(
    kind: str, sizes: Sizes, repeats: int, rows: Sequence[tuple[str, str, int]]
) -> tuple[str, xr.Dataset, float]:
    """Time the sweep and its peers in turns; the table, the runs and the ratio of the best peer."""
    first, runs = engine(kind, sizes)
    work = len(RATES) * sizes.seeds * sizes.steps
    problem = problem_of(sizes)
    spent: dict[str, list[Spent]] = {"causal_sgd": []} | {name: [] for name, _, _ in rows}
    for _ in range(repeats):
        spent["causal_sgd"].append(engine(kind, sizes)[0])
        for name, batches, threads in rows:
            steps = sizes.loader_steps if "DataLoader" in name else sizes.peer_steps
            before = time.process_time()
            result = peers.torch_network(
                problem._replace(steps=steps),
                batches,
                learning_rate=COMPARED,
                seed=0,
                threads=threads,
            )
            cpu = time.process_time() - before
            spent[name].append(Spent(result.seconds / steps, cpu / steps))
    ratios = {
        name: np.median(np.divide(costs, spent["causal_sgd"]), 0) for name, costs in spent.items()
    }
    lines = [
        f"| {KINDS[kind]} | s, {len(RATES) * sizes.seeds} runs of {sizes.steps} steps | us a step "
        "and run | times the engine | CPU us a step and run | times the engine's |",
        "|---|---|---|---|---|---|",
    ]
    for name, costs in spent.items():
        wall, cpu = np.median(costs, 0)
        note = f" (the first call: {first.wall * work:.3g} s)" if name == "causal_sgd" else ""
        lines.append(
            f"| {name}{note} | {wall * work:,.3g} | {wall * 1e6:,.3g} | {ratios[name][0]:,.3g} | "
            f"{cpu * 1e6:,.3g} | {ratios[name][1]:,.3g} |"
        )
    best = min(
        (float(ratios[name][0]) for name, _, _ in rows if "indexing" in name), default=np.nan
    )
    return "\n".join(lines), runs, best


def agreement(kind: str, sizes: Sizes, runs: xr.Dataset) -> str:
    """Train all seeds at one step size in PyTorch, and compare the accuracies.

    Raises:
        SystemExit: if they differ by more than noise.
    """
    problem = problem_of(sizes)
    theirs = np.array(
        [
            peers.torch_network(
                problem, kind, learning_rate=COMPARED, seed=seed, threads=1
            ).accuracies
            for seed in range(sizes.seeds)
        ]
    )
    last = runs.accuracies.isel(step=-1).sel(learning_rate=COMPARED, method="nearest")
    ours = last.transpose("seed", ...).values
    error = np.sqrt((ours.var(0, ddof=1) + theirs.var(0, ddof=1)) / sizes.seeds)
    apart = np.abs(ours.mean(0) - theirs.mean(0)) / np.maximum(error, 1e-3)
    text = (
        f"accuracies at the step size {COMPARED:g}, {sizes.seeds} seeds: here "
        f"{_listed(ours.mean(0))}, PyTorch {_listed(theirs.mean(0))}, at most {apart.max():.1f} "
        "standard errors apart"
    )
    if apart.max() > MOST_ERRORS:
        raise SystemExit(f"both must train alike, got {text}")
    return text


def _listed(numbers: np.ndarray) -> str:
    return ", ".join(f"{number:.3f}" for number in numbers)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print Markdown tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument(
        "--threads", type=int, nargs="+", default=[], help="of PyTorch; 1 and its own by default"
    )
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--quick", action="store_true", help="tiny sizes, whose figures say little")
    parser.add_argument(
        "--write", type=Path, metavar="FOLDER", help="also write them into benchmarks/README.md"
    )
    options = parser.parse_args(arguments)
    if options.repeats < 1:
        parser.error(f"--repeats must be at least 1, got {options.repeats}")
    cs.use_cpu_cores()
    sizes = quick_sizes() if options.quick else Sizes()
    repeats = 1 if options.quick else options.repeats
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, jax {jax.__version__}; ", end="")
    print(f"median of {repeats}", flush=True)
    shown = []
    for kind in options.kinds:
        table, runs, best = compare(kind, sizes, repeats, ways(kind, options.threads))
        shown.append(table)
        print(f"\n{table}\n", flush=True)
        if np.isnan(best):
            print("torch is not installed: no peer is timed")
            continue
        print(f"indexing PyTorch at its best takes {best:.3g} times as long (aim: {LIMIT:g})")
        print(agreement(kind, sizes, runs), flush=True)
    if options.write is not None:
        path = options.write / "benchmarks" / "README.md"
        summary.write(path, summary.NETWORKS, "\n\n".join(shown))
        summary.summarise(options.write)


if __name__ == "__main__":
    main()
