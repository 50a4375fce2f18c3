"""The panels of the figure of the study of the limit of high dimension."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from causal_sgd import figures
from causal_sgd.studies._frames import diverged_share
from causal_sgd.studies._tables import points
from causal_sgd.studies.sensing import _proportional as settings

if TYPE_CHECKING:
    from collections.abc import Sequence

    import xarray as xr
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes

__all__ = ["plane", "predicted", "sizes", "trajectories"]

DIM = 200
RATIOS = (1.0, 3.0, 10.0)  # batch ratios of the lines in the plane
COLOURS = ("#000000", "#C0392B", "#8E44AD")  # visible on the shading, with a halo


def trajectories(ax: Axes, chain: xr.Dataset, limit: xr.Dataset, *, steps: int) -> None:
    """The signals against the step, chain and limit.

    Args:
        ax: to draw on.
        chain: runs [batch_ratio, dim, seed, step] and axes of length one.
        limit: the same without dim.
        steps: to draw.
    """
    chain, limit = (
        runs.squeeze(drop=True).sel(batch_ratio=settings.MIDDLE, step=slice(0, steps))
        for runs in (chain.sel(dim=DIM), limit)
    )
    names = [f"{part}_signal" for part in settings.PARTS]
    figures.trajectories(ax, chain, names, theory=limit, legend="below")
    ax.set_title(f"$M = {settings.BELOW:g}$, {_batch(settings.MIDDLE)}, $d = {DIM}$")


def plane(ax: Axes, diagram: xr.Dataset) -> None:
    """What lives, dies and diverges in the plane of learning rate and heterogeneity.

    Args:
        ax: to draw on.
        diagram: runs [rate, spread, batch_ratio, dim, seed, step] at one batch ratio.
    """
    from matplotlib import patheffects
    from matplotlib.lines import Line2D

    runs = diagram.squeeze(("batch_ratio", "dim")).isel(step=[-1])
    runs = runs.assign_coords(rate=runs.learning_rate.values)
    figures.phase_diagram(
        ax, runs, "invariant_error", x="rate", y="spread", logx=True, legend=False
    )
    (left, right), (bottom, top) = ax.get_xlim(), ax.get_ylim()
    rates, spreads = np.geomspace(left, right, 80), np.linspace(max(bottom, 0), top, 80)
    halo = [patheffects.withStroke(linewidth=2.6, foreground="white")]
    styles = {"spurious part dies": "-", "$A^\\star$ dies": "--", "divergence": ":"}
    for colour, ratio in zip(COLOURS, RATIOS, strict=True):
        fields = settings.boundaries(rates, spreads, ratio)
        for field, style in zip(fields, styles.values(), strict=True):
            lines = ax.contour(rates, spreads, field, [0], colors=[colour], linestyles=style)
            lines.set(linewidth=1.3, path_effects=halo)
    handles = [
        Line2D([], [], color=colour, label=_batch(ratio))
        for colour, ratio in zip(COLOURS, RATIOS, strict=True)
    ]
    handles += [Line2D([], [], color="0.2", ls=style, label=text) for text, style in styles.items()]
    _legend(ax, handles)
    ax.set(xlabel=r"learning rate $\eta$", ylabel="heterogeneity $M$")
    ax.set_title(f"simulated: {_batch(float(diagram.batch_ratio[0]))}")


def sizes(ax: Axes, few: xr.Dataset, dense: xr.Dataset) -> None:
    """The batch size of divergence against d.

    Args:
        ax: to draw on.
        few: runs [batch_ratio, dim, spread, learning_rate, later_rate, seed, step] with few
            columns.
        dense: runs [dim, multiple, seed, step] with all columns.
    """
    import xarray as xr

    few = few.squeeze(("spread", "learning_rate", "later_rate"))
    dims = np.geomspace(50, 2e4, 50)
    lines = {
        "$k = 4$: $m \\sim d$": settings.divergence(settings.ABOVE) * dims,
        r"$k = d$: $m \sim d^{3/2}$": [settings.dense_divergence(int(dim)) * dim for dim in dims],
    }
    simulated = (
        (few.dim, few.batch_ratio * few.dim, diverged_share(few)),
        (dense.dim, dense.batch_size, diverged_share(dense)),
    )
    for colour, (label, line), runs in zip(COLOURS[:2], lines.items(), simulated, strict=True):
        ax.loglog(dims, line, color=colour, lw=1.1, label=label)
        x, y, share = (part.values.ravel() for part in xr.broadcast(*runs))
        for inside, face in ((share >= 0.5, colour), (share < 0.5, "white")):
            ax.plot(x[inside], y[inside], "o", ms=4, mfc=face, mec=colour, mew=0.9)
    ax.plot([], [], "o", ms=4, mfc="0.4", mec="0.4", label="most runs diverge")
    ax.plot([], [], "o", ms=4, mfc="white", mec="0.4", label="most runs do not")
    _legend(ax, ax.get_legend_handles_labels()[0])
    ax.set(xlabel="dimension $d$", ylabel="batch size $m$", title="divergence")


def predicted(diagram: xr.Dataset, few: xr.Dataset, dense: xr.Dataset) -> dict[str, xr.Dataset]:
    """The numbers of theory behind the panels, at the simulated points.

    Args:
        diagram: as for `plane`.
        few: as for `sizes`.
        dense: as for `sizes`.
    """
    rates, spreads = np.unique(diagram.learning_rate), np.unique(diagram.spread)
    plane = {
        "retention_batch_ratio": settings.retention(spreads[:, None], rates),
        "divergence_batch_ratio": settings.divergence(spreads[:, None], rates),
    }
    critical = [settings.critical(ratio) for ratio in RATIOS]
    sizes = {
        "few": (few.dim.values, settings.divergence(settings.ABOVE) * few.dim.values),
        "all": (
            dense.dim.values,
            [settings.dense_divergence(int(dim)) * dim for dim in dense.dim.values],
        ),
    }
    return {
        "plane, theory": points({"spread": spreads[:, None], "learning_rate": rates}, plane),
        "critical spread": points(
            {"batch_ratio": RATIOS, "learning_rate": settings.ETA}, {"theory": critical}
        ),
    } | {
        f"divergence, {columns} columns": points({"dim": dims}, {"batch_size": values})
        for columns, (dims, values) in sizes.items()
    }


def _legend(ax: Axes, handles: Sequence[Artist]) -> None:
    ax.legend(
        handles=handles,
        loc="upper center",
        bbox_to_anchor=(0.5, -0.2),
        ncols=2,
        frameon=False,
    )


def _batch(ratio: float) -> str:
    return "$m = d$" if ratio == 1 else f"$m = {ratio:g}\\,d$"
