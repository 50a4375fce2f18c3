"""Two bits: where IRMv1 fails, and that no penalty of variation is fooled there.

The first bit agrees with the label in the same way everywhere, the second one more or less often
[Kamath et al. 2021; the mechanism, with our own derivation]. For any number of environments the
predictors without a derivative in the scale are zero, the invariant one and, for alpha below
(1 - 2^(-1/2))/2 = 0.146, one more that uses the second bit. With c1 = 1 - 2 alpha, that one has
the smaller risk where the mean correlation exceeds c1 sqrt(2 c1^2 - 1), and there IRMv1 with a
large weight is wrong. Both are minima, so that the start decides where training ends: if the weight
rises from 1, IRMv1 leaves the invariant predictor only at a correlation about 5 % larger.

V-REx finds the invariant predictor, and so does EILLS beyond a weight that grows without bound as
the correlations of the environments approach each other; below it EILLS may choose the second bit
alone. IGA overshoots. HeteroSGD keeps the second bit everywhere. Its correlation with the noise
mostly varies in strength only; where it has both signs (mean correlations below 0.2) one of them is
too weak for a negative exponent (the table has them).
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from causal_sgd.studies import Claim
from causal_sgd.studies._cells import Options, averaged
from causal_sgd.studies._tables import points
from causal_sgd.studies.supervised import _two_bit_methods as methods
from causal_sgd.studies.supervised._contradiction_methods import apart, together

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FLIPS = np.linspace(0.01, 0.3, 16)  # alpha
MEANS = np.linspace(0.02, 0.45, 16)  # of beta_e
APART = 0.1  # half the difference of the beta_e, less where the mean is smaller
BOUNDARY_FLIPS = (0.05, 0.1)
BOUNDARY_RATIOS = np.linspace(0.9, 1.1, 8)  # mean correlations over the critical one
THRESHOLD_FLIPS = np.linspace(0.1, 0.14, 5)
POINT = (0.1, 0.225, 0.025)  # alpha, and the mean and half-difference of beta = (.2, .25)
EXAMPLES = np.array([10**3, 10**4, 10**5, 10**6, 10**7])
SAMPLED = (0.1, 0.35, 0.05)  # where the invariant point has the smaller risk
USES = 0.05  # |w2| from which a predictor uses the second bit
EXACT = "zeros of the derivatives in the scale"
CLAIMS = {
    "threshold": Claim(
        "largest alpha with a spurious predictor that IRMv1 does not penalise",
        0.1444,
        0.1484,
        EXACT,
    ),
    "boundary_5": Claim(
        "alpha = 0.05: mean correlation at which IRMv1 fails, over c1 sqrt(2 c1^2 - 1)",
        0.98,
        1.02,
        "equal risks",
    ),
    "boundary_10": Claim("the same at alpha = 0.1", 0.98, 1.02, "equal risks"),
    "first": Claim("alpha = 0.1, beta = (0.2, 0.25): w1 of IRMv1", 0.62, 0.63, EXACT),
    "second": Claim("the same: w2 of IRMv1", 0.326, 0.336, EXACT),
    "vrex": Claim("the same: |w2| of V-REx", 0, 0.01, "equal risks"),
    "iga": Claim("the same: w1 of IGA over 1/c1", 0.99, 1.01, "equal gradients"),
    "map": Claim(
        "share of the map on which IRMv1 uses the second bit where theory says so, and only there",
        0.98,
        1,
        f"{EXACT}; cells on the boundary may fall on either side",
    ),
    "eills": Claim(
        f"share of the map on which EILLS chooses the first bit alone if {methods.GAMMA:g} exceeds "
        "its threshold, and only then",
        1,
        1,
        "threshold of EILLS",
    ),
    # Three standard errors of the weakest correlation are 0.025, the second order adds 0.005.
    "hetero": Claim(
        "w2 of HeteroSGD over that of pooled least squares, less its law to first order in the "
        "learning rate: farthest from 0 on the map",
        -0.03,
        0.03,
        "E log(1 + eta b) = 0 in the stationary state",
    ),
    "examples": Claim(
        "IRMv1 on 10^3 to 10^7 examples: least increase of the share of right choices from one "
        "number of examples to the next, in standard errors",
        -3,
        np.inf,
        "consistency",
    ),
    "slow": Claim.finding(
        "alpha = 0.1, weight of the penalty rising from 1: mean correlation at which IRMv1 starts "
        "to use the second bit, over the critical one"
    ),
    "dro": Claim.finding("alpha = 0.1, beta = (0.2, 0.25): w2 of GroupDRO"),
}


def run(
    *, quick: bool = False, key: int = 0, progress: bool | None = None
) -> dict[str, xr.Dataset]:
    """Full-batch training on the population at 256 points of the plane (64 when quick), from equal
    weights of the bits and from the invariant predictor; the weights of the penalties rise from
    10^3 to 10^6, and once more from 1. IRMv1 on finite samples has 256 seeds (64 when quick).
    """
    from causal_sgd.sweeps import sweep, zipped

    options: Options = {"key": key, "progress": progress}
    starts = {"start": [methods.EQUAL, methods.INVARIANT]}
    plane, point, sampled = (
        zipped(**_columns(places))
        for places in (_plane(quick), np.array([POINT]), np.array([SAMPLED]))
    )
    everywhere = zipped(**_columns(np.concatenate([_plane(quick), _special()])))
    return {
        "irmv1": sweep(
            functools.partial(methods.path, method="irmv1", steps=20_000),
            axes={"place": everywhere, "start": [methods.EQUAL, methods.INVARIANT, methods.SLOW]},
            seeds=1,
            **options,
        ),
        "eills": sweep(methods.eills, axes={"place": plane}, seeds=1, **options),
        "hetero": sweep(
            averaged(methods.hetero, after=0.5), axes={"place": plane}, seeds=32, **options
        ),
        "examples": sweep(
            methods.sampled,
            axes={"place": sampled, "num_examples": EXAMPLES, **starts},
            seeds=64 if quick else 256,
            **options,
        ),
        "point": apart(
            sweep(
                together(
                    {
                        method: functools.partial(methods.path, method=method, steps=8000)
                        for method in ("vrex", "iga", "group_dro")
                    }
                ),
                axes={"place": point, **starts},
                seeds=1,
                **options,
            )
        ),
    }


def measure(data: Mapping[str, xr.Dataset]) -> dict[str, float]:
    """The threshold, the boundaries, one point, the whole map, and finite samples."""
    ends = data["irmv1"].isel(step=-1, seed=0, place=slice(-len(_special()), None))
    special = _best(ends)
    squares = special.second.values[: len(THRESHOLD_FLIPS)] ** 2
    slope, intercept = np.polyfit((1 - 2 * THRESHOLD_FLIPS) ** -2.0, squares, 1)
    shares, errors = _success(data)
    increases = np.diff(shares) / np.maximum(np.hypot(errors[1:], errors[:-1]), 1e-12)
    point = data["point"].isel(step=-1, seed=0, place=0)
    found = {str(name): _best(point.sel(variant=name)) for name in point.variant.values}
    deviation = _kept(data) - _law(data)
    uses, predicted = _uses_second(data)
    return {
        # w2^2 = 1/2 - 1/(4 c1^2) vanishes at the threshold.
        "threshold": (1 - (-slope / intercept) ** 0.5) / 2,
        "boundary_5": _boundary(ends, 0),
        "boundary_10": _boundary(ends, 1),
        "first": float(special["first"][-1]),
        "second": float(abs(special.second[-1])),
        "vrex": float(abs(found["vrex"].second)),
        "iga": float(found["iga"]["first"]) * (1 - 2 * POINT[0]),
        "map": float((uses == predicted).mean()),
        "eills": float(np.mean(_chosen(data) == (_thresholds(data["eills"]) < methods.GAMMA))),
        "hetero": float(deviation[np.argmax(np.abs(deviation))]),
        "examples": float(increases.min()),
        "slow": _late_switch(ends),
        "dro": float(found["group_dro"].second),
    }


def table(data: Mapping[str, xr.Dataset]) -> dict[str, xr.Dataset]:
    """The weights of the second bit on the plane with the critical correlation, and the shares of
    the samples on which IRMv1 finds the invariant predictor.
    """
    from causal_sgd.theory.invariance import two_bit

    best = _best(_plane_ends(data))
    shares, errors = _success(data)
    flips, means = best.flip.values, best["mean"].values
    numbers = {
        "irmv1": np.abs(best.second.values),
        "hetero_over_pooled": _kept(data),
        "hetero_law": _law(data),
        "hetero_exponent": _exponents(data),
        "eills_threshold": _thresholds(data["eills"]),
        "critical_correlation": np.asarray(two_bit.critical_correlation(flips)),
    }
    return {
        "plane": points({"flip": flips, "mean_correlation": 1 - 2 * means}, numbers),
        "samples": points({"num_examples": EXAMPLES}, {"share": shares, "error": errors}),
    }


def figure(data: Mapping[str, xr.Dataset]) -> Figure:
    """The weight of the second bit by IRMv1 on the plane of alpha and the mean correlation, with
    the threshold and the boundary of theory (left); the share of the pooled weight that HeteroSGD
    keeps (middle); and how often IRMv1 on n examples finds the invariant predictor where the
    population has it, with two standard errors (right).
    """
    from matplotlib import pyplot as plt

    fig, axes = plt.subplots(1, 3, figsize=(9.6, 3.3), layout="constrained")
    best = _best(_plane_ends(data))
    _draw_plane(fig, axes[0], best, np.abs(best.second.values), "$|w_2|$ of IRMv1")
    _draw_boundaries(axes[0])
    hetero = data["hetero"]
    _draw_plane(fig, axes[1], hetero, _kept(data), "HeteroSGD: $w_2$ over that of pooled")
    shares, errors = _success(data)
    axes[2].errorbar(EXAMPLES, shares, 2 * errors, marker="o", ms=4)
    axes[2].set_xscale("log")
    axes[2].set_ylim(-0.03, 1.03)
    axes[2].set_xlabel("examples of each environment")
    axes[2].set_title("share of invariant choices")
    return fig


def _plane(quick: bool) -> np.ndarray:
    """Rows (alpha, mean beta, half-difference), [n, 3]."""
    stride = 2 if quick else 1
    flips, means = np.meshgrid(FLIPS[::stride], MEANS[::stride], indexing="ij")
    return np.stack([flips, means, np.minimum(means, APART)], -1).reshape(-1, 3)


def _special() -> np.ndarray:
    """The places of claims, [n, 3]: the threshold, the boundaries, and the point."""
    threshold = [(flip, 0.15, APART) for flip in THRESHOLD_FLIPS]
    boundary = [
        (flip, (1 - correlation) / 2, APART)
        for flip in BOUNDARY_FLIPS
        for correlation in BOUNDARY_RATIOS * _critical(flip)
    ]
    return np.array([*threshold, *boundary, POINT])


def _critical(flip: float) -> float:
    """The critical correlation; NumPy, since a sweep must start before jax does."""
    correlation = 1 - 2 * flip
    return correlation * np.sqrt(2 * correlation**2 - 1)


def _columns(places: np.ndarray) -> dict[str, np.ndarray]:
    return dict(zip(("flip", "mean", "apart"), places.T, strict=True))


def _best(ends: xr.Dataset) -> xr.Dataset:
    """The runs from the starts that reach the smallest training risk."""
    return ends.isel(start=ends.training_risk.argmin("start"))


def _on_boundary(ends: xr.Dataset, row: int) -> xr.Dataset:
    """The runs with mean correlations around the critical one, for one of the alphas."""
    begin = len(THRESHOLD_FLIPS) + row * len(BOUNDARY_RATIOS)
    return ends.isel(place=slice(begin, begin + len(BOUNDARY_RATIOS)))


def _boundary(ends: xr.Dataset, row: int) -> float:
    """The mean correlation at which the risks of both solutions are equal, over theory's.

    The one that uses the second bit has the risk 1/2 - |w2| c with the mean correlation c.
    """
    runs = _on_boundary(ends, row).stack(run=("place", "start"))
    uses = np.abs(runs.second.values) > USES
    risks = runs.training_risk.values
    ratios = np.repeat(BOUNDARY_RATIOS, ends.sizes["start"])
    slope, intercept = np.polyfit(ratios[uses], risks[uses], 1)
    return float((np.median(risks[~uses]) - intercept) / slope)


def _late_switch(ends: xr.Dataset) -> float:
    """Half way between the last ratio without the second bit and the first one with it."""
    uses = np.abs(_on_boundary(ends, 1).second.sel(start=methods.SLOW).values) > USES
    first = int(np.argmax(uses))
    return float(BOUNDARY_RATIOS[first - 1 : first + 1].mean()) if uses.any() and first else np.nan


def _plane_ends(data: Mapping[str, xr.Dataset]) -> xr.Dataset:
    """The ends of the runs of IRMv1 on the plane."""
    return data["irmv1"].isel(step=-1, seed=0, place=slice(None, -len(_special())))


def _uses_second(data: Mapping[str, xr.Dataset]) -> tuple[np.ndarray, np.ndarray]:
    """Whether IRMv1 uses the second bit at each point of the plane, and whether it should."""
    from causal_sgd.theory.invariance import two_bit

    best = _best(_plane_ends(data))
    critical = np.asarray(two_bit.critical_correlation(best.flip.values))
    predicted = 1 - 2 * best["mean"].values > np.nan_to_num(critical, nan=np.inf)
    return np.abs(best.second.values) > USES, predicted


def _chosen(data: Mapping[str, xr.Dataset]) -> np.ndarray:
    """Whether EILLS chooses the first bit alone, [n]."""
    return data["eills"].exact_support.isel(step=-1, seed=0).values == 1


def _thresholds(dataset: xr.Dataset) -> np.ndarray:
    """The weights beyond which EILLS chooses the first bit alone, [n]."""
    import jax

    from causal_sgd.theory import invariance

    places = zip(dataset.flip.values, dataset["mean"].values, dataset.apart.values, strict=True)
    moments = [methods.world(*place)(jax.random.key(0)).second_moments for place in places]
    return np.array([invariance.eills_thresholds(one, [True, False]).critical for one in moments])


def _kept(data: Mapping[str, xr.Dataset]) -> np.ndarray:
    """The time mean of w2 by HeteroSGD over that of pooled least squares, at each place."""
    from causal_sgd.theory.invariance import two_bit

    runs = data["hetero"]
    pooled = np.asarray(two_bit.least_squares(runs.flip.values, runs["mean"].values))[:, 1]
    return runs.second.isel(step=-1).mean("seed").values / pooled


def _law(data: Mapping[str, xr.Dataset]) -> np.ndarray:
    """The same to first order in the learning rate.

    In the stationary state E log(1 + eta b_j) = 0 for both bits, with b_j = -g_j of the linear
    weights: E b_j = eta E b_j^2 / 2. The means of b are linear in those of the weights, and b
    varies between the environments by delta c1 w2 and delta (1 - c1 w1) at least squares.
    """
    from causal_sgd.theory.invariance import two_bit

    flips, means, half = (data["hetero"][name].values for name in ("flip", "mean", "apart"))
    w1, w2 = np.asarray(two_bit.least_squares(flips, means)).T
    c1, delta = 1 - 2 * flips, 2 * half
    inputs = c1 * (1 - 2 * means)  # their correlation
    first, second = (delta * c1 * w2) ** 2, (delta * (1 - c1 * w1)) ** 2
    shift = -methods.RATE / 2 * (second - inputs * first) / (1 - inputs**2)
    return 1 + shift / w2


def _exponents(data: Mapping[str, xr.Dataset]) -> np.ndarray:
    """E log|1 + eta b| of the second bit at the invariant predictor, at each place."""
    from causal_sgd.theory.invariance import two_bit

    runs = data["hetero"]
    flips = runs["mean"].values[:, None] + runs.apart.values[:, None] * np.array([-1, 1])
    return np.asarray(two_bit.hetero_exponent(runs.flip.values, flips, methods.RATE))


def _success(data: Mapping[str, xr.Dataset]) -> tuple[np.ndarray, np.ndarray]:
    """The share of the seeds with |w2| < 0.1 by the number of examples, and its standard error."""
    right = np.abs(_best(data["examples"].isel(step=-1, place=0)).second) < 0.1
    share = right.mean("seed").values
    return share, np.sqrt(share * (1 - share) / right.sizes["seed"])


def _draw_plane(fig: Figure, ax: Axes, dataset: xr.Dataset, values: np.ndarray, title: str) -> None:
    flips, means = dataset.flip.values, dataset["mean"].values
    shape = len(np.unique(flips)), len(np.unique(means))
    grid = values.reshape(shape).T
    mesh = ax.pcolormesh(
        np.unique(flips), 1 - 2 * np.unique(means), grid, shading="nearest", vmin=0
    )
    fig.colorbar(mesh, ax=ax, shrink=0.9)
    ax.set_xlabel(r"$\alpha$")
    ax.set_ylabel("mean correlation of the second bit")
    ax.set_title(title)


def _draw_boundaries(ax: Axes) -> None:
    from causal_sgd.theory.invariance import two_bit

    flips = np.linspace(0, (1 - 2**-0.5) / 2 - 1e-6, 100)
    ax.plot(flips, two_bit.critical_correlation(flips), color="w", lw=1.5)
    ax.axvline(flips[-1], color="w", lw=1, ls=":")
    ax.annotate("used", (0.09, 0.72), color="k", fontsize=8)
