"""`causal-sgd phase`: a phase diagram over two parameters, full or refined at its boundary."""

from __future__ import annotations

import dataclasses
import json
import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import tyro

from causal_sgd import checks
from causal_sgd.cli.axes import check_axis_used, parse_axis
from causal_sgd.cli.computation import Computation, start
from causal_sgd.cli.outputs import aligned, distinct, draw, plain, spread_out, take
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

MOST_ROWS = 24  # of a printed table
NARROWEST_HEAD, NARROWEST_CELL = 10, 8  # columns of its first column and of the others
ALL = "all of them: --out diagram.csv or --json"
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

    def _draw(self, diagram: _Diagram) -> None:
        if self.plot is not None:
            diagram.draw(self.plot, merge=self.refine)

    def _print(self, experiment: BaseExperiment, diagram: _Diagram) -> None:
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
    ) -> _Diagram:
        from causal_sgd.analysis import final, rejecting_fraction, rejection_boundary

        dataset = final(dataset)
        boundary = cells = None
        if level is not None and dataset.sizes[along] > 1:
            boundary = rejection_boundary(dataset, self.metric, along=along, level=level)
            cells = rejecting_fraction(dataset, self.metric, level=level)
        (x, xs), (y, ys) = axes.items()
        shift = experiment.SYSTEM.shift(experiment, self.metric, level)
        curves = theory_curve(experiment, x, xs, y, ys, shift)
        return _Diagram(
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


@dataclasses.dataclass(frozen=True)
class _Diagram:
    """A computed diagram."""

    dataset: xr.Dataset  # final values
    metric: str
    axes: dict[str, np.ndarray]  # x, y
    level: float | None
    along: str
    boundary: xr.Dataset | None  # with its band, where there is a level to cross
    cells: xr.Dataset | None  # the binomial of every cell
    curves: dict[str, tuple[np.ndarray, np.ndarray]]
    environments: str  # for which theory's curve holds
    seconds: float

    @property
    def runs(self) -> int:
        """Number of runs."""
        done = self.dataset.coords.get("done")
        return self.dataset["diverged_at"].size if done is None else int(done.sum())

    @property
    def _labelled_curves(self) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """Theory's curves by what they are and for which environments."""
        labels = {"theory": f"theory, {self.environments}"}
        return {labels.get(name, name): curve for name, curve in self.curves.items()}

    def draw(self, path: Path, *, merge: bool) -> None:
        """Write the figure; `merge` joins the cells that were not run to their neighbours."""
        x, y = self.axes
        cells = self.cells
        undecided = None if cells is None else (cells.decided == 0) & (cells.runs > 0)
        draw(
            path,
            lambda ax, figures: figures.phase_diagram(
                ax,
                self.dataset,
                self.metric,
                x=x,
                y=y,
                theory=self._labelled_curves or None,
                band=self.boundary,
                undecided=undecided,
                merge=merge,
            ),
        )

    def report(self) -> dict[str, object]:
        """The result as plain values for --json."""
        from causal_sgd.analysis import summary

        x, y = self.axes
        table = summary(self.dataset, self.metric).transpose(y, x, ...)
        report: dict[str, object] = {
            "axes": {name: values.tolist() for name, values in self.axes.items()},
            "metric": self.metric,
            "median": plain(table["median"].values),
            "diverged_fraction": plain(table.diverged_fraction.values),
            "runs": self.runs,
        }
        if self.boundary is not None and self.cells is not None:
            other = str(self.boundary["value"].dims[0])
            report["boundary"] = {
                "level": self.level,
                "along": self.along,
                other: self.boundary[other].values.tolist(),
            } | {name: plain(self.boundary[name].values) for name in ("value", "low", "high")}
            cells = self.cells.transpose(y, x)
            report["cells"] = {
                name: cells[name].values.tolist() for name in ("runs", "decided")
            } | {name: plain(cells[name].values) for name in ("fraction", "low", "high")}
        if self.curves:
            report["theory"] = {"environments": self.environments} | {
                name: {x: plain(horizontal), y: plain(vertical)}
                for name, (horizontal, vertical) in self.curves.items()
            }
        return report | {"seconds": self.seconds}

    def print_table(self, seeds: int) -> None:
        """Print the medians over the seeds."""
        from causal_sgd.analysis import summary

        (x, xs), (y, ys) = self.axes.items()
        table = summary(self.dataset, self.metric).transpose(y, x, ...)
        print(
            f"median {self.metric} over {seeds} seeds; rows {y}, columns {x}; "
            "'div.' where half or more diverged"
        )
        medians = np.vectorize(lambda value: f"{value:.3g}")(table["median"].values)
        texts = np.where(table.diverged_fraction.values >= 0.5, "div.", medians)
        width = max(NARROWEST_CELL, 1 + max(map(len, texts.flat)))
        room = shutil.get_terminal_size().columns - NARROWEST_HEAD
        across, up = spread_out(len(xs), room // width), spread_out(len(ys), MOST_ROWS)
        rows = [["", *distinct(xs[across], digits=3)]]
        for row, value in zip(up, distinct(ys[up], digits=4), strict=True):
            rows.append([value, *texts[row, across]])
        print("\n".join(aligned(rows, least=(NARROWEST_HEAD, width))))
        if len(across) < len(xs) or len(up) < len(ys):
            print(
                f"shown: {len(across)} of {len(xs)} columns and {len(up)} of {len(ys)} rows; {ALL}"
            )

    def print_boundary(self) -> None:
        """Print the boundary, if there is one, with a row for each value of the other axis."""
        if self.boundary is None:
            return
        other = str(self.boundary["value"].dims[0])
        values = self.boundary[other].values
        columns = {name: self.boundary[name].values for name in ("value", "low", "high")}
        for name, (horizontal, vertical) in self.curves.items():
            # A curve is a function of the axis that spans its whole range.
            for argument, curve in ((horizontal, vertical), (vertical, horizontal)):
                if np.isclose(argument[[0, -1]], values[[0, -1]]).all():
                    columns[name] = np.interp(values, argument, curve)
                    break
        print(f"where half of the seeds reject, {self.along} by {other}, with its 95 % band")
        rows = [[other, *columns]]
        shown = spread_out(len(values), MOST_ROWS)
        for row, value in zip(shown, distinct(values[shown], digits=4), strict=True):
            rows.append([value, *(f"{column[row]:.4g}" for column in columns.values())])
        print("\n".join(aligned(rows, least=(13, 13))))
        if len(shown) < len(values):
            print(f"shown: {len(shown)} of {len(values)} rows; all of them: --json")
        if "theory" in columns:
            print(f"theory is that of {self.environments}")
