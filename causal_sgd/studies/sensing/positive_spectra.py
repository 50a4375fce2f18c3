"""Heterogeneity needs contradiction: positive spurious spectra are learned at every spread.

Log-normal spurious eigenvalues, and eigenvalues that are zero and rarely large ("rare"), never
change sign. The mean of log(1 + eta s) is then positive at every spread. It is at least mu log(1 +
eta s_max) / s_max, which is 0.63 eta mu at the largest s_max at which no run can diverge. The
simulated growth rates agree with the exponents. The spurious part is learned at every spread, more
slowly and to a lower level on average, while it dies for the sign-changing eigenvalues mu +- M
beyond M_c. A large spread brings divergence instead: of the rare spectrum beyond that s_max, and of
the log-normal one, which is unbounded, as soon as its tail is sampled. Diverged runs do not count
in the levels.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import xarray as xr

from causal_sgd.studies import Claim
from causal_sgd.studies._drawing import Symbols, mark
from causal_sgd.studies._frames import diverged_share, late, mean_and_error, surviving
from causal_sgd.studies._tables import points

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from causal_sgd.sensing.worlds import WorldFactory
    from causal_sgd.studies._cells import Cell, Options
    from causal_sgd.types import Array, Evolution, Key, Trace

    Numbers = TypeVar("Numbers", Array, np.ndarray)

RATE, MEAN = 0.05, 1.0
SPREADS = np.array([0.0, 1.0, 2.0, 3.5, 5.0, 6.5, 8.0])
FAMILIES = {"log_normal": "log-normal", "rare": "rare (0 or large)", "two_point": "sign-changing"}
BOUND = 5.0  # up to this spread no run of the rare spectrum can diverge
CLAIMS = {
    f"growth_{name}": Claim(
        f"{text}: largest deviation of the growth rate from the exponent over the spread, "
        "in standard errors",
        0,
        4,
        "Lyapunov exponent",
    )
    for name, text in FAMILIES.items()
} | {
    "slowest": Claim(
        "rare, M = 5: growth rate over eta mu (at least 0.628 where no run can diverge)",
        0.55,
        0.73,
        "concavity",
    ),
    "learned": Claim.finding("both positive spectra: smallest mean |V'U|^2 over mu up to M = 5"),
    "rejected": Claim("sign-changing, M = 8: mean |V'U|^2 over mu", 0, 0.02, "Lyapunov exponent"),
}


def run(
    *, quick: bool = False, key: int = 0, progress: bool | None = None
) -> dict[str, xr.Dataset]:
    """All three families over the spread, with 512 seeds (128 when quick)."""
    from causal_sgd.sweeps import sweep

    options: Options = {"key": key, "progress": progress}
    seeds = 128 if quick else 512
    return {
        name: sweep(_cell(name), axes={"spread": SPREADS}, seeds=seeds, label=text, **options)
        for name, text in FAMILIES.items()
    }


def measure(data: Mapping[str, xr.Dataset]) -> dict[str, float]:
    """The growth rates against the exponents, and the learned levels."""
    values, levels = {}, {}
    for name in FAMILIES:
        rates, errors = _growth(data[name])
        noisy = errors > 1e-6  # without heterogeneity only rounding remains
        deviations = (rates - _exponents(name, SPREADS))[noisy] / errors[noisy]
        values[f"growth_{name}"] = float(np.abs(deviations).max())
        levels[name] = _level(data[name])
    slowest = _growth(data["rare"])[0][list(SPREADS).index(BOUND)] / (RATE * MEAN)
    return values | {
        "slowest": float(slowest),
        "learned": min(
            float(levels[name].sel(spread=slice(0, BOUND)).min()) for name in ("log_normal", "rare")
        ),
        "rejected": float(levels["two_point"].sel(spread=8.0)),
    }


def table(data: Mapping[str, xr.Dataset]) -> dict[str, xr.Dataset]:
    """Growth rates with their standard errors and exponents, learned levels, and M_c."""
    from causal_sgd import theory

    tables = {"theory": points({}, {"critical_spread": theory.critical_spread(RATE, MEAN)})}
    for name in FAMILIES:
        rates, errors = _growth(data[name])
        numbers = {
            "growth_rate": rates,
            "standard_error": errors,
            "exponent": _exponents(name, SPREADS),
            "level": _level(data[name]).values,
        }
        tables[f"{name}, growth"] = points({"spread": SPREADS}, numbers)
    return tables


def figure(data: Mapping[str, xr.Dataset]) -> Figure:
    """Growth rates (symbols) and exponents (lines), learned levels, and the share of diverged runs
    against the spread.
    """
    from matplotlib import pyplot as plt

    from causal_sgd import theory

    fig, axes = plt.subplots(1, 3, figsize=(11.5, 3.5))
    dense, scale = np.linspace(0, SPREADS[-1], 200), RATE * MEAN
    for index, (name, text) in enumerate(FAMILIES.items()):
        rates, errors = _growth(data[name])
        symbols: Symbols = {"color": f"C{index}", "marker": "osD"[index], "ms": 4}
        axes[0].plot(dense, _exponents(name, dense) / scale, color=f"C{index}", lw=1)
        axes[0].errorbar(SPREADS, rates / scale, 2 * errors / scale, label=text, ls="", **symbols)
        axes[1].plot(SPREADS, _level(data[name]), label=text, **symbols)
        axes[2].plot(SPREADS, diverged_share(data[name]), **symbols)
    critical = float(theory.critical_spread(RATE, MEAN))
    for ax in axes:
        mark(ax, critical, color="0.6")
        ax.axhline(0, color="0.7", lw=0.6, zorder=0)
        ax.set_xlabel("standard deviation of the eigenvalues, $M$")
    axes[0].set(ylabel="growth rate / $\\eta\\mu$", title="growth: simulated and exponent")
    axes[1].set(ylabel="mean $|V^\\top U|^2 / \\mu$", title="learned level")
    axes[2].set(ylabel="share of the runs", ylim=(-0.02, 1), title="diverged within 2000 steps")
    axes[2].annotate(
        "$M_c$ (sign-changing)",
        (critical, 0.93),
        xytext=(-4, 0),
        xycoords=("data", "axes fraction"),
        textcoords="offset points",
        ha="right",
        color="0.3",
    )
    axes[0].legend(frameon=False)
    return fig


def _cell(name: str) -> Cell:
    """One spurious direction by population gradients, from a minute start through growth to the
    stationary state.
    """
    import jax.numpy as jnp
    import optax

    from causal_sgd.sensing import measurements, metrics, models, nonstationary, worlds
    from causal_sgd.training import run, samplers, sgd

    shape = {"dim": 2, "invariant_rank": 1, "spurious_rank": 1, "basis": "canonical"}

    def cell(key: Key, *, spread: Array) -> Trace:
        evolve: Evolution | None = None
        world: WorldFactory
        if name == "log_normal":
            world = worlds.log_normal(num_environments=1, mean=MEAN, spread=spread, **shape)
            evolve = nonstationary.redraw(world)  # no environment occurs twice
        elif name == "rare":
            largest = _largest(spread)
            weights = jnp.stack([1 - MEAN / largest, MEAN / largest])
            world = worlds.discrete(
                eigenvalues=jnp.stack([0 * largest, largest]), probabilities=weights, **shape
            )
        else:
            world = worlds.two_point(mean=MEAN, spread=spread, **shape)
        algorithm = sgd(
            world=world,
            sampler=samplers.hetero(batch_size=1),
            measurement=measurements.population(),
            model=models.diagonal(dim=2, init_scale=1e-8),
            optimizer=optax.sgd(RATE),
            evolve=evolve,
        )
        watched = [metrics.spurious_signal, metrics.spurious_power]
        return run(key, algorithm=algorithm, metrics=watched, num_steps=2000, record_every=100)

    return cell


def _largest(spread: Numbers) -> Numbers:
    """The rare eigenvalue: with it and zero, the mean is MEAN and the deviation the spread."""
    return MEAN + spread**2 / MEAN


def _exponents(name: str, spreads: np.ndarray) -> np.ndarray:
    from causal_sgd import theory

    if name == "log_normal":
        return np.asarray(theory.lyapunov_log_normal(RATE, MEAN, spreads))
    if name == "rare":
        return np.asarray(theory.least_positive_exponent(RATE, MEAN, _largest(spreads)))
    return np.asarray(theory.lyapunov_two_point(RATE, MEAN, spreads))


def _growth(dataset: xr.Dataset) -> tuple[np.ndarray, np.ndarray]:
    """Mean growth rates [spread] of log|V'U| up to the first frame, while it is minute, and their
    standard errors.
    """
    signal = dataset["spurious_signal"]
    factors = signal.isel(step=1) / signal.isel(step=0)
    rates: xr.DataArray = xr.apply_ufunc(np.log, factors) / int(dataset["step"][1])
    return mean_and_error(rates)


def _level(dataset: xr.Dataset) -> xr.DataArray:
    """The mean |V'U|^2 over mu in the second half of the runs that did not diverge."""
    power = surviving(dataset)["spurious_power"].isel(step=slice(1, None))
    return late(power, 0.5).mean(("step", "seed")) / MEAN
