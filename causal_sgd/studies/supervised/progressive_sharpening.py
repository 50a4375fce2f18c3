"""Sharpness climbs to the edge and stays just below it, and environments take it away from there.

The smallest model that sharpens is a difference of two squares, f = u^2 - eps v^2, a second-order
regression model (Agarwala et al. 2023). As the loss falls, its tangent kernel grows. In units of
the learning rate the sharpness T may cross 2; then the residual oscillates, and T returns. Where it
ends is known here in closed form: an overshoot D is reflected by (1 + X) exp(-X), X = 2 D/(eps (1 -
y)), and after a large one every run ends at 2 - eps (1 - y)/2 to leading order, whatever its start.
(`theory.stability.sharpening_end`; the source's own constant is not used. The house's diagonal
network on one example (1, eps) is this model exactly.)

The question was whether sharpening under HeteroSGD stops at 2 over the sharpness of the pooled or
of the batch loss. It stops at neither. Environments with labels y +- M keep the residual moving,
and this noise flattens: T still climbs to the edge as the loss falls, but then it goes down to the
flattest minimum, in a time in closed form that shrinks like 1/M^2 (`flattening_time`). In one entry
of U V' from a small start, eps = 1, nothing is left but the flattest minimum, of sharpness 2 y. Its
mean sharpness in the pooled loss lies below that by 3 M^2/(2 (1 - y)) to leading order. It is not
held at 2: for y up to 1.2 it reaches 2.2 at M = 0.05, and 1.95 at M = 0.2. That of the sharpest
environment lies M above it, and the batch sharpness E g'H g/E|g|^2 passes 2 by far, all without an
instability. The mean of the ratio g'H g/|g|^2 is the pooled curvature along the gradient, as
residuals average to the pooled one: the two definitions of a batch sharpness differ at large M.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from causal_sgd.studies import Claim
from causal_sgd.studies._frames import farthest_from_one, late
from causal_sgd.studies._tables import points
from causal_sgd.studies.supervised._sharpening_panels import (
    draw_ends,
    draw_flattening,
    draw_paths,
    draw_small_starts,
)
from causal_sgd.studies.supervised._sharpening_runs import one_output_cell

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure

    from causal_sgd.studies._cells import Options

RATIOS = np.array([0.04, 0.08, 0.16])  # eps
TARGETS = np.array([0.0, 0.5])  # y
OVERSHOOTS = np.array([1.0, 1.5, 2.0, 3.0, 4.0, 5.0])  # X
SMALL = 1e-3  # the residual at first
LONG, SELDOM, TILE = 4000, 8, 64
START_RATIOS, STARTS = np.array([0.02, 0.05, 0.1]), 256
PATH_RATIO, PATH_TARGET, PATH_FIRST, PATH_SLOW = 0.05, 0.5, 0.05, 1.6
PATH_SPREADS = np.array([0.0, 0.03, 0.05, 0.1])
# T between which the time of flattening is measured, by spread
LEVELS = {0.03: (1.6, 1.4), 0.05: (1.6, 1.2), 0.1: (1.6, 1.2)}
CUT = 1.75  # T from which paths are compared
ENTRY_TARGETS = np.array([0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 1.0, 1.05, 1.1, 1.15, 1.2])
ENTRY_SPREADS = np.array([0.0, 0.05, 0.1, 0.2])
ENTRY_STEPS, ENTRY_EVERY = 1530, 51  # odd: both phases of a two-cycle occur
NOISE_TARGETS, NOISE_SPREAD = np.array([0.5, 0.6, 0.7]), 0.1
TINY = 0.05, 0.03  # start of a and b
CYCLE = "cubic map"
CLAIMS = {
    "end": Claim(
        "2 less T at the end over the law of the overshoot, extrapolated to eps = 0 from 0.04 and "
        "0.08, farthest from 1",
        0.97,
        1.03,
        "two-step map to leading order in eps; what is left is of order 0.04 times 0.08",
    ),
    "forgotten": Claim(
        "random starts that cross 2, eps = 0.02: distance of the quartiles of T at the end over "
        "eps (1 - y)/2",
        0,
        0.02,
        "one end after a large overshoot",
    ),
    **{
        f"median_{ratio:g}": Claim.finding(
            f"random starts that cross 2, eps = {ratio:g}, y = 0: median of T at the end"
        )
        for ratio in START_RATIOS
    },
    "pooled": Claim.finding("eps = 0.05, y = 1/2, all data: T at the end"),
    "climbs": Claim.finding("HeteroSGD, M = 0.03: largest mean of T after 50 steps"),
    "leaves": Claim.finding("HeteroSGD, M = 0.1: mean of T at the end"),
    "time_0.03": Claim(
        "M = 0.03: time from T = 1.6 to 1.4 over theory",
        0.97,
        1.03,
        "noise of the residual; the next order is (M/(2 - T))^2, 0.006 at first",
    ),
    "time_0.05": Claim(
        "M = 0.05: time from T = 1.6 to 1.2 over theory",
        0.96,
        1.04,
        "noise of the residual; the next order is (M/(2 - T))^2, 0.016 at first",
    ),
    "time_0.1": Claim(
        "M = 0.1: time from T = 1.6 to 1.2 over theory",
        0.9,
        1.1,
        "noise of the residual; the next order is (M/(2 - T))^2, 0.063 at first",
    ),
    "flattest": Claim(
        "U V', small start, M = 0, y < 1: sharpness at the end over 2 y, farthest from 1",
        0.999,
        1.001,
        "flattest minimum",
    ),
    "cycle": Claim(
        "U V', small start, M = 0, y from 1.05: mean sharpness over (3 + y)/2, farthest from 1",
        0.99,
        1.01,
        CYCLE,
    ),
    "below": Claim(
        "U V', M = 0.1, y = 0.5 to 0.7: 2 y less the mean curvature, over 3 M^2/(2 (1 - y)), "
        "farthest from 1",
        0.85,
        1.15,
        "noise of the residual; the next order is a few times M^2/(1 - y), up to 0.033",
    ),
    "equal": Claim(
        "U V', M > 0: largest difference of the means of g'H g/|g|^2 and of the pooled curvature "
        "along the gradient, in standard errors of runs",
        0,
        4.5,
        "one output: residuals average to the pooled one",
    ),
    "worst": Claim(
        "U V', M = 0.05 and 0.1: sharpness of the sharpest environment less the pooled one, over M",
        0.98,
        1.02,
        "Hessians of labels that differ by M",
    ),
    "pooled_largest": Claim.finding(
        "U V', M = 0.05: largest mean pooled sharpness over y up to 1.2"
    ),
    "batch_largest": Claim.finding("U V', M = 0.2: largest E g'H g/E|g|^2 over y up to 1.2"),
    "diverged": Claim.finding("U V', M up to 0.2: share of runs that diverge"),
}


def run(
    *, quick: bool = False, key: int = 0, progress: bool | None = None
) -> dict[str, xr.Dataset]:
    """The end of an oscillation by overshoot and eps, and from 256 random starts (128 when quick);
    paths of 64 seeds (32) under HeteroSGD; and small starts of U V' over y and M with 32 seeds
    (16), some with 256 (128).
    """
    from causal_sgd.sweeps import sweep, zipped

    options: Options = {"key": key, "progress": progress}
    long = one_output_cell(LONG, SELDOM)
    given = sweep(
        long, axes={"point": zipped(**_overshoots())}, seeds=1, tile=TILE, label="ends", **options
    )
    drawn = sweep(
        long,
        axes={"point": zipped(**_starts(STARTS // 2 if quick else STARTS))},
        seeds=1,
        tile=TILE,
        label="starts",
        **options,
    )
    slow = PATH_SLOW / PATH_RATIO
    return {
        "ends": given,
        "starts": drawn,
        "paths": sweep(
            long,
            axes={
                "ratio": [PATH_RATIO],
                "target": [PATH_TARGET],
                "spread": PATH_SPREADS,
                "first": [PATH_FIRST],
                "second": [slow**0.5],
            },
            seeds=32 if quick else 64,
            tile=TILE,
            label="paths",
            **options,
        ),
        "noise": sweep(
            long,
            axes={
                "ratio": [1.0],
                "target": NOISE_TARGETS,
                "spread": [NOISE_SPREAD],
                "first": [TINY[0]],
                "second": [TINY[1]],
            },
            seeds=128 if quick else 256,
            tile=TILE,
            label="noise",
            **options,
        ),
        "entry": sweep(
            one_output_cell(ENTRY_STEPS, ENTRY_EVERY, curvatures=True),
            axes={
                "ratio": [1.0],
                "target": ENTRY_TARGETS,
                "spread": ENTRY_SPREADS,
                "first": [TINY[0]],
                "second": [TINY[1]],
            },
            seeds=16 if quick else 32,
            label="small starts",
            **options,
        ),
    }


def _grid() -> Sequence[np.ndarray]:
    """Eps, y and X of the given overshoots, each [ratio, target, overshoot]."""
    return np.meshgrid(RATIOS, TARGETS, OVERSHOOTS, indexing="ij")


def _overshoots() -> dict[str, np.ndarray]:
    """Starts of given overshoot with a small residual."""
    ratio, target, multiple = (values.ravel() for values in _grid())
    slow = (2 + multiple * _scale(ratio, target) - 2 * target) / (1 + ratio)
    return {
        "ratio": ratio,
        "target": target,
        "spread": 0 * ratio,
        "first": np.sqrt(2 * (target + SMALL) + slow),
        "second": np.sqrt(slow / ratio),
    }


def _starts(size: int) -> dict[str, np.ndarray]:
    """Random starts for each of START_RATIOS: a ~ N(0, 1) and b ~ N(0, 2/eps), y = 0."""
    a, b = np.abs(np.random.default_rng(0).normal(size=(2, size)))
    ratio = np.repeat(START_RATIOS, size)
    count = len(START_RATIOS)
    second = np.tile(b, count) * np.sqrt(2 / ratio)
    zero = 0 * ratio
    return {
        "ratio": ratio,
        "target": zero,
        "spread": zero,
        "first": np.tile(a, count),
        "second": second,
    }


def _scale(ratio: np.ndarray, target: np.ndarray) -> np.ndarray:
    """2 less T at the end after a large overshoot, to leading order."""
    return ratio * (1 - target) / 2


def measure(data: Mapping[str, xr.Dataset]) -> dict[str, float]:
    """Ends, times of flattening, and the three curvatures of small starts."""
    share = _shares(data["ends"])
    values = {"end": farthest_from_one((2 * share[0] - share[1]).ravel())}
    for ratio in START_RATIOS:
        ends = _crossing(data["starts"], ratio)
        values[f"median_{ratio:g}"] = float(np.median(ends))
        if ratio == START_RATIOS[0]:
            low, high = np.quantile(ends, (0.25, 0.75))
            values["forgotten"] = float((high - low) / _scale(ratio, np.zeros(())))
    kernel = _path(data).kernel.mean("seed")
    values |= {
        "pooled": float(kernel.sel(spread=0.0).isel(step=-1)),
        "climbs": float(kernel.sel(spread=0.03, step=slice(50, None)).max()),
        "leaves": float(kernel.sel(spread=0.1).isel(step=-1)),
    }
    for spread, levels in LEVELS.items():
        values[f"time_{spread:g}"] = _time(data, spread) / _predicted(spread, *levels)
    return values | {"below": _noise(data["noise"])} | _entry(data["entry"])


def _shares(dataset: xr.Dataset) -> np.ndarray:
    """2 less T at the end over the law, [ratio, target, overshoot]."""
    from causal_sgd.theory import stability

    ratio, target, multiple = _grid()
    overshoot = multiple * _scale(ratio, target)
    law = np.asarray(stability.sharpening_end(1.0, target, ratio, overshoot), float)
    end = dataset.kernel.isel(step=-1, seed=0).values.reshape(ratio.shape)
    return (2 - end) / (2 - law)


def _crossing(dataset: xr.Dataset, ratio: float) -> np.ndarray:
    """T at the end of the runs [n] that started below 2 and were seen beyond it."""
    runs = dataset.isel(seed=0)
    runs = runs.isel(point=np.flatnonzero(np.isclose(runs.ratio.values, ratio)))
    kernel = runs.kernel.transpose("point", "step").values
    with np.errstate(invalid="ignore"):
        settled = np.abs(kernel[:, -1] - kernel[:, -2]) < 1e-5
        crossed = (kernel[:, 0] < 2) & (kernel > 2).any(1) & settled
    return kernel[crossed, -1]


def _path(data: Mapping[str, xr.Dataset]) -> xr.Dataset:
    return data["paths"].squeeze(["ratio", "target", "first", "second"])


def _slow_kernel(data: Mapping[str, xr.Dataset]) -> xr.DataArray:
    """2 y + (1 + eps) B with the geometric mean of B, [spread, step]."""
    slow = np.exp(np.log(_path(data).slow).mean("seed"))
    return (2 * PATH_TARGET + (1 + PATH_RATIO) * slow).transpose("spread", "step")


def _time(data: Mapping[str, xr.Dataset], spread: float) -> float:
    """The measured time between both levels."""
    path = _slow_kernel(data).sel(spread=spread)
    first, last = (
        float(np.interp(-level, -path.values, path.step.values)) for level in LEVELS[spread]
    )
    return last - first


def _predicted(spread: float, start: float, end: float) -> float:
    from causal_sgd.theory import stability

    return float(stability.flattening_time(start, end, 1.0, PATH_TARGET, PATH_RATIO, spread))


def _noise(dataset: xr.Dataset) -> float:
    """How far the mean curvature is below 2 y, over theory, farthest from 1."""
    runs = late(dataset.squeeze(["ratio", "spread", "first", "second"]), 0.5)
    # The curvature is T + z of a alone, z = T/2 - y: b has died.
    curvature = 1.5 * runs.kernel.mean(["seed", "step"]).values - NOISE_TARGETS
    expected = 1.5 * NOISE_SPREAD**2 / (1 - NOISE_TARGETS)
    return farthest_from_one((2 * NOISE_TARGETS - curvature) / expected)


def _means(dataset: xr.Dataset) -> xr.Dataset:
    """Time averages of the second half of small starts, [target, spread, seed]."""
    runs = late(dataset.squeeze(["ratio", "first", "second"]), 0.5)
    even = runs.isel(step=slice(-2 * (runs.sizes["step"] // 2), None))
    return even.drop_vars("diverged_at").mean("step").transpose("target", "spread", "seed")


def _entry(dataset: xr.Dataset) -> dict[str, float]:
    """What the claims on small starts need."""
    runs = _means(dataset)
    mean = runs.mean("seed")
    sharp = mean.sharpness
    still, moving = sharp.sel(spread=0.0), ENTRY_TARGETS[ENTRY_TARGETS < 0.99]
    beyond = ENTRY_TARGETS[ENTRY_TARGETS > 1.01]
    shaken = runs.sel(spread=ENTRY_SPREADS[1:])
    gap = shaken.batch_sharpness - shaken.pooled_along
    errors = gap.std("seed", ddof=1) / gap.sizes["seed"] ** 0.5
    apart = ((mean.worst - sharp) / mean.spread).sel(spread=[0.05, 0.1])
    along = mean.along / mean.gradient_square
    diverged = (dataset.diverged_at >= 0).mean()
    return {
        "flattest": farthest_from_one((still.sel(target=moving) / (2 * moving)).values),
        "cycle": farthest_from_one((still.sel(target=beyond) / ((3 + beyond) / 2)).values),
        "equal": float((np.abs(gap.mean("seed")) / errors).max()),
        "worst": farthest_from_one(apart.values.ravel()),
        "pooled_largest": float(sharp.sel(spread=0.05).max()),
        "batch_largest": float(along.sel(spread=0.2).max()),
        "diverged": float(diverged),
    }


def table(data: Mapping[str, xr.Dataset]) -> dict[str, xr.Dataset]:
    """Ends over their law, and curvatures of small starts."""
    ratio, target, multiple = _grid()
    mean = _means(data["entry"]).mean("seed")
    return {
        "ends over the law": points(
            {"ratio": ratio, "target": target, "overshoot": multiple},
            {"measured_over_law": _shares(data["ends"])},
        ),
        "small starts": points(
            {"target": ENTRY_TARGETS[:, None], "spread": ENTRY_SPREADS},
            {
                "sharpness": mean.sharpness.values,
                "sharpest_environment": mean.worst.values,
                "batch_sharpness": (mean.along / mean.gradient_square).values,
            },
        ),
    }


def figure(data: Mapping[str, xr.Dataset]) -> Figure:
    """The sharpness over time with and without environments, its end by the overshoot, flattening
    on the time scale of theory, and the curvatures of U V' from small starts.
    """
    from matplotlib import pyplot as plt

    fig, axes = plt.subplots(1, 4, figsize=(14.2, 3.6))
    draw_paths(axes[0], _path(data).kernel.mean("seed"), ratio=PATH_RATIO, target=PATH_TARGET)
    draw_ends(axes[1], _shares(data["ends"]), OVERSHOOTS, RATIOS, TARGETS)
    levels = np.linspace(CUT, 1.01, 150)
    draw_flattening(
        axes[2],
        _slow_kernel(data).sel(spread=PATH_SPREADS[1:]),
        start=CUT,
        theory=(np.array([_predicted(1.0, CUT, level) for level in levels]), levels),
    )
    draw_small_starts(axes[3], _means(data["entry"]).mean("seed").sel(spread=[0.0, 0.1, 0.2]))
    return fig
