"""Gaussian measurements: in the mean, by the exact law of the batch gradient, or drawn one by one.

All three work in the space of the estimate. With residuals r_i = <X_i, estimate - S_e> + noise the
loss of a batch of m is 1/(4m) sum_i r_i^2. Its gradient with respect to the estimate is G / 2 with
G = (1/m) sum_i r_i sym(X_i), which the model pulls back to its parameters. X_i has iid N(0, 1)
entries.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from causal_sgd import checks, linalg, random
from causal_sgd.sensing.measurements import _law
from causal_sgd.sensing.measurements._algebra import (
    batch_size,
    checked_slab,
    combine,
    dense_invariant,
    diagonal_of,
    fused_sandwich,
    measure_spans,
    of_owners,
    over_slabs,
    owners,
    pack,
    pull_back,
    require_reduced_world,
    unpack,
)
from causal_sgd.sensing.measurements._risks import population_risks
from causal_sgd.sensing.models import MatrixModel
from causal_sgd.sensing.worlds import World
from causal_sgd.types import Array, Batch, Key, Measurement, Params, RiskFunction, Risks


def population() -> Measurement:
    """The mean gradient over infinitely many measurements: G = sum_e (m_e/m) R_e.

    Only the shares of the environments in the batch matter, not its size. For models with a
    `diagonal` everything is computed on diagonals [d], which is exact if the signals are diagonal
    too. If they are not (the basis is not canonical, or cores have entries off the diagonal), such
    a run is NaN from its first step.
    """

    def init(key: Key, world: World) -> tuple[Array, Array]:
        return world.invariant, jnp.where(_is_diagonal(world), 0, jnp.nan)

    def gradient(
        key: Key,
        step: Array,
        data: tuple[Array, Array],
        model: MatrixModel,
        params: Params,
        world: World,
        batch: Batch,
    ) -> tuple[Params, Array]:
        require_reduced_world(model, world)
        invariant, poison = data
        cores = world.spurious_cores[batch.environments]
        counts = batch.counts.astype(cores.dtype)
        shares = counts / jnp.sum(counts)
        mean_core = combine(shares, cores)
        # sum_e share_e |R_e|^2 is |mean R|^2 plus the variance of the cores, as V is orthonormal.
        variance = jnp.sum(shares * jnp.sum((cores - mean_core[None]) ** 2, (1, 2)))
        if model.diagonal is not None:
            spurious = diagonal_of(world.spurious_basis, mean_core[None])[0]
            signal = jnp.diagonal(invariant) + spurious
            residual, to_params = jax.vjp(model.diagonal, params)
            # NaN where signals have entries off the diagonal, which this branch would ignore.
            residual = residual - signal + poison
            return to_params(residual / 2)[0], (jnp.sum(residual**2) + variance) / 4
        residual = (
            model.estimate(params) - invariant - fused_sandwich(world.spurious_basis, mean_core)
        )
        return pull_back(model, params, residual), (jnp.sum(residual**2) + variance) / 4

    def on_batch(
        key: Key,
        step: Array,
        data: tuple[Array, Array],
        model: MatrixModel,
        world: World,
        batch: Batch,
    ) -> RiskFunction:
        return population_risks(model, world, world.spurious_cores[batch.environments])

    def whole(data: tuple[Array, Array], model: MatrixModel, world: World) -> RiskFunction:
        return population_risks(model, world, world.spurious_cores)

    def single(
        data: tuple[Array, Array], model: MatrixModel, world: World, environment: Array
    ) -> RiskFunction:
        return population_risks(model, world, world.spurious_cores[environment][None])

    return Measurement(
        init,
        gradient,
        risks=Risks(whole, on_batch, single),
        differentiates_loss=True,
        takes_reduced=True,
    )


def _is_diagonal(world: World) -> Array:
    """Whether A* and every A_e are diagonal up to rounding; [] bool."""
    parts = (
        (world.invariant_basis, jnp.diag(world.invariant_spectrum)[None]),
        (world.spurious_basis, world.spurious_cores),
    )
    result = jnp.asarray(True)
    for basis, cores in parts:
        # A matrix is diagonal if its diagonal has all of its norm, which is that of the core.
        squares = jnp.sum(cores**2, (1, 2))
        outside = squares - jnp.sum(diagonal_of(basis, cores) ** 2, 1)
        result &= jnp.all(outside <= 1e-5 * squares)
    return result


def gaussian_law(*, noise: float | Array = 0.0) -> Measurement:
    """Fresh Gaussian measurements by the exact law of the batch gradient.

    The cost does not depend on the batch size. sym(X) is a GOE matrix (variance 1 on and 1/2 off
    the diagonal), isotropic among symmetric matrices. Given the residual matrix R_e, the m_e
    examples of one environment therefore contribute to m G

        (|R_e| Q - noise g sqrt(Q)) R_e/|R_e| + sqrt(RR_e) (W - <W, R_e/|R_e|> R_e/|R_e|),
        RR_e = |R_e|^2 Q - 2 |R_e| noise g sqrt(Q) + noise^2 (g^2 + K),

    with Q ~ chi^2_{m_e}, g ~ N(0, 1), K ~ chi^2_{m_e - 1} and W ~ GOE(d) independent. The
    contributions of several environments add up. As their residuals differ only within the span of
    V (.) V', each environment needs its own draw only there, and one GOE matrix scaled by
    sqrt(sum_e RR_e) serves the rest. The distribution and the batch loss sum_e RR_e / (4m) are
    exact for every m. For models that are not `symmetric`, all of X matters and W has d x d iid
    N(0, 1) entries.

    Args:
        noise: sigma_y >= 0, the standard deviation of the label noise; may be traced. Nothing is
            drawn for a plain 0.

    Returns:
        A measurement of the estimate space [d, d].
    """
    checks.number("noise", noise, minimum=0)

    def of_environments(
        draw: Callable[..., _law.Numbers],
        data: Array,
        model: MatrixModel,
        params: Params,
        world: World,
        environments: Array,
        size: Array,
    ) -> tuple[Params, Array]:
        cores = world.spurious_cores[environments]
        error = model.estimate(params) - data
        dim = error.shape[0]
        numbers = draw(
            size=_law.half_size(dim, model.symmetric),
            spurious_rank=cores.shape[1],
            noise=noise,
            dtype=error.dtype,
            symmetric=model.symmetric,
        )
        half = _law.make_half(numbers.normals, dim, model.symmetric)
        part, scale, total = _law.batch_gradient(
            numbers, half, error, world.spurious_basis, cores, noise, model.symmetric
        )
        matrix = part + scale * _law.whole(half, model.symmetric)
        number = size.astype(error.dtype)
        return pull_back(model, params, matrix / number), total / number / 4

    return _law.measure_by_law(dense_invariant, of_environments, noise)


def streamed(*, noise: float | Array = 0.0, slab_size: int | None = None) -> Measurement:
    """Every measurement matrix of the batch is drawn: the definition of `gaussian_law`, its oracle.

    Symmetric residuals see only sym(X), so the d (d + 1) / 2 packed coordinates of a measurement
    are drawn, which are iid N(0, 1). For models that are not `symmetric` it is all d x d entries.

    Args:
        noise: sigma_y >= 0, the standard deviation of the label noise; may be traced.
        slab_size: measurements held at once by a run; None for about 2^16 numbers. It bounds the
            memory and changes the draws.

    Returns:
        A measurement of the estimate space [d, d] that draws m d (d + 1) / 2 numbers a step.
    """
    checks.number("noise", noise, minimum=0)
    checked_slab(slab_size, 1)

    def of_span(
        key: Key,
        step: Array,
        data: Array,
        model: MatrixModel,
        params: Params,
        world: World,
        batch: Batch,
        first: Array | int,
    ) -> tuple[Params, Array]:
        size = batch_size(batch)
        error = model.estimate(params) - data
        dim = error.shape[0]
        width = dim * (dim + 1) // 2 if model.symmetric else dim * dim
        slab = checked_slab(slab_size, width)
        spurious = jax.vmap(world.spurious)(world.spurious_cores[batch.environments])
        residuals = error[None] - spurious
        residuals = pack(residuals) if model.symmetric else residuals.reshape(-1, width)
        residuals = residuals.T  # [p, B]

        def add_slab(index: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
            sums, total = carry
            numbers = random.normals(random.fold_in(key, index), slab * (width + 1), error.dtype)
            # The coordinates of all measurements of the slab come first, then their label noise.
            owner, valid = owners(batch.counts, index * slab - first, slab)
            measured = numbers[: slab * width].reshape(slab, width)
            products = of_owners(linalg.product(measured, residuals), owner)
            labels = noise * numbers[slab * width :]
            residual = jnp.where(valid, products - labels, 0)
            gain = linalg.product(residual, measured)
            return sums + gain, total + jnp.sum(residual**2)

        zero = jnp.zeros(width, error.dtype), jnp.zeros((), error.dtype)
        sums, total = over_slabs(add_slab, zero, batch, slab, first)
        mean, loss = sums / size.astype(error.dtype), total / size.astype(error.dtype) / 4
        matrix = unpack(mean) if model.symmetric else mean.reshape(dim, dim)
        return pull_back(model, params, matrix), loss

    return measure_spans(dense_invariant, of_span)
