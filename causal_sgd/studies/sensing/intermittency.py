"""On-off intermittency: near the transition the spurious signal is off for long and bursts, by power laws that noise cuts.

Near zero log|u| is a random walk with drift lambda and variance v = Var log|1 + eta s| a step, and the nonlinearity is a
barrier on top (one direction, population gradients). Below the transition the density of the quiet phases is therefore
~ |u|^(kappa - 1) with kappa = 2 lambda/v, exactly the root of E|1 + eta s|^-kappa = 1; their lengths n fall like n^(-3/2), cut
off only at 2 v/lambda^2 steps; and the mean of u^2 falls linearly to zero, while the median is minute long before.

A finite batch puts a second barrier below. One would expect it where the noise that the invariant signal carries over into
the spurious row of U is seen, M eta/sqrt(2 m); there lies the floor of |V'U|. But that column is damped by sigma*. The spurious
direction's own column is fed only through what the noise made of the rest of U, by two factors of the noise: its barrier
lies lower by L = log m + const. below the level under which a phase counts as quiet, and phases longer than about
8 L^2/(pi^2 v) steps are exponentially rare. This grows so slowly that batches of 1,000 leave no power law, and even those of
256,000 bursts every few hundred steps.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from causal_sgd.analysis import density_exponent, laminar_phases, phase_exponent
from causal_sgd.experiment import Experiment
from causal_sgd.studies import Claim

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure

RATE, MEAN = 0.1, 1.0
POPULATION = Experiment(
    dim=2, invariant_rank=1, spurious_rank=1, measurement="population", model="diagonal", basis="canonical",
    learning_rate=RATE, mean=MEAN, init_scale=0.1, steps=20_000, record_every=1, metrics=("spurious_signal",),
)  # fmt: skip
SHARES = (0.8, 0.85, 0.9, 0.95, 0.97, 0.99)  # of the critical spread
FINITE = POPULATION.replace(dim=6, measurement="gaussian-law", model="factored", steps=10_000)
BATCH_SIZES = (1000, 4000, 16_000, 64_000, 256_000)
AFTER = 0.2  # the transient
LEVEL = 0.1  # below it the signal is quiet
WINDOWS = {
    0.9: (1e-8, 0.1, 0.1),
    0.95: (1e-12, 0.1, 0.15),
    0.97: (1e-12, 0.1, 0.2),
}  # of |u|; and the tolerance
PHASES = 30, 3000  # the window of lengths
LONGEST = 3  # quiet phases a seed, from which the cutoff at a finite batch is measured
CLAIMS = {
    f"density_{share}": Claim(
        f"M = {share:g} M_c: exponent of the density of log|u| over that of theory", 1 - tolerance, 1 + tolerance,
        "random walk under a barrier",
    )
    for share, (*_, tolerance) in WINDOWS.items()
} | {
    f"phases_{share}": Claim(
        f"M = {share:g} M_c: exponent of the lengths of quiet phases, cut off at 2 v/lambda^2", 1.43, 1.57,
        "first return of a random walk",
    )
    for share in (0.9, 0.95, 0.97, 0.99)
} | {
    "order": Claim("mean of u^2, linear in M^2 up to 0.97 M_c: its root over M_c", 0.98, 1.02, "linear order parameter"),
    "median": Claim("M = 0.95 M_c: median of |u|", 0, 0.01, "off most of the time"),
    "cutoff": Claim(
        "finite batch at M_c: slope of sqrt(length at which quiet phases end) in log m over sqrt(8/(pi^2 v))", 0.75,
        1.25, "this study: a barrier at 1/m",
    ),
    "floor": Claim(
        "finite batch at M_c: power of m with which the first percentile of |V'U| falls", 0.45, 0.6,
        "noise of the measurements",
    ),
}  # fmt: skip


def run(
    *, quick: bool = False, key: int = 0, progress: bool | None = None
) -> dict[str, xr.Dataset]:
    """Every step of 128 seeds (32 when quick) at six shares of the critical spread, and of 96 (24) at five batch sizes."""
    from causal_sgd import theory
    from causal_sgd.sweeps import sweep

    critical = float(theory.critical_spread(RATE, MEAN))
    options: dict[str, Any] = {"key": key, "progress": progress}
    return {
        "population": sweep(
            POPULATION.cell(), axes={"spread": critical * np.array(SHARES)}, seeds=32 if quick else 128,
            label="on-off intermittency", **options,
        ),
        "finite": sweep(
            FINITE.cell(), axes={"batch_size": BATCH_SIZES, "spread": [critical]}, seeds=24 if quick else 96,
            label="finite batches", **options,
        ),
    }  # fmt: skip


def measure(data: Mapping[str, xr.Dataset]) -> dict[str, float]:
    """Exponents of density and quiet phases, the order parameter, and the cutoff by noise."""
    from causal_sgd.analysis import order_parameter_boundary

    critical, found = _critical(), {}
    for share, (low, high, _) in WINDOWS.items():
        *_, theta = _walk(share)
        found[f"density_{share}"] = (
            density_exponent(_signal(data, share), low=low, high=high).exponent / theta
        )
    for share in (0.9, 0.95, 0.97, 0.99):
        lengths = laminar_phases(_signal(data, share), LEVEL)
        found[f"phases_{share}"] = phase_exponent(
            lengths, shortest=PHASES[0], longest=PHASES[1], cutoff=_walk(share)[0]
        ).exponent
    power = _power(data)
    squares = power.to_dataset(name="power").assign(diverged_at=data["population"].diverged_at)
    linear = squares.isel(spread=slice(0, SHARES.index(0.97) + 1))
    lows = [np.quantile(_finite(data, size), 0.01) for size in BATCH_SIZES]
    return found | {
        "order": order_parameter_boundary(linear, metric="power").value / critical,
        "median": float(np.median(_signal(data, 0.95))),
        "cutoff": np.polyfit(np.log(BATCH_SIZES), np.sqrt(_cutoffs(data)), 1)[0]
        / _predicted_slope(),
        "floor": -np.polyfit(np.log(BATCH_SIZES), np.log(lows), 1)[0],
    }


def figure(data: Mapping[str, xr.Dataset]) -> Figure:
    """Density of log|u|, lengths of quiet phases, mean and median against the spread, and the cutoff by noise."""
    import matplotlib as mpl
    from matplotlib import pyplot as plt

    drawing, ((left, right), (below, last)) = plt.subplots(2, 2, figsize=(8.6, 6.4))
    shades = mpl.colormaps["viridis"](np.linspace(0, 0.8, 4))
    edges = np.linspace(-12, 1, 66)
    middles = (edges[1:] + edges[:-1]) / 2
    for share, colour in zip((0.8, 0.9, 0.95, 0.97), shades, strict=True):
        values = _signal(data, share)
        logs = np.log10(values[values > 0])
        density = np.histogram(logs, edges)[0] / values.size / np.diff(edges)
        left.semilogy(
            middles,
            np.where(density > 0, density, np.nan),
            color=colour,
            label=f"$M = {share:g}\\,M_c$",
        )
        line = middles[(middles > -11.5) & (middles < -1)]
        anchor = np.interp(-1, middles, density)
        left.semilogy(
            line,
            anchor * 10 ** (-_walk(share)[2] * (line + 1)),
            color="black",
            ls=(0, (4, 3)),
            lw=1,
        )
    left.plot([], [], color="black", ls=(0, (4, 3)), lw=1, label=r"theory: $|u|^{\,2\lambda/v}$")
    left.set(
        xlabel=r"$\log_{10}|u|$",
        ylabel="density",
        title="off most of the time (population)",
        ylim=(1e-4, 2),
    )
    left.legend(frameon=False)

    bins = 2 * np.unique(
        np.round(np.geomspace(3, 3000, 26)).astype(int)
    )  # an excursion has an odd number of steps
    centres = np.sqrt(bins[1:] * bins[:-1])
    shown = [("population, $0.99\\,M_c$", _signal(data, 0.99), "black")]
    colours = mpl.colormaps["plasma"](np.linspace(0.1, 0.8, len(BATCH_SIZES)))
    shown += [
        (f"$m = {size:,}$".replace(",", "\\,"), _finite(data, size), colour)
        for size, colour in zip(BATCH_SIZES, colours, strict=True)
    ]
    for label, signal, colour in shown:
        lengths = laminar_phases(signal, LEVEL)
        share = np.histogram(lengths, bins)[0] / len(lengths) / np.diff(bins)
        right.loglog(
            centres, np.where(share > 0, share, np.nan), ".-", color=colour, label=label, ms=3, lw=1
        )
    straight = np.array([10.0, 5000])
    right.loglog(straight, 3 * straight**-1.5, color="0.4", ls=(0, (4, 3)), lw=1)
    right.annotate("$n^{-3/2}$", (400, 3 * 400**-1.5), (4, 4), textcoords="offset points")
    right.set(
        xlabel="steps $n$ with $|V^\\top U| < 0.1$",
        ylabel="probability",
        title="quiet phases, cut by noise",
    )
    right.set_ylim(1e-7, 0.2)
    right.legend(frameon=False, fontsize="x-small")

    squared = np.array(SHARES) ** 2
    mean = _power(data).mean("seed")
    medians = [np.median(_signal(data, share) ** 2) for share in SHARES]
    below.plot(squared, mean, "o", label="mean")
    kept = slice(0, SHARES.index(0.97) + 1)
    slope, start = np.polyfit(squared[kept], mean.values[kept], 1)
    below.plot([squared[0], -start / slope], [slope * squared[0] + start, 0], color="0.4", lw=0.9)
    below.plot(squared, medians, "s", label="median")
    below.axvline(1, color="0.3", ls=":", lw=1)
    below.set(xlabel="$(M / M_c)^2$", ylabel="$u^2$", title="only the mean is linear through zero")
    below.legend(frameon=False)

    sizes = np.array(BATCH_SIZES, float)
    roots = np.sqrt(_cutoffs(data))
    last.semilogx(sizes, roots, "o", label="measured")
    middle = np.mean(np.log(sizes))
    theory_line = roots.mean() + _predicted_slope() * (np.log(sizes) - middle)
    last.semilogx(
        sizes, theory_line, color="black", ls=(0, (4, 3)), lw=1, label=r"slope $\sqrt{8/(\pi^2 v)}$"
    )
    last.set(
        xlabel="batch size $m$",
        ylabel=r"$\sqrt{n_c}$",
        title="mean excess $n_c$ of the longest quiet phases",
    )
    last.legend(frameon=False)
    return drawing


def _critical() -> float:
    from causal_sgd import theory

    return float(theory.critical_spread(RATE, MEAN))


def _walk(share: float) -> tuple[float, float, float]:
    """At a share of M_c: where the quiet phases are cut off, 2 v/lambda^2; the variance v; and the tail exponent."""
    from causal_sgd import theory

    spread = share * _critical()
    drift = float(theory.lyapunov_two_point(RATE, MEAN, spread))
    variance = float(theory.log_variance_two_point(RATE, MEAN, spread))
    theta = float(theory.tail_exponent(RATE, np.array([MEAN + spread, MEAN - spread])))
    return 2 * variance / drift**2, variance, theta


def _predicted_slope() -> float:
    """Of sqrt(n_c) = L sqrt(8/(pi^2 v)) in L: the slowest mode between a reflecting and an absorbing barrier."""
    return float(np.sqrt(8 / (np.pi**2 * _walk(1.0)[1])))


def _after(values: xr.DataArray) -> xr.DataArray:
    return values.isel(step=slice(int(AFTER * values.sizes["step"]), None))


def _signal(data: Mapping[str, xr.Dataset], share: float) -> np.ndarray:
    """|u| [seed, step] after the transient, population gradients."""
    return _after(data["population"].spurious_signal.isel(spread=SHARES.index(share))).values


def _finite(data: Mapping[str, xr.Dataset], size: int) -> np.ndarray:
    """|V'U| [seed, step] after the transient, at a batch size."""
    return _after(data["finite"].spurious_signal.sel(batch_size=size).isel(spread=0)).values


def _power(data: Mapping[str, xr.Dataset]) -> xr.DataArray:
    """Time averages of u^2 [spread, seed]."""
    return (_after(data["population"].spurious_signal).astype(float) ** 2).mean("step")


def _cutoffs(data: Mapping[str, xr.Dataset]) -> np.ndarray:
    """For each batch size the mean excess of the longest quiet phases over the shortest of them: their decay time."""
    found = []
    for size in BATCH_SIZES:
        signal = _finite(data, size)
        longest = np.sort(laminar_phases(signal, LEVEL))[-LONGEST * len(signal) - 1 :]
        found.append(np.mean(longest[1:] - longest[0]))
    return np.array(found)
