"""On small batches the penalty of IRMv1 is too large; on two halves it is right.

The penalty of IRMv1 is the square of D, the derivative of an environment's loss in a scale of the
prediction. On a batch of n examples the square of the estimate has the mean D^2 + 4 Var(r f)/n,
with the residual r and the prediction f: small batches penalise the prediction itself, and training
settles where this other objective is least. The product of the estimates on two halves of the batch
has no bias, at the price of more noise. Both noises fall like 1/batch size.

HeteroSGD needs no penalty, but environments that contradict each other: where the spurious
correlation only varies in strength it keeps most of it at every batch size, and where it changes
sign it rejects it. IRMv1 finds the invariant predictor in both worlds, up to its finite weight.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from causal_sgd.analysis import nan_quantiles
from causal_sgd.studies import Claim
from causal_sgd.studies._cells import Options
from causal_sgd.studies._frames import late, mean_and_error, surviving
from causal_sgd.studies._tables import points
from causal_sgd.studies.supervised._minibatch_theory import (
    MEAN,
    SPREAD,
    VARIANCE,
    WEIGHT,
    minimum,
    penalties,
)

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from causal_sgd.types import Array, Key, Metric, Trace

PLACES = ((1.0, 0.0), (0.8, 0.3))  # weights at which the penalty is estimated
SIZES = np.array([16, 128, 1024, 8192, 10**6])
SETTLED = np.array([64, 128, 256, 1024, 2**14, 10**6])
RATES = np.array([0.01, 0.02])
STEPS = 8000
SPREADS = {"strength": 0.45, "sign": 2.3}  # what differs between the environments
WIDE = 9.0  # variance of the spurious input, which bounds the biases
EQUAL = np.array([64, 256, 2048, 2**14, 10**6])
EQUAL_STEPS = 4000
LAW = "D^2 + 4 Var(r f)/n, exact"
LEVELS = np.array([0.1, 0.5, 0.9])
CLAIMS = {
    "bias": Claim(
        "plain penalty of a batch less D^2, over 4 Var(r f)/n: farthest from 1 where D = 0",
        0.97,
        1.03,
        LAW,
    ),
    "bias_elsewhere": Claim("the same at w = (0.8, 0.3), batches of 16 and 128", 0.97, 1.03, LAW),
    "halves": Claim(
        "penalty of two halves where D = 0, over 4 Var(r f)/n: farthest from 0",
        -0.03,
        0.03,
        "independent halves",
    ),
    # Extrapolated in the step size; the standard error of the extrapolation is 0.04 of the shift.
    "settles": Claim(
        "batches of 64: shift of w1 by the plain penalty over that of the minimum of the mean "
        "objective",
        0.85,
        1.15,
        "minimum of the mean loss with the bias of the penalty",
    ),
    "unbiased": Claim(
        "batches of 64: shift of w1 by the penalty of two halves, over the same",
        -0.15,
        0.15,
        "the mean objective is that of the population",
    ),
    "floor": Claim(
        "exponent of the batch size in the variance of w1, batches of 256 to 10^6",
        -1.03,
        -0.97,
        "noise of the gradient",
    ),
    "kept": Claim.finding(
        "correlation varies in strength, batches of 10^6: w2 of HeteroSGD over that of pooled "
        "least squares"
    ),
    "rejected": Claim.finding(
        "correlation changes sign, batches of 10^6: w2 of HeteroSGD over that of pooled least "
        "squares"
    ),
    "irmv1_strength": Claim.finding("correlation varies in strength: w2 of IRMv1 over the same"),
    "irmv1_sign": Claim.finding("correlation changes sign: w2 of IRMv1 over the same"),
}


def run(
    *, quick: bool = False, key: int = 0, progress: bool | None = None
) -> dict[str, xr.Dataset]:
    """Penalties of 2000 batches at fixed weights over 32 seeds (16 when quick: fewer would not
    decide the claims), 8000 steps of 16 seeds (8) by each penalty, and 4000 steps of 32 seeds (8)
    of HeteroSGD and IRMv1.
    """
    from causal_sgd.sweeps import compare

    seeds = (16, 8, 8) if quick else (32, 16, 32)
    options: Options = {"key": key, "progress": progress}
    kinds = {"plain": False, "halves": True}
    places = {name: functools.partial(_penalty, halves=halves) for name, halves in kinds.items()}
    trained = {name: functools.partial(_irmv1, halves=halves) for name, halves in kinds.items()}
    rivals = {"HeteroSGD": _hetero, "IRMv1": _rival}
    return {
        "penalties": compare(
            places,
            axes={"batch_size": SIZES, "place": np.arange(len(PLACES))},
            seeds=seeds[0],
            **options,
        ),
        "settled": compare(
            trained,
            axes={"batch_size": SETTLED, "learning_rate": RATES},
            seeds=seeds[1],
            **options,
        ),
        "rivals": compare(
            rivals,
            axes={"batch_size": EQUAL, "spread": list(SPREADS.values())},
            seeds=seeds[2],
            **options,
        ),
    }


def measure(data: Mapping[str, xr.Dataset]) -> dict[str, float]:
    """The bias of the penalties, where training settles and how it fluctuates."""
    plain, elsewhere = (_bias(data, "plain", place)[0] for place in range(len(PLACES)))
    halves = _bias(data, "halves", 0)[0]
    full, settled = minimum(None), minimum(SETTLED[0])
    shift = settled[0] - full[0]
    variance = _late(data).var(("seed", "step")).sel(variant="plain", learning_rate=RATES[0])
    large = SETTLED >= 256
    slope = np.polyfit(np.log(SETTLED[large]), np.log(variance.invariant.values[large]), 1)[0]
    rivals = _rivals(data)["spurious"].sel(batch_size=EQUAL[-1]) * WIDE / MEAN

    def rival(name: str, world: str) -> float:
        return float(rivals.sel(variant=name, spread=SPREADS[world]))

    return {
        "bias": float(plain[np.argmax(np.abs(plain - 1))]),
        "bias_elsewhere": float(elsewhere[np.argmax(np.abs(elsewhere[:2] - 1))]),
        "halves": float(halves[np.argmax(np.abs(halves))]),
        "settles": (_extrapolated(data, "plain")[0] - full[0]) / shift,
        "unbiased": (_extrapolated(data, "halves")[0] - full[0]) / shift,
        "floor": slope,
        "kept": rival("HeteroSGD", "strength"),
        "rejected": rival("HeteroSGD", "sign"),
        "irmv1_strength": rival("IRMv1", "strength"),
        "irmv1_sign": rival("IRMv1", "sign"),
    }


def table(data: Mapping[str, xr.Dataset]) -> dict[str, xr.Dataset]:
    """The biases of the penalties over their law, and where training settles beside the minimum."""
    numbers = {}
    for kind in ("plain", "halves"):
        numbers[kind], numbers[f"{kind}_error"] = _bias(data, kind, 0)
    settled = {kind: _extrapolated(data, kind) for kind in ("plain", "halves")}
    minima = np.array([minimum(size)[0] for size in SETTLED])
    return {
        "bias over law": points({"batch_size": SIZES}, numbers),
        "where training settles": points(
            {"batch_size": SETTLED}, settled | {"minimum": minima, "full": minimum(None)[0]}
        ),
    }


def figure(data: Mapping[str, xr.Dataset]) -> Figure:
    """The excess of the penalty over D^2 with its law (left), where training settles with the
    minima of the mean objectives (middle), and w2 of HeteroSGD and IRMv1 where the spurious
    correlation varies in strength and in sign, with that of pooled least squares (right). Bars are
    two standard errors, and bands reach from the 10 % to the 90 % quantile of the runs that did not
    diverge; lines end where all did.
    """
    from matplotlib import pyplot as plt

    fig, axes = plt.subplots(1, 3, figsize=(9.6, 3.4))
    _draw_bias(axes[0], data)
    _draw_settled(axes[1], data)
    _draw_rivals(axes[2], data)
    for ax in axes:
        ax.set_xscale("log")
        ax.set_xlabel("batch size")
    return fig


def _penalty(key: Key, *, batch_size: int | Array, place: int | Array, halves: bool) -> Trace:
    """The penalty of every batch at weights that do not move."""
    import jax.numpy as jnp

    return _trained(
        key,
        start=jnp.array(PLACES)[place],
        batch_size=batch_size,
        weight=1.0,
        risk_weight=0.0,
        halves=halves,
        learning_rate=0.0,
        steps=2000,
        every=1,
    )


def _irmv1(
    key: Key, *, batch_size: int | Array, learning_rate: float | Array, halves: bool
) -> Trace:
    return _trained(
        key,
        batch_size=batch_size,
        weight=WEIGHT,
        halves=halves,
        learning_rate=learning_rate,
        steps=STEPS,
        every=20,
    )


def _trained(
    key: Key,
    *,
    batch_size: int | Array,
    weight: float,
    halves: bool,
    learning_rate: float | Array,
    steps: int,
    every: int,
    start: tuple[float, float] | Array = (1.0, 0.0),
    risk_weight: float = 1.0,
    spread: float | Array = SPREAD,
    variance: float = VARIANCE,
) -> Trace:
    """A run of IRMv1 in the world of contradictions, from given weights."""
    import dataclasses

    import jax.numpy as jnp
    import optax

    from causal_sgd import training
    from causal_sgd.supervised import measurements, metrics, models, worlds

    linear = models.linear(dim=2)
    model = dataclasses.replace(linear, init=lambda _: {"weights": jnp.asarray(start, float)})
    algorithm = training.algorithms.penalised(
        world=worlds.contradiction(mean=MEAN, spread=spread, variance=variance),
        sampler=training.samplers.stratified(batch_size=batch_size),
        measurement=measurements.batch_moments(),
        model=model,
        objective=training.objectives.irmv1(weight=weight, risk_weight=risk_weight, halves=halves),
        optimizer=optax.sgd(learning_rate),
    )
    watched = {"penalty": metrics.batch_loss} if risk_weight == 0 else _weights()
    return training.run(
        key, algorithm=algorithm, metrics=watched, num_steps=steps, record_every=every
    )


def _rival(key: Key, *, batch_size: int | Array, spread: float | Array) -> Trace:
    return _trained(
        key,
        batch_size=batch_size,
        spread=spread,
        variance=WIDE,
        weight=200.0,
        halves=True,
        learning_rate=0.002,
        steps=EQUAL_STEPS,
        every=20,
    )


def _hetero(key: Key, *, batch_size: int | Array, spread: float | Array) -> Trace:
    import optax

    from causal_sgd import training
    from causal_sgd.supervised import measurements, models, worlds

    algorithm = training.sgd(
        world=worlds.contradiction(mean=MEAN, spread=spread, variance=WIDE),
        sampler=training.samplers.hetero(batch_size=batch_size),
        measurement=measurements.batch_moments(),
        model=models.hadamard(dim=2, init_scale=0.1),
        optimizer=optax.sgd(0.3),
    )
    return training.run(
        key, algorithm=algorithm, metrics=_weights(), num_steps=EQUAL_STEPS, record_every=20
    )


def _weights() -> dict[str, Metric]:
    return {
        "invariant": lambda snapshot: snapshot.estimate[0],
        "spurious": lambda snapshot: snapshot.estimate[1],
    }


def _bias(data: Mapping[str, xr.Dataset], kind: str, place: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean penalty less D^2, over 4 Var(r f)/n, at each batch size, and its standard error."""
    penalty = data["penalties"].penalty.sel(variant=kind, place=place).isel(step=slice(1, None))
    mean, error = mean_and_error(penalty.mean("step"))
    _, square, variance = penalties(np.array(PLACES[place]))
    law = variance / (SIZES / 2)
    return (16 * mean - square) / law, 16 * error / law


def _late(data: Mapping[str, xr.Dataset]) -> xr.Dataset:
    return late(surviving(data["settled"]), 0.25)


def _extrapolated(data: Mapping[str, xr.Dataset], kind: str) -> np.ndarray:
    """The time mean of w1 at each batch size, extrapolated to a step size of zero."""
    means = _late(data).invariant.sel(variant=kind).mean(("seed", "step"))
    small, large = (means.sel(learning_rate=rate).values for rate in RATES)
    return 2 * small - large


def _rivals(data: Mapping[str, xr.Dataset]) -> xr.Dataset:
    """Time means of the weights over the last quarter, medians over the seeds."""
    return late(surviving(data["rivals"]), 0.75).mean("step").median("seed")


def _draw_bias(ax: Axes, data: Mapping[str, xr.Dataset]) -> None:
    variance = penalties(np.array(PLACES[0]))[2]
    law = variance / (SIZES / 2)
    ax.plot(SIZES, law, color="0.3", lw=1, label=r"$4\,\mathrm{Var}(rf)/n$")
    for kind, color, marker in (("plain", "C0", "o"), ("halves", "C1", "s")):
        ratio, error = _bias(data, kind, 0)
        label = "plain" if kind == "plain" else "two halves (absolute value)"
        ax.errorbar(
            SIZES,
            np.abs(ratio) * law,
            2 * error * law,
            color=color,
            ls="",
            marker=marker,
            ms=4,
            label=label,
        )
    ax.set_yscale("log")
    ax.set_title("mean penalty where $D = 0$")
    ax.legend(frameon=False, fontsize=8)


def _draw_settled(ax: Axes, data: Mapping[str, xr.Dataset]) -> None:
    sizes = np.geomspace(SETTLED[0], SETTLED[-1], 60)
    ax.plot(sizes, [minimum(size)[0] for size in sizes], color="C0", lw=1)
    ax.axhline(minimum(None)[0], color="C1", lw=1)
    for kind, color, marker in (("plain", "C0", "o"), ("halves", "C1", "s")):
        label = "plain" if kind == "plain" else "two halves"
        ax.plot(
            SETTLED, _extrapolated(data, kind), color=color, ls="", marker=marker, ms=4, label=label
        )
    ax.set_title("$w_1$ where training settles")
    ax.legend(frameon=False, fontsize=8, loc="lower right")


def _draw_rivals(ax: Axes, data: Mapping[str, xr.Dataset]) -> None:
    means = late(surviving(data["rivals"]), 0.75).spurious.mean("step")
    for name, color in (("HeteroSGD", "C2"), ("IRMv1", "C1")):
        for (world, spread), line in zip(SPREADS.items(), ("-", "--"), strict=True):
            runs = means.sel(variant=name, spread=spread)
            low, middle, high = nan_quantiles(runs.transpose(..., "seed").values, LEVELS).T
            ax.fill_between(EQUAL, low, high, color=color, alpha=0.15, lw=0)
            ax.plot(EQUAL, middle, color=color, ls=line, label=f"{name}, {world} varies")
    ax.axhline(MEAN / WIDE, color="0.3", lw=1, ls=":")
    ax.annotate("pooled", (EQUAL[-1], MEAN / WIDE), ha="right", va="bottom", fontsize=8)
    ax.set_title("$w_2$ at equal numbers of examples")
    ax.legend(frameon=False, fontsize=7)
