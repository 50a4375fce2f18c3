"""The command line: `run`, `phase`, `reproduce` and `list`, with the names that Python uses.

Results go to standard output, progress and errors to standard error. A mistake ends with one line and exit code 2, a claim
that fails with 1. jax starts only once there is something to simulate, so that `--help` answers at once.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import re
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import tyro

from causal_sgd import checks
from causal_sgd.experiment import CHOICES, SWEPT, Experiment

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["main"]

PLOT_SUFFIXES = (".png", ".pdf", ".svg")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run:
    """Run one experiment over many seeds and print what was reached."""

    experiment: tyro.conf.OmitArgPrefixes[Experiment] = dataclasses.field(default_factory=Experiment)
    seeds: int = 64
    """How many seeds."""
    seed: int = 0
    """Root of all randomness."""
    out: Path | None = None
    """Write the results to this netCDF file (.nc)."""
    plot: Path | None = None
    """Draw the trajectories to this file (.png, .pdf or .svg)."""
    json: bool = False
    """Print one JSON object and nothing else."""

    def __call__(self) -> int:
        """Run it."""
        _check_outputs(self.out, self.plot)
        experiment = self.experiment
        if self.plot is not None and experiment.record_every is None:
            experiment = experiment.replace(record_every=max(1, experiment.steps // 100))
        _start()
        from causal_sgd.sweeps import sweep

        begin = time.perf_counter()
        dataset = sweep(experiment.cell(), seeds=self.seeds, key=self.seed, label=experiment.sampler)
        report = {
            "config": experiment.describe() | {"seeds": self.seeds, "seed": self.seed},
            **_summaries(dataset),
            "seconds": round(time.perf_counter() - begin, 3),
        }
        if self.plot is not None:
            _draw(self.plot, lambda ax, plots: plots.trajectories(ax, dataset, list(experiment.metrics[:6]), logy=True))
        _save(dataset, self.out, experiment)
        if self.json:
            print(json.dumps(report))
            return 0
        width = max(map(len, report["metrics"]))
        print(f"{'metric':{width}}  {'median':>10}  {'q10':>10}  {'q90':>10}   (over {self.seeds} seeds)")
        for name, levels in report["metrics"].items():
            print(f"{name:{width}}  " + "  ".join(_number(levels[level]) for level in ("median", "q10", "q90")))
        print(f"diverged: {report['diverged_fraction']:.1%}   time: {report['seconds']:.1f} s")
        return 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Phase:
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
    out: Path | None = None
    """Write the results to this netCDF file (.nc)."""
    plot: Path | None = None
    """Draw the diagram to this file (.png, .pdf or .svg)."""
    json: bool = False
    """Print one JSON object and nothing else."""

    def __call__(self) -> int:
        """Run it."""
        (x, xs), (y, ys) = _axis("--x", self.x), _axis("--y", self.y)
        if x == y:
            raise ValueError(f"--x and --y must be different parameters, got {x!r} for both")
        _check_outputs(self.out, self.plot)
        from causal_sgd import metrics

        checks.choice("metric", self.metric, metrics.__all__)
        experiment = self.experiment
        if self.metric not in experiment.metrics:
            experiment = experiment.replace(metrics=(*experiment.metrics, self.metric))
        _start()
        from causal_sgd.results import final
        from causal_sgd.sweeps import sweep

        begin = time.perf_counter()
        dataset = sweep(experiment.cell(), axes={x: xs, y: ys}, seeds=self.seeds, key=self.seed, label="phase diagram")
        seconds = round(time.perf_counter() - begin, 3)
        if self.plot is not None:
            theory = _curve(experiment, x, xs, y, ys)
            _draw(
                self.plot,
                lambda ax, plots: plots.phase_diagram(ax, final(dataset), self.metric, x=x, y=y, theory=theory),
            )
        _save(dataset, self.out, experiment)
        from causal_sgd.results import summary

        table = summary(final(dataset), self.metric).transpose(y, x, ...)
        if self.json:
            report = {
                "config": experiment.describe() | {"seeds": self.seeds, "seed": self.seed},
                "axes": {x: xs.tolist(), y: ys.tolist()},
                "metric": self.metric,
                "median": _plain(table["median"].values),
                "diverged_fraction": _plain(table.diverged_fraction.values),
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


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reproduce:
    """Run the studies, check their claims and write their figures; exit code 1 if a claim fails."""

    studies: tyro.conf.Positional[tuple[str, ...]] = ()
    """Which studies, as `causal-sgd list` names them; all by default."""
    quick: bool = False
    """A reduced size, for a look; too small to decide every claim."""
    seed: int = 0
    """Root of all randomness."""
    out: Path = Path("figures")
    """The folder of the figures (.png and .pdf) and of claims.json."""

    def __call__(self) -> int:
        """Run them."""
        from causal_sgd import studies

        names = [checks.choice("study", name.replace("_", "-"), studies.NAMES) for name in self.studies]
        try:
            self.out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ValueError(f"--out must be a folder that can be written, got {self.out}: {error.strerror}") from None
        _check_outputs(None, self.out / "claims.png")
        checks.integer("seed", self.seed, minimum=0)
        _start()
        import matplotlib as mpl

        mpl.use("Agg")
        from causal_sgd import plots

        begin = time.perf_counter()
        if self.quick:
            print("quick: a reduced size; claims are checked, but this is not the full reproduction")
        records = []
        for name in names or studies.NAMES:
            study = studies.load(name)
            start = time.perf_counter()
            data = study.run(quick=self.quick, key=self.seed, progress=None)
            claims = study.claims(data)
            with plots.style():
                drawing = study.figure(data)
                for suffix in ("png", "pdf"):
                    drawing.savefig(self.out / f"{name}.{suffix}")
            print(f"\n{name}: {studies.title(study)}  [{time.perf_counter() - start:.0f} s]")
            for claim in claims:
                verdict = "holds" if claim.holds else "FAILS"
                allowed = f"[{claim.low:g}, {claim.high:g}]"
                print(
                    f"  {verdict}  {claim.measured:>8.3f}  in {allowed:<13} {claim.text}  ({claim.source})", flush=True
                )
                records.append({"study": name, "holds": claim.holds, **claim._asdict()})
        plain = [{k: _plain(v) if isinstance(v, float) else v for k, v in record.items()} for record in records]
        (self.out / "claims.json").write_text(
            json.dumps({"quick": self.quick, "seed": self.seed, "claims": plain}, indent=1)
        )
        failed = sum(not record["holds"] for record in records)
        took = time.perf_counter() - begin
        print(f"\n{len(records) - failed} of {len(records)} claims hold; figures in {self.out}/; {took:.0f} s")
        return 1 if failed else 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class List:
    """List the studies and every name that the other commands accept."""

    def __call__(self) -> int:
        """Print it."""
        from causal_sgd import studies

        print("studies of `causal-sgd reproduce`:")
        for name in studies.NAMES:
            print(f"  {name:15} {studies.title(studies.load(name))}")
        print("\nnames:")
        for field, options in CHOICES.items():
            print(f"  --{field:15} {', '.join(options)}")
        from causal_sgd import metrics

        print(f"  --{'metrics':15} {', '.join(metrics.__all__)}")
        print(f"\naxes of `causal-sgd phase`:\n  {', '.join(name.replace('_', '-') for name in SWEPT)}")
        return 0


Command = tyro.conf.OmitSubcommandPrefixes[
    Annotated[Run, tyro.conf.subcommand("run")]
    | Annotated[Phase, tyro.conf.subcommand("phase")]
    | Annotated[Reproduce, tyro.conf.subcommand("reproduce")]
    | Annotated[List, tyro.conf.subcommand("list")]
]


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse, run, and exit: 0 for success, 1 where a claim fails, 2 for a mistake, 130 when interrupted."""
    sys.exit(_main(sys.argv[1:] if arguments is None else arguments))


def _main(arguments: Sequence[str]) -> int:
    try:
        return _parse(arguments)()
    except ValueError as error:
        print(f"causal-sgd: error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("causal-sgd: interrupted", file=sys.stderr)
        return 130


def _parse(arguments: Sequence[str]) -> Any:
    """The command; tyro's boxed complaints become one line."""
    errors = io.StringIO()
    try:
        with contextlib.redirect_stderr(errors):
            return tyro.cli(Command, prog="causal-sgd", args=list(arguments), description=__doc__.partition("\n")[0])  # pyright: ignore
    except SystemExit as stop:
        if not stop.code:
            raise
        text = re.sub(r"\x1b\[[0-9;]*m", "", errors.getvalue())
        lines = [line.strip(" │|+╭╮╰╯").strip() for line in text.splitlines()[1:]]
        lines = [line for line in lines if line.strip("─-")]  # not the boxes' rules, in Unicode or ASCII
        told = []
        for line in lines:
            if line.startswith(("For full", "Argument helptext", "(required)")):
                break
            told.append(line)
        message = re.sub(r"^Error parsing __tyro\S*: ", "", " ".join(told[:4]))
        raise ValueError(message + " (see causal-sgd --help)") from None


def _start() -> None:
    """Use all cores, which has to come before jax starts."""
    from causal_sgd.sweeps import use_cpu_cores

    use_cpu_cores()


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


def _check_outputs(out: Path | None, plot: Path | None) -> None:
    """Find out before the run whether what it leaves can be written."""
    for option, path, suffixes in (("--out", out, (".nc",)), ("--plot", plot, PLOT_SUFFIXES)):
        if path is None:
            continue
        if path.suffix not in suffixes:
            raise ValueError(f"{option} must end in {' or '.join(suffixes)}, got {path}")
        existed = path.exists()
        try:
            with path.open("ab"):
                pass
        except OSError as error:
            raise ValueError(f"{option} must be a file that can be written, got {path}: {error.strerror}") from None
        if not existed:
            path.unlink()


def _summaries(dataset: xr.Dataset) -> dict[str, Any]:
    """The final median and quantiles of every metric over the seeds that did not diverge."""
    from causal_sgd.results import final, metric_names, summary

    report: dict[str, Any] = {"metrics": {}}
    for name in metric_names(dataset):
        table = summary(final(dataset), name)
        levels = {"median": "median", "q10": "low", "q90": "high"}
        report["metrics"][name] = {level: _plain(table[column].values) for level, column in levels.items()}
    report["diverged_fraction"] = float((dataset["diverged_at"] >= 0).mean())
    return report


def _plain(values: Any) -> Any:
    """Numbers that JSON knows: what is not finite becomes null."""
    if isinstance(values, np.ndarray) and values.ndim:
        return [_plain(value) for value in values]
    return float(values) if np.isfinite(values) else None


def _number(value: Any) -> str:
    if isinstance(value, list):
        return " ".join(_number(entry).strip() for entry in value[:6])
    return f"{'-':>10}" if value is None else f"{value:>10.4g}"


def _curve(experiment: Experiment, x: str, xs: np.ndarray, y: str, ys: np.ndarray) -> Any:
    """The theory's boundary as plots take it, where it is a curve in these axes; else None."""
    from causal_sgd import theory

    one_environment = experiment.sampler in ("hetero", "cyclic", "shuffled", "block", "sticky")
    if not one_environment or experiment.optimizer != "sgd" or experiment.world_file is not None:
        return None
    family = experiment.family.replace("-", "_")
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


def _draw(path: Path, draw: Any) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    from causal_sgd import plots

    with plots.style():
        drawing, ax = plt.subplots()
        draw(ax, plots)
        drawing.savefig(path)
        plt.close(drawing)


def _save(dataset: xr.Dataset, path: Path | None, experiment: Experiment) -> None:
    if path is not None:
        dataset.attrs["experiment"] = json.dumps(experiment.describe())
        dataset.to_netcdf(path)
