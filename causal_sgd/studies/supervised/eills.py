"""EILLS finds the causes where least squares keeps its bias, but needs a thousand examples.

In the nonlinear demonstration of EILLS [Fan et al. 2023] three of twelve inputs cause the label,
and inputs 7, 8 and 9 are its effects. In the population EILLS chooses no effect beyond a gamma of
10.7, at the lower end of the interval 10.7 to 11.5 of an independent computation. Pooled least
squares has a squared error of 4 that no number of examples reduces; anchor regression is hardly
better. The causal Dantzig is worse than a prediction of zero, |w*|^2 = 13. ICP accepts so many sets
that they rarely share an input.

On few examples the searches choose effects too, EILLS in half of the draws at n = 100. Its mean
error falls faster than 1/n while such choices become rare, which goes on beyond n = 1000: the
exponent between 1000 and 2000 is -2, not the -1 of least squares on the right set, which only the
draws with exactly the causes have. Half of the draws keep inputs that are no effects but useless,
as nothing penalises the size of the set. FAIR with gamma = 36 errs less often at every n. A refit
on the set of EILLS makes wrong sets worse. To leave out the effects by hand is better than EILLS up
to n = 700.

The correlations of the effects with the noise differ in strength and keep their signs, so that
HeteroSGD cannot reject them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple, cast

import numpy as np

from causal_sgd.studies import Claim
from causal_sgd.studies._frames import mean_and_error
from causal_sgd.studies._tables import points

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from causal_sgd.studies._cells import Options
    from causal_sgd.supervised._moments import MomentData
    from causal_sgd.supervised.worlds import SupervisedWorld
    from causal_sgd.types import Array, Estimator, Key, Snapshot, Trace

COUNTS = np.array([*range(100, 1001, 100), 1500, 2000])
ICP_COUNTS = np.array([100, 300, 700, 1000, 2000])
LARGE = 10**6
FEW = 1000
GAMMA, FAIR = 20.0, 36.0  # of the sources
ANCHORS = (1.0, 10.0, 100.0, 1000.0)
METHODS = (
    "EILLS",
    "EILLS, refit",
    "FAIR",
    "oracle",
    "without effects",
    "pooled",
    "Dantzig",
    *(f"anchor {strength:g}" for strength in ANCHORS),
)
SEARCHES = ("EILLS", "FAIR")
EFFECTS = (6, 7, 8)  # G, the inputs that the label or its noise enters
CAUSES = np.arange(12) < 3
TARGET = np.array([3.0, 2.0, -0.5, *[0.0] * 9])
LINES = {
    "EILLS": "C0",
    "EILLS, refit": "C4",
    "FAIR": "C2",
    "oracle": "0.3",
    "without effects": "C1",
    "pooled": "C3",
}
CLAIMS = {
    "gamma": Claim(
        "gamma beyond which EILLS chooses no effect, on moments of 4 10^6 examples",
        10.7,
        11.5,
        "independent computation from moments of drawn examples",
    ),
    "oracle": Claim(
        "mean error of least squares on the causes over tr(S^-1)/(2n), mean over n",
        0.95,
        1.05,
        "least squares with noise of variance 1",
    ),
    "pooled": Claim(
        "n = 2000: mean error of pooled least squares over its squared bias in the population",
        0.98,
        1.02,
        "consistency",
    ),
    "few": Claim(
        "exponent of n in the mean error of EILLS, n = 100 to 1000",
        -np.inf,
        -1.2,
        "errors of selection become rare",
    ),
    "right": Claim.finding(
        "the same, n = 1000 to 2000, draws with exactly the causes (least squares on the right "
        "set would have -1)"
    ),
    "selected": Claim(
        "share of draws in which EILLS chooses an effect: largest increase from one n to the next, "
        "in standard errors",
        -np.inf,
        3,
        "consistency",
    ),
    "signs": Claim(
        "least product of an effect's correlations with the noise in both environments",
        0,
        np.inf,
        "independent computation from moments of drawn examples",
    ),
    "many": Claim.finding("exponent of n in the mean error of EILLS, n = 1000 to 2000, all draws"),
    "without": Claim.finding("the same, draws without an effect in the set"),
    "effects": Claim.finding("n = 2000: share of draws in which EILLS chooses an effect"),
    "exact": Claim.finding("n = 2000: share of draws in which EILLS chooses exactly the causes"),
    "fair": Claim.finding("n = 100: mean error of FAIR over that of EILLS"),
    "refit": Claim.finding("n = 100: mean error of EILLS with refit over that without"),
    "dantzig": Claim.finding("n = 2000: median error of the causal Dantzig"),
    "anchor": Claim.finding("n = 2000: mean error of anchor regression, best lambda"),
    "icp": Claim.finding("n = 2000: share of draws in which ICP selects any input"),
}


def run(
    *, quick: bool = False, key: int = 0, progress: bool | None = None
) -> dict[str, xr.Dataset]:
    """All methods on 1000 draws (100 when quick) of 100 to 2000 examples of each environment; more
    examples of a draw contain fewer ones. ICP has 100 draws (10), and the population is that of
    4 10^6 examples.
    """
    from causal_sgd.sweeps import sweep

    share = 10 if quick else 1
    options: Options = {"key": key, "progress": progress}
    return {
        "fits": sweep(_fits, axes={"num_examples": COUNTS}, seeds=1000 // share, **options),
        "icp": sweep(_icp, axes={"num_examples": ICP_COUNTS}, seeds=100 // share, **options),
        "population": sweep(_population, seeds=4, **options),
    }


def measure(data: Mapping[str, xr.Dataset]) -> dict[str, float]:
    """The threshold of the population, and the errors and sets of the methods."""
    from causal_sgd.theory.invariance import eills_thresholds

    second = _moments(data)
    thresholds = eills_thresholds(second, CAUSES)
    with_effects = thresholds.sets[:, list(EFFECTS)].any(1)
    error = _last(data).error
    mean = error.mean("seed")
    rivals = mean.sel(num_examples=COUNTS[-1])
    law, bias = _oracle_law(second), _pooled_bias(second)
    chosen = _last(data).effects.sel(search="EILLS")
    own = error.sel(variant="EILLS")
    exact = _last(data).exact.sel(search="EILLS")
    steps = chosen.astype(float).diff("num_examples")
    increases, errors = mean_and_error(steps)
    first = mean.sel(num_examples=COUNTS[0])
    biases = second[:, :12, 12] - second[:, :12, :12] @ TARGET
    icp = data["icp"].isel(step=-1, num_examples=-1)
    return {
        "gamma": float(thresholds.per_set[with_effects].max()),
        "oracle": float(np.mean(mean.sel(variant="oracle").values / law)),
        "pooled": float(rivals.sel(variant="pooled")) / bias,
        "few": _exponent(own.mean("seed"), COUNTS <= FEW),
        "right": _exponent(own.where(exact).mean("seed"), COUNTS >= FEW),
        "selected": float(np.max(increases / np.maximum(errors, 1e-12))),
        "signs": float(biases.prod(0)[list(EFFECTS)].min()),
        "many": _exponent(own.mean("seed"), COUNTS >= FEW),
        "without": _exponent(own.where(~chosen).mean("seed"), COUNTS >= FEW),
        "effects": float(chosen.isel(num_examples=-1).mean()),
        "exact": float(exact.isel(num_examples=-1).mean()),
        "fair": float(first.sel(variant="FAIR") / first.sel(variant="EILLS")),
        "refit": float(first.sel(variant="EILLS, refit") / first.sel(variant="EILLS")),
        "dantzig": float(error.sel(variant="Dantzig").isel(num_examples=-1).median()),
        "anchor": float(rivals.sel(variant=[f"anchor {one:g}" for one in ANCHORS]).min()),
        "icp": float((icp.support > 0.5).any("support_0").mean()),
    }


def table(data: Mapping[str, xr.Dataset]) -> dict[str, xr.Dataset]:
    """Mean and median errors of the methods, laws of theory, and sets of the searches."""
    error, second = _last(data).error, _moments(data)
    mean, deviation = mean_and_error(error)
    icp = data["icp"].isel(step=-1)
    searches = {"num_examples": COUNTS[:, None], "search": np.array(SEARCHES)}
    methods = {"num_examples": COUNTS[:, None], "variant": np.array(METHODS)}
    return {
        "errors": points(
            methods, {"mean": mean, "error": deviation, "median": error.median("seed").values}
        ),
        "theory": points(
            {"num_examples": COUNTS},
            {"oracle": _oracle_law(second), "pooled": _pooled_bias(second)},
        ),
        "sets": points(
            searches,
            {name: _last(data)[name].mean("seed").values for name in ("effects", "exact")},
        ),
        "draws of icp": points(
            {"num_examples": ICP_COUNTS},
            {
                "mean": icp.estimation_error.mean("seed").values,
                "accepted_sets": icp.accepted_sets.mean("seed").values,
                "selects": (icp.support > 0.5).any("support_0").mean("seed").values,
            },
        ),
    }


def figure(data: Mapping[str, xr.Dataset]) -> Figure:
    """The mean errors |w - w*|^2 of the methods with two standard errors and the law of the oracle
    (left), and the shares of the draws in which a search chooses an effect of the label (right).
    The causal Dantzig, whose mean error exceeds 100, is in the table only.
    """
    from matplotlib import pyplot as plt

    fig, axes = plt.subplots(1, 2, figsize=(9.2, 3.8), width_ratios=(1.3, 1))
    _draw_errors(axes[0], data)
    _draw_effects(axes[1], data)
    for ax in axes:
        ax.set(xscale="log", xlabel="examples of each environment $n$")
    return fig


def _last(data: Mapping[str, xr.Dataset]) -> xr.Dataset:
    """The fits, with the names of the methods."""
    last = data["fits"].isel(step=-1)
    named = {
        "error": last.error.rename(error_0="variant"),
        "effects": last.effects.rename(effects_0="search"),
        "exact": last.exact.rename(exact_0="search"),
    }
    dataset = last.assign(named).assign_coords(variant=list(METHODS), search=list(SEARCHES))
    return dataset.transpose("num_examples", "variant", "search", "seed", ...)


def _moments(data: Mapping[str, xr.Dataset]) -> np.ndarray:
    """The moments of the population, [E, q, q]."""
    return data["population"].second.isel(step=-1).values.astype(float).mean(0)


def _oracle_law(second: np.ndarray) -> np.ndarray:
    """The mean squared error of least squares on the causes for large n, at each n."""
    causes = second.mean(0)[:3, :3]
    return np.trace(np.linalg.inv(causes)) / (2 * COUNTS)


def _pooled_bias(second: np.ndarray) -> float:
    """The squared error of pooled least squares in the population."""
    pooled = second.mean(0)
    weights = np.linalg.solve(pooled[:12, :12], pooled[:12, 12])
    return float(np.sum((weights - TARGET) ** 2))


def _exponent(error: xr.DataArray, chosen: np.ndarray) -> float:
    return float(np.polyfit(np.log(COUNTS[chosen]), np.log(error.values[chosen]), 1)[0])


def _draw_errors(ax: Axes, data: Mapping[str, xr.Dataset]) -> None:
    for name, color in LINES.items():
        mean, error = mean_and_error(_last(data).error.sel(variant=name))
        ax.errorbar(COUNTS, mean, 2 * error, color=color, marker="o", ms=3, lw=1.2, label=name)
    anchor = _last(data).error.sel(variant=f"anchor {ANCHORS[-1]:g}").mean("seed")
    ax.plot(COUNTS, anchor, color="k", ls="--", lw=1, label=rf"anchor, $\lambda$ = {ANCHORS[-1]:g}")
    icp = data["icp"].isel(step=-1).estimation_error.mean("seed")
    ax.plot(ICP_COUNTS, icp, color="C5", marker="s", ms=3, lw=1.2, label="ICP")
    ax.plot(COUNTS, _oracle_law(_moments(data)), "k:", lw=1, label="law of the oracle")
    ax.set_yscale("log")
    ax.set_title("mean error $|w - w^*|^2$")
    ax.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))


def _draw_effects(ax: Axes, data: Mapping[str, xr.Dataset]) -> None:
    for name in SEARCHES:
        shares, errors = mean_and_error(_last(data).effects.sel(search=name).astype(float))
        ax.errorbar(COUNTS, shares, 2 * errors, color=LINES[name], marker="o", ms=3, label=name)
    ax.set_ylim(bottom=0)
    ax.set_title("share of draws with an effect in the set")
    ax.legend(frameon=False, fontsize=8)


class _Fits(NamedTuple):
    """The fits of all methods to one data set, as those of one estimator."""

    estimate: Array  # [p] of EILLS
    intercept: Array  # []
    estimates: Array  # [method, p]
    supports: Array  # [search, p] bool


def _fits(key: Key, *, num_examples: int | Array) -> Trace:
    from causal_sgd import training
    from causal_sgd.supervised import measurements, worlds

    algorithm = training.algorithms.fitted(
        world=worlds.eills_demo(),
        measurement=measurements.moments(num_examples),
        estimator=cast("Estimator", _together),
    )
    metrics = {
        "error": _errors,
        "effects": lambda snapshot: snapshot.params.supports[:, np.array(EFFECTS)].any(1),
        "exact": lambda snapshot: (snapshot.params.supports == CAUSES[None]).all(1),
    }
    return training.run(key, algorithm=algorithm, metrics=metrics, num_steps=1)


def _together(data: MomentData, world: SupervisedWorld) -> _Fits:
    import jax
    import jax.numpy as jnp

    from causal_sgd.supervised import estimators

    searches = estimators.eills(GAMMA)(data, world), estimators.fair(FAIR)(data, world)
    others = (
        estimators.oracle(),
        estimators.without(EFFECTS),
        estimators.pooled(),
        estimators.causal_dantzig(),
    )
    anchors = jax.vmap(lambda strength: estimators.anchor(strength)(data, world).estimate)
    single = (
        searches[0].estimate,
        _refit(searches[0].support, data),
        searches[1].estimate,
        *(estimator(data, world).estimate for estimator in others),
    )
    return _Fits(
        single[0],
        jnp.zeros((), single[0].dtype),
        jnp.concatenate([jnp.stack(single), anchors(jnp.array(ANCHORS))]),
        jnp.stack([fit.support for fit in searches]),
    )


def _refit(support: Array, data: MomentData) -> Array:
    """Pooled least squares on a set, [p]."""
    import jax.numpy as jnp

    from causal_sgd import linalg

    assert data.training is not None
    moments = jnp.mean(data.training.second, 0)
    held = support[:, None] & support[None, :]
    inputs = jnp.where(held, moments[:-2, :-2], jnp.eye(len(support), dtype=moments.dtype))
    cross = jnp.where(support[:, None], moments[:-2, -2:-1], 0)
    return linalg.solve(inputs, cross)[:, 0]


def _errors(snapshot: Snapshot) -> Array:
    """|w - w*|^2 of every method."""
    import jax.numpy as jnp

    return jnp.sum((snapshot.params.estimates - snapshot.world.target[None]) ** 2, 1)


def _icp(key: Key, *, num_examples: int | Array) -> Trace:
    from causal_sgd import training
    from causal_sgd.supervised import estimators, measurements, metrics, worlds

    algorithm = training.algorithms.fitted(
        world=worlds.eills_demo(),
        measurement=measurements.moments(num_examples),
        estimator=estimators.icp(),
    )
    watched = [metrics.estimation_error, metrics.support, metrics.accepted_sets]
    return training.run(key, algorithm=algorithm, metrics=watched, num_steps=1)


def _population(key: Key) -> Trace:
    from causal_sgd import training
    from causal_sgd.supervised import estimators, measurements, worlds

    algorithm = training.algorithms.fitted(
        world=worlds.eills_demo(),
        measurement=measurements.moments(LARGE),
        estimator=estimators.pooled(),
    )
    watched = {"second": lambda snapshot: snapshot.data.training.second}
    return training.run(key, algorithm=algorithm, metrics=watched, num_steps=1)
