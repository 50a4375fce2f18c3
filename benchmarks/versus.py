"""The engine beside what people write today, in one process: cost of a step per run, and the ratio.

The work is HeteroSGD at d = 50 with batch 1000. The engine is timed as `causal_sgd.sweep` runs it, on all cores: two
numbers of steps at the same shapes, whose difference leaves out compilation and start. The peers (`peers.py`, agreement in
distribution is tested in `tests/test_peers.py`) time themselves on warmed-up steps.

Run `python benchmarks/versus.py`; the PyTorch rows need `pip install torch==2.13.0`.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import statistics
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import jax
import peers

import causal_sgd as cs
from causal_sgd.experiment import Experiment

WORK: dict[str, Any] = {
    "dim": 50, "invariant_rank": 3, "spurious_rank": 3, "mean": 1.0, "spread": 6.0, "learning_rate": 0.1,
    "init_scale": 1e-3,
}  # fmt: skip


def engine(batch_sizes: tuple[int, ...], repeats: int, seeds: int) -> dict[int, float]:
    """Seconds per step and run for each batch size, without recompiling between them."""
    short, long = 100, 600
    cells = {steps: Experiment(**WORK, steps=steps, metrics=("spurious_signal",)).cell() for steps in (short, long)}

    def seconds(steps: int, batch_size: int) -> float:
        begin = time.perf_counter()
        cs.sweep(cells[steps], axes={"batch_size": [batch_size]}, seeds=seeds, progress=False)
        return time.perf_counter() - begin

    for steps in cells:
        seconds(steps, 1000)
    samples: dict[int, list[float]] = {size: [] for size in batch_sizes}
    for _ in range(repeats):
        for size in batch_sizes:  # interleaved, so that a slow moment of the machine hits all of them
            samples[size].append((seconds(long, size) - seconds(short, size)) / (long - short) / seeds)
    return {size: statistics.median(values) for size, values in samples.items()}


def main() -> None:
    """Measure and print a Markdown table."""
    parser = argparse.ArgumentParser(
        description="Measure the engine beside what people use, and print a Markdown table."
    )
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--seeds", type=int, default=256)
    parser.add_argument("--peer-steps", type=int, default=12)
    options = parser.parse_args()
    cs.use_cpu_cores()
    ours = engine((100, 1000, 4000), options.repeats, options.seeds)
    rows = {f"causal_sgd, batch {size}": value for size, value in ours.items()}
    work = WORK | {"batch_size": 1000, "steps": options.peer_steps}

    def median(call: Any) -> float:
        return statistics.median(call().seconds_per_step for _ in range(options.repeats))

    rows["NumPy loop as one writes it first, batch 1000"] = median(lambda: peers.numpy_plain(**work, seed=0))
    rows["NumPy loop tuned, threaded draws, batch 1000"] = median(lambda: peers.numpy_loop(**work, seed=0))
    batch = range(4)
    rows["jit(vmap) over drawn measurements, batch 1000"] = median(lambda: peers.jax_drawn(**work, seeds=batch)) / len(
        batch
    )
    if importlib.util.find_spec("torch"):
        rows["PyTorch loop, batch 1000"] = median(lambda: peers.torch_loop(**work, seed=0))
        rows["PyTorch batched, batch 1000"] = median(lambda: peers.torch_batched(**work, seeds=batch)) / len(batch)
    base = ours[1000]
    print(
        f"d = 50, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, jax {jax.__version__}; median of {options.repeats}\n"
    )
    print("| what | us a step and run | times the engine |\n|---|---|---|")
    for name, value in rows.items():
        print(f"| {name} | {value * 1e6:,.1f} | {value / base:,.2f} |")


if __name__ == "__main__":
    main()
