"""Where no environment contradicts, no heterogeneity helps: positive spurious spectra are learned at every spread.

Environments whose spurious eigenvalues are log-normal, or zero and rarely large ("rare"), never change sign. log(1 + eta s) is
then positive on average whatever their spread, and at least mu log(1 + eta s_max)/s_max, which is 0.63 eta mu up to the largest
s_max at which no run can diverge. The simulated growth rates agree with the exponents, and the spurious part is learned at every
spread, more slowly and to a lower level on average, while it dies for the sign-changing eigenvalues mu +- M beyond M_c. What a
large spread brings is divergence: of the rare spectrum beyond that s_max, and of the log-normal one, whose eigenvalues have no
bound, as soon as its tail is met. Such runs are left out of the levels.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from causal_sgd.studies import Claim

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from causal_sgd.sensing.worlds import WorldFactory
    from causal_sgd.types import Evolution, Key

RATE, MEAN = 0.05, 1.0
SPREADS = np.array([0.0, 1.0, 2.0, 3.5, 5.0, 6.5, 8.0])
FAMILIES = {"log_normal": "log-normal", "rare": "rare (0 or large)", "two_point": "sign-changing"}
BOUND = 5.0  # up to here no run of the rare spectrum can diverge
CLAIMS = {
    f"growth_{name}": Claim(
        f"{text}: largest deviation of the growth rate from the exponent over the spread, in standard errors", 0, 4,
        "Lyapunov exponent",
    )
    for name, text in FAMILIES.items()
} | {
    "slowest": Claim("rare, M = 5: growth rate over eta mu (at least 0.628 where none can diverge)", 0.55, 0.73, "concavity"),
    "learned": Claim(
        "both positive spectra: least mean |V'U|^2 over mu up to M = 5", 0.2, 1.1, "this study: learned at every spread"
    ),
    "rejected": Claim("sign-changing, M = 8: mean |V'U|^2 over mu", 0, 0.02, "Lyapunov exponent"),
}  # fmt: skip


def run(
    *, quick: bool = False, key: int = 0, progress: bool | None = None
) -> dict[str, xr.Dataset]:
    """All three families over the spread, with 512 seeds (128 when quick)."""
    from causal_sgd.sweeps import sweep

    return {
        name: sweep(
            _cell(name),
            axes={"spread": SPREADS},
            seeds=128 if quick else 512,
            key=key,
            progress=progress,
            label=text,
        )
        for name, text in FAMILIES.items()
    }


def measure(data: Mapping[str, xr.Dataset]) -> dict[str, float]:
    """Growth rates against the exponents, and what is learned."""
    found, levels = {}, {}
    for name in FAMILIES:
        rates, errors = _growth(data[name])
        noisy = (
            errors > 1e-6
        )  # without heterogeneity there is no noise, and rounding is all that is left
        found[f"growth_{name}"] = float(
            np.abs((rates - _exponents(name, SPREADS))[noisy] / errors[noisy]).max()
        )
        levels[name] = _level(data[name])
    slowest = _growth(data["rare"])[0][list(SPREADS).index(BOUND)] / (RATE * MEAN)
    return found | {
        "slowest": float(slowest),
        "learned": min(
            float(levels[name].sel(spread=slice(0, BOUND)).min()) for name in ("log_normal", "rare")
        ),
        "rejected": float(levels["two_point"].sel(spread=8.0)),
    }


def figure(data: Mapping[str, xr.Dataset]) -> Figure:
    """Growth rates and exponents against the spread, what is learned, and what diverged."""
    from matplotlib import pyplot as plt

    from causal_sgd import theory

    drawing, axes = plt.subplots(1, 3, figsize=(11.5, 3.5))
    dense = np.linspace(0, SPREADS[-1], 200)
    for index, (name, text) in enumerate(FAMILIES.items()):
        rates, errors = _growth(data[name])
        look = {"color": f"C{index}", "fmt": "osD"[index], "ms": 4}
        axes[0].plot(dense, _exponents(name, dense) / (RATE * MEAN), color=f"C{index}", lw=1)
        axes[0].errorbar(
            SPREADS, rates / (RATE * MEAN), 2 * errors / (RATE * MEAN), label=text, **look
        )
        level = _level(data[name])
        axes[1].plot(SPREADS, level, marker="osD"[index], ms=4, color=f"C{index}", label=text)
        lost = (data[name].diverged_at >= 0).mean("seed")
        axes[2].plot(SPREADS, lost, marker="osD"[index], ms=4, color=f"C{index}")
    critical = float(theory.critical_spread(RATE, MEAN))
    for ax in axes:
        ax.axvline(critical, color="0.6", ls=":", lw=1)
        ax.axhline(0, color="0.7", lw=0.6, zorder=0)
        ax.set_xlabel("standard deviation of the eigenvalues, $M$")
    axes[0].set(ylabel="growth rate / $\\eta\\mu$", title="growth: simulated and exponent")
    axes[1].set(ylabel="mean $|V^\\top U|^2 / \\mu$", title="what is learned")
    axes[2].set(ylabel="share of the runs", ylim=(-0.02, 1), title="diverged within 2000 steps")
    axes[2].annotate("$M_c$ (sign-changing)", (critical, 0.93), xytext=(-4, 0), xycoords=("data", "axes fraction"),
                     textcoords="offset points", ha="right", color="0.3")  # fmt: skip
    axes[0].legend(frameon=False)
    return drawing


def _cell(name: str) -> Any:
    """One spurious direction by population gradients, from a minute start through growth to the stationary state."""
    import jax.numpy as jnp
    import optax

    from causal_sgd.sensing import measurements, metrics, models, nonstationary, worlds
    from causal_sgd.training import run, samplers, sgd

    ranks: dict[str, Any] = {
        "dim": 2,
        "invariant_rank": 1,
        "spurious_rank": 1,
        "basis": "canonical",
    }

    def cell(key: Key, *, spread: Any) -> Any:
        evolve: Evolution | None = None
        world: WorldFactory
        if name == "log_normal":
            world = worlds.log_normal(num_environments=1, mean=MEAN, spread=spread, **ranks)
            evolve = nonstationary.redraw(world)  # no environment is met twice
        elif name == "rare":
            largest = _largest(spread)
            weights = jnp.stack([1 - MEAN / largest, MEAN / largest])
            world = worlds.discrete(
                eigenvalues=jnp.stack([0 * largest, largest]), probabilities=weights, **ranks
            )
        else:
            world = worlds.two_point(mean=MEAN, spread=spread, **ranks)
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


def _largest(spread: Any) -> Any:
    """The eigenvalue that is met rarely: 0 or this one, with the mean and this standard deviation."""
    return MEAN + spread**2 / MEAN


def _exponents(name: str, spreads: np.ndarray) -> np.ndarray:
    from causal_sgd import theory

    if name == "log_normal":
        return np.asarray(theory.lyapunov_log_normal(RATE, MEAN, spreads))
    if name == "rare":
        return np.asarray(theory.least_positive_exponent(RATE, MEAN, _largest(spreads)))
    return np.asarray(theory.lyapunov_two_point(RATE, MEAN, spreads))


def _growth(dataset: xr.Dataset) -> tuple[np.ndarray, np.ndarray]:
    """Mean growth rates [spread] of log|V'U| in the first leg, while it is minute, and their standard errors."""
    signal = dataset["spurious_signal"]
    factors = signal.isel(step=1) / signal.isel(step=0)
    rates: xr.DataArray = xr.apply_ufunc(np.log, factors) / int(dataset["step"][1])
    return rates.mean("seed").values, rates.std("seed", ddof=1).values / np.sqrt(
        rates.sizes["seed"]
    )


def _level(dataset: xr.Dataset) -> xr.DataArray:
    """The mean |V'U|^2 over mu in the last half of the runs that did not diverge."""
    late = dataset["spurious_power"].where(dataset["diverged_at"] < 0).isel(step=slice(11, None))
    return late.mean(("step", "seed")) / MEAN
