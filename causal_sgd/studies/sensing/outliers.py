"""Few steps in one contradicting environment make HeteroSGD reject what all others share.

Most steps are taken in environments whose spurious eigenvalues are positive (with unequal probabilities), and a share p in one
outlier that contradicts them. The spurious direction dies where p log|1 + eta s_out| outweighs the growth in the others, which
is the measured boundary to a few per cent. Pooled training needs the mean to vanish, a larger mass for outliers above about -1.3/eta:
between the two HeteroSGD rejects what PooledSGD learns. One would expect that the more an outlier contradicts, the less of it is
needed; this holds up to s_out = -1/eta, where one step wipes the direction out. Beyond, a step overshoots: HeteroSGD needs more
mass again, soon more than PooledSGD, and none will do from s_out = -2/eta.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from causal_sgd.analysis import final
from causal_sgd.studies import Claim

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure

    from causal_sgd.types import Array, Key

RATE = 0.1
OTHERS, SHARES = (
    np.array([0.5, 1.0, 3.0]),
    np.array([0.5, 0.3, 0.2]),
)  # eigenvalues, and how often each among themselves
MEAN = float(OTHERS @ SHARES)
OUTLIERS = np.array([-2.0, -5.0, -8.0, -12.0, -15.0])
BELOW = np.sqrt(
    [0.8, 0.85, 0.9, 0.95]
)  # roots of the mass over the critical one: the estimator fits lines in squares
BETWEEN = -5.0  # the outlier for which both methods are compared
THEORY = "Lyapunov exponent"
CLAIMS = {
    f"mass_{-outlier:g}": Claim(
        f"outlier {outlier:g}: measured critical mass over the closed form", 0.93, 1.07, THEORY,
    )
    for outlier in OUTLIERS
} | {
    "overshoot": Claim("measured critical mass of the outlier -15 over that of -8", 1.9, 2.6, THEORY),
    "hetero": Claim("mass halfway between both critical ones: share of the mean that HeteroSGD learns", 0, 0.02, THEORY),
    "pooled": Claim("mass halfway between both critical ones: share of the mean that PooledSGD learns", 0.9, 1.1, THEORY),
}  # fmt: skip


def run(
    *, quick: bool = False, key: int = 0, progress: bool | None = None
) -> dict[str, xr.Dataset]:
    """The order parameter below each critical mass with 64 seeds (24 when quick); both methods between them with 16."""
    from causal_sgd import theory
    from causal_sgd.sweeps import compare, sweep
    from causal_sgd.training import time_average

    steps = 10_000

    def near(key: Key, *, outlier: Any, root_share: Any) -> Any:
        mass = root_share**2 * theory.critical_mass(RATE, OTHERS, outlier, SHARES)
        return time_average(_run(key, outlier, mass, "hetero", steps), after=0.2)

    def method(sampler: str) -> Any:
        def cell(key: Key, *, mass: Any) -> Any:
            return time_average(_run(key, BETWEEN, mass, sampler, 4000), after=0.5)

        return cell

    options: dict[str, Any] = {"key": key, "progress": progress}
    return {
        "near": sweep(
            near, axes={"outlier": OUTLIERS, "root_share": BELOW}, seeds=24 if quick else 64, label="order parameter", **options
        ),
        "between": compare(
            {"HeteroSGD": method("hetero"), "PooledSGD": method("pooled")}, axes={"mass": [_halfway()]}, seeds=16, **options
        ),
    }  # fmt: skip


def measure(data: Mapping[str, xr.Dataset]) -> dict[str, float]:
    """The measured masses over the closed form, and what both methods learn between them."""
    masses = _measured(data["near"])
    predicted = _predicted(OUTLIERS)
    found = {
        f"mass_{-outlier:g}": masses[index, 0] / predicted[index]
        for index, outlier in enumerate(OUTLIERS)
    }
    mean = (1 - _halfway()) * MEAN + _halfway() * BETWEEN
    power = final(data["between"])["spurious_power"].squeeze("mass").mean("seed") / mean
    return found | {
        "overshoot": masses[list(OUTLIERS).index(-15), 0] / masses[list(OUTLIERS).index(-8), 0],
        "hetero": float(power.sel(variant="HeteroSGD")),
        "pooled": float(power.sel(variant="PooledSGD")),
    }


def figure(data: Mapping[str, xr.Dataset]) -> Figure:
    """The critical mass against the outlier's eigenvalue, and the order parameter that it was measured by."""
    from matplotlib import pyplot as plt

    drawing, axes = plt.subplots(1, 2, figsize=(8.6, 3.6))
    line = np.concatenate([np.linspace(-19, -10.01, 200), np.linspace(-9.99, -0.5, 200)])
    axes[0].plot(line, _predicted(line), color="C0", label="HeteroSGD, closed form")
    axes[0].plot(line, MEAN / (MEAN - line), color="C1", ls="--", label="PooledSGD: mean zero")
    masses = _measured(data["near"])
    errors = np.abs(masses[:, 1:] - masses[:, :1]).T
    axes[0].errorbar(
        OUTLIERS,
        masses[:, 0],
        errors,
        fmt="o",
        color="C0",
        mfc="white",
        label="HeteroSGD, measured",
    )
    axes[0].axvline(-1 / RATE, color="0.6", ls=":", lw=1)
    axes[0].annotate(
        "$-1/\\eta$", (-1 / RATE, 0.5), xytext=(4, 0), textcoords="offset points", color="0.3"
    )
    axes[0].set(
        xlabel="eigenvalue of the outlier", ylabel="critical mass", ylim=(0, 0.7), xlim=(-19, 0)
    )
    axes[0].set_title("how often the outlier must be met")
    axes[0].legend(frameon=False, loc="upper left")
    power = final(data["near"])["spurious_power"]
    for index, outlier in enumerate(OUTLIERS):
        part = power.sel(outlier=outlier)
        spread = 2 * part.std("seed") / part.sizes["seed"] ** 0.5
        share = BELOW**2
        axes[1].errorbar(
            share, part.mean("seed"), spread, fmt="o", ms=4, color=f"C{index}", label=f"{outlier:g}"
        )
        slope, start = np.polyfit(share, part.mean("seed"), 1)
        axes[1].plot(
            [share[0], -start / slope], [start + slope * share[0], 0], color=f"C{index}", lw=0.9
        )
    axes[1].axvline(1, color="0.3", ls=":", lw=1)
    axes[1].set(xlabel="mass over the closed form", ylabel="mean $|V^\\top U|^2$", ylim=(0, None))
    axes[1].set_title("order parameter")
    axes[1].legend(frameon=False, title="outlier")
    return drawing


def _run(key: Key, outlier: Any, mass: Any, sampler: str, steps: int) -> Any:
    """One spurious direction by population gradients; the outlier is met with the given probability."""
    import jax.numpy as jnp
    import optax

    from causal_sgd.sensing import measurements, metrics, models, worlds
    from causal_sgd.training import run, samplers, sgd

    values: Array = jnp.append(jnp.asarray(OTHERS), outlier)
    weights: Array = jnp.append((1 - mass) * jnp.asarray(SHARES), mass)
    algorithm = sgd(
        world=worlds.discrete(
            dim=2,
            invariant_rank=1,
            spurious_rank=1,
            eigenvalues=values,
            probabilities=weights,
            basis="canonical",
        ),
        sampler=getattr(samplers, sampler)(batch_size=10_000),
        measurement=measurements.population(),
        model=models.diagonal(dim=2, init_scale=0.1),
        optimizer=optax.sgd(RATE),
    )
    return run(
        key, algorithm=algorithm, metrics=[metrics.spurious_power], num_steps=steps, record_every=10
    )


def _predicted(outlier: Any) -> np.ndarray:
    from causal_sgd import theory

    return np.asarray(theory.critical_mass(RATE, OTHERS, outlier, SHARES))


def _halfway() -> float:
    """A mass between the critical ones of both methods."""
    return (float(_predicted(BETWEEN)) + MEAN / (MEAN - BETWEEN)) / 2


def _measured(dataset: xr.Dataset) -> np.ndarray:
    """Critical masses [outlier, 3]: value, and both ends of the bootstrap interval."""
    from causal_sgd.analysis import order_parameter_boundary

    bounds = [
        order_parameter_boundary(dataset.sel(outlier=outlier), along="root_share")
        for outlier in OUTLIERS
    ]
    return np.square(np.array(bounds, float)) * _predicted(OUTLIERS)[:, None]
