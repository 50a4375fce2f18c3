"""Cost of a step on a batch of examples: all of a data set weighed, or the chosen ones gathered.

HeteroSGD with weights u^2 - v^2 on `worlds.fixed_design`, 100 inputs and two environments, by
`measurements.examples` with and without `most`: both draw the same law
(`tests/supervised/test_examples_chosen.py`). Each cost is the difference of two numbers of steps of
one compiled program, for all runs at once; the two take turns, and ratios are medians over turns.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable, Sequence

import jax
import numpy as np
import optax

import causal_sgd as cs
from causal_sgd.supervised import measurements, metrics, models, worlds
from causal_sgd.training import samplers
from causal_sgd.types import Array, Key

DIM = 100
SIZES = ((40, 1), (1000, 1), (1000, 8), (1000, 64))  # examples, and those of a batch


def steps_of(
    examples: int, batch: int, most: int | None, seeds: int, steps: int
) -> Callable[[], float]:
    """Compile, and return a function that measures the seconds of a step and run."""
    weights = np.zeros((2, DIM))
    weights[:, 0], weights[:, 1] = 1, (2.5, -1.5)

    def last(key: Key, *, num_steps: int) -> Array:
        algorithm = cs.sgd(
            world=worlds.fixed_design(weights, num_examples=examples),
            sampler=samplers.hetero(batch_size=batch),
            measurement=measurements.examples(most=most),
            model=models.hadamard(dim=DIM, signed=True),
            optimizer=optax.sgd(1e-3),
        )
        trace = cs.run(
            key, algorithm=algorithm, metrics=[metrics.estimation_error], num_steps=num_steps
        )
        return trace.metrics["estimation_error"]

    keys = jax.random.split(jax.random.key(0), seeds)
    programs = [
        jax.jit(jax.vmap(lambda key, count=count: last(key, num_steps=count))).lower(keys).compile()
        for count in (steps, 4 * steps)
    ]

    def seconds() -> float:
        spent = []
        for program in programs:
            begin = time.perf_counter()
            jax.block_until_ready(program(keys))
            spent.append(time.perf_counter() - begin)
        return (spent[1] - spent[0]) / (3 * steps) / seeds

    seconds()
    return seconds


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--seeds", type=int, default=16, help="runs of a program that is timed")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, whose figures say little")
    options = parser.parse_args(arguments)
    repeats, steps = (1, 5) if options.quick else (options.repeats, 300)
    seeds = 2 if options.quick else options.seeds
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, jax {jax.__version__}; ", end="")
    print(f"median of {repeats}\n")
    print("| examples | batch | weighed, us a step and run | gathered | weighed / gathered |")
    print("|---|---|---|---|---|")
    for examples, batch in SIZES[:1] if options.quick else SIZES:
        timed = [steps_of(examples, batch, most, seeds, steps) for most in (None, batch)]
        turns = [[one() for one in timed] for _ in range(repeats)]
        weighed, gathered = (1e6 * statistics.median(each) for each in zip(*turns, strict=True))
        ratio = statistics.median(one / other for one, other in turns)
        print(
            f"| {examples} | {batch} | {weighed:.3g} | {gathered:.3g} | {ratio:.3g} |", flush=True
        )


if __name__ == "__main__":
    main()
