"""Rotating eigenbases: heterogeneity stops the spurious part in few directions, feeds it in many.

Environments are redrawn at every step, with spurious cores in a common eigenbasis ("fixed"), in
Haar-distributed ones, or from the Gaussian orthogonal ensemble (GOE). The top Lyapunov exponent of
the product of random matrices decides. For isotropic cores it is an average over a single step
(`theory.lyapunov_haar`, `theory.lyapunov_goe`), and the simulated growth rates agree with it in 1
to 10 directions. With Haar bases heterogeneity stops the spurious part in up to 3 directions, at an
increasing critical spread (in 4 by higher-order terms, next to divergence); with GOE cores in up to
2. In more directions a small vector is turned aside and stretched more than it is shrunk:
heterogeneity makes the spurious part grow faster, and in 10 directions a large one leaves twice
what pooled training learns. One would expect heterogeneity to be useless in between. It is not: a
moderate one still removes more than half of the spurious power in 10 directions, as all exponents
but the first few are negative. Partial rotation lies in between: in 5 directions and more, little
rotation is enough to lose the transition.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from causal_sgd.analysis import final
from causal_sgd.studies import Claim
from causal_sgd.studies._cells import Cell, Options, averaged
from causal_sgd.studies._frames import mean_and_error
from causal_sgd.studies._tables import points

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from causal_sgd.sensing.worlds import World
    from causal_sgd.types import Array, Key, Snapshot, Trace

RATE, MEAN = 0.02, 1.0
MOST = 10
RANKS = np.arange(1.0, MOST + 1)
GROWTH_SPREAD = 12.0  # where a common eigenbasis would let the spurious part die
BOUNDARIES = (("haar", 2), ("haar", 3), ("goe", 2))
SHARES = np.array([0.85, 0.95, 1.05, 1.15])  # of the predicted critical spread
PARTIAL = tuple((rank, rotation) for rank in (2, 5, 10) for rotation in (0.1, 0.3))
POWER = {"directions": (1.0, 2.0, 3.0, 5.0, 10.0), "spread": np.array([0.0, 5, 10, 15, 20, 30, 40])}
BETWEEN = {"directions": (2.0, 3.0, 5.0, 10.0), "rotation": (0.05, 0.1, 0.2, 0.35, 0.6)}
HIGHEST = 40.0  # spread: eta M = 0.8, within the bound on divergence
COHEN = "top Lyapunov exponent (Cohen and Newman 1984)"
CLAIMS = (
    {
        f"growth_{kind}": Claim(
            f"{kind}, 1 to 10 directions, M = 12: largest deviation of the growth rate "
            "from the exponent, in standard errors",
            0,
            4,
            COHEN,
        )
        for kind in ("haar", "goe")
    }
    | {
        "growth_partial": Claim(
            "rotation 0.1 and 0.3: largest deviation from the exponent of the matrix product, "
            "in standard errors",
            0,
            4,
            "top Lyapunov exponent, by products of random matrices",
        ),
    }
    | {
        f"boundary_{kind}_{rank}": Claim(
            f"{kind}, {rank} directions: measured over predicted critical spread", 0.95, 1.05, COHEN
        )
        for kind, rank in BOUNDARIES
    }
    | {
        "stopped": Claim(
            "haar: largest of 1, 2, 3, 5 and 10 directions in which M = 40 leaves below 2 % "
            "of the pooled power (median)",
            3,
            3,
            COHEN,
        ),
        "fed": Claim.finding("haar, 10 directions: spurious power at M = 40 over that at M = 0"),
        "reduced": Claim.finding(
            "haar, 10 directions: smallest spurious power over the spread, over that at M = 0"
        ),
    }
)


def run(
    *, quick: bool = False, key: int = 0, progress: bool | None = None
) -> dict[str, xr.Dataset]:
    """Growth rates with 128 seeds (32 when quick), with 512 (128) near the predicted boundaries,
    and the stationary power with 16 (8).
    """
    from causal_sgd.sweeps import sweep, zipped

    options: Options = {"key": key, "progress": progress}
    seeds = 32 if quick else 128

    def growth(
        label: str,
        cases: Sequence[tuple[float, float, float]],
        *,
        kind: str,
        size: int,
        steps: int,
        seeds: int,
    ) -> xr.Dataset:
        cell = _cell(kind, size, columns=1, init_scale=1e-14, steps=steps, every=20)
        directions, spread, rotation = np.array(cases).T
        axes = {"case": zipped(directions=directions, spread=spread, rotation=rotation)}
        return sweep(cell, axes=axes, seeds=seeds, label=label, **options)

    haar = [(rank, GROWTH_SPREAD, 1.0) for rank in RANKS]
    partial = [(rank, GROWTH_SPREAD, rotation) for rank, rotation in PARTIAL]
    near = [(rank, share * _critical("haar", rank), 1.0) for rank in (2, 3) for share in SHARES]
    goe = haar + [(2, share * _critical("goe", 2), 1.0) for share in SHARES]
    ranks, rotations = np.array(PARTIAL, float).T
    alive = _cell("haar", MOST, columns=None, init_scale=0.1, steps=800, every=10)
    return {
        "haar": growth(
            "growth, Haar", haar + partial, kind="haar", size=MOST, steps=240, seeds=seeds
        ),
        "near": growth("no growth, Haar", near, kind="haar", size=3, steps=400, seeds=4 * seeds),
        "goe": growth("growth, GOE", goe, kind="goe", size=MOST, steps=400, seeds=2 * seeds),
        "power": sweep(
            averaged(alive, after=0.3),
            axes=POWER,
            seeds=8 if quick else 16,
            label="spurious power",
            **options,
        ),
        "products": sweep(
            _product(steps=1000, chains=4, roots=False),
            axes={"case": zipped(directions=ranks, rotation=rotations)},
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
    """Growth rates and critical spreads against the exponents, and the stationary power."""
    values = {}
    for kind in ("haar", "goe"):
        rates, errors = _growth(data[kind].isel(case=slice(MOST)), until=10)
        values[f"growth_{kind}"] = float(np.abs((rates - _curve(kind)) / errors).max())
    rates, errors = _growth(data["haar"].isel(case=slice(MOST, None)), after=6)
    exponents, exponent_errors = mean_and_error(final(data["products"])["value"])
    deviations = (rates - exponents) / np.hypot(errors, exponent_errors)
    values["growth_partial"] = float(np.abs(deviations).max())
    for kind, rank in BOUNDARIES:
        values[f"boundary_{kind}_{rank}"] = _no_growth(data, kind, rank) / _critical(kind, rank)
    power = _power(data["power"])
    died = _power(data["power"], "median").sel(spread=40.0) < 0.02  # bursts last long in a few runs
    largest = power.sel(directions=float(MOST))
    return values | {
        "stopped": float(power["directions"].where(died).max()),
        "fed": float(largest.sel(spread=40.0)),
        "reduced": float(largest.min()),
    }


def table(data: Mapping[str, xr.Dataset]) -> dict[str, xr.Dataset]:
    """Growth rates and their prediction, critical spreads, and the remaining power."""
    from causal_sgd import theory

    tables = {"power over pooled": _power(data["power"]).to_dataset(name="power")}
    fixed = float(theory.lyapunov_two_point(RATE, MEAN, GROWTH_SPREAD))
    for kind in ("haar", "goe"):
        rates, errors = _growth(data[kind].isel(case=slice(MOST)), until=10)
        tables[f"growth, {kind}"] = points(
            {"directions": RANKS},
            {"measured": rates, "standard_error": errors, "theory": _curve(kind), "fixed": fixed},
        )
    curves = final(data["critical"])["value"].isel(seed=0)
    ranks, rotations = BETWEEN["directions"], np.array([0.0, *BETWEEN["rotation"], 1.0])
    predicted = [
        [
            float(theory.critical_spread(RATE, MEAN)),
            *curves.sel(directions=rank).values,
            _critical("haar", int(rank)),
        ]
        for rank in ranks
    ]
    measured = [rank for kind, rank in BOUNDARIES if kind == "haar"]
    return tables | {
        "critical spread": points(
            {"directions": np.array(ranks)[:, None], "rotation": rotations}, {"theory": predicted}
        ),
        "critical spread of Haar bases": points(
            {"directions": measured},
            {"measured": [_no_growth(data, "haar", rank) for rank in measured]},
        ),
    }


def figure(data: Mapping[str, xr.Dataset]) -> Figure:
    """Growth against the number of directions, the critical spread against the rotation, and the
    remaining power against the spread.
    """
    from matplotlib import pyplot as plt

    fig, axes = plt.subplots(1, 3, figsize=(11.5, 3.7))
    _draw_growth(axes[0], data)
    _draw_rotations(axes[1], data)
    power = _power(data["power"])
    shades = plt.get_cmap("viridis")(np.linspace(0.05, 0.9, power.sizes["directions"]))
    for shade, rank in zip(shades, power["directions"].values, strict=True):
        line = power.sel(directions=rank)
        axes[2].plot(power["spread"], line, "o-", ms=3, color=shade, label=f"{rank:g}")
    axes[2].axhline(1, color="0.3", ls=":", lw=1)
    axes[2].set(
        xlabel="spread $M$",
        ylabel="mean $|V^\\top U|^2$ over pooled",
        title="remaining power, Haar bases",
    )
    axes[2].legend(frameon=False, title="directions", ncols=2)
    return fig


def _draw_growth(ax: Axes, data: Mapping[str, xr.Dataset]) -> None:
    from causal_sgd import theory

    for index, (kind, name) in enumerate((("haar", "Haar"), ("goe", "GOE"))):
        rates, errors = _growth(data[kind].isel(case=slice(MOST)), until=10)
        colour = f"C{index}"
        ax.plot(RANKS, _curve(kind), color=colour, lw=1)
        ax.errorbar(RANKS, rates, 2 * errors, fmt="os"[index], ms=4, color=colour, label=name)
    fixed = float(theory.lyapunov_two_point(RATE, MEAN, GROWTH_SPREAD))
    ax.axhline(fixed, color="0.3", ls="--", lw=1, label="common eigenbasis")
    ax.axhline(np.log1p(RATE * MEAN), color="0.3", ls=":", lw=1, label="no heterogeneity")
    ax.axhline(0, color="0.7", lw=0.6, zorder=0)
    ax.set(
        xlabel="spurious directions",
        ylabel="growth rate of $|V^\\top U|$",
        title=f"growth at $M = {GROWTH_SPREAD:g}$",
    )
    ax.legend(frameon=False)


def _draw_rotations(ax: Axes, data: Mapping[str, xr.Dataset]) -> None:
    from causal_sgd import theory

    base = float(theory.critical_spread(RATE, MEAN))
    curves = final(data["critical"])["value"].isel(seed=0)
    rotations = np.array([0.0, *BETWEEN["rotation"], 1.0])
    for index, rank in enumerate(BETWEEN["directions"]):
        between = curves.sel(directions=rank).values
        values = np.array([base, *between, _critical("haar", int(rank))])
        values = np.where(values <= HIGHEST, values, np.nan)
        colour = f"C{index}"
        ax.plot(rotations, values, "-", color=colour, marker=".", label=f"{rank:g} directions")
        last = int(np.flatnonzero(np.isfinite(values))[-1])
        if last < len(rotations) - 1:  # the transition is lost: an arrow leads off the axis
            ax.annotate(
                "",
                (rotations[last], HIGHEST),
                (rotations[last], values[last]),
                arrowprops={"arrowstyle": "->", "color": colour, "lw": 1},
            )
    for kind, rank in BOUNDARIES:
        if kind == "haar":
            ax.plot(1, _no_growth(data, "haar", rank), "D", mfc="none", color="black", ms=6)
    ax.plot([], [], "D", mfc="none", color="black", ms=6, label="measured")
    ax.set(
        xlabel="rotation",
        ylabel="critical spread $M_c$",
        ylim=(0, HIGHEST),
        title="from fixed to Haar bases",
    )
    ax.legend(frameon=False, loc="lower right")


def _core(kind: str, size: int) -> Callable[[Key, Array, float | Array, float | Array], Array]:
    """(key, directions, spread, rotation) -> a core [size, size], heterogeneous in some directions.

    One program serves every number of directions: outside their block the eigenvalue is -1/eta,
    which a step wipes out. Inside, the core is that of `worlds.two_point` or `worlds.goe`.
    """
    import jax.numpy as jnp

    from causal_sgd import linalg, random

    dtype = jnp.result_type(float)

    def core(key: Key, directions: Array, spread: float | Array, rotation: float | Array) -> Array:
        inside = jnp.arange(size) < directions
        block = (inside[:, None] & inside[None, :]).astype(float)
        rest = jnp.diag(1.0 - inside)
        if kind == "goe":
            ensemble = random.goe(random.normals(key, random.goe_summand_size(size), dtype), size)
            return MEAN * jnp.diag(inside.astype(float)) - rest / RATE + spread * block * ensemble
        normals = random.normals(key, size * size, dtype).reshape(size, size)
        partial = (1 - rotation) * jnp.eye(size) + rotation * (block * normals + rest)
        frame = linalg.orthonormal(partial)
        signs = jnp.where(random.bits(key, size, stream=1) >> 31, 1.0, -1.0)
        values = jnp.where(inside, MEAN + spread * signs, -1 / RATE)
        return linalg.product(frame * values[None, :], frame.T)

    return core


def _cell(
    kind: str, size: int, *, columns: int | None, init_scale: float, steps: int, every: int
) -> Cell:
    """HeteroSGD by population gradients, with a new environment at every step."""
    import jax.numpy as jnp
    import optax

    from causal_sgd.sensing import measurements, metrics, models, worlds
    from causal_sgd.training import run, samplers, sgd

    core = _core(kind, size)
    nature = {"dim": size + 1, "invariant_rank": 1, "spurious_rank": size, "basis": "canonical"}

    def cell(key: Key, *, directions: Array, spread: Array, rotation: float | Array = 1.0) -> Trace:
        def evolve(key: Key, step: Array, world: World) -> World:
            return world._replace(spurious_cores=core(key, directions, spread, rotation)[None])

        algorithm = sgd(
            world=worlds.discrete(eigenvalues=jnp.zeros(1), **nature),
            sampler=samplers.hetero(batch_size=1),
            measurement=measurements.population(),
            model=models.factored(dim=size + 1, rank=columns, init_scale=init_scale),
            optimizer=optax.sgd(RATE),
            evolve=evolve,
        )
        recorded = {"log_signal": _log_signal, "spurious_power": metrics.spurious_power}
        return run(key, algorithm=algorithm, metrics=recorded, num_steps=steps, record_every=every)

    return cell


def _product(*, steps: int, chains: int, roots: bool) -> Cell:
    """Theory as a cell: the top exponent of a random matrix product, or the spread of its root."""
    import jax
    import jax.numpy as jnp

    from causal_sgd import theory
    from causal_sgd.types import Trace

    core = _core("haar", MOST)

    def cell(key: Key, *, directions: Array, rotation: Array) -> Trace:
        def exponent(spread: float | Array) -> Array:
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
    """log|V'U|, without squaring minute numbers."""
    import jax.numpy as jnp

    from causal_sgd import linalg

    factor = snapshot.model.factor(snapshot.params)
    inside = linalg.product(snapshot.world.spurious_basis.T, factor)
    largest = jnp.max(jnp.abs(inside))
    return jnp.log(largest) + jnp.log(jnp.sum((inside / largest) ** 2)) / 2


def _growth(
    dataset: xr.Dataset, *, after: int = 1, until: int = -1
) -> tuple[np.ndarray, np.ndarray]:
    """Mean growth rates [case] of |V'U| between two recorded frames, and their standard errors."""
    signal, step = dataset["log_signal"], dataset["step"].values
    rates = (signal.isel(step=until) - signal.isel(step=after)) / (step[until] - step[after])
    return mean_and_error(rates)


def _no_growth(data: Mapping[str, xr.Dataset], kind: str, directions: int) -> float:
    """The spread at which the mean growth rate, fitted linearly in the squared spread, vanishes."""
    dataset = data["near"] if kind == "haar" else data["goe"].isel(case=slice(MOST, None))
    dataset = dataset.isel(case=np.flatnonzero(dataset["directions"].values == directions))
    slope, intercept = np.polyfit(dataset["spread"].values ** 2, _growth(dataset)[0], 1)
    return float(np.sqrt(-intercept / slope))


def _power(dataset: xr.Dataset, average: str = "mean") -> xr.DataArray:
    """The stationary |V'U|^2, mean or median over seeds, over the r2 mu of pooled training."""
    power = final(dataset)["spurious_power"].where(dataset["diverged_at"] < 0)
    power = power.median("seed") if average == "median" else power.mean("seed")
    return power / (MEAN * dataset["directions"])
