"""`causal-sgd run`: an experiment over seeds."""

from __future__ import annotations

import dataclasses
import itertools
import json
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, TypedDict

import numpy as np
import tyro

from causal_sgd import checks
from causal_sgd.cli.computation import Computation
from causal_sgd.cli.outputs import Plain, aligned, draw, number, plain, take
from causal_sgd.cli.quantiles import LEVELS, trajectories
from causal_sgd.experiment import Experiment, SupervisedExperiment
from causal_sgd.experiment._base import BaseExperiment
from causal_sgd.experiment._samplers import PURE, SAMPLERS
from causal_sgd.sweeps._grid import LARGEST_SEED

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["Run", "RunOf", "RunSupervised"]

MOST_ENTRIES = 16  # of an array that are printed
ORDER_PARAMETERS = "order-parameter-law"
FRAMES = 100  # that are recorded where the table shows means over frames


class Summaries(TypedDict):
    """The final metrics over the seeds."""

    metrics: dict[str, dict[str, Plain]]  # by metric: its median, q10 and q90
    diverged_fraction: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunOf(Computation):
    """Run one experiment of any system."""

    MAIN: ClassVar = ("seeds", "seed", "plot", "out", "force", "json")

    experiment: tyro.conf.OmitArgPrefixes[BaseExperiment]
    seeds: int = 64
    """Number of seeds."""
    seed: int = 0
    """Root of all randomness."""
    plot: Path | None = None
    """Draw the trajectories to this file (.png, .pdf or .svg)."""
    json: bool = False
    """Print one JSON object and nothing else."""

    def __call__(self) -> int:
        """Run, draw and print."""
        self.check(self.plot)
        checks.integer("seed", self.seed, minimum=0, maximum=LARGEST_SEED)
        experiment = self.experiment.resolved()
        table = self.out is not None and self.out.suffix == ".csv"
        frames = table or self.plot is not None or self.averages(experiment)
        if frames and experiment.record_every is None:
            experiment = experiment.replace(record_every=max(1, experiment.steps // FRAMES))
        begin = time.perf_counter()
        dataset = self.compute(experiment, seeds=self.seeds, key=self.seed, label=experiment.label)
        seconds = round(time.perf_counter() - begin, 3)
        take(
            lambda: self.write(dataset, experiment, along=("step",)),
            lambda: self._print(experiment, dataset, seconds),
            lambda: self._draw(experiment, dataset),
        )
        return 0

    def averages(self, experiment: BaseExperiment) -> bool:
        """Whether the table shows means over the last quarter, not the last frame."""
        del experiment
        return False

    def _summaries(self, experiment: BaseExperiment, dataset: xr.Dataset) -> Summaries:
        from causal_sgd.analysis import final, time_average

        averages = self.averages(experiment)
        return _summaries(time_average(dataset) if averages else final(dataset))

    def _draw(self, experiment: BaseExperiment, dataset: xr.Dataset) -> None:
        if self.plot is None:
            return
        names = list(experiment.metrics[:6])
        theory = self.limit(experiment.replace(metrics=tuple(names)))
        draw(
            self.plot,
            lambda ax, plots: plots.trajectories(ax, dataset, names, theory=theory, logy=True),
        )

    def limit(self, experiment: BaseExperiment) -> xr.Dataset | None:
        """The trajectories that are drawn dashed, where theory has any."""
        del experiment
        return None

    def _print(self, experiment: BaseExperiment, dataset: xr.Dataset, seconds: float) -> None:
        summaries = self._summaries(experiment, dataset)
        if self.json:
            configuration = experiment.describe() | {"seeds": self.seeds, "seed": self.seed}
            report = {"config": configuration, "time_average": self.averages(experiment)}
            report |= {**summaries, "trajectories": trajectories(dataset), "seconds": seconds}
            print(json.dumps(report), flush=True)
            return
        rows = [["metric", *LEVELS]]
        for name, levels in summaries["metrics"].items():
            rows += _rows(name, levels)
        width = max(len(row[0]) for row in rows)
        header, *lines = aligned([[row[0].ljust(width), *row[1:]] for row in rows], least=(0, 12))
        means = "; means over the last quarter" if self.averages(experiment) else ""
        print(f"{header}   (over {self.seeds} seeds{means})")
        print("\n".join(lines))
        diverged = summaries["diverged_fraction"]
        print(f"diverged: {diverged:.1%}   time: {seconds:.1f} s", flush=True)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run(RunOf):
    """Run one experiment over many seeds and print the final metrics.

    The system is matrix sensing; for regression in several environments see
    `causal-sgd run supervised --help`.

    For example: causal-sgd run --sampler hetero --dim 30 --spread 6 --seeds 64
    """

    experiment: tyro.conf.OmitArgPrefixes[Experiment] = dataclasses.field(
        default_factory=Experiment
    )
    plot: Path | None = None
    """Draw the trajectories to this file (.png, .pdf or .svg); those of order-parameter-law with
    their limit for large dim, dashed."""

    def limit(self, experiment: BaseExperiment) -> xr.Dataset | None:
        """The trajectories for large dim of order-parameter-law."""
        if not isinstance(experiment, Experiment) or experiment.measurement != ORDER_PARAMETERS:
            return None
        cell = experiment.limit().cell()
        return self.sweep(cell, store=None, seeds=self.seeds, key=self.seed, label="limit")


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunSupervised(RunOf):
    """Run one experiment of regression in several environments, and print the final metrics.

    Methods that take steps need a model, a sampler and an optimizer; estimators fit in one step.

    For example: causal-sgd run supervised --method vrex --weight 100 --learning-rate 0.01
    or: causal-sgd run supervised --sampler hetero --model hadamard --learning-rate 0.7 --spread 1.4
    """

    experiment: tyro.conf.OmitArgPrefixes[SupervisedExperiment] = dataclasses.field(
        default_factory=SupervisedExperiment
    )
    last: bool = False
    """Print the last frame also of methods with batches of one environment, of which the means over
    the frames of the last quarter are printed by default: their last iterate depends on its last
    environments."""

    def why_unused(self, field: str) -> str | None:
        """Why one of the command's own flags has no effect; None if it has one."""
        averages = dataclasses.replace(self, last=False).averages(self.experiment)
        if field == "last" and not averages:
            return "where no mean over frames is printed"
        return super().why_unused(field)

    def averages(self, experiment: BaseExperiment) -> bool:
        """Whether every batch of a run has one environment, and no average is measured anyway."""
        assert isinstance(experiment, SupervisedExperiment)
        if self.last or experiment.average != "none" or SAMPLERS not in experiment.tables:
            return False
        return experiment.sampler in PURE


def _rows(name: str, levels: Mapping[str, Plain]) -> Iterator[list[str]]:
    """The lines of a metric: one for a number, one for each of the first entries of an array."""
    values = [np.asarray(levels[level], float) for level in LEVELS]  # None becomes NaN
    for index in itertools.islice(np.ndindex(values[0].shape), MOST_ENTRIES):
        place = f"[{','.join(map(str, index))}]" if index else ""
        yield [name + place, *(number(float(value[index])) for value in values)]
    if values[0].size > MOST_ENTRIES:
        rest = f"{name}: {values[0].size - MOST_ENTRIES} more with --json"
        yield [rest, *("" for _ in LEVELS)]


def _summaries(dataset: xr.Dataset) -> Summaries:
    """The median and quantiles of every metric over the seeds that did not diverge."""
    from causal_sgd.analysis import metric_names, summary

    metrics: dict[str, dict[str, Plain]] = {}
    for name in metric_names(dataset):
        table = summary(dataset, name)
        metrics[name] = {level: plain(table[column].values) for level, column in LEVELS.items()}
    diverged = float((dataset["diverged_at"] >= 0).mean())
    return {"metrics": metrics, "diverged_fraction": diverged}
