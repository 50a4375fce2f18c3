"""Closed forms and Lyapunov exponents: where a spurious direction dies, how fast, and at what cost.

A spurious direction u that meets an independent spurious eigenvalue s at every step follows, in the population,
u <- (1 + eta (s - u^2)) u. Near zero log|u| is a random walk of drift lambda = E log|1 + eta s|, the Lyapunov
exponent: with lambda < 0 the direction dies, with lambda > 0 it grows to a fluctuating level (Ziyin et al., arXiv
2303.13093; Chemnitz & Engel, arXiv 2407.20209). This gives the phase diagram of heterogeneity against learning rate
that [XGF] (Xu, Gu, Fang, arXiv 2403.01420) observe. Gradients are of the loss (1/4m) sum_i (<X_i, UU'> - y_i)^2.

Vocabulary of all functions: eta is the `learning_rate` (in 1/signal); mu the `mean` and M the `spread` of the
spurious eigenvalue (in units of the signal); lambda and v are per step. `spread` is M of mu +- M, each with
probability 1/2 ("two_point"), the half-width ("uniform") or the standard deviation ("gaussian"). Write a = 1 + eta mu
and b = eta M.

Numbers and arrays [...] broadcast against each other (to equal rank: no implicit rank promotion) and may be traced;
results have the broadcast shape and the promoted floating dtype. Concrete arguments outside their limits raise ValueError.
Loops sit behind `jax.jit`, because a loop called eagerly would be compiled anew at every call.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from causal_sgd import checks
from causal_sgd.types import Array, Key

__all__ = [
    "LyapunovExponents",
    "SpuriousMoments",
    "critical_learning_rate",
    "critical_learning_rate_asymmetric",
    "critical_spread",
    "divergence_bound",
    "error_floor",
    "expected_error",
    "families",
    "growth_time",
    "is_bounded",
    "linearised",
    "log_variance_environments",
    "log_variance_two_point",
    "lyapunov",
    "lyapunov_asymmetric",
    "lyapunov_environments",
    "lyapunov_exponents",
    "lyapunov_gaussian",
    "lyapunov_two_point",
    "lyapunov_uniform",
    "mixing_critical_spread",
    "optimal_spread",
    "stationary_spurious_moments",
]

# E log|1 + r t| = -sum_k r^2k / (2k (2k + 1)) for t uniform on [-1, 1]; highest power of r^2 first.
_UNIFORM = [-1 / (2 * k * (2 * k + 1)) for k in range(24, 0, -1)] + [0.0]
# E log|1 + z/x| ~ -sum_k (2k - 1)!! / (2k x^2k) for z normal, in powers of (8/x)^2 so that float32 holds them.
_TAIL = [-float(math.prod(range(1, 2 * k, 2))) / (2 * k * 64.0**k) for k in range(30, 0, -1)] + [0.0]
# digamma(j + 1/2), j = 0, 1, ...; 100 Poisson weights of mean 32 leave out less than 1e-20.
_DIGAMMA = [
    -0.5772156649015329 - 2 * math.log(2) + sum(2 / (2 * i - 1) for i in range(1, j + 1)) for j in range(100)
]
# At fixed a, lambda falls with r = b/a up to this ratio and rises beyond: r tanh(r) = 1; the maximum of Dawson's
# integral is at 1/(r sqrt(2)). Two points reach -inf at r = 1.
_LOWEST = {"two_point": 1.0, "uniform": 1.1996786, "gaussian": 0.7651521}
# lambda = log a + h(r) = 0 iff M/mu = r / (1 - exp h(r)), which falls with r up to this ratio and rises beyond.
_LAST = {"uniform": 1.0845530, "gaussian": 0.5740232}
_DEVIATION = {"two_point": 1.0, "uniform": 1 / math.sqrt(3), "gaussian": 1.0}  # of s, in spreads
_LIMITS: dict[str, dict[str, Any]] = {
    "learning_rate": {"above": 0},
    "spread": {"minimum": 0},
    "up": {"minimum": 0},
    "down": {"minimum": 0},
    "eigenvalue": {"above": 0},
    "invariant_eigenvalue": {"above": 0},
    "init_scale": {"above": 0},
    "batch_size": {"minimum": 1},
    "dim": {"minimum": 1},
    "invariant_rank": {"minimum": 1},
    "spurious_rank": {"minimum": 1},
}


def _check(**values: Any) -> None:
    """Check concrete arguments against the limits of their names."""
    for name, value in values.items():
        checks.number(name, value, scalar=False, **_LIMITS.get(name, {}))


def _common(*values: Any) -> list[Array]:
    """The values as arrays of one shape and one floating dtype."""
    arrays = [jnp.asarray(value) for value in values]
    dtype = jnp.result_type(float, *arrays)
    return jnp.broadcast_arrays(*(array.astype(dtype) for array in arrays))


def _arrays(**values: Any) -> list[Array]:
    """What every function does at its door: check by name, then make shapes and dtypes agree."""
    _check(**values)
    return _common(*values.values())


def _log_abs(x: Array) -> Array:
    """log|1 + x|, accurate for small x."""
    return jnp.log1p(jnp.where(x >= -1, x, -2 - x))


def _half_log(low: Array, high: Array, excess: Array) -> Array:
    """(1/2) log|(1 + low)(1 + high)|; `excess` is low + high + low high, computed without cancellation."""
    near = jnp.log1p(jnp.clip(excess, -0.5, 0.5))
    return jnp.where(jnp.abs(excess) < 0.5, near, _log_abs(low) + _log_abs(high)) / 2


def lyapunov_two_point(learning_rate: ArrayLike, mean: ArrayLike, spread: ArrayLike) -> Array:
    """Lyapunov exponent (1/2) log|a^2 - b^2| of the eigenvalues mu +- M, equally likely.

    It is -inf where one of the two factors vanishes, and positive again for b^2 > a^2 + 1.

    Args:
        learning_rate: eta [...], above zero.
        mean: mu [...].
        spread: M [...], not negative.

    Returns:
        lambda [...], per step.

    >>> print(f"{lyapunov_two_point(0.1, mean=1.0, spread=4.0):.4f}")  # grows
    0.0247
    >>> print(f"{lyapunov_two_point(0.1, mean=1.0, spread=6.0):.4f}")  # dies
    -0.0814
    """
    eta, mu, spread = _arrays(learning_rate=learning_rate, mean=mean, spread=spread)
    drift, b = eta * mu, eta * spread
    return _half_log(eta * (mu - spread), eta * (mu + spread), drift * (2 + drift) - b * b)


def lyapunov_asymmetric(learning_rate: ArrayLike, up: ArrayLike, down: ArrayLike) -> Array:
    """Lyapunov exponent (1/2) log|(1 + eta up)(1 - eta down)| of the eigenvalues +up or -down, equally likely.

    Args:
        learning_rate: eta [...], above zero.
        up: size of the positive eigenvalue [...], not negative.
        down: size of the negative eigenvalue [...], not negative.

    Returns:
        lambda [...], per step.
    """
    eta, up, down = _arrays(learning_rate=learning_rate, up=up, down=down)
    return _half_log(-eta * down, eta * up, eta * (up - down) - eta * up * (eta * down))


def lyapunov_uniform(learning_rate: ArrayLike, mean: ArrayLike, spread: ArrayLike) -> Array:
    """Lyapunov exponent of eigenvalues uniform on mu +- M.

    The integral of log|y| over [a - b, a + b] gives [(a + b) log|a + b| - (a - b) log|a - b|] / (2b) - 1. With
    r = b/|a| it is log|a| + h(r), by the power series of h for r <= 1/2.

    Args:
        learning_rate: eta [...], above zero.
        mean: mu [...].
        spread: the half-width M [...], not negative.

    Returns:
        lambda [...], per step.
    """
    eta, mu, spread = _arrays(learning_rate=learning_rate, mean=mean, spread=spread)
    shift, b = eta * mu, eta * spread
    a = jnp.abs(1 + shift)
    inside = b < a
    # One formula for both sides: the smaller of a and b over the larger, and its integral.
    q = jnp.where(inside, b, a) / jnp.where(inside, a, jnp.where(b > 0, b, 1))
    plus = (1 + q) * jnp.log1p(q)
    minus = jnp.where(q < 1, (1 - q) * jnp.log1p(-jnp.where(q < 1, q, 0)), 0)
    small = q <= 0.5
    series = jnp.polyval(jnp.asarray(_UNIFORM, q.dtype), jnp.where(small, q, 0) ** 2)
    closed = (plus - minus) / (2 * jnp.where(small, 1, q)) - 1
    below = _log_abs(shift) + jnp.where(small, series, closed)
    beyond = jnp.log(b) + (plus + minus) / 2 - 1
    return jnp.where(inside, below, beyond)


def _poisson_term(j: int, carry: tuple[Array, ...]) -> tuple[Array, ...]:
    """Add the term j: (rate, centre, digammas, weight, sum of weights, weighted sum of digamma - centre)."""
    rate, centre, digammas, weight, total, moment = carry
    moment = moment + weight * (digammas[j] - centre)
    return rate, centre, digammas, weight * rate / (j + 1), total + weight, moment


@jax.jit
def _gaussian(shift: Array, width: Array) -> Array:
    """E log|1 + shift + width z| for z standard normal."""
    a = jnp.abs(1 + shift)
    far = a > 8 * width
    ratio = 8 * jnp.where(far, width, 0) / jnp.where(far, a, 1)
    tail = jnp.polyval(jnp.asarray(_TAIL, a.dtype), ratio**2)
    rate = jnp.where(far, 1, a / jnp.where(width > 0, width, 1)) ** 2 / 2
    # The weights are unnormalised and the digammas centred at log(max(rate, 1)): the sum is then as small as the
    # result, and float32 does not lose it in log(width).
    centre = jnp.log(jnp.maximum(rate, 1))
    zero = jnp.zeros_like(rate)
    start = (rate, centre, jnp.asarray(_DIGAMMA, a.dtype), zero + 1, zero, zero)
    *_, total, moment = jax.lax.fori_loop(0, len(_DIGAMMA), _poisson_term, start)
    wide = math.sqrt(2) * width
    scale = jnp.where(a >= wide, _log_abs(shift), jnp.log(wide))
    return jnp.where(far, _log_abs(shift) + tail, scale + moment / total / 2)


def lyapunov_gaussian(learning_rate: ArrayLike, mean: ArrayLike, spread: ArrayLike) -> Array:
    """Lyapunov exponent of normal eigenvalues.

    With x = a/b the square (x + z)^2 is a noncentral chi-square of one degree of freedom, a Poisson(x^2/2) mixture
    of chi-squares of 1 + 2j, whose logarithms have the mean log 2 + digamma(j + 1/2). That series is summed for
    x <= 8; beyond, the asymptotic one, log x - sum_k (2k - 1)!!/(2k x^2k), whose error is of order exp(-x^2/2).

    Args:
        learning_rate: eta [...], above zero.
        mean: mu [...].
        spread: the standard deviation [...], not negative; zero gives log|1 + eta mu|.

    Returns:
        lambda [...], per step.
    """
    eta, mu, spread = _arrays(learning_rate=learning_rate, mean=mean, spread=spread)
    return _gaussian(eta * mu, eta * spread)


families: Mapping[str, Callable[[ArrayLike, ArrayLike, ArrayLike], Array]] = {
    "two_point": lyapunov_two_point,
    "uniform": lyapunov_uniform,
    "gaussian": lyapunov_gaussian,
}
"""The exponents by family: (learning_rate, mean, spread) -> lambda."""


def lyapunov(family: str, learning_rate: ArrayLike, mean: ArrayLike, spread: ArrayLike) -> Array:
    """Lyapunov exponent [...] of a family by name: one of `families`; the other arguments are theirs."""
    return families[checks.choice("family", family, families)](learning_rate, mean, spread)


def _environment_logs(
    learning_rate: ArrayLike, eigenvalues: ArrayLike, probabilities: ArrayLike | None
) -> tuple[Array, Array]:
    """log|1 + eta s_e| (0 where the probability is zero) and the probabilities, both [..., E]."""
    _check(learning_rate=learning_rate, eigenvalues=eigenvalues)
    values = jnp.asarray(eigenvalues)
    if values.ndim == 0 or values.shape[-1] == 0:
        raise ValueError(f"eigenvalues must have a last axis of environments, [..., E], got {values.shape}")
    size = values.shape[-1]
    eta, values = _common(jnp.asarray(learning_rate)[..., None], values)
    if probabilities is None:
        weights = jnp.full_like(values, 1 / size)
    else:
        checks.probabilities("probabilities", probabilities, size)
        weights = jnp.broadcast_to(jnp.asarray(probabilities, values.dtype), values.shape)
    return jnp.where(weights > 0, _log_abs(eta * values), 0), weights


def lyapunov_environments(
    learning_rate: ArrayLike, eigenvalues: ArrayLike, probabilities: ArrayLike | None = None
) -> Array:
    """Lyapunov exponent sum_e p_e log|1 + eta s_e| of fixed environments, drawn at random or in turn.

    Args:
        learning_rate: eta [...], above zero.
        eigenvalues: the spurious eigenvalue of each environment, [..., E].
        probabilities: [E], sum to one; None for equal ones.

    Returns:
        lambda [...], per step.

    >>> print(f"{lyapunov_environments(0.1, [5.0, -3.0]):.4f}")
    0.0244
    """
    logs, weights = _environment_logs(learning_rate, eigenvalues, probabilities)
    return jnp.sum(weights * logs, -1)


def log_variance_two_point(learning_rate: ArrayLike, mean: ArrayLike, spread: ArrayLike) -> Array:
    """The variance v = artanh(b/a)^2 of log|1 + eta s| for mu +- M, equally likely (a/b where b > |a|).

    Half the difference of the logarithms is (1/2) log|(a + b)/(a - b)|. It is inf at the singular point b = |a|.

    Args:
        learning_rate: eta [...], above zero.
        mean: mu [...].
        spread: M [...], not negative.

    Returns:
        v [...], per step.
    """
    eta, mu, spread = _arrays(learning_rate=learning_rate, mean=mean, spread=spread)
    a, b = jnp.abs(1 + eta * mu), eta * spread
    large = jnp.maximum(a, b)
    return jnp.arctanh(jnp.minimum(a, b) / jnp.where(large > 0, large, 1)) ** 2


def log_variance_environments(
    learning_rate: ArrayLike, eigenvalues: ArrayLike, probabilities: ArrayLike | None = None
) -> Array:
    """The variance v [...] of log|1 + eta s_e| over independently drawn environments.

    The arguments are those of `lyapunov_environments`. It is inf where an environment that is met has 1 + eta s_e = 0.
    """
    logs, weights = _environment_logs(learning_rate, eigenvalues, probabilities)
    singular = jnp.isinf(logs)
    logs = jnp.where(singular, 0, logs)
    deviation = logs - jnp.sum(weights * logs, -1, keepdims=True)
    return jnp.where(jnp.any(singular, -1), jnp.inf, jnp.sum(weights * deviation**2, -1))


def linearised(learning_rate: ArrayLike, cores: ArrayLike) -> Array:
    """The factors I + eta C_e of the linearised spurious dynamics, for `lyapunov_exponents`.

    Args:
        learning_rate: eta [], above zero.
        cores: spurious cores C_e, [..., n, n].

    Returns:
        [..., n, n].
    """
    checks.number("learning_rate", learning_rate, above=0)
    _check(cores=cores)
    shape = jnp.shape(cores)
    if len(shape) < 2 or shape[-1] != shape[-2]:
        raise ValueError(f"cores must be square matrices, [..., n, n], got shape {shape}")
    eta, cores, identity = _common(
        learning_rate, cores, jnp.broadcast_to(jnp.eye(shape[-1], dtype=int), shape)
    )
    return identity + eta * cores


class LyapunovExponents(NamedTuple):
    """All Lyapunov exponents of a random matrix product, estimated."""

    exponents: Array  # [n] per step, the largest first up to sampling error
    standard_error: Array  # [n] of `exponents`, from the scatter between chains


@functools.partial(jax.jit, static_argnames=("num_steps", "num_chains", "burn_in"))
def _random_product(
    matrices: Array, weights: Array | None, key: Key, num_steps: int, num_chains: int, burn_in: int
) -> LyapunovExponents:
    size, n, _ = matrices.shape

    def step(frame: Array, index: Array) -> tuple[Array, Array]:
        product = jnp.matmul(matrices[index], frame, precision="highest")
        frame, triangle = jnp.linalg.qr(product)
        return frame, jnp.log(jnp.abs(jnp.diagonal(triangle)))

    def chain(key: Key) -> Array:
        order, start = jax.random.split(key)
        indices = jax.random.choice(order, size, (burn_in + num_steps,), p=weights)
        # A generic frame: the axes may span invariant subspaces, whose exponents would come in a wrong order.
        frame, _ = jnp.linalg.qr(jax.random.normal(start, (n, n), matrices.dtype))
        return jax.lax.scan(step, frame, indices)[1][burn_in:].mean(0)

    means = jax.vmap(chain)(jax.random.split(key, num_chains))
    return LyapunovExponents(means.mean(0), means.std(0, ddof=1) / math.sqrt(num_chains))


def lyapunov_exponents(
    matrices: ArrayLike,
    probabilities: ArrayLike | None = None,
    *,
    key: Key,
    num_steps: int = 2000,
    num_chains: int = 64,
) -> LyapunovExponents:
    """Estimate the Lyapunov exponents of a product of matrices drawn independently, by the QR method.

    Orthonormal frames are pushed through the product and made orthonormal again at every step; the logarithms of the
    diagonal of R average to the exponents. Spurious subspaces that rotate between environments (cores that do not
    commute) die iff the largest exponent of their linearised factors is negative. A tenth of `num_steps` is
    run first and thrown away. Unbatched; `vmap` over matrices or keys.

    Args:
        matrices: [E, n, n]; a singular one gives -inf.
        probabilities: [E], sum to one; None for equal ones.
        key: random key.
        num_steps: steps averaged in each chain.
        num_chains: independent chains, at least 2.

    Returns:
        The exponents [n] and their standard errors [n], per step.

    >>> factors = linearised(0.1, jnp.asarray([[[5.0, 1.0], [1.0, 2.0]], [[-3.0, 1.0], [1.0, -2.5]]]))
    >>> lyapunov_exponents(factors, key=jax.random.key(0), num_steps=200).exponents.shape
    (2,)
    """
    _check(matrices=matrices)
    (array,) = _common(matrices)
    if array.ndim != 3 or array.shape[1] != array.shape[2] or 0 in array.shape:
        raise ValueError(f"matrices must have the shape [E, n, n], got {array.shape}")
    num_steps = checks.integer("num_steps", num_steps)
    num_chains = checks.integer("num_chains", num_chains, minimum=2)
    weights = None
    if probabilities is not None:
        weights = jnp.asarray(checks.probabilities("probabilities", probabilities, len(array)), array.dtype)
    return _random_product(array, weights, key, num_steps, num_chains, -(-num_steps // 10))


def _bisect(function: Callable[[Array], Array], low: Array, high: Array) -> Array:
    """The point of [low, high] where `function` turns from positive to negative, elementwise."""

    def halve(_: int, bracket: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = bracket
        middle = (low + high) / 2
        positive = function(middle) > 0
        return jnp.where(positive, middle, low), jnp.where(positive, high, middle)

    steps = jnp.finfo(low.dtype).nmant + 16  # a root 2^-16 of the bracket still gets all its digits
    low, high = jax.lax.fori_loop(0, steps, halve, (low, high))
    return (low + high) / 2


@functools.partial(jax.jit, static_argnames="family")
def _spread_root(eta: Array, mu: Array, family: str) -> Array:
    mu_ = jnp.where(mu > 0, mu, 1)
    lowest = _LOWEST[family] * (1 / eta + mu_)
    root = _bisect(lambda spread: lyapunov(family, eta, mu_, spread), jnp.zeros_like(mu), lowest)
    root = jnp.where(lyapunov(family, eta, mu_, lowest) < 0, root, jnp.inf)
    return jnp.where(mu > 0, root, 0)


def critical_spread(learning_rate: ArrayLike, mean: ArrayLike, family: str = "two_point") -> Array:
    """The critical heterogeneity M_c: the smallest spread beyond which lambda is negative.

    Two points: sqrt(2 mu/eta + mu^2). At fixed a the exponents of the other families fall with b/a to one
    minimum (r tanh r = 1 for uniform, where the Dawson integral is largest for normal) and rise beyond it, so that the
    bisection between zero and this minimum finds the smallest root, the only one there. More spread than a second,
    larger root lets the direction grow again, far beyond `divergence_bound`.

    Args:
        learning_rate: eta [...], above zero.
        mean: mu [...].
        family: one of `families`.

    Returns:
        M_c [...]: 0 where the mean is not positive (pooled training rejects the direction too, as long as
        eta mu > -2) and inf where no spread makes lambda negative (eta mu above 0.509 uniform, 0.278 normal).

    >>> [f"{critical_spread(0.1, 1.0, name):.2f}" for name in families]
    ['4.58', '7.62', '4.12']
    """
    checks.choice("family", family, families)
    eta, mu = _arrays(learning_rate=learning_rate, mean=mean)
    if family == "two_point":
        mu = jnp.maximum(mu, 0)
        return jnp.sqrt(mu * (2 / eta + mu))
    return _spread_root(eta, mu, family)


@functools.partial(jax.jit, static_argnames="family")
def _learning_rate_root(mu: Array, spread: Array, family: str) -> Array:
    mu_ = jnp.where(mu > 0, mu, 1)
    wide = spread > 2 * mu_  # a root needs a ratio of at least 3; this keeps the denominator positive
    spread_ = jnp.where(wide, spread, 4 * mu_)

    def rate(ratio: Array) -> Array:  # the eta at which b/a has this value
        return ratio / (spread_ - ratio * mu_)

    def exponent(ratio: Array) -> Array:
        return lyapunov(family, rate(ratio), mu_, spread_)

    last = jnp.full_like(mu, _LAST[family])
    first = jnp.full_like(mu, jnp.finfo(mu.dtype).eps)
    root = jnp.where(wide & (exponent(last) < 0), rate(_bisect(exponent, first, last)), jnp.inf)
    return jnp.where(mu > 0, root, 0)


def critical_learning_rate(mean: ArrayLike, spread: ArrayLike, family: str = "two_point") -> Array:
    """The critical learning rate eta_c: the smallest one beyond which lambda is negative.

    Two points: 2 mu/(M^2 - mu^2). Otherwise lambda = log a + h(r) with r = b/a vanishes iff
    M/mu = r/(1 - exp h(r)); this falls with r to one minimum, and the bisection in r runs up to there.

    Args:
        mean: mu [...].
        spread: M [...], not negative.
        family: one of `families`.

    Returns:
        eta_c [...]: 0 where the mean is not positive; inf where no learning rate will do, which is M <= mu for two
        points (no environment has a negative eigenvalue), M < 3.356 mu uniform, sd < 3.047 mu normal.

    >>> print(f"{critical_learning_rate(mean=1.0, spread=5.0):.4f}")
    0.0833
    """
    checks.choice("family", family, families)
    mu, spread = _arrays(mean=mean, spread=spread)
    if family != "two_point":
        return _learning_rate_root(mu, spread, family)
    gap = jnp.where(spread > mu, (spread - mu) * (spread + mu), 0)
    root = jnp.where(gap > 0, 2 * mu / jnp.where(gap > 0, gap, 1), jnp.inf)
    return jnp.where(mu > 0, root, 0)


def critical_learning_rate_asymmetric(up: ArrayLike, down: ArrayLike) -> Array:
    """The critical learning rate 1/down - 1/up of the eigenvalues +up or -down, equally likely.

    Args:
        up: size of the positive eigenvalue [...], not negative.
        down: size of the negative eigenvalue [...], not negative.

    Returns:
        eta_c [...]: 0 where up <= down (the mean is not positive), inf where down = 0 < up.
    """
    up, down = _arrays(up=up, down=down)
    root = (up - down) / jnp.where((up > 0) & (down > 0), up * down, 1)
    return jnp.where(up > down, jnp.where(down > 0, root, jnp.inf), 0)


@functools.partial(jax.jit, static_argnames="count")
def _mixture_root(eta: Array, mu: Array, count: int) -> Array:
    mu_ = jnp.where(mu > 0, mu, 1)
    # The mean of `count` signs, and how likely each value is.
    signs = jnp.asarray([2 * j / count - 1 for j in range(count + 1)], mu.dtype)
    weights = jnp.asarray([math.comb(count, j) / 2**count for j in range(count + 1)], mu.dtype)
    signs = jnp.broadcast_to(signs, (*mu.shape, count + 1))

    def exponent(spread: Array) -> Array:
        return lyapunov_environments(eta, mu_[..., None] + spread[..., None] * signs, weights)

    return jnp.where(mu > 0, _bisect(exponent, jnp.zeros_like(mu), 1 / eta + mu_), 0)


def mixing_critical_spread(
    learning_rate: ArrayLike, mean: ArrayLike, environments_per_batch: int, family: str = "two_point"
) -> Array:
    """The critical heterogeneity of batches that mix k independent environments in equal parts.

    A batch then follows the mean of k eigenvalues, of variance Var(s)/k, so that M_c grows about like sqrt(k) from
    HeteroSGD (k = 1) towards pooled training (k large). Exact for two points (a binomial mixture; lambda falls
    monotonically from b = 0 to the singular point b = a, so that the root is unique there) and for normal; for uniform
    the variance is matched, M_c sqrt(k). Compare with `divergence_bound`: for 2 k eta mu near 1 or above, the root
    is only the narrow singularity at b = a, or inf, and some runs blow up before it.

    Args:
        learning_rate: eta [...], above zero.
        mean: mu [...].
        environments_per_batch: k, a whole number, static.
        family: one of `families`.

    Returns:
        M_c [...]; 0 where the mean is not positive.

    >>> [f"{mixing_critical_spread(0.02, 0.5, k):.2f}" for k in (1, 2, 4)]
    ['7.09', '9.98', '13.99']
    """
    count = checks.integer("environments_per_batch", environments_per_batch)
    checks.choice("family", family, families)
    eta, mu = _arrays(learning_rate=learning_rate, mean=mean)
    if family == "two_point":
        return _mixture_root(eta, mu, count)
    return math.sqrt(count) * critical_spread(eta, mu, family)


def is_bounded(learning_rate: ArrayLike, lowest: ArrayLike, highest: ArrayLike) -> Array:
    """Whether no sequence of eigenvalues in [lowest, highest] can make the scalar dynamics diverge.

    Write c = 1 + eta s for the factor at zero, so that a step is u -> (c - eta u^2) u. Its interior maximum is at most
    u_max = sqrt((4/27) c_high^3/eta), and |u| <= u_max is not left iff no step from u_max overshoots on the other
    side, eta u_max^2 <= 1 + c for every c. This is (4/27) c_high^3 <= 1 + c_low: sufficient for every start in
    |u| <= u_max, whatever the order of the environments. Beyond it some sequence of eigenvalues leaves that interval.

    Args:
        learning_rate: eta [...], above zero.
        lowest: the smallest eigenvalue [...].
        highest: the largest eigenvalue [...].

    Returns:
        bool [...].
    """
    eta, lowest, highest = _arrays(learning_rate=learning_rate, lowest=lowest, highest=highest)
    return 4 / 27 * jnp.maximum(1 + eta * highest, 0) ** 3 <= 2 + eta * lowest


def divergence_bound(learning_rate: ArrayLike, mean: ArrayLike) -> Array:
    """The largest spread M up to which eigenvalues in [mu - M, mu + M] cannot make the dynamics diverge.

    Equality in `is_bounded`, (4/27) y^3 + y = 3 + 2 eta mu in y = 1 + eta mu + eta M, has the one real solution
    y = 3 sinh(asinh(3 + 2 eta mu)/3). Sufficient, not necessary: at eta mu = 0.1 it gives eta M = 0.905, where simulated
    two-point runs begin to diverge (none of them at 0.90, 13 % at 0.95).

    Args:
        learning_rate: eta [...], above zero.
        mean: mu [...].

    Returns:
        M [...]; 0 for eta mu >= 2 (or <= -3/2), where not even identical environments are covered.

    >>> print(f"{0.1 * divergence_bound(0.1, mean=1.0):.3f}")
    0.905
    """
    eta, mu = _arrays(learning_rate=learning_rate, mean=mean)
    drift = eta * mu
    highest = 3 * jnp.sinh(jnp.arcsinh(3 + 2 * drift) / 3)
    return jnp.where(drift > -1.5, jnp.maximum(highest - 1 - drift, 0), 0) / eta


def growth_time(eigenvalue: ArrayLike, *, learning_rate: ArrayLike, init_scale: ArrayLike) -> Array:
    """Steps log(sqrt(s)/alpha)/log(1 + eta s) that a direction needs to grow from alpha to its level sqrt(s).

    Args:
        eigenvalue: s [...] of the signal in that direction, above zero.
        learning_rate: eta [...], above zero.
        init_scale: alpha [...], the initial scale of the factor, above zero.

    Returns:
        Steps [...], fractional; 0 from above the level.

    >>> print(f"{growth_time(1.0, learning_rate=0.1, init_scale=1e-3):.1f}")
    72.5
    """
    s, eta, alpha = _arrays(eigenvalue=eigenvalue, learning_rate=learning_rate, init_scale=init_scale)
    return jnp.maximum(jnp.log(s) / 2 - jnp.log(alpha), 0) / jnp.log1p(eta * s)


class SpuriousMoments(NamedTuple):
    """Stationary moments of a spurious direction u."""

    second: Array  # [...] <u^2>, in units of the signal
    fourth: Array  # [...] <u^4>, in units of the signal squared


def stationary_spurious_moments(
    learning_rate: ArrayLike, mean: ArrayLike, spread: ArrayLike, family: str = "two_point"
) -> SpuriousMoments:
    """The stationary <u^2> = lambda/eta and <u^4> = lambda (lambda + v)/eta^2 of a spurious direction; 0 beyond M_c.

    For small steps d log u = (lambda - eta u^2) dt + sqrt(v) dB with v = Var log|1 + eta s|: x = u^2 follows a
    logistic equation with multiplicative noise, whose stationary law is Gamma of shape lambda/v and scale v/eta.
    v is exact for two points and (eta sd/(1 + eta mu))^2 otherwise. The error is of order eta mu and largest near the
    transition. Simulated two-point dynamics over these formulas, at M/M_c = 0.5, 0.8, 0.95 (standard error at most 0.03):

        eta mu    <u^2>               <u^4>
        0.005     1.00  0.99  0.98    1.00  0.99  0.97
        0.01      1.00  0.99  0.97    1.01  1.00  0.97
        0.05      0.99  0.94  0.89    1.04  1.01  0.97
        0.1       0.98  0.85  0.74    1.08  0.99  0.88

    Args:
        learning_rate: eta [...], above zero.
        mean: mu [...].
        spread: M [...], not negative and below `divergence_bound`: the formulas know nothing of divergence.
        family: one of `families`.

    Returns:
        The two moments, [...] each.
    """
    exponent = lyapunov(family, learning_rate, mean, spread)
    eta, mu, spread = _arrays(learning_rate=learning_rate, mean=mean, spread=spread)
    if family == "two_point":
        variance = log_variance_two_point(eta, mu, spread)
    else:
        variance = (eta * spread * _DEVIATION[family] / (1 + eta * mu)) ** 2
    alive = exponent > 0
    exponent, variance = jnp.where(alive, exponent, 0), jnp.where(alive, variance, 0)
    return SpuriousMoments(exponent / eta, exponent * (exponent + variance) / eta**2)


def error_floor(
    spread: ArrayLike,
    *,
    learning_rate: ArrayLike,
    batch_size: ArrayLike,
    dim: ArrayLike,
    invariant_rank: ArrayLike,
    spurious_rank: ArrayLike,
    invariant_eigenvalue: ArrayLike = 1.0,
) -> Array:
    """The error |UU' - A*|_F at which HeteroSGD stops, M sqrt(r1 r2 d eta sigma*/(2m)).

    The residual -A_e, of norm about M sqrt(r2), never vanishes. Its batch noise drives the rows of U outside U*, which decay at
    the rate eta sigma*, to entries of variance eta r2 M^2/(4m); UU' holds r1 d of them twice, times sigma*.
    First order in eta and 1/m; simulated errors were about 10 % larger at d = 30, eta = 0.1, M = 6.

    Args:
        spread: root mean square M [...] of the spurious eigenvalues.
        learning_rate: eta [...], above zero.
        batch_size: m [...], examples in a batch.
        dim: d [...].
        invariant_rank: r1 [...].
        spurious_rank: r2 [...].
        invariant_eigenvalue: sigma* [...], the eigenvalue of A*, above zero.

    Returns:
        Frobenius error [...].

    >>> floor = error_floor(6.0, learning_rate=0.1, batch_size=500, dim=30, invariant_rank=2, spurious_rank=1)
    >>> print(f"{floor:.3f}")
    0.465
    """
    spread, eta, m, d, r1, r2, sigma = _arrays(
        spread=spread,
        learning_rate=learning_rate,
        batch_size=batch_size,
        dim=dim,
        invariant_rank=invariant_rank,
        spurious_rank=spurious_rank,
        invariant_eigenvalue=invariant_eigenvalue,
    )
    return spread * jnp.sqrt(r1 * r2 * d * eta * sigma / (2 * m))


def expected_error(
    spread: ArrayLike,
    *,
    learning_rate: ArrayLike,
    batch_size: ArrayLike,
    dim: ArrayLike,
    invariant_rank: ArrayLike,
    spurious_rank: ArrayLike,
    mean: ArrayLike,
    invariant_eigenvalue: ArrayLike = 1.0,
    family: str = "two_point",
) -> Array:
    """The stationary error |UU' - A*|_F against M: the floor and what is left of the spurious signal.

    sqrt(floor^2 + r2 <u^4>), from `error_floor` (at the standard deviation of the eigenvalues) and
    `stationary_spurious_moments`, as if the r2 spurious directions were independent and there were no divergence.

    Args:
        spread: M [...], not negative.
        learning_rate: eta [...], above zero.
        batch_size: m [...], examples in a batch.
        dim: d [...].
        invariant_rank: r1 [...].
        spurious_rank: r2 [...].
        mean: mu [...].
        invariant_eigenvalue: sigma* [...], above zero.
        family: one of `families`.

    Returns:
        Frobenius error [...].
    """
    fourth = stationary_spurious_moments(learning_rate, mean, spread, family).fourth
    spread, rank = _arrays(spread=spread, spurious_rank=spurious_rank)
    floor = error_floor(
        _DEVIATION[family] * spread,
        learning_rate=learning_rate,
        batch_size=batch_size,
        dim=dim,
        invariant_rank=invariant_rank,
        spurious_rank=spurious_rank,
        invariant_eigenvalue=invariant_eigenvalue,
    )
    floor, rank, fourth = _common(floor, rank, fourth)
    return jnp.sqrt(floor**2 + rank * fourth)


@functools.partial(jax.jit, static_argnames="family")
def _best_spread(settings: dict[str, Array], family: str) -> Array:
    eta, mu = settings["learning_rate"], settings["mean"]
    critical = critical_spread(eta, mu, family)
    # Beyond M_c only the floor is left, which grows; without an M_c look as far as lambda falls.
    last = jnp.where(jnp.isfinite(critical), critical, _LOWEST[family] * (1 / eta + mu))

    def error(fraction: Array) -> Array:
        return expected_error(fraction * last, family=family, **settings)

    grid = jnp.linspace(0, 1, 33, dtype=eta.dtype)
    best = grid[jnp.argmin(jax.vmap(lambda point: error(jnp.full_like(last, point)))(grid), 0)]

    def shrink(_: int, bracket: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = bracket
        left, right = high - golden * (high - low), low + golden * (high - low)
        falling = error(left) > error(right)
        return jnp.where(falling, left, low), jnp.where(falling, high, right)

    golden = (math.sqrt(5) - 1) / 2
    bracket = (jnp.maximum(best - 1 / 32, 0), jnp.minimum(best + 1 / 32, 1))
    inner = sum(jax.lax.fori_loop(0, 24, shrink, bracket)) / 2
    # The grid point, or an end, wins ties: M_c is a corner of the error.
    return jnp.where(error(inner) < error(best), inner, best) * last


def optimal_spread(
    *,
    learning_rate: ArrayLike,
    batch_size: ArrayLike,
    dim: ArrayLike,
    invariant_rank: ArrayLike,
    spurious_rank: ArrayLike,
    mean: ArrayLike,
    invariant_eigenvalue: ArrayLike = 1.0,
    family: str = "two_point",
) -> Array:
    """The heterogeneity M that minimises `expected_error`, by a grid on [0, M_c] and a golden-section search.

    For small steps the squared error below M_c is r2 (mu^2 - eta^2 Var(s)^2/4) + floor^2, concave in Var(s): the best
    spread is an end of [0, M_c]. M_c wins for batches above about m = r1 d sigma*/mu; for smaller ones the noise that
    heterogeneity brings costs more than the spurious signal, and the best is no heterogeneity at all. M_c is a local minimum
    down to half that batch size.

    Args:
        learning_rate: eta [...], above zero.
        batch_size: m [...], examples in a batch.
        dim: d [...].
        invariant_rank: r1 [...].
        spurious_rank: r2 [...].
        mean: mu [...].
        invariant_eigenvalue: sigma* [...], above zero.
        family: one of `families`.

    Returns:
        M [...], to about 1e-3 of M_c; may lie beyond `divergence_bound`.
    """
    checks.choice("family", family, families)
    settings = {
        "learning_rate": learning_rate,
        "batch_size": batch_size,
        "dim": dim,
        "invariant_rank": invariant_rank,
        "spurious_rank": spurious_rank,
        "mean": mean,
        "invariant_eigenvalue": invariant_eigenvalue,
    }
    return _best_spread(dict(zip(settings, _arrays(**settings), strict=True)), family)
