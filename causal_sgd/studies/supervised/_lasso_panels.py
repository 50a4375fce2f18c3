"""Panels of the study `heterogeneity-lasso`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from causal_sgd.studies.supervised import _lasso_problems as problems
from causal_sgd.studies.supervised._lasso_problems import CHAIN, FEATURES

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.collections import QuadMesh

__all__ = ["draw_chain", "draw_designs", "draw_features"]


def draw_chain(ax: Axes, found: np.ndarray, lasso: np.ndarray) -> None:
    places = np.arange(CHAIN.dim)
    ax.bar(places, CHAIN.weights().mean(0), width=0.9, color="0.85", label="pooled")
    ax.plot(places, found, "o", ms=5, color="C0", label="HeteroSGD")
    ax.plot(places, lasso, "x", ms=6, mew=1.4, color="C3", label="Lasso, no fit")
    for place, spread in zip(CHAIN.spurious, CHAIN.spreads, strict=True):
        ax.annotate(
            f"$M={spread:g}$",
            (place, CHAIN.mean),
            xytext=(0, 5),
            textcoords="offset points",
            ha="center",
            fontsize=8,
        )
    ax.set(
        xlabel="input (correlation $0.5^{|i-j|}$)",
        ylabel="weight",
        ylim=(-0.04, 1.12),
        title="three invariant, four spurious inputs",
    )
    ax.legend(frameon=False, fontsize=8)


def draw_features(
    ax: Axes, correlations: np.ndarray, spreads: np.ndarray, spurious: np.ndarray, mean: float
) -> QuadMesh:
    mesh = ax.pcolormesh(
        _edges(correlations),
        _edges(spreads),
        spurious.T,
        cmap="cividis",
        vmin=0,
        vmax=1.2,
        rasterized=True,
    )
    rho, spread = np.linspace(0, 0.92, 93), np.linspace(0, 30, 241)
    lasso = problems.features_lasso(
        rho[:, None], spread[None, :], mean, FEATURES.learning_rate
    ).transpose(2, 1, 0)
    for weights, style in ((lasso[1], "solid"), (lasso[0], "dashed")):
        ax.contour(rho, spread, weights, [1e-3], colors="white", linestyles=style, linewidths=1.6)
    own, other = FEATURES.variances
    ax.axvline((other / own) ** (1 / 6), color="white", ls=":", lw=1.3)
    ax.set(
        xlim=(0, 0.92),
        ylim=(0, 29),
        xlabel=r"correlation $\rho$",
        ylabel="spread $M$" if mean else None,
        title=rf"two features, $\mu = {mean:g}$",
    )
    if mean:
        ax.text(0.08, 3, "both", color="white", fontsize=9)
    ax.text(0.08, 17, "invariant only", color="white", fontsize=9)
    ax.text(0.9, 25.5, "none", color="white", fontsize=9, ha="right")
    return mesh


def draw_designs(ax: Axes, found: np.ndarray, lasso: np.ndarray, pooled: np.ndarray) -> None:
    top = 1.05 * max(found.max(), lasso.max())
    ax.plot([0, top], [0, top], color="0.3", lw=1)
    ax.plot(lasso.ravel(), pooled.ravel(), ".", ms=3, color="0.6", label="pooled: kernel regime")
    ax.plot(lasso.ravel(), found.ravel(), "o", ms=3.5, mfc="none", color="C0", label="HeteroSGD")
    ax.set(
        xlabel="weight of the Lasso",
        ylabel="weight found",
        title="100 inputs, 40 examples",
    )
    ax.legend(frameon=False, fontsize=8)


def _edges(centres: np.ndarray) -> np.ndarray:
    """Edges of cells around centres."""
    inner = (centres[1:] + centres[:-1]) / 2
    return np.concatenate([centres[:1], inner, [centres[-1] + centres[-1] - inner[-1]]])
