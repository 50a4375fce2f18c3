"""The exact law of the batch gradient for order parameters, and its limit for large d."""

from __future__ import annotations

import jax.numpy as jnp

from causal_sgd import checks, linalg, random
from causal_sgd.sensing.measurements import _law
from causal_sgd.sensing.measurements._algebra import (
    combine,
    fused_sandwich,
    inner_product,
    require_reduced_world,
)
from causal_sgd.sensing.measurements._risks import population_risks
from causal_sgd.sensing.models import MatrixModel, ReducedModel
from causal_sgd.sensing.worlds import World
from causal_sgd.types import Array, Batch, Key, Measurement, RiskFunction, Risks

WORDS = 2**31 - 1  # stream of the words of the exterior part, beyond those of `_law`


def order_parameter_law(*, noise: float | Array = 0.0) -> Measurement:
    """The law of `low_rank_law` for `models.order_parameters`, at a cost free of d and m.

    With n inner rows, the parameters X = [X_n; 0] and the residuals lie in n of the d directions.
    There m G = part + scale W with W ~ GOE(n), as for `gaussian_law`. In the other d - n directions
    G U is scale / (sqrt(2) m) Z X_n, where Z [d - n, n] has iid N(0, 1) entries. Only its Gram
    matrix matters. If X_n = Q R with orthonormal columns Q, then Z Q = E K with orthonormal columns
    E and the Bartlett triangle K of d - n degrees of freedom, and the last k rows of the gradient
    are scale / (sqrt(2) m) K R, the coordinates along E. A step takes O((n + k)^3) operations;
    d and m are numbers of the law, which may be traced.

    Args:
        noise: sigma_y >= 0, the standard deviation of the label noise; may be traced. Nothing is
            drawn for a plain 0.

    Returns:
        A measurement of `models.order_parameters` in `worlds.reduced`.

    Raises:
        ValueError: (when the gradient is traced) for another model or world.
    """
    checks.number("noise", noise, minimum=0)

    def gradient(
        key: Key,
        step: Array,
        data: tuple[()],
        model: MatrixModel,
        params: Array,
        world: World,
        batch: Batch,
    ) -> tuple[Array, Array]:
        reduced = _require_reduced("order_parameter_law", model, world)
        rows, rank = reduced.inner_rows, reduced.rank
        inside, dtype = params[:rows], params.dtype
        cores = world.spurious_cores[batch.environments]
        within = random.goe_summand_size(rows)
        numbers = _law.draw_numbers(
            key,
            within + random.bartlett_normals(rank),
            batch=batch,
            spurious_rank=cores.shape[1],
            noise=noise,
            dtype=dtype,
        )
        half = random.goe_summand(numbers.normals[:within], rows)
        part, scale, total = _law.batch_gradient(
            numbers, half, _error(inside, world), world.spurious_basis[:rows], cores, noise
        )
        number = jnp.sum(batch.counts).astype(dtype)
        top = linalg.product(part + scale * (half + half.T), inside)
        degrees = jnp.asarray(reduced.dim, dtype) - rows
        words = random.bits(key, random.bartlett_words(rank), WORDS)
        outside = random.bartlett(numbers.normals[within:], words, degrees, rank)
        # Below k degrees the triangle has no k rows; a traced d could not be refused.
        scale = jnp.where(degrees >= rank, scale * 0.5**0.5, jnp.nan)
        bottom = scale * linalg.product(outside, linalg.triangle(inside))
        return jnp.concatenate([top, bottom]) / number, total / number / 4

    def whole(data: tuple[()], model: MatrixModel, world: World) -> RiskFunction:
        return population_risks(model, world, world.spurious_cores, noise)

    return Measurement(lambda key, world: (), gradient, risks=Risks(whole), takes_reduced=True)


def order_parameter_limit(*, batch_ratio: float | Array, noise: float | Array = 0.0) -> Measurement:
    """The limit of `order_parameter_law` as d and the batch size m grow at a fixed ratio.

    Fluctuations along the signals vanish like d^(-1/2), and G acts there by its mean. A random
    start has signals of this order itself: there they change when signals have grown. In the many
    other directions G adds its mean square, so that a step of SGD adds learning_rate^2 nu U'U to B,
    where nu is the mean of |R_e|^2 + noise^2 over the batch, over 2 `batch_ratio`. Given the
    environments nothing is random. Of the counts of a batch only the shares matter. With the same
    key, a run sees the worlds, starts and environments of `order_parameter_law`.

    Args:
        batch_ratio: m / d > 0; may be traced.
        noise: sigma_y >= 0, the standard deviation of the label noise; may be traced.

    Returns:
        A measurement of `models.order_parameters` in `worlds.reduced`. The `dim` of the model is
        that of its start only.

    Raises:
        ValueError: (when the gradient is traced) for another model or world.
    """
    checks.number("batch_ratio", batch_ratio, above=0)
    checks.number("noise", noise, minimum=0)

    def gradient(
        key: Key,
        step: Array,
        data: tuple[()],
        model: MatrixModel,
        params: Array,
        world: World,
        batch: Batch,
    ) -> tuple[Array, Array]:
        rows = _require_reduced("order_parameter_limit", model, world).inner_rows
        inside = params[:rows]
        cores = world.spurious_cores[batch.environments]
        counts = batch.counts.astype(cores.dtype)
        shares = counts / jnp.sum(counts)
        mean_core = combine(shares, cores)
        variance = jnp.sum(shares * jnp.sum((cores - mean_core[None]) ** 2, (1, 2)))
        residual = _error(inside, world) - fused_sandwich(world.spurious_basis[:rows], mean_core)
        square = inner_product(residual, residual) + variance + noise**2
        top = linalg.product(residual, inside)
        bottom = jnp.sqrt(square / (2 * batch_ratio)) * linalg.triangle(inside)
        return jnp.concatenate([top, bottom]).astype(params.dtype), (square / 4).astype(
            params.dtype
        )

    def whole(data: tuple[()], model: MatrixModel, world: World) -> RiskFunction:
        return population_risks(model, world, world.spurious_cores, noise)

    return Measurement(lambda key, world: (), gradient, risks=Risks(whole), takes_reduced=True)


def _error(inside: Array, world: World) -> Array:
    """The estimate minus A* in the inner rows, [n, n]."""
    basis = world.invariant_basis[: inside.shape[0]]
    shared = linalg.product(basis * world.invariant_spectrum[None, :], basis.T)
    return linalg.product(inside, inside.T) - shared


def _require_reduced(name: str, model: MatrixModel, world: World) -> ReducedModel:
    """Return the model if it and the world hold order parameters; else raise ValueError."""
    if not isinstance(model, ReducedModel):
        raise ValueError(
            f"model must be models.order_parameters for {name}, got another; gaussian_law and "
            "low_rank_law serve models of whole matrices"
        )
    require_reduced_world(model, world)
    return model
