"""On separable data a linear model is not biased by heterogeneity, a diagonal network in passing.

Gradient descent on separable examples ends at the maximal margin (Soudry et al. 2018): with w^ its
weights, w = w^ log t + w~ after t steps, where w~ is known from the support vectors. The direction
errs by a multiple of 1/log t, and t times the loss tends to |w^|^2 over the learning rate. Steps of
fixed length (after Nacson et al. 2019) err by a multiple of 1/t. In two environments whose spurious
input has opposite signs the margin ignores that input, and HeteroSGD ends at the same weights as
training on all data together: the limit does not see how batches are drawn.

A diagonal network u^2 on an exact bit and a colour decides in the transient. At the start, where
both labels look equally likely, HeteroSGD multiplies u of the colour by 1 + eta c c_e, c_e = mu +-
M: it dies for learning rates above 2 mu/(c (M^2 - mu^2)), 0.5 here. Then the gradients vanish, and
what is left regrows with the weight w1 of the bit, as w1^(c mu) for a small colour: rejection lasts
for any time that one can wait, and yet not forever. At 0.5 itself the exponent is zero, and seeds
differ by orders of magnitude; the median is a few hundredths of the pooled colour, so that
rejection below a hundredth needs a larger step. (Both laws are ours.)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from causal_sgd.studies import Claim
from causal_sgd.studies._cells import Options
from causal_sgd.studies._tables import points

if TYPE_CHECKING:
    import optax
    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from causal_sgd.supervised.models import VectorModel
    from causal_sgd.supervised.worlds import WorldFactory
    from causal_sgd.theory.invariance.separable import Separator
    from causal_sgd.types import Array, Key, PyTree, Trace

# y x of two environments: an invariant and a spurious input, of which one point each is support.
POINTS = np.array([[[1.0, 5.0], [3.0, 4.0]], [[1.0, -3.0], [2.5, -2.0]]])
RATE, STEPS, EVERY = 0.1, 100_000, 250
LENGTH, SHORT = 0.01, 4000  # of fixed steps
MEAN, SPREAD, COLOUR = 0.3, 0.7, 3.0  # of the world of the diagonal network, with an exact bit
RATES = np.array([0.2, 0.5, 0.65])  # below, at and beyond the critical one of the start
DIAGONAL, INIT_SCALE = 30_000, 0.02
EARLY = 300
SMALL = (1e-12, 0.01)  # weights of the colour that are small, and are not zero
LAW = "w^ log t + w~ of the support vectors"
CLAIMS = {
    "gap": Claim(
        "linear, all data, 10^5 steps: distance of the direction from that of the margin, over the "
        "law",
        0.95,
        1.05,
        LAW,
    ),
    "norm": Claim(
        "growth of |w| per unit of log t from 10^4 to 10^5 steps, over |w^|", 0.97, 1.03, LAW
    ),
    "loss": Claim(
        "10^5 steps times the loss times the learning rate, over |w^|^2", 0.95, 1.05, LAW
    ),
    "fixed_length": Claim(
        "steps of fixed length, 4000 of them: the same distance over its law",
        0.95,
        1.05,
        "w~ across w^, over the length of the way",
    ),
    "linear": Claim(
        "linear, 10^5 steps: spurious over invariant weight by HeteroSGD, over that by all data",
        0.9,
        1.1,
        "one limit, whatever the order of the environments",
    ),
    "hetero_gap": Claim("linear, HeteroSGD: distance of the direction over the law", 0.9, 1.1, LAW),
    "kept": Claim(
        "diagonal network, learning rate 0.2, 30,000 steps: colour by HeteroSGD over that by all "
        "data, median",
        0.05,
        1.5,
        "positive exponent at all times: no rejection",
    ),
    "rejected": Claim(
        "the same at a learning rate of 0.65", 0, 0.01, "negative exponent while the loss is large"
    ),
    "regrowth": Claim(
        "the same at 0.5: exponent of a small colour's weight in that of the bit from 300 steps "
        "on, over c mu",
        0.95,
        1.05,
        "equal gradients of both bits where the colour is small",
    ),
    "critical": Claim.finding(
        "learning rate 0.5, whose exponent is zero at the start: colour by HeteroSGD over that by "
        "all data, median"
    ),
    "growth": Claim.finding(
        "learning rate 0.5: colour after 30,000 steps over that after 300, median"
    ),
    "scaled_gap": Claim.finding(
        "linear, all data, 10^5 steps: distance of the direction times log t"
    ),
}


def run(
    *, quick: bool = False, key: int = 0, progress: bool | None = None
) -> dict[str, xr.Dataset]:
    """Linear models: 10^5 steps on all data and of HeteroSGD (16 seeds, 4 when quick), and 4000
    steps of fixed length. Diagonal networks: 30,000 steps at three learning rates, of all data and
    of HeteroSGD (256 seeds, 64 when quick).
    """
    from causal_sgd.sweeps import sweep

    options: Options = {"key": key, "progress": progress}
    rates = {"learning_rate": RATES}
    return {
        "pooled": sweep(_pooled, seeds=1, **options),
        "hetero": sweep(_hetero, seeds=4 if quick else 16, **options),
        "fixed": sweep(_fixed, seeds=1, **options),
        "diagonal_pooled": sweep(_diagonal_pooled, axes=rates, seeds=1, **options),
        "diagonal": sweep(_diagonal, axes=rates, seeds=64 if quick else 256, **options),
    }


def measure(data: Mapping[str, xr.Dataset]) -> dict[str, float]:
    """The approach to the margin, and the colour of the diagonal network."""
    from causal_sgd.theory.invariance import separable

    found = _separator()
    direction = np.asarray(found.direction, float)
    pooled, hetero, fixed = (_weights(data[name]) for name in ("pooled", "hetero", "fixed"))
    end = pooled[0, -1]
    law = float(separable.direction_gap(found, STEPS))
    gap = _gap(pooled, direction)[0, -1]
    steps = data["pooled"].step.values
    tenth = int(np.flatnonzero(steps == STEPS // 10)[0])
    sizes = np.linalg.norm(pooled[0], axis=-1)
    loss = float(data["pooled"].loss.isel(seed=0, step=-1))
    limit = float(separable.scaled_loss(found, RATE))
    fixed_law = float(separable.fixed_length_gap(found, SHORT, LENGTH))
    ratios = hetero[:, -1, 1] / hetero[:, -1, 0]
    colour, bit = _colours(data, 0.5)
    early = list(data["diagonal"].step.values).index(EARLY)
    small = (colour[:, early] > SMALL[0]) & (colour[:, -1] < SMALL[1])
    grown = np.log(colour[small, -1] / colour[small, early])
    powers = grown / np.log(bit[small, -1] / bit[small, early])
    rivals = data["diagonal_pooled"].second.isel(seed=0, step=-1)
    shares = [
        float(np.median(_colours(data, rate)[0][:, -1]) / rivals.sel(learning_rate=rate))
        for rate in RATES
    ]
    return {
        "gap": float(gap / law),
        "norm": float((sizes[-1] - sizes[tenth]) / np.log(10) / np.linalg.norm(direction)),
        "loss": STEPS * loss / limit,
        "fixed_length": float(_gap(fixed, direction)[0, -1] / fixed_law),
        "linear": float(ratios.mean() / (end[1] / end[0])),
        "hetero_gap": float(_gap(hetero, direction)[:, -1].mean() / law),
        "kept": shares[0],
        "rejected": shares[2],
        "regrowth": float(np.median(powers)) / (COLOUR * MEAN),
        "critical": shares[1],
        "growth": float(np.median(colour[:, -1]) / np.median(colour[:, early])),
        "scaled_gap": float(gap * np.log(STEPS)),
    }


def table(data: Mapping[str, xr.Dataset]) -> dict[str, xr.Dataset]:
    """Distances from the direction of the margin with their law, and the colour over time."""
    from causal_sgd.theory.invariance import separable

    found = _separator()
    direction = np.asarray(found.direction, float)
    steps = data["pooled"].step.values[1:]
    gaps = {
        name: _gap(_weights(data[name]), direction).mean(0)[1:] for name in ("pooled", "hetero")
    }
    law = np.asarray(separable.direction_gap(found, steps))
    times = data["diagonal"].step.values
    colours = {f"hetero_{rate:g}": np.median(_colours(data, rate)[0], 0) for rate in RATES}
    pooled = data["diagonal_pooled"].second.isel(seed=0)
    colours |= {f"pooled_{rate:g}": pooled.sel(learning_rate=rate).values for rate in RATES}
    return {
        "distances": points({"step": steps}, {**gaps, "law": law}),
        "colours": points({"step": times}, colours),
    }


def figure(data: Mapping[str, xr.Dataset]) -> Figure:
    """The distance of the direction from that of the margin by all data and by HeteroSGD (mean over
    seeds), with the law (left); the same for steps of fixed length (middle); and the weight of the
    colour in diagonal networks, medians with quartiles of the seeds, and by all data
    (dashed), with the law of regrowth (dotted, right).
    """
    from matplotlib import pyplot as plt

    fig, axes = plt.subplots(1, 3, figsize=(9.6, 3.3), layout="constrained")
    _draw_gaps(axes[0], data)
    _draw_fixed(axes[1], data)
    _draw_colours(axes[2], data)
    return fig


def _pooled(key: Key) -> Trace:
    import optax

    return _linear(key, "stratified", optax.sgd(RATE), STEPS)


def _hetero(key: Key) -> Trace:
    import optax

    return _linear(key, "hetero", optax.sgd(RATE), STEPS)


def _fixed(key: Key) -> Trace:
    return _linear(key, "stratified", _of_length(LENGTH), SHORT)


def _of_length(length: float) -> optax.GradientTransformation:
    """Steps against the gradient, all of one length."""
    import jax
    import jax.numpy as jnp
    import optax

    def update(gradients: PyTree, params: PyTree | None = None) -> PyTree:
        del params
        # Scaled first: squares of late gradients are too small for single precision.
        peak = jnp.max(jnp.stack([jnp.max(jnp.abs(leaf)) for leaf in jax.tree.leaves(gradients)]))
        scaled = jax.tree.map(lambda leaf: leaf / peak, gradients)
        norm = optax.global_norm(scaled)
        return jax.tree.map(lambda leaf: -length * leaf / norm, scaled)

    return optax.stateless(update)


def _linear(key: Key, sampler: str, optimizer: optax.GradientTransformation, steps: int) -> Trace:
    from causal_sgd.supervised import models, worlds

    return _trained(key, worlds.separable(POINTS), sampler, models.linear(dim=2), optimizer, steps)


def _diagonal_pooled(key: Key, *, learning_rate: float | Array) -> Trace:
    return _network(key, "stratified", learning_rate)


def _diagonal(key: Key, *, learning_rate: float | Array) -> Trace:
    return _network(key, "hetero", learning_rate)


def _network(key: Key, sampler: str, learning_rate: float | Array) -> Trace:
    import optax

    from causal_sgd.supervised import models, worlds

    flips = (1 - MEAN - np.array([SPREAD, -SPREAD])) / 2
    world = worlds.two_bit(invariant_flip=0.0, spurious_flips=flips, colour=COLOUR)
    model = models.hadamard(dim=2, init_scale=INIT_SCALE)
    return _trained(key, world, sampler, model, optax.sgd(learning_rate), DIAGONAL)


def _trained(
    key: Key,
    world: WorldFactory,
    sampler: str,
    model: VectorModel,
    optimizer: optax.GradientTransformation,
    steps: int,
) -> Trace:
    import jax.numpy as jnp

    from causal_sgd import training
    from causal_sgd.supervised import losses, measurements

    algorithm = training.sgd(
        world=world,
        sampler=getattr(training.samplers, sampler)(batch_size=2),
        measurement=measurements.counts(losses.logistic),
        model=model,
        optimizer=optimizer,
    )
    watched = {
        "first": lambda snapshot: snapshot.estimate[0],
        "second": lambda snapshot: snapshot.estimate[1],
        "loss": lambda snapshot: jnp.mean(snapshot.risks(snapshot.params)),
    }
    every = EVERY if steps == STEPS else steps // 100
    return training.run(
        key, algorithm=algorithm, metrics=watched, num_steps=steps, record_every=every
    )


def _separator() -> Separator:
    """The margin of all points; each is a quarter of the data."""
    from causal_sgd.theory.invariance import separable

    every = POINTS.reshape(-1, 2)
    return separable.separator(every, np.full(len(every), 1 / len(every)), RATE)


def _weights(dataset: xr.Dataset) -> np.ndarray:
    """The weights over time, [seeds, frames, 2]."""
    arrays = [dataset[name].transpose("seed", "step").values for name in ("first", "second")]
    return np.stack(arrays, -1)


def _gap(weights: np.ndarray, direction: np.ndarray) -> np.ndarray:
    """The distance of the direction of weights [..., 2] from another one; NaN at zero."""
    with np.errstate(invalid="ignore"):
        units = weights / np.linalg.norm(weights, axis=-1, keepdims=True)
    return np.linalg.norm(units - direction / np.linalg.norm(direction), axis=-1)


def _colours(data: Mapping[str, xr.Dataset], rate: float) -> tuple[np.ndarray, np.ndarray]:
    """The weights of colour and bit by HeteroSGD, [seeds, frames] each."""
    runs = data["diagonal"].sel(learning_rate=rate)
    colour, bit = (runs[name].transpose("seed", "step").values for name in ("second", "first"))
    return colour, bit


def _draw_gaps(ax: Axes, data: Mapping[str, xr.Dataset]) -> None:
    from causal_sgd.theory.invariance import separable

    found = _separator()
    direction = np.asarray(found.direction, float)
    steps = data["pooled"].step.values[1:]
    for name, label, color in (("pooled", "all data", "C0"), ("hetero", "HeteroSGD", "C1")):
        gaps = _gap(_weights(data[name]), direction).mean(0)[1:]
        ax.plot(steps, gaps, color=color, label=label)
    ax.plot(
        steps, np.asarray(separable.direction_gap(found, steps)), color="0.2", ls=":", label="law"
    )
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.set_xlabel("step $t$")
    ax.set_title("distance from the margin's direction")
    ax.legend(frameon=False, fontsize=8)


def _draw_fixed(ax: Axes, data: Mapping[str, xr.Dataset]) -> None:
    from causal_sgd.theory.invariance import separable

    found = _separator()
    steps = data["fixed"].step.values[1:]
    gaps = _gap(_weights(data["fixed"]), np.asarray(found.direction, float))[0, 1:]
    ax.plot(steps, gaps, color="C2", label="steps of fixed length")
    law = np.asarray(separable.fixed_length_gap(found, steps, LENGTH))
    ax.plot(steps, law, color="0.2", ls=":", label="law, $1/t$")
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.set_xlabel("step $t$")
    ax.set_title("distance from the margin's direction")
    ax.legend(frameon=False, fontsize=8)


def _draw_colours(ax: Axes, data: Mapping[str, xr.Dataset]) -> None:
    steps = data["diagonal"].step.values[1:]
    late = steps >= EARLY
    pooled = data["diagonal_pooled"].second.isel(seed=0, step=slice(1, None))
    for index, rate in enumerate(RATES):
        color = f"C{index + 3}"
        colour, bit = (each[:, 1:] for each in _colours(data, rate))
        low, middle, high = np.quantile(colour, (0.25, 0.5, 0.75), axis=0)
        ax.fill_between(steps, low, high, color=color, alpha=0.2, lw=0)
        ax.plot(steps, middle, color=color, label=rf"$\eta={rate:g}$")
        ax.plot(steps, pooled.sel(learning_rate=rate), color=color, ls="--", lw=1)
        if rate == RATES[0]:  # whose colour is not small
            continue
        weight = np.median(bit, 0)[late]
        ax.plot(
            steps[late],
            middle[late][0] * (weight / weight[0]) ** (COLOUR * MEAN),
            color="0.2",
            ls=":",
        )
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.set_ylim(1e-6, 1)
    ax.set_xlabel("step $t$")
    ax.set_title("weight of the colour")
    ax.legend(frameon=False, fontsize=8)
