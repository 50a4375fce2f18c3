"""IRM needs more environments than spurious inputs; below that an illicit predictor passes.

A label and inputs that are Gaussian given the label (Rosenfeld et al. 2021): d_e spurious inputs
have means mu_e that environments draw. With p'mu_e = 1 in all E environments, the best prediction
from the invariant inputs and p'z_e is calibrated everywhere, so that no penalty of invariance sees
it, and its risk is smaller than that of the invariant prediction. There is such a p iff E <= d_e,
however many invariant inputs there are, and its gain 1/|p|^2 in the signal-to-noise ratio is
distributed like chi^2_{d_e - E + 1}/E. (With more environments the solution of the first d_e
equations still has a penalty below 1e-10 in one draw of two thousand, where 1/|p|^2 and with it the
spurious weights nearly vanish.)

IRMv1 with a large weight, trained from near the invariant predictor, finds this illicit one for
E <= d_e and the invariant one for E > d_e: the certificate is not only feasible but what training
ends at, in nine of ten runs. Others end at points where the penalty has a local minimum above zero.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from causal_sgd.studies import Claim
from causal_sgd.studies._cells import Options
from causal_sgd.studies._tables import points

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from causal_sgd.supervised.models import VectorModel
    from causal_sgd.types import Array, Key, Measured, Objective, Params, Snapshot, State, Trace

SIZES = np.arange(2, 11)  # of environments and of spurious inputs
MOST = 10
DIM_CAUSAL, SIGNAL = 3, 1.0  # |mu_c|^2 with unit noise
DIM, TRAINED = 4, np.arange(2, 9)  # spurious inputs and environments in training
STEPS, RATE = 16_000, 0.02
FIRST_WEIGHT, LAST_WEIGHT = 1.0, 1e6
SPREAD = 0.5  # of the initial weights around the invariant ones
FEASIBLE = 1e-10
CERTIFICATE = "equations p'mu_e = 1, solvable iff E <= d_e"
CLAIMS = {
    "feasible": Claim(
        "E <= d_e: share of all draws in which the penalty of the certificate is below 1e-10",
        1,
        1,
        CERTIFICATE,
    ),
    "none": Claim(
        "E > d_e: share of all draws in which p'mu_e = 1 has no solution to rounding",
        1,
        1,
        CERTIFICATE,
    ),
    # One cell of a hundred exceeds it by chance; of 45 cells four or more with probability 0.001.
    "law": Claim(
        "share of the cells with E <= d_e in which the Kolmogorov distance of 1/|p|^2 from its law "
        "is below 1.63 over the root of the draws",
        0.92,
        1,
        "chi^2 of d_e - E + 1 degrees of freedom, over E",
    ),
    "mean": Claim(
        "mean of 1/|p|^2 over (d_e - E + 1)/E, all cells with E <= d_e together",
        0.98,
        1.02,
        "the same law",
    ),
    "trained": Claim(
        "share of the runs of IRMv1 whose risk is within 2 % of the smallest feasible one",
        0.8,
        1,
        "certificate for E <= d_e, invariant predictor for E > d_e",
    ),
    "illicit": Claim(
        "E <= d_e: median risk of IRMv1 over that of the certificate", 0.98, 1.02, CERTIFICATE
    ),
    "invariant": Claim(
        "E > d_e: median risk of IRMv1 over that of the invariant predictor",
        0.98,
        1.02,
        CERTIFICATE,
    ),
    "flipped": Claim(
        "two environments: median over seeds of the error at -mu_e over that of the certificate",
        0.95,
        1.05,
        "normal law of the prediction",
    ),
    "error_few": Claim.finding("two environments: median error of IRMv1 at -mu_e"),
    "error_many": Claim.finding("eight environments: median error of IRMv1 at -mu_e"),
    "negligible": Claim.finding(
        "E > d_e: share of the draws in which the solution of the first d_e equations has a "
        "penalty below 1e-10"
    ),
    "stuck": Claim.finding("share of the runs of IRMv1 with a penalty above 1e-6 at the end"),
}


def run(
    *, quick: bool = False, key: int = 0, progress: bool | None = None
) -> dict[str, xr.Dataset]:
    """Certificates of 1000 drawn sets of means for each of 81 pairs (E, d_e), and 16,000 steps of
    IRMv1 on the population with d_e = 4 for two to eight environments and 64 seeds (16 when quick),
    while the weight of the penalty rises to 10^6.
    """
    from causal_sgd.sweeps import sweep

    options: Options = {"key": key, "progress": progress}
    return {
        "certificates": sweep(
            _certificate, axes={"environments": SIZES, "dim": SIZES}, seeds=1000, **options
        ),
        "trained": sweep(
            _trained, axes={"environments": TRAINED}, seeds=16 if quick else 64, **options
        ),
    }


def measure(data: Mapping[str, xr.Dataset]) -> dict[str, float]:
    """Where certificates exist, the law of their gain, and what training finds."""
    from causal_sgd.theory.invariance import environments_needed

    drawn = data["certificates"].isel(step=0)
    penalty = drawn.penalty.transpose("environments", "dim", "seed").values
    exists = SIZES[:, None] <= SIZES[None, :]
    gains, expected = _gains(data), (SIZES[None, :] - SIZES[:, None] + 1) / SIZES[:, None]
    bound = 1.63 / drawn.sizes["seed"] ** 0.5
    ratio, runs = _risk_ratio(data), data["trained"].isel(step=-1)
    few = TRAINED <= DIM
    gain = runs.gain.transpose("environments", "seed").values
    flipped = np.asarray(environments_needed.flipped_error(SIGNAL, gain[0]))
    error = runs.flipped.transpose("environments", "seed").values
    return {
        "feasible": float((penalty[exists] < FEASIBLE).mean()),
        "none": float((gains[~exists] == 0).mean()),
        "law": float((_distances(data)[exists] < bound).mean()),
        "mean": float(gains.mean(-1)[exists].sum() / expected[exists].sum()),
        "trained": float((np.abs(ratio - 1) < 0.02).mean()),
        "illicit": float(np.median(ratio[few])),
        "invariant": float(np.median(ratio[~few])),
        "flipped": float(np.median(error[0] / flipped)),
        "error_few": float(np.median(error[0])),
        "error_many": float(np.median(error[-1])),
        "negligible": float((penalty[~exists] < FEASIBLE).mean()),
        "stuck": float((runs.penalty.values > 1e-6).mean()),
    }


def table(data: Mapping[str, xr.Dataset]) -> dict[str, xr.Dataset]:
    """The mean gain of the certificates and its distance from the law, and the trained risks."""
    pair = {"environments": SIZES[:, None], "dim": SIZES[None, :]}
    runs = data["trained"].isel(step=-1)
    quantiles = np.quantile(
        runs.risk.transpose("environments", "seed").values, (0.25, 0.5, 0.75), axis=1
    )
    names = ("lower_quartile", "median", "upper_quartile")
    risks = dict(zip(names, quantiles, strict=True)) | {
        "certificate": np.median(_feasible_risk(data), 1),
        "invariant": float(_bayes(np.array(SIGNAL))),
    }
    return {
        "gains": points(pair, {"mean_gain": _gains(data).mean(-1), "distance": _distances(data)}),
        "risks": points({"environments": TRAINED}, risks),
    }


def figure(data: Mapping[str, xr.Dataset]) -> Figure:
    """The mean gain of the certificate on the plane of spurious inputs and environments (left;
    blank where there is none); its distribution with the law for d_e = 4 (middle); and the risk of
    IRMv1 with d_e = 4 by the number of environments (points, medians with quartiles) with those of
    the certificate (line, medians) and of the invariant predictor (dashed, right).
    """
    from matplotlib import pyplot as plt

    fig, axes = plt.subplots(1, 3, figsize=(9.6, 3.3), layout="constrained")
    _draw_plane(fig, axes[0], data)
    _draw_law(axes[1], data)
    _draw_risks(axes[2], data)
    return fig


def _certificate(key: Key, *, environments: int | Array, dim: int | Array) -> Trace:
    """The gain of the certificate and its penalty, for means of a standard normal law.

    Unused environments repeat the first one, and unused inputs have the mean zero.
    """
    import jax.numpy as jnp

    from causal_sgd import random
    from causal_sgd.theory.invariance import environments_needed
    from causal_sgd.types import Trace

    key = random.fold_in(key, environments * MOST + dim)  # pairs are independent
    drawn = random.normals(key, (MOST, MOST), float)
    means = _repeated(drawn, environments) * (jnp.arange(MOST) < dim)[None]
    found = environments_needed.certificate(means)
    square = jnp.sum(found.direction**2)
    along = jnp.sum(means * found.direction[None], 1) / square
    deviation = jnp.broadcast_to(2 * jnp.sqrt(SIGNAL + 1 / square), along.shape)
    slopes = environments_needed.scale_slope(2 * (SIGNAL + along), deviation)
    used = jnp.arange(MOST) < environments
    penalty = jnp.sum(jnp.where(used, slopes**2, 0)) / environments
    metrics = {"gain": found.gain[None], "penalty": penalty[None]}
    return Trace(jnp.zeros(1, jnp.int32), metrics, jnp.array(-1, jnp.int32))


def _trained(key: Key, *, environments: int | Array) -> Trace:
    import jax.numpy as jnp
    import optax

    from causal_sgd import random, training
    from causal_sgd.supervised import losses, measurements, metrics, worlds
    from causal_sgd.theory.invariance import environments_needed

    most = int(TRAINED[-1])
    drawn = random.normals(random.fold_in(key, 0), (most, DIM), float)
    means = _repeated(drawn, environments)
    used = jnp.arange(most) < environments
    algorithm = training.algorithms.penalised(
        world=worlds.gaussian_environments(
            dim_causal=DIM_CAUSAL,
            dim_spurious=DIM,
            signal=(SIGNAL / DIM_CAUSAL) ** 0.5,
            spurious_means=means,
            probabilities=used / environments,
        ),
        sampler=training.samplers.stratified(batch_size=840),  # a multiple of all numbers to 8
        measurement=measurements.quadrature(losses.logistic),
        model=_near_invariant(),
        objective=_rising(),
        optimizer=optax.adam(optax.cosine_decay_schedule(RATE, STEPS, 1e-3)),
    )
    watched = {
        "risk": lambda snapshot: _pooled(snapshot, snapshot.risks(snapshot.params)),
        "penalty": _penalty,
        "flipped": metrics.worst_test_error,
        "gain": lambda snapshot: environments_needed.certificate(means).gain,
    }
    return training.run(
        key, algorithm=algorithm, metrics=watched, num_steps=STEPS, record_every=STEPS
    )


def _repeated(means: Array, environments: int | Array) -> Array:
    """The means with the first one in place of those of environments that are not used."""
    import jax.numpy as jnp

    used = jnp.arange(len(means)) < environments
    return jnp.where(used[:, None], means, means[:1])


def _near_invariant() -> VectorModel:
    """Linear weights that start around the invariant ones, 2 mu_c."""
    import jax.numpy as jnp

    from causal_sgd import random
    from causal_sgd.supervised import models

    dim = DIM_CAUSAL + DIM

    def init(key: Key) -> Params:
        invariant = jnp.where(jnp.arange(dim) < DIM_CAUSAL, 2 * (SIGNAL / DIM_CAUSAL) ** 0.5, 0.0)
        return {"weights": invariant + SPREAD * random.normals(key, dim, float)}

    return dataclasses.replace(models.linear(dim=dim), init=init)


def _rising() -> Objective:
    """IRMv1 whose weight rises in the first 7 tenths of a run, divided by the sum of weights."""
    from causal_sgd.training import objectives

    def gradient(
        step: Array, state: State, examples: Measured, params: Params
    ) -> tuple[Params, Array, State]:
        weight = FIRST_WEIGHT * (LAST_WEIGHT / FIRST_WEIGHT) ** (step / (0.7 * STEPS)).clip(0, 1)
        objective = objectives.irmv1(weight=weight / (1 + weight), risk_weight=1 / (1 + weight))
        return objective.gradient(step, state, examples, params)

    return objectives.irmv1(weight=1.0)._replace(gradient=gradient)


def _pooled(snapshot: Snapshot, values: Array) -> Array:
    import jax.numpy as jnp

    return jnp.sum(snapshot.world.probabilities * values)


def _penalty(snapshot: Snapshot) -> Array:
    """The mean square of D_e."""
    import jax
    import jax.numpy as jnp

    one = jnp.ones(())
    slopes = jax.jvp(lambda scale: snapshot.risks(snapshot.params, scale), (one,), (one,))[1]
    return _pooled(snapshot, slopes**2)


def _gains(data: Mapping[str, xr.Dataset]) -> np.ndarray:
    """1/|p|^2 of the certificates, [E, d_e, seeds]; 0 where there is none."""
    gain = data["certificates"].gain.isel(step=0)
    return gain.transpose("environments", "dim", "seed").values


def _distances(data: Mapping[str, xr.Dataset]) -> np.ndarray:
    """Kolmogorov distances of the gains from their law, [E, d_e]; NaN where E > d_e."""
    from causal_sgd.theory.invariance import environments_needed

    gains = np.sort(_gains(data), -1)
    law = np.asarray(
        environments_needed.gain_distribution(gains, SIZES[:, None, None], SIZES[None, :, None])
    )
    number = gains.shape[-1]
    above = (np.arange(1, number + 1) / number - law).max(-1)
    below = (law - np.arange(number) / number).max(-1)
    return np.where(SIZES[:, None] <= SIZES[None, :], np.maximum(above, below), np.nan)


def _bayes(signal: np.ndarray) -> np.ndarray:
    from causal_sgd.theory.invariance import environments_needed

    return np.asarray(environments_needed.bayes_risk(signal))


def _feasible_risk(data: Mapping[str, xr.Dataset]) -> np.ndarray:
    """The smallest risk without a penalty, of the certificate where there is one, [E, seeds]."""
    gain = data["trained"].gain.isel(step=-1).transpose("environments", "seed").values
    return _bayes(SIGNAL + gain)


def _risk_ratio(data: Mapping[str, xr.Dataset]) -> np.ndarray:
    """The risk of IRMv1 over the smallest feasible one, [E, seeds]."""
    risk = data["trained"].risk.isel(step=-1).transpose("environments", "seed").values
    return risk / _feasible_risk(data)


def _draw_plane(fig: Figure, ax: Axes, data: Mapping[str, xr.Dataset]) -> None:
    exists = SIZES[:, None] <= SIZES[None, :]
    mean = np.where(exists, _gains(data).mean(-1), np.nan)
    mesh = ax.pcolormesh(SIZES, SIZES, np.log10(mean), shading="nearest")
    fig.colorbar(mesh, ax=ax, shrink=0.9)
    edge = np.arange(SIZES[0], SIZES[-1] + 1)
    ax.step(
        [*(edge - 0.5), edge[-1] + 0.5], [*(edge + 0.5), edge[-1] + 0.5], color="0.2", where="post"
    )
    ax.set_xlabel("spurious inputs $d_e$")
    ax.set_ylabel("environments $E$")
    ax.set_title(r"$\log_{10}$ of the mean gain $1/|p|^2$")


def _draw_law(ax: Axes, data: Mapping[str, xr.Dataset]) -> None:
    from causal_sgd.theory.invariance import environments_needed

    gains, column = _gains(data), int(np.flatnonzero(SIZES == DIM)[0])
    grid = np.geomspace(1e-4, 10, 200)
    for row, size in enumerate(SIZES[SIZES <= DIM]):
        drawn = np.sort(gains[row, column])
        levels = (np.arange(len(drawn)) + 0.5) / len(drawn)
        ax.plot(drawn, levels, color=f"C{row}", lw=3, alpha=0.4, label=f"$E = {size}$")
        law = environments_needed.gain_distribution(grid, int(size), DIM)
        ax.plot(grid, np.asarray(law), color=f"C{row}", lw=1)
    ax.set_xscale("log")
    ax.set_xlim(1e-3, 10)
    ax.set_xlabel("gain $1/|p|^2$")
    ax.set_title(f"distribution for $d_e = {DIM}$")
    ax.legend(frameon=False, fontsize=8)


def _draw_risks(ax: Axes, data: Mapping[str, xr.Dataset]) -> None:
    risk = data["trained"].risk.isel(step=-1).transpose("environments", "seed").values
    low, middle, high = np.quantile(risk, (0.25, 0.5, 0.75), axis=1)
    ax.errorbar(
        TRAINED, middle, [middle - low, high - middle], ls="", marker="o", ms=4, label="IRMv1"
    )
    ax.plot(TRAINED, np.median(_feasible_risk(data), 1), color="C1", lw=1, label="certificate")
    ax.axhline(float(_bayes(np.array(SIGNAL))), color="0.3", ls="--", lw=1)
    ax.axvline(DIM + 0.5, color="0.3", ls=":", lw=1)
    ax.set_ylim(0, None)
    ax.set_xlabel("environments $E$")
    ax.set_title(f"logistic risk for $d_e = {DIM}$")
    ax.legend(frameon=False, fontsize=8, loc="lower right")
