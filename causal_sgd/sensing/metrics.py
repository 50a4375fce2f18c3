"""What is recorded of a run: functions of a snapshot that return a number or a small array.

Every member of `__all__` is a metric. Distances are Frobenius norms of [d, d] matrices. Signals are
|B' U|_F for a basis B and the factor U of the estimate U U'; for models without such a factor, the
equal quantity sqrt(|tr(B' estimate B)|), in which eigenvalues of both signs may cancel. No metric
depends on the choice of an orthonormal basis. Where there is a factor [d, k], none forms a [d, d]
array.

The metrics of predictions see the model as a function f of inputs, x' estimate x for models of
matrices. They take f(x) - f(0) at 256 inputs x ~ N(0, I), the same in every run and at every step,
projected onto a subspace. They are refused for `models.order_parameters`.

The metrics of layers, `imbalance` and `layer_alignment`, need a model with several factors as
parameters, such as `models.asymmetric` or `models.deep`.

The metrics of the training loss differentiate the run's own risks (`snapshot.risks`); with a
measurement that has none they raise a ValueError. Curvatures of these risks are in
`causal_sgd.curvature`.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from causal_sgd import _room, linalg, random
from causal_sgd.sensing._residuals import (
    Error,
    dense_error,
    factor_error,
    sandwich,
    signals,
    squared_residuals,
)
from causal_sgd.sensing.worlds import World
from causal_sgd.types import Array, Snapshot, check_snapshot, check_unreduced, check_world

_room(__name__)
__all__ = [
    "batch_loss",
    "complement_prediction",
    "complement_signal",
    "effective_rank",
    "environment_losses",
    "gradient_norm",
    "imbalance",
    "invariant_error",
    "invariant_prediction_error",
    "invariant_signal",
    "largest_principal_angle",
    "layer_alignment",
    "pooled_error",
    "relative_invariant_error",
    "relative_pooled_error",
    "singular_values",
    "spurious_power",
    "spurious_prediction",
    "spurious_signal",
    "trace",
    "training_loss",
    "worst_environment_loss",
]

INPUTS = 256  # at which predictions are evaluated


def invariant_error(snapshot: Snapshot) -> Array:
    """Distance to the invariant signal, |estimate - A*|_F; []."""
    _check(snapshot, "invariant_error")
    error = snapshot.once(_error)
    return jnp.sqrt(jnp.sum(error.inside**2) + error.outside)


def pooled_error(snapshot: Snapshot) -> Array:
    """Distance to the solution of pooled training, |estimate - A* - mean A_e|_F; []."""
    _check(snapshot, "pooled_error")
    error = snapshot.once(_error)
    mean = sandwich(error.spurious_basis, snapshot.world.mean_core)
    return jnp.sqrt(jnp.sum((error.inside - mean) ** 2) + error.outside)


def relative_invariant_error(snapshot: Snapshot) -> Array:
    """`invariant_error` over |A*|_F; []."""
    _check(snapshot, "relative_invariant_error")
    return invariant_error(snapshot) / _norm(snapshot.world.invariant_spectrum)


def relative_pooled_error(snapshot: Snapshot) -> Array:
    """`pooled_error` over |A* + mean A_e|_F; []."""
    _check(snapshot, "relative_pooled_error")
    world = snapshot.world
    invariant, spurious_basis = signals(world, snapshot.once(_frame))
    return pooled_error(snapshot) / _norm(invariant + sandwich(spurious_basis, world.mean_core))


def invariant_signal(snapshot: Snapshot) -> Array:
    """How much was learned along the invariant directions, |U*' U|_F; []."""
    _check(snapshot, "invariant_signal")
    return _signal(snapshot, snapshot.world.invariant_basis)


def spurious_signal(snapshot: Snapshot) -> Array:
    """How much was learned along the spurious directions, |V' U|_F; []."""
    _check(snapshot, "spurious_signal")
    return _signal(snapshot, snapshot.world.spurious_basis)


def spurious_power(snapshot: Snapshot) -> Array:
    """|V' U|_F^2, whose time average, about r2 lambda / eta, is the order parameter; []."""
    _check(snapshot, "spurious_power")
    return spurious_signal(snapshot) ** 2


def complement_signal(snapshot: Snapshot) -> Array:
    """What was learned outside the span of U* and V, |(I - P) U|_F; []."""
    _check(snapshot, "complement_signal")
    basis, factor = _inside(snapshot.world), snapshot.once(_factor)
    if factor is not None:
        return _norm(factor - linalg.product(basis, linalg.product(basis.T, factor)))
    outside = jnp.eye(basis.shape[0]) - linalg.product(basis, basis.T)
    return jnp.sqrt(jnp.abs(jnp.sum(linalg.product(outside, snapshot.estimate) * outside)))


def singular_values(snapshot: Snapshot) -> Array:
    """Singular values of the estimate, largest first; [min(d, k)] with a factor, else [d]."""
    _check(snapshot, "singular_values")
    factor = snapshot.once(_factor)
    if factor is not None:
        return linalg.singular_values(factor) ** 2
    return linalg.singular_values(snapshot.estimate)


def effective_rank(snapshot: Snapshot) -> Array:
    """Exp of the entropy of the normalised singular values (Roy and Vetterli 2007); [].

    0 for a zero estimate.
    """
    _check(snapshot, "effective_rank")
    values = singular_values(snapshot)
    total = jnp.sum(values)
    shares = values / jnp.where(total > 0, total, 1)
    entropy = -jnp.sum(shares * jnp.log(jnp.where(shares > 0, shares, 1)))
    return jnp.where(total == 0, 0.0, jnp.exp(entropy))


def trace(snapshot: Snapshot) -> Array:
    """The trace of the estimate, its nuclear norm where it is symmetric and positive; []."""
    _check(snapshot, "trace")
    factor = snapshot.once(_factor)
    return jnp.trace(snapshot.estimate) if factor is None else jnp.sum(factor**2)


def imbalance(snapshot: Snapshot) -> Array:
    """How far adjacent layers are from balance, in units of the signal of two layers; [].

    The root of the sum over l of |W_(l + 1)' W_(l + 1) - W_l W_l'|_F^2 for the estimate W_L ...
    W_1; |U'U - V'V|_F for U V'. Gradient flow conserves each difference (Arora, Cohen and Hazan
    2018).
    """
    _check(snapshot, "imbalance")
    layers = _layers(snapshot, "imbalance")
    differences = [
        linalg.product(later.T, later) - linalg.product(earlier, earlier.T)
        for earlier, later in itertools.pairwise(layers)
    ]
    return jnp.sqrt(sum((jnp.sum(difference**2) for difference in differences), jnp.zeros(())))


def layer_alignment(snapshot: Snapshot) -> Array:
    """How well leading singular vectors of adjacent layers align, the least over them; [].

    |<v_(l + 1), u_l>| in [0, 1], of the leading right singular vector of W_(l + 1) and the leading
    left one of W_l (Ji and Telgarsky 2019). Arbitrary where leading singular values are equal.
    """
    _check(snapshot, "layer_alignment")
    layers = _layers(snapshot, "layer_alignment")
    products = [
        jnp.abs(
            jnp.sum(linalg.left_singular(later.T)[0][:, 0] * linalg.left_singular(earlier)[0][:, 0])
        )
        for earlier, later in itertools.pairwise(layers)
    ]
    return jnp.min(jnp.stack(products))


def largest_principal_angle(snapshot: Snapshot) -> Array:
    """Largest angle in radians between U* and the r1 leading left singular vectors; []."""
    _check(snapshot, "largest_principal_angle")
    basis, factor = snapshot.world.invariant_basis, snapshot.once(_factor)
    matrix = snapshot.estimate if factor is None else factor
    leading = linalg.left_singular(matrix)[0][:, : basis.shape[1]]
    if leading.shape[1] < basis.shape[1]:
        # With fewer columns than the rank of A* some direction is missed altogether.
        return jnp.full((), jnp.pi / 2, leading.dtype)
    # The sine stays accurate for small angles; the cosine does not.
    outside = leading - linalg.product(basis, linalg.product(basis.T, leading))
    return jnp.arcsin(jnp.minimum(linalg.singular_values(outside)[0], 1))


def environment_losses(snapshot: Snapshot) -> Array:
    """Population loss of each environment, |estimate - A* - A_e|_F^2 / 4, no label noise; [E]."""
    _check(snapshot, "environment_losses")
    return squared_residuals(snapshot.once(_error), snapshot.world.spurious_cores) / 4


def worst_environment_loss(snapshot: Snapshot) -> Array:
    """The largest of `environment_losses` among the environments of positive probability; []."""
    _check(snapshot, "worst_environment_loss")
    possible = snapshot.world.probabilities > 0
    return jnp.max(jnp.where(possible, environment_losses(snapshot), -jnp.inf))


def batch_loss(snapshot: Snapshot) -> Array:
    """Training loss of the last batch, sum_i r_i^2 / (4 m), with label noise; NaN at step 0; []."""
    check_snapshot(snapshot)
    return snapshot.batch_loss


def training_loss(snapshot: Snapshot) -> Array:
    """Risk of the run's data, pooled by the world's probabilities, with label noise; []."""
    check_snapshot(snapshot)
    return snapshot.pooled_risk()(snapshot.params)


def gradient_norm(snapshot: Snapshot) -> Array:
    """Norm of the gradient of `training_loss` with respect to the parameters; []."""
    check_snapshot(snapshot)
    gradient = jax.grad(snapshot.pooled_risk())(snapshot.params)
    return jnp.sqrt(sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(gradient)))


def invariant_prediction_error(snapshot: Snapshot) -> Array:
    """Root mean square of f(x) - f(0) - x'A*x over that of x'A*x, for inputs in span U*; []."""
    _check(snapshot, "invariant_prediction_error")
    check_unreduced(snapshot, "invariant_prediction_error")
    basis, spectrum = snapshot.world.invariant_basis, snapshot.world.invariant_spectrum
    coordinates = linalg.product(_test_inputs(basis), basis)
    labels = jnp.sum(coordinates**2 * spectrum[None, :], 1)
    predictions = _predictions(snapshot, linalg.product(coordinates, basis.T))
    return _norm(predictions - labels) / _norm(labels)


def spurious_prediction(snapshot: Snapshot) -> Array:
    """Root mean square of f(x) - f(0) over that of |x|^2, for inputs in span V; [], as the signal.

    Zero where the network ignores the spurious directions or there are none, c where it predicts
    c |x|^2 there.
    """
    _check(snapshot, "spurious_prediction")
    check_unreduced(snapshot, "spurious_prediction")
    basis = snapshot.world.spurious_basis
    if not basis.shape[1]:
        return jnp.zeros((), basis.dtype)
    coordinates = linalg.product(_test_inputs(basis), basis)
    predictions = _predictions(snapshot, linalg.product(coordinates, basis.T))
    return _norm(predictions) / _norm(jnp.sum(coordinates**2, 1))


def complement_prediction(snapshot: Snapshot) -> Array:
    """`spurious_prediction` for inputs orthogonal to U* and V; [], 0 where there are none."""
    _check(snapshot, "complement_prediction")
    check_unreduced(snapshot, "complement_prediction")
    basis = _inside(snapshot.world)
    inputs = _test_inputs(basis)
    inputs = inputs - linalg.product(linalg.product(inputs, basis), basis.T)
    total = _norm(jnp.sum(inputs**2, 1))
    exists = total > 1e-3 * INPUTS**0.5  # below, only rounding is left
    return jnp.where(exists, _norm(_predictions(snapshot, inputs)) / jnp.where(exists, total, 1), 0)


def _check(snapshot: Snapshot, metric: str) -> None:
    """Refuse what is no snapshot, or one of another system's run."""
    check_world(snapshot, metric, member="spurious_basis", system="sensing")


def _test_inputs(basis: Array) -> Array:
    """Standard normal inputs [INPUTS, d], always the same."""
    return random.normals(jax.random.key(0), (INPUTS, basis.shape[0]), basis.dtype)


def _predictions(snapshot: Snapshot, inputs: Array) -> Array:
    """f(x) - f(0) of inputs [n, d]; [n]."""
    if snapshot.predict is not None:
        return jax.vmap(snapshot.predict)(inputs) - snapshot.predict(jnp.zeros_like(inputs[0]))
    factor = snapshot.once(_factor)
    if factor is not None:
        return jnp.sum(linalg.product(inputs, factor) ** 2, 1)
    return jnp.sum(linalg.product(inputs, snapshot.estimate) * inputs, 1)


def _factor(snapshot: Snapshot) -> Array | None:
    """U [d, k] with estimate U U', or None."""
    factor = snapshot.model.factor
    return None if factor is None else factor(snapshot.params)


def _layers(snapshot: Snapshot, metric: str) -> Sequence[Array]:
    """The factors W_1 ... W_L of the estimate."""
    layers = getattr(snapshot.model, "layers", None)
    if layers is None:
        raise ValueError(
            f"{metric} needs a model with several factors as parameters, such as models.asymmetric "
            "or models.deep with at least two factors"
        )
    return layers(snapshot.params)


def _frame(snapshot: Snapshot) -> Array:
    """An orthonormal basis of span U* and V up to rounding, zero columns aside; [d, r1 + r2].

    The metrics of distance share it: it is made in a loop, and XLA does not merge equal loops.
    """
    return linalg.orthonormal(snapshot.world.bases)


def _error(snapshot: Snapshot) -> Error:
    factor = snapshot.once(_factor)
    if factor is None:
        return dense_error(snapshot.estimate, snapshot.world)
    return factor_error(factor, snapshot.world, snapshot.once(_frame))


def _inside(world: World) -> Array:
    """An orthonormal basis of the span of U* and V, zero columns aside; [d, r1 + r2]."""
    bases = world.bases
    # U* and V of a user's arrays may share directions, of which a smaller tolerance adds rounding.
    return linalg.orthonormal(bases, tolerance=float(jnp.finfo(bases.dtype).eps) ** 0.5)


def _signal(snapshot: Snapshot, basis: Array) -> Array:
    factor = snapshot.once(_factor)
    if factor is not None:
        return _small_norm(linalg.product(basis.T, factor))
    return jnp.sqrt(jnp.abs(jnp.sum(linalg.product(snapshot.estimate, basis) * basis)))


def _norm(array: Array) -> Array:
    return jnp.sqrt(jnp.sum(array**2))


def _small_norm(array: Array) -> Array:
    """The norm of an array whose squares may be too small for its type, as those of 1e-20 are."""
    if not array.size:
        return _norm(array)
    # A power of two changes no digits.
    scale = jnp.where(jnp.max(jnp.abs(array)) < 2.0**-30, 2.0**63, 1.0).astype(array.dtype)
    return _norm(scale * array) / scale
