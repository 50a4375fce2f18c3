"""Where eigenbases rotate between environments, heterogeneity stops the spurious part in few directions only, and feeds it in many.

Environments are drawn anew at every step, with spurious cores in a common eigenbasis ("fixed"), in Haar distributed ones, or from
the Gaussian orthogonal ensemble (GOE). What decides is the top Lyapunov exponent of the product of random matrices, which for
isotropic cores is an average over a single step (`theory.rotations`): the simulated growth rates agree with it in 1 to 10
directions. With Haar bases heterogeneity stops the spurious part in up to 3 directions, at an ever larger critical spread (in
4 by terms of higher order, next to divergence); with GOE cores in up to 2. In more directions a small vector is turned aside
and made longer more than it is shortened: heterogeneity makes the spurious part grow faster, and at 10 a large one leaves twice
what pooled training learns. One would expect it to be useless in between; it is not: a moderate one still takes away more than
half of the spurious power in 10 directions, as all exponents but the first ones are negative. Bases that rotate only in part lie
between: in 5 directions and more it takes little rotation to lose the transition.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from causal_sgd.analysis import final
from causal_sgd.studies import Claim

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure

    from causal_sgd.types import Array, Key, Snapshot

RATE, MEAN = 0.02, 1.0
MOST = 10
RANKS = np.arange(1.0, MOST + 1)
GROWTH_SPREAD = 12.0  # where a common eigenbasis would let the spurious part die
BOUNDARIES = (("haar", 2), ("haar", 3), ("goe", 2))
SHARES = np.array([0.85, 0.95, 1.05, 1.15])  # of the predicted critical spread
PARTIAL = tuple(
    (rank, share) for rank in (2, 5, 10) for share in (0.1, 0.3)
)  # directions, rotation
POWER = {"directions": (1.0, 2.0, 3.0, 5.0, 10.0), "spread": np.array([0.0, 5, 10, 15, 20, 30, 40])}
BETWEEN = {"directions": (2.0, 3.0, 5.0, 10.0), "rotation": (0.05, 0.1, 0.2, 0.35, 0.6)}
HIGHEST = 40.0  # spread: eta M = 0.8, below divergence
COHEN = "top Lyapunov exponent (Cohen and Newman 1984)"
CLAIMS = {
    f"growth_{kind}": Claim(
        f"{kind}, 1 to 10 directions, M = 12: largest deviation of the growth rate from the exponent, in standard errors",
        0, 4, COHEN,
    )
    for kind in ("haar", "goe")
} | {
    "growth_partial": Claim(
        "rotation 0.1 and 0.3: largest deviation from the exponent of the matrix product, in standard errors", 0, 4,
        "top Lyapunov exponent, by products of drawn matrices",
    ),
} | {
    f"boundary_{kind}_{rank}": Claim(f"{kind}, {rank} directions: spread of no growth over the predicted one", 0.95, 1.05, COHEN)
    for kind, rank in BOUNDARIES
} | {
    "stopped": Claim("haar: most of 1, 2, 3, 5 and 10 directions in which M = 40 leaves below 2 % of the pooled power (median)", 3, 3, COHEN),
    "fed": Claim("haar, 10 directions: spurious power at M = 40 over that at M = 0", 1.6, 2.5, "this study"),
    "reduced": Claim("haar, 10 directions: least spurious power over the spread, over that at M = 0", 0.3, 0.5, "this study"),
}  # fmt: skip


def run(
    *, quick: bool = False, key: int = 0, progress: bool | None = None
) -> dict[str, xr.Dataset]:
    """Growth with 128 seeds (32 when quick), near the predicted boundaries 512 (128), and the stationary power with 16 (8)."""
    from causal_sgd.sweeps import sweep, zipped
    from causal_sgd.training import time_average

    options: dict[str, Any] = {"key": key, "progress": progress}
    seeds = 32 if quick else 128

    def grown(
        label: str, cases: Any, *, kind: str, size: int, steps: int, seeds: int
    ) -> xr.Dataset:
        cell = _cell(kind, size, columns=1, init_scale=1e-14, steps=steps, every=20)
        directions, spread, rotation = np.array(cases).T
        axes = {"case": zipped(directions=directions, spread=spread, rotation=rotation)}
        return sweep(cell, axes=axes, seeds=seeds, label=label, **options)

    haar = [(rank, GROWTH_SPREAD, 1.0) for rank in RANKS]
    partial = [(rank, GROWTH_SPREAD, share) for rank, share in PARTIAL]
    near = [(rank, share * _critical("haar", rank), 1.0) for rank in (2, 3) for share in SHARES]
    goe = haar + [(2, share * _critical("goe", 2), 1.0) for share in SHARES]
    ranks, shares = np.array(PARTIAL, float).T
    alive = _cell("haar", MOST, columns=None, init_scale=0.1, steps=800, every=10)

    def averaged(key: Key, *, directions: Any, spread: Any) -> Any:
        return time_average(alive(key, directions=directions, spread=spread), after=0.3)

    return {
        "haar": grown(
            "growth, Haar", haar + partial, kind="haar", size=MOST, steps=240, seeds=seeds
        ),
        "near": grown("no growth, Haar", near, kind="haar", size=3, steps=400, seeds=4 * seeds),
        "goe": grown("growth, GOE", goe, kind="goe", size=MOST, steps=400, seeds=2 * seeds),
        "power": sweep(
            averaged, axes=POWER, seeds=8 if quick else 16, label="spurious power", **options
        ),
        "products": sweep(
            _product(steps=1000, chains=4, roots=False),
            axes={"case": zipped(directions=ranks, rotation=shares)},
            seeds=8,
            label="matrix products",
            **options,
        ),
        "critical": sweep(
            _product(steps=800, chains=2 if quick else 8, roots=True),
            axes=BETWEEN,
            label="their critical spreads",
            **options,
        ),
    }


def measure(data: Mapping[str, xr.Dataset]) -> dict[str, float]:
    """Growth rates and the spreads of no growth against the exponents, and what is left in the stationary state."""
    found = {}
    for kind in ("haar", "goe"):
        rates, errors = _growth(data[kind].isel(case=slice(MOST)), until=10)
        found[f"growth_{kind}"] = float(np.abs((rates - _curve(kind)) / errors).max())
    rates, errors = _growth(data["haar"].isel(case=slice(MOST, None)), after=6)
    product = final(data["products"])["value"]
    errors = np.hypot(errors, product.std("seed", ddof=1) / np.sqrt(product.sizes["seed"]))
    found["growth_partial"] = float(np.abs((rates - product.mean("seed").values) / errors).max())
    for kind, rank in BOUNDARIES:
        found[f"boundary_{kind}_{rank}"] = _no_growth(data, kind, rank) / _critical(kind, rank)
    power = _power(data["power"])
    # Of a few runs something is left for long, in bursts: whether a spread stops it is told by the median.
    died = _power(data["power"], "median").sel(spread=40.0) < 0.02
    largest = power.sel(directions=float(MOST))
    return found | {
        "stopped": float(power["directions"].where(died).max()),
        "fed": float(largest.sel(spread=40.0)),
        "reduced": float(largest.min()),
    }


def figure(data: Mapping[str, xr.Dataset]) -> Figure:
    """Growth against the number of directions, the critical spread against the rotation, and the power that is left."""
    from matplotlib import pyplot as plt

    from causal_sgd import theory

    drawing, axes = plt.subplots(1, 3, figsize=(11.5, 3.7))
    for index, (kind, name) in enumerate((("haar", "Haar"), ("goe", "GOE"))):
        rates, errors = _growth(data[kind].isel(case=slice(MOST)), until=10)
        axes[0].plot(RANKS, _curve(kind), color=f"C{index}", lw=1)
        axes[0].errorbar(
            RANKS, rates, 2 * errors, fmt="os"[index], ms=4, color=f"C{index}", label=name
        )
    fixed = float(theory.lyapunov_two_point(RATE, MEAN, GROWTH_SPREAD))
    axes[0].axhline(fixed, color="0.3", ls="--", lw=1, label="common eigenbasis")
    axes[0].axhline(np.log1p(RATE * MEAN), color="0.3", ls=":", lw=1, label="no heterogeneity")
    axes[0].axhline(0, color="0.7", lw=0.6, zorder=0)
    axes[0].set(
        xlabel="spurious directions",
        ylabel="growth rate of $|V^\\top U|$",
        title=f"growth at $M = {GROWTH_SPREAD:g}$",
    )
    axes[0].legend(frameon=False)

    base = float(theory.critical_spread(RATE, MEAN))
    curves = final(data["critical"])["value"].isel(seed=0)
    for index, rank in enumerate(BETWEEN["directions"]):
        ends = [base, _critical("haar", int(rank))]
        places = np.array([0.0, *BETWEEN["rotation"], 1.0])
        values = np.array([ends[0], *curves.sel(directions=rank).values, ends[1]])
        values = np.where(values <= HIGHEST, values, np.nan)
        axes[1].plot(
            places, values, "-", color=f"C{index}", marker=".", label=f"{rank:g} directions"
        )
        last = int(np.flatnonzero(np.isfinite(values))[-1])
        if last < len(places) - 1:
            axes[1].annotate(
                "", (places[last], HIGHEST), (places[last], values[last]),
                arrowprops={"arrowstyle": "->", "color": f"C{index}", "lw": 1},
            )  # fmt: skip
    for kind, rank in BOUNDARIES:
        if kind == "haar":
            axes[1].plot(1, _no_growth(data, "haar", rank), "D", mfc="none", color="black", ms=6)
    axes[1].plot([], [], "D", mfc="none", color="black", ms=6, label="measured")
    axes[1].set(
        xlabel="rotation",
        ylabel="critical spread $M_c$",
        ylim=(0, HIGHEST),
        title="from fixed to Haar bases",
    )
    axes[1].legend(frameon=False, loc="lower right")

    power = _power(data["power"])
    shades = plt.get_cmap("viridis")(np.linspace(0.05, 0.9, power.sizes["directions"]))
    for shade, rank in zip(shades, power["directions"].values, strict=True):
        axes[2].plot(
            power["spread"], power.sel(directions=rank), "o-", ms=3, color=shade, label=f"{rank:g}"
        )
    axes[2].axhline(1, color="0.3", ls=":", lw=1)
    axes[2].set(
        xlabel="spread $M$",
        ylabel="mean $|V^\\top U|^2$ over pooled",
        title="what is left, Haar bases",
    )
    axes[2].legend(frameon=False, title="directions", ncols=2)
    return drawing


def _core(kind: str, size: int) -> Any:
    """(key, directions, spread, rotation) -> a core [size, size] of which only the first directions are heterogeneous.

    One program serves every number of directions: what lies outside of the block has the eigenvalue -1/eta and is gone after a
    step. Inside, it is what `worlds.two_point` (with its rotation) and `worlds.goe` draw.
    """
    import jax.numpy as jnp

    from causal_sgd import linalg, random

    def core(key: Key, directions: Array, spread: float | Array, rotation: Array) -> Array:
        inside = jnp.arange(size) < directions
        block = (inside[:, None] & inside[None, :]).astype(float)
        rest = jnp.diag(1.0 - inside)
        if kind == "goe":
            ensemble = random.goe(
                random.normals(key, random.goe_summand_size(size), jnp.result_type(float)), size
            )
            return MEAN * jnp.diag(inside.astype(float)) - rest / RATE + spread * block * ensemble
        normals = random.normals(key, size * size, jnp.result_type(float)).reshape(size, size)
        frame = linalg.orthonormal(
            (1 - rotation) * jnp.eye(size) + rotation * (block * normals + rest)
        )
        values = jnp.where(
            inside,
            MEAN + spread * jnp.where(random.bits(key, size, stream=1) >> 31, 1.0, -1.0),
            -1 / RATE,
        )
        return linalg.product(frame * values[None, :], frame.T)

    return core


def _cell(
    kind: str, size: int, *, columns: int | None, init_scale: float, steps: int, every: int
) -> Any:
    """HeteroSGD by population gradients, with an environment of its own in every step."""
    import jax.numpy as jnp
    import optax

    from causal_sgd.sensing import measurements, metrics, models, worlds
    from causal_sgd.training import run, samplers, sgd

    core = _core(kind, size)
    nature = {"dim": size + 1, "invariant_rank": 1, "spurious_rank": size, "basis": "canonical"}

    def cell(key: Key, *, directions: Any, spread: Any, rotation: Any = 1.0) -> Any:
        def evolve(key: Key, step: Array, world: Any) -> Any:
            return world._replace(spurious_cores=core(key, directions, spread, rotation)[None])

        algorithm = sgd(
            world=worlds.discrete(eigenvalues=jnp.zeros(1), **nature),
            sampler=samplers.hetero(batch_size=1),
            measurement=measurements.population(),
            model=models.factored(dim=size + 1, rank=columns, init_scale=init_scale),
            optimizer=optax.sgd(RATE),
            evolve=evolve,
        )
        watched = {"log_signal": _log_signal, "spurious_power": metrics.spurious_power}
        return run(key, algorithm=algorithm, metrics=watched, num_steps=steps, record_every=every)

    return cell


def _product(*, steps: int, chains: int, roots: bool) -> Any:
    """Theory as a cell: the top exponent of a product of drawn matrices, or the spread at which it vanishes."""
    import jax
    import jax.numpy as jnp

    from causal_sgd import theory
    from causal_sgd.types import Trace

    core = _core("haar", MOST)

    def cell(key: Key, *, directions: Any, rotation: Any) -> Trace:
        def exponent(spread: Any) -> Array:
            def draw(key: Key) -> Array:
                return jnp.eye(MOST) + RATE * core(key, directions, spread, rotation)

            return theory.top_exponent(draw, key=key, num_steps=steps, num_chains=chains).exponent

        if roots:
            value = theory.critical_spread_of(
                jax.vmap(exponent), highest=1.2 * HIGHEST, points=16, rounds=2
            )
        else:
            value = exponent(GROWTH_SPREAD)
        return Trace(jnp.zeros(1, jnp.int32), {"value": value[None]}, jnp.full((), -1, jnp.int32))

    return cell


@functools.cache
def _critical(kind: str, directions: int) -> float:
    """The predicted critical spread, inf where there is none below eta M = 1."""
    from causal_sgd import theory

    law = theory.lyapunov_haar if kind == "haar" else theory.lyapunov_goe
    return float(
        theory.critical_spread_of(
            lambda spread: law(RATE, MEAN, spread, directions), highest=1 / RATE
        )
    )


def _curve(kind: str) -> np.ndarray:
    """The predicted growth rates over the number of directions."""
    from causal_sgd import theory

    law = theory.lyapunov_haar if kind == "haar" else theory.lyapunov_goe
    return np.array([float(law(RATE, MEAN, GROWTH_SPREAD, int(rank))) for rank in RANKS])


def _log_signal(snapshot: Snapshot) -> Array:
    """log|V'U|, without squares of minute numbers."""
    import jax.numpy as jnp

    from causal_sgd import linalg

    assert snapshot.factor is not None
    inside = linalg.product(snapshot.world.spurious_basis.T, snapshot.factor)
    largest = jnp.max(jnp.abs(inside))
    return jnp.log(largest) + jnp.log(jnp.sum((inside / largest) ** 2)) / 2


def _growth(
    dataset: xr.Dataset, *, after: int = 1, until: int = -1
) -> tuple[np.ndarray, np.ndarray]:
    """Mean growth rates [case] of |V'U| between two recorded frames, and their standard errors."""
    signal, step = dataset["log_signal"], dataset["step"].values
    rates = (signal.isel(step=until) - signal.isel(step=after)) / (step[until] - step[after])
    return rates.mean("seed").values, rates.std("seed", ddof=1).values / np.sqrt(
        rates.sizes["seed"]
    )


def _no_growth(data: Mapping[str, xr.Dataset], kind: str, directions: int) -> float:
    """The spread at which the mean growth rate, fitted by a line in the squared spread, is zero."""
    dataset = data["near"] if kind == "haar" else data["goe"].isel(case=slice(MOST, None))
    dataset = dataset.isel(case=np.flatnonzero(dataset["directions"].values == directions))
    slope, start = np.polyfit(dataset["spread"].values ** 2, _growth(dataset)[0], 1)
    return float(np.sqrt(-start / slope))


def _power(dataset: xr.Dataset, average: str = "mean") -> xr.DataArray:
    """The mean over seeds of the stationary |V'U|^2, or the median, over the r2 mu that pooled training learns."""
    power = final(dataset)["spurious_power"].where(dataset["diverged_at"] < 0)
    power = power.median("seed") if average == "median" else power.mean("seed")
    return power / (MEAN * dataset["directions"])
