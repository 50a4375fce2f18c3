"""`causal-sgd phase`: an experiment over two parameters, as a full diagram or refined where its boundary passes."""

from __future__ import annotations

import dataclasses
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import tyro

from causal_sgd import checks
from causal_sgd.cli.computation import Computation, start
from causal_sgd.cli.outputs import draw, plain
from causal_sgd.experiment import CHOICES, INTEGER_AXES, SWEEPABLE, Experiment
from causal_sgd.sweeps._grid import LARGEST_SEED

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["Phase", "theory_curve"]

FEDERATED = ("fedavg", "fedprox", "scaffold")
USERS = {
    "label_noise": (
        "measurement",
        tuple(name for name in CHOICES["measurement"] if name != "population"),
    ),
    "fresh_noise": ("measurement", ("fixed-design",)),
    "momentum": ("optimizer", ("momentum", "nesterov")),
    "weight_decay": ("optimizer", ("sgdw", "adamw", "lion")),
    "stay": ("sampler", ("sticky",)),
    "block_length": ("sampler", ("block",)),
    "coupling": ("family", ("goe",)),
    "renewal": ("evolution", ("redraw",)),
    "mean_drift": ("evolution", ("drift",)),
    "turn": ("evolution", ("rotate",)),
    "average_decay": ("average", ("moving",)),
    "average_start": ("average", ("tail",)),
    "local_steps": ("algorithm", FEDERATED),
    "server_learning_rate": ("algorithm", FEDERATED),
    "proximal": ("algorithm", ("fedprox",)),
}
"""Parameters that only some experiments use: where a field has one of these values."""
REPLACED_BY = {
    "mean": ("means", "eigenvalues", "world_file"),
    "spread": ("spreads", "eigenvalues", "world_file"),
    "invariant_eigenvalue": ("invariant_spectrum", "world_file"),
    "tilt": ("world_file",),
    "rotation": ("world_file",),
    "coupling": ("world_file",),
}
"""Parameters that other fields take the place of."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Phase(Computation):
    """Sweep two parameters and draw the phase diagram, with the theory's curve where there is one.

    With --refine only those cells are run through which the boundary passes, where half of the seeds reject the spurious
    part. With --out X.zarr the same command goes on where it was stopped.

    For example: causal-sgd phase --x spread=0:9:10 --y learning-rate=0.02:0.2:8:log --plot diagram.png
    """

    x: str
    """The horizontal axis: NAME=START:STOP:COUNT, with :log at the end for a geometric one, or NAME=VALUE,VALUE,..."""
    y: str
    """The vertical axis, in the same form."""
    experiment: tyro.conf.OmitArgPrefixes[Experiment] = dataclasses.field(
        default_factory=Experiment
    )
    metric: str = "spurious_signal"
    """The metric of the diagram."""
    seeds: int = 8
    """How many seeds in each cell; with --refine in each that 8 leave undecided."""
    seed: int = 0
    """Root of all randomness."""
    level: float | None = None
    """A final value below it rejects: the boundary is found, told, and drawn with its 95 % band, and cells that are undecided
    are hatched. With --refine and the metric spurious_signal a fifth of sqrt(spurious_rank * mean) by default."""
    along: str | None = None
    """The axis that the boundary crosses; by default spread where it is one, else the horizontal one."""
    refine: bool = False
    """Run only the cells of the diagram through which the boundary passes."""
    budget: int | None = None
    """The most runs of --refine."""
    precision: float | None = None
    """Double the seeds of --refine, from 16 up to --seeds, until half the band is this narrow in the median."""
    plot: Path | None = None
    """Draw the diagram to this file (.png, .pdf or .svg)."""
    json: bool = False
    """Print one JSON object and nothing else."""

    def __call__(self) -> int:
        """Run it."""
        (x, xs), (y, ys) = _axis("--x", self.x), _axis("--y", self.y)
        if x == y:
            raise ValueError(f"--x and --y must be different parameters, got {x!r} for both")
        for option, name in (("--x", x), ("--y", y)):
            _check_used(option, name, self.experiment)
        level, along = self._boundary_options(x, y)
        self.check(self.plot)
        from causal_sgd.sensing import metrics

        checks.choice("metric", self.metric, metrics.__all__)
        experiment = self.experiment
        if self.metric not in experiment.metrics:
            experiment = experiment.replace(metrics=(*experiment.metrics, self.metric))
        begin = time.perf_counter()
        axes = {x: xs, y: ys}
        options: dict[str, Any] = {"axes": axes, "key": self.seed}
        start(self.cache)
        from causal_sgd.sweeps import check_metric

        check_metric(experiment.cell(), axes, self.metric)
        if self.refine:
            from causal_sgd.sweeps import refine

            dataset = self.compute(
                experiment, by=refine, metric=self.metric, level=level, first_seeds=min(8, self.seeds),
                max_seeds=self.seeds, budget=self.budget, precision=self.precision, along=along, **options,
            )  # fmt: skip
        else:
            dataset = self.compute(experiment, seeds=self.seeds, label="phase diagram", **options)
        seconds = round(time.perf_counter() - begin, 3)
        from causal_sgd.analysis import final

        dataset = final(dataset)
        curves = theory_curve(experiment, x, xs, y, ys, self._shift(experiment, level))
        found, cells = _boundary(dataset, self.metric, along, level)
        if self.plot is not None:
            undecided = None if cells is None else (cells.decided == 0) & (cells.runs > 0)
            draw(
                self.plot,
                lambda ax, plots: plots.phase_diagram(
                    ax,
                    dataset,
                    self.metric,
                    x=x,
                    y=y,
                    theory=curves,
                    band=found,
                    undecided=undecided,
                    merge=self.refine,
                ),
            )
        runs = int(dataset.done.sum()) if "done" in dataset.coords else dataset["diverged_at"].size
        if self.json:
            print(
                json.dumps(
                    self._report(
                        experiment, dataset, axes, level, along, found, cells, runs, seconds
                    )
                )
            )
            return 0
        if not self.refine:
            self._print_table(dataset, x, xs, y, ys)
        if found is not None:
            _print_boundary(found, along, curves)
        share = (
            f", {len(xs) * len(ys) * self.seeds / runs:.1f} times fewer than all"
            if self.refine
            else ""
        )
        print(f"{runs} runs{share} in {seconds:.1f} s")
        return 0

    def _boundary_options(self, x: str, y: str) -> tuple[float | None, str]:
        """The level and the axis that the boundary crosses."""
        for name in ("budget", "precision"):
            if getattr(self, name) is not None and not self.refine:
                raise ValueError(f"--{name} is an option of --refine")
        along = "spread" if "spread" in (x, y) else x
        if self.along is not None:
            along = checks.choice("--along", self.along.replace("-", "_"), (x, y))
        checks.integer("seeds", self.seeds)
        checks.integer("seed", self.seed, minimum=0, maximum=LARGEST_SEED)
        level = None if self.level is None else checks.number("level", self.level)
        if self.refine and level is None:
            pooled = self.experiment.spurious_rank * self.experiment.mean
            if self.metric != "spurious_signal" or pooled <= 0:
                raise ValueError(
                    "--level must be given with --refine, unless the metric is spurious_signal and the mean above 0"
                )
            level = 0.2 * pooled**0.5
        return level, along

    def _shift(self, experiment: Experiment, level: float | None) -> dict[str, float] | None:
        """What the prediction for runs of finite length needs, where it is about one direction by population gradients."""
        exact = (
            experiment.measurement == "population"
            and experiment.spurious_rank == 1
            and not experiment.tilt
        )
        if level is None or self.metric != "spurious_signal" or not exact or level <= 0:
            return None
        return {"num_steps": experiment.steps, "init_scale": experiment.init_scale, "level": level}

    def _report(
        self, experiment: Experiment, dataset: xr.Dataset, axes: dict[str, np.ndarray], level: float | None, along: str,
        found: xr.Dataset | None, cells: xr.Dataset | None, runs: int, seconds: float,
    ) -> dict[str, Any]:  # fmt: skip
        """What --json prints."""
        from causal_sgd.analysis import summary

        x, y = axes
        table = summary(dataset, self.metric).transpose(y, x, ...)
        report = {
            "config": experiment.describe() | {"seeds": self.seeds, "seed": self.seed},
            "axes": {name: values.tolist() for name, values in axes.items()},
            "metric": self.metric,
            "median": plain(table["median"].values),
            "diverged_fraction": plain(table.diverged_fraction.values),
            "runs": runs,
        }
        if found is not None and cells is not None:
            other = str(found["value"].dims[0])
            bounds = {name: plain(found[name].values) for name in ("value", "low", "high")}
            report["boundary"] = {
                "level": level,
                "along": along,
                other: found[other].values.tolist(),
                **bounds,
            }
            cells = cells.transpose(y, x)
            report["cells"] = {
                "runs": cells.runs.values.tolist(),
                "decided": cells.decided.values.tolist(),
                **{name: plain(cells[name].values) for name in ("fraction", "low", "high")},
            }
        return report | {"seconds": seconds}

    def _print_table(
        self, dataset: xr.Dataset, x: str, xs: np.ndarray, y: str, ys: np.ndarray
    ) -> None:
        from causal_sgd.analysis import summary

        table = summary(dataset, self.metric).transpose(y, x, ...)
        print(
            f"median {self.metric} over {self.seeds} seeds; rows {y}, columns {x}; 'div.' where half or more diverged"
        )
        print(" " * 10 + "".join(f"{value:>8.3g}" for value in xs))
        for row, value in enumerate(ys):
            cells = zip(
                table["median"].values[row], table.diverged_fraction.values[row], strict=True
            )
            print(
                f"{value:>10.4g}"
                + "".join(f"{'div.' if lost >= 0.5 else f'{mid:.3g}':>8}" for mid, lost in cells)
            )


def _boundary(
    dataset: xr.Dataset, metric: str, along: str, level: float | None
) -> tuple[xr.Dataset | None, xr.Dataset | None]:
    """The measured boundary with its band, and the binomial of every cell, where there is a level to cross."""
    if level is None or dataset.sizes[along] < 2:
        return None, None
    from causal_sgd.analysis import rejecting_fraction, rejection_boundary

    return (
        rejection_boundary(dataset, metric, along=along, level=level),
        rejecting_fraction(dataset, metric, level=level),
    )


def _print_boundary(found: xr.Dataset, along: str, curves: Any) -> None:
    """A row for each value of the other axis."""
    other = str(found["value"].dims[0])
    places = found[other].values
    columns = {name: found[name].values for name in ("value", "low", "high")}
    for name, (horizontal, vertical) in (curves or {}).items():
        # a curve goes along the axis that was not solved for, whose values are evenly spread
        pairs = ((horizontal, vertical), (vertical, horizontal))
        line = next(
            (pair for pair in pairs if np.isclose(pair[0][[0, -1]], places[[0, -1]]).all()), None
        )
        if line is not None:
            columns[name] = np.interp(places, *line)
    print(f"where half of the seeds reject, {along} by {other}, with its 95 % band")
    print(f"{other[:13]:>13}" + "".join(f"{name:>17}" for name in columns))
    for row, place in enumerate(places):
        print(f"{place:>13.4g}" + "".join(f"{column[row]:>17.4g}" for column in columns.values()))


def _axis(option: str, text: str) -> tuple[str, np.ndarray]:
    """NAME=START:STOP:COUNT[:log] or NAME=VALUE,... as the parameter's name and its values."""
    form = "NAME=START:STOP:COUNT, NAME=START:STOP:COUNT:log or NAME=VALUE,VALUE,..."
    name, equals, values = text.partition("=")
    if not equals:
        raise ValueError(f"{option} must have the form {form}, got {text!r}")
    name = checks.choice(f"{option} parameter", name.strip().replace("-", "_"), SWEEPABLE)
    parts = values.split(":")
    try:
        if len(parts) == 1:
            axis = np.array([float(value) for value in values.split(",")])
        elif len(parts) == 3 or (len(parts) == 4 and parts[3] == "log"):
            start, stop, count = float(parts[0]), float(parts[1]), int(parts[2])
            if count < 1:
                raise ValueError
            if not np.isfinite([start, stop]).all():
                raise ValueError(f"{option} must run over finite, increasing values, got {text!r}")
            if len(parts) == 4 and min(start, stop) <= 0:
                raise ValueError(
                    f"{option} must have ends above 0 for a logarithmic axis, got {text!r}"
                )
            axis = (np.geomspace if len(parts) == 4 else np.linspace)(start, stop, count)
        else:
            raise ValueError
    except ValueError as error:
        raise ValueError(
            str(error)
            if option in str(error)
            else f"{option} must have the form {form}, got {text!r}"
        ) from None
    if not np.isfinite(axis).all() or (len(axis) > 1 and not (np.diff(axis) > 0).all()):
        raise ValueError(f"{option} must run over finite, increasing values, got {text!r}")
    if name in INTEGER_AXES:
        if (axis != np.round(axis)).any() and len(parts) == 1:
            raise ValueError(f"{option} must have whole numbers for {name}, got {text!r}")
        axis = np.unique(np.round(np.clip(axis, -(2**62), 2**62)).astype(int))
    return name, axis


def _check_used(option: str, name: str, experiment: Experiment) -> None:
    """Refuse an axis along which nothing would change."""
    field, users = USERS.get(name, ("", ()))
    if field and getattr(experiment, field) not in users:
        raise ValueError(
            f"{option} must be a parameter that is used, but {name} is not unless {field} is {' or '.join(users)}, got "
            f"{getattr(experiment, field)!r}"
        )
    for other in REPLACED_BY.get(name, ()):
        if getattr(experiment, other) is not None:
            raise ValueError(
                f"{option} must be a parameter that is used, but {name} is not where {other} is given"
            )


def theory_curve(
    experiment: Experiment,
    x: str,
    xs: np.ndarray,
    y: str,
    ys: np.ndarray,
    shift: dict[str, float] | None = None,
) -> Any:
    """The theory's boundary as plots take it, where it is a curve in these axes; else None.

    With `shift`, the arguments of `theory.finite_time_critical_spread`, that of runs so long too.
    """
    from causal_sgd import theory

    one_environment = experiment.sampler in ("hetero", "cyclic", "shuffled", "block", "sticky")
    plain = (experiment.algorithm, experiment.optimizer, experiment.schedule) == (
        "sgd",
        "sgd",
        "constant",
    )
    plain &= (experiment.accumulate, experiment.clip_norm, experiment.sam_radius) == (1, None, None)
    # Their multipliers near zero are 1 + eta s; those of other models and of networks with a trace are others.
    plain &= (
        experiment.model in ("factored", "diagonal", "quadratic")
        and experiment.measurement != "examples"
    )
    plain &= experiment.trace_correction or experiment.measurement != "rank-one"
    plain &= experiment.probabilities is None
    if not one_environment or not plain or experiment.world_file is not None:
        return None
    family = experiment.family.replace("-", "_")
    changed = (
        experiment.rotation
        or experiment.means
        or experiment.spreads
        or experiment.evolution not in ("none", "redraw")
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
    curves = {"theory": curve}
    if shift is not None and solved == "spread":
        curves["at finite time"] = theory.finite_time_critical_spread(
            values["learning_rate"], values["mean"], **shift, family=family
        )
    along = values[other]
    pairs = {name: np.asarray(curve) for name, curve in curves.items()}
    return {
        name: (curve, along) if solved == x else (along, curve) for name, curve in pairs.items()
    }
