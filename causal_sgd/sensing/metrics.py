"""What is measured of a run at a recorded step. Every member of `__all__` is a metric: a snapshot -> a number or array.

Distances are Frobenius norms of [d, d] matrices. Signals are |B' U|_F for a basis B and the factor U of the estimate
U U'; for models without such a factor, the equal quantity sqrt(|tr(B' estimate B)|), in which eigenvalues of both signs
may cancel. All of them are unchanged when the snapshot is expressed in another orthonormal basis. Where there is a factor
[d, k], none forms a [d, d] array.

The metrics of predictions look at the model as a function f of inputs, which for models of matrices is x' estimate x.
They take f(x) - f(0) at 256 inputs x ~ N(0, I), the same in every run and at every step, projected onto a subspace.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from causal_sgd import linalg, random
from causal_sgd.sensing.worlds import World
from causal_sgd.types import Array, Snapshot

__all__ = [
    "batch_loss",
    "complement_prediction",
    "complement_signal",
    "effective_rank",
    "environment_losses",
    "invariant_error",
    "invariant_prediction_error",
    "invariant_signal",
    "largest_principal_angle",
    "pooled_error",
    "relative_invariant_error",
    "relative_pooled_error",
    "singular_values",
    "spurious_power",
    "spurious_prediction",
    "spurious_signal",
    "worst_environment_loss",
]

INPUTS = 256  # at which predictions are tested


def invariant_error(snapshot: Snapshot) -> Array:
    """Distance to the invariant signal, |estimate - A*|_F; []."""
    error, _, rest = _error(snapshot)
    return jnp.sqrt(jnp.sum(error**2) + rest)


def pooled_error(snapshot: Snapshot) -> Array:
    """Distance to what pooled training finds, |estimate - A* - mean A_e|_F; []."""
    error, own, rest = _error(snapshot)
    return jnp.sqrt(jnp.sum((error - _sandwich(own, snapshot.world.mean_core)) ** 2) + rest)


def relative_invariant_error(snapshot: Snapshot) -> Array:
    """`invariant_error` over |A*|_F; []."""
    return invariant_error(snapshot) / _norm(snapshot.world.invariant_spectrum)


def relative_pooled_error(snapshot: Snapshot) -> Array:
    """`pooled_error` over |A* + mean A_e|_F; []."""
    world = snapshot.world
    shared, own = _signals(world, _frame(snapshot))
    return pooled_error(snapshot) / _norm(shared + _sandwich(own, world.mean_core))


def invariant_signal(snapshot: Snapshot) -> Array:
    """How much was learned along the invariant directions, |U*' U|_F; []."""
    return _signal(snapshot, snapshot.world.invariant_basis)


def spurious_signal(snapshot: Snapshot) -> Array:
    """How much was learned along the spurious directions, |V' U|_F; []."""
    return _signal(snapshot, snapshot.world.spurious_basis)


def spurious_power(snapshot: Snapshot) -> Array:
    """|V' U|_F^2, whose average over time is the order parameter of the transition: about r2 lambda / eta; []."""
    return spurious_signal(snapshot) ** 2


def complement_signal(snapshot: Snapshot) -> Array:
    """What was learned outside the span of U* and V, |(I - P) U|_F; []."""
    inside = _inside(snapshot.world)
    if snapshot.factor is not None:
        return _norm(
            snapshot.factor - linalg.product(inside, linalg.product(inside.T, snapshot.factor))
        )
    outside = jnp.eye(inside.shape[0]) - linalg.product(inside, inside.T)
    return jnp.sqrt(jnp.abs(jnp.sum(linalg.product(outside, snapshot.estimate) * outside)))


def singular_values(snapshot: Snapshot) -> Array:
    """Singular values of the estimate, largest first; [min(d, k)] with a factor, else [d]."""
    if snapshot.factor is not None:
        return linalg.singular_values(snapshot.factor) ** 2
    return linalg.singular_values(snapshot.estimate)


def effective_rank(snapshot: Snapshot) -> Array:
    """Exp of the entropy of the normalised singular values (Roy and Vetterli 2007), 0 for a zero estimate; []."""
    values = singular_values(snapshot)
    total = jnp.sum(values)
    shares = values / jnp.where(total > 0, total, 1)
    entropy = -jnp.sum(shares * jnp.log(jnp.where(shares > 0, shares, 1)))
    return jnp.where(total == 0, 0.0, jnp.exp(entropy))


def largest_principal_angle(snapshot: Snapshot) -> Array:
    """Largest angle in radians between U* and the r1 leading left singular directions of the estimate; []."""
    basis = snapshot.world.invariant_basis
    matrix = snapshot.estimate if snapshot.factor is None else snapshot.factor
    leading = linalg.left_singular(matrix)[0][:, : basis.shape[1]]
    if (
        leading.shape[1] < basis.shape[1]
    ):  # fewer columns than the rank of A*: some direction is missed altogether
        return jnp.full((), jnp.pi / 2, leading.dtype)
    # from the sine, which stays accurate for small angles, where the cosine does not
    sine = linalg.singular_values(
        leading - linalg.product(basis, linalg.product(basis.T, leading))
    )[0]
    return jnp.arcsin(jnp.minimum(sine, 1))


def environment_losses(snapshot: Snapshot) -> Array:
    """Population loss of each environment without label noise, |estimate - A* - A_e|_F^2 / 4; [E]."""
    error, own, rest = _error(snapshot)
    # the residuals of the environments differ only within the span of V (.) V'
    block = _sandwich(own.T, error)
    outside = jnp.sum((error - _sandwich(own, block)) ** 2) + rest
    return (outside + jnp.sum((block[None] - snapshot.world.spurious_cores) ** 2, (1, 2))) / 4


def worst_environment_loss(snapshot: Snapshot) -> Array:
    """The largest of `environment_losses` among the environments that are met (with a probability above zero); []."""
    return jnp.max(
        jnp.where(snapshot.world.probabilities > 0, environment_losses(snapshot), -jnp.inf)
    )


def batch_loss(snapshot: Snapshot) -> Array:
    """Training loss of the last batch, sum of r_i^2 / (4 m), label noise included; NaN before the first step; []."""
    return snapshot.batch_loss


def invariant_prediction_error(snapshot: Snapshot) -> Array:
    """Root mean square of f(x) - f(0) - x'A*x over that of x'A*x, for inputs in the span of U*; []."""
    basis, spectrum = snapshot.world.invariant_basis, snapshot.world.invariant_spectrum
    places = linalg.product(_test_inputs(basis), basis)
    labels = jnp.sum(places**2 * spectrum[None, :], 1)
    return _norm(_predictions(snapshot, linalg.product(places, basis.T)) - labels) / _norm(labels)


def spurious_prediction(snapshot: Snapshot) -> Array:
    """Root mean square of f(x) - f(0) over that of |x|^2, for inputs in the span of V; [], in units of the signal.

    Zero where the network takes no notice of the spurious directions or there are none, c where it predicts c |x|^2 there.
    """
    basis = snapshot.world.spurious_basis
    if not basis.shape[1]:
        return jnp.zeros((), basis.dtype)
    places = linalg.product(_test_inputs(basis), basis)
    return _norm(_predictions(snapshot, linalg.product(places, basis.T))) / _norm(
        jnp.sum(places**2, 1)
    )


def complement_prediction(snapshot: Snapshot) -> Array:
    """`spurious_prediction` for inputs orthogonal to U* and V; [], 0 where there are none."""
    inside = _inside(snapshot.world)
    inputs = _test_inputs(inside)
    inputs = inputs - linalg.product(linalg.product(inputs, inside), inside.T)
    total = _norm(jnp.sum(inputs**2, 1))
    some = total > 1e-3 * INPUTS**0.5  # else only rounding is left
    return jnp.where(some, _norm(_predictions(snapshot, inputs)) / jnp.where(some, total, 1), 0)


def _test_inputs(basis: Array) -> Array:
    """Standard normal inputs [INPUTS, d], the same whenever one asks."""
    return random.normals(jax.random.key(0), (INPUTS, basis.shape[0]), basis.dtype)


def _predictions(snapshot: Snapshot, inputs: Array) -> Array:
    """f(x) - f(0) of inputs [n, d]; [n]."""
    if snapshot.predict is not None:
        return jax.vmap(snapshot.predict)(inputs) - snapshot.predict(jnp.zeros_like(inputs[0]))
    if snapshot.factor is not None:
        return jnp.sum(linalg.product(inputs, snapshot.factor) ** 2, 1)
    return jnp.sum(linalg.product(inputs, snapshot.estimate) * inputs, 1)


def _error(snapshot: Snapshot) -> tuple[Array, Array, Array]:
    """The error estimate - A* in a frame that holds all signals [n, n], V there [n, r2], and |what is outside|^2 [].

    With a factor U the frame F has n <= r1 + r2 directions. The four blocks of U U' - A* inside and outside of it are
    measured one by one: squares add up and nothing cancels, so that small errors keep their digits.
    """
    world = snapshot.world
    if snapshot.factor is None:
        return snapshot.estimate - world.invariant, world.spurious_basis, jnp.zeros(())
    frame = _frame(snapshot)
    shared, own = _signals(world, frame)
    inside = linalg.product(frame.T, snapshot.factor)
    outside = snapshot.factor - linalg.product(frame, inside)
    rest = 2 * jnp.sum(linalg.product(outside, inside.T) ** 2) + jnp.sum(
        linalg.product(outside.T, outside) ** 2
    )
    return linalg.product(inside, inside.T) - shared, own, rest


def _frame(snapshot: Snapshot) -> Array:
    """An orthonormal basis of the span of U* and V up to rounding, zero columns aside; [d, r1 + r2]."""
    return linalg.orthonormal(snapshot.world.bases) if snapshot.frame is None else snapshot.frame


def _inside(world: World) -> Array:
    """An orthonormal basis of the span of U* and V, zero columns aside; [d, r1 + r2]."""
    bases = world.bases
    # the two may share directions in a world from the user's arrays: a frame of both would then claim some others
    return linalg.orthonormal(bases, tolerance=float(jnp.finfo(bases.dtype).eps) ** 0.5)


def _signals(world: World, frame: Array) -> tuple[Array, Array]:
    """A* [n, n] and V [n, r2] in a frame that holds them."""
    shared, own = (
        linalg.product(frame.T, world.invariant_basis),
        linalg.product(frame.T, world.spurious_basis),
    )
    return linalg.product(shared * world.invariant_spectrum[None, :], shared.T), own


def _signal(snapshot: Snapshot, basis: Array) -> Array:
    if snapshot.factor is not None:
        return _norm(linalg.product(basis.T, snapshot.factor))
    return jnp.sqrt(jnp.abs(jnp.sum(linalg.product(snapshot.estimate, basis) * basis)))


def _norm(array: Array) -> Array:
    return jnp.sqrt(jnp.sum(array**2))


def _sandwich(outer: Array, inner: Array) -> Array:
    return linalg.product(linalg.product(outer, inner), outer.T)
