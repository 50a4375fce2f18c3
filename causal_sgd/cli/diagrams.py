"""A computed phase diagram: its figure, its tables in the shell, and its values for --json."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from causal_sgd.cli.help import wrapped
from causal_sgd.cli.outputs import aligned, distinct, draw, plain, spread_out

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["Diagram"]

MOST_ROWS = 24  # of a printed table
NARROWEST_HEAD, NARROWEST_CELL = 10, 8  # columns of its first column and of the others
ALL = "all of them: --out diagram.csv or --json"


@dataclasses.dataclass(frozen=True)
class Diagram:
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
        print("\n".join(wrapped(f"median {self.metric} over {seeds} seeds; rows {y}, columns {x}")))
        medians = np.vectorize(_cell)(table["median"].values)
        texts = np.where(table.diverged_fraction.values >= 0.5, "div.", medians)
        width = max(NARROWEST_CELL, 1 + max(map(len, texts.flat)))
        room = shutil.get_terminal_size().columns - NARROWEST_HEAD
        across, up = spread_out(len(xs), room // width), spread_out(len(ys), MOST_ROWS)
        rows = [["", *distinct(xs[across], digits=3)]]
        for row, value in zip(up, distinct(ys[up], digits=4), strict=True):
            rows.append([value, *texts[row, across]])
        print("\n".join(aligned(rows, least=(NARROWEST_HEAD, width))))
        if "div." in texts:
            print("div.: half of the runs or more diverged")
        if "-" in texts:
            print("-: no run has a value")
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
            rows.append([value, *(_crossing(float(column[row])) for column in columns.values())])
        print("\n".join(aligned(rows, least=(13, 13))))
        if not all(np.isfinite(column).all() for column in columns.values()):
            legend = (
                f"none: no crossing between {self.along} {self.axes[self.along].min():.4g} and "
                f"{self.axes[self.along].max():.4g}; below, above: an end of the band beyond them"
            )
            print("\n".join(wrapped(legend)))
        if len(shown) < len(values):
            print(f"shown: {len(shown)} of {len(values)} rows; all of them: --json")
        if "theory" in columns:
            print(f"theory is that of {self.environments}")


def _cell(median: float) -> str:
    """The median of a cell; a dash where no run was done."""
    return "-" if np.isnan(median) else f"{median:.3g}"


def _crossing(value: float) -> str:
    """A crossing of the boundary; where it lies beyond the axis, on which side."""
    if np.isfinite(value):
        return f"{value:.4g}"
    return "none" if np.isnan(value) else "above" if value > 0 else "below"
