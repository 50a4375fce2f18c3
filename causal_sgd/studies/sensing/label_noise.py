"""Noise of the labels acts as a smaller batch: it lifts the floor and rounds the transition, but does not move it.

An entry of the batch gradient has the variance (|A_e|^2 + sigma_y^2) / (2m): whether the squared residual of a batch comes from
the other environments' signals or from its labels makes no difference to the invariant directions. The error floor therefore is
that of `theory.error_floor` with r2 (M^2 + mu^2) + sigma_y^2 in place of r2 M^2, and a batch of m with noise rejects the spurious
part like one of m |A_e|^2 / (|A_e|^2 + sigma_y^2) without. One would expect noise to drown the transition; even a label noise ten
times the signal does no more than the smaller batch, since lambda knows nothing of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from causal_sgd.experiment import Experiment
from causal_sgd.studies import Claim

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure

BASE = Experiment(
    dim=20, invariant_rank=2, spurious_rank=1, learning_rate=0.05, batch_size=4000, steps=500, record_every=20,
    spread=8.0, metrics=("invariant_error",),
)  # fmt: skip
NOISES = (0.0, 2.0, 4.0, 8.0, 16.0, 32.0)
CRITICAL = Experiment(
    dim=6, invariant_rank=1, spurious_rank=1, learning_rate=0.1, init_scale=0.1, steps=3000, record_every=10,
    metrics=("spurious_power",),
)  # fmt: skip
SHARES = (0.8, 0.9, 1.0, 1.1)  # of the critical spread
LARGE = 16_000
FACTORS = (1, 4, 16)  # by which the noise of the labels raises the mean squared residual
CLAIMS = {
    f"floor_{noise:g}": Claim(
        f"label noise {noise:g}: distance to A* over the predicted floor", 0.95, 1.15, "exact law of the gradient"
    )
    for noise in NOISES
} | {
    "linear": Claim(
        "rise of the squared error with the variance of the labels over its predicted slope", 0.95, 1.3,
        "exact law of the gradient",
    ),
    "batch": Claim(
        "mean |V'U|^2 with label noise over that of the smaller batch without: farthest from 1 for M <= M_c", 0.9, 1.1,
        "exact law of the gradient",
    ),
    "lambda": Claim(
        "0.8 M_c: mean |V'U|^2 with 16 times the squared residual over that without label noise", 0.9, 1.15,
        "Lyapunov exponent",
    ),
    "rounded": Claim(
        "M_c: mean |V'U|^2 with 16 times the squared residual over that without label noise", 1.05, 1.6, "rounded by noise"
    ),
}  # fmt: skip


def run(
    *, quick: bool = False, key: int = 0, progress: bool | None = None
) -> dict[str, xr.Dataset]:
    """HeteroSGD over the label noise, 64 seeds (16 when quick), and its order parameter near M_c, 96 seeds (32).

    With label noise at batch 16,000, and without at the batches that have the same noise of the gradient.
    """
    from causal_sgd import theory
    from causal_sgd.sweeps import sweep, zipped
    from causal_sgd.training import time_average

    options: dict[str, Any] = {"key": key, "progress": progress}
    base = CRITICAL.cell()

    def cell(key: Any, *, spread: Any, batch_size: Any, label_noise: Any) -> Any:
        return time_average(
            base(key, spread=spread, batch_size=batch_size, label_noise=label_noise), after=0.2
        )

    critical = float(theory.critical_spread(CRITICAL.learning_rate, CRITICAL.mean))
    share, factor = (grid.ravel() for grid in np.meshgrid(SHARES, FACTORS, indexing="ij"))
    spread = share * critical
    ones = np.ones_like(spread)
    noise = np.sqrt((factor - 1) * (spread**2 + CRITICAL.mean**2))
    seeds = 32 if quick else 96
    both = {}
    for name, size, labels in (
        ("noise", LARGE * ones, noise),
        ("batch", np.round(LARGE / factor), 0 * ones),
    ):
        points = zipped(spread=spread, batch_size=size, label_noise=labels)
        found = sweep(
            cell, axes={"point": points}, seeds=seeds, label=f"order parameter, {name}", **options
        )
        both[name] = found.assign_coords(share=("point", share), factor=("point", factor))
    return {
        "floor": sweep(
            BASE.cell(),
            axes={"label_noise": NOISES},
            seeds=16 if quick else 64,
            label="label noise",
            **options,
        ),
        **both,
    }


def measure(data: Mapping[str, xr.Dataset]) -> dict[str, float]:
    """The floor over the prediction, and the order parameters against each other."""
    errors = _errors(data["floor"])
    floors = errors.median("seed").values
    predicted = _floor(np.array(NOISES))
    found = {f"floor_{noise:g}": floors[i] / predicted[i] for i, noise in enumerate(NOISES)}
    noisy, small = (_powers(data[name]) for name in ("noise", "batch"))
    ratios = (noisy / small).sel(share=[share for share in SHARES if share <= 1]).values.ravel()
    rise = (noisy / noisy.sel(factor=1)).sel(factor=FACTORS[-1])
    return found | {
        "linear": np.polyfit(np.square(NOISES), floors**2, 1)[0]
        / np.polyfit(np.square(NOISES), predicted**2, 1)[0],
        "batch": float(ratios[np.argmax(np.abs(np.log(ratios)))]),
        "lambda": float(rise.sel(share=0.8)),
        "rounded": float(rise.sel(share=1.0)),
    }


def figure(data: Mapping[str, xr.Dataset]) -> Figure:
    """The floor against the label noise, and the order parameter near the transition."""
    from matplotlib import pyplot as plt

    from causal_sgd import figures

    drawing, axes = plt.subplots(1, 2, figsize=(8.0, 3.4))
    errors = _errors(data["floor"]).to_dataset(name="invariant_error")
    figures.final_value(
        axes[0], errors, "invariant_error", along="label_noise", theory={"predicted floor": _floor}
    )
    axes[0].set_ylim(bottom=0)
    axes[0].set_xlabel(r"label noise $\sigma_y$")
    for name, look in (("noise", {"marker": "o", "ls": ""}), ("batch", {"ls": "--"})):
        powers = _powers(data[name])
        for index, factor in enumerate(FACTORS):
            words = {
                "noise": f"$m$ = {LARGE}, residual$^2$ x {factor}",
                "batch": f"$m$ = {LARGE // factor}, no noise",
            }
            colour = figures.COLOURS[index]
            axes[1].plot(
                powers.share, powers.sel(factor=factor), color=colour, label=words[name], **look
            )
    axes[1].axvline(1, color="0.3", ls=":", lw=1)
    axes[1].set(xlabel="$M / M_c$", ylabel=r"mean $\|V^\top U\|_F^2$", ylim=(0, None))
    axes[1].legend(framealpha=1, edgecolor="none")
    return drawing


def _errors(dataset: xr.Dataset) -> xr.DataArray:
    """The median over the last half of every run: [label_noise, seed]."""
    kept = dataset.invariant_error.where(dataset.diverged_at < 0)
    return kept.isel(step=slice(dataset.sizes["step"] // 2, None)).median("step")


def _powers(dataset: xr.Dataset) -> xr.DataArray:
    """The order parameter, mean over the seeds that did not diverge: [share, factor]."""
    means = dataset.spurious_power.where(dataset.diverged_at < 0).isel(step=-1).mean("seed")
    return means.set_index(point=("share", "factor")).unstack("point")


def _floor(noise: Any) -> Any:
    from causal_sgd import theory

    return np.asarray(
        theory.error_floor(
            np.hypot(BASE.spread, BASE.mean), learning_rate=BASE.learning_rate, batch_size=BASE.batch_size, dim=BASE.dim,
            invariant_rank=BASE.invariant_rank, spurious_rank=BASE.spurious_rank, label_noise=noise,
        )
    )  # fmt: skip
