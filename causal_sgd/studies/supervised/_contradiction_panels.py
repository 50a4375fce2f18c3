"""The figure of the study `contradiction`: one plane, two scans of the step size, every method."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib import patheffects
from matplotlib import pyplot as plt
from matplotlib.cm import ScalarMappable
from matplotlib.colors import BoundaryNorm, ListedColormap, Normalize
from matplotlib.lines import Line2D

from causal_sgd.studies.supervised import _contradiction_methods as methods
from causal_sgd.studies.supervised._contradiction_methods import VARIANCE
from causal_sgd.studies.supervised._contradiction_theory import (
    distances,
    predicted,
    reach,
    shares,
)

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from causal_sgd.analysis import Boundary

    Properties = dict[str, Any]  # of a matplotlib artist

__all__ = ["draw"]

FOUND = 0.1  # of the distance of pooled least squares
WIDTH, HEIGHT = 1.0, VARIANCE**0.5  # of the plane; no bias is larger than its height
PLANE_RATE = 0.5
LINES = {0.2: "#6a3d9a", PLANE_RATE: "#b5179e", 0.9: "#e8590c"}  # by learning rate
# Rows of panels: class, its colour, and methods.
CLASSES = (
    (
        (
            "methods of variation need $M > 0$",
            "#00695c",
            ("V-REx", "IRMv1", "EILLS", "FAIR", "ICP"),
        ),
        (
            r"methods of contradiction need $M > \mu$ or more",
            "#6a3d9a",
            ("GroupDRO", "ANDMask", "u^2", "u^2 - v^2"),
        ),
    ),
    (
        (r"blind methods need $\mu = 0$", "#8a6d00", ("ERM", "IGA", "CORAL", "anchor", "Dantzig")),
        ("blind HeteroSGD", "#8a6d00", ("linear", "two layers")),
        ("between", "0.35", ("Fishr",)),
    ),
)
COUNTED = tuple(name for row in CLASSES for *_, names in row for name in names)
TITLES = {
    "u^2": "HeteroSGD $u^2$",
    "u^2 - v^2": "HeteroSGD $u^2{-}v^2$",
    "ERM": "pooled (ERM)",
    "Dantzig": "causal Dantzig",
    "linear": "linear model",
    "two layers": "two-layer net",
}
IMPOSSIBLE: Properties = {"facecolor": "0.94", "edgecolor": "0.8", "hatch": "////", "linewidth": 0}
# The numbers of methods 0 to 2, 3 to 4, 5 to 6, 7 to 8, and more.
SHADES = ("#f7f4ec", "#dbe7e4", "#a9cfd0", "#6ea9bd", "#2d6a94")
STEPS = (-0.5, 2.5, 4.5, 6.5, 8.5, len(COUNTED) + 0.5)
HALO = [patheffects.withStroke(linewidth=2.4, foreground="white")]


def draw(
    data: Mapping[str, xr.Dataset], measured: Mapping[tuple[float, float], Boundary]
) -> Figure:
    """Draw the figure.

    Args:
        data: the datasets of the study.
        measured: (learning rate, mean) -> the boundary of HeteroSGD with u^2.
    """
    fig = plt.figure(figsize=(8.6, 6.0), layout="none")
    fields = {name: _field(data, name) for name in COUNTED}
    plane = fig.add_gridspec(1, 1, left=0.065, right=0.6, bottom=0.515, top=0.955)
    _draw_plane(fig.add_subplot(plane[0]), fields, measured)
    scans = fig.add_gridspec(2, 1, left=0.705, right=0.99, bottom=0.515, top=0.955, hspace=0.3)
    _draw_rates([fig.add_subplot(scans[row]) for row in range(2)], data)
    for row, bottom in enumerate((0.25, 0.055)):
        panels = fig.add_gridspec(
            1, 9, left=0.035, right=0.99, bottom=bottom, top=bottom + 0.12, wspace=0.14
        )
        axes = [fig.add_subplot(panels[column]) for column in range(9)]
        _draw_methods(axes, row, fields)
    return fig


def _field(data: Mapping[str, xr.Dataset], name: str) -> xr.DataArray:
    """The distance of a method in the plane over that of least squares, dims (spread, mean)."""
    kinds = {"estimators": methods.ESTIMATORS, "objectives": methods.OBJECTIVES}
    kind = next((kind for kind, names in kinds.items() if name in names), "hetero")
    values = distances(data[kind], name)
    others = [coordinate for coordinate in values.coords if coordinate not in ("mean", "spread")]
    worlds = values.drop_vars(others).set_index(world=("mean", "spread"))
    return worlds.unstack("world").transpose("spread", "mean").sortby(["spread", "mean"])


def _fill(ax: Axes, field: xr.DataArray, style: Properties) -> None:
    """Draw a field of the plane, and the region without worlds."""
    values = field.values
    # Cells at the border whose centres lie beyond it continue those on their left.
    before = np.concatenate([values[:, :1], values[:, :-1]], 1)
    values = np.where(np.isnan(values), before, values)
    edges = (_edges(field[name].values) for name in ("mean", "spread"))
    ax.pcolormesh(*edges, np.ma.masked_invalid(values), rasterized=True, **style)
    ax.fill([0, WIDTH, WIDTH], [HEIGHT, HEIGHT, HEIGHT - WIDTH], zorder=1.5, **IMPOSSIBLE)
    ax.set(xlim=(0, WIDTH), ylim=(0, HEIGHT))


def _edges(centres: np.ndarray) -> np.ndarray:
    width = centres[1] - centres[0]
    return np.append(centres - width / 2, centres[-1] + width / 2)


def _draw_plane(
    ax: Axes,
    fields: Mapping[str, xr.DataArray],
    measured: Mapping[tuple[float, float], Boundary],
) -> None:
    """The number of methods that find the invariant predictor, and the lines of theory."""
    possible = fields["ERM"].notnull()
    number = sum((each < FOUND for each in fields.values()), 0 * possible).where(possible)
    colours: Properties = {"cmap": ListedColormap(SHADES), "norm": BoundaryNorm(STEPS, len(SHADES))}
    _fill(ax, number, colours)
    _draw_lines(ax, measured)
    small: Properties = {"fontsize": 8, "linespacing": 1.25, "zorder": 4}
    ax.text(0.02, 1.66, "9 methods:", color="white", weight="bold", va="top", **small)
    ax.text(0.02, 1.57, "HeteroSGD\n($\\eta = 0.5$), too", color="white", va="top", **small)
    middle: Properties = {"ha": "center", "va": "center", **small}
    ax.text(0.63, 1.13, "7 methods:", weight="bold", **middle)
    ax.text(0.63, 0.97, "GroupDRO and\nANDMask, too", **middle)
    ax.text(0.78, 0.56, "5 methods:", weight="bold", **middle)
    ax.text(0.78, 0.45, "V-REx, IRMv1, EILLS, FAIR, ICP", **middle)
    ax.text(0.655, 0.24, "3: the weight 100 of V-REx and IRMv1 is too small", **middle)
    ax.text(0.80, 1.62, "no such world:\n$|b_e| > \\sigma\\sqrt{V}$", color="0.35", **middle)
    ax.set(
        xlabel=r"mean bias $\mu$ of the spurious input",
        ylabel=r"heterogeneity $M$: $b_e = \mu \pm M$",
    )
    ax.set_title("How many of 17 methods find the invariant predictor", pad=6, weight="bold")


def _draw_lines(ax: Axes, measured: Mapping[tuple[float, float], Boundary]) -> None:
    from causal_sgd import theory

    furthest, slope = reach()
    line: Properties = {"path_effects": HALO, "zorder": 3}
    ax.plot([0, WIDTH], [0, WIDTH], color="black", lw=1.8, **line)
    ends = np.array([0, HEIGHT / (1 + slope)])
    ax.plot(ends, slope * ends, color="0.15", lw=1.1, ls=(0, (4, 2.2)), **line)
    for rate, colour in LINES.items():
        # Up to the border of the plane, or to where runs diverge before they reject.
        means = np.linspace(0, min(furthest / rate, HEIGHT * rate / (2 * rate + 1)), 200)
        ax.plot(means, theory.critical_spread(rate, means), color=colour, lw=1.6, **line)
        for (other, mean), bound in measured.items():
            if other == rate and mean <= means[-1]:
                marker: Properties = {"mfc": "white", "mec": colour, "mew": 1.3, "zorder": 3.5}
                ax.plot(mean, bound.value, "o", ms=4.8, **marker)
    _along(ax, (0.8, 0.8), (1, 1), "$M = \\mu$: signs contradict above", "black")
    text = f"$M = {slope:.2f}\\,\\mu$: least for any $\\eta$"
    _along(ax, (0.31, 0.31 * slope), (1, slope), text, "0.15", below=True)
    rise = (1 / 0.9 + 0.2) / float(theory.critical_spread(0.9, 0.2))  # of the boundary there
    place = (0.15, float(theory.critical_spread(0.9, 0.15)))
    _along(ax, place, (1, rise), r"$\eta = 0.9$", LINES[0.9])
    box: Properties = {"facecolor": "white", "edgecolor": "none", "pad": 1.2, "alpha": 0.9}
    for rate in (0.2, PLANE_RATE):
        end = HEIGHT * rate / (2 * rate + 1)
        place = (end + 0.02, HEIGHT - end + 0.05)
        ax.text(*place, f"$\\eta = {rate:g}$", color=LINES[rate], fontsize=8, bbox=box, zorder=4)


def _along(
    ax: Axes,
    place: tuple[float, float],
    slope: tuple[float, float],
    text: str,
    colour: str,
    *,
    below: bool = False,
) -> None:
    """Write beside a line of this slope, in units of the plane."""
    start, end = ax.transData.transform([(0, 0), slope])
    angle = np.arctan2(end[1] - start[1], end[0] - start[0])
    distance = -2.5 if below else 2.5  # points
    ax.annotate(
        text,
        place,
        (-distance * np.sin(angle), distance * np.cos(angle)),
        textcoords="offset points",
        color=colour,
        rotation=np.degrees(angle),
        rotation_mode="anchor",
        ha="center",
        va="top" if below else "bottom",
        fontsize=7.5,
        path_effects=HALO,
        zorder=4,
    )


def _draw_rates(axes: Sequence[Axes], data: Mapping[str, xr.Dataset]) -> None:
    """What HeteroSGD keeps of the spurious weight where signs agree and where they contradict."""
    from causal_sgd.theory import critical_learning_rate

    colours = {"linear": "#b8860b", "two layers": "#d55e00", "u^2 - v^2": "#6a3d9a", "u^2": "black"}
    small: Properties = {"fontsize": 7.5, "va": "center"}
    for ax, kind in zip(axes, ("agreeing", "contrary"), strict=True):
        runs = data[f"rates_{kind}"]
        mean, spread = (float(runs[name][0]) for name in ("mean", "spread"))
        for name, colour in colours.items():
            marks: Properties = {"marker": "o", "ls": ""} if name == "u^2 - v^2" else {}
            ax.plot(runs.learning_rate, shares(runs, name), color=colour, mfc="white", **marks)
        for name, place in (("GroupDRO", 0.02), ("V-REx", 0.63)):
            level = float(predicted(name, mean, spread)[1]) * VARIANCE / mean
            ax.axhline(level, color="#00695c", lw=1, ls=(0, (4, 2)), zorder=1)
            ax.text(place, level + 0.055, name, color="#00695c", **small)
        words = "agree" if kind == "agreeing" else "contradict"
        ax.set_title(f"signs {words}: $b_e = {mean + spread:.3g}$, ${mean - spread:.2g}$", pad=4)
        ax.set(ylim=(-0.06, 1.16), xlim=(0, 0.94), yticks=[0, 0.5, 1])
        ax.set_ylabel("spurious weight\nleft / pooled")
    world = data["rates_contrary"]
    critical = float(critical_learning_rate(float(world["mean"][0]), float(world["spread"][0])))
    axes[1].axvline(critical, color="0.3", ls=":", lw=1)
    axes[1].text(critical + 0.012, 0.42, "theory", color="0.3", rotation=90, **small)
    axes[0].text(0.14, 0.7, "HeteroSGD\n$u^2$, $u^2 - v^2$", **small)
    axes[1].text(0.24, 0.56, "$u^2$, $u^2 - v^2$", **small)
    axes[1].text(0.7, 1.09, "linear", color=colours["linear"], **small)
    axes[1].text(0.6, 0.74, "two-layer", color=colours["two layers"], **small)
    axes[0].tick_params(labelbottom=False)
    axes[1].set_xlabel(r"learning rate $\eta$ of HeteroSGD")


def _draw_methods(axes: Sequence[Axes], row: int, fields: Mapping[str, xr.DataArray]) -> None:
    """Every method by itself, with the line of theory beyond which it finds the predictor."""
    rest, norm = iter(axes), Normalize(0, 1)
    for words, colour, names in CLASSES[row]:
        group = [next(rest) for _ in names]
        for ax, name in zip(group, names, strict=True):
            _fill(ax, fields[name], {"cmap": "cividis", "norm": norm})
            _draw_prediction(ax, name)
            ax.set_title(TITLES.get(name, name), fontsize=7, pad=2.5)
            first, lowest = ax is axes[0], row == 1
            ax.set(xticks=[0, 1], yticks=[0, 2])
            ax.tick_params(labelsize=7, length=2, pad=1.5, labelleft=first, labelbottom=lowest)
            if first:
                ax.set_ylabel("$M$", fontsize=8, labelpad=-2)
            if lowest:
                ax.set_xlabel(r"$\mu$", fontsize=8, labelpad=-7)
        _head(group[0], group[-1], words, colour)
    for ax in rest:  # the last one, whose place the colours take
        ax.set_axis_off()
        bar = ax.inset_axes((0.08, 0, 0.1, 1))
        ax.figure.colorbar(ScalarMappable(norm, "cividis"), cax=bar, ticks=[0, 1], extend="max")
        bar.set_yticklabels(["0: found", "1: as pooled"], fontsize=7)
        bar.tick_params(length=2, pad=2)
        bar.set_title("$|w - w^\\star| \\, V / \\mu$", fontsize=7.5, pad=8, loc="left")


def _head(first: Axes, last: Axes, words: str, colour: str) -> None:
    """The name of a class above its panels."""
    figure = first.figure
    left, right = first.get_position().x0, last.get_position().x1
    height = first.get_position().y1 + 0.03
    figure.add_artist(Line2D([left, right], [height, height], color=colour, lw=1.2))
    figure.text(left, height + 0.005, words, color=colour, fontsize=8, weight="bold", va="bottom")


def _draw_prediction(ax: Axes, name: str) -> None:
    from causal_sgd import theory

    means = np.linspace(1e-3, WIDTH, 200)
    if name in ("u^2", "u^2 - v^2"):
        means = means[means <= HEIGHT * PLANE_RATE / (2 * PLANE_RATE + 1)]
        ax.plot(means, theory.critical_spread(PLANE_RATE, means), color="white", lw=1.1)
    elif name not in ("Dantzig", "linear", "two layers"):
        spreads = np.linspace(1e-3, HEIGHT, 400)
        weights = predicted(name, *np.meshgrid(means, spreads))
        share = np.hypot(weights[0] - 1, weights[1]) * VARIANCE / means
        if share.min() < FOUND < share.max():
            ax.contour(means, spreads, share, [FOUND], colors="white", linewidths=1.1, zorder=1.4)
