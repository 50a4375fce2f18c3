"""SAM always shakes one direction, and takes it from the environments where they differ enough.

Sharpness-aware minimisation takes the gradient a distance rho uphill. It never settles: at a
minimum the sharpest direction ends in a two-cycle of amplitude eta lambda rho/(2 - eta lambda), and
the gradient there is such that the sharpness lambda equals SAM's edge (|g|/(2 rho)) (sqrt(1 + 8
rho/(eta |g|)) - 1), far below 2/eta (Long and Bartlett, JMLR 2024). Every minimum of U U' has the
same sharpness, so |g| adapts to it. In the valley of U V' the sharpness moves as well. The
imbalance of the factors shrinks at 4 eta rho^2/(2 - eta S)^2 per step, and runs slide down along
the edge until S is |f|. The amplitude and this exponent are derived here (`theory.stability`).

New is what environments make of it. They share the norm of the gradient with the learned direction,
and as long as that one oscillates a spurious direction is multiplied by 1 + eta s - (2 - eta
lambda)(s/lambda)^2, without the radius in it. For small mu it is rejected up to a spread of about
lambda = 2 sigma*, at a rate of order one: far below the critical spread of SGD if it starts within
the reach of rho M/mu, but not if it is learned already. Beyond, the environments are the sharpest
direction. It takes the norm for itself, and the learned direction stops moving. Then the spurious
power never vanishes, however large the spread: it stays at a floor of about eta^2 rho^2 M^2/3 where
SGD's falls exponentially beyond M_c. M_c, which depends on the learning rate, no longer matters for
what is small.

Far below that spread both states exist: whichever direction has the norm keeps it for long.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from causal_sgd.studies import Claim
from causal_sgd.studies._frames import farthest_from_one, late
from causal_sgd.studies._tables import points
from causal_sgd.studies.sensing._sam_panels import (
    draw_edge,
    draw_exponents,
    draw_levels,
    draw_valley,
)
from causal_sgd.studies.sensing._scalars import deviation
from causal_sgd.studies.sensing._sharpness_aware import (
    SIGNAL,
    matrix_cell,
    pair_cell,
    scalar_floor,
    slide,
    valley_cell,
)

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure

    from causal_sgd.studies._cells import Options

RATES, RADII = np.array([0.1, 0.2, 0.3, 0.5]), np.array([0.002, 0.01])
TOP = 2.0  # the sharpness of U U' = A* with sigma_1 = 1
VALLEY_RATE, VALLEY_RADII, VALLEY_START = 0.2, np.array([0.05, 0.1, 0.2]), 3.0
VALLEY_STEPS, VALLEY_EVERY, SETTLED = 450, 3, 20  # frames until the two-cycle has formed
STEEP = 2.0  # the edge is judged where S is above: the flattest is 1
MEANS = (0.2, 1.0)
TINY, FEW = 1e-20, 10  # start and steps of the linear growth
GROWTH_RATE, GROWTH_RADIUS = 0.1, 1e-3
SPREADS = np.array([0.25, 0.5, 1.0, 1.5, 1.9, 2.0, 2.1, 2.2, 2.5, 3.0, 4.0, 6.0])
RATE, MEAN, START = 0.05, 0.2, 0.02
DIAGRAM_RADII = np.array([0.0, 1e-3, 1e-2, 5e-2])
DIAGRAM_SPREADS = np.round(np.arange(0.0, 6.1, 0.4), 1)
REACHED = (0.8, 1.2, 1.6, 2.0)  # spreads below M_c = 2.84
BEYOND = DIAGRAM_SPREADS[DIAGRAM_SPREADS > 3]
SLOW, FLOOR_MEAN, FLOOR_SPREADS = 0.01, 0.5, np.array([3.1, 4.3])
STEPS, EVERY, TILE = 2000, 20, 512
DRAWS = 256
NORM = "linear dynamics beside the two-cycle"
CLAIMS = {
    "amplitude": Claim(
        "U U': |U U' - A*| over 2 sqrt(sigma_1) times the amplitude, farthest from 1",
        0.995,
        1.001,
        "quadratic; the next order is 4 rho^2/(1 - eta)^3, at most 0.0032, and smaller terms",
    ),
    "edge": Claim(
        "U U': sharpness over SAM's edge at the run's |g|, farthest from 1",
        0.99,
        1.01,
        "Long and Bartlett 2024; |g| alternates by 3 rho/(2 eta), which enters squared",
    ),
    "valley": Claim(
        "U V', rho = 0.05, while S is above 2: S over SAM's edge, geometric mean",
        0.98,
        1.02,
        "Long and Bartlett 2024",
    ),
    "balance": Claim(
        "U V': fall of the log of the imbalance over the sum of -4 eta rho^2/(2 - eta S)^2, "
        "farthest from 1",
        0.98,
        1.02,
        "exact map of two factors to second order in rho",
    ),
    "flattest": Claim.finding("U V', rho = 0.2: S at the end over the entry f = 1"),
    **{
        f"exponent_{mean:g}": Claim(
            f"mu = {mean:g}: largest deviation of the exponent of a small spurious direction from "
            "theory",
            0,
            0.02,
            NORM,
        )
        for mean in MEANS
    },
    "swap": Claim(
        "mu = 0.2: spread near 2 at which the exponent changes its sign, over that of theory",
        0.99,
        1.01,
        NORM,
    ),
    "swap_at": Claim.finding("mu = 0.2, eta = 0.1: the spread at which it does"),
    "rejects": Claim(
        "rho = 0.05, M = 0.8 to 2, below M_c: largest median spurious power over that of SGD, from "
        "a start below rho",
        0,
        1e-3,
        "drift towards zero below rho M/mu",
    ),
    "held": Claim(
        "M beyond M_c: largest deviation of the spurious power from the scalar map of one "
        "direction alone, in standard errors",
        0,
        4.5,
        "independent simulation of the scalar map",
    ),
    "stops": Claim(
        "M beyond M_c: largest median deviation of the learned direction from its level, over the "
        "amplitude that it has alone",
        0,
        0.01,
        "negative exponent beside the scalar map",
    ),
    "stops_at": Claim.finding("M beyond M_c: largest of these exponents in the scalar map"),
    "square": Claim(
        "M = 4.8: spurious power at rho = 0.05 over 25 times that at rho = 0.01",
        0.97,
        1.03,
        "the linear map knows no other length",
    ),
    **{
        f"floor_{spread:g}": Claim(
            f"eta = 0.01, mu = 0.5, M = {spread:g}: spurious power over eta^2 rho^2 (M^2 + 3 "
            "mu^2)/3",
            0.97,
            1.03,
            "stationary law of a reflected walk; the next orders are eta mu and (eta M)^2, 0.007",
        )
        for spread in FLOOR_SPREADS
    },
    "sgd": Claim.finding("M = 4.8: median spurious power of SGD after 2000 steps"),
}


def run(
    *, quick: bool = False, key: int = 0, progress: bool | None = None
) -> dict[str, xr.Dataset]:
    """U U' of rank 3 and U V' with one entry, 4 seeds; the growth of a small spurious direction
    from 16,000 seeds; its level from 32 (8 when quick), and from 1024 (512) at a small step.
    """
    from causal_sgd.sweeps import sweep

    options: Options = {"key": key, "progress": progress}
    levels = pair_cell(STEPS, EVERY)
    return {
        "matrix": sweep(
            matrix_cell(528, 11),
            axes={"learning_rate": RATES, "radius": RADII},
            seeds=4,
            label="matrix",
            **options,
        ),
        "valley": sweep(
            valley_cell(VALLEY_STEPS, VALLEY_EVERY),
            axes={
                "learning_rate": [VALLEY_RATE],
                "radius": VALLEY_RADII,
                "start": [VALLEY_START],
            },
            seeds=4,
            label="valley",
            **options,
        ),
        "growth": sweep(
            pair_cell(FEW, FEW),
            axes={
                "learning_rate": [GROWTH_RATE],
                "radius": [GROWTH_RADIUS],
                "mean": MEANS,
                "spread": SPREADS,
                "start": [TINY],
            },
            seeds=16_000,
            label="growth",
            **options,
        ),
        "levels": sweep(
            levels,
            axes={
                "learning_rate": [RATE],
                "radius": DIAGRAM_RADII,
                "mean": [MEAN],
                "spread": DIAGRAM_SPREADS,
                "start": [START],
            },
            seeds=8 if quick else 32,
            tile=TILE,
            label="levels",
            **options,
        ),
        "floor": sweep(
            levels,
            axes={
                "learning_rate": [SLOW],
                "radius": [0.01],
                "mean": [FLOOR_MEAN],
                "spread": FLOOR_SPREADS,
                "start": [0.01],
            },
            seeds=512 if quick else 1024,
            tile=TILE,
            label="floor",
            **options,
        ),
    }


def measure(data: Mapping[str, xr.Dataset]) -> dict[str, float]:
    """The two-cycle, the slide along the edge, exponents, and levels."""
    from causal_sgd.theory import stability

    runs = data["matrix"].isel(step=slice(-16, None)).transpose(..., "seed", "step")
    size = np.asarray(stability.sam_amplitude(RATES[:, None], RADII, TOP))
    ratio = runs.invariant_error.values.mean(-1) / (2 * size[..., None])
    values = {
        "amplitude": farthest_from_one(ratio.ravel()),
        "edge": farthest_from_one(_over_edge(runs).ravel()),
    }
    slow, fast = (_valley(data).sel(radius=radius) for radius in VALLEY_RADII[[0, -1]])
    steep = slow.isel(step=(slow.sharpness.min("seed").values > STEEP))
    values |= {
        "valley": farthest_from_one(_over_edge(steep.isel(step=slice(SETTLED, None))).ravel()),
        "balance": farthest_from_one(_balance(data)),
        "flattest": float(late(fast, 0.95).sharpness.mean() / SIGNAL),
    }
    growth, theory = _growth(data["growth"]), _exponents(SPREADS)
    for index, mean in enumerate(MEANS):
        values[f"exponent_{mean:g}"] = float(np.abs(growth - theory)[index].max())
    values["swap_at"] = _root(growth[0])
    values["swap"] = _root(growth[0]) / _root(theory[0])
    return values | _levels(data)


def _over_edge(runs: xr.Dataset) -> np.ndarray:
    """The sharpness over SAM's edge, the geometric mean over the frames, which are last."""
    from causal_sgd.theory import stability

    runs = runs.transpose(..., "seed", "step")
    rate, radius, norm = (
        runs[name].broadcast_like(runs.sharpness).transpose(*runs.sharpness.dims).values
        for name in ("learning_rate", "radius", "gradient_norm")
    )
    edge = np.asarray(stability.sam_edge(rate, radius, norm))
    return np.exp(np.log(runs.sharpness.values / edge).mean(-1))


def _valley(data: Mapping[str, xr.Dataset]) -> xr.Dataset:
    return data["valley"].isel(start=0, learning_rate=0)


def _balance(data: Mapping[str, xr.Dataset]) -> np.ndarray:
    """The fall of log|u^2 - v^2| over the sum of its exponents, [radius seed]."""
    from causal_sgd.theory import stability

    runs = _valley(data).isel(step=slice(SETTLED, None)).transpose("radius", "seed", "step")
    sharpness = runs.sharpness.values
    steps = np.asarray(
        stability.sam_balance_exponent(VALLEY_RATE, VALLEY_RADII[:, None, None], sharpness)
    )
    total = VALLEY_EVERY * (steps[..., 1:] + steps[..., :-1]).sum(-1) / 2
    logs = np.log(runs.imbalance.values)
    return ((logs[..., -1] - logs[..., 0]) / total).ravel()


def _growth(dataset: xr.Dataset) -> np.ndarray:
    """The measured exponents [mean, spread]."""
    signal = dataset.spurious_signal.isel(step=-1).squeeze(["learning_rate", "radius", "start"])
    return (np.log(signal / TINY) / FEW).mean("seed").transpose("mean", "spread").values


def _exponents(spreads: np.ndarray) -> np.ndarray:
    """Those of theory, [mean, spread]."""
    from causal_sgd.theory import stability

    means = np.array(MEANS)[:, None]
    return np.asarray(stability.sam_exponent(GROWTH_RATE, means, spreads, TOP))


def _root(exponents: np.ndarray) -> float:
    """The spread from 1.9 to 2.2 at which exponents [SPREADS] change their sign."""
    near = (SPREADS > 1.8) & (SPREADS < 2.3)
    return float(np.interp(0.0, exponents[near], SPREADS[near]))


def _level(data: Mapping[str, xr.Dataset]) -> xr.Dataset:
    """The time averages of the squares in the second half, [radius, spread, seed]."""
    runs = late(data["levels"].squeeze(["learning_rate", "mean", "start"]), 0.5)
    squares = runs[["spurious_signal", "invariant_move"]] ** 2
    return squares.mean("step").transpose("radius", "spread", "seed")


def _levels(data: Mapping[str, xr.Dataset]) -> dict[str, float]:
    """What the claims on levels need."""
    from causal_sgd.theory import stability

    level = _level(data)
    median = level.median("seed")
    ratio = median.spurious_signal.sel(radius=0.05) / median.spurious_signal.sel(radius=0.0)
    beyond = level.sel(radius=0.01, spread=BEYOND)
    alone = [scalar_floor(RATE, 0.01, MEAN, spread, draws=DRAWS, steps=STEPS) for spread in BEYOND]
    size = float(stability.sam_amplitude(RATE, 0.01, TOP))
    power = level.spurious_signal.mean("seed").sel(spread=4.8)
    floor = late(data["floor"].squeeze(["learning_rate", "radius", "mean", "start"]), 0.5)
    floors = (floor.spurious_signal**2).mean(["seed", "step"])
    values = {
        "rejects": float(ratio.sel(spread=list(REACHED)).max()),
        "held": max(
            deviation(beyond.spurious_signal.sel(spread=spread).values, expected)
            for spread, (expected, _) in zip(BEYOND, alone, strict=True)
        ),
        "stops": float(np.sqrt(beyond.invariant_move.median("seed")).max()) / size,
        "stops_at": max(exponent for _, exponent in alone),
        "square": float(power.sel(radius=0.05) / power.sel(radius=0.01)) / 25,
        "sgd": float(median.spurious_signal.sel(radius=0.0, spread=4.8)),
    }
    for spread in FLOOR_SPREADS:
        expected = float(stability.sam_floor(SLOW, 0.01, FLOOR_MEAN, spread))
        values[f"floor_{spread:g}"] = float(floors.sel(spread=spread)) / expected
    return values


def _critical() -> float:
    from causal_sgd import theory

    return float(theory.critical_spread(RATE, MEAN))


def table(data: Mapping[str, xr.Dataset]) -> dict[str, xr.Dataset]:
    """Exponents, and levels beside their floor."""
    from causal_sgd.theory import stability

    median = _level(data).median("seed")
    floor = stability.sam_floor(RATE, DIAGRAM_RADII[:, None], MEAN, DIAGRAM_SPREADS)
    return {
        "exponents": points(
            {"mean": np.array(MEANS)[:, None], "spread": SPREADS},
            {"measured": _growth(data["growth"]), "theory": _exponents(SPREADS)},
        ),
        "median levels": points(
            {"radius": DIAGRAM_RADII[:, None], "spread": DIAGRAM_SPREADS},
            {"spurious_power": median.spurious_signal.values, "floor": np.asarray(floor)},
        ),
        "theory": points({}, {"critical_spread": _critical()}),
    }


def figure(data: Mapping[str, xr.Dataset]) -> Figure:
    """Runs of U V' that slide along the edges of three radii, their sharpness over time, the
    exponent of a small spurious direction, and its level over the spread.
    """
    from matplotlib import pyplot as plt

    fig, axes = plt.subplots(1, 4, figsize=(14.2, 3.6))
    valley, radii = _valley(data), VALLEY_RADII
    paths = [slide(VALLEY_RATE, radius, VALLEY_START, valley.step.values) for radius in radii]
    draw_edge(axes[0], valley, rate=VALLEY_RATE, radii=radii)
    draw_valley(axes[1], valley, paths=paths, signal=SIGNAL)
    dense = np.linspace(0.01, 6.2, 620)
    draw_exponents(
        axes[2],
        SPREADS,
        _growth(data["growth"]),
        theory=(dense, _exponents(dense)),
        rate=GROWTH_RATE,
        means=MEANS,
    )
    draw_levels(
        axes[3],
        _level(data).median("seed").spurious_signal,
        rate=RATE,
        mean=MEAN,
        critical=_critical(),
        start=START,
    )
    return fig
