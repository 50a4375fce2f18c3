"""Theory at random points against quadrature, enumeration, roots and loops in double precision.

Every check yields the values of a function, the exact ones for the arguments as rounded to single
precision, and the errors that its docstring allows.
"""
# ruff: noqa: B023  # lambdas in loops are called at once

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy import integrate, optimize, stats

from causal_sgd import theory
from support.theory import FAMILIES

POINTS = 24
Result = Iterator[tuple[object, object, object]]  # the values, the exact ones, the allowed errors


class Points(NamedTuple):
    """Random arguments, in single precision."""

    eta: np.ndarray
    mu: np.ndarray
    spread: np.ndarray
    ratio: np.ndarray  # b / a

    @property
    def exact(self) -> Iterator[tuple[float, ...]]:
        return zip(*(np.asarray(values, float).tolist() for values in self[:3]), strict=True)


def draw(rng: np.random.Generator, low: float = -2, high: float = 1) -> Points:
    """Ratios b / a between powers of ten, a per cent or more away from one."""
    eta = 10 ** rng.uniform(-3, -0.3, POINTS)
    drift = rng.uniform(-0.5, 1, POINTS)
    ratio = 10 ** rng.uniform(low, high, POINTS)
    ratio = np.where(abs(ratio - 1) < 0.01, 1.02, ratio)
    arrays = (eta, drift / eta, ratio * (1 + drift) / eta, ratio)
    return Points(*(array.astype(np.float32) for array in arrays))


def moment(family: str, a: float, b: float, power: int) -> float:
    """E log^power |a + b t| by adaptive quadrature, split at the singular point."""

    def integrand(t: float) -> float:
        density = 0.5 if family == "uniform" else math.exp(-t * t / 2) / math.sqrt(2 * math.pi)
        return math.log(max(abs(a + b * t), 1e-300)) ** power * density

    reach = 1.0 if family == "uniform" else 13.0
    edges = sorted({-reach, 0.0, reach, *([-a / b] if abs(a / b) < reach else [])})
    pieces = itertools.pairwise(edges)
    return math.fsum(
        integrate.quad(integrand, *piece, limit=400, epsabs=1e-13, epsrel=1e-11)[0]
        for piece in pieces
    )


def exponent(family: str, eta: float, mu: float, spread: float) -> float:
    a, b = 1 + eta * mu, eta * spread
    if family == "two_point":
        return (math.log(abs(a - b)) + math.log(abs(a + b))) / 2
    return moment(family, a, b, 1)


def near(values: np.ndarray, relative: float) -> np.ndarray:
    return relative * (1 + abs(np.asarray(values)))


def exponents(family: str) -> Callable[[np.random.Generator], Result]:
    def check(rng: np.random.Generator) -> Result:
        p = draw(rng)
        exact = np.array([exponent(family, *point) for point in p.exact])
        yield (
            theory.lyapunov(family, *p[:3]),
            exact,
            near(exact, 2e-6) + (2e-7 / abs(p.ratio - 1) if family == "two_point" else 0),
        )

    return check


def asymmetric(rng: np.random.Generator) -> Result:
    p = draw(rng, -2, 0.5)
    up, down = (p.ratio / p.eta).astype(np.float32), (p.ratio[::-1] / p.eta).astype(np.float32)
    factor = abs(1 - p.eta.astype(float) * down)
    keep = factor > 1e-2
    exact = (np.log1p(p.eta.astype(float) * up) + np.log(factor)) / 2
    yield (
        theory.lyapunov_asymmetric(p.eta, up, down)[keep],
        exact[keep],
        (near(exact, 2e-6) + 2e-7 / factor)[keep],
    )


def windows(rng: np.random.Generator) -> Result:
    """The ends of the damping from bisections of the exponent in double precision."""
    eta = 10 ** rng.uniform(-3, 0, POINTS).astype(np.float32)
    mu = rng.uniform(0.1, 2, POINTS).astype(np.float32)
    spread = (mu * 10 ** rng.uniform(0.02, 1, POINTS)).astype(np.float32)

    def ends(eta: float, mu: float, spread: float) -> tuple[float, float]:
        def exponent(log_damping: float) -> float:
            x = eta / math.exp(log_damping)
            return math.log(abs((1 + x * mu) ** 2 - (x * spread) ** 2))

        singular = math.log(eta * (spread - mu))  # where a factor vanishes
        low = optimize.brentq(exponent, singular - 30, singular - 1e-9, xtol=1e-13)
        high = optimize.brentq(exponent, singular + 1e-9, singular + 30, xtol=1e-13)
        return math.exp(low), math.exp(high)

    exact = np.array([ends(*map(float, p)) for p in zip(eta, mu, spread, strict=True)]).T
    yield theory.damping_window(eta, mu, spread), exact, 1e-5 * exact


def cones(rng: np.random.Generator) -> Result:
    """Distances to cones where one or two eigenvalues lie across the range, by quadrature."""
    density = stats.norm(0, 0.5**0.5).pdf  # of the mean of the two eigenvalues

    def excess(size: int, tau: float) -> float:
        if size == 1:
            return stats.norm.expect(lambda x: np.maximum(x - tau, 0) ** 2, lb=tau)

        def half(radius: float) -> float:
            """Of both eigenvalues, mean +- radius, given their half-distance."""
            return sum(
                integrate.quad(
                    lambda m, shift=shift: (m + shift - tau) ** 2 * density(m), tau - shift, 12
                )[0]
                for shift in (radius, -radius)
            )

        return integrate.quad(lambda x: 2 * x * math.exp(-x * x) * half(x), 0, 6)[0]

    for size, rank in ((1, 1), (1, 5), (2, 1), (2, 4)):
        dim, tau = size + rank, float(rng.uniform(0, 1.5))
        fixed = rank * (rank + 1) / 2 + rank * size

        def distance(tau: float) -> float:
            return fixed + rank * tau**2 + excess(size, tau)

        exact = distance(tau)
        yield theory.statistical_dimension(dim, rank, tau), exact, 2e-4 * exact
        least = optimize.minimize_scalar(distance, bounds=(0, 4), method="bounded").fun
        yield theory.statistical_dimension(dim, rank), least, 2e-4 * least
    dim = np.arange(1, 201)
    exact = dim * (dim + 1) / 4
    yield theory.statistical_dimension(dim, 0, 0), exact, 2e-4 * exact


def log_normal(rng: np.random.Generator) -> Result:
    eta, mu = 10 ** rng.uniform(-3, 0, (2, POINTS)).astype(np.float32)
    spread = (mu * 10 ** rng.uniform(-2, 2, POINTS)).astype(np.float32)

    def one(eta: float, mu: float, spread: float) -> float:
        width = math.sqrt(math.log1p((spread / mu) ** 2))

        def integrand(z: float) -> float:
            return stats.norm.pdf(z) * np.log1p(eta * mu * np.exp(width * z - width**2 / 2))

        return integrate.quad(integrand, -12, 12, limit=400, epsabs=0, epsrel=1e-10)[0]

    exact = np.array([one(*map(float, point)) for point in zip(eta, mu, spread, strict=True)])
    yield theory.lyapunov_log_normal(eta, mu, spread), exact, 2e-5 * exact


def environments(rng: np.random.Generator) -> Result:
    values = rng.normal(1, 6, (POINTS, 7)).astype(np.float32)
    weights = rng.dirichlet(np.ones(7)).astype(np.float32)
    eta = rng.uniform(0.01, 0.2, POINTS).astype(np.float32)
    factors = 1 + eta[:, None].astype(float) * values
    logs = np.log(abs(factors))
    sure = abs(factors).min(1) > 0.02
    mean = logs @ weights.astype(float)
    yield (
        theory.lyapunov_environments(eta, values, weights)[sure],
        mean[sure],
        near(mean, 1e-5)[sure],
    )
    variance = ((logs - mean[:, None]) ** 2) @ weights.astype(float)
    result = theory.log_variance_environments(eta, values, weights)
    yield result[sure], variance[sure], 1e-4 * variance[sure]


def variances(rng: np.random.Generator) -> Result:
    for family in FAMILIES:
        p = draw(rng)
        exact = np.array(
            [
                np.arctanh(min(b / a, a / b)) ** 2
                if family == "two_point"
                else moment(family, 1.0, b / a, 2) - moment(family, 1.0, b / a, 1) ** 2
                for a, b in ((1 + eta * mu, eta * spread) for eta, mu, spread in p.exact)
            ]
        )
        sensitive = 1 + 0.1 / abs(p.ratio - 1) * (family == "two_point")
        yield theory.log_variance(*p[:3], family), exact, 1e-5 * sensitive * exact
        if family == "two_point":
            yield theory.log_variance_two_point(*p[:3]), exact, 1e-5 * sensitive * exact


RANGES = {"two_point": (2.0, 1.0), "uniform": (0.509, 3.356), "gaussian": (0.278, 3.047)}


def first_root(function: Callable[[float], float], low: float, high: float) -> float:
    return optimize.brentq(function, low, high, xtol=1e-300, rtol=1e-12)


def spreads(rng: np.random.Generator) -> Result:
    for family in FAMILIES:
        mu = rng.uniform(0.1, 3, 6).astype(np.float32)
        drift = 10 ** rng.uniform(-3, math.log10(0.95 * RANGES[family][0]), 6)
        eta = (drift / mu).astype(np.float32)
        least = {"two_point": 1 - 1e-12, "uniform": 1.1996786, "gaussian": 0.7651521}[family]
        exact = [
            first_root(lambda r: exponent(family, e, m, r * (1 / e + m)), 1e-6, least) * (1 / e + m)
            for e, m in zip(eta.tolist(), mu.tolist(), strict=True)
        ]
        yield theory.critical_spread(eta, mu, family), exact, 1e-4 * np.array(exact)


def rates(rng: np.random.Generator) -> Result:
    for family in FAMILIES:
        mu = rng.uniform(0.1, 3, 6).astype(np.float32)
        relative = RANGES[family][1] * 10 ** rng.uniform(math.log10(1.05), 2, 6)
        spread = (relative * mu).astype(np.float32)
        least = {"two_point": 1 - 1e-9, "uniform": 1.084553, "gaussian": 0.5740232}[family]
        exact = []
        for m, s in zip(mu.tolist(), spread.tolist(), strict=True):
            ratio = first_root(lambda r: exponent(family, r / (s - r * m), m, s), 1e-5, least)
            exact.append(ratio / (s - ratio * m))
        yield theory.critical_learning_rate(mu, spread, family), exact, 1e-4 * np.array(exact)


def rates_of_two(rng: np.random.Generator) -> Result:
    up, down = rng.uniform(0.1, 9, (2, POINTS)).astype(np.float32)
    exact = np.maximum(1 / down.astype(float) - 1 / up.astype(float), 0)
    result = theory.critical_learning_rate_asymmetric(up, down)
    yield result, exact, 4e-7 / np.minimum(up, down)


def masses(rng: np.random.Generator) -> Result:
    values = rng.uniform(0.5, 3, (POINTS, 3)).astype(np.float32)
    eta, outlier = rng.uniform(0.01, 0.1, POINTS), rng.uniform(-9, -0.5, POINTS)
    eta, outlier = eta.astype(np.float32), outlier.astype(np.float32)
    others = np.log1p(eta[:, None].astype(float) * values).mean(1)
    own = np.log1p(eta.astype(float) * outlier)
    exact = others / (others - own)
    yield theory.critical_mass(eta, values, outlier), exact, 1e-5 * exact


def _given(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Deviations [POINTS, 3] with both signs, and probabilities [3]."""
    deviations = rng.uniform(0.3, 2, (POINTS, 3)) * np.array([1, -1, 1])
    return deviations.astype(np.float32), np.array([0.3, 0.5, 0.2])


def given_spreads(rng: np.random.Generator) -> Result:
    deviations, shares = _given(rng)
    for z in deviations:
        eta, mu = np.float32(10 ** rng.uniform(-2, -0.5)), np.float32(rng.uniform(0.2, 2))
        pole = (1 + float(eta) * float(mu)) / float(eta) / -float(z.min())
        exact = optimize.brentq(
            lambda m: shares @ np.log1p(float(eta) * (float(mu) + m * z.astype(float))),
            0,
            pole * (1 - 1e-12),
        )
        yield theory.critical_spread_environments(eta, mu, z, shares), exact, 1e-4 * exact


def given_rates(rng: np.random.Generator) -> Result:
    deviations, shares = _given(rng)
    values = 3 * deviations
    values += (rng.uniform(0.05, 1, POINTS) - values @ shares).astype(np.float32)[:, None]
    exact = [
        optimize.brentq(
            lambda eta: shares @ np.log1p(eta * s.astype(float)),
            1e-5,
            -(1 - 1e-12) / float(s.min()),
        )
        for s in values
        if s.min() < 0
    ]
    values = values[values.min(1) < 0]
    result = theory.critical_learning_rate_environments(values, shares)
    yield result, exact, 1e-4 * np.array(exact)


def mixtures(rng: np.random.Generator) -> Result:
    for count in (2, 3, 5):
        mu = rng.uniform(0.2, 2, 4).astype(np.float32)
        eta = (10 ** rng.uniform(-3, -1, 4) / mu / count).astype(np.float32)
        signs = np.array(list(itertools.product([-1, 1], repeat=count))).mean(1)
        for family in FAMILIES:
            exact = []
            for e, m in zip(eta.tolist(), mu.tolist(), strict=True):
                if family == "gaussian":
                    root = math.sqrt(count) * float(theory.critical_spread(e, m, "gaussian"))
                elif family == "two_point":
                    root = first_root(
                        lambda M: np.log(abs(1 + e * (m + M * signs))).mean(), 0, (1 - 1e-9) / e + m
                    )
                else:
                    # The mean of uniforms by a fine convolution.
                    grid = (np.arange(801) + 0.5) / 801 * 2 - 1
                    weights = np.ones(801)
                    for _ in range(count - 1):
                        weights = np.convolve(weights, np.ones(801))
                    means = np.linspace(count * grid[0], count * grid[-1], len(weights)) / count
                    weights = weights / weights.sum()
                    high = 1.1 * math.sqrt(count) * float(theory.critical_spread(e, m, family))
                    root = first_root(
                        lambda M: weights @ np.log(abs(1 + e * (m + M * means))), 0, high
                    )
                exact.append(root)
            allowed = (0.03 if family == "uniform" else 1e-4) * np.array(exact)
            yield theory.mixing_critical_spread(eta, mu, count, family), exact, allowed


def bounds(rng: np.random.Generator) -> Result:
    eta = 10 ** rng.uniform(-3, 0, POINTS).astype(np.float32)
    mu = (rng.uniform(-1.4, 1.9, POINTS) / eta).astype(np.float32)
    exact = []
    for e, m in zip(eta.tolist(), mu.tolist(), strict=True):
        roots = np.roots([4 / 27, 0, 1, -3 - 2 * e * m])
        exact.append(max(roots[abs(roots.imag) < 1e-9].real[0] - 1 - e * m, 0) / e)
    yield theory.divergence_bound(eta, mu), exact, 4e-6 / eta
    # The largest |u| after many steps from the peak, with the worse of both ends at every step.
    for e, m, limit in zip(eta.tolist(), mu.tolist(), exact, strict=True):
        for share in (0.97, 1.03):
            low, high = m - share * limit, m + share * limit
            if limit > 1e-2 / e and 1 + e * high > 0:
                peak = math.sqrt(4 / 27 * (1 + e * high) ** 3 / e)
                grid = np.linspace(0, peak, 2001)[:, None]
                steps = (1 + e * np.array([low, high]) - e * grid**2) * grid
                bounded = abs(steps).max() <= peak * (1 + 1e-9)
                yield bool(theory.is_bounded(e, low, high)), bounded, 0


def positive(rng: np.random.Generator) -> Result:
    eta, share = rng.uniform(0.01, 1, (2, POINTS)).astype(np.float32)
    highest = rng.uniform(0.1, 9, POINTS).astype(np.float32)
    mu = (share * highest).astype(np.float32)
    exact = mu.astype(float) * np.log1p(eta.astype(float) * highest) / highest
    yield theory.least_positive_exponent(eta, mu, highest), exact, 1e-6 * exact
    # No random spectrum with this mean in [0, highest] has a smaller one.
    for e, m, h, bound in zip(eta, mu, highest, exact, strict=True):
        values = rng.beta(*rng.uniform(0.1, 2, 2), (200, 9)) * float(h)
        values = values * np.minimum(1, float(m) / values.mean(1, keepdims=True))
        missing = float(m) - values.mean(1, keepdims=True)
        values = values + missing * (float(h) - values) / (float(h) - values).mean(1, keepdims=True)
        smallest = np.log1p(float(e) * values).mean(1).min()
        yield min(smallest - bound, 0), 0, 1e-9


def crossings(rng: np.random.Generator) -> Result:
    depth = rng.integers(2, 7, POINTS).astype(np.float32)
    eta, mu = rng.uniform(0.01, 0.5, POINTS), rng.uniform(0, 2, POINTS)
    eta, mu = eta.astype(np.float32), mu.astype(np.float32)
    exact = []
    for n, e, m in zip(depth.tolist(), eta.tolist(), mu.tolist(), strict=True):

        def factor(M: float) -> float:
            levels = np.linspace(0, (m + M) ** (1 / n), 4001)
            w = np.max(levels + e / 2 * (m + M - levels**n) * levels ** (n - 1))
            return 1 - e / 2 * (M - m + w**n) * w ** (n - 2)

        exact.append(first_root(factor, 0, max(1 / e, 1) * 1.001) if factor(0) > 0 else 0)
    yield theory.crossing_spread(depth, eta, mu), exact, 1e-5 * np.array(exact) + 1e-6


def quantiles(rng: np.random.Generator) -> Result:
    depth = rng.choice([2, 3, 4, 6], POINTS)
    eta, mu = rng.uniform(0.01, 0.05, POINTS), rng.uniform(0.5, 2, POINTS)
    noise = mu * 10 ** rng.uniform(-1.5, np.where(depth == 2, 0.1, 1.5))
    spread, share = np.sqrt(2 * noise / eta), rng.uniform(0.1, 0.9, POINTS)
    exact = []
    for L, m, n, q in zip(depth.tolist(), mu, noise, share, strict=True):
        x = np.linspace(-60, 3, 2_000_001) + math.log(m) / L
        with np.errstate(over="ignore"):
            drift = x if L == 2 else -np.exp((2 - L) * x) / (L - 2)
        logs = (3 - 2 * L) * x + 2 / n * (m * drift - np.exp(2 * x) / 2)
        weights = np.cumsum(np.exp(logs - logs.max()))
        exact.append(math.exp(L * x[np.searchsorted(weights, q * weights[-1])]))
    arrays = (np.asarray(a, np.float32) for a in (depth, eta, mu, spread, share))
    result = theory.deep_spurious_quantile(*arrays)
    yield result, exact, 0.005 * depth * np.array(exact)


def products(rng: np.random.Generator) -> Result:
    matrices = np.eye(3) + 0.3 * rng.normal(size=(4, 3, 3))
    weights = rng.dirichlet(np.ones(4))
    order = rng.choice(4, (40, 3000), p=weights)
    frames = np.broadcast_to(np.eye(3), (40, 3, 3))
    growth = np.zeros((40, 3))
    for t in range(3000):
        frames, triangles = np.linalg.qr(matrices[order[:, t]] @ frames)
        growth += np.log(abs(np.diagonal(triangles, axis1=1, axis2=2))) * (t >= 300) / 2700
    error = growth.std(0, ddof=1) / math.sqrt(40)
    weights = weights.astype(np.float32) / weights.astype(np.float32).sum()
    result = theory.lyapunov_exponents(matrices, weights, key=jax.random.key(1))
    total = np.hypot(error, np.asarray(result.standard_error))
    yield result.exponents, growth.mean(0), 4 * total
    table = jnp.asarray(matrices, jnp.float32)
    top = theory.top_exponent(
        lambda key: table[jax.random.choice(key, 4, p=jnp.asarray(weights))],
        key=jax.random.key(2),
    )
    yield top.exponent, growth.mean(0)[0], 4 * math.hypot(error[0], float(top.standard_error))


def identities(rng: np.random.Generator) -> Result:
    cores = rng.normal(0, 5, (6, 3, 3)).astype(np.float32)
    exact = np.eye(3) + 0.1 * cores.astype(float)
    yield theory.linearised(0.1, cores), exact, near(exact, 2e-7)


def isotropic(haar: bool) -> Callable[[np.random.Generator], Result]:
    """In one step the exponent is a mean over Gaussian vectors; by nested quadrature."""

    def check(rng: np.random.Generator) -> Result:
        for n in (1, 2, 3, 5, 10):
            a, limit = 1.1, 1.6 if haar else 0.5
            ratios = rng.uniform(0.02, limit, 6)
            ratios = np.where(abs(ratios - 1) < 0.02, 0.9, ratios)
            exact = [(haar_mean if haar else goe_mean)(n, r) + math.log(a) for r in ratios]
            function = theory.lyapunov_haar if haar else theory.lyapunov_goe
            values = function(0.1, 1.0, (ratios * a / 0.1).astype(np.float32), n)
            far = abs(ratios - 1)
            allowed = np.select([far > 0.1, far > 0.05], [1e-5, 1e-4], 2e-3)
            yield values, exact, allowed if haar else np.where(ratios < 1 / 3, 1e-4, 1e-3)

    return check


def haar_mean(n: int, ratio: float) -> float:
    total = 0.0
    for k in range(n + 1):
        weight = math.comb(n, k) / 2**n
        if k in (0, n):
            total += weight * math.log(abs(1 + ratio * (1 if k else -1)))
            continue
        law = stats.beta(k / 2, (n - k) / 2)

        # With B = sin^2 the density has no poles at the ends.
        def integrand(angle: float, law=law) -> float:
            share = math.sin(angle) ** 2
            square = 1 + ratio**2 + 2 * ratio * (2 * share - 1)
            jacobian = 2 * math.sin(angle) * math.cos(angle)
            return 0.5 * math.log(square) * law.pdf(share) * jacobian

        total += weight * integrate.quad(integrand, 1e-12, math.pi / 2 - 1e-12, limit=400)[0]
    return total


def goe_mean(n: int, ratio: float) -> float:
    if n == 1:
        return moment("gaussian", 1.0, ratio, 1)
    radius = stats.chi(n - 1)
    normal, chi = np.linspace(-9, 9, 1801), np.linspace(0, 9 + math.sqrt(n), 1801)
    weights = np.outer(stats.norm.pdf(normal), radius.pdf(chi))
    weights[:, 0] /= 2  # the trapezoidal rule
    square = (1 + ratio * normal[:, None]) ** 2 + ratio**2 / 2 * chi**2
    return float((weights * np.log(square)).sum() / weights.sum() / 2)


def roots(rng: np.random.Generator) -> Result:
    for root in rng.uniform(0.5, 9, 5):
        result = theory.critical_spread_of(
            lambda spread, root=root: (root - spread) * (1 + spread), highest=10.0
        )
        yield result, root, 10 / 32**3


def momenta(rng: np.random.Generator) -> Result:
    for eta, beta, s in rng.uniform([0.01, 0, -9], [0.5, 0.99, 9], (POINTS, 3)).tolist():
        for nesterov in (False, True):
            state = rng.normal(size=2)
            velocity = beta * state[1] - eta * s * state[0]  # times eta
            move = beta * velocity - eta * s * state[0] if nesterov else velocity
            matrix = theory.momentum_factors(eta, beta, [s], nesterov=nesterov)[0]
            exact = np.array([state[0] - move, velocity])
            yield np.asarray(matrix, float) @ state, exact, 1e-5


def growth_with_velocity(
    rng: np.random.Generator,
    eta: float,
    beta: float,
    draw: Callable[[], np.ndarray],
    nesterov: bool,
    steps: int = 4000,
) -> tuple[float, float]:
    """The growth per step of (u, eta velocity) in chains of optax's steps, and its error."""
    u = rng.normal(size=draw().shape)
    w, total = np.zeros_like(u), np.zeros_like(u)
    for t in range(steps):
        push = eta * draw() * u
        w = beta * w - push
        u = u - (beta * w - push if nesterov else w)
        size = np.hypot(u, w)
        u, w = u / size, w / size
        if t >= steps // 10:
            total = total + np.log(size)
    means = total / (steps - steps // 10)
    return float(means.mean()), float(means.std() / math.sqrt(len(means)))


def velocities(rng: np.random.Generator) -> Result:
    for reach, allowed in ((1.0, 2e-3), (None, 0.01)):
        for _ in range(6):
            beta = float(np.float32(rng.uniform(0.05, 0.95)))
            largest = 1 - beta if reach else 1.0
            values = rng.uniform(-1, 1, 4).astype(np.float32)
            weights = rng.dirichlet(np.ones(4))
            nesterov = bool(rng.integers(2))
            exact, error = growth_with_velocity(
                rng,
                largest,
                beta,
                lambda: rng.choice(values, 400, p=weights).astype(float),
                nesterov,
            )
            value = theory.lyapunov_momentum(largest, beta, values, weights, nesterov=nesterov)
            yield value, exact, allowed + 4 * error


def velocity_roots(rng: np.random.Generator) -> Result:
    draws = {
        "two_point": lambda: rng.integers(0, 2, 1000) * 2.0 - 1,
        "uniform": lambda: rng.uniform(-1, 1, 1000),
        "gaussian": lambda: rng.normal(size=1000),
    }
    for family, draw in draws.items():
        last, allowed = (0.05, 0.01) if family == "gaussian" else (0.1, 3e-3)
        for beta in (0.1, 0.5, 0.8):
            mu, nesterov = rng.uniform(0.5, 2), bool(rng.integers(2))
            rate = rng.uniform(0.2, 1) * last / mu  # over 1 - beta
            eta = (1 - beta) * rate
            root = float(theory.momentum_critical_spread(eta, mu, beta, family, nesterov=nesterov))
            growth, error = growth_with_velocity(
                rng, eta, beta, lambda: mu + root * draw(), nesterov
            )
            # Near the root lambda falls with log M, by about 2 eta' mu.
            yield growth, 0, 4 * error + allowed * 2 * rate * mu


def local_steps(rng: np.random.Generator) -> Result:
    for eta, s, rho in rng.uniform([0.01, -9, 0], [0.1, 9, 2], (POINTS, 3)).astype(np.float32):
        y, steps = 1.0, int(rng.integers(1, 20))
        for _ in range(steps):
            y += float(eta) * (float(s) * y - float(rho) * (y - 1))
        largest = (1 + float(eta) * (abs(float(s)) + float(rho))) ** steps
        yield theory.federated_factors(eta, s, steps, rho), y, 4e-7 * steps * largest
    factors = rng.uniform(0.2, 2, 4).astype(np.float32)
    weights = rng.dirichlet(np.ones(4)).astype(np.float32)
    for count in (1, 2, 3):
        exact = math.fsum(
            math.prod(weights[list(group)].tolist())
            * math.log(abs(np.mean(factors[list(group)].astype(float))))
            for group in itertools.product(range(4), repeat=count)
        )
        yield theory.lyapunov_federated(factors, count, weights), exact, 1e-5
    exact = math.log(abs(factors.astype(float) @ weights))
    yield theory.lyapunov_federated(factors, None, weights), exact, 1e-5


def control_variates(rng: np.random.Generator) -> Result:
    for eta in (0.05, 0.2):
        values, weights = rng.normal(0, 3, 3), rng.dirichlet(np.ones(3))
        state = rng.normal(size=4)
        matrices = theory.scaffold_factors(eta, values, 4, probabilities=weights)
        for e in range(3):
            y, correction = state[0], state[1 + e] - weights @ state[1:]
            for _ in range(4):
                y = (1 + eta * values[e]) * y + correction
            exact = state.copy()
            exact[0], exact[1 + e] = y, (state[0] - y) / 4 + correction
            yield np.asarray(matrices[e], float) @ state, exact, 1e-5 * (1 + abs(exact))


def tails(rng: np.random.Generator) -> Result:
    for _ in range(POINTS):
        values = rng.normal(0, 6, 5).astype(np.float32)
        logs = np.log(abs(1 + 0.1 * values.astype(float)))
        drift = logs.mean()
        if logs.max() < 0 or logs.min() > 0 or abs(drift) < 0.02 or abs(logs).max() > 4:
            continue
        sign = -1 if drift > 0 else 1

        def excess(theta: float, logs=logs, sign=sign) -> float:
            return math.log(np.exp(sign * theta * logs).mean())

        high = 1.0
        while excess(high) < 0:
            high *= 2
        low = high
        while excess(low) >= 0:
            low /= 2
        exact = sign * first_root(excess, low, high)
        yield theory.tail_exponent(0.1, values), exact, 1e-4 * (1 + abs(exact))
