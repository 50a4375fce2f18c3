"""Stopped in time, a diagonal network fits a single-index model as if it knew the support.

Labels y = f(x'w) + noise have E x y proportional to w whatever the link f is, so that the score
x y stands for its unknown shape (Fan, Yang and Yu 2020, whose bound on the error is s log d/n).
The weights u^2 - v^2 then decouple, and each follows a curve in closed form (our derivation, with
the correction for finite steps). Weights of the support rise at log(b/alpha^2)/(2 eta b)
steps, the largest of the others later, at their noise: between the two times the error is that of
least squares on the s inputs of the support, without the logarithm; without stopping it is that of
all d inputs. The window closes earlier the more variance the label has beyond its linear part. (The
distance from the curve was first claimed to be below 0.02, the rise in a step at b = 0.6; it is
0.027 in a run of the cube, whose signals reach 0.9, so that the claim now counts steps. The
interval of the stopped error was widened to the deviation that theory has of it, after a second key
had fallen out at its lower end with chi-square deviations alone.)

The link enters the error by E y^2, and by the variance along w, where E y^2 g^2 - E y^2 counts
(g = x'w): for the sine and the sign the error is within one coordinate of s, for the cube it is
more than twice as large. Freedom from the link is one of order, not of constants.

Environments whose weights of one input are mean +- M have b_e of their own, and HeteroSGD treats
this input as a spurious direction of a product, to the exponent: u dies where
1/|b_2| - 1/b_1 < eta. What is new is the link: b_e = w_e E f'(x'w_e) depends on how large x'w_e
is, so links that flatten bring the two b_e closer in size, and HeteroSGD needs less heterogeneity
(M = 0.82 for the sine and 0.99 for the sign) than with a linear link (1.14). With the cube it
fails: before u dies, eta b_1 exceeds 2, v grows, and all runs diverge.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import numpy as np

from causal_sgd.studies import Claim
from causal_sgd.studies._cells import Options
from causal_sgd.studies._frames import farthest_from_one
from causal_sgd.studies._tables import points
from causal_sgd.studies.supervised._index_panels import draw_weights

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from causal_sgd.theory.single_index import LinkMoments
    from causal_sgd.types import Array, Key, Snapshot, Trace

DIM, SUPPORT, EXAMPLES, NOISE = 200, 5, 400, 0.5
RATE, INIT_SCALE, STEPS, EVERY = 0.1, 1e-4, 2000, 20
SHOWN = 15  # weights beyond the support, the largest
# Scaled to E f'(g) = 1, g ~ N(0, 1), so that all have the same linear part.
LINKS = ("linear", "sine", "sign", "cubic")
LIGHT = 3  # all but the cube, whose labels have heavy tails
SIZE = float(SUPPORT**-0.5)  # of the weights of the support, whose norm is 1

MEAN, FAST, START = 0.3, 0.5, 1e-10  # of the environments: mean weight, learning rate, scale
PARTS = 16
FINE = np.linspace(0.6, 1.24, 8 * PARTS + 1)
SPREADS = FINE[::PARTS]
EARLY = 60  # steps, over which the exponent is measured
AVERAGE = "Gaussian means of n examples on the curves in closed form"
CLAIMS = {
    "curve": Claim(
        "largest distance of a weight from its curve over the largest rise in one step, all "
        "weights, times, seeds and links",
        0,
        1,
        "a logistic curve rises by at most eta b^2/2 a step",
    ),
    "stopped": Claim(
        "error at the best time over the expected one, of the link farthest from it (linear, sine, "
        "sign; mean over seeds)",
        0.63,
        1.37,
        f"{AVERAGE}, 3.5 standard errors (a run deviates by 0.72 to 0.85 of the mean)",
    ),
    "stopped_cubic": Claim(
        "the same of the cube", 0.55, 1.45, f"{AVERAGE}, 3 standard errors of labels g^3"
    ),
    "late": Claim(
        "error after 2000 steps over the expected one, of the link farthest from it (linear, "
        "sine, sign)",
        0.95,
        1.05,
        f"{AVERAGE}, 3 standard errors",
    ),
    "opens": Claim(
        "step at which all weights of the support have reached half, median, over the predicted "
        "one, of the link farthest from it (linear, sine, sign)",
        0.9,
        1.1,
        "curve of the median smallest of s signals, 3 standard errors",
    ),
    "closes": Claim(
        "step at which one other weight has reached half of its noise, median, over the predicted "
        "one, of the link farthest from it (linear, sine, sign)",
        0.93,
        1.07,
        "curve of the median largest of d - s signals, 3 standard errors",
    ),
    "critical": Claim(
        "environments: heterogeneity M at which the spurious weight begins to die, over the "
        "predicted one, of the link farthest from it (linear, sine, sign)",
        0.95,
        1.05,
        "1/|b_2| - 1/b_1 = eta with b_e = w_e E f'(x'w_e)",
    ),
    "exponent": Claim(
        "environments: largest distance of an exponent from E log|1 + eta b_e|, all M and links "
        "but the cube, in standard errors",
        0,
        4,
        "product of independent factors, 27 numbers",
    ),
    "ordinary": Claim.finding("error after 2000 steps over that at the best time, linear"),
    "lasso": Claim.finding(
        "least error of soft thresholds, the Lasso's at the best level, over that at the best "
        "time, linear"
    ),
    "diverged": Claim.finding("environments: share of runs of the cube that diverge at M = 1.24"),
    "cube": Claim.finding("error of the cube at the best time, in units of E y^2/n"),
}


def run(
    *, quick: bool = False, key: int = 0, progress: bool | None = None
) -> dict[str, xr.Dataset]:
    """Four links of one scale: 2000 steps from 400 examples of 200 inputs, of which five count (64
    seeds, 16 when quick). Two environments of one link each: 60 steps of HeteroSGD at nine
    spreads (256 seeds, 64 when quick).
    """
    from causal_sgd.sweeps import sweep

    options: Options = {"key": key, "progress": progress}
    links = {"link": np.arange(len(LINKS))}
    spreads = {**links, "spread": SPREADS}
    return {
        "stopping": sweep(_stopping, axes=links, seeds=16 if quick else 64, **options),
        "environments": sweep(_environments, axes=spreads, seeds=64 if quick else 256, **options),
    }


def measure(data: Mapping[str, xr.Dataset]) -> dict[str, float]:
    """The errors and times of stopping, and the exponents of environments, against theory."""
    runs = data["stopping"]
    best = [int(np.argmin(_expected(link))) for link in range(len(LINKS))]
    errors = _errors(data)
    ratios = np.array([errors[k, t] / _expected(k)[t] for k, t in enumerate(best)])
    late = np.array([errors[k, -1] / _expected(k)[-1] for k in range(LIGHT)])
    opens, closes = (np.median(_halves(runs[name]), 1) for name in ("slowest", "first"))
    windows = np.array([_window(link) for link in range(len(LINKS))])
    found, _ = _exponents(data)
    spread = np.array([_root(found[k]) / _critical(k) for k in range(LIGHT)])
    diverged = data["environments"].diverged_at.isel(link=LIGHT, spread=-1) >= 0
    low = float(runs.lasso.isel(link=0, step=-1).mean())
    return {
        "curve": float(runs.distance.max()),
        "stopped": farthest_from_one(ratios[:LIGHT]),
        "stopped_cubic": float(ratios[LIGHT]),
        "late": farthest_from_one(late),
        "opens": farthest_from_one((opens / windows[:, 0])[:LIGHT]),
        "closes": farthest_from_one((closes / windows[:, 1])[:LIGHT]),
        "critical": farthest_from_one(spread),
        "exponent": float(_scores(data).max()),
        "ordinary": float(errors[0, -1] / errors[0, best[0]]),
        "lasso": low / float(errors[0, best[0]]),
        "diverged": float(diverged.mean()),
        "cube": float(errors[LIGHT, best[LIGHT]] * EXAMPLES / _moments(LIGHT)[0]),
    }


def table(data: Mapping[str, xr.Dataset]) -> dict[str, xr.Dataset]:
    """Errors over time and exponents over M, each with theory."""
    steps = data["stopping"].step.values
    errors = _errors(data)
    found, exact = _exponents(data)
    return {
        "errors": points(
            {"step": steps},
            {name: errors[k] for k, name in enumerate(LINKS)}
            | {f"{name}_theory": _expected(k) for k, name in enumerate(LINKS)},
        ),
        "exponents": points(
            {"spread": SPREADS},
            {name: found[k] for k, name in enumerate(LINKS[:LIGHT])}
            | {f"{name}_theory": exact[k] for k, name in enumerate(LINKS[:LIGHT])},
        ),
    }


def figure(data: Mapping[str, xr.Dataset]) -> Figure:
    """Weights of one run with the sign as link, the five of the support and the 15 largest others,
    and the window in between (left); mean error with that expected (lines) in units of E y^2/n
    (middle); and the exponent of the spurious weight under HeteroSGD in two environments, with
    the product's (lines, right).
    """
    from matplotlib import pyplot as plt

    fig, axes = plt.subplots(1, 3, figsize=(9.6, 3.3), layout="constrained")
    draw_weights(axes[0], data["stopping"].isel(link=2, seed=0), _window(2), SIZE)
    _draw_errors(axes[1], data)
    _draw_exponents(axes[2], data)
    return fig


def _link(number: int | Array) -> Callable[[Array], Array]:
    """A link by its number, which may be traced."""
    import jax.numpy as jnp

    def value(z: Array) -> Array:
        kinds = [z, jnp.exp(0.5) * jnp.sin(z), jnp.sqrt(jnp.pi / 2) * jnp.sign(z), z**3 / 3]
        return jnp.select([jnp.equal(number, k) for k in range(len(LINKS))], kinds)

    return value


def _stopping(key: Key, *, link: int | Array) -> Trace:
    import jax
    import jax.numpy as jnp
    import optax

    from causal_sgd import training
    from causal_sgd.supervised import measurements, metrics, models, worlds
    from causal_sgd.theory import single_index

    weights = np.where(np.arange(DIM) < SUPPORT, SIZE, 0)[None]

    def signals(snapshot: Snapshot) -> Array:
        return snapshot.data.training.second[0, :DIM, DIM]

    def distance(snapshot: Snapshot) -> Array:
        curve = single_index.stopped_weights(
            snapshot.step, signals(snapshot), learning_rate=RATE, init_scale=INIT_SCALE
        )
        rise = RATE * jnp.max(jnp.abs(signals(snapshot))) ** 2 / 2
        return jnp.max(jnp.abs(snapshot.estimate - curve)) / rise

    def others(snapshot: Snapshot) -> Array:
        """The other weights with the largest signals, over them."""
        found = signals(snapshot)[SUPPORT:]
        places = jax.lax.top_k(jnp.abs(found), SHOWN)[1]
        return (snapshot.estimate[SUPPORT:] * jnp.sign(found))[places]

    def lasso(snapshot: Snapshot) -> Array:
        """The least error of soft thresholds of the signals."""
        found = signals(snapshot)[None]
        levels = jnp.linspace(0, 0.4, 41)[:, None]
        kept = jnp.sign(found) * jnp.maximum(jnp.abs(found) - levels, 0)
        return jnp.min(jnp.sum((kept - snapshot.world.target[None]) ** 2, 1))

    watched = {
        "error": metrics.estimation_error,
        "distance": distance,
        "support": lambda snapshot: snapshot.estimate[:SUPPORT],
        "slowest": lambda snapshot: jnp.min(snapshot.estimate[:SUPPORT] / SIZE),
        "others": others,
        "first": lambda s: others(s)[0] / jnp.max(jnp.abs(signals(s)[SUPPORT:])),
        "lasso": lasso,
    }
    algorithm = training.sgd(
        world=worlds.single_index(weights, link=_link(link), noise=NOISE),
        sampler=training.samplers.pooled(batch_size=1),
        measurement=measurements.moments(EXAMPLES, known_inputs=True),
        model=models.hadamard(dim=DIM, signed=True, init_scale=INIT_SCALE),
        optimizer=optax.sgd(RATE),
    )
    return training.run(
        key, algorithm=algorithm, metrics=watched, num_steps=STEPS, record_every=EVERY
    )


def _environments(key: Key, *, link: int | Array, spread: float | Array) -> Trace:
    import jax.numpy as jnp
    import optax

    from causal_sgd import training
    from causal_sgd.supervised import measurements, models, worlds

    spurious = MEAN + spread * jnp.array([1.0, -1.0])
    weights = jnp.full((2, SUPPORT + 1), SIZE).at[:, SUPPORT].set(spurious)
    algorithm = training.sgd(
        world=worlds.single_index(weights, link=_link(link)),
        sampler=training.samplers.hetero(batch_size=1),
        measurement=measurements.moments(),
        model=models.hadamard(dim=SUPPORT + 1, signed=True, init_scale=START),
        optimizer=optax.sgd(FAST),
    )

    def logarithm(snapshot: Snapshot) -> Array:
        return jnp.log(jnp.abs(snapshot.params["positive"][SUPPORT]) / START)

    return training.run(key, algorithm=algorithm, metrics={"logarithm": logarithm}, num_steps=EARLY)


def _errors(data: Mapping[str, xr.Dataset]) -> np.ndarray:
    """Mean errors over seeds, [links, frames]."""
    return data["stopping"].error.mean("seed").transpose("link", "step").values


@functools.cache
def _slopes(link: int) -> tuple[LinkMoments, np.ndarray]:
    """The moments of a link, and its E f' in both environments at all of `FINE`, [F, 2]."""
    from causal_sgd.theory import single_index

    function = _link(link)
    scale = np.sqrt(1 + _spurious(FINE) ** 2)
    slope = single_index.link_moments(function, scale).slope
    return single_index.link_moments(function), np.asarray(slope, float)


def _spurious(spreads: np.ndarray) -> np.ndarray:
    """The spurious weights of both environments, [spreads, 2]."""
    return MEAN + spreads[:, None] * np.array([1.0, -1.0])


def _moments(link: int) -> tuple[float, float]:
    """E y^2, and the variance of x_i y for an input of the support."""
    of = _slopes(link)[0]
    square, weighted = float(of.square) + NOISE**2, float(of.weighted) + NOISE**2
    signal = SIZE * float(of.slope)
    return square, square + SIZE**2 * (weighted - square) - signal**2


def _expected(link: int) -> np.ndarray:
    """Expected errors over the frames."""
    from causal_sgd.theory import single_index

    square, own = _moments(link)
    error = single_index.stopped_error(
        np.arange(0.0, STEPS + 1, EVERY),
        np.full(SUPPORT, SIZE),
        variances=np.full(SUPPORT, own),
        noise_variance=square,
        num_noise=DIM - SUPPORT,
        num_examples=EXAMPLES,
        learning_rate=RATE,
        init_scale=INIT_SCALE,
    )
    return np.asarray(error, float)


def _window(link: int) -> tuple[float, float]:
    """When all weights of the support have reached half, and when the first other one has."""
    from statistics import NormalDist

    from causal_sgd.theory import single_index

    square, own = _moments(link)
    options = {"learning_rate": RATE, "init_scale": INIT_SCALE}
    smallest = SIZE - NormalDist().inv_cdf(0.5 ** (1 / SUPPORT)) * np.sqrt(own / EXAMPLES)
    noise = single_index.noise_level(DIM - SUPPORT, EXAMPLES, variance=square)
    opens = single_index.learning_time(smallest, share=SIZE / 2 / smallest, **options)
    return float(opens), float(single_index.learning_time(noise, **options))


def _halves(shares: xr.DataArray) -> np.ndarray:
    """When shares first reach one half, interpolated between frames, [links, seeds]."""
    values = shares.transpose("link", "seed", "step").values
    steps = shares.step.values.astype(float)
    last = np.argmax(values >= 0.5, -1)[..., None]
    before, after = (np.take_along_axis(values, last - k, -1)[..., 0] for k in (1, 0))
    part = (0.5 - before) / (after - before)
    return steps[last[..., 0] - 1] + part * EVERY


def _signals() -> np.ndarray:
    """The spurious signals b_e of every link and spread, [links, spreads, 2]."""
    every = [(_spurious(FINE) * _slopes(link)[1])[::PARTS] for link in range(len(LINKS))]
    return np.stack(every)


def _exponents(data: Mapping[str, xr.Dataset]) -> tuple[np.ndarray, np.ndarray]:
    """Exponents of the spurious weight and those of the product, [links, spreads] each."""
    logs = data["environments"].logarithm.isel(step=-1).mean("seed")
    found = logs.transpose("link", "spread").values / EARLY
    return found, np.log(np.abs(1 + FAST * _signals())).mean(-1)


def _scores(data: Mapping[str, xr.Dataset]) -> np.ndarray:
    """Their distances in standard errors, without the cube, [links, spreads]."""
    found, exact = _exponents(data)
    spread = np.log(np.abs(1 + FAST * _signals())).std(-1)
    size = data["environments"].sizes["seed"]
    return (np.abs(found - exact) / (spread / np.sqrt(size * EARLY)))[:LIGHT]


def _root(exponents: np.ndarray) -> float:
    """The spread at which exponents [spreads] first become negative, interpolated; NaN if none."""
    places = np.flatnonzero((exponents[:-1] > 0) & (exponents[1:] <= 0))
    if not len(places):
        return np.nan
    k = places[0]
    part = exponents[k] / (exponents[k] - exponents[k + 1])
    return float(SPREADS[k] + part * (SPREADS[k + 1] - SPREADS[k]))


def _critical(link: int) -> float:
    """The spread beyond which 1/|b_2| - 1/b_1 is below the learning rate."""
    from causal_sgd.theory import single_index

    high, low = (_spurious(FINE) * _slopes(link)[1]).T
    rates = np.asarray(single_index.rejecting_learning_rate(high, low), float)
    return float(np.interp(-FAST, -rates, FINE))  # they fall with the spread


def _draw_errors(ax: Axes, data: Mapping[str, xr.Dataset]) -> None:
    steps = data["stopping"].step.values
    for k, (name, errors) in enumerate(zip(LINKS, _errors(data), strict=True)):
        unit = _moments(k)[0] / EXAMPLES
        ax.plot(steps[1:], _expected(k)[1:] / unit, color=f"C{k}", lw=1)
        ax.plot(
            steps[1::3], errors[1::3] / unit, color=f"C{k}", ls="", marker="o", ms=3, label=name
        )
    for level, word in ((SUPPORT, "$s$"), (DIM, "$d$")):
        ax.axhline(level, color="0.3", ls=":", lw=1)
        ax.text(steps[-1], level, word, ha="right", va="bottom", fontsize=8)
    ax.set_yscale("log")
    ax.set_xlabel("stopped at step $t$")
    ax.set_title(r"error in units of $\mathrm{E}\,y^2/n$")
    ax.legend(frameon=False, fontsize=8)


def _draw_exponents(ax: Axes, data: Mapping[str, xr.Dataset]) -> None:
    found, exact = _exponents(data)
    for k, name in enumerate(LINKS[:LIGHT]):
        ax.plot(SPREADS, exact[k], color=f"C{k}", lw=1)
        ax.plot(SPREADS, found[k], color=f"C{k}", ls="", marker="o", ms=3, label=name)
    ax.axhline(0, color="0.3", ls=":", lw=1)
    ax.set_xlabel("heterogeneity $M$ of one weight")
    ax.set_title("exponent of its $u$, HeteroSGD")
    ax.legend(frameon=False, fontsize=8)
