"""`causal-sgd phase`: a phase diagram over two parameters, full or refined at its boundary."""

from __future__ import annotations

import dataclasses
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import tyro

from causal_sgd import checks
from causal_sgd.cli.axes import check_axis_used, parse_axis
from causal_sgd.cli.computation import Computation, start
from causal_sgd.cli.diagrams import Diagram
from causal_sgd.cli.outputs import take
from causal_sgd.experiment import (
    Experiment,
    MetricName,
    SupervisedExperiment,
    SupervisedMetricName,
    theory_curve,
)
from causal_sgd.experiment._base import BaseExperiment
from causal_sgd.sweeps._grid import LARGEST_SEED

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["Phase", "PhaseOf", "PhaseSupervised"]

FIRST_SEEDS = 8  # of a refined diagram, in every cell that is run


@dataclasses.dataclass(frozen=True, kw_only=True)
class PhaseOf(Computation):
    """Sweep two parameters of an experiment of any system."""

    MAIN: ClassVar = (
        "x",
        "y",
        "metric",
        "seeds",
        "level",
        "refine",
        "plot",
        "out",
        "force",
        "json",
    )
    OMITTED: ClassVar = ("metrics", "record_every")

    x: str
    """Horizontal axis, NAME=START:STOP:COUNT, with :log at the end for a geometric axis, or
    NAME=VALUE,VALUE,..."""
    y: str
    """Vertical axis, in the same form."""
    experiment: tyro.conf.OmitArgPrefixes[BaseExperiment]
    metric: str
    """Metric of the diagram."""
    seeds: int = 8
    """Seeds in each cell; with --refine, in each cell that 8 seeds do not decide."""
    seed: int = 0
    """Root of all randomness."""
    level: float | None = None
    """A run rejects if its final value lies below this level. The boundary is printed and drawn
    with its 95 % band; undecided cells are hatched. With --refine and the default metric, the
    default is a fifth of its value in a pooled run."""
    along: str | None = None
    """Axis that the boundary crosses. Default: spread if it is an axis, otherwise the horizontal
    one."""
    refine: bool = False
    """Run only the cells near the boundary."""
    budget: int | None = None
    """Maximum number of runs (--refine)."""
    precision: float | None = None
    """Double the seeds from 16 up to --seeds until the median half-width of the band is this small
    (--refine)."""
    plot: Path | None = None
    """Draw the diagram to this file (.png, .pdf or .svg)."""
    json: bool = False
    """Print one JSON object and nothing else."""

    def __call__(self) -> int:
        """Run, draw and print."""
        (x, xs), (y, ys) = self._axis("--x", self.x), self._axis("--y", self.y)
        if x == y:
            raise ValueError(f"--x and --y must be different parameters, got {x!r} for both")
        for option, name in (("--x", x), ("--y", y)):
            check_axis_used(option, name, self.experiment)
        level, along = self._boundary_options(x, y)
        self.check(self.plot)
        experiment = self.experiment.resolved()
        if self.metric not in experiment.metrics:
            experiment = experiment.replace(metrics=(*experiment.metrics, self.metric))
        begin = time.perf_counter()
        axes = {x: xs, y: ys}
        dataset = self._compute(experiment, axes, level, along)
        seconds = round(time.perf_counter() - begin, 3)

        def show() -> None:
            diagram = self._diagram(experiment, dataset, axes, level, along, seconds)
            take(lambda: self._print(experiment, diagram), lambda: self._draw(diagram))

        take(lambda: self.write(dataset, experiment, along=(x, y)), show)
        return 0

    def why_unused(self, field: str) -> str | None:
        """Why a flag has no effect here; None if it has one."""
        for option, text in (("--x", self.x), ("--y", self.y)):
            if field == text.partition("=")[0].strip().replace("-", "_"):
                return f"where it is the axis {option}"
        if field in ("budget", "precision") and not self.refine:
            return "without --refine"
        if field == "along" and self.level is None and not self.refine:
            return "without --level or --refine"
        return super().why_unused(field)

    def _axis(self, option: str, text: str) -> tuple[str, np.ndarray]:
        return parse_axis(option, text, type(self.experiment))

    def _draw(self, diagram: Diagram) -> None:
        if self.plot is not None:
            diagram.draw(self.plot, merge=self.refine)

    def _print(self, experiment: BaseExperiment, diagram: Diagram) -> None:
        if self.json:
            configuration = experiment.describe() | {"seeds": self.seeds, "seed": self.seed}
            print(json.dumps({"config": configuration} | diagram.report()), flush=True)
            return
        if not self.refine:
            diagram.print_table(self.seeds)
        diagram.print_boundary()
        share = ""
        if self.refine:
            cells = np.prod([len(values) for values in diagram.axes.values()])
            share = f", {cells * self.seeds / diagram.runs:.1f} times fewer than all"
        print(f"{diagram.runs} runs{share} in {diagram.seconds:.1f} s", flush=True)

    def _boundary_options(self, x: str, y: str) -> tuple[float | None, str]:
        """The level, and the axis that the boundary crosses."""
        along = "spread" if "spread" in (x, y) else x
        if self.along is not None:
            along = checks.spelled("--along", self.along, (x, y))
        checks.integer("seeds", self.seeds)
        checks.integer("seed", self.seed, minimum=0, maximum=LARGEST_SEED)
        level = None if self.level is None else checks.number("level", self.level, double=True)
        if self.refine and level is None:
            level = self.experiment.SYSTEM.level(self.experiment, self.metric)
            if level is None:
                raise ValueError(
                    "--level must be given with --refine, unless "
                    + self.experiment.SYSTEM.level_condition
                )
        return level, along

    def _compute(
        self,
        experiment: BaseExperiment,
        axes: dict[str, np.ndarray],
        level: float | None,
        along: str,
    ) -> xr.Dataset:
        start(self.cache)
        from causal_sgd.sweeps import check_metric, refine

        check_metric(experiment.cell(), axes, self.metric)
        if self.refine:
            return self.compute(
                experiment,
                by=refine,
                axes=axes,
                key=self.seed,
                metric=self.metric,
                level=level,
                first_seeds=min(FIRST_SEEDS, self.seeds),
                max_seeds=self.seeds,
                budget=self.budget,
                precision=self.precision,
                along=along,
            )
        return self.compute(
            experiment, axes=axes, key=self.seed, seeds=self.seeds, label="phase diagram"
        )

    def _diagram(
        self,
        experiment: BaseExperiment,
        dataset: xr.Dataset,
        axes: dict[str, np.ndarray],
        level: float | None,
        along: str,
        seconds: float,
    ) -> Diagram:
        from causal_sgd.analysis import final, rejecting_fraction, rejection_boundary

        dataset = final(dataset)
        boundary = cells = None
        if level is not None and dataset.sizes[along] > 1:
            boundary = rejection_boundary(dataset, self.metric, along=along, level=level)
            cells = rejecting_fraction(dataset, self.metric, level=level)
        (x, xs), (y, ys) = axes.items()
        shift = experiment.SYSTEM.shift(experiment, self.metric, level)
        curves = theory_curve(experiment, x, xs, y, ys, shift)
        return Diagram(
            dataset=dataset,
            metric=self.metric,
            axes=axes,
            level=level,
            along=along,
            boundary=boundary,
            cells=cells,
            curves=curves or {},
            environments=experiment.SYSTEM.environments(experiment),
            seconds=seconds,
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Phase(PhaseOf):
    """Sweep two parameters and draw the phase diagram, with theory's curve where there is one.

    With --refine, only the cells near the boundary are run, where half of the seeds reject the
    spurious part. With --out X.zarr, the same command continues where it was stopped. The system is
    matrix sensing; for regression in several environments see `causal-sgd phase supervised --help`.

    For example: causal-sgd phase --x spread=0:9:10 --y learning-rate=0.02:0.2:8:log --plot d.png
    """

    experiment: tyro.conf.OmitArgPrefixes[Experiment] = dataclasses.field(
        default_factory=Experiment
    )
    metric: MetricName = "spurious_signal"
    """Metric of the diagram."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class PhaseSupervised(PhaseOf):
    """Sweep two parameters of regression in several environments and draw the phase diagram.

    With --refine, only the cells near the boundary are run, where half of the seeds reject the
    spurious part. With --out X.zarr, the same command continues where it was stopped. Theory's
    curve is that of HeteroSGD with --model hadamard in the world contradiction.

    For example: causal-sgd phase supervised --x mean=0:0.9:10 --y spread=0:1:11 --sampler hetero
    --model hadamard --learning-rate 0.7 --plot plane.png
    """

    experiment: tyro.conf.OmitArgPrefixes[SupervisedExperiment] = dataclasses.field(
        default_factory=SupervisedExperiment
    )
    metric: SupervisedMetricName = "spurious_weight"
    """Metric of the diagram."""
