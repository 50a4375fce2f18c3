"""Curvature of the training loss, as metrics: eigenvalues and trace of Hessians of the run's risks.

Every member of `__all__` is a metric. The Hessian is that of the risk on the whole of the run's
data (`snapshot.risks`) with respect to all parameters; with a measurement that has no risks the
metrics raise a ValueError. Products with a Hessian are derivatives of the gradient along a vector
(`jvp` of `grad`), at the cost of about two gradients each.

Up to 64 parameters the Hessian is formed and its eigenvalues are exact. Beyond, the Lanczos method
with full reorthogonalisation runs for 40 steps from a fixed start. It yields both ends of the
spectrum at once, also where the largest positive and negative eigenvalues have the same size and
power iteration stalls. Its values lie inside the spectrum: no sharpness is overestimated.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from causal_sgd import _room, linalg, random
from causal_sgd.types import Array, Params, Snapshot, check_snapshot, check_unreduced

_room(__name__)
__all__ = [
    "batch_sharpness",
    "environment_sharpness",
    "hessian_trace",
    "lowest_curvature",
    "sharpness",
]

DENSE = 64  # parameters, up to which a Hessian is formed
STEPS = 40  # of the Lanczos method
PROBES = 64  # random vectors of the trace
Operator = Callable[[Array], Array]  # the product of a symmetric matrix with a vector [n]


def sharpness(snapshot: Snapshot) -> Array:
    """Largest eigenvalue of the Hessian of the pooled risk; [].

    Gradient descent on it is unstable above 2 / learning_rate.
    """
    check_snapshot(snapshot)
    return snapshot.once(_pooled_ends)[1]


def lowest_curvature(snapshot: Snapshot) -> Array:
    """Smallest eigenvalue of the Hessian of the pooled risk; [], negative at a strict saddle."""
    check_snapshot(snapshot)
    return snapshot.once(_pooled_ends)[0]


def environment_sharpness(snapshot: Snapshot) -> Array:
    """Largest eigenvalue of the Hessian of each environment's risk; [E].

    The environments are treated one after the other, each at the cost of a `sharpness`.
    """
    check_snapshot(snapshot)
    size = snapshot.world.probabilities.shape[0]

    def one(environment: Array) -> Array:
        return _ends(snapshot.environment_risk(environment), snapshot.params)[1]

    return jax.lax.map(one, jnp.arange(size))


def batch_sharpness(snapshot: Snapshot) -> Array:
    """Curvature of the next batch's risk along its own gradient, g'H g / |g|^2; [], 0 at g = 0.

    Its mean over runs or steps is the batch sharpness of Andreyev and Beneventano (2024). The batch
    is the one that the next step draws, which is independent of the parameters. A ValueError for
    algorithms whose steps have no single batch, and for measurements whose draws depend on the
    parameters.
    """
    check_snapshot(snapshot)
    point, risk = _flat(snapshot.batch_risk(), snapshot.params)
    gradient = jax.grad(risk)(point)
    squared_norm = jnp.sum(gradient**2)
    product = jnp.sum(gradient * _hessian(risk, point)(gradient))
    return jnp.where(squared_norm > 0, product / jnp.where(squared_norm > 0, squared_norm, 1), 0)


def hessian_trace(snapshot: Snapshot) -> Array:
    """Trace of the Hessian of the pooled risk; [].

    Up to 64 parameters it is exact. Beyond, it is the mean of z'H z over 64 fixed vectors z of
    random signs (Hutchinson 1989), with a standard error of sqrt(2 sum_{i != j} H_ij^2 / 64).

    Raises:
        ValueError: for `models.order_parameters`, which hold fewer parameters than they stand for.
    """
    check_snapshot(snapshot)
    check_unreduced(snapshot, "hessian_trace")
    point, risk = _flat(snapshot.pooled_risk(), snapshot.params)
    product = _hessian(risk, point)
    size = point.shape[0]
    if size <= DENSE:
        return jnp.trace(jax.vmap(product)(jnp.eye(size, dtype=point.dtype)))

    def probe(index: Array) -> Array:
        # An independent stream for each probe: memory stays that of one gradient.
        words = random.bits(random.fold_in(jax.random.key(0), index), size)
        signs = 1 - 2 * (words >> 31).astype(point.dtype)
        return jnp.sum(signs * product(signs))

    return jnp.mean(jax.lax.map(probe, jnp.arange(PROBES)))


def _pooled_ends(snapshot: Snapshot) -> Array:
    """The smallest and the largest eigenvalue of the pooled risk's Hessian; [2]."""
    return _ends(snapshot.pooled_risk(), snapshot.params)


def _flat(
    risk: Callable[[Params], Array], params: Params
) -> tuple[Array, Callable[[Array], Array]]:
    """The parameters as a vector [n], and a risk [] as a function of it."""
    point, restore = ravel_pytree(params)
    return point, lambda vector: risk(restore(vector))


def _hessian(risk: Callable[[Array], Array], point: Array) -> Operator:
    """The product of the Hessian of a risk at a point [n] with a vector [n]."""
    # `linearize` is `jvp` with the gradient itself computed once for all vectors.
    return jax.linearize(jax.grad(risk), point)[1]


def _ends(risk: Callable[[Params], Array], params: Params) -> Array:
    point, flat_risk = _flat(risk, params)
    product = _hessian(flat_risk, point)
    size = point.shape[0]
    if size <= DENSE:
        matrix = jax.vmap(product)(jnp.eye(size, dtype=point.dtype))
    else:
        matrix = _lanczos(product, size, STEPS, point.dtype)
    values, _ = linalg.eigh((matrix + matrix.T) / 2)
    return jnp.stack([values[0], values[-1]])


def _lanczos(product: Operator, size: int, steps: int, dtype: jnp.dtype) -> Array:
    """The tridiagonal matrix [steps, steps] of the Lanczos method, whose ends are the operator's.

    Every vector is made orthogonal to all before it, twice ("twice is enough"). Once the vectors
    span an invariant subspace nothing is left to add; the rest of the diagonal is then filled with
    the first entry, which lies between the ends.

    Args:
        product: with a symmetric matrix [size, size].
        size: n > steps.
        steps: of the method.
        dtype: of the numbers.
    """
    start = random.normals(jax.random.key(0), size, dtype)
    smallest = 8 * jnp.finfo(dtype).eps

    def step(index: Array, carry: tuple[Array, Array, Array, Array]) -> tuple[Array, ...]:
        basis, diagonal, off_diagonal, exists = carry
        image = product(basis[index])
        entry = jnp.sum(basis[index] * image)
        diagonal = diagonal.at[index].set(jnp.where(exists, entry, diagonal[0]))
        rest = image
        for _ in range(2):
            rest = rest - linalg.product(linalg.product(basis, rest), basis)
        norm = jnp.linalg.norm(rest)
        exists &= norm > smallest * jnp.linalg.norm(image)
        following = jnp.where(exists, rest / jnp.where(exists, norm, 1), 0)
        basis = basis.at[index + 1].set(following, mode="drop")
        off_diagonal = off_diagonal.at[index].set(jnp.where(exists, norm, 0))
        return basis, diagonal, off_diagonal, exists

    basis = jnp.zeros((steps, size), dtype).at[0].set(start / jnp.linalg.norm(start))
    entries = jnp.zeros(steps, dtype)
    carry = basis, entries, entries, jnp.asarray(True)
    _, diagonal, off_diagonal, _ = jax.lax.fori_loop(0, steps, step, carry)
    beside = jnp.diag(off_diagonal[:-1], 1)
    return jnp.diag(diagonal) + beside + beside.T
