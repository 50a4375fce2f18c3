"""HeteroSGD rejects a colour under logistic loss too, beyond a step size in closed form.

The coloured digits of Arjovsky et al. 2019 without images: a bit that agrees with the label with
probability 1 - q everywhere, and a colour of size c that agrees more in some environments than in
others, with mean correlations c_e = mu +- M. The loss is not a square, but the weights that know
the bit alone are stationary in every environment, and there HeteroSGD with weights u^2 - v^2
multiplies u of the colour by 1 + 2 eta kappa c c_e, kappa = 2 q (1 - q). The transition is that of
matrix sensing: the mean weight of the colour falls linearly to zero at eta_c = mu/(kappa c (M^2 -
mu^2)). (The derivation is ours.)

Training on all data together keeps the colour at its best weight log(p/(1 - p))/c, whatever the
step size. In the coloured digits themselves the colour agrees with the label in both environments
(correlations 0.6 and 0.8), and HeteroSGD keeps most of it at every step size at which runs stay
bounded: heterogeneity in strength does not help, only a change of sign.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from causal_sgd.studies import Claim
from causal_sgd.studies._cells import Options, averaged
from causal_sgd.studies._drawing import line_to_zero
from causal_sgd.studies._frames import surviving
from causal_sgd.studies._tables import points

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

    from causal_sgd.types import Array, Key, Metric, Trace

FLIP, MEAN, SPREAD, COLOUR = 0.25, 0.2, 0.8, 1.0
# q, mu, M, c of the settings in which the transition is measured.
SETTINGS = np.array([(FLIP, MEAN, SPREAD, COLOUR), (0.25, 0.2, 0.8, 2.0), (0.15, 0.15, 0.7, 1.0)])
NAMES = ("first", "large", "weak")
RATIOS = np.array([0.8, 0.85, 0.9, 0.95, 1.0, 1.05])  # learning rates over the critical one
FITTED = 4  # of these, those below the transition
STEPS = 12_000
SPREADS = np.linspace(0.35, 0.8, 16)
RATES = np.geomspace(0.25, 2.3, 16)
DIGITS = (0.7, 0.1)  # mu and M of the coloured digits
FORGOTTEN = 0.01  # the share of the pooled weight below which the colour counts as rejected
LAW = "mu/(kappa c (M^2 - mu^2)), exact for two environments"
CLAIMS = {
    "pooled_invariant": Claim(
        "all data together: weight of the bit over log((1 - q)/q)", 0.99, 1.01, "independent bits"
    ),
    "pooled_colour": Claim(
        "all data together: weight of the colour over log(p/(1 - p))", 0.99, 1.01, "the same"
    ),
    "first": Claim(
        "q = 0.25, mu = 0.2, M = 0.8, c = 1: learning rate at which the mean weight of the colour "
        "vanishes, over eta_c",
        0.98,
        1.02,
        LAW,
    ),
    "large": Claim("the same with a colour of size 2", 0.98, 1.02, LAW),
    "weak": Claim("the same for q = 0.15, mu = 0.15, M = 0.7", 0.98, 1.02, LAW),
    "beyond": Claim(
        "largest mean weight of the colour at 1.05 eta_c, over the pooled one", 0, 0.01, LAW
    ),
    "map": Claim(
        "share of the map of M and eta, 20 % and more from eta_c, on which the colour is kept "
        "below eta_c and rejected above it; runs that diverge do not count",
        0.98,
        1,
        LAW,
    ),
    "digits": Claim(
        "coloured digits: least weight of the colour by HeteroSGD over the pooled one, at all "
        "learning rates at which runs stay bounded",
        0.05,
        1.5,
        "positive Lyapunov exponent: no rejection",
    ),
    "bounded": Claim.finding(
        "largest learning rate of the map at which half of the runs stay bounded, M = 0.8"
    ),
}


def run(
    *, quick: bool = False, key: int = 0, progress: bool | None = None
) -> dict[str, xr.Dataset]:
    """Population gradients of one environment a step: 12,000 steps of 192 seeds (48 when quick) at
    six learning rates around the transition in three worlds, and 3000 steps of 8 seeds (2 when
    quick) on a map of 16 spreads and 16 learning rates and in the coloured digits. All data
    together: 3000 steps.
    """
    from causal_sgd.sweeps import sweep, zipped

    options: Options = {"key": key, "progress": progress}
    settings = zipped(**dict(zip(("flip", "mean", "spread", "colour"), SETTINGS.T, strict=True)))
    plane = {"learning_rate": RATES}
    fixed = {"flip": [FLIP], "colour": [COLOUR]}
    seeds = 2 if quick else 8
    return {
        "order": sweep(
            averaged(_ordered),
            axes={"setting": settings, "ratio": RATIOS},
            seeds=48 if quick else 192,
            **options,
        ),
        "map": sweep(
            averaged(_hetero, after=0.5),
            axes={"spread": SPREADS, **plane, "mean": [MEAN], **fixed},
            seeds=seeds,
            **options,
        ),
        "digits": sweep(
            averaged(_hetero, after=0.5),
            axes={"spread": [DIGITS[1]], **plane, "mean": [DIGITS[0]], **fixed},
            seeds=seeds,
            **options,
        ),
        "pooled": sweep(_pooled, axes={"setting": settings}, seeds=1, **options),
    }


def measure(data: Mapping[str, xr.Dataset]) -> dict[str, float]:
    """The pooled weights, the transition in three worlds, the map, and the coloured digits."""
    pooled = data["pooled"].isel(step=-1, seed=0)
    best = _pooled_weights()
    means = _order(data)
    invariant = pooled["invariant"].values / best[:, 0]
    colour = pooled["colour_weight"].values / best[:, 1]
    boundaries = {
        name: _root(RATIOS[:FITTED], row[:FITTED]) for name, row in zip(NAMES, means, strict=True)
    }
    kept, bounded = _kept(data["map"], _best_colour(MEAN)), _bounded(data["map"])
    ratio = RATES[None, :] / _critical(SPREADS)[:, None]
    counts = (np.abs(np.log(ratio)) > np.log(1.2)) & ~np.isnan(kept)
    right = (kept > FORGOTTEN) == (ratio < 1)
    digits = _kept(data["digits"], _best_colour(DIGITS[0]))[0]
    return {
        "pooled_invariant": float(invariant[np.argmax(np.abs(invariant - 1))]),
        "pooled_colour": float(colour[np.argmax(np.abs(colour - 1))]),
        **boundaries,
        "beyond": float((means[:, -1] / best[:, 1]).max()),
        "map": float(right[counts].mean()),
        "digits": float(np.nanmin(digits)),
        "bounded": float(RATES[bounded[-1]].max()),
    }


def table(data: Mapping[str, xr.Dataset]) -> dict[str, xr.Dataset]:
    """The mean weights of the colour around the transition, over the pooled one, and the map with
    the critical learning rate.
    """
    means = _order(data) / _pooled_weights()[:, 1:]
    kept = _kept(data["map"], _best_colour(MEAN))
    critical = _critical(SPREADS)
    return {
        "transition": points({"ratio": RATIOS}, dict(zip(NAMES, means, strict=True))),
        "plane": points(
            {"spread": SPREADS[:, None], "learning_rate": RATES[None, :]},
            {"kept": kept, "critical_learning_rate": critical[:, None]},
        ),
    }


def figure(data: Mapping[str, xr.Dataset]) -> Figure:
    """The mean weight of the colour over the pooled one around the transition, with lines fitted
    below it (left); on the plane of spread and learning rate, with eta_c (middle; blank where runs
    diverge); and against the learning rate for the largest spread and for the coloured digits
    (right).
    """
    from matplotlib import pyplot as plt

    fig, axes = plt.subplots(1, 3, figsize=(9.6, 3.3), layout="constrained")
    _draw_order(axes[0], data)
    _draw_map(fig, axes[1], data)
    _draw_signs(axes[2], data)
    return fig


def _ordered(
    key: Key,
    *,
    flip: float | Array,
    mean: float | Array,
    spread: float | Array,
    colour: float | Array,
    ratio: float | Array,
) -> Trace:
    """HeteroSGD at a learning rate in units of the critical one."""
    import jax.numpy as jnp

    from causal_sgd.theory.invariance import coloured_logistic

    flips = (1 - mean - jnp.array([1.0, -1.0]) * spread) / 2
    critical = coloured_logistic.critical_learning_rate(flip, flips, colour=colour)
    return _trained(
        key,
        (flip, mean, spread, colour),
        "hetero",
        learning_rate=ratio * critical,
        steps=STEPS,
        every=4,
    )


def _hetero(
    key: Key,
    *,
    flip: float | Array,
    mean: float | Array,
    spread: float | Array,
    colour: float | Array,
    learning_rate: float | Array,
) -> Trace:
    return _trained(
        key,
        (flip, mean, spread, colour),
        "hetero",
        learning_rate=learning_rate,
        steps=3000,
        every=10,
    )


def _pooled(
    key: Key,
    *,
    flip: float | Array,
    mean: float | Array,
    spread: float | Array,
    colour: float | Array,
) -> Trace:
    return _trained(
        key, (flip, mean, spread, colour), "stratified", learning_rate=0.3, steps=3000, every=3000
    )


def _trained(
    key: Key,
    setting: tuple[float | Array, ...],
    sampler: str,
    *,
    learning_rate: float | Array,
    steps: int,
    every: int,
) -> Trace:
    import jax.numpy as jnp
    import optax

    from causal_sgd import training
    from causal_sgd.supervised import losses, measurements, models, worlds

    flip, mean, spread, colour = setting
    correlations = jnp.stack([jnp.asarray(mean + spread, float), jnp.asarray(mean - spread, float)])
    size = {"hetero": 1, "stratified": 2}[sampler]
    algorithm = training.sgd(
        world=worlds.two_bit(
            invariant_flip=flip, spurious_flips=(1 - correlations) / 2, colour=colour
        ),
        sampler=getattr(training.samplers, sampler)(batch_size=size),
        measurement=measurements.counts(losses.logistic),
        model=models.hadamard(dim=2, signed=True, init_scale=0.1),
        optimizer=optax.sgd(learning_rate),
    )
    return training.run(
        key, algorithm=algorithm, metrics=_weights(), num_steps=steps, record_every=every
    )


def _weights() -> dict[str, Metric]:
    return {
        "invariant": lambda snapshot: snapshot.estimate[0],
        "colour_weight": lambda snapshot: snapshot.estimate[1],
    }


def _pooled_weights() -> np.ndarray:
    """The weights [settings, 2] of the best prediction from all data together."""
    flip, mean, _, colour = SETTINGS.T
    return np.stack([np.log((1 - flip) / flip), np.log((1 + mean) / (1 - mean)) / colour], 1)


def _best_colour(mean: float) -> float:
    return float(np.log((1 + mean) / (1 - mean)) / COLOUR)


def _critical(spreads: np.ndarray) -> np.ndarray:
    """The critical learning rates, from the exponents, [n]."""
    from causal_sgd.theory.invariance import coloured_logistic

    correlations = MEAN + np.array([1, -1]) * spreads[:, None]
    flips = (1 - correlations) / 2
    return np.asarray(coloured_logistic.critical_learning_rate(FLIP, flips, colour=COLOUR))


def _order(data: Mapping[str, xr.Dataset]) -> np.ndarray:
    """The weight of the colour, its mean over time and seeds, [settings, ratios]."""
    runs = surviving(data["order"]).colour_weight.isel(step=-1)
    return runs.mean("seed").transpose("setting", "ratio").values


def _root(x: np.ndarray, y: np.ndarray) -> float:
    slope, intercept = np.polyfit(x, y, 1)
    return float(-intercept / slope)


def _bounded(dataset: xr.Dataset) -> np.ndarray:
    """Whether at least half of the runs did not diverge, [spreads, rates]."""
    runs = dataset.squeeze(("mean", "flip", "colour"))
    share = (runs.diverged_at < 0).mean("seed")
    return share.transpose("spread", "learning_rate").values >= 0.5


def _kept(dataset: xr.Dataset, best: float) -> np.ndarray:
    """The median weight of the colour over the pooled one, [spreads, rates]; NaN for unbounded."""
    runs = surviving(dataset).squeeze(("mean", "flip", "colour")).isel(step=-1)
    median = runs.colour_weight.median("seed").transpose("spread", "learning_rate").values
    return np.where(_bounded(dataset), median / best, np.nan)


def _draw_order(ax: Axes, data: Mapping[str, xr.Dataset]) -> None:
    means = _order(data) / _pooled_weights()[:, 1:]
    for index, (row, (flip, mean, spread, colour)) in enumerate(zip(means, SETTINGS, strict=True)):
        label = rf"$q={flip:g}$, $\mu={mean:g}$, $M={spread:g}$, $c={colour:g}$"
        ax.plot(RATIOS, row, color=f"C{index}", ls="", marker="o", ms=4, label=label)
        line_to_zero(ax, RATIOS[:FITTED], row[:FITTED], color=f"C{index}")
    ax.axvline(1, color="0.3", ls=":", lw=1)
    ax.set_xlabel(r"$\eta / \eta_c$")
    ax.set_title("mean weight of the colour / pooled")
    ax.legend(frameon=False, fontsize=7)


def _draw_map(fig: Figure, ax: Axes, data: Mapping[str, xr.Dataset]) -> None:
    kept = _kept(data["map"], _best_colour(MEAN))
    mesh = ax.pcolormesh(SPREADS, RATES, kept.T, shading="nearest", vmin=0, vmax=1)
    fig.colorbar(mesh, ax=ax, shrink=0.9)
    dense = np.linspace(SPREADS[0], SPREADS[-1], 100)
    critical = _critical(dense)
    ax.plot(dense, np.where(critical < RATES[-1], critical, np.nan), color="w", lw=1.5)
    ax.set_yscale("log")
    _mark_rates(ax.yaxis)
    ax.set_xlabel("spread $M$")
    ax.set_ylabel(r"learning rate $\eta$")
    ax.set_title("weight of the colour / pooled")


def _draw_signs(ax: Axes, data: Mapping[str, xr.Dataset]) -> None:
    opposite = _kept(data["map"], _best_colour(MEAN))[-1]
    same = _kept(data["digits"], _best_colour(DIGITS[0]))[0]
    ax.plot(RATES, opposite, marker="o", ms=4, label=r"$c_e = 1, -0.6$")
    ax.plot(RATES, same, marker="s", ms=4, label="$c_e = 0.8, 0.6$ (digits)")
    ax.axvline(_critical(SPREADS[-1:])[0], color="0.3", ls=":", lw=1)
    ax.set_xscale("log")
    _mark_rates(ax.xaxis)
    ax.set_ylim(-0.03, 1.1)
    ax.set_xlabel(r"learning rate $\eta$")
    ax.set_title("weight of the colour / pooled")
    ax.legend(frameon=False, fontsize=8)


def _mark_rates(axis: Axis) -> None:
    from matplotlib.ticker import NullFormatter

    axis.set_ticks([0.3, 0.5, 1, 2], labels=["0.3", "0.5", "1", "2"])
    axis.set_minor_formatter(NullFormatter())
