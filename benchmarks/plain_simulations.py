"""Simulate HeteroSGD in plain NumPy: the numbers with which studies compare themselves.

Run `python benchmarks/plain_simulations.py` for all tables, or with some of their names; `--seeds`
changes their size. Nothing of the package is used: a batch gradient is drawn from its law, written
out below, with NumPy's generator. Each table prints values and standard errors, from which the
studies take their references and intervals. All take about half an hour on one core.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

CHUNK = 256  # runs at a time: their matrices fit into the cache


class Setting(NamedTuple):
    """One cell: d, ranks, steps and numbers of HeteroSGD with eigenvalues mu +- M."""

    dim: int
    invariant: int
    spurious: int
    rate: float
    spread: float
    batch: float
    steps: int
    mean: float = 1.0
    noise: float = 0.0
    columns: int | None = None  # of a Gaussian start; the start is a multiple of I without them
    start: float = 1e-3
    common: bool = False  # one sign for all spurious directions
    pooled: bool = False  # an environment for every example


def gradient(random: np.random.Generator, residual: np.ndarray, cell: Setting) -> np.ndarray:
    """The batch gradient times m [n, d, d], of one environment, for residuals R [n, d, d].

    (|R| Q - sigma g sqrt Q) R/|R| + sqrt(RR) (W - <W, R/|R|> R/|R|) with Q a chi-square of m, g
    normal, W a GOE matrix, and RR the sum of the squared residuals.
    """
    runs = len(residual)
    normals = random.standard_normal(residual.shape, dtype=np.float32)
    square = np.einsum("nij,nij->n", residual, residual)
    along = np.einsum("nij,nij->n", normals, residual)
    norm, noise = np.sqrt(square), cell.noise
    q = random.chisquare(cell.batch, runs)
    g = random.standard_normal(runs)
    rest = random.chisquare(cell.batch - 1, runs) if noise else 0.0
    total = square * q - 2 * norm * noise * g * np.sqrt(q) + noise**2 * (g * g + rest)
    scale = np.sqrt(total)
    part = q - noise * g * np.sqrt(q) / norm - scale * along / square
    goe = (normals + normals.transpose(0, 2, 1)) * (scale / 2).astype(np.float32)[:, None, None]
    return goe + part.astype(np.float32)[:, None, None] * residual


def mixture(random: np.random.Generator, error: np.ndarray, cell: Setting) -> np.ndarray:
    """The gradient times m [n, d, d] of batches whose examples each draw their environment.

    The error R = U U' - A* - mu v v' is that of the mean signal, and the residual of an example R
    -+ M v v'. The examples are drawn in the plane of R and v v', and a GOE matrix outside of it.
    """
    place = cell.invariant  # of the only spurious direction
    norm = np.sqrt(np.einsum("nij,nij->n", error, error))
    first = error / norm[:, None, None]
    along = first[:, place, place]
    second = -along[:, None, None] * first
    second[:, place, place] += 1
    across = np.sqrt(1 - along**2)
    second /= across[:, None, None]
    z = random.standard_normal((2, len(error), int(cell.batch)))
    signs = random.choice([-1.0, 1.0], z[0].shape)
    inner = norm[:, None] * z[0]
    inner -= cell.spread * signs * (along[:, None] * z[0] + across[:, None] * z[1])
    normals = random.standard_normal(error.shape, dtype=np.float32)
    scale = np.sqrt((inner * inner).sum(1))
    total = (normals + normals.transpose(0, 2, 1)) * (scale / 2)[:, None, None]
    for direction, coordinate in ((first, z[0]), (second, z[1])):
        part = (inner * coordinate).sum(1) - scale * np.einsum("nij,nij->n", normals, direction)
        total += part[:, None, None] * direction
    return total.astype(np.float32)


def frames(cell: Setting, runs: int, seed: int, every: int) -> Iterator[tuple[int, np.ndarray]]:
    """The step and U [runs, d, k] after every so many steps. One seed has one order of signs."""
    signs, random = np.random.default_rng((seed, 0)), np.random.default_rng((seed, 1))
    dim, first, last = cell.dim, cell.invariant, cell.invariant + cell.spurious
    if cell.columns is None:
        u = np.tile(np.float32(cell.start) * np.eye(dim, dtype=np.float32), (runs, 1, 1))
    else:
        shape = (runs, dim, cell.columns)
        u = np.float32(cell.start) * random.standard_normal(shape, dtype=np.float32)
    diagonal = np.arange(dim)
    rate = np.float32(cell.rate / cell.batch)
    with np.errstate(all="ignore"):
        for step in range(1, cell.steps + 1):
            eigenvalues = np.zeros((runs, dim), np.float32)
            eigenvalues[:, :first] = 1
            eigenvalues[:, first:last] = cell.mean
            if not cell.pooled:
                plus = signs.random((runs, 1 if cell.common else cell.spurious)) < 0.5
                eigenvalues[:, first:last] += np.where(plus, cell.spread, -cell.spread)
            residual = u @ u.transpose(0, 2, 1)
            residual[:, diagonal, diagonal] -= eigenvalues
            law = mixture if cell.pooled else gradient
            u = u - rate * (law(random, residual, cell) @ u)
            if step % every == 0:
                yield step, u


Measure = Callable[[np.ndarray, Setting], np.ndarray]


def invariant_power(u: np.ndarray, cell: Setting) -> np.ndarray:
    """|U*' U|^2 of every run."""
    return np.square(u[:, : cell.invariant], dtype=float).sum((1, 2))


def spurious_power(u: np.ndarray, cell: Setting) -> np.ndarray:
    """|V' U|^2 of every run."""
    rows = slice(cell.invariant, cell.invariant + cell.spurious)
    return np.square(u[:, rows], dtype=float).sum((1, 2))


def complement_power(u: np.ndarray, cell: Setting) -> np.ndarray:
    """The squared norm of U outside all signals, of every run."""
    return np.square(u[:, cell.invariant + cell.spurious :], dtype=float).sum((1, 2))


def distance(u: np.ndarray, cell: Setting, mean: float = 0.0) -> np.ndarray:
    """|U U' - A* - mean V V'|_F of every run."""
    error = u @ u.transpose(0, 2, 1)
    for j in range(cell.invariant + cell.spurious):
        error[:, j, j] -= 1 if j < cell.invariant else mean
    return np.sqrt(np.square(error, dtype=float).sum((1, 2)))


def simulate(
    cell: Setting, runs: int, measures: Sequence[Measure], *, every: int, after: float
) -> list[np.ndarray]:
    """Measures [runs, frames] after a share of the steps, with the same signs for every cell."""
    parts: list[list[np.ndarray]] = []
    for seed in range(math.ceil(runs / CHUNK)):
        size = min(CHUNK, runs - seed * CHUNK)
        rows = [
            [measure(u, cell) for measure in measures]
            for step, u in frames(cell, size, seed, every)
            if step > after * cell.steps
        ]
        parts.append([np.stack(column, 1) for column in zip(*rows, strict=True)])
    return [np.concatenate(column) for column in zip(*parts, strict=True)]


def bootstrap(
    statistic: Callable[..., float], *samples: np.ndarray, resamples: int = 400
) -> tuple[float, float]:
    """A statistic of samples whose first axis is the run, and its standard error."""
    random = np.random.default_rng(0)
    count = len(samples[0])
    values = []
    for _ in range(resamples):
        index = random.integers(0, count, count)
        values.append(statistic(*(sample[index] for sample in samples)))
    return float(statistic(*samples)), float(np.std(values, ddof=1))


def show(name: str, value: float, error: float) -> None:
    """Print a value and its standard error."""
    print(f"{name}: {value:.5g} +- {error:.2g}", flush=True)


DIAGRAM = Setting(50, 3, 3, 0.1, 0.0, 4000, 600)
RATES = np.geomspace(0.02, 0.2, 8)


def diagram(runs: int, *, common: bool = False, indices: Sequence[int] = (0, 3, 5, 7)) -> None:
    """The median final |V'U| of surviving runs, and the share of the diverged."""
    for index in indices:
        for spread in range(1, 8):
            cell = DIAGRAM._replace(rate=RATES[index], spread=spread, common=common)
            (power,) = simulate(cell, runs, [spurious_power], every=600, after=0)
            alive = np.sqrt(power[np.isfinite(power[:, 0]), 0])
            name = f"eta {RATES[index]:.3f}, M {spread}"
            if 1 - len(alive) / runs > 0:
                share = 1 - len(alive) / runs
                show(f"{name}: diverged", share, math.sqrt(share * (1 - share) / runs))
            if len(alive) > runs / 2:
                show(f"{name}: |V'U|", *bootstrap(lambda x: float(np.median(x)), alive))


def diagram_common(runs: int) -> None:
    """The same with one sign for all spurious directions, at the third rate."""
    diagram(runs, common=True, indices=(5,))


NEAR = Setting(6, 1, 1, 0.1, 0.0, 16_000, 3000, start=0.1)


def label_noise(runs: int) -> None:
    """Mean |V'U|^2 near M_c with label noise or smaller batches, over that without either."""
    critical = math.sqrt(2 * NEAR.mean / NEAR.rate + NEAR.mean**2)
    for share in (0.8, 0.9, 1.0):
        plain = NEAR._replace(spread=share * critical)
        levels = {(1, "noise"): plain}
        for factor in (4, 16):
            noise = math.sqrt((factor - 1) * (plain.spread**2 + plain.mean**2))
            levels[factor, "noise"] = plain._replace(noise=noise)
            levels[factor, "batch"] = plain._replace(batch=plain.batch // factor)
        powers = {
            key: simulate(cell, runs, [spurious_power], every=10, after=0.2)[0].mean(1)
            for key, cell in levels.items()
        }
        for key, power in powers.items():
            show(f"{share:g} M_c, {key}: level", *bootstrap(lambda x: float(np.mean(x)), power))
        for factor in (4, 16):
            pairs = {
                "noise over batch": (powers[factor, "noise"], powers[factor, "batch"]),
                "noise over plain": (powers[factor, "noise"], powers[1, "noise"]),
            }
            for name, pair in pairs.items():
                ratio = bootstrap(lambda x, y: float(np.mean(x) / np.mean(y)), *pair)
                show(f"{share:g} M_c, factor {factor}, {name}", *ratio)


def rounding(runs: int) -> None:
    """The boundary by the order parameter at m = 4000, and the slope of its inverse at M_c."""
    critical = math.sqrt(2 * NEAR.mean / NEAR.rate + NEAR.mean**2)
    cell = NEAR._replace(steps=4000)

    def levels(spread: float, batch: float) -> np.ndarray:
        changed = cell._replace(spread=spread, batch=batch)
        return simulate(changed, runs, [spurious_power], every=10, after=0.2)[0].mean(1)

    shares, sizes = np.array([0.8, 0.85, 0.9, 0.95]), np.array([1000, 4000, 16_000, 64_000])

    def root(*samples: np.ndarray) -> float:
        slope, intercept = np.polyfit(shares**2, [sample.mean() for sample in samples], 1)
        return float(np.sqrt(-intercept / slope))

    def slope(*samples: np.ndarray) -> float:
        inverse = [1 / sample.mean() for sample in samples]
        ends = np.log(np.abs(1 + NEAR.rate * (NEAR.mean + critical * np.array([-1, 1]))))
        return float(np.polyfit(np.log(sizes), inverse, 1)[0] / (2 * NEAR.rate / ends.var()))

    near = [levels(share * critical, 4000) for share in shares]
    show("m 4000: measured over critical spread", *bootstrap(root, *near))
    at = [levels(critical, size) for size in sizes]
    show("M_c: slope in log m over 2 eta / v", *bootstrap(slope, *at))


TRAJECTORY = Setting(50, 3, 3, 0.1, 0.0, 16_000, 400)


def trajectories(runs: int) -> None:
    """What HeteroSGD learns at M = 1 and 6, in the second half of the run."""
    for spread in (1.0, 6.0):
        cell = TRAJECTORY._replace(spread=spread)
        measures = [spurious_power, invariant_power, distance]
        powers = simulate(cell, runs, measures, every=8, after=0.5)
        spurious, invariant, error = powers
        show(f"M {spread:g}: mean |V'U|^2", *bootstrap(lambda x: float(np.mean(x)), spurious))
        for name, value in (
            ("|V'U|", np.sqrt(spurious)),
            ("|U*'U|", np.sqrt(invariant)),
            ("distance", error),
        ):
            show(
                f"M {spread:g}: late median {name}",
                *bootstrap(lambda x: float(np.median(x)), value),
            )
            last = value[:, -1]
            show(
                f"M {spread:g}: last median {name}", *bootstrap(lambda x: float(np.median(x)), last)
            )


def distances(runs: int) -> None:
    """The median distance to A* in the second half, where studies compare it with the floor."""
    label = [Setting(40, 2, 1, 0.05, 8.0, 8000, 800, noise=n) for n in (0, 2, 4, 8, 16, 32)]
    spread = Setting(30, 2, 1, 0.1, 6.0, 1000, 600)
    sizes = [spread._replace(batch=m) for m in (500, 1000, 2000, 4000)]
    for cell in [*sizes, spread._replace(spread=8.0), *label]:
        (error,) = simulate(cell, runs, [distance], every=5, after=0.5)
        name = f"d {cell.dim}, M {cell.spread:g}, m {cell.batch:g}, noise {cell.noise:g}"
        show(name, *bootstrap(lambda x: float(np.nanmedian(x)), error))


COLUMNS = Setting(24, 2, 1, 0.1, 6.0, 500, 3000, start=0.1)


def columns(runs: int) -> None:
    """The power outside all signals over the number of columns, at M = 6."""
    for count in (2, 4, 8, 24):
        cell = COLUMNS._replace(columns=count)
        (power,) = simulate(cell, runs, [complement_power], every=10, after=0.4)
        lost = ~np.isfinite(power).all(1)
        print(f"k {count}: diverged {lost.mean():.3g}")
        power = power[~lost]
        show(f"k {count}: mean", *bootstrap(lambda x: float(np.mean(x)), power))
        show(f"k {count}: median", *bootstrap(lambda x: float(np.median(x)), power))
    cell = COLUMNS._replace(columns=3, spread=2.0)
    (power,) = simulate(cell, runs, [spurious_power], every=10, after=0.4)
    show("M 2, k 3: mean |V'U|^2", *bootstrap(lambda x: float(np.mean(x)), power))


def quiet(runs: int) -> None:
    """The same at a negative mean, without bursts."""
    for batch in (250, 1000):
        cell = COLUMNS._replace(columns=2, batch=batch, spread=4.0, mean=-1.0, steps=1000)
        (power,) = simulate(cell, runs, [complement_power], every=5, after=0.2)
        show(f"quiet, m {batch}: mean", *bootstrap(lambda x: float(np.mean(x)), power))


SMALL = Setting(30, 2, 1, 0.1, 6.0, 80, 2000, pooled=True)


def small_batches(runs: int) -> None:
    """The distance of PooledSGD to A* + mean A_e at batch 80."""
    for rate in (0.01, 0.05, 0.1):
        cell = SMALL._replace(rate=rate)

        def nearest(u: np.ndarray, cell: Setting) -> np.ndarray:
            return distance(u, cell, cell.mean)

        (error,) = simulate(cell, runs, [nearest], every=40, after=0.6)
        error = error[np.isfinite(error).all(1)]
        show(f"eta {rate:g}: median distance", *bootstrap(lambda x: float(np.median(x)), error))


OTHERS, SHARES = np.array([0.5, 1.0, 3.0]), np.array([0.5, 0.3, 0.2])


def critical_mass(rate: float, outlier: float) -> float:
    """The mass of the outlier at which the exponent vanishes."""
    growth = float(np.log1p(rate * OTHERS) @ SHARES)
    return growth / (growth - math.log(abs(1 + rate * outlier)))


def outliers(runs: int) -> None:
    """The root of a line through the order parameter below the critical mass, over that mass."""
    rate, steps = 0.1, 10_000
    shares = np.array([0.8, 0.85, 0.9, 0.95])
    for outlier in (-2.0, -5.0, -8.0, -12.0, -15.0):
        mass = shares * critical_mass(rate, outlier)
        random = np.random.default_rng(0)
        u, total, count = np.full((runs, len(shares)), 0.1), np.zeros((runs, len(shares))), 0
        for step in range(1, steps + 1):
            draw = random.random((runs, 1))
            kind = np.searchsorted(np.cumsum(SHARES[:-1]), random.random((runs, 1)))
            s = np.where(draw < mass, outlier, OTHERS[kind])
            u = u * (1 + rate * (s - u * u))
            if step % 10 == 0 and step > 0.2 * steps:
                total, count = total + u * u, count + 1
        levels = total / count

        def root(sample: np.ndarray) -> float:
            slope, intercept = np.polyfit(shares, sample.mean(0), 1)
            return float(-intercept / slope)

        show(f"outlier {outlier:g}: measured over critical mass", *bootstrap(root, levels))


def floors(runs: int) -> None:
    """The median distance of the linearised theory over its root mean square of ordinary rows.

    An entry of an invariant column outside the signals is multiplied by 1 - eta, one in a spurious
    row by 1 + eta (s - 1), and one of the symmetric part inside by 1 - 2 eta. All receive the noise
    of an environment of the variance s^2 + sigma_y^2.
    """
    label = [Setting(40, 2, 1, 0.05, 8.0, 1, 800, noise=n) for n in (0, 2, 4, 8, 16, 32)]
    spreads = [Setting(30, 2, 1, 0.1, m, 1, 600) for m in (6.0, 8.0)]
    for cell in [*label, *spreads, TRAJECTORY._replace(spread=6.0)]:
        random = np.random.default_rng(0)
        r, eta = cell.invariant, cell.rate
        outer = np.zeros((runs, cell.dim - r, r))
        diagonal, inner = np.zeros((runs, r)), np.zeros((runs, r * (r - 1) // 2))
        squares = []
        for step in range(1, cell.steps + 1):
            s = cell.mean + random.choice([-cell.spread, cell.spread], (runs, cell.spurious))
            scale = np.sqrt((s * s).sum(1) + cell.noise**2)[:, None]
            factor = np.full((runs, cell.dim - r), 1 - eta)
            factor[:, : cell.spurious] = 1 + eta * (s - 1)
            kick = random.standard_normal(outer.shape) * scale[:, :, None]
            outer = factor[:, :, None] * outer + eta * kick
            diagonal *= 1 - 2 * eta
            diagonal += 2 * eta * 2**0.5 * scale * random.standard_normal(diagonal.shape)
            inner = (1 - 2 * eta) * inner + 2 * eta * scale * random.standard_normal(inner.shape)
            if step > cell.steps / 2 and step % 5 == 0:
                square = 2 * (outer**2).sum((1, 2)) + (diagonal**2).sum(1)
                squares.append(square + 2 * (inner**2).sum(1))
        variance = cell.spurious * (cell.spread**2 + cell.mean**2) + cell.noise**2
        power = 2 * r * (cell.dim - r) * eta / (2 - eta) + r * (r + 1) * eta / (1 - eta)
        ratio = np.sqrt(np.stack(squares, 1) / (variance * power))
        name = f"d {cell.dim}, M {cell.spread:g}, noise {cell.noise:g}"
        show(f"{name}: all", *bootstrap(lambda x: float(np.median(x)), ratio))
        show(f"{name}: last", *bootstrap(lambda x: float(np.median(x)), ratio[:, -1]))


TABLES: dict[str, tuple[Callable[[int], None], int]] = {
    "diagram": (diagram, 512),
    "diagram_common": (diagram_common, 256),
    "label_noise": (label_noise, 1024),
    "rounding": (rounding, 512),
    "trajectories": (trajectories, 256),
    "distances": (distances, 256),
    "columns": (columns, 256),
    "quiet": (quiet, 512),
    "small_batches": (small_batches, 128),
    "outliers": (outliers, 1024),
    "floors": (floors, 1024),
}
"""Name -> the function that prints it, and its number of runs."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Print tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("names", nargs="*", metavar="TABLE", help=", ".join(TABLES))
    parser.add_argument("--seeds", type=int, help="runs of every cell")
    options = parser.parse_args(arguments)
    unknown = [name for name in options.names if name not in TABLES]
    if unknown:
        parser.error(f"tables must be of {', '.join(TABLES)}, got {unknown[0]!r}")
    for name in options.names or TABLES:
        print(f"## {name}", flush=True)
        table, runs = TABLES[name]
        table(options.seeds or runs)


if __name__ == "__main__":
    main()
