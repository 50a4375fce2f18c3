"""Compare a step of the engine with its unavoidable work, the roofline.

For the exact law with U [d, d] this is two matrix products (the estimate U U', and the gradient
times U) and d (d + 1) / 2 normal numbers. For the low-rank law with U [d, k] and n = k + r1 + r2 it
is an orthonormal frame [d, n] (2 d n^2 operations), the products of normals with the frame, with U
and back (2 d n k each, and 2 d k^2), and d k normals. For the chain of order parameters with k
columns and r = r1 + r2 it is, at any d, the products of [n, k] and [n, n] matrices with n = r + k,
two triangles of [n, k] (2 n k^2 each), and n (n + 1) / 2 + k (k + 1) / 2 normals. Each part is
timed alone in the same process, in turns with the engine's steps, on the same cores and with as
many runs side by side as in the engine's tiles: batched float32 products, the faster of X Y and X
Y'; normals from the engine's generator. The pace of a shared machine changes by the minute, so a
ratio is the median over single turns. The engine is timed as `causal_sgd.sweep` runs it, by the
difference of two sweeps of the same shapes with different numbers of steps.

Run `python benchmarks/roofline.py`; `--profile` adds a breakdown of a step on one core. With
another sampler, such as `--sampler pooled`, a step also draws counts and treats several
environments per batch; the roofline stays the same.
"""

from __future__ import annotations

import argparse
import collections
import functools
import gzip
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import causal_sgd as cs
from causal_sgd import random
from causal_sgd.experiment import Experiment
from causal_sgd.sweeps._programs import CPU_OPTIONS

RANK = 3  # r1 and r2
MOST_ROUNDS = 20_000  # of a piece of work in one call
CHAIN_RANK = 2  # of the chain, with CHAIN_COLUMNS columns: r + k = 8
CHAIN_COLUMNS = 4
LAWS: dict[str, dict[str, Any]] = {
    "exact": {"measurement": "gaussian-law"},
    "low-rank": {"measurement": "low-rank-law"},
    "chain": {"measurement": "order-parameter-law", "model": "order-parameters"},
}
Sample = Callable[[], float]
"""Do a piece of work and return its seconds per run."""


def side_by_side(function: Callable[..., Any], arguments: tuple[Any, ...]) -> Callable[[], float]:
    """Compile a function for each device; the result runs them all at once and returns seconds."""
    devices = jax.local_devices()
    options = CPU_OPTIONS if devices[0].platform == "cpu" else None
    calls = []
    for device in devices:
        placed = jax.device_put(arguments, device)
        calls.append((jax.jit(function).lower(*placed).compile(compiler_options=options), placed))
    pool = ThreadPoolExecutor(len(calls))

    def seconds() -> float:
        begin = time.perf_counter()
        list(pool.map(lambda call: jax.block_until_ready(call[0](*call[1])), calls))
        return time.perf_counter() - begin

    seconds()
    return seconds


def product(left: tuple[int, int], right: tuple[int, int], batch: int) -> Sample:
    """A batched product [n, m] by [m, l] on all devices at once, in the faster form."""
    flops = 2 * left[0] * left[1] * right[1]
    rounds = int(np.clip(4e9 / (flops * batch), 4, MOST_ROUNDS))
    x = jax.random.normal(jax.random.key(0), (batch, *left)) * left[1] ** -0.5
    y = jax.random.normal(jax.random.key(1), (batch, *right)) * left[1] ** -0.5

    def loop(x: Any, y: Any, *, form: str) -> Any:
        y = jnp.swapaxes(y, 1, 2) if form == "XY'" else y

        def step(carry: Any, _: Any) -> tuple[Any, None]:
            x = carry[0]
            out = jnp.einsum(
                "bij,bjk->bik" if form == "XY" else "bij,bkj->bik", x, y, precision="highest"
            )
            # One number of the result enters the next product, so XLA can skip none.
            return (x.at[:, 0, 0].add(1e-9 * out[:, 0, 0]), out), None

        start = x, jnp.zeros((batch, left[0], right[1]), x.dtype)
        return jax.lax.scan(step, start, None, length=rounds)[0]

    forms = [side_by_side(functools.partial(loop, form=form), (x, y)) for form in ("XY", "XY'")]
    fastest = min(forms, key=lambda form: statistics.median(form() for _ in range(3)))
    return lambda: fastest() / rounds / batch / jax.local_device_count()


def normals(count: int, batch: int) -> Sample:
    """Draw `count` normals with the engine's generator on all devices at once."""
    padded = -(-count // 32) * 32  # whole vectors, as in the engine
    rounds = int(np.clip(2e7 / (padded * batch), 4, MOST_ROUNDS))

    def loop(keys: Any) -> Any:
        def step(carry: Any, index: Any) -> tuple[Any, None]:
            def draw(key: Any) -> Any:
                return random.normals(random.fold_in(key, index), padded, jnp.float32)

            return jax.vmap(draw)(keys), None

        return jax.lax.scan(step, jnp.zeros((keys.shape[0], padded)), jnp.arange(rounds))[0]

    timed = side_by_side(loop, (jax.random.split(jax.random.key(2), batch),))
    return lambda: timed() * count / padded / rounds / batch / jax.local_device_count()


def engine(law: str, dim: int, rank: int | None, runs: int, sampler: str) -> tuple[Sample, int]:
    """A function that times a step and run, and the tile size."""
    per_step = {
        "exact": 3e-9 * (dim**2 + dim**3 / 20),
        "low-rank": 2e-7 * dim * (rank or dim) ** 0.5,
        "chain": 3e-6,
    }[law]
    long = int(np.clip(4 / per_step / runs, 10, 4000))
    short = max(long // 5, 2)
    batch_size = 4 * dim if law == "chain" else 4000
    base = Experiment(
        dim=dim,
        rank=rank,
        invariant_rank=CHAIN_RANK if law == "chain" else RANK,
        spurious_rank=CHAIN_RANK if law == "chain" else RANK,
        spread=6.0,
        learning_rate=0.02,
        batch_size=batch_size,
        sampler=sampler,
        metrics=("spurious_signal",),
        **LAWS[law],
    )
    cells = {steps: base.replace(steps=steps).cell() for steps in (short, long)}
    axes = {"batch_size": [batch_size]} | ({"dim": [dim]} if law == "chain" else {})

    def seconds(steps: int) -> tuple[float, int]:
        begin = time.perf_counter()
        dataset = cs.sweep(cells[steps], axes=axes, seeds=runs, progress=False)
        return time.perf_counter() - begin, int(dataset.attrs["tile"])

    _, tile = seconds(short)
    seconds(long)
    return lambda: (seconds(long)[0] - seconds(short)[0]) / (long - short) / runs, tile


def dense_roof(dim: int, tile: int) -> tuple[list[Sample], Sample]:
    """The products and the normals of one step of the exact law."""
    square = product((dim, dim), (dim, dim), tile)
    return [square, square], normals(dim * (dim + 1) // 2, tile)


def low_rank_roof(dim: int, rank: int, tile: int) -> tuple[list[Sample], Sample]:
    """The products and the normals of one step of the low-rank law."""
    frame = rank + 2 * RANK
    products = [
        product((frame, dim), (dim, frame), tile),
        product((frame, dim), (dim, rank), tile),
        product((dim, frame), (frame, rank), tile),
        product((dim, rank), (rank, rank), tile),
    ]
    return products, normals(dim * rank, tile)


def chain_roof(rank: int, tile: int) -> tuple[list[Sample], Sample]:
    """The products and the normals of one step of the chain."""
    inside = rank + 2 * CHAIN_RANK
    products = [
        product((inside, rank), (rank, inside), tile),
        product((inside, inside), (inside, rank), tile),
        product((rank, rank), (rank, rank), tile),
        *[product((rank, inside), (inside, rank), tile)] * 2,
    ]
    return products, normals((inside * (inside + 1) + rank * (rank + 1)) // 2, tile)


def profile(dim: int, tile: int, sampler: str, steps: int = 300) -> None:
    """Print the time of a step of the exact law on one core, by fusion of the tile's program."""
    experiment = Experiment(
        dim=dim,
        invariant_rank=RANK,
        spurious_rank=RANK,
        spread=6.0,
        learning_rate=0.02,
        steps=steps,
        sampler=sampler,
        metrics=("spurious_signal",),
    )
    cell = experiment.cell()
    keys = jax.random.split(jax.random.key(0), tile)
    many = jax.jit(jax.vmap(lambda key, size: cell(key, batch_size=size)))
    program = many.lower(keys, jnp.full(tile, 4000)).compile(compiler_options=CPU_OPTIONS)
    jax.block_until_ready(program(keys, jnp.full(tile, 4000)))
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            jax.block_until_ready(program(keys, jnp.full(tile, 4000)))
        (trace,) = Path(folder).glob("**/*.trace.json.gz")
        with gzip.open(trace) as file:
            events = json.load(file)["traceEvents"]
    spent, calls = collections.Counter(), collections.Counter()
    for event in events:
        if event.get("ph") == "X" and not event["name"].startswith("end: "):
            spent[event["name"]] += event["dur"]
            calls[event["name"]] += 1
    print(f"\nd = {dim}: us a step and run, one core, {tile} runs side by side\n")
    print("| operation of the program | us |\n|---|---|")
    for name, microseconds in spent.most_common():
        if calls[name] == steps and microseconds / steps / tile > 0.05:
            print(f"| {name} | {microseconds / steps / tile:.2f} |")


def main() -> None:
    """Measure and print Markdown tables."""
    parser = argparse.ArgumentParser(
        description="Compare a step of the engine with its unavoidable work."
    )
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--runs", type=int, default=256, help="runs in a sweep")
    parser.add_argument("--dims", type=int, nargs="*", default=[20, 50, 100, 200])
    parser.add_argument(
        "--low-rank-dims", type=int, nargs="*", default=[500, 1000, 2000, 5000, 10000]
    )
    parser.add_argument("--chain-dims", type=int, nargs="*", default=[10**2, 10**4, 10**7])
    parser.add_argument("--ranks", type=int, nargs="*", default=[10, 20])
    parser.add_argument("--sampler", choices=Experiment.choices()["sampler"], default="hetero")
    parser.add_argument(
        "--profile",
        action="store_true",
        help="also print a breakdown of a step of the exact law",
    )
    options = parser.parse_args()
    cs.use_cpu_cores()
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, jax {jax.__version__}; ", end="")
    print(f"median of {options.repeats}\n")
    print("| law | d | k | tile | step, us a run | products | normals | roofline / step |")
    print("|---|---|---|---|---|---|---|---|")

    def row(law: str, dim: int, rank: int | None) -> int:
        runs = options.runs
        if law == "low-rank":
            runs = max(min(runs, 40_000 // dim), 2)
        elif law == "chain":
            runs *= 8  # its tiles are large
        step, tile = engine(law, dim, rank, runs, options.sampler)
        if law == "chain":
            products, numbers = chain_roof(rank or dim, tile)
        elif rank is None:
            products, numbers = dense_roof(dim, tile)
        else:
            products, numbers = low_rank_roof(dim, rank, tile)
        turns = [
            (step(), sum(each() for each in products), numbers()) for _ in range(options.repeats)
        ]
        share = statistics.median(
            (products_time + normals_time) / step_time
            for step_time, products_time, normals_time in turns
        )
        medians = [statistics.median(column) for column in zip(*turns, strict=True)]
        cells = " | ".join(f"{1e6 * median:,.2f}" for median in medians)
        print(f"| {law} | {dim} | {rank or dim} | {tile} | {cells} | {share:.2f} |", flush=True)
        return tile

    tiles = {dim: row("exact", dim, None) for dim in options.dims}
    for dim in options.low_rank_dims:
        for rank in options.ranks:
            row("low-rank", dim, rank)
    for dim in options.chain_dims:
        row("chain", dim, CHAIN_COLUMNS)
    if options.profile:
        for dim, tile in tiles.items():
            profile(dim, tile, options.sampler)


if __name__ == "__main__":
    main()
