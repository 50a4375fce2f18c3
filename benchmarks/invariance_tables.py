"""Tables of explicit methods on two known benchmarks, for comparison with the literature.

`chain_table`: the chain of Arjovsky et al. (2019), 8 settings. As in the code of that article, ERM
and ICP see all three environments (e = 0.2, 2 and 5), ICP without intercepts, without the empty set
and with p-values times 2 E; IRM trains Phi [10, 10] from the identity on the first two, by Adam of
step 0.001 for 100,000 steps of all examples, and the least risk in the third chooses lambda.

`eills_table`: the demonstration of Fan et al. (2023), |w - w*|^2. EILLS with gamma 20, linear FAIR
with 36. As in the code of that article, the oracle methods choose by the true error: anchor
regression its lambda, IRM (10,000 steps, both environments) its lambda, and ICP-oracle its level
from 0.9 to 0.995, where `ICP` has 0.05; both have p-values times 2 E, minus 1.

All methods of a table see the same draws.
"""

from __future__ import annotations

import csv
import functools
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
import optax
import xarray as xr

import causal_sgd as cs
from causal_sgd import algorithms, objectives
from causal_sgd.supervised import estimators, measurements, metrics, models, worlds
from causal_sgd.training import run
from causal_sgd.types import (
    Array,
    Batch,
    Estimator,
    Key,
    Objective,
    Sampler,
    Snapshot,
    State,
    Trace,
)

CHAIN_COLUMNS = (
    "hidden",
    "hetero",
    "scramble",
    "method",
    "causal_mean",
    "causal_sd",
    "noncausal_mean",
    "noncausal_sd",
    "empty_share",
)
EILLS_COLUMNS = ("n", "method", "mean", "median")
SETTINGS = [
    (hidden, hetero, scramble)
    for hidden in (False, True)
    for hetero in (False, True)
    for scramble in (False, True)
]
IRM_WEIGHTS = (0.0, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1)
ANCHORS = (0, 1, 2, 4, 8, 10, 15, 20, 30, 40, 60, 80, 90, 100, 150, 200, 500, 1000, 5000, 10000)
LEVELS = (0.9, 0.95, 0.99, 0.995)
SPURIOUS = (6, 7, 8)  # x7, x8 and x9 depend on the label
SIZES = (*range(100, 1001, 100), 1500, 2000)
FEW_SIZES = (100, 300, 700, 1000, 2000)
Row = Mapping[str, str | int | float]


class Sizes(NamedTuple):
    """How much is computed."""

    repetitions: int = 200  # of a setting of the chain
    irm_repetitions: int = 32
    irm_steps: int = 100_000
    draws: int = 500  # at each n
    oracle_steps: int = 10_000
    sizes: Sequence[int] = SIZES
    few_sizes: Sequence[int] = FEW_SIZES
    settings: Sequence[tuple[bool, bool, bool]] = SETTINGS


QUICK = Sizes(4, 2, 20, 4, 20, (100, 300), (100,), SETTINGS[-1:])


class Progress:
    """Lines on standard error with the time that is left, by the work that is done."""

    def __init__(self, work: float) -> None:
        self.work, self.done, self.runs = work, 0.0, 0
        self.begin = time.perf_counter()

    def add(self, name: str, work: float, runs: int) -> None:
        """Note that a part is done."""
        self.done += work
        self.runs += runs
        spent = time.perf_counter() - self.begin
        left = spent * (self.work - self.done) / self.done
        print(
            f"{name}: {spent:.0f} s, about {max(left, 0):.0f} s left", file=sys.stderr, flush=True
        )


def write_tables(folder: Path, sizes: Sizes) -> tuple[int, float]:
    """Write chain.csv and eills.csv.

    Args:
        folder: made where it does not exist.
        sizes: how much is computed.

    Returns:
        The number of runs, and seconds.
    """
    folder.mkdir(parents=True, exist_ok=True)
    progress = Progress(_chain_work(sizes) * len(sizes.settings) + _eills_work(sizes))
    _write(folder / "chain.csv", CHAIN_COLUMNS, chain_table(sizes, progress))
    _write(folder / "eills.csv", EILLS_COLUMNS, eills_table(sizes, progress))
    return progress.runs, time.perf_counter() - progress.begin


def _write(path: Path, columns: Sequence[str], rows: Iterator[Row]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        for row in rows:
            writer.writerow(row)
            file.flush()


# The chain


def _chain_work(sizes: Sizes) -> float:
    """In steps of IRM with ten inputs; compilation counts as some."""
    return 1e7 + sizes.irm_repetitions * len(IRM_WEIGHTS) * sizes.irm_steps


def chain_table(sizes: Sizes, progress: Progress) -> Iterator[Row]:
    """Yield the rows of chain.csv."""
    for hidden, hetero, scramble in sizes.settings:
        world = functools.partial(
            worlds.chain, hidden=hidden, hetero=hetero, scramble=scramble, training=(0, 1, 2)
        )
        setting = dict(
            zip(("hidden", "hetero", "scramble"), map(int, (hidden, hetero, scramble)), strict=True)
        )
        recorded = [metrics.causal_error, metrics.noncausal_error]
        for name, estimator in (
            ("ERM", estimators.pooled()),
            ("ICP", estimators.icp(correction="environments", intercept=False, empty=False)),
        ):
            data = _swept(
                functools.partial(
                    _fitted_cell, world=world, estimator=estimator, recorded=[*recorded, chosen]
                ),
                {"n": [1000]},
                sizes.repetitions,
            )
            yield setting | {"method": name} | _errors(data.isel(n=0))
        cell = functools.partial(_chain_irm, world=world, steps=sizes.irm_steps)
        data = _swept(cell, {"weight": IRM_WEIGHTS}, sizes.irm_repetitions)
        selected = data.isel(weight=data.third_risk.argmin("weight"))
        yield setting | {"method": "IRM"} | _errors(selected)
        progress.add(
            "chain.csv, " + " ".join(f"{key} {value}" for key, value in setting.items()),
            _chain_work(sizes),
            2 * sizes.repetitions + sizes.irm_repetitions * len(IRM_WEIGHTS),
        )


def _errors(data: xr.Dataset) -> dict[str, float | str]:
    """Means and standard deviations over the seeds; the last only where sets are chosen."""
    empty = float((data.chosen == 0).mean()) if "chosen" in data else float("nan")
    return {
        "causal_mean": float(data.causal_error.mean()),
        "causal_sd": float(data.causal_error.std(ddof=1)),
        "noncausal_mean": float(data.noncausal_error.mean()),
        "noncausal_sd": float(data.noncausal_error.std(ddof=1)),
        "empty_share": empty if np.isfinite(empty) else "",
    }


def chosen(snapshot: Snapshot) -> Array:
    """The number of inputs that an estimator chose; []."""
    return jnp.sum(metrics.support(snapshot))


def third_risk(snapshot: Snapshot) -> Array:
    """The mean squared residual in the third environment; []."""
    return 4 * snapshot.risks(snapshot.params)[2]


def _first_two() -> Sampler:
    def draw(key: Key, step: Array, state: State) -> tuple[Batch, State]:
        del key, step
        return Batch(jnp.arange(2), jnp.ones(2, jnp.int32)), state

    return Sampler(lambda key, probabilities: (), draw, batch_size=2)


def _chain_irm(key: Key, *, weight: Array, world: Callable[[], Any], steps: int) -> Trace:
    algorithm = algorithms.penalised(
        world=world(),
        measurement=measurements.moments(1000),
        sampler=_first_two(),
        model=models.featurised(dim=10),
        objective=_irm(weight),
        optimizer=optax.adam(1e-3),
    )
    return run(
        key,
        algorithm=algorithm,
        metrics=[metrics.causal_error, metrics.noncausal_error, third_risk],
        num_steps=steps,
    )


def _irm(weight: Array, environments: int = 2) -> Objective:
    """IRM: lambda sum_e R_e + (1 - lambda) sum_e |dR_e/dhead|^2 / k, in losses R / 4."""
    return objectives.irm(
        risk_weight=4 * environments * weight, weight=16 * environments * (1 - weight)
    )


def _fitted_cell(
    key: Key, *, n: Array, world: Callable[[], Any], estimator: Estimator, recorded: Sequence[Any]
) -> Trace:
    algorithm = algorithms.fitted(
        world=world(), measurement=measurements.moments(n), estimator=estimator
    )
    return run(key, algorithm=algorithm, metrics=recorded, num_steps=1)


def _swept(cell: Any, axes: Mapping[str, Any], seeds: int) -> xr.Dataset:
    """The last frame of all runs."""
    arrays = {name: np.asarray(values, float) for name, values in axes.items()}
    return cs.sweep(cell, axes=arrays, seeds=seeds, progress=False).isel(step=-1).load()


# The demonstration of EILLS


def _eills_work(sizes: Sizes) -> float:
    searches = 5e7 + 1e4 * sizes.draws * len(sizes.sizes)
    return searches + 1.5 * _oracle_runs(sizes) * sizes.oracle_steps


def _oracle_runs(sizes: Sizes) -> int:
    return sizes.draws * len(sizes.few_sizes) * (len(IRM_WEIGHTS) + 1)


def eills_table(sizes: Sizes, progress: Progress) -> Iterator[Row]:
    """Yield the rows of eills.csv."""
    icp = functools.partial(
        estimators.icp, correction="environments_minus_one", intercept=False, empty=False
    )
    every: dict[str, Callable[[Any], Estimator]] = {
        "EILLS": lambda _: estimators.eills(20.0),
        "EILLS+refit": lambda _: estimators.eills(20.0, refit=True),
        "oracle": lambda _: estimators.oracle(),
        "without_G": lambda _: estimators.without(SPURIOUS),
        "pooled": lambda _: estimators.pooled(),
    }
    few: dict[str, tuple[Callable[[Any], Estimator], Sequence[float]]] = {
        "FAIR-BF": (lambda _: estimators.fair(36.0), (0,)),
        "anchor": (estimators.anchor, ANCHORS),
        "ICP": (icp, (0.05,)),
        "ICP-oracle": (icp, LEVELS),
    }
    for name, make in every.items():
        data = _demo(functools.partial(_demo_fit, make=make), sizes.sizes, (0,), sizes.draws)
        yield from _of_sizes(name, data)
        runs = sizes.draws * len(sizes.sizes)
        progress.add(f"eills.csv, {name}", 2e3 * runs + 5e6, runs)
    for name, (make, grid) in few.items():
        data = _demo(functools.partial(_demo_fit, make=make), sizes.few_sizes, grid, sizes.draws)
        yield from _of_sizes(name, data)
        progress.add(f"eills.csv, {name}", 6e6, sizes.draws * len(sizes.few_sizes) * len(grid))
    for n in sizes.few_sizes:
        cell = functools.partial(_demo_irm, steps=sizes.oracle_steps)
        data = _demo(cell, [n], (*IRM_WEIGHTS, 1.0), sizes.draws)
        yield from _of_sizes("IRM-oracle", data)
        runs = _oracle_runs(sizes) // len(sizes.few_sizes)
        progress.add(f"eills.csv, IRM-oracle, n = {n}", 1.5 * runs * sizes.oracle_steps, runs)


def _demo(cell: Any, sizes: Sequence[int], grid: Sequence[float], draws: int) -> xr.DataArray:
    """The errors [n, seed], the least over a grid."""
    data = _swept(cell, {"n": sizes, "value": grid}, draws)
    return data.estimation_error.min("value")


def _of_sizes(name: str, errors: xr.DataArray) -> Iterator[Row]:
    for n in errors.n.values:
        values = errors.sel(n=n)
        yield {
            "n": int(n),
            "method": name,
            "mean": float(values.mean()),
            "median": float(values.median()),
        }


def _demo_fit(key: Key, *, n: Array, value: Array, make: Callable[[Any], Estimator]) -> Trace:
    return _fitted_cell(
        key,
        n=n,
        world=worlds.eills_demo,
        estimator=make(value),
        recorded=[metrics.estimation_error],
    )


def _demo_irm(key: Key, *, n: Array, value: Array, steps: int) -> Trace:
    algorithm = algorithms.penalised(
        world=worlds.eills_demo(),
        measurement=measurements.moments(n),
        sampler=cs.samplers.stratified(batch_size=2),
        model=models.featurised(dim=12),
        objective=_irm(value),
        optimizer=optax.adam(1e-3),
    )
    return run(key, algorithm=algorithm, metrics=[metrics.estimation_error], num_steps=steps)
