"""Finite data: memorised below a threshold, and as good as a stream only from n of order d^2 on.

Each environment has its own n examples. The other environments' signals meet the same measurements
again and again, so that the gradient has an error that does not average out. An over-parameterised
U learns its positive part: half of Wigner's semicircle, as far as k allows. One would expect d r
examples to suffice, as for the recovery of one low-rank matrix by a restricted isometry; with k = d
they do not. The error falls like sqrt((r1 d + (d - r1 - r2)^2 / 4) |A_e|^2 / (n E)), and equals
that of a stream in batches of m at n = (1 + (d - r1 - r2)^2 / (4 r1 d)) 2 m / (eta sigma* E). Up
to n E of about d (d + 1) / 4, the statistical dimension of their cone, positive matrices can fit
all examples of all environments at once: the loss vanishes, no environment contradicts any more,
and the solution is far from A* and from A* + mean A_e. Here, where the labels contradict each
other, half of the data sets are still fitted at about 0.8 of that number, and none above it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from causal_sgd.experiment import Experiment
from causal_sgd.studies import Claim
from causal_sgd.studies._cells import Cell, Options, compare_over
from causal_sgd.studies._frames import surviving
from causal_sgd.studies._tables import points

if TYPE_CHECKING:
    import xarray as xr
    from jax.typing import ArrayLike
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from causal_sgd.types import Key, Trace

BASE = Experiment(
    measurement="fixed-design",
    dim=12,
    invariant_rank=1,
    spurious_rank=1,
    mean=0.5,
    spread=4.0,
    learning_rate=0.1,
    batch_size=64,
    steps=800,
    record_every=20,
    metrics=("invariant_error", "pooled_error", "batch_loss"),
)
ENVIRONMENTS = 2  # one for each sign; the critical spread is 3.20
FULL = (8, 24, 96, 384, 1536)
SMALL = (384, 3072)
WIDE, WIDE_EXAMPLES = 24, 1536  # twice the dimension, four times as many examples as 384
SETTLED = 600
# The law itself: spurious directions without bursts, as their mean is negative, and errors so small
# that the positive part of A* and the data's error D is linear in D outside A*.
LAW = BASE.replace(
    dim=8, mean=-0.5, spread=2.0, num_examples=384, init_scale=0.1, steps=300, record_every=10
)
LAW_SETTLED, LAW_SEEDS = 200, 512
NEAR = (14, 18, 24)  # examples of each environment below and above the threshold
FITTED = 1e-3  # of the initial loss
CONE = "statistical dimension of the cone of positive matrices (Amelunxen et al. 2014)"
# The law is the leading order. Independent draws of the positive part of A* + D and the floor that
# the environments' differences maintain, a gradient noise of variance |A_e|^2 / (2n), give 1.020 of
# it. Downwards three standard errors of 0.8 %, upwards 1 % more for the bulk's second order, N v.
CLAIMS = {
    "full": Claim(
        "full batches, d = 8, n = 384: root mean square distance to A* over the prediction",
        0.995,
        1.055,
        "Wigner's semicircle",
    ),
    "square": Claim(
        "full batches: distance to A* at d = 24, n = 1536 over that at d = 12, n = 384 "
        "(the same n / d^2)",
        0.85,
        1.15,
        "Wigner's semicircle",
    ),
    "memorised": Claim(
        "n E = 16, below d (d + 1) / 4 = 39: final over initial loss", 0, 1e-3, CONE
    ),
    "not_memorised": Claim(
        "pooled training, n E = 48, above d (d + 1) / 4 = 39: share of the data sets fitted",
        0,
        0.05,
        CONE,
    ),
    "threshold": Claim.finding(
        "pooled training: n E up to which half of the data sets are fitted over d (d + 1) / 4"
    ),
    "nowhere": Claim.finding(
        "n E = 16, memorised: distance to the nearer of A* and A* + mean A_e over |A*|"
    ),
    "few": Claim(
        "batches of 64, n = 384 (32 d r1): distance to A* over that of the stream (2.5 predicted)",
        1.7,
        3.2,
        "Wigner's semicircle",
    ),
    "many": Claim(
        "batches of 64, n = 3072 (21 d^2): distance to A* over that of the stream (1.3 predicted)",
        1.0,
        1.6,
        "Wigner's semicircle",
    ),
}


def run(
    *, quick: bool = False, key: int = 0, progress: bool | None = None
) -> dict[str, xr.Dataset]:
    """HeteroSGD over the examples n of each environment, in full batches and in batches of 64, and
    streamed, 6 seeds (2 when quick); pooled training on full batches near the threshold, 24 (8);
    small errors in full batches, 512.
    """
    from causal_sgd.sweeps import sweep

    options: Options = {"key": key, "progress": progress}
    seeds = 2 if quick else 6
    full = {number: _full(BASE.replace(num_examples=number)) for number in FULL}
    small = {number: BASE.replace(num_examples=number).cell() for number in SMALL}
    near = {number: _full(BASE.replace(num_examples=number), pooled=True) for number in NEAR}
    stream = BASE.replace(measurement="gaussian-law").cell()
    return {
        "full": compare_over("num_examples", full, seeds=seeds, **options),
        "small": compare_over("num_examples", small, seeds=seeds, **options),
        "wide": sweep(
            _full(BASE.replace(dim=WIDE, num_examples=WIDE_EXAMPLES)),
            seeds=seeds,
            label="twice the dimension",
            **options,
        ),
        "law": sweep(_full(LAW), seeds=LAW_SEEDS, label="small errors", **options),
        "stream": sweep(stream, seeds=seeds, label="streamed", **options),
        "near": compare_over("num_examples", near, seeds=8 if quick else 24, **options),
    }


def measure(data: Mapping[str, xr.Dataset]) -> dict[str, float]:
    """The errors over the prediction and over the stream's, and the memorised loss."""
    full, small, wide, stream = (
        _settled(data[name]) for name in ("full", "small", "wide", "stream")
    )
    law = surviving(data["law"]).invariant_error.sel(step=slice(LAW_SETTLED, None)).median("step")
    values = {"full": float((law**2).mean()) ** 0.5 / float(_predicted(LAW.num_examples, LAW))}
    # In the first step U is small, and the loss is that of the labels.
    loss = full.batch_loss / data["full"].batch_loss.isel(step=1).median("seed")
    near = data["near"].batch_loss
    initial = near.isel(step=1).median("seed")
    fitted = (near.isel(step=-1) / initial < FITTED).mean("seed").values
    targets = [full[f"{name}_error"].sel(num_examples=FULL[0]) for name in ("invariant", "pooled")]
    against = small.invariant_error / float(stream.invariant_error)
    return values | {
        "square": float(wide.invariant_error / full.invariant_error.sel(num_examples=384)),
        "memorised": float(loss.sel(num_examples=8)),
        "not_memorised": float(fitted[-1]),
        "threshold": float(np.interp(-0.5, -fitted, NEAR)) / _threshold(),
        "nowhere": min(map(float, targets)) / BASE.invariant_rank**0.5,
        "few": float(against.sel(num_examples=384)),
        "many": float(against.sel(num_examples=3072)),
    }


def table(data: Mapping[str, xr.Dataset]) -> dict[str, xr.Dataset]:
    """The settled medians, the predicted distance in full batches, and the threshold."""
    tables = {f"{name}, settled": _settled(data[name]) for name in ("full", "small", "stream")}
    return tables | {
        "predicted": points(
            {"num_examples": FULL}, {"invariant_error": _predicted(np.array(FULL, float))}
        ),
        "theory": points({}, {"threshold": _threshold()}),
    }


def figure(data: Mapping[str, xr.Dataset]) -> Figure:
    """The distance to A* in full and in small batches, and the remaining loss, against n."""
    from matplotlib import pyplot as plt

    from causal_sgd import figures

    fig, axes = plt.subplots(1, 2, figsize=(8.0, 3.4))
    _draw_errors(axes[0], data)
    loss = np.maximum(_settled(data["full"]).batch_loss, 1e-8)
    axes[1].loglog(FULL, loss, "o-", color=figures.COLOURS[0])
    axes[1].set(ylabel="final loss of the examples")
    for ax in axes:
        ax.set_xlabel("examples of each environment $n$")
        ax.axvline(_threshold(), color="0.3", ls=(0, (6, 2, 1, 2)), lw=1)
    axes[1].annotate(
        "$nE = d(d+1)/4$", (_threshold(), 1e-4), (5, 0), textcoords="offset points", fontsize=8
    )
    return fig


def _draw_errors(ax: Axes, data: Mapping[str, xr.Dataset]) -> None:
    full, small, stream = (
        _settled(data[name]).invariant_error for name in ("full", "small", "stream")
    )
    batches = f"batches of {BASE.batch_size}"
    ax.loglog(FULL, full, "o-", label="full batches")
    ax.loglog(SMALL, small, "s--", label=batches)
    numbers = np.geomspace(FULL[0], SMALL[-1], 50)
    label = "predicted, full batches"
    ax.loglog(numbers, _predicted(numbers), label=label, color="black", ls=(0, (5, 1.6)), lw=1.1)
    ax.axhline(float(stream), color="0.3", ls=":", lw=1, label=f"streamed, {batches}")
    ax.set(ylabel=r"$\|UU^\top - A^\star\|_F$")
    ax.legend(frameon=False, loc="upper right")


def _full(experiment: Experiment, *, pooled: bool = False) -> Cell:
    """A cell in full batches of the step's environment, or of all, which `Experiment` does not
    offer.
    """

    def cell(key: Key) -> Trace:
        import optax

        from causal_sgd.sensing import measurements, metrics, models, worlds
        from causal_sgd.training import run, samplers, sgd

        dim, num_examples = experiment.dim, experiment.num_examples
        algorithm = sgd(
            world=worlds.two_point(
                dim=dim,
                invariant_rank=experiment.invariant_rank,
                spurious_rank=experiment.spurious_rank,
                mean=experiment.mean,
                spread=experiment.spread,
            ),
            sampler=samplers.stratified(batch_size=ENVIRONMENTS * num_examples)
            if pooled
            else samplers.hetero(batch_size=num_examples),
            measurement=measurements.fixed_design(num_examples=num_examples, full=True),
            model=models.factored(dim=dim, init_scale=experiment.init_scale),
            optimizer=optax.sgd(experiment.learning_rate),
        )
        return run(
            key,
            algorithm=algorithm,
            metrics={name: getattr(metrics, name) for name in experiment.metrics},
            num_steps=3 * experiment.steps // 2 if pooled else experiment.steps,
            record_every=experiment.record_every,
        )

    return cell


def _settled(dataset: xr.Dataset) -> xr.Dataset:
    """Medians over the surviving seeds and the last quarter of the run."""
    return surviving(dataset).sel(step=slice(SETTLED, None)).median(("seed", "step"))


def _predicted(num_examples: ArrayLike, experiment: Experiment = BASE) -> np.ndarray:
    from causal_sgd import theory

    return np.asarray(
        theory.finite_data_error(
            np.hypot(experiment.spread, experiment.mean),
            num_examples=num_examples,
            num_environments=ENVIRONMENTS,
            dim=experiment.dim,
            invariant_rank=experiment.invariant_rank,
            spurious_rank=experiment.spurious_rank,
        )
    )


def _threshold() -> float:
    """The number of examples per environment that positive matrices can fit, d (d + 1) / (4 E)."""
    from causal_sgd import theory

    return float(theory.statistical_dimension(BASE.dim, 0, threshold=0.0)) / ENVIRONMENTS
