"""Interpolators of least hyperbolic entropy and of least l1 norm."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from causal_sgd import checks, linalg
from causal_sgd.theory.sparse._arguments import check_design, over_leading_axes
from causal_sgd.types import Array

__all__ = ["hyperbolic_interpolator", "l1_interpolator"]

STEPS = 150  # of Newton's method for one entropy
FIRST, LAST, STAGES, STAGE_STEPS = 20.0, 1000.0, 12, 25  # -log alpha^2 on the way to the l1 norm


def hyperbolic_interpolator(
    inputs: ArrayLike,
    labels: ArrayLike,
    scale: ArrayLike,
    *,
    nonnegative: bool = False,
) -> Array:
    """The solution of X beta = y of least hyperbolic entropy: where diagonal networks end.

    Gradient flow on beta = (p^2 - q^2) / 2 keeps p_i q_i = a_i and moves log(p_i / q_i) in the span
    of the inputs, hence beta = a sinh(X'nu) from a start at beta = 0. This is the interpolator that
    minimises (Woodworth et al. 2020; Even et al. 2023 for steps, which only shrink a)

        sum_i beta_i arcsinh(beta_i / a_i) - sqrt(beta_i^2 + a_i^2) + a_i.

    Large a give the least l2 norm (the kernel regime), small ones approach the least l1 norm. The n
    dual variables maximise y'nu - sum_i a_i cosh((X'nu)_i) by Newton's method. Along a direction
    whose image under X' is at most delta, the curvature changes at most by exp(t delta), so that
    the step t = log(1 + delta) / delta increases the dual whatever a is.

    For beta = u^2 - v^2 with u_i v_i = c_i take a = 2 c; with `nonnegative`, for beta = u^2, a is
    the square at the start and beta = a exp(X'nu) minimises sum_i beta_i log(beta_i / a_i) -
    beta_i.

    Accuracy: 2e-6 of the largest weight in single precision and 1e-9 in double, for a from 1e-16
    to 100 and solutions of order one. X beta = y holds to rounding.

    Args:
        inputs: X [..., n, d] with n <= d, of rank n.
        labels: y [..., n].
        scale: a [..., d] or [], above 0: alpha^2 for p = q = alpha at the start.
        nonnegative: whether beta = u^2, whose interpolators must then exist; else the result does
            not interpolate.

    Returns:
        beta [..., d].

    Raises:
        ValueError: if shapes do not fit or a scale is not above 0.

    >>> import numpy as np
    >>> beta = hyperbolic_interpolator(np.array([[1.0, 2.0]]), [2.0], 1e-6)
    >>> print([f"{value:.4f}" for value in beta])
    ['0.0007', '0.9996']
    """
    checks.flags(nonnegative=nonnegative)
    checks.number("scale", scale, above=0, scalar=False)
    x, y = check_design(inputs, labels)
    a = jnp.asarray(scale)
    a = jnp.broadcast_to(a, x.shape[-1:]) if a.ndim == 0 else a
    if a.shape[-1] != x.shape[-1]:
        raise ValueError(
            f"scale must have shape [..., d] = [..., {x.shape[-1]}] or [], got {list(a.shape)}"
        )
    dtype = jnp.result_type(float, x, y, a)
    return _hyperbolic(x.astype(dtype), y.astype(dtype), a.astype(dtype), nonnegative)


def l1_interpolator(inputs: ArrayLike, labels: ArrayLike, *, nonnegative: bool = False) -> Array:
    """The solution of X beta = y of least l1 norm: the limit of a small start.

    `hyperbolic_interpolator` at scales that shrink to exp(-1000), each from the last one's dual
    variables. Off the support, where |x_i'nu| / log(1 / a) approaches c_i < 1, the limit leaves
    about a^(1 - c_i). The n largest weights alone are then solved for; where they interpolate with
    no larger a norm, they are the result: a vertex, as linear programming finds.

    Accuracy: the norm is the least one to relative 1e-3, and mostly to rounding (1e-5 in single
    precision, 1e-10 in double), as are the weights where the solution is unique.

    Args:
        inputs: X [..., n, d] with n <= d, of rank n.
        labels: y [..., n].
        nonnegative: whether beta >= 0, of which interpolators must then exist.

    Returns:
        beta [..., d].

    Raises:
        ValueError: if shapes do not fit.

    >>> import numpy as np
    >>> print(l1_interpolator(np.array([[1.0, 2.0]]), [2.0]))
    [0. 1.]
    """
    checks.flags(nonnegative=nonnegative)
    x, y = check_design(inputs, labels)
    dtype = jnp.result_type(float, x, y)
    return _least_l1(x.astype(dtype), y.astype(dtype), nonnegative)


@functools.partial(jax.jit, static_argnames="nonnegative")
def _hyperbolic(x: Array, y: Array, a: Array, nonnegative: bool) -> Array:
    def one(x: Array, y: Array, a: Array) -> Array:
        log_scale = jnp.log(a)
        step = functools.partial(_step, x, y, log_scale, nonnegative)
        nu = jax.lax.fori_loop(0, STEPS, lambda _, nu: step(nu)[0], jnp.zeros_like(y))
        return step(nu)[1]

    return over_leading_axes(one, (2, 1, 1))(x, y, a)


@functools.partial(jax.jit, static_argnames="nonnegative")
def _least_l1(x: Array, y: Array, nonnegative: bool) -> Array:
    n = x.shape[-2]

    def one(x: Array, y: Array) -> Array:
        top = jnp.max(jnp.abs(y))
        size = jnp.where(top > 0, top, 1) / jnp.max(jnp.abs(x))
        logs = jnp.geomspace(FIRST, LAST, STAGES, dtype=y.dtype)

        def scale_at(log: Array) -> Array:
            return jnp.full(x.shape[-1], jnp.log(size) - log)

        def stage(carry: tuple[Array, Array], log: Array) -> tuple[tuple[Array, Array], None]:
            nu, before = carry
            step = functools.partial(_step, x, y, scale_at(log), nonnegative)
            nu = jax.lax.fori_loop(0, STAGE_STEPS, lambda _, nu: step(nu)[0], nu * log / before)
            return (nu, log), None

        step = functools.partial(_step, x, y, scale_at(logs[0]), nonnegative)
        nu = jax.lax.fori_loop(0, STEPS, lambda _, nu: step(nu)[0], jnp.zeros_like(y))
        (nu, _), _ = jax.lax.scan(stage, (nu, logs[0]), logs[1:])
        limit = _step(x, y, scale_at(logs[-1]), nonnegative, nu)[1]
        return _vertex(x, y, limit, n)

    return over_leading_axes(one, (2, 1))(x, y)


def _step(
    x: Array, y: Array, log_scale: Array, nonnegative: bool, nu: Array
) -> tuple[Array, Array]:
    """The next dual variables [n], and the primal ones [d] that solve X beta = y to first order."""
    z = linalg.product(nu, x)
    up = jnp.exp(z + log_scale)
    down = jnp.zeros_like(up) if nonnegative else jnp.exp(log_scale - z)
    half = 1.0 if nonnegative else 0.5
    beta, slope = half * (up - down), half * (up + down)
    if not nonnegative:  # the difference would cancel
        beta = jnp.where(jnp.abs(z) < 1, jnp.exp(log_scale) * jnp.sinh(z), beta)
    hessian = linalg.product(x * slope[None, :], x.T)
    ridge = 4 * jnp.finfo(y.dtype).eps * jnp.trace(hessian) + jnp.finfo(y.dtype).tiny
    hessian = hessian + ridge * jnp.eye(y.shape[0], dtype=y.dtype)
    residual = y - linalg.product(x, beta)
    direction = linalg.solve_positive(hessian, residual[:, None])[:, 0]
    image = linalg.product(direction, x)
    delta = jnp.max(jnp.abs(image))
    length = jnp.where(delta > 0, jnp.log1p(delta) / jnp.where(delta > 0, delta, 1), 1)
    return nu + length * direction, jnp.where(delta < 1, beta + slope * image, beta)


def _vertex(x: Array, y: Array, limit: Array, n: int) -> Array:
    """The n largest weights alone, if they interpolate with no larger a norm than the limit's."""
    places = jax.lax.top_k(jnp.abs(limit), n)[1]
    inner = linalg.solve(x[:, places], y[:, None])[:, 0]
    vertex = jnp.zeros_like(limit).at[places].set(inner)
    slack = 64 * jnp.finfo(y.dtype).eps
    fits = jnp.sum(jnp.abs(vertex)) <= (1 + slack) * jnp.sum(jnp.abs(limit))
    return jnp.where(fits, vertex, limit)
