"""What theory predicts for the methods of the study `contradiction`, and how far runs are off."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from causal_sgd.analysis import final
from causal_sgd.studies._frames import surviving
from causal_sgd.studies.supervised import _contradiction_methods as methods
from causal_sgd.studies.supervised._contradiction_methods import VARIANCE

if TYPE_CHECKING:
    import xarray as xr
    from jax.typing import ArrayLike

__all__ = ["distances", "estimates", "predicted", "reach", "shares"]


def predicted(name: str, mean: ArrayLike, spread: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """The weights (w1, w2), [...] each, of a method in closed form, on the population.

    Args:
        name: of the method; ICP is that without the empty set.
        mean: mu [...].
        spread: M [...].
    """
    from causal_sgd.theory.invariance import contradiction as theory

    variance = {"variance": VARIANCE}
    laws = {
        "ERM": lambda: theory.erm(mean, spread, **variance),
        "anchor": lambda: theory.anchor(mean, spread, **variance),
        "CORAL": lambda: theory.coral(mean, spread, **variance),
        "IGA": lambda: theory.iga(mean, spread, **variance),
        "V-REx": lambda: theory.vrex(mean, spread, weight=methods.PENALTY, **variance),
        "IRMv1": lambda: theory.irmv1(mean, spread, weight=methods.PENALTY, **variance),
        "Fishr": lambda: theory.fishr(mean, spread, weight=methods.FISHR, **variance),
        "GroupDRO": lambda: theory.group_dro(mean, spread, **variance),
        "ANDMask": lambda: theory.andmask(mean, spread, **variance),
        "EILLS": lambda: theory.eills(mean, spread, gamma=methods.EILLS, **variance),
        "FAIR": lambda: theory.fair(mean, spread, gamma=methods.FAIR, **variance),
        # As if x1 changed, too: {x1} is the only set accepted in both cases.
        "ICP": lambda: theory.icp(mean, spread, input_spread=1.0),
    }
    weights = laws[name]()
    return np.asarray(weights.invariant), np.asarray(weights.spurious)


def estimates(dataset: xr.Dataset, name: str) -> tuple[xr.DataArray, xr.DataArray]:
    """The medians over seeds of a method's final weights (w1, w2), dims (world)."""
    runs = final(surviving(dataset.sel(variant=name, drop=True)))
    return runs.invariant_weight.median("seed"), runs.spurious_weight.median("seed")


def distances(dataset: xr.Dataset, name: str) -> xr.DataArray:
    """|w - w*| of these medians over the spurious weight mu/V of pooled least squares, [world]."""
    invariant, spurious = estimates(dataset, name)
    return ((invariant - 1) ** 2 + spurious**2) ** 0.5 * VARIANCE / dataset["mean"]


def shares(runs: xr.Dataset, name: str) -> xr.DataArray:
    """The mean of w2 V/mu over the seeds that did not diverge, [world]."""
    weights = final(surviving(runs.sel(variant=name, drop=True))).spurious_weight
    return weights.mean("seed") * VARIANCE / runs["mean"]


def reach() -> tuple[float, float]:
    """Where HeteroSGD may first diverge at its boundary: eta mu, and M / mu there.

    At larger eta mu the runs that have not rejected the spurious input leave all bounds before the
    heterogeneity suffices, so that no learning rate rejects it for certain at a smaller M / mu.
    """
    from causal_sgd import theory

    low, high = 0.05, 1.0
    for _ in range(20):
        mean = (low + high) / 2
        bounded = theory.divergence_bound(1.0, mean) > theory.critical_spread(1.0, mean)
        low, high = (mean, high) if bounded else (low, mean)
    return low, float(theory.critical_spread(1.0, low)) / low
