"""The invariance unit tests of Aubin et al. (2021), whose tables took 630,000 jobs of a cluster.

The default table has six examples, five methods, 50 data seeds and 20 hyperparameter seeds, each
run trained for 10,000 steps in three environments with 5 + 5 inputs. `--all` has 2 to 10
environments and 0 to 10 spurious inputs, too. All runs train on the population: on exact moments
where the loss is squared, and by quadrature where it is logistic. Errors are those of the
population, too, so that the choice of hyperparameters is that of infinitely many held-out examples.

`python benchmarks/unit_tests.py --tables out/` writes `unit_tests.csv` and `unit_tests_seeds.csv`,
and with `--all` the figure `unit_tests.png`.
What is finished lies in out/unit_tests_store, and the same call goes on from there. At the end one
job as PyTorch users write it is timed in the same process (`pip install torch==2.13.0`).
"""

from __future__ import annotations

import argparse
import csv
import functools
import importlib.util
import os
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).parent))

import numpy as np
import peers
import summary
import xarray as xr

import causal_sgd as cs
from causal_sgd.studies.supervised import _unit_tests as unit_tests

COLUMNS = ("example", "method", "environments", "d_spu", "chosen_seed", "mean", "sd")
SEED_COLUMNS = ("example", "method", "environments", "d_spu", "seed", "mean")
DEFAULT = (3, 5)
# Measured, us of a core for a run and step, with 3 environments of 5 spurious inputs; and what they
# multiply by for ten environments or ten inputs.
COSTS = {
    "Example1": {"ERM": 0.3, "IRMv1": 0.6, "ANDMask": 0.4, "IGA": 0.7, "Oracle": 0.3},
    "Example2": {"ERM": 0.5, "IRMv1": 0.7, "ANDMask": 0.7, "IGA": 2.2, "Oracle": 0.5},
    "Example3": {"ERM": 0.6, "IRMv1": 0.7, "ANDMask": 0.8, "IGA": 2.3, "Oracle": 0.6},
}
MORE_ENVIRONMENTS, MORE_INPUTS = {"Example1": 2.9, "Example2": 1.1, "Example3": 2.2}, 1.5


class Sizes(NamedTuple):
    """How much is computed."""

    data_seeds: int = 50
    hyper_seeds: int = 20
    steps: int = 10_000
    peer_steps: int = 200
    examples: int = 10_000  # of an environment, for PyTorch
    nodes: int = 16  # of the quadrature
    kinds: Sequence[str] = unit_tests.EXAMPLES
    methods: Sequence[str] = unit_tests.METHODS


QUICK = Sizes(2, 2, 20, 2, 50)


class Part(NamedTuple):
    """Configurations that share a program, padded to the largest."""

    name: str
    configurations: Sequence[tuple[int, int]]  # environments and spurious inputs

    @property
    def most_environments(self) -> int:
        """Places for environments."""
        return max(environments for environments, _ in self.configurations)

    @property
    def most_spurious(self) -> int:
        """Places for spurious inputs."""
        return max(spurious for _, spurious in self.configurations)


PARTS = (
    Part("default", (DEFAULT,)),
    Part("spurious", tuple((3, spurious) for spurious in range(11) if spurious != 5)),
    Part("environments4", ((2, 5), (4, 5))),
    Part("environments7", ((5, 5), (6, 5), (7, 5))),
    Part("environments10", ((8, 5), (9, 5), (10, 5))),
)


def computed(
    parts: Sequence[Part], folder: Path, sizes: Sizes
) -> Iterator[tuple[str, str, tuple[int, int], unit_tests.Choice]]:
    """Yield (example, method, configuration, what is chosen), and note the progress."""
    work = {
        (part, example, method): _work(part, example, method, sizes)
        for part in parts
        for example in sizes.kinds
        for method in sizes.methods
    }
    done, begin, total = 0.0, time.perf_counter(), sum(work.values())
    for (part, example, method), amount in work.items():
        yield from _swept(part, example, method, folder, sizes)
        done += amount
        spent = time.perf_counter() - begin
        print(
            f"{part.name}, {example}, {method}: {spent:.0f} s, about "
            f"{spent * (total - done) / done:.0f} s left",
            file=sys.stderr,
            flush=True,
        )


def _work(part: Part, example: str, method: str, sizes: Sizes) -> float:
    """In seconds of a core; compilation counts, too."""
    runs = 2 * len(part.configurations) * sizes.data_seeds * sizes.hyper_seeds
    wide = 1 + (MORE_ENVIRONMENTS[example] - 1) * (part.most_environments - 3) / 7
    deep = 1 + (MORE_INPUTS - 1) * (part.most_spurious - 5) / 5
    return 5 + runs * sizes.steps * COSTS[example][method] * wide * deep * 1e-6


def _swept(
    part: Part, example: str, method: str, folder: Path, sizes: Sizes
) -> Iterator[tuple[str, str, tuple[int, int], unit_tests.Choice]]:
    environments, spurious = np.array(part.configurations, float).T
    data = cs.sweep(
        functools.partial(
            unit_tests.cell,
            example=example,
            method=method,
            steps=sizes.steps,
            most_environments=part.most_environments,
            most_spurious=part.most_spurious,
            nodes=sizes.nodes,
        ),
        axes={
            "configuration": cs.zipped(environments=environments, spurious=spurious),
            "scramble": [0.0, 1.0],
            "hyper": cs.zipped(**unit_tests.hyperparameters(method, sizes.hyper_seeds)),
        },
        seeds=sizes.data_seeds,
        store=folder / f"{part.name}-{example}-{method}.zarr",
        label=f"{part.name}, {example}, {method}",
    )
    last: xr.Dataset = data[["selection", "error"]].isel(step=-1).load()
    for scramble, suffix in enumerate(("", "s")):
        for index, configuration in enumerate(part.configurations):
            chosen = unit_tests.choose(last.isel(scramble=scramble, configuration=index))
            yield example + suffix, method, configuration, chosen


def write_tables(folder: Path, sizes: Sizes, *, everything: bool) -> tuple[int, float]:
    """Write unit_tests.csv and unit_tests_seeds.csv.

    Args:
        folder: made where it does not exist.
        sizes: how much is computed.
        everything: whether all numbers of environments and inputs are, or the default alone.

    Returns:
        The number of runs, and seconds.
    """
    store = folder / "unit_tests_store"
    store.mkdir(parents=True, exist_ok=True)
    begin = time.perf_counter()
    rows: list[tuple[Any, ...]] = []
    seed_rows: list[tuple[Any, ...]] = []
    parts = PARTS if everything else PARTS[:1]
    for example, method, (environments, spurious), chosen in computed(parts, store, sizes):
        start = (example, method, environments, spurious)
        spread = float(chosen.errors.std(ddof=1))
        rows.append((*start, chosen.seed, float(chosen.errors.mean()), spread))
        seed_rows += [(*start, seed, float(mean)) for seed, mean in enumerate(chosen.every)]
        # After every program, so that what is finished can be read.
        _write(folder / "unit_tests.csv", COLUMNS, rows)
        _write(folder / "unit_tests_seeds.csv", SEED_COLUMNS, seed_rows)
    runs = len(rows) * sizes.data_seeds * sizes.hyper_seeds
    return runs, time.perf_counter() - begin


def draw(folder: Path) -> None:
    """Draw unit_tests.png from unit_tests.csv: errors of the third example."""
    from matplotlib import pyplot as plt

    with (folder / "unit_tests.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["example"] == "Example3"]
    fig, axes = plt.subplots(1, 2, figsize=(8.4, 3.4), sharey=True, layout="constrained")
    most, inputs = DEFAULT
    panels = (
        ("environments", "number of environments E", ("d_spu", inputs)),
        ("d_spu", "number of spurious inputs d$_e$", ("environments", most)),
    )
    for ax, (column, label, (fixed, number)) in zip(axes, panels, strict=True):
        for method in unit_tests.METHODS:
            line = sorted(
                (int(row[column]), float(row["mean"]))
                for row in rows
                if row["method"] == method and int(row[fixed]) == number
            )
            ax.plot(*zip(*line, strict=True), "o-", ms=3.5, label=method)
        ax.axvline(number, color="0.4", ls=":", lw=1)
        ax.annotate("E = d$_e$", (number, 0.53), xytext=(4, 0), textcoords="offset points")
        ax.set(xlabel=label, ylim=(0, 0.57))
    axes[0].set(ylabel="mean test error, Example3")
    axes[1].legend(loc=(0.68, 0.1))
    fig.savefig(folder / "unit_tests.png", dpi=150)
    plt.close(fig)


def _place(row: tuple[Any, ...]) -> tuple[Any, ...]:
    """Example, environments and spurious inputs, by which tables are sorted."""
    return row[0], *row[2:4]


def _write(path: Path, columns: Sequence[str], rows: list[tuple[Any, ...]]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(sorted(rows, key=_place))


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the tables and print what they cost."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--tables", type=Path, metavar="FOLDER", required=True)
    parser.add_argument("--all", action="store_true", help="all environments and dimensions")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, whose figures say little")
    parser.add_argument(
        "--nodes", type=int, default=16, help="of the quadrature; in its own FOLDER"
    )
    parser.add_argument(
        "--write", type=Path, metavar="FOLDER", help="also write costs into benchmarks/README.md"
    )
    options = parser.parse_args(arguments)
    if options.write is not None and (
        options.quick or not options.all or importlib.util.find_spec("torch") is None
    ):
        parser.error("--write needs --all without --quick, and torch for the peer's job")
    cs.use_cpu_cores()
    sizes = (QUICK if options.quick else Sizes())._replace(nodes=options.nodes)
    runs, seconds = write_tables(options.tables, sizes, everything=options.all)
    if options.all:
        draw(options.tables)
    jobs: dict[str, float] = {}
    if importlib.util.find_spec("torch") is not None:
        jobs = peer_jobs(sizes)
    for name, spent in jobs.items():
        print(f"PyTorch, {name}: {spent:.3g} s a job, {sizes.steps} steps")
    shown = cost_table(runs, runs * sizes.steps, seconds, list(jobs.values()))
    print(f"on {os.cpu_count()} cores, where nothing was in the store before\n\n{shown}")
    if options.write is not None:
        summary.write(options.write / "benchmarks" / "README.md", summary.UNIT_TESTS, shown)
        summary.summarise(options.write)


def cost_table(runs: int, steps: int, seconds: float, jobs: Sequence[float]) -> str:
    """A Markdown table of what the runs cost beside the jobs of PyTorch, in seconds."""
    peer = "not measured: no torch", "not measured"
    if jobs:
        mean = float(np.mean(jobs))
        peer = f"{min(jobs):.3g} to {max(jobs):.3g}", f"{mean * runs / seconds:,.0f}"
    row = {
        "runs": f"{runs:,}",
        "steps": f"{steps:.2g}",
        "s": f"{seconds:,.0f}",
        "runs a second": f"{runs / seconds:,.0f}",
        "a job of PyTorch, s": peer[0],
        "runs in a job's time": peer[1],
    }
    return summary.one_row(row)


def peer_jobs(sizes: Sizes) -> dict[str, float]:
    """Seconds of one job by PyTorch for every kind of example and method, from some steps."""
    import jax

    from causal_sgd.supervised import worlds

    spent = {}
    kinds = {
        "Example1": worlds.unit_test_regression,
        "Example2": worlds.unit_test_cows,
        "Example3": worlds.unit_test_margin,
    }
    for example, make in kinds.items():
        world = make()(jax.random.key(0))
        drawn = [
            world.draw_examples(jax.random.key(e + 1), jax.numpy.asarray(e), sizes.examples)
            for e in range(3)
        ]
        x, y = (np.stack([np.asarray(pair[part]) for pair in drawn]) for part in (0, 1))
        for method in unit_tests.METHODS:
            numbers = unit_tests.hyperparameters(method, 1)
            values = {name: float(value[0]) for name, value in numbers.items()}
            step = peers.torch_unit_test(x, y, method=method, steps=sizes.peer_steps, **values)
            spent[f"{example}, {method}"] = step * sizes.steps
    return spent


if __name__ == "__main__":
    main()
