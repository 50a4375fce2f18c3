"""`causal-sgd run` and `causal-sgd phase`: an experiment over seeds, and over two parameters."""

from __future__ import annotations

import dataclasses
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import tyro

from causal_sgd import checks
from causal_sgd.cli.computation import Computation
from causal_sgd.cli.outputs import draw, number, plain
from causal_sgd.experiment import SWEPT, Experiment

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["Phase", "Run", "theory_curve"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run(Computation):
    """Run one experiment over many seeds and print what was reached."""

    experiment: tyro.conf.OmitArgPrefixes[Experiment] = dataclasses.field(default_factory=Experiment)
    seeds: int = 64
    """How many seeds."""
    seed: int = 0
    """Root of all randomness."""
    plot: Path | None = None
    """Draw the trajectories to this file (.png, .pdf or .svg)."""
    json: bool = False
    """Print one JSON object and nothing else."""

    def __call__(self) -> int:
        """Run it."""
        self.check(self.plot)
        experiment = self.experiment
        if self.plot is not None and experiment.record_every is None:
            experiment = experiment.replace(record_every=max(1, experiment.steps // 100))
        begin = time.perf_counter()
        dataset = self.compute(experiment, seeds=self.seeds, key=self.seed, label=experiment.sampler)
        report = {
            "config": experiment.describe() | {"seeds": self.seeds, "seed": self.seed},
            **_summaries(dataset),
            "seconds": round(time.perf_counter() - begin, 3),
        }
        if self.plot is not None:
            draw(self.plot, lambda ax, plots: plots.trajectories(ax, dataset, list(experiment.metrics[:6]), logy=True))
        if self.json:
            print(json.dumps(report))
            return 0
        width = max(map(len, report["metrics"]))
        print(f"{'metric':{width}}  {'median':>10}  {'q10':>10}  {'q90':>10}   (over {self.seeds} seeds)")
        for name, levels in report["metrics"].items():
            print(f"{name:{width}}  " + "  ".join(number(levels[level]) for level in ("median", "q10", "q90")))
        print(f"diverged: {report['diverged_fraction']:.1%}   time: {report['seconds']:.1f} s")
        return 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Phase(Computation):
    """Sweep two parameters and draw the phase diagram, with the theory's curve where there is one."""

    x: str
    """The horizontal axis: NAME=START:STOP:COUNT, with :log at the end for a geometric one, or NAME=VALUE,VALUE,..."""
    y: str
    """The vertical axis, in the same form."""
    experiment: tyro.conf.OmitArgPrefixes[Experiment] = dataclasses.field(default_factory=Experiment)
    metric: str = "spurious_signal"
    """The metric of the diagram."""
    seeds: int = 8
    """How many seeds in each cell."""
    seed: int = 0
    """Root of all randomness."""
    plot: Path | None = None
    """Draw the diagram to this file (.png, .pdf or .svg)."""
    json: bool = False
    """Print one JSON object and nothing else."""

    def __call__(self) -> int:
        """Run it."""
        (x, xs), (y, ys) = _axis("--x", self.x), _axis("--y", self.y)
        if x == y:
            raise ValueError(f"--x and --y must be different parameters, got {x!r} for both")
        self.check(self.plot)
        from causal_sgd import metrics

        checks.choice("metric", self.metric, metrics.__all__)
        experiment = self.experiment
        if self.metric not in experiment.metrics:
            experiment = experiment.replace(metrics=(*experiment.metrics, self.metric))
        begin = time.perf_counter()
        axes = {x: xs, y: ys}
        dataset = self.compute(experiment, axes=axes, seeds=self.seeds, key=self.seed, label="phase diagram")
        seconds = round(time.perf_counter() - begin, 3)
        from causal_sgd.results import final, summary

        if self.plot is not None:
            theory = theory_curve(experiment, x, xs, y, ys)
            draw(
                self.plot,
                lambda ax, plots: plots.phase_diagram(ax, final(dataset), self.metric, x=x, y=y, theory=theory),
            )

        table = summary(final(dataset), self.metric).transpose(y, x, ...)
        if self.json:
            report = {
                "config": experiment.describe() | {"seeds": self.seeds, "seed": self.seed},
                "axes": {x: xs.tolist(), y: ys.tolist()},
                "metric": self.metric,
                "median": plain(table["median"].values),
                "diverged_fraction": plain(table.diverged_fraction.values),
                "seconds": seconds,
            }
            print(json.dumps(report))
            return 0
        print(
            f"median {self.metric} over {self.seeds} seeds; rows {y}, columns {x}; 'div.' where half or more diverged"
        )
        print(" " * 10 + "".join(f"{value:>8.3g}" for value in xs))
        for row, value in enumerate(ys):
            cells = zip(table["median"].values[row], table.diverged_fraction.values[row], strict=True)
            print(f"{value:>10.4g}" + "".join(f"{'div.' if lost >= 0.5 else f'{mid:.3g}':>8}" for mid, lost in cells))
        print(f"{dataset.sizes[x] * dataset.sizes[y] * self.seeds} runs in {seconds:.1f} s")
        return 0


def _axis(option: str, text: str) -> tuple[str, np.ndarray]:
    """NAME=START:STOP:COUNT[:log] or NAME=VALUE,... as the parameter's name and its values."""
    form = "NAME=START:STOP:COUNT, NAME=START:STOP:COUNT:log or NAME=VALUE,VALUE,..."
    name, equals, values = text.partition("=")
    if not equals:
        raise ValueError(f"{option} must have the form {form}, got {text!r}")
    name = checks.choice(f"{option} parameter", name.strip().replace("-", "_"), SWEPT)
    parts = values.split(":")
    try:
        if len(parts) == 1:
            axis = np.array([float(value) for value in values.split(",")])
        elif len(parts) == 3 or (len(parts) == 4 and parts[3] == "log"):
            start, stop, count = float(parts[0]), float(parts[1]), int(parts[2])
            if count < 1:
                raise ValueError
            if len(parts) == 4 and min(start, stop) <= 0:
                raise ValueError(f"{option} must have ends above 0 for a logarithmic axis, got {text!r}")
            axis = (np.geomspace if len(parts) == 4 else np.linspace)(start, stop, count)
        else:
            raise ValueError
    except ValueError as error:
        raise ValueError(
            str(error) if option in str(error) else f"{option} must have the form {form}, got {text!r}"
        ) from None
    if not np.isfinite(axis).all() or (len(axis) > 1 and not (np.diff(axis) > 0).all()):
        raise ValueError(f"{option} must run over finite, increasing values, got {text!r}")
    if name in ("batch_size", "block_length"):
        if (axis != np.round(axis)).any() and len(parts) == 1:
            raise ValueError(f"{option} must have whole numbers for {name}, got {text!r}")
        axis = np.unique(np.round(axis).astype(int))
    return name, axis


def _summaries(dataset: xr.Dataset) -> dict[str, Any]:
    """The final median and quantiles of every metric over the seeds that did not diverge."""
    from causal_sgd.results import final, metric_names, summary

    report: dict[str, Any] = {"metrics": {}}
    for name in metric_names(dataset):
        table = summary(final(dataset), name)
        levels = {"median": "median", "q10": "low", "q90": "high"}
        report["metrics"][name] = {level: plain(table[column].values) for level, column in levels.items()}
    report["diverged_fraction"] = float((dataset["diverged_at"] >= 0).mean())
    return report


def theory_curve(experiment: Experiment, x: str, xs: np.ndarray, y: str, ys: np.ndarray) -> Any:
    """The theory's boundary as plots take it, where it is a curve in these axes; else None."""
    from causal_sgd import theory

    one_environment = experiment.sampler in ("hetero", "cyclic", "shuffled", "block", "sticky")
    plain = (experiment.algorithm, experiment.optimizer, experiment.schedule) == ("sgd", "sgd", "constant")
    plain &= (experiment.accumulate, experiment.clip_norm, experiment.sam_radius) == (1, None, None)
    if not one_environment or not plain or experiment.world_file is not None:
        return None
    family = experiment.family.replace("-", "_")
    changed = (
        experiment.rotation or experiment.means or experiment.spreads or experiment.evolution not in ("none", "renewal")
    )
    if family not in theory.families or changed:
        return None
    known = ("spread", "learning_rate", "mean")
    if not {x, y} <= set(known):
        return None
    values: dict[str, Any] = {name: getattr(experiment, name) for name in known}
    solved = "spread" if "spread" in (x, y) else "learning_rate"
    other, grid = (y, ys) if solved == x else (x, xs)
    values[other] = np.linspace(grid[0], grid[-1], 200)
    if solved == "spread":
        curve = theory.critical_spread(values["learning_rate"], values["mean"], family)
    else:
        curve = theory.critical_learning_rate(values["mean"], values["spread"], family)
    curve = np.asarray(curve)
    return {"theory": (curve, values[other]) if solved == x else (values[other], curve)}
