"""`dataset.sgd`: what a sweep's dataset holds, in a line, in numbers and as the obvious figure.

Importing this module registers the accessor on every `xarray.Dataset`. It imports matplotlib only to draw.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import xarray as xr

from causal_sgd import checks
from causal_sgd.analysis import divergences, final, metric_names, summary

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["Runs"]


@xr.register_dataset_accessor("sgd")
class Runs:
    """`dataset.sgd`: a sweep's results in a line, in numbers and as the obvious figure."""

    def __init__(self, dataset: xr.Dataset) -> None:
        """Called by xarray."""
        self._dataset = dataset

    def __repr__(self) -> str:
        """How many runs over what, how many of them diverged or are missing, and what was recorded."""
        dataset = self._dataset
        if "diverged_at" not in dataset:
            return "not the results of a sweep: there is no diverged_at"
        diverged = dataset["diverged_at"]
        done = dataset["done"] if "done" in dataset.coords else xr.ones_like(diverged, bool)
        runs, ran = diverged.size, int(done.sum())
        axes = " x ".join(f"{dim} ({size})" for dim, size in diverged.sizes.items())
        words = [f"{runs} runs" + (f": {axes}" if axes else "")]
        if "step" in dataset.coords:
            words.append(f"{int(dataset.step.max())} steps")
        if ran < runs:
            words.append(f"{runs - ran} missing")
        blown = int(((diverged >= 0) & done).sum())
        words.append(f"{blown / ran:.1%} diverged" if ran and blown else "none diverged")
        words.append(", ".join(metric_names(dataset)))
        return "; ".join(words)

    def final(self) -> xr.Dataset:
        """The last recorded frame of every run; see `analysis.final`."""
        return final(self._dataset)

    def summary(self, metric: str, quantiles: tuple[float, float] = (0.1, 0.9)) -> xr.Dataset:
        """Median, band and diverged fraction over the seeds; see `analysis.summary`."""
        return summary(self._dataset, metric, quantiles)

    def plot(self, metric: str | None = None, ax: Axes | None = None, **options: Any) -> Any:
        """Draw what is obvious: a phase diagram over two axes, final values over one, trajectories over none.

        A dim of names, such as the `variant` of `compare`, becomes lines of several colours.

        Args:
            metric: what to draw; by default `spurious_signal` where it was recorded, else the first metric.
            ax: where; a new figure by default.
            **options: of `figures.phase_diagram`, `figures.final_value` or `figures.trajectories`.

        Returns:
            What those return: the artists.

        Raises:
            ValueError: if there are more axes than a figure shows, or the metric is unknown.
        """
        from causal_sgd import figures

        dataset = self._dataset.squeeze(
            [dim for dim, size in self._dataset.sizes.items() if size == 1 and dim != "seed"]
        )
        names = metric_names(dataset)
        if metric is None:
            metric = "spurious_signal" if "spurious_signal" in names else names[0] if names else ""
        checks.choice("metric", metric, names)
        dims = [str(dim) for dim in divergences(dataset).dims if dim != "seed"]
        over = [
            dim for dim in dims if dim not in dataset.coords or dataset[dim].dtype.kind not in "iuf"
        ]
        axes = [dim for dim in dims if dim not in over]
        if len(over) > 1 or len(axes) > 2 or (len(axes) == 2 and over):
            hint = "keep one value of the others with .sel() or .isel()"
            raise ValueError(
                f"a figure shows at most two axes, or one and a dim of names, got {dims}; {hint}"
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
