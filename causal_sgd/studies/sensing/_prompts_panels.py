"""The panels of the study of in-context regression."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from causal_sgd.studies._drawing import line_to_zero, mark
from causal_sgd.studies.sensing._prompts import TASKS

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes

__all__ = ["draw_diagram", "draw_growth", "draw_levels", "draw_optima"]

LEVEL = r"level of $vv^\top$ over $\mu$"


def draw_optima(ax: Axes, lengths: np.ndarray, found: np.ndarray) -> None:
    """Trained eigenvalues [lengths, d] for `TASKS`, and the optimum."""
    from causal_sgd.figures import COLOURS

    dense = np.geomspace(0.1, 3, 100)
    for index, length in enumerate(lengths):
        line = dense / ((1 + 1 / length) * dense + TASKS.sum() / length)
        ax.semilogx(dense, line, color=COLOURS[index], lw=1)
        style, label = "osD"[index], f"$N = {length}$"
        ax.semilogx(TASKS, found[index], style, color=COLOURS[index], label=label)
    ax.set(xlabel=r"task variance $\omega$", ylabel="eigenvalue of $Q$", ylim=(0, 1))
    ax.set_xticks([0.2, 0.5, 1, 2], ["0.2", "0.5", "1", "2"])
    ax.set_title("one relation: trained and $Q^\\star$")
    ax.legend(frameon=False, fontsize="small", loc="upper left")


def draw_growth(
    ax: Axes,
    measured: tuple[np.ndarray, np.ndarray],
    theory: tuple[np.ndarray, np.ndarray],
    label: str,
) -> None:
    """Growth rates and exponents over what differs, on an axis that ends at one."""
    from causal_sgd.figures import COLOURS

    index = len(ax.get_legend_handles_labels()[0])
    end = measured[0][-1]
    ax.plot(theory[0] / end, theory[1], color=COLOURS[index], lw=1)
    ax.plot(measured[0] / end, measured[1], "os"[index], color=COLOURS[index], label=label)
    ax.axhline(0, color="0.7", lw=0.6, zorder=0)
    ax.set(ylabel=r"growth rate / $\frac{1}{2}\eta\mu$")
    ax.legend(frameon=False, fontsize="small", loc="lower left")


def draw_diagram(ax: Axes, level: xr.Dataset, rates: np.ndarray, critical: np.ndarray) -> None:
    """Mean levels of the disputed direction over learning rate and spread."""
    from matplotlib.colors import Normalize

    from causal_sgd import figures

    figures.phase_diagram(
        ax,
        level,
        "level",
        x="learning_rate",
        y="spread",
        logx=True,
        norm=Normalize(0, 1.2),
        label=LEVEL,
        legend=False,
        theory={"$M_c$": (rates, critical)},
    )
    ax.set(xlabel=r"learning rate $\eta$", ylabel="spread $M$ of the relation")


def draw_levels(
    ax: Axes,
    exact: xr.DataArray,
    drawn: Mapping[int, xr.DataArray],
    below: slice,
    critical: float,
) -> None:
    """Levels over the squared spread: in the mean over prompts, and of batches of two sizes.

    Args:
        ax: to draw on.
        exact: means over seeds of the levels over mu, over the spread.
        drawn: levels by batch size, over spread and seed; of the second, with few seeds, only those
            beyond the critical spread.
        below: the spreads of `exact` that lie on the line to zero.
        critical: M_c.
    """
    from causal_sgd.figures import COLOURS

    squares = exact.spread.values**2
    ax.plot(squares, exact, "o", ms=4, color=COLOURS[0], label="all prompts")
    line_to_zero(ax, squares[below], exact[below], color=COLOURS[0])
    for index, (size, levels) in enumerate(drawn.items()):
        shown = levels if index == 0 else levels.sel(spread=slice(critical, None))
        errors = 2 * shown.std("seed") / max(shown.sizes["seed"], 1) ** 0.5
        ax.errorbar(
            shown.spread**2,
            shown.mean("seed"),
            errors,
            ls="",
            marker="sD"[index],
            ms=4,
            color=COLOURS[index + 1],
            label=f"batch {size}",
        )
    ax.axhline(1, color="0.6", lw=0.8, zorder=0)
    ax.annotate("mixed sources", (26, 1), (0, 4), textcoords="offset points", fontsize=8)
    mark(ax, critical**2)
    ax.annotate("$M_c^2$", (critical**2, 0.9), (4, 0), textcoords="offset points", fontsize=9)
    ax.set(xlabel="$M^2$", ylabel=LEVEL, ylim=(-0.03, 1.15))
    ax.legend(frameon=False, fontsize="small", loc=(0.55, 0.5))
