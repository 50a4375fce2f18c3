"""`causal-sgd run`: an experiment over seeds."""

from __future__ import annotations

import dataclasses
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tyro

from causal_sgd import checks
from causal_sgd.cli.computation import Computation
from causal_sgd.cli.outputs import draw, number, plain
from causal_sgd.experiment import Experiment
from causal_sgd.sweeps._grid import LARGEST_SEED

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["Run"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run(Computation):
    """Run one experiment over many seeds and print the final metrics.

    For example: causal-sgd run --sampler hetero --dim 30 --spread 6 --seeds 64
    """

    experiment: tyro.conf.OmitArgPrefixes[Experiment] = dataclasses.field(
        default_factory=Experiment
    )
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
        experiment = self.experiment
        if self.plot is not None and experiment.record_every is None:
            experiment = experiment.replace(record_every=max(1, experiment.steps // 100))
        begin = time.perf_counter()
        dataset = self.compute(
            experiment, seeds=self.seeds, key=self.seed, label=experiment.sampler
        )
        report = {
            "config": experiment.describe() | {"seeds": self.seeds, "seed": self.seed},
            **_summaries(dataset),
            "seconds": round(time.perf_counter() - begin, 3),
        }
        if self.plot is not None:
            draw(
                self.plot,
                lambda ax, plots: plots.trajectories(
                    ax, dataset, list(experiment.metrics[:6]), logy=True
                ),
            )
        if self.json:
            print(json.dumps(report))
            return 0
        width = max(map(len, report["metrics"]))
        header = f"{'metric':{width}}  {'median':>10}  {'q10':>10}  {'q90':>10}"
        print(f"{header}   (over {self.seeds} seeds)")
        for name, levels in report["metrics"].items():
            print(
                f"{name:{width}}  "
                + "  ".join(number(levels[level]) for level in ("median", "q10", "q90"))
            )
        print(f"diverged: {report['diverged_fraction']:.1%}   time: {report['seconds']:.1f} s")
        return 0


def _summaries(dataset: xr.Dataset) -> dict[str, Any]:
    """The final median and quantiles of every metric over the seeds that did not diverge."""
    from causal_sgd.analysis import final, metric_names, summary

    report: dict[str, Any] = {"metrics": {}}
    for name in metric_names(dataset):
        table = summary(final(dataset), name)
        levels = {"median": "median", "q10": "low", "q90": "high"}
        report["metrics"][name] = {
            level: plain(table[column].values) for level, column in levels.items()
        }
    report["diverged_fraction"] = float((dataset["diverged_at"] >= 0).mean())
    return report
