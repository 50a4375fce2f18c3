"""Linear self-attention on in-context regression: what it learns, and what it rejects.

A prompt has a context of N inputs of covariance S with labels w'x_n (+ noise sigma_y), the task w
of covariance W, and a query x with the label w'B_e x (`sensing.measurements.in_context`). The
prediction is h'Q x with h = (1/N) sum_n x_n y_n. By Isserlis' theorem

    E h w' = S W,    H = E h h' = (1 + 1/N) S W S + (tr(S W) + sigma_y^2) S / N,

and the mean gradient is (H Q S - S W B_e S)/2.

**One direction.** Let v be an eigenvector of S, W and B_e, with eigenvalues s, omega and b_e. A
direction of U V' with U = V then moves by

    u <- u + (eta/2) (g_e - a u^2) u,    g_e = s^2 omega b_e,    a = v'H v s,

that is like a direction of U U' in matrix sensing with the signal g_e at half the learning rate,
in units in which u^2 is multiplied by a. The theory of matrix sensing therefore holds as it stands:
transition, order, level and edge (eta g < 2) depend on the context length through the unit of the
level alone. Near zero the factor is 1 + (eta/2) g_e: relations b_e that differ in sign decide, as
s^2 omega > 0. Covariances that differ between environments only rescale g_e. They do not change its
sign, so they reject nothing.

**Finite contexts are label noise.** The residual of a finite context does not vanish at the
optimum, and with batches of m prompts its noise multiplies the direction. For large m the exponent
is lowered by (eta/2)^2 Var / (2 m (1 + (eta/2) g_e)^2), with the variance of one prompt in closed
form (`growth`). The context length therefore moves the transition at second order only, and short
contexts reject slightly more.

One relation is known: gradient flow on a merged query-key matrix finds the global minimum (Zhang,
Frei and Bartlett 2024), a step of preconditioned gradient descent on the context (Ahn et al. 2023),
and separate queries and keys follow scalar equations (Zhang, Singh, Latham and Saxe 2025); of these
papers the abstracts were read. The formulas are derived here for all S, W, B, label noise, rank and
finite steps. Several relations, their transition and the noise of batches are new.
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jax.typing import ArrayLike

from causal_sgd import _room, linalg
from causal_sgd.theory._arguments import broadcast, checked_jit
from causal_sgd.theory._boundaries import bisect
from causal_sgd.theory._exponents import log_abs
from causal_sgd.types import Array

_room(__name__)
__all__ = ["Growth", "critical_spread", "exponent", "growth", "optimum"]


class Growth(NamedTuple):
    """One prompt's contribution -r (h'v) (x'v) to the growth of a small direction v."""

    mean: Array  # [...] s^2 omega b while nothing is learned along v
    variance: Array  # [...] over prompts


@checked_jit
def optimum(
    relation: ArrayLike,
    context_length: ArrayLike,
    covariance: ArrayLike | None = None,
    task_covariance: ArrayLike | None = None,
    label_noise: ArrayLike = 0.0,
    rank: ArrayLike | None = None,
) -> Array:
    """The query-key matrix of least risk, Q* = H^-1 S W B.

    With S = I it is [(1 + 1/N) W + ((tr W + sigma_y^2)/N) I]^-1 W B, a shrunken relation. The risk
    is |H^(1/2) Q S^(1/2) - Z|^2 up to a constant, with Z = H^(-1/2) S W B S^(1/2). By the theorem
    of Eckart and Young the best Q of rank k is therefore H^(-1/2) Z_k S^(-1/2), with the k largest
    singular values of Z. All of this holds for one relation, the mean of those of the environments
    in pooled training, and for models without symmetry.

    Accuracy: relative 1e-5 in single precision times the condition numbers of S and H.

    Args:
        relation: B [d, d].
        context_length: N [], at least 1.
        covariance: S of the inputs [d, d], positive definite; None for I.
        task_covariance: W of the tasks [d, d], positive definite; None for I.
        label_noise: sigma_y [] of all labels.
        rank: k [] of the model; None for no limit.

    Returns:
        Q* [d, d].

    Raises:
        ValueError: if the matrices are not square and of one size.

    >>> tasks = jnp.diag(jnp.array([2.0, 1.0, 0.5, 0.2]))
    >>> best = optimum(jnp.eye(4), 10, task_covariance=tasks)
    >>> [f"{value:.3f}" for value in jnp.diagonal(best)]
    ['0.778', '0.680', '0.543', '0.339']
    """
    relation = jnp.asarray(relation, jnp.result_type(float, relation))
    eye = jnp.eye(relation.shape[-1] if relation.ndim else 1, dtype=relation.dtype)
    inputs = eye if covariance is None else jnp.asarray(covariance, relation.dtype)
    tasks = eye if task_covariance is None else jnp.asarray(task_covariance, relation.dtype)
    for name, matrix in (
        ("relation", relation),
        ("covariance", inputs),
        ("task_covariance", tasks),
    ):
        if matrix.shape != eye.shape:
            raise ValueError(f"{name} must have shape {list(eye.shape)}, got {list(matrix.shape)}")
    cross = linalg.product(inputs, tasks)
    total = (jnp.trace(cross) + jnp.asarray(label_noise) ** 2) / context_length
    second = (1 + 1 / jnp.asarray(context_length)) * linalg.product(cross, inputs) + total * inputs
    target = linalg.product(cross, relation)
    if rank is None:
        return linalg.solve(second, target)
    back, root = _roots(second)[1], _roots(inputs)
    whitened = linalg.product(linalg.product(back, target), root[0])
    left, _ = linalg.left_singular(whitened)
    left = jnp.where(jnp.arange(eye.shape[0])[None, :] < rank, left, 0)
    kept = linalg.product(left, linalg.product(left.T, whitened))
    return linalg.product(linalg.product(back, kept), root[1])


def _roots(matrix: Array) -> tuple[Array, Array]:
    """The symmetric square root of a positive matrix and its inverse."""
    values, vectors = linalg.eigh((matrix + matrix.T) / 2)
    roots = jnp.sqrt(values)[None, :]
    return linalg.product(vectors * roots, vectors.T), linalg.product(vectors / roots, vectors.T)


@checked_jit
def growth(
    relation: ArrayLike,
    learned: ArrayLike,
    context_length: ArrayLike,
    input_variances: ArrayLike = 1.0,
    task_variances: ArrayLike = 1.0,
    label_noise: ArrayLike = 0.0,
) -> Growth:
    """Mean and variance over prompts of what a prompt adds to the growth of the last direction.

    All matrices are diagonal in one basis. With residual r = sum_j (q_j h_j - b_j w_j) x_j - noise,
    direction v and T_j = E h_v^2 (q_j h_j - b_j w_j)^2,

        E r^2 h_v^2 x_v^2 = s_v sum_j s_j T_j + 2 s_v^2 T_v + sigma_y^2 s_v H_vv,

    as x is independent of the context. Given w, the label of an example is normal with variance
    tau^2 = w'S w + sigma_y^2, and h = S w Q/N + (Q^(1/2)/N) kappa with Q ~ chi^2_N and kappa normal
    with covariance tau^2 S - S w w'S. The T_j follow from the moments of Q up to the fourth and of
    w up to the fourth. A step adds the mean over the batch of -r h x' to U V', times eta/2.

    Accuracy: the mean 1e-6, the variance relative 1e-5 in single precision, of the second moment.

    Args:
        relation: b [..., d], of the environment; the last is that of the direction.
        learned: q [..., d], the diagonal of Q.
        context_length: N [...].
        input_variances: s [..., d] or [].
        task_variances: omega [..., d] or [].
        label_noise: sigma_y [...] of all labels.

    Returns:
        Mean and variance [...].

    >>> mean, variance = growth(jnp.array([1.0, 2.0]), jnp.array([0.8, 0.0]), 20)
    >>> print(f"{mean:.2f} {variance:.1f}")
    2.00 36.4
    """
    rows = [jnp.asarray(value) for value in (relation, learned, input_variances, task_variances)]
    others = [jnp.asarray(value)[..., None] for value in (context_length, label_noise)]
    if rows[0].ndim == 0:
        raise ValueError("relation must have a last axis of directions, [..., d], got a number")
    b, q, s, omega, n, noise = broadcast(*rows, *others)
    n, noise = n[..., :1], noise[..., :1]
    s_v, omega_v = s[..., -1:], omega[..., -1:]
    own = jnp.arange(b.shape[-1]) == b.shape[-1] - 1
    own = own.reshape((1,) * (b.ndim - 1) + (-1,))
    thrice = jnp.where(own, 3, 1)
    # Moments of Q / N.
    two = 1 + 2 / n
    three = two * (1 + 4 / n)
    four = three * (1 + 6 / n)
    # Moments of w: E w_v^2 w_j^2, E tau^2 w_j^2 and E tau^4.
    total = jnp.sum(s * omega, -1, keepdims=True) + noise**2
    both = omega_v * omega * thrice
    scaled = omega * total + 2 * s * omega**2
    quartic = total**2 + 2 * jnp.sum((s * omega) ** 2, -1, keepdims=True)
    squares = (
        s_v**2 * s**2 * both * (four - 6 * three / n + 3 * two / n**2)
        + thrice * (three / n - two / n**2) * s_v * s * (s_v * scaled[..., -1:] + s * scaled)
        + thrice * two / n**2 * s_v * s * quartic
    )
    cross = s * s_v**2 * both * (three - 3 * two / n) + thrice * s * s_v * two / n * scaled
    plain = s_v**2 * both * (two - 1 / n) + s_v / n * scaled
    moments = q**2 * squares - 2 * q * b * cross + b**2 * plain
    second = (1 + 1 / n) * s_v**2 * omega_v + total * s_v / n  # H_vv
    square = jnp.sum(s * moments, -1) * s_v[..., 0]
    square = square + (2 * s_v**2 * moments[..., -1:] + noise**2 * s_v * second)[..., 0]
    mean = (s_v * (b[..., -1:] * s_v * omega_v - q[..., -1:] * second))[..., 0]
    return Growth(mean, square - mean**2)


@checked_jit
def exponent(
    learning_rate: ArrayLike,
    mean: ArrayLike,
    spread: ArrayLike,
    invariant: ArrayLike,
    context_length: ArrayLike,
    batch_size: ArrayLike | None = None,
    input_variances: ArrayLike = 1.0,
    task_variances: ArrayLike = 1.0,
    label_noise: ArrayLike = 0.0,
) -> Array:
    """Lyapunov exponent of a spurious direction whose relation is mu +- M, equally likely.

    In the mean over prompts it is (1/2) log|(1 + x)(1 + y)| with x, y = (eta/2) s^2 omega (mu +-
    M), whatever N is. Batches of m prompts lower it by (eta/2)^2 Var/(2 m (1 + x)^2), averaged over
    both environments, where all other directions are learned as far as the context allows
    (`optimum`).
    Near 1 + x = 0 the expansion does not hold.

    Accuracy: relative 1e-5 in single precision as this formula; the next order is of relative size
    of the noise's third cumulant, some ten per cent of the correction at (eta/2)^2 Var/m = 0.01.

    Args:
        learning_rate: eta [...], of U V'.
        mean: mu [...].
        spread: M [...].
        invariant: eigenvalues [..., d - 1] of A* in the other directions.
        context_length: N [...].
        batch_size: m [...], prompts of a batch; None for the mean over prompts.
        input_variances: s [..., d] or [], the spurious direction last.
        task_variances: omega [..., d] or [].
        label_noise: sigma_y [...] of all labels.

    Returns:
        The exponent [...] per step.
    """
    eta, mu, spread, size, rest = _parts(
        learning_rate,
        mean,
        spread,
        invariant,
        context_length,
        batch_size,
        input_variances,
        task_variances,
        label_noise,
    )
    return _exponent(eta, mu, spread, size, *rest)


@checked_jit
def critical_spread(
    learning_rate: ArrayLike,
    mean: ArrayLike,
    invariant: ArrayLike,
    context_length: ArrayLike,
    batch_size: ArrayLike | None = None,
    input_variances: ArrayLike = 1.0,
    task_variances: ArrayLike = 1.0,
    label_noise: ArrayLike = 0.0,
) -> Array:
    """The heterogeneity M_c of the relation beyond which a spurious direction dies.

    In the mean over prompts M_c = sqrt(2 mu/x + mu^2) with x = (eta/2) s^2 omega: that of matrix
    sensing at the learning rate x, for every context length. With batches it is the root of
    `exponent`, which is lower.

    Accuracy: relative 1e-4 in single precision as the root of `exponent`.

    Args:
        learning_rate: eta [...], of U V'.
        mean: mu [...].
        invariant: eigenvalues [..., d - 1] of A* in the other directions.
        context_length: N [...].
        batch_size: m [...], prompts of a batch; None for the mean over prompts.
        input_variances: s [..., d] or [], the spurious direction last.
        task_variances: omega [..., d] or [].
        label_noise: sigma_y [...] of all labels.

    Returns:
        M_c [...]; 0 where the direction dies without heterogeneity.

    >>> print(f"{critical_spread(0.2, 1.0, jnp.ones(3), 20):.3f}")
    4.583
    >>> print(f"{critical_spread(0.2, 1.0, jnp.ones(3), 20, batch_size=1000):.3f}")
    4.560
    """
    eta, mu, _, size, rest = _parts(
        learning_rate,
        mean,
        mean,
        invariant,
        context_length,
        batch_size,
        input_variances,
        task_variances,
        label_noise,
    )
    rate = eta / 2 * rest[2][..., -1] ** 2 * rest[3][..., -1]
    positive = jnp.maximum(mu, 0)
    plain = jnp.sqrt(positive * (2 / rate + positive))
    if batch_size is None:
        return plain
    root = bisect(lambda spread: _exponent(eta, mu, spread, size, *rest), jnp.zeros_like(mu), plain)
    return jnp.where(_exponent(eta, mu, jnp.zeros_like(mu), size, *rest) > 0, root, 0)


def _parts(
    learning_rate: ArrayLike,
    mean: ArrayLike,
    spread: ArrayLike,
    invariant: ArrayLike,
    context_length: ArrayLike,
    batch_size: ArrayLike | None,
    input_variances: ArrayLike,
    task_variances: ArrayLike,
    label_noise: ArrayLike,
) -> tuple[Array, Array, Array, Array | None, tuple[Array, ...]]:
    """The numbers [...] and, for all d directions, rows [..., d] with those of one prompt."""
    invariant = jnp.asarray(invariant)
    if invariant.ndim == 0:
        raise ValueError("invariant must have a last axis of directions, [..., d - 1]")
    spurious = jnp.zeros_like(invariant, shape=(*invariant.shape[:-1], 1))
    relation = jnp.concatenate([invariant, spurious], -1)
    sizes = [] if batch_size is None else [batch_size]
    numbers = (learning_rate, mean, spread, context_length, label_noise, *sizes)
    columns = [jnp.asarray(number)[..., None] for number in numbers]
    b, s, omega, *columns = broadcast(relation, input_variances, task_variances, *columns)
    eta, mu, spread, n, noise, *sizes = (column[..., 0] for column in columns)
    total = (jnp.sum(s * omega, -1) + noise**2) / n
    learned = omega * b / ((1 + 1 / n)[..., None] * s * omega + total[..., None])
    return eta, mu, spread, (sizes[0] if sizes else None), (b, learned, s, omega, n, noise)


def _exponent(
    eta: Array,
    mu: Array,
    spread: Array,
    size: Array | None,
    b: Array,
    learned: Array,
    s: Array,
    omega: Array,
    n: Array,
    noise: Array,
) -> Array:
    total = jnp.zeros_like(eta)
    for sign in (-1, 1):
        own = mu + sign * spread
        relation = jnp.concatenate([b[..., :-1], own[..., None]], -1)
        mean, variance = growth(relation, learned, n, s, omega, noise)
        factor = eta / 2 * mean
        total = total + log_abs(factor)
        if size is not None:
            total = total - (eta / 2) ** 2 * variance / (2 * size * (1 + factor) ** 2)
    return total / 2
