"""Closed forms and Lyapunov exponents: where a spurious direction dies, how fast, and at what cost.

A spurious direction u that meets an independent eigenvalue s at every step follows, in the population,
u <- (1 + eta (s - u^2)) u. Near zero log|u| is a random walk whose drift is the Lyapunov exponent
lambda = E log|1 + eta s|: below zero the direction dies, above zero it grows to a fluctuating level (Ziyin et
al., arXiv 2303.13093; Chemnitz & Engel, arXiv 2407.20209). Hence the phase diagram of heterogeneity against
learning rate in [XGF] (Xu, Gu, Fang, arXiv 2403.01420). The loss is (1/4m) sum_i (<X_i, UU'> - y_i)^2.

In all functions eta is the `learning_rate` (in 1/signal, above zero), mu the `mean` and M the `spread` of s
(in units of the signal, M not negative): M of mu +- M, equally likely ("two_point"), the half-width
("uniform") or the standard deviation ("gaussian"). Write a = 1 + eta mu and b = eta M. The exponent lambda
and the variance v = Var log|1 + eta s| are per step. Where no derivation or source is given, a formula is
the definition written out.

Numbers and arrays [...] broadcast and may be traced; a result has the common shape and the promoted floating
dtype. Concrete arguments outside their limits raise ValueError.
"""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, NotRequired, ParamSpec, TypedDict, TypeVar, Unpack, cast

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from causal_sgd import checks
from causal_sgd.types import Array, Key

__all__ = [
    "BatchSettings",
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
# E log|1 + z/x| ~ -sum_k (2k - 1)!! / (2k x^2k) for z normal, in powers of (8/x)^2 that float32 can hold.
_TAIL = [-float(math.prod(range(1, 2 * k, 2))) / (2 * k * 64.0**k) for k in range(30, 0, -1)] + [0.0]
# digamma(j + 1/2) - log(32); 100 Poisson weights of a mean up to 32 leave out less than 1e-20.
_HALF = -0.5772156649015329 - 2 * math.log(2) - math.log(32)
_DIGAMMA = [_HALF + math.fsum(2 / (2 * i - 1) for i in range(1, j + 1)) for j in range(100)]
# At fixed a, lambda falls with r = b/a up to this ratio and rises beyond: r tanh r = 1; the maximum of
# Dawson's integral is at 1/(r sqrt(2)). Two points reach -inf at r = 1.
_LOWEST = {"two_point": 1.0, "uniform": 1.1996786, "gaussian": 0.7651521}
# lambda = log a + h(r) is zero iff M/mu = r/(1 - exp h(r)), which falls up to this r and rises beyond.
_LAST = {"uniform": 1.0845530, "gaussian": 0.5740232}
_DEVIATION = {"two_point": 1.0, "uniform": 1 / math.sqrt(3), "gaussian": 1.0}  # of s, in spreads
_TINY = 1e-37  # keeps 0/0 out of quotients; normal in float32
_POSITIVE = ("learning_rate", "eigenvalue", "invariant_eigenvalue", "init_scale")
_COUNTS = ("batch_size", "dim", "invariant_rank", "spurious_rank")
_LIMITS: dict[str, dict[str, Any]] = {
    **{name: {"above": 0} for name in _POSITIVE},
    **{name: {"minimum": 1} for name in _COUNTS},
    **{name: {"minimum": 0} for name in ("spread", "up", "down")},
}


_P = ParamSpec("_P")
_R = TypeVar("_R")


def _check(**values: Any) -> None:
    """Check concrete arguments against the limits of their names."""
    for name, value in values.items():
        checks.number(name, value, scalar=False, **_LIMITS.get(name, {}))


def _door(function: Callable[_P, _R]) -> Callable[_P, _R]:
    """Check the concrete numbers by name, then run the function compiled whole.

    Called eagerly, every operation would compile on its own at every new shape, and every loop at every call.
    """
    names = list(inspect.signature(function).parameters)
    static = [name for name in ("family", "environments_per_batch") if name in names]
    compiled = jax.jit(function, static_argnames=static)

    @functools.wraps(function)
    def checked(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        values = {**dict(zip(names, args, strict=False)), **kwargs}
        _check(**{name: value for name, value in values.items() if name not in static})
        return compiled(*args, **kwargs)

    return checked


def _common(*values: Any) -> list[Array]:
    """The values as arrays of one shape and one floating dtype."""
    arrays = [jnp.asarray(value) for value in values]
    dtype = jnp.result_type(float, *arrays)
    return jnp.broadcast_arrays(*(array.astype(dtype) for array in arrays))


def _log_abs(x: Array) -> Array:
    """log|1 + x|, accurate for small x."""
    # The clip: where a compiler fuses the product that made x into 1 + x, the sum may fall below zero.
    return jnp.log1p(jnp.maximum(jnp.where(x >= -1, x, -2 - x), -1))


def _half_log(low: Array, high: Array, excess: Array) -> Array:
    """(1/2) log|(1 + low)(1 + high)|; `excess` is low + high + low high, computed without cancellation."""
    near = jnp.log1p(jnp.clip(excess, -0.5, 0.5))
    return jnp.where(jnp.abs(excess) < 0.5, near, _log_abs(low) + _log_abs(high)) / 2


@_door
def lyapunov_two_point(learning_rate: ArrayLike, mean: ArrayLike, spread: ArrayLike) -> Array:
    """Lyapunov exponent [...], (1/2) log|a^2 - b^2| of the eigenvalues mu +- M, equally likely.

    It is -inf where one of the two factors vanishes, and positive again for b^2 > a^2 + 1.

    Args:
        learning_rate: eta [...].
        mean: mu [...].
        spread: M [...].

    >>> print(f"{lyapunov_two_point(0.1, mean=1.0, spread=4.0):.3f}")  # grows
    0.024
    >>> print(f"{lyapunov_two_point(0.1, mean=1.0, spread=6.0):.3f}")  # dies
    -0.081
    """
    eta, mu, spread = _common(learning_rate, mean, spread)
    drift, b = eta * mu, eta * spread
    return _half_log(eta * (mu - spread), eta * (mu + spread), drift * (2 + drift) - b * b)


@_door
def lyapunov_asymmetric(learning_rate: ArrayLike, up: ArrayLike, down: ArrayLike) -> Array:
    """Lyapunov exponent [...], (1/2) log|(1 + eta up)(1 - eta down)| of +up or -down, equally likely.

    Args:
        learning_rate: eta [...].
        up: size [...] of the positive eigenvalue, not negative.
        down: size [...] of the negative eigenvalue, not negative.
    """
    eta, up, down = _common(learning_rate, up, down)
    return _half_log(-eta * down, eta * up, eta * (up - down) - eta * up * (eta * down))


@_door
def lyapunov_uniform(learning_rate: ArrayLike, mean: ArrayLike, spread: ArrayLike) -> Array:
    """Lyapunov exponent [...] of eigenvalues uniform on mu +- M.

    The integral of log|y| over [a - b, a + b] gives [(a + b) log|a + b| - (a - b) log|a - b|]/(2b) - 1, which
    is log|a| + h(b/|a|); h is summed as a power series for b <= |a|/2.

    Args:
        learning_rate: eta [...].
        mean: mu [...].
        spread: the half-width M [...].
    """
    eta, mu, spread = _common(learning_rate, mean, spread)
    shift, b = eta * mu, eta * spread
    a = jnp.abs(1 + shift)
    inside = b < a
    q = jnp.where(inside, b, a) / jnp.maximum(jnp.where(inside, a, b), _TINY)  # the smaller over the larger
    small, open_ = q <= 0.5, q < 1
    plus = (1 + q) * jnp.log1p(q)
    minus = jnp.where(open_, (1 - q) * jnp.log1p(-jnp.where(open_, q, 0)), 0)
    series = jnp.polyval(jnp.asarray(_UNIFORM, q.dtype), jnp.where(small, q, 0) ** 2)
    closed = (plus - minus) / (2 * jnp.where(small, 1, q)) - 1
    below = _log_abs(shift) + jnp.where(small, series, closed)
    return jnp.where(inside, below, jnp.log(b) + (plus + minus) / 2 - 1)


def _poisson_term(j: int, carry: tuple[Array, ...]) -> tuple[Array, ...]:
    """Add the term j to the unnormalised sums of the weights and of the centred digammas."""
    rate, centre, digammas, weight, total, moment = carry
    moment = moment + weight * (digammas[j] - centre)
    return rate, centre, digammas, weight * rate / (j + 1), total + weight, moment


@_door
def lyapunov_gaussian(learning_rate: ArrayLike, mean: ArrayLike, spread: ArrayLike) -> Array:
    """Lyapunov exponent [...] of normal eigenvalues.

    With x = a/b the square (x + z)^2 is a noncentral chi-square of one degree of freedom: a Poisson(x^2/2)
    mixture over j of chi-squares of 1 + 2j, whose logarithms have the mean log 2 + digamma(j + 1/2). That
    series serves for x <= 8; beyond, log x - sum_k (2k - 1)!!/(2k x^2k), asymptotic with an error of order
    exp(-x^2/2).

    Args:
        learning_rate: eta [...].
        mean: mu [...].
        spread: the standard deviation [...].
    """
    eta, mu, spread = _common(learning_rate, mean, spread)
    shift, width = eta * mu, eta * spread
    a, wide = jnp.abs(1 + shift), math.sqrt(2) * width
    far = a > 8 * width
    ratio = 8 * jnp.where(far, width, 0) / jnp.maximum(jnp.where(far, a, 1), _TINY)
    tail = jnp.polyval(jnp.asarray(_TAIL, a.dtype), ratio**2)
    rate = (jnp.where(far, 0, a) / jnp.where(width > 0, wide, 1)) ** 2
    # Centred, the sum is as small as lambda - log(scale), so that float32 does not lose it in log(width).
    centre = jnp.log(jnp.maximum(rate, 1) / 32)
    scale = jnp.where(a >= wide, _log_abs(shift), jnp.log(wide))
    zero = jnp.zeros_like(rate)
    start = (rate, centre, jnp.asarray(_DIGAMMA, a.dtype), zero + 1, zero, zero)
    *_, total, moment = jax.lax.fori_loop(0, len(_DIGAMMA), _poisson_term, start)
    return jnp.where(far, _log_abs(shift) + tail, scale + moment / total / 2)


families: Mapping[str, Callable[[ArrayLike, ArrayLike, ArrayLike], Array]] = {
    "two_point": lyapunov_two_point,
    "uniform": lyapunov_uniform,
    "gaussian": lyapunov_gaussian,
}
"""The exponents by family: (learning_rate, mean, spread) -> lambda."""


def lyapunov(family: str, learning_rate: ArrayLike, mean: ArrayLike, spread: ArrayLike) -> Array:
    """Lyapunov exponent [...] of one of the `families` by its name.

    Args:
        family: one of `families`.
        learning_rate: eta [...].
        mean: mu [...].
        spread: M [...].
    """
    return families[checks.choice("family", family, families)](learning_rate, mean, spread)


@jax.jit
def _log_moments(learning_rate: Any, eigenvalues: Any, weights: Any) -> tuple[Array, Array]:
    """Mean and variance [...] of log|1 + eta s_e|."""
    eta, values, weights = _common(jnp.asarray(learning_rate)[..., None], eigenvalues, weights)
    logs = jnp.where(weights > 0, _log_abs(eta * values), 0)
    mean = jnp.sum(weights * logs, -1)
    deviation = jnp.where(jnp.isinf(logs), jnp.inf, logs - jnp.where(jnp.isinf(mean), 0, mean)[..., None])
    return mean, jnp.sum(jnp.where(weights > 0, weights * deviation**2, 0), -1)


def _environments(
    learning_rate: ArrayLike, eigenvalues: ArrayLike, probabilities: ArrayLike | None
) -> tuple[Array, Array]:
    """The same with the arguments checked; outside of what is compiled, where probabilities are concrete."""
    _check(learning_rate=learning_rate, eigenvalues=eigenvalues)
    shape = jnp.shape(eigenvalues)
    if not shape or shape[-1] == 0:
        raise ValueError(f"eigenvalues must have a last axis of environments, [..., E], got shape {shape}")
    weights = 1 / shape[-1]
    if probabilities is not None:
        weights = checks.probabilities("probabilities", probabilities, shape[-1])
    return _log_moments(learning_rate, eigenvalues, weights)


def lyapunov_environments(
    learning_rate: ArrayLike, eigenvalues: ArrayLike, probabilities: ArrayLike | None = None
) -> Array:
    """Lyapunov exponent [...], sum_e p_e log|1 + eta s_e| of fixed environments, random or in turn.

    Args:
        learning_rate: eta [...].
        eigenvalues: s_e [..., E], the spurious eigenvalue of each environment.
        probabilities: [E], sum to one; None for equal ones.

    >>> print(f"{lyapunov_environments(0.1, jnp.array([5.0, -3.0])):.3f}")
    0.024
    """
    return _environments(learning_rate, eigenvalues, probabilities)[0]


@_door
def log_variance_two_point(learning_rate: ArrayLike, mean: ArrayLike, spread: ArrayLike) -> Array:
    """The variance v [...] of log|1 + eta s| for the eigenvalues mu +- M, equally likely.

    Half the difference of the two logarithms is (1/2) log|(a + b)/(a - b)|, so that v = artanh(b/|a|)^2, with
    |a|/b instead where b > |a|. It is infinite at the singular point b = |a|.

    Args:
        learning_rate: eta [...].
        mean: mu [...].
        spread: M [...].
    """
    eta, mu, spread = _common(learning_rate, mean, spread)
    a, b = jnp.abs(1 + eta * mu), eta * spread
    large = jnp.maximum(a, b)
    return jnp.arctanh(jnp.minimum(a, b) / jnp.maximum(large, _TINY)) ** 2


def log_variance_environments(
    learning_rate: ArrayLike, eigenvalues: ArrayLike, probabilities: ArrayLike | None = None
) -> Array:
    """The variance v [...] of log|1 + eta s_e| over drawn environments.

    It is inf where an environment that is met has 1 + eta s_e = 0.

    Args:
        learning_rate: eta [...].
        eigenvalues: s_e [..., E].
        probabilities: [E], sum to one; None for equal ones.
    """
    return _environments(learning_rate, eigenvalues, probabilities)[1]


def linearised(learning_rate: ArrayLike, cores: ArrayLike) -> Array:
    """The factors I + eta C_e, [..., n, n], of the spurious dynamics near zero.

    Args:
        learning_rate: eta [].
        cores: C_e [..., n, n], in units of the signal.
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


@functools.partial(jax.jit, static_argnames=("num_steps", "num_chains"))
def _random_product(
    matrices: Array, weights: Array | None, key: Key, *, num_steps: int, num_chains: int
) -> LyapunovExponents:
    size, n, _ = matrices.shape
    burn_in = -(-num_steps // 10)

    def step(frame: Array, index: Array) -> tuple[Array, Array]:
        frame, triangle = jnp.linalg.qr(jnp.matmul(matrices[index], frame, precision="highest"))
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
    """Estimate the Lyapunov exponents of a product of independently drawn matrices, by the QR method.

    An orthonormal frame is pushed through the product and made orthonormal again at every step; the
    logarithms of the diagonal of R average to the exponents. Spurious subspaces that rotate between
    environments (cores that do not commute) die iff the largest exponent of their `linearised` factors is
    negative. Unbatched; `vmap` over matrices or keys.

    Args:
        matrices: [E, n, n]; a singular one gives -inf.
        probabilities: [E], sum to one; None for equal ones.
        key: random key.
        num_steps: steps averaged in each chain, after a tenth as many that are thrown away.
        num_chains: independent chains, at least 2.

    Returns:
        The exponents [n] and their standard errors [n].

    >>> factors = linearised(0.1, jnp.array([[[5.0, 1.0], [1.0, 2.0]], [[-3.0, 1.0], [1.0, -2.5]]]))
    >>> lyapunov_exponents(factors, key=jax.random.key(0), num_steps=200).exponents.shape
    (2,)
    """
    _check(matrices=matrices)
    (array,) = _common(matrices)
    if array.ndim != 3 or array.shape[1] != array.shape[2] or 0 in array.shape:
        raise ValueError(f"matrices must have the shape [E, n, n], got {array.shape}")
    num_steps = checks.integer("num_steps", num_steps)
    num_chains = checks.integer("num_chains", num_chains, minimum=2)
    if probabilities is not None:
        checks.probabilities("probabilities", probabilities, len(array))
        probabilities = jnp.asarray(probabilities, array.dtype)
    return _random_product(array, probabilities, key, num_steps=num_steps, num_chains=num_chains)


def _bisect(function: Callable[[Array], Array], low: Array, high: Array) -> Array:
    """The point of [low, high] where `function` turns from positive to negative, elementwise."""

    def halve(_: int, bracket: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = bracket
        middle = (low + high) / 2
        positive = function(middle) > 0
        return jnp.where(positive, middle, low), jnp.where(positive, high, middle)

    steps = jnp.finfo(low.dtype).nmant + 16  # even a root 2^-16 of the bracket gets all its digits
    low, high = jax.lax.fori_loop(0, steps, halve, (low, high))
    return (low + high) / 2


@_door
def critical_spread(learning_rate: ArrayLike, mean: ArrayLike, family: str = "two_point") -> Array:
    """The critical heterogeneity M_c: the smallest spread beyond which lambda is negative.

    Two points: sqrt(2 mu/eta + mu^2). At fixed a the other exponents fall with r = b/a to a single minimum
    (r tanh r = 1 for uniform, the maximum of Dawson's integral for normal) and rise beyond, so that a
    bisection up to there finds the smallest root. Beyond the second one the direction grows again, if it has
    not diverged.

    Args:
        learning_rate: eta [...].
        mean: mu [...].
        family: one of `families`.

    Returns:
        M_c [...]: 0 where mu <= 0 (pooled training rejects the direction too, while eta mu > -2), inf where
        no spread makes lambda negative (eta mu above 0.509 uniform, 0.278 normal).

    >>> [f"{critical_spread(0.1, 1.0, name):.2f}" for name in families]
    ['4.58', '7.62', '4.12']
    """
    checks.choice("family", family, families)
    eta, mu = _common(learning_rate, mean)
    if family == "two_point":
        mu = jnp.maximum(mu, 0)
        return jnp.sqrt(mu * (2 / eta + mu))
    mean = jnp.where(mu > 0, mu, 1)
    lowest = _LOWEST[family] * (1 / eta + mean)
    root = _bisect(lambda spread: lyapunov(family, eta, mean, spread), jnp.zeros_like(mu), lowest)
    root = jnp.where(lyapunov(family, eta, mean, lowest) < 0, root, jnp.inf)
    return jnp.where(mu > 0, root, 0)


@_door
def critical_learning_rate(mean: ArrayLike, spread: ArrayLike, family: str = "two_point") -> Array:
    """The critical learning rate eta_c: the smallest one beyond which lambda is negative.

    Two points: 2 mu/(M^2 - mu^2). Otherwise lambda = log a + h(r) with r = b/a is zero iff
    M/mu = r/(1 - exp h(r)); this falls with r to a single minimum, and the bisection in r runs up to there.

    Args:
        mean: mu [...].
        spread: M [...].
        family: one of `families`.

    Returns:
        eta_c [...]: 0 where mu <= 0, inf where no learning rate will do: M <= mu for two points (no
        environment has a negative eigenvalue), M < 3.356 mu uniform, M < 3.047 mu normal.

    >>> print(f"{critical_learning_rate(mean=1.0, spread=5.0):.4f}")
    0.0833
    """
    checks.choice("family", family, families)
    mu, spread = _common(mean, spread)
    if family == "two_point":
        gap = jnp.where(spread > mu, (spread - mu) * (spread + mu), 0)
        root = jnp.where(gap > 0, 2 * mu / jnp.where(gap > 0, gap, 1), jnp.inf)
        return jnp.where(mu > 0, root, 0)
    mean = jnp.where(mu > 0, mu, 1)
    wide = spread > 2 * mean  # a root needs at least 3; this keeps the denominator below positive
    width = jnp.where(wide, spread, 4 * mean)

    def rate(ratio: Array) -> Array:  # the eta that makes b/a this ratio
        return ratio / (width - ratio * mean)

    def exponent(ratio: Array) -> Array:
        return lyapunov(family, rate(ratio), mean, width)

    first, last = jnp.full_like(mu, jnp.finfo(mu.dtype).eps), jnp.full_like(mu, _LAST[family])
    root = jnp.where(wide & (exponent(last) < 0), rate(_bisect(exponent, first, last)), jnp.inf)
    return jnp.where(mu > 0, root, 0)


@_door
def critical_learning_rate_asymmetric(up: ArrayLike, down: ArrayLike) -> Array:
    """The critical learning rate 1/down - 1/up of the eigenvalues +up or -down, equally likely.

    Args:
        up: size [...] of the positive eigenvalue, not negative.
        down: size [...] of the negative eigenvalue, not negative.

    Returns:
        eta_c [...]: 0 where up <= down (the mean is not positive), inf where down = 0 < up.
    """
    up, down = _common(up, down)
    root = (up - down) / jnp.where((up > 0) & (down > 0), up * down, 1)
    return jnp.where(up > down, jnp.where(down > 0, root, jnp.inf), 0)


@_door
def mixing_critical_spread(
    learning_rate: ArrayLike, mean: ArrayLike, environments_per_batch: int, family: str = "two_point"
) -> Array:
    """The critical heterogeneity of batches that mix k independent environments in equal parts.

    Such a batch follows the mean of k eigenvalues, of variance Var(s)/k: M_c grows about like sqrt(k), from
    HeteroSGD (k = 1) towards pooled training. Exact for normal and for two points (a binomial mixture, whose
    lambda falls from b = 0 to its first singularity at b = a, so that the root there is unique); for uniform
    M_c sqrt(k), which matches the variance. For 2 k eta mu near 1 and above the root is only the narrow
    singularity; see `divergence_bound`.

    Args:
        learning_rate: eta [...].
        mean: mu [...].
        environments_per_batch: k, static.
        family: one of `families`.

    Returns:
        M_c [...], 0 where mu <= 0.

    >>> [f"{mixing_critical_spread(0.01, 0.5, k):.1f}" for k in (1, 2, 4)]
    ['10.0', '14.1', '19.9']
    """
    count = checks.integer("environments_per_batch", environments_per_batch)
    checks.choice("family", family, families)
    eta, mu = _common(learning_rate, mean)
    if family != "two_point":
        return math.sqrt(count) * critical_spread(eta, mu, family)
    mean = jnp.where(mu > 0, mu, 1)[..., None]
    # The values that the mean of `count` signs takes, and how likely each is.
    signs = jnp.asarray([2 * j / count - 1 for j in range(count + 1)], mu.dtype)
    weights = jnp.asarray([math.comb(count, j) / 2**count for j in range(count + 1)], mu.dtype)
    signs = jnp.broadcast_to(signs, (*mu.shape, count + 1))

    def exponent(spread: Array) -> Array:
        return lyapunov_environments(eta, mean + spread[..., None] * signs, weights)

    return jnp.where(mu > 0, _bisect(exponent, jnp.zeros_like(mu), 1 / eta + mean[..., 0]), 0)


@_door
def is_bounded(learning_rate: ArrayLike, lowest: ArrayLike, highest: ArrayLike) -> Array:
    """Whether no sequence of eigenvalues in [lowest, highest] can make the scalar dynamics diverge.

    With c = 1 + eta s a step is u -> (c - eta u^2) u. It peaks at u_max = sqrt((4/27) c_high^3/eta) at most,
    and |u| <= u_max is kept iff no step from u_max overshoots on the other side: eta u_max^2 <= 1 + c for
    every c, or (4/27) c_high^3 <= 1 + c_low. Beyond that, a step to the peak and then steps at c_low diverge.

    Args:
        learning_rate: eta [...].
        lowest: the smallest eigenvalue [...].
        highest: the largest eigenvalue [...].

    Returns:
        bool [...].
    """
    eta, lowest, highest = _common(learning_rate, lowest, highest)
    return 4 / 27 * jnp.maximum(1 + eta * highest, 0) ** 3 <= 2 + eta * lowest


@_door
def divergence_bound(learning_rate: ArrayLike, mean: ArrayLike) -> Array:
    """The largest spread M for which eigenvalues in [mu - M, mu + M] cannot make the scalar dynamics diverge.

    Equality in `is_bounded`, (4/27) y^3 + y = 3 + 2 eta mu for y = 1 + eta mu + eta M, has the one real
    solution y = 3 sinh(asinh(3 + 2 eta mu)/3). At eta mu = 0.1 it is eta M = 0.905. Of two-point runs
    simulated for 600 steps from uniform |u| <= u_max none diverged at 0.904, 6 % at 0.92, 16 % at 0.95,
    47 % at 1.1. Runs that start near zero beyond M_c mostly shrink before they meet the peak: from u = 1e-3
    fewer than 0.1 % diverged.

    Args:
        learning_rate: eta [...].
        mean: mu [...].

    Returns:
        M [...]; 0 for eta mu >= 2 or <= -3/2, where even a single environment is not covered.

    >>> print(f"{0.1 * divergence_bound(0.1, mean=1.0):.3f}")
    0.905
    """
    eta, mu = _common(learning_rate, mean)
    drift = eta * mu
    highest = 3 * jnp.sinh(jnp.arcsinh(3 + 2 * drift) / 3)
    return jnp.where(drift > -1.5, jnp.maximum(highest - 1 - drift, 0), 0) / eta


@_door
def growth_time(eigenvalue: ArrayLike, *, learning_rate: ArrayLike, init_scale: ArrayLike) -> Array:
    """Steps log(sqrt(s)/alpha)/log(1 + eta s) that a direction needs to grow from alpha to its level sqrt(s).

    Args:
        eigenvalue: s [...] of the signal in that direction, above zero.
        learning_rate: eta [...].
        init_scale: alpha [...], above zero.

    Returns:
        Steps [...], fractional; 0 from above the level.

    >>> print(f"{growth_time(1.0, learning_rate=0.1, init_scale=1e-3):.1f}")
    72.5
    """
    s, eta, alpha = _common(eigenvalue, learning_rate, init_scale)
    return jnp.maximum(jnp.log(s) / 2 - jnp.log(alpha), 0) / jnp.log1p(eta * s)


class SpuriousMoments(NamedTuple):
    """Stationary moments of a spurious direction u."""

    second: Array  # [...] <u^2>, in units of the signal
    fourth: Array  # [...] <u^4>, in units of the signal squared


@_door
def stationary_spurious_moments(
    learning_rate: ArrayLike, mean: ArrayLike, spread: ArrayLike, family: str = "two_point"
) -> SpuriousMoments:
    """The stationary <u^2> and <u^4> of a spurious direction near the transition; 0 where lambda <= 0.

    <u^2> = lambda/eta and <u^4> = lambda (lambda + v)/eta^2. For small steps
    d log u = (lambda - eta u^2) dt + sqrt(v) dB: u^2 follows a logistic equation with multiplicative noise,
    whose stationary law is Gamma of shape lambda/v and scale v/eta. v is exact for two points, otherwise
    (eta sd/a)^2. The error is of order eta mu and largest near the transition: simulated two-point dynamics
    over these formulas, at M/M_c = 0.5, 0.8 and 0.95 (standard error up to 0.03), gave

        eta mu    <u^2>               <u^4>
        0.005     1.00  0.99  0.98    1.00  0.99  0.97
        0.01      1.00  0.99  0.97    1.01  1.00  0.97
        0.05      0.99  0.94  0.89    1.04  1.01  0.97
        0.1       0.98  0.85  0.74    1.08  0.99  0.88

    Args:
        learning_rate: eta [...].
        mean: mu [...].
        spread: M [...], below `divergence_bound`: the formulas know nothing of divergence.
        family: one of `families`.
    """
    exponent = lyapunov(family, learning_rate, mean, spread)
    eta, mu, spread = _common(learning_rate, mean, spread)
    if family == "two_point":
        variance = log_variance_two_point(eta, mu, spread)
    else:
        variance = (eta * spread * _DEVIATION[family] / (1 + eta * mu)) ** 2
    alive = exponent > 0
    exponent, variance = jnp.where(alive, exponent, 0), jnp.where(alive, variance, 0)
    return SpuriousMoments(exponent / eta, exponent * (exponent + variance) / eta**2)


class BatchSettings(TypedDict):
    """What `error_floor` needs besides spread and learning rate, each [...]."""

    batch_size: ArrayLike  # m, examples in a batch
    dim: ArrayLike  # d
    invariant_rank: ArrayLike  # r1
    spurious_rank: ArrayLike  # r2
    invariant_eigenvalue: NotRequired[ArrayLike]  # sigma* of A*, above zero; 1 unless given


@_door
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

    The residual -A_e, of norm M sqrt(r2), never vanishes. Its batch noise drives the rows of U outside U*,
    which decay at the rate eta sigma*, to entries of variance eta r2 M^2/(4m); UU' holds r1 d of them twice,
    times sigma*. First order in eta and 1/m; simulated errors were some 10 % larger at eta = 0.1, M = 6.

    Args:
        spread: M [...], the root mean square of the spurious eigenvalues.
        learning_rate: eta [...].
        batch_size: m [...], examples in a batch.
        dim: d [...].
        invariant_rank: r1 [...].
        spurious_rank: r2 [...].
        invariant_eigenvalue: sigma* [...] of A*, above zero.

    Returns:
        Frobenius error [...].

    >>> floor = error_floor(6.0, learning_rate=0.1, batch_size=500, dim=30, invariant_rank=2, spurious_rank=1)
    >>> print(f"{floor:.3f}")
    0.465
    """
    numbers = (learning_rate, batch_size, dim, invariant_rank, spurious_rank, invariant_eigenvalue)
    spread, eta, m, d, r1, r2, sigma = _common(spread, *numbers)
    return spread * jnp.sqrt(r1 * r2 * d * eta * sigma / (2 * m))


@_door
def expected_error(
    spread: ArrayLike,
    *,
    learning_rate: ArrayLike,
    mean: ArrayLike,
    family: str = "two_point",
    **batch: Unpack[BatchSettings],
) -> Array:
    """The stationary error |UU' - A*|_F [...]: the floor and what is left of the spurious signal.

    sqrt(floor^2 + r2 <u^4>), from `error_floor` at the standard deviation of s and
    `stationary_spurious_moments`, as if the r2 spurious directions were independent. It knows nothing of
    divergence.

    Args:
        spread: M [...].
        learning_rate: eta [...].
        mean: mu [...].
        family: one of `families`.
        **batch: the other arguments of `error_floor`, see `BatchSettings`.
    """
    fourth = stationary_spurious_moments(learning_rate, mean, spread, family).fourth
    floor = error_floor(_DEVIATION[family] * jnp.asarray(spread), learning_rate=learning_rate, **batch)
    floor, fourth, rank = _common(floor, fourth, batch["spurious_rank"])
    return jnp.sqrt(floor**2 + rank * fourth)


@_door
def optimal_spread(
    *, learning_rate: ArrayLike, mean: ArrayLike, family: str = "two_point", **batch: Unpack[BatchSettings]
) -> Array:
    """The heterogeneity M [...] that minimises `expected_error`.

    By a grid on [0, M_c] and a golden-section search. For small steps the squared error below M_c is
    r2 (mu^2 - eta^2 Var(s)^2/4) + floor^2, concave in Var(s), so that an end of [0, M_c] is best: M_c for
    batches above about m = r1 d sigma*/mu; for smaller ones the noise that heterogeneity brings costs more
    than the spurious signal, and none is best. M_c stays a local minimum down to half that batch size. It
    may lie beyond `divergence_bound`.

    Args:
        learning_rate: eta [...].
        mean: mu [...].
        family: one of `families`.
        **batch: the other arguments of `error_floor`, see `BatchSettings`.
    """
    eta, mu, *rest = _common(learning_rate, mean, *batch.values())
    batch = cast(BatchSettings, dict(zip(batch, rest, strict=True)))
    critical = critical_spread(eta, mu, family)
    # Beyond M_c only the floor is left, which grows; without an M_c look as far as lambda falls.
    last = jnp.where(jnp.isfinite(critical), critical, _LOWEST[family] * (1 / eta + mu))
    golden = (math.sqrt(5) - 1) / 2

    @jax.vmap
    def errors(fraction: Array) -> Array:
        return expected_error(fraction * last, learning_rate=eta, mean=mu, family=family, **batch)

    def shrink(_: int, bracket: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = bracket
        left, right = high - golden * (high - low), low + golden * (high - low)
        at_left, at_right = errors(jnp.stack((left, right)))
        falling = at_left > at_right
        return jnp.where(falling, left, low), jnp.where(falling, high, right)

    grid = jnp.linspace(0, 1, 33, dtype=eta.dtype)
    best = grid[jnp.argmin(errors(grid), 0)]
    bracket = (jnp.maximum(best - 1 / 32, 0), jnp.minimum(best + 1 / 32, 1))
    low, high = jax.lax.fori_loop(0, 24, shrink, bracket)
    inner = (low + high) / 2
    # Ties go to the grid, which holds both ends: M_c is a corner of the error.
    at_inner, at_best = errors(jnp.stack((inner, best)))
    return jnp.where(at_inner < at_best, inner, best) * last
