"""The losses of environments as differentiable functions of the parameters and a scale.

With residual matrix R_e(c) = c estimate - A* - A_e, the loss of environment e in the mean over
Gaussian measurements is (|R_e|^2 + noise^2) / 4; c = 1 but for penalties that differentiate it.
"""

from __future__ import annotations

import jax.numpy as jnp

from causal_sgd import linalg
from causal_sgd.sensing._residuals import dense_error, factor_error, squared_residuals
from causal_sgd.sensing.measurements._algebra import Designs, diagonal_of, require_estimate
from causal_sgd.sensing.models import MatrixModel
from causal_sgd.sensing.worlds import World
from causal_sgd.types import Array, Params, RiskFunction

__all__ = ["population_risks", "squared_errors"]


def population_risks(
    model: MatrixModel, world: World, cores: Array, noise: float | Array = 0.0
) -> RiskFunction:
    """Return the losses [B] over infinitely many Gaussian measurements.

    Nothing [d, d] is formed for models with a factor or a diagonal.

    Args:
        model: of the estimate.
        world: of the signals.
        cores: of the environments, [B, r2, r2].
        noise: sigma_y, the standard deviation of the label noise.

    Raises:
        ValueError: for a model whose predictions are not those of its estimate.
    """
    require_estimate(model)
    if model.diagonal is not None:
        squares = _diagonal_squares(model, world, cores)
    elif model.factor is not None:
        squares = _factor_squares(model, world, cores)
    else:
        squares = _dense_squares(model, world, cores)

    def risks(params: Params, scale: float | Array = 1.0) -> Array:
        return (squares(params, scale) + noise**2) / 4

    return risks


def squared_errors(design: Designs, labels: Array, estimate: Array) -> Array:
    """Return (x_i . estimate - y_i)^2 of all examples, [E, n] or [n].

    Plain products, which unlike those of `_products` can be differentiated twice.

    Args:
        design: [E, n, p], E arrays [n, p], or [n, p].
        labels: [E, n] or [n].
        estimate: [p].
    """
    if isinstance(design, tuple):
        predictions = jnp.stack([linalg.product(rows, estimate) for rows in design])
    else:
        predictions = linalg.product(design, estimate)
    return (predictions - labels) ** 2


def _factor_squares(model: MatrixModel, world: World, cores: Array) -> RiskFunction:
    factor_of = model.factor
    assert factor_of is not None
    # The frame does not depend on the parameters: nothing differentiates the orthonormalisation.
    frame = linalg.orthonormal(world.bases)

    def squares(params: Params, scale: float | Array = 1.0) -> Array:
        return squared_residuals(factor_error(factor_of(params), world, frame, scale), cores)

    return squares


def _dense_squares(model: MatrixModel, world: World, cores: Array) -> RiskFunction:
    def squares(params: Params, scale: float | Array = 1.0) -> Array:
        return squared_residuals(dense_error(scale * model.estimate(params), world), cores)

    return squares


def _diagonal_squares(model: MatrixModel, world: World, cores: Array) -> RiskFunction:
    """|c diag(t) - S_e|^2 = |c t - diag S_e|^2 + |S_e|^2 - |diag S_e|^2."""
    diagonal, basis, spectrum = model.diagonal, world.spurious_basis, world.invariant_spectrum
    assert diagonal is not None
    signals = diagonal_of(world.invariant_basis, jnp.diag(spectrum)[None]) + diagonal_of(
        basis, cores
    )
    overlap = linalg.product(world.invariant_basis.T, basis)  # zero unless tilted
    cross = jnp.sum(spectrum[None, :] * diagonal_of(overlap, cores), 1)
    total = jnp.sum(spectrum**2) + 2 * cross + jnp.sum(cores**2, (1, 2))
    outside = jnp.maximum(total - jnp.sum(signals**2, 1), 0)

    def squares(params: Params, scale: float | Array = 1.0) -> Array:
        residuals = scale * diagonal(params)[None, :] - signals
        return jnp.sum(residuals**2, 1) + outside

    return squares
