"""Panels of the study of preconditioning."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes

__all__ = ["draw_convergence", "draw_imbalance"]


def draw_convergence(ax: Axes, dataset: xr.Dataset) -> None:
    """The error over the steps for every condition number, by both kinds of gradients."""
    import matplotlib as mpl

    conditions = dataset.condition.values
    shades = mpl.colormaps["viridis"](np.linspace(0, 0.85, len(conditions)))
    for scaled, style in ((1, "-"), (0, "--")):
        errors = dataset.relative_invariant_error.sel(scaled=scaled).median("seed")
        for condition, colour in zip(conditions, shades, strict=True):
            label = f"$\\kappa = {condition:g}$" if scaled else None
            line = errors.sel(condition=condition)
            ax.loglog(line.step[1:], line[1:], style, color=colour, label=label)
    ax.plot([], [], "-", color="0.3", label="ScaledGD")
    ax.plot([], [], "--", color="0.3", label="plain")
    ax.set(xlabel="step", ylabel=r"$\|UU^\top - A^\star\| / \|A^\star\|$", ylim=(3e-7, None))
    ax.set_title("$5dr$ measurements")
    ax.legend(frameon=False, fontsize="x-small", ncols=2)


def draw_imbalance(ax: Axes, dataset: xr.Dataset) -> None:
    """The largest imbalance of two factors over the scale of the start, beside its square."""
    from causal_sgd.figures import COLOURS

    scales = dataset.init_scale.values
    largest = dataset.imbalance.max("step").median("seed")
    for index, method in enumerate(("plain", "ScaledGD")):
        line = largest.sel(scaled=index)
        ax.loglog(scales, line, "os"[index], color=COLOURS[index], ls="-", label=method)
    first = float(largest.sel(scaled=0)[0])
    ax.loglog(scales, first * (scales / scales[0]) ** 2, color="black", ls=(0, (4, 3)), lw=1)
    ax.annotate(r"$\propto\alpha^2$", (scales[2], first * 30), fontsize=9)
    ax.set(xlabel=r"initial scale $\alpha$", ylabel=r"largest $\|U^\top U - V^\top V\|$")
    ax.set_title("$UV^\\top$: imbalance")
    ax.legend(frameon=False)
