"""A minority's error is larger by nearly one over its share, which balanced groups remove.

Majority and minority share one input and have one of their own, with margins Z that are uniform
above the least one of the group. Gradient descent on all data is a map of three numbers, which
theory iterates exactly; the time z is the learning rate times the steps. Let alpha be half the
ratio of the minority's least margin to the majority's. For alpha < 1 both groups support the
largest margin and both errors fall like 1/z, the minority's with the prefactor 1/share; for alpha >
1 the minority gains from what the majority learns, and its error falls like z^-alpha. Leading terms
are approached like 1/log z only: at z = 20,000 and a share of 0.1 the minority's error is a third
below its leading term (alpha = 1/2), its exponent is 0.93 rather than 1, and balanced groups reduce
it 4.2 times rather than 5 times.

HeteroSGD with groups as environments that are drawn equally often has the errors of balanced
gradient descent at small steps, although every step sees one group only. At a learning rate of 1 it
still does so for alpha < 1. For alpha = 3/2 the seeds then differ by factors of ten and more, and
their mean error is about three times the balanced one: the minority is no support vector, so that
nothing pulls back what the order of the first steps has left.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from causal_sgd.studies import Claim
from causal_sgd.studies._cells import Options
from causal_sgd.studies._frames import farthest_from_one
from causal_sgd.studies._tables import points
from causal_sgd.studies.supervised._whole import whole

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from causal_sgd.types import Array, Key, Metric, Snapshot, Trace

SHARES = np.array([0.05, 0.1, 0.2, 0.5])
MARGINS = np.array([1.0, 1.4, 3.0])  # of the minority; the majority's is 1, so alpha is half
LARGEST = 4.0
SHARE = 0.1  # of the claims
RATE, STEPS, EVERY = 1.0, 20_000, 500
RATES = np.array([0.25, 1.0])  # of HeteroSGD
GROUPS = ("majority", "minority")
MAP = "the exact map of three numbers"
CLAIMS = {
    "pooled_half": Claim(
        "all data, alpha = 1/2, z = 20,000: error of either group over that of the map, farthest "
        "from 1",
        0.98,
        1.02,
        MAP,
    ),
    "pooled_less": Claim("the same for alpha = 0.7", 0.98, 1.02, MAP),
    "pooled_more": Claim("the same for alpha = 1.5", 0.98, 1.02, MAP),
    "shares": Claim(
        "the same for alpha = 1/2 and minority shares from 0.05 to 0.5, over all z from 500",
        0.98,
        1.02,
        MAP,
    ),
    "gain_half": Claim(
        "alpha = 1/2: minority's error of all data over that of balanced groups, over the ratio of "
        "the maps",
        0.98,
        1.02,
        MAP,
    ),
    "gain_less": Claim("the same ratio for alpha = 0.7", 0.98, 1.02, MAP),
    "gain_more": Claim("the same ratio for alpha = 1.5", 0.98, 1.02, MAP),
    "hetero": Claim(
        "HeteroSGD of equally likely groups, learning rate 1/4: mean error of either group over "
        "that of the balanced map, farthest from 1 over the three alpha",
        0.95,
        1.05,
        "balanced gradients on average, at small steps",
    ),
    "balance_half": Claim.finding(
        "alpha = 1/2: minority's error of all data over that of balanced groups; leading terms say "
        "5"
    ),
    "balance_less": Claim.finding("alpha = 0.7: the same gain by balance"),
    "balance_more": Claim.finding("alpha = 1.5: the same gain by balance"),
    "hetero_half": Claim.finding(
        "HeteroSGD at a learning rate of 1, alpha = 1/2: mean error of the minority over that of "
        "the balanced map"
    ),
    "hetero_more": Claim.finding("the same mean error over the map's for alpha = 1.5"),
    "hetero_spread": Claim.finding(
        "the same: standard deviation over seeds of the logarithm of the minority's error"
    ),
    "exponent_half": Claim.finding("alpha = 1/2: exponent of the minority's error, last octave"),
    "exponent_less": Claim.finding("alpha = 0.7: the same exponent"),
    "exponent_more": Claim.finding("alpha = 1.5: the same exponent"),
    "leading_majority": Claim.finding(
        "alpha = 1/2, z = 20,000: majority's error over its leading term"
    ),
    "leading_minority": Claim.finding("the same ratio for the minority"),
}
ALPHAS = ("half", "less", "more")


def run(
    *, quick: bool = False, key: int = 0, progress: bool | None = None
) -> dict[str, xr.Dataset]:
    """20,000 steps from zero on the population of the groups: of all data together for four shares
    and three margins, and of HeteroSGD with 32 seeds (8 when quick).
    """
    from causal_sgd.sweeps import sweep

    options: Options = {"key": key, "progress": progress}
    margins = {"margin": MARGINS}
    return {
        "pooled": sweep(_pooled, axes={"share": SHARES, **margins}, seeds=1, **options),
        "hetero": sweep(
            _hetero, axes={"rate": RATES, **margins}, seeds=8 if quick else 32, **options
        ),
    }


def measure(data: Mapping[str, xr.Dataset]) -> dict[str, float]:
    """Errors of both groups over those of the map, their exponents, and the gain by balance."""
    pooled, expected = _pooled_errors(data)
    row, balanced = list(SHARES).index(SHARE), list(SHARES).index(0.5)
    ratios = pooled / expected
    ends = [farthest_from_one(ratios[row, index, -1]) for index in range(len(ALPHAS))]
    gains, predicted = (
        each[row, :, -1, 1] / each[balanced, :, -1, 1] for each in (pooled, expected)
    )
    (half,) = np.flatnonzero(_frames(data) == STEPS // 2)
    octave = np.log2(pooled[row, :, half, 1] / pooled[row, :, -1, 1])
    leading = pooled[row, 0, -1] / _leading(SHARE, MARGINS[0])
    slow, fast = (
        (runs[:, -1], law[:, -1]) for runs, law in (_hetero_errors(data, rate) for rate in RATES)
    )
    by_mean = fast[0].mean(-1) / fast[1]
    return {
        **{f"pooled_{name}": ends[i] for i, name in enumerate(ALPHAS)},
        "shares": farthest_from_one(ratios[:, 0].ravel()),
        **{f"gain_{name}": float(gains[i] / predicted[i]) for i, name in enumerate(ALPHAS)},
        "hetero": farthest_from_one((slow[0].mean(-1) / slow[1]).ravel()),
        **{f"balance_{name}": float(gains[i]) for i, name in enumerate(ALPHAS)},
        "hetero_half": float(by_mean[0, 1]),
        "hetero_more": float(by_mean[2, 1]),
        "hetero_spread": float(np.log(fast[0][2, 1]).std()),
        **{f"exponent_{name}": float(octave[i]) for i, name in enumerate(ALPHAS)},
        "leading_majority": float(leading[0]),
        "leading_minority": float(leading[1]),
    }


def table(data: Mapping[str, xr.Dataset]) -> dict[str, xr.Dataset]:
    """The errors of both groups over time beside those of the maps, at a share of 0.1; HeteroSGD at
    a learning rate of 1, medians over seeds.
    """
    pooled, expected = _pooled_errors(data)
    hetero, balanced = _hetero_errors(data, RATE)
    row, numbers = list(SHARES).index(SHARE), {}
    for column, group in enumerate(GROUPS):
        numbers |= {
            f"{group}_pooled": pooled[row, ..., column],
            f"{group}_map": expected[row, ..., column],
            f"{group}_hetero": np.median(hetero[..., column, :], -1),
            f"{group}_balanced_map": balanced[..., column],
        }
    return {"errors": points({"margin": MARGINS[:, None], "z": RATE * _frames(data)}, numbers)}


def figure(data: Mapping[str, xr.Dataset]) -> Figure:
    """Errors of both groups over time at a share of 0.1 by all data (circles), and that of the
    minority by HeteroSGD at a learning rate of 1 (squares: medians, with 10 % and 90 % quantiles of
    the seeds), for alpha = 1/2 (left) and 3/2 (middle), with the map of three numbers (lines) and
    leading terms (dotted); the minority's error at z = 20,000 times share and z (right).
    """
    from matplotlib import pyplot as plt

    fig, axes = plt.subplots(1, 3, figsize=(9.6, 3.3), layout="constrained")
    for ax, index in ((axes[0], 0), (axes[1], 2)):
        _draw_errors(ax, data, index)
    _draw_shares(axes[2], data)
    return fig


def _pooled(key: Key, *, share: float | Array, margin: float | Array) -> Trace:
    return _trained(key, "pooled", share, margin)


def _hetero(key: Key, *, rate: float | Array, margin: float | Array) -> Trace:
    return _trained(key, "hetero", 0.5, margin, rate)


def _trained(
    key: Key, method: str, share: float | Array, margin: float | Array, rate: float | Array = RATE
) -> Trace:
    import jax.numpy as jnp
    import optax

    from causal_sgd import training
    from causal_sgd.supervised import losses, measurements, models, worlds

    margins = jnp.stack([jnp.ones(()), jnp.asarray(margin, float)])
    sampler = training.samplers.hetero(batch_size=1) if method == "hetero" else whole()
    algorithm = training.sgd(
        world=worlds.minority_groups(minority_share=share, margins=margins, largest=LARGEST),
        sampler=sampler,
        measurement=measurements.counts(losses.logistic),
        model=models.linear(dim=3),
        optimizer=optax.sgd(rate),
    )
    return training.run(
        key, algorithm=algorithm, metrics=_watched(), num_steps=STEPS, record_every=EVERY
    )


def _watched() -> dict[str, Metric]:
    return {
        name: lambda snapshot, index=index: _error(snapshot, index)
        for index, name in enumerate(GROUPS)
    }


def _error(snapshot: Snapshot, group: int) -> Array:
    """E sigma(-margin) of a group, over its examples."""
    import jax
    import jax.numpy as jnp

    world = snapshot.world
    margins = world.labels * jnp.sum(world.inputs * snapshot.estimate[None], 1)
    return jnp.sum(world.mass[group] * jax.nn.sigmoid(-margins))


def _frames(data: Mapping[str, xr.Dataset]) -> np.ndarray:
    """The recorded steps without the first, [frames]."""
    return data["pooled"].step.values[1:]


def _pooled_errors(data: Mapping[str, xr.Dataset]) -> tuple[np.ndarray, np.ndarray]:
    """Errors by all data and by the map of three numbers, [shares, margins, frames, 2]."""
    runs = data["pooled"].isel(seed=0, step=slice(1, None))[list(GROUPS)].to_array("group")
    measured = runs.transpose("share", "margin", "step", "group").values
    return measured, _maps(RATE, len(_frames(data)))


def _hetero_errors(data: Mapping[str, xr.Dataset], rate: float) -> tuple[np.ndarray, np.ndarray]:
    """Errors of HeteroSGD [margins, frames, 2, seeds] and of balanced groups by the map."""
    runs = data["hetero"].sel(rate=rate).isel(step=slice(1, None))[list(GROUPS)].to_array("group")
    measured = runs.transpose("margin", "step", "group", "seed").values
    return measured, _maps(rate, len(_frames(data)))[list(SHARES).index(0.5)]


@functools.cache
def _maps(rate: float, frames: int) -> np.ndarray:
    """Errors by the map of three numbers, [shares, margins, frames, 2]."""
    import jax
    import jax.numpy as jnp

    from causal_sgd.theory.invariance import minority_groups

    margins = jnp.stack([jnp.ones(len(MARGINS)), jnp.asarray(MARGINS, float)], 1)[None]
    shares = jnp.asarray(SHARES, float)[:, None]

    @jax.jit
    def advance(weights: Array) -> Array:
        def step(_: int, weights: Array) -> Array:
            return minority_groups.step(
                weights, rate, minority_share=shares, margins=margins, largest=LARGEST
            )

        return jax.lax.fori_loop(0, EVERY, step, weights)

    weights, errors = jnp.zeros((len(SHARES), len(MARGINS), 3)), []
    for _ in range(frames):
        weights = advance(weights)
        errors.append(minority_groups.errors(weights, margins=margins, largest=LARGEST))
    return np.stack(errors, 2)


def _leading(share: float, margin: float) -> np.ndarray:
    """The leading terms of both errors at the end, [2]."""
    from causal_sgd.theory.invariance import minority_groups

    margins = np.array([1.0, margin])
    return np.asarray(
        minority_groups.asymptotic_errors(RATE * STEPS, minority_share=share, margins=margins)
    )


def _draw_errors(ax: Axes, data: Mapping[str, xr.Dataset], index: int) -> None:
    from causal_sgd.theory.invariance import minority_groups

    pooled, expected = _pooled_errors(data)
    hetero, balanced = _hetero_errors(data, RATE)
    row, z = list(SHARES).index(SHARE), RATE * _frames(data)
    margins = np.array([1.0, MARGINS[index]])
    leading = np.asarray(
        minority_groups.asymptotic_errors(z, minority_share=SHARE, margins=margins)
    )
    for column, (group, color) in enumerate(zip(GROUPS, ("C0", "C1"), strict=True)):
        ax.plot(z[::3], pooled[row, index, ::3, column], color=color, ls="", marker="o", ms=3)
        ax.plot(z, expected[row, index, :, column], color=color, lw=1, label=group)
        if leading[0, column] > 0:
            ax.plot(z, leading[:, column], color=color, lw=1, ls=":")
    low, middle, high = np.quantile(hetero[index, :, 1], (0.1, 0.5, 0.9), axis=-1)
    ax.fill_between(z, low, high, color="C2", alpha=0.2, lw=0)
    ax.plot(z[::3], middle[::3], color="C2", ls="", marker="s", ms=3)
    ax.plot(z, balanced[index, :, 1], color="C2", lw=1, label="minority, HeteroSGD")
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.set_xlabel("learning rate x steps $z$")
    ax.set_title(rf"errors, $\alpha = {MARGINS[index] / 2:g}$")
    ax.legend(frameon=False, fontsize=8)


def _draw_shares(ax: Axes, data: Mapping[str, xr.Dataset]) -> None:
    pooled, expected = _pooled_errors(data)
    scaled = SHARES * STEPS * RATE
    for index, margin in enumerate(MARGINS[:2]):
        color, label = f"C{index + 3}", rf"$\alpha = {margin / 2:g}$"
        ax.plot(SHARES, scaled * expected[:, index, -1, 1], color=color, lw=1)
        values = scaled * pooled[:, index, -1, 1]
        ax.plot(SHARES, values, color=color, ls="", marker="o", ms=4, label=label)
        leading = [STEPS * share * _leading(share, margin)[1] for share in SHARES]
        ax.plot(SHARES, leading, color=color, lw=1, ls=":")
    ax.set_xlabel("minority's share")
    ax.set_ylim(0, None)
    ax.set_title("share x $z$ x minority's error")
    ax.legend(frameon=False, fontsize=8)
