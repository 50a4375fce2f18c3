"""`dataset.sgd`: the results of a sweep in one line, in numbers and as a figure.

Importing this module registers the accessor on every `xarray.Dataset`. Matplotlib is imported only
to draw.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import xarray as xr

from causal_sgd import checks
from causal_sgd.analysis import divergences, final, metric_names, summary, time_average

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from causal_sgd.figures._diagrams import Diagram
    from causal_sgd.figures._plots import FinalValue, Trajectories

__all__ = ["Runs"]


@xr.register_dataset_accessor("sgd")
class Runs:
    """`dataset.sgd`: the results of a sweep in one line, in numbers and as a figure."""

    def __init__(self, dataset: xr.Dataset) -> None:
        """Called by xarray."""
        self._dataset = dataset

    def __repr__(self) -> str:
        """The number of runs, the axes, the share of diverged and missing runs, and the metrics."""
        dataset = self._dataset
        if "diverged_at" not in dataset:
            return "not the results of a sweep: diverged_at is missing"
        diverged = dataset["diverged_at"]
        done = dataset["done"] if "done" in dataset.coords else xr.ones_like(diverged, bool)
        num_runs, num_completed = diverged.size, int(done.sum())
        axes = " x ".join(f"{dim} ({size})" for dim, size in diverged.sizes.items())
        parts = [f"{num_runs} runs" + (f": {axes}" if axes else "")]
        if "step" in dataset.coords:
            parts.append(f"{int(dataset.step.max())} steps")
        if num_completed < num_runs:
            parts.append(f"{num_runs - num_completed} missing")
        num_diverged = int(((diverged >= 0) & done).sum())
        share = f"{num_diverged / num_completed:.1%}" if num_diverged else "none"
        parts.append(f"{share} diverged")
        parts.append(", ".join(metric_names(dataset)))
        return "; ".join(parts)

    def final(self) -> xr.Dataset:
        """The last recorded frame of every run; see `analysis.final`."""
        return final(self._dataset)

    def time_average(self, *, after: float = 0.75) -> xr.Dataset:
        """The means over the end of every run; see `analysis.time_average`."""
        return time_average(self._dataset, after=after)

    def summary(self, metric: str, quantiles: tuple[float, float] = (0.1, 0.9)) -> xr.Dataset:
        """Median, band and diverged fraction over the seeds; see `analysis.summary`."""
        return summary(self._dataset, metric, quantiles)

    def plot(
        self, metric: str | None = None, ax: Axes | None = None, **options: Any
    ) -> Diagram | FinalValue | Trajectories:
        """Draw a phase diagram over two axes, final values over one axis, or trajectories.

        A dim of names, such as the `variant` of `compare`, becomes lines of different colours.

        Args:
            metric: name of the metric; by default `spurious_signal` if it was recorded, else the
                first that is not complex.
            ax: the axes to draw on; those of a new figure by default.
            **options: options of `figures.phase_diagram`, `figures.final_value` or
                `figures.trajectories`, such as `theory`.

        Returns:
            The artists that this function returns.

        Raises:
            ValueError: if there are more axes than a figure can show, or the metric is unknown.
        """
        from causal_sgd import figures

        dataset = self._dataset.squeeze(
            [dim for dim, size in self._dataset.sizes.items() if size == 1 and dim != "seed"]
        )
        names = metric_names(dataset)
        if metric is None:
            real = [name for name in names if dataset[name].dtype.kind in "biuf"]
            metric = "spurious_signal" if "spurious_signal" in real else (real or names or [""])[0]
        checks.choice("metric", metric, names)
        dims = [str(dim) for dim in divergences(dataset).dims if dim != "seed"]
        # Dims of numbers are axes; dims of names are compared within a figure.
        axes = [dim for dim in dims if dim in dataset.coords and dataset[dim].dtype.kind in "iuf"]
        over = [dim for dim in dims if dim not in axes]
        if len(over) > 1 or len(axes) > 2 or (len(axes) == 2 and over):
            hint = "select one value of the others with .sel() or .isel()"
            raise ValueError(
                f"a figure shows at most two axes, or one axis and a dim of names, got {dims}; "
                f"{hint}"
            )
        with figures.style():
            if ax is None:
                from matplotlib import pyplot as plt

                ax = plt.subplots()[1]
            if len(axes) == 2:
                return figures.phase_diagram(
                    ax, final(dataset), metric, x=axes[0], y=axes[1], **options
                )
            options = ({"over": over[0]} if over else {}) | options
            if axes:
                return figures.final_value(ax, final(dataset), metric, along=axes[0], **options)
            return figures.trajectories(ax, dataset, metric, **options)
