"""HeteroSGD converges to a strict saddle of the pooled loss, far below the edge of stability.

At U U' = A* with spare columns every environment's gradient vanishes, but the pooled loss falls
along V: its Hessian has the eigenvalue -mu (`theory.stability.saddle_spectrum` has all of them).
Pooled training cannot stay there. It leaves at the rate log(1 + eta mu) and ends in a minimum, with
lowest curvature 0 and sharpness 2 max(sigma_1, mu). Beyond the critical spread HeteroSGD does stay:
in V the environments' curvatures are -(mu + M) and M - mu by turns, and the mean logarithm of the
factors 1 + eta s_e is negative. It is the saddles of type II (Ziyin et al., arXiv 2303.13093) that
can attract SGD like this, as the noise vanishes there, too.

So the invariant solution is worse for the optimiser, by r2 mu^2/4 in the pooled loss, which alone
does not tell it from other saddles. What singles it out are the environments: the worst of them has
the sharpness max(2 sigma_1, sigma_1 + M - mu) there, and 2 mu + M at the pooled minimum. All this
happens far below 2/eta: no edge of stability is involved (Cohen et al., ICLR 2021). The batch
sharpness of Andreyev and Beneventano (2024), about 2/eta in their networks, is 3 u^2 - mu on
average, as the sharpness of U U' cannot grow to meet the edge. It falls with M, from 2 mu to -mu at
the critical spread. Only bursts below it pass 2/eta now and then.

Known: type-II saddles and both kinds of sharpness. Derived here: the spectra and rates. New: where
the invariant solution sits among them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from causal_sgd.studies import Claim
from causal_sgd.studies._frames import farthest_from_one
from causal_sgd.studies._tables import points
from causal_sgd.studies.sensing._where_it_sits import (
    BEYOND,
    LATE,
    MEAN,
    POOLED,
    RATE,
    RELEASED_UNTIL,
    SIGMA,
    SPREADS,
    batch_curvatures,
    cell,
    critical,
    end_spectra,
    log_signal,
    minimum,
    pooled_loss,
    saddle,
    stationary,
)

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure

FAR = (BEYOND[0], BEYOND[-1])  # spreads of PooledSGD
SHOWN = BEYOND[0]
EDGE = 2 / RATE
LEAVING = 70  # steps in which pooled training is still close to A*
HESSIAN = "Hessian at A*"
CLAIMS = {
    f"lowest_{spread:g}": Claim(
        f"HeteroSGD, M = {spread:g}: lowest curvature of the pooled loss over -mu, median run",
        0.999,
        1.001,
        HESSIAN,
    )
    for spread in BEYOND
} | {
    "sharpness": Claim(
        "HeteroSGD beyond M_c: sharpness of the pooled loss over 2 sigma_1, median run, "
        "farthest from 1",
        0.999,
        1.001,
        HESSIAN,
    ),
    # The spare rows, alpha^2 chi^2, move an eigenvalue by up to three times their square.
    "spectrum": Claim(
        "HeteroSGD beyond M_c: largest deviation of the 30 eigenvalues of the pooled loss from "
        "the prediction, median run",
        0,
        1e-4,
        HESSIAN,
    ),
    # With 2^28 draws and M = 8 a batch's mean has the deviation 0.0005, u^2 0.0002, and the largest
    # eigenvalue 0.0006: five of these.
    "minimum": Claim(
        "PooledSGD: largest deviation of the eigenvalues from those at A* + mean A_e",
        0,
        0.003,
        "Hessian at the minimum",
    ),
    "environment": Claim(
        "HeteroSGD beyond M_c: sharpness of the environment mu - M over max(2 sigma_1, "
        "sigma_1 + M - mu), median run, farthest from 1",
        0.999,
        1.001,
        HESSIAN,
    ),
    "flatter": Claim(
        f"M = {FAR[0]:g} and {FAR[1]:g}: by how much it is smaller than that of PooledSGD, "
        "over 3 mu - sigma_1, farthest from 1",
        0.99,
        1.01,
        "Hessians at both ends",
    ),
    "loss": Claim(
        "HeteroSGD beyond M_c: pooled loss above its minimum, over mu^2/4, median run, "
        "farthest from 1",
        0.999,
        1.001,
        "loss at A*",
    ),
    "leaves": Claim(
        "released at A*, PooledSGD: growth of log |V'U| over log(1 + eta mu), farthest from 1",
        0.999,
        1.001,
        "one step",
    ),
    "returns": Claim(
        "released at A*, HeteroSGD beyond M_c: growth of log |V'U| less the exponent, in "
        "standard errors, largest",
        0,
        4,
        "Lyapunov exponent",
    ),
    "batch_below": Claim(
        "HeteroSGD below M_c: mean of batch sharpness less 3 u^2, from -mu in standard "
        "errors, largest",
        0,
        4,
        "gradient along V",
    ),
    "batch_beyond": Claim(
        "HeteroSGD beyond M_c, released at A*: the same", 0, 4, "gradient along V"
    ),
    "edge": Claim.finding(
        f"M = {BEYOND[-1]:g}: largest sharpness of an environment at the end over 2/eta"
    ),
    "batch": Claim.finding("largest mean batch sharpness of all M over 2/eta"),
    "bursts": Claim.finding(
        "M = 5, below M_c: share of late frames in which some environment's sharpness is above "
        "2/eta"
    ),
}


def run(
    *, quick: bool = False, key: int = 0, progress: bool | None = None
) -> dict[str, xr.Dataset]:
    """Population gradients in six dimensions with five columns, sigma* = 1 and 0.5625 and one
    spurious direction of mu = 1.5, from small starts and released at A*, 12 seeds (3 when quick):
    one environment in each batch for M = 1 to 8, and 2^28 draws of one for two M.
    """
    from causal_sgd.sweeps import sweep, zipped

    # One sweep, hence one program, for both methods.
    methods = zipped(
        batch_size=np.repeat([1, POOLED], [len(SPREADS), len(FAR)]),
        spread=np.concatenate([SPREADS, FAR]),
    )
    runs = sweep(
        cell,
        axes={"method": methods, "released": [0.0, 1.0]},
        seeds=3 if quick else 12,
        label="both methods",
        key=key,
        progress=progress,
    )
    return {"runs": runs}


def measure(data: Mapping[str, xr.Dataset]) -> dict[str, float]:
    """The Hessians at the ends of both methods, and how they leave A* or return to it."""
    hetero, pooled = _runs(data)
    end = hetero.sel(released=0).isel(step=-1)
    far = end.sel(spread=BEYOND)
    lowest = far.lowest_curvature.median("seed").values / -MEAN
    worst = far.environment_sharpness.max("environment_sharpness_0").median("seed").values
    minimum_end = pooled.sel(released=0).isel(step=-1)
    steeper = minimum_end.environment_sharpness.max("environment_sharpness_0").median("seed")
    spectra = [_deviation(far.sel(spread=spread), saddle(MEAN)) for spread in BEYOND]
    excess = [np.median(pooled_loss(far.sel(spread=spread))) for spread in BEYOND]
    curvatures = batch_curvatures(hetero)
    scores = (np.abs(curvatures.rest + MEAN) / curvatures.error).values
    beyond = np.isin(SPREADS, BEYOND)
    leaving = _growth(pooled, LEAVING).values.ravel()
    late = hetero.environment_sharpness.sel(released=0, spread=5.0, step=slice(LATE, None))
    values = {f"lowest_{spread:g}": float(lowest[i]) for i, spread in enumerate(BEYOND)}
    return values | {
        "sharpness": farthest_from_one(far.sharpness.median("seed").values / (2 * SIGMA[0])),
        "spectrum": max(float(np.median(deviations)) for deviations in spectra),
        "minimum": max(
            float(_deviation(minimum_end.sel(spread=spread), minimum()).max()) for spread in FAR
        ),
        "environment": farthest_from_one(worst / _worst_environment(BEYOND)),
        "flatter": farthest_from_one((steeper.values - worst[[0, -1]]) / (3 * MEAN - SIGMA[0])),
        "loss": farthest_from_one(np.array(excess) / (MEAN**2 / 4)),
        "leaves": farthest_from_one(leaving / np.log1p(RATE * MEAN)),
        "returns": _returns(hetero.sel(spread=BEYOND)),
        "batch_below": float(scores[~beyond].max()),
        "batch_beyond": float(scores[beyond].max()),
        "edge": float(worst[-1]) / EDGE,
        "batch": float(curvatures["mean"].max()) / EDGE,
        "bursts": float((late > EDGE).any("environment_sharpness_0").mean()),
    }


def _runs(data: Mapping[str, xr.Dataset]) -> tuple[xr.Dataset, xr.Dataset]:
    """The runs of HeteroSGD and of PooledSGD, [spread, released, seed, step]."""
    runs = data["runs"].swap_dims(method="spread").drop_vars("batch_size")
    hetero, pooled = (
        runs.isel(spread=part) for part in (slice(len(SPREADS)), slice(len(SPREADS), None))
    )
    return hetero, pooled


def _deviation(runs: xr.Dataset, spectrum: np.ndarray) -> np.ndarray:
    """The largest deviation [seed] from a predicted spectrum."""
    return np.abs(end_spectra(runs) - spectrum[None]).max(1)


def _worst_environment(spreads: np.ndarray) -> np.ndarray:
    """The sharpness [n] at A* of the environment mu - M."""
    return np.array([saddle(MEAN - spread)[-1] for spread in spreads])


def _growth(runs: xr.Dataset, steps: int) -> xr.DataArray:
    """The growth of log |V'U| per step in the first steps after the release, [spread, seed]."""
    logs = log_signal(runs)
    return (logs.sel(step=steps) - logs.sel(step=0)) / steps


def _returns(runs: xr.Dataset) -> float:
    """The largest deviation of the growth from the exponent, in standard errors."""
    from causal_sgd import theory

    growth = _growth(runs, RELEASED_UNTIL)
    numbers = RATE, MEAN, runs.spread.values
    variance = np.asarray(theory.log_variance_two_point(*numbers))
    errors = np.sqrt(variance / (RELEASED_UNTIL * growth.sizes["seed"]))
    deviation = growth.mean("seed").values - np.asarray(theory.lyapunov_two_point(*numbers))
    return float(np.max(np.abs(deviation) / errors))


def table(data: Mapping[str, xr.Dataset]) -> dict[str, xr.Dataset]:
    """Curvatures over M beside their predictions, and the spectra at both ends."""
    hetero, pooled = _runs(data)
    late = hetero.sel(released=0, step=slice(LATE, None)).mean(("seed", "step"))
    batch, lowest = stationary(SPREADS)
    batches = batch_curvatures(hetero)
    curvatures = {
        "sharpness": late.sharpness,
        "lowest_curvature": late.lowest_curvature,
        "lowest_curvature_of_map": lowest,
        "environment_sharpness": late.environment_sharpness.max("environment_sharpness_0"),
        "environment_sharpness_at_signal": _worst_environment(SPREADS),
        "batch_sharpness": batches["mean"],
        "batch_sharpness_error": batches["error"],
        "batch_sharpness_of_map": batch,
    }
    end = {"released": 0, "spread": SHOWN}
    ends = [np.median(end_spectra(runs.sel(end).isel(step=-1)), 0) for runs in (hetero, pooled)]
    return {
        "curvatures": points({"spread": SPREADS}, curvatures),
        "spectra": points(
            {"index": np.arange(len(ends[0]))},
            {
                "hetero": ends[0],
                "pooled": ends[1],
                "saddle": saddle(MEAN),
                "minimum": minimum(),
            },
        ),
        "theory": points({}, {"critical_spread": critical(), "edge": EDGE}),
    }


def figure(data: Mapping[str, xr.Dataset]) -> Figure:
    """Runs of both methods in the landscape of the pooled loss, the losses along V at A*, runs
    released at A*, the Hessian's eigenvalues at both ends, and curvatures over M with the edge
    2/eta. Dashed: theory.
    """
    from matplotlib import pyplot as plt

    from causal_sgd.studies.sensing import _where_it_sits_panels as panels

    hetero, pooled = _runs(data)
    tables = table(data)
    fig, axes = plt.subplots(2, 3, figsize=(11.6, 7.0))
    panels.draw_landscape(axes[0, 0], hetero.sel(spread=SHOWN), pooled.sel(spread=SHOWN))
    panels.draw_profiles(axes[0, 1], SHOWN)
    panels.draw_release(axes[0, 2], hetero, pooled)
    panels.draw_spectra(axes[1, 0], tables["spectra"])
    panels.draw_ends(axes[1, 1], tables["curvatures"])
    panels.draw_edge(axes[1, 2], tables["curvatures"])
    return fig
