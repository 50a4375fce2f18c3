"""HeteroSGD in high dimension: order parameters, their limit for d -> infinity, and closed forms.

Let U [d, k] be the factor, F [d, r] an orthonormal basis of the signals' space, r = r1 + r2, and
S_e = F D_e F' the signal of environment e. A step U <- U - eta G U with the exact law of G involves
U only through the overlap A = F'U and the Gram matrix B = U'(I - FF')U of what lies outside: (A, B)
is a Markov chain at every d and batch size m. For d -> infinity at a fixed ratio rho = m/d and
fixed k and r its fluctuations vanish like d^(-1/2), and for a given sequence of environments

    A <- A - eta (A Gamma - D A),   B <- (I - eta Gamma) B (I - eta Gamma) + eta^2 nu Gamma,

with Gamma = A'A + B and the noise level nu = (|UU' - S|_F^2 + sigma_y^2)/(2 rho). The page "The
limit of high dimension" of the documentation derives this and says where it fails. Time stays
discrete, and the environments stay random.

A batch that mixes environments has the mean signal as D, and adds sum_e p_e |D_e - D|_F^2 to
|UU' - S|_F^2, the `within_variance`.
"""

from __future__ import annotations

import functools
from typing import NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from causal_sgd import _room, checks, linalg
from causal_sgd.theory._arguments import check
from causal_sgd.theory._batch_ratios import (
    annealing_window,
    batch_critical_spread,
    best_error,
    divergence_batch_ratio,
    retention_batch_ratio,
)
from causal_sgd.theory._noise import NoiseLevel, noise_level
from causal_sgd.types import Array

_room(__name__)
__all__ = [
    "NoiseLevel",
    "OrderParameters",
    "annealing_window",
    "batch_critical_spread",
    "best_error",
    "divergence_batch_ratio",
    "limit_step",
    "limit_trajectory",
    "noise_level",
    "order_parameters",
    "order_statistics",
    "retention_batch_ratio",
]


class OrderParameters(NamedTuple):
    """What the dynamics and all metrics of U U' depend on."""

    overlap: Array  # [..., r, k] A = F'U; U*'U in the first r1 rows, V'U in the others
    gram: Array  # [..., k, k] B = U'(I - FF')U, symmetric and positive semidefinite


class Signals(Protocol):
    """The arrays of a world that `order_parameters` reads; `sensing.worlds.World` has them."""

    @property
    def invariant_basis(self) -> ArrayLike:
        """U*, [d, r1]."""
        ...

    @property
    def spurious_basis(self) -> ArrayLike:
        """V, [d, r2]."""
        ...


def order_parameters(factor: ArrayLike, world: Signals) -> OrderParameters:
    """The order parameters of a factor: its overlap with the signals and the Gram matrix outside.

    The frame F has the columns of U* and V, orthonormalised in this order: where a tilt makes V
    overlap with U*, the last r2 rows belong to the part of V that is orthogonal to U*, and signals
    must be given in this frame, F'S_e F.

    Accuracy: a few roundings of |U|, and of |U|^2 for the Gram matrix.

    Args:
        factor: U [..., d, k].
        world: anything with the arrays `invariant_basis` [d, r1] and `spurious_basis` [d, r2].

    Returns:
        A [..., r1 + r2, k] and B [..., k, k].

    >>> from types import SimpleNamespace
    >>> basis = jnp.eye(5)
    >>> world = SimpleNamespace(invariant_basis=basis[:, :2], spurious_basis=basis[:, 2:3])
    >>> state = order_parameters(jnp.ones((5, 1)), world)
    >>> state.overlap.shape, float(state.gram[0, 0])
    ((3, 1), 2.0)
    """
    names = ("invariant_basis", "spurious_basis")
    if not all(hasattr(world, name) for name in names):
        allowed = "have the arrays invariant_basis and spurious_basis"
        raise ValueError(f"world must {allowed}, got a {type(world).__name__}")
    bases = [_real(name, getattr(world, name)) for name in names]
    arrays = _floats(_real("factor", factor), *bases)
    shapes = [array.shape for array in arrays]
    bases_fit = len(shapes[1]) == len(shapes[2]) == 2 and shapes[1][0] == shapes[2][0]
    if len(shapes[0]) < 2 or not bases_fit or shapes[0][-2] != shapes[1][0]:
        raise ValueError(
            f"factor must have the shape [..., d, k] and the bases of world [d, r1] and [d, r2], "
            f"got {shapes}"
        )
    return _project(*arrays)


@jax.jit
def _project(factor: Array, invariant: Array, spurious: Array) -> OrderParameters:
    frame = linalg.orthonormal(jnp.concatenate([invariant, spurious], 1))
    overlap = linalg.product(frame.T, factor)
    # The difference of the Gram matrices would lose a small outside to rounding.
    outside = factor - linalg.product(frame, overlap)
    return OrderParameters(overlap, linalg.product(_transposed(outside), outside))


def order_statistics(state: OrderParameters, spectrum: ArrayLike) -> dict[str, Array]:
    """The metrics that depend on the order parameters, with the names of `sensing.metrics`.

    Accuracy: a few roundings; also for errors far below |A*|, since no large terms cancel.

    Args:
        state: A [..., r, k] and B [..., k, k].
        spectrum: [r1], the eigenvalues of A*.

    Returns:
        `invariant_signal` |U*'U|_F, `spurious_signal` |V'U|_F, `complement_signal` (tr B)^(1/2) and
        `invariant_error` |UU' - A*|_F, each [...].

    >>> state = OrderParameters(jnp.array([[1.0], [0.0]]), jnp.zeros((1, 1)))
    >>> float(order_statistics(state, [0.5])["invariant_error"])
    0.5
    """
    state = _state(state)
    check(spectrum=spectrum)
    (values,) = _floats(spectrum)
    rank = state.overlap.shape[-2]
    if values.ndim != 1 or len(values) > rank:
        raise ValueError(
            f"spectrum must have the shape [r1] with r1 at most {rank}, got {values.shape}"
        )
    return _statistics(state, jnp.pad(values, (0, rank - len(values))), len(values))


@functools.partial(jax.jit, static_argnums=2)
def _statistics(state: OrderParameters, signal: Array, invariant_rank: int) -> dict[str, Array]:
    rows = jnp.sum(state.overlap**2, -1)
    target = jnp.diag(signal).reshape((1,) * (rows.ndim - 1) + signal.shape * 2)
    # Rounding may leave the trace of a vanishing Gram matrix below zero.
    trace = jnp.maximum(jnp.trace(state.gram, axis1=-2, axis2=-1), 0)
    powers = {
        "invariant_signal": jnp.sum(rows[..., :invariant_rank], -1),
        "spurious_signal": jnp.sum(rows[..., invariant_rank:], -1),
        "complement_signal": trace,
        "invariant_error": _residual_power(state, target),
    }
    return {name: jnp.sqrt(power) for name, power in powers.items()}


def limit_step(
    state: OrderParameters,
    signal: ArrayLike,
    *,
    learning_rate: ArrayLike,
    batch_ratio: ArrayLike,
    label_noise: ArrayLike = 0.0,
    within_variance: ArrayLike = 0.0,
) -> OrderParameters:
    """One step of the order parameters for d -> infinity in a given environment.

    Accuracy: a few roundings. A run at finite d deviates by the order d^(-1/2), with the constants
    of the page on the limit; beyond the critical spread its bursts are missing.

    Args:
        state: A [..., r, k] and B [..., k, k].
        signal: D [..., r, r], symmetric, or its diagonal [..., r], with as many batch axes as the
            state; axes of length one broadcast.
        learning_rate: eta [...].
        batch_ratio: rho = m/d [...].
        label_noise: sigma_y [...], standard deviation of the labels' noise.
        within_variance: sum_e p_e |D_e - D|_F^2 [...] of a batch that mixes environments; D is then
            their mean.

    Returns:
        The next state; not finite once it diverges.

    >>> start = OrderParameters(0.1 * jnp.ones((2, 1)), jnp.zeros((1, 1)))
    >>> state = limit_step(start, [1.0, -5.0], learning_rate=0.1, batch_ratio=4.0)
    >>> [f"{value:.4f}" for value in state.overlap[:, 0]]
    ['0.1098', '0.0498']
    """
    arguments = _arguments(
        state, signal, "signal", 0, learning_rate, batch_ratio, label_noise, within_variance
    )
    return _step(*arguments)


def limit_trajectory(
    state: OrderParameters,
    signals: ArrayLike,
    *,
    learning_rate: ArrayLike,
    batch_ratio: ArrayLike,
    label_noise: ArrayLike = 0.0,
    within_variance: ArrayLike = 0.0,
    record_every: int = 1,
) -> OrderParameters:
    """The order parameters for d -> infinity along a sequence of environments.

    Accuracy: 1e-5 in single precision relative to the largest entry, over 300 steps.

    Args:
        state: the start, A [..., r, k] and B [..., k, k].
        signals: D_t [T, ..., r, r], symmetric, or their diagonals [T, ..., r], with as many batch
            axes as the state; axes of length one broadcast.
        learning_rate: eta [...].
        batch_ratio: rho = m/d [...].
        label_noise: sigma_y [...], standard deviation of the labels' noise.
        within_variance: sum_e p_e |D_e - D|_F^2 [...] of a batch that mixes environments.
        record_every: steps between two records, static; steps after the last record are left out.

    Returns:
        A [T // record_every + 1, ..., r, k] and B [T // record_every + 1, ..., k, k], with the
        start; not finite once it diverges.

    >>> start = OrderParameters(0.1 * jnp.ones((2, 1)), jnp.zeros((1, 1)))
    >>> signals = jnp.tile(jnp.array([[1.0, 7.0], [1.0, -5.0]]), (100, 1))  # two environments
    >>> curve = limit_trajectory(start, signals, learning_rate=0.1, batch_ratio=40.0)
    >>> statistics = order_statistics(curve, [1.0])
    >>> [f"{statistics[name][-1]:.2f}" for name in ("invariant_signal", "spurious_signal")]
    ['0.99', '0.00']
    """
    every = checks.integer("record_every", record_every)
    state, signals, *numbers = _arguments(
        state, signals, "signals", 1, learning_rate, batch_ratio, label_noise, within_variance
    )
    return _trajectory(state, signals, *numbers, every=every)


def _arguments(
    state: OrderParameters, signal: ArrayLike, name: str, leading: int, *numbers: ArrayLike
) -> tuple[OrderParameters, Array, Array, Array, Array, Array]:
    """The checked arguments: the state and the numbers in their full batch shape, D as a matrix.

    `leading` is the number of axes of the signal before its batch axes.
    """
    names = ("learning_rate", "batch_ratio", "label_noise", "within_variance")
    state = _state(state)
    check(**dict(zip(names, numbers, strict=True)), **{name: signal})
    overlap, gram, matrix, *values = _floats(*state, signal, *numbers)
    batch, (r, k) = overlap.shape[:-2], overlap.shape[-2:]
    if matrix.ndim == leading + len(batch) + 1 and matrix.shape[-1] == r:
        matrix = matrix[..., None] * _identity(matrix[..., None], r)
    axes = ("T, " if leading else "") + "".join("batch, " for _ in batch)
    if matrix.ndim != leading + len(batch) + 2 or matrix.shape[-2:] != (r, r):
        raise ValueError(
            f"{name} must have the shape [{axes}{r}, {r}] or [{axes}{r}] for an overlap of shape "
            f"{overlap.shape}, got {np.shape(signal)}"
        )
    given = None if matrix.ndim > np.ndim(signal) else checks.concrete(matrix)
    if given is not None and not np.allclose(given, np.swapaxes(given, -1, -2), atol=1e-6):
        raise ValueError(f"{name} must be symmetric matrices [..., {r}, {r}]")
    shapes = (batch, matrix.shape[leading:-2], *(value.shape for value in values))
    try:
        full = jnp.broadcast_shapes(*shapes)
    except ValueError:
        raise ValueError(
            f"the batch axes of state, {name} and {', '.join(names)} must broadcast against each "
            f"other, got {shapes}"
        ) from None
    state = OrderParameters(
        jnp.broadcast_to(overlap, (*full, r, k)), jnp.broadcast_to(gram, (*full, k, k))
    )
    eta, rho, noise, within = (jnp.broadcast_to(value, full) for value in values)
    return state, matrix, eta, rho, noise, within


def _state(state: OrderParameters) -> OrderParameters:
    """The state as arrays of one dtype and of shapes that fit; NaN and infinity pass."""
    try:
        overlap, gram = state
    except (TypeError, ValueError):
        raise ValueError(
            f"state must be OrderParameters, A [..., r, k] and B [..., k, k], got a "
            f"{type(state).__name__}"
        ) from None
    overlap, gram = _floats(_real("overlap", overlap), _real("gram", gram))
    columns = overlap.shape[-1:] * 2
    if overlap.ndim < 2 or gram.shape != (*overlap.shape[:-2], *columns):
        raise ValueError(
            f"state must have an overlap [..., r, k] and a gram [..., k, k], got the shapes "
            f"{overlap.shape} and {gram.shape}"
        )
    return OrderParameters(overlap, gram)


def _real(name: str, value: ArrayLike) -> ArrayLike:
    """The value, if it holds real numbers; of runs that diverged or died out any may occur."""
    array = checks.concrete(value)
    if array is not None:
        checks.record(name, value)
        if array.dtype.kind in "iu":
            checks.representable(name, value)
    return value


def _floats(*values: ArrayLike) -> list[Array]:
    """The values as arrays of one floating dtype."""
    arrays = [jnp.asarray(value) for value in values]
    dtype = jnp.result_type(float, *arrays)
    return [array.astype(dtype) for array in arrays]


def _transposed(matrix: Array) -> Array:
    return jnp.swapaxes(matrix, -1, -2)


def _identity(like: Array, size: int) -> Array:
    """The identity with as many axes as another array and with its dtype."""
    return jnp.eye(size, dtype=like.dtype).reshape((1,) * (like.ndim - 2) + (size, size))


def _residual_power(state: OrderParameters, signal: Array) -> Array:
    """|UU' - S|_F^2 [...] as a sum of the squares inside, across and outside of the frame."""
    overlap, gram = state
    inside = linalg.product(overlap, _transposed(overlap)) - signal
    across = jnp.sum(linalg.product(overlap, gram) * overlap, (-2, -1))
    powers = (jnp.sum(values**2, (-2, -1)) for values in (inside, gram))
    return sum(powers, 2 * across)


def _advance(
    state: OrderParameters, signal: Array, eta: Array, rho: Array, noise: Array, within: Array
) -> OrderParameters:
    overlap, gram = state
    power = _residual_power(state, signal) + noise**2 + within
    strength = (eta**2 * power / (2 * rho))[..., None, None]  # eta^2 nu
    eta = eta[..., None, None]
    whole = linalg.product(_transposed(overlap), overlap) + gram  # Gamma = U'U
    drift = linalg.product(overlap, whole) - linalg.product(signal, overlap)
    shrink = _identity(whole, whole.shape[-1]) - eta * whole
    gram = linalg.product(linalg.product(shrink, gram), shrink) + strength * whole
    # Rounding would slowly make it asymmetric.
    return OrderParameters(overlap - eta * drift, (gram + _transposed(gram)) / 2)


_step = jax.jit(_advance)


@functools.partial(jax.jit, static_argnames="every")
def _trajectory(
    state: OrderParameters, signals: Array, *numbers: Array, every: int
) -> OrderParameters:
    count = signals.shape[0] // every
    blocks = signals[: count * every].reshape(count, every, *signals.shape[1:])

    def step(state: OrderParameters, signal: Array) -> tuple[OrderParameters, None]:
        return _advance(state, signal, *numbers), None

    def record(state: OrderParameters, block: Array) -> tuple[OrderParameters, OrderParameters]:
        state, _ = jax.lax.scan(step, state, block)
        return state, state

    _, records = jax.lax.scan(record, state, blocks)
    return jax.tree.map(lambda first, rest: jnp.concatenate([first[None], rest]), state, records)
