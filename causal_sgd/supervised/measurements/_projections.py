"""The exact law of a fresh batch of a Gaussian mixture, by one number for each example.

Within a group x = mu + L u with u ~ N(0, I). With a = L'w, t = a'u / |a| and f = x'w + b, all that
depends on the prediction is a function of the groups and of the numbers t_i of the m examples. For
any v_i that depend on these,

    sum_i v_i x_i = sum_i v_i mu_i + L (a sum_i v_i t_i / |a| + (I - a a' / |a|^2) sum_i v_i u_i),

and given the v's the last sums are Gaussian: for orthonormal e_1, e_2, ... in R^m with
v = sum_j c_j e_j they are sum_j c_j h_j with independent h_j ~ N(0, I).
"""

from __future__ import annotations

from typing import NamedTuple, NoReturn

import jax
import jax.numpy as jnp

from causal_sgd import checks, linalg, random
from causal_sgd.supervised import losses
from causal_sgd.supervised._moments import MomentData
from causal_sgd.supervised.measurements._quadrature import quadrature
from causal_sgd.supervised.measurements._risks import require_linear, risk_gradient
from causal_sgd.supervised.models import VectorModel
from causal_sgd.supervised.worlds import MixtureWorld, SupervisedWorld
from causal_sgd.types import Array, Batch, Key, Measurement, Params, RiskFunction, Risks

__all__ = ["batch_projections"]


def batch_projections(
    loss: losses.Loss = losses.logistic, *, max_examples: int, nodes: int = 16
) -> Measurement:
    """A fresh batch of a mixture world in every step, by the exact law of its losses and gradients.

    A step costs O(m + p) numbers for m examples of p inputs (and a product with the root of the
    covariance within a group), in place of m p. The population is the data: metrics of a training
    loss are over all of it, by quadrature.

    What is drawn depends on the parameters. Objectives may differentiate the losses once with
    respect to them, and once with respect to the scale and the shift of the prediction, at 1 and 0
    (IRMv1); under squared loss twice, and at any scale.

    Args:
        loss: of a prediction and a label.
        max_examples: the most examples of an environment in a batch; static.
        nodes: of the quadrature for the population.

    Returns:
        A measurement for models that predict linearly, in mixture worlds. Batches that ask for more
        examples of an environment give NaN, and so do gradients at other scales under a loss that
        is not squared.

    Raises:
        ValueError: if an argument is out of range, or (when it runs) the world is no mixture.
    """
    checks.integer("max_examples", max_examples)
    checks.instance("loss", loss, losses.Loss, "a loss, such as losses.logistic")
    if loss.multiclass:
        raise ValueError(
            "loss must be one of a single prediction for batch_projections, got softmax; use "
            "measurements.examples"
        )
    checks.integer("nodes", nodes, maximum=200)
    population = quadrature(loss, nodes=nodes).risks
    assert population is not None

    def init(key: Key, world: SupervisedWorld) -> MomentData:
        del key
        if not isinstance(world, MixtureWorld):
            raise ValueError(
                "world must be a mixture for batch_projections, as worlds.gaussian_environments "
                f"makes, got {type(world).__name__}"
            )
        return MomentData(None)

    def gradient(
        key: Key,
        step: Array,
        data: MomentData,
        model: VectorModel,
        params: Params,
        world: MixtureWorld,
        batch: Batch,
    ) -> tuple[Params, Array]:
        del step, data
        near = _near(loss, model, params, world, batch, _draw(key, world, batch, max_examples))
        return risk_gradient(near, batch, params)

    def directions(
        key: Key,
        step: Array,
        data: MomentData,
        model: VectorModel,
        params: Params,
        world: MixtureWorld,
        batch: Batch,
    ) -> RiskFunction:
        del step, data
        return _near(loss, model, params, world, batch, _draw(key, world, batch, max_examples))

    return Measurement(
        init,
        gradient,
        capacity=lambda environments: max_examples * environments,
        risks=Risks(
            population.whole,
            single=population.single,
            shifted=True,
            fresh=True,
            squared=loss == losses.squared,
            directions=directions,
        ),
    )


class Drawn(NamedTuple):
    """What a batch of B environments is made of, before the parameters are known."""

    groups: Array  # [B, m, G] 1 for the group of an example
    numbers: Array  # [B, m] t
    beside: Array  # [B, 3, p] h_1, h_2, h_3
    used: Array  # [B, m] 1 / n for the n examples of an environment; NaN if n is too large


def _draw(key: Key, world: MixtureWorld, batch: Batch, size: int) -> Drawn:
    environments, (_, groups, dim) = batch.environments, world.means.shape
    keys = random.fold_in(key, environments)
    dtype = world.means.dtype

    def one(key: Key, weights: Array, count: Array) -> Drawn:
        levels = jnp.cumsum(weights)[:-1]
        uniform = random.uniforms(random.bits(random.fold_in(key, 0), size), dtype)
        group = jnp.sum(uniform[:, None] >= levels[None], 1)
        normals = random.normals(random.fold_in(key, 1), size, dtype)
        beside = random.normals(random.fold_in(key, 2), (3, dim), dtype)
        used = (jnp.arange(size) < count) / jnp.maximum(count, 1).astype(dtype)
        used = jnp.where(count > size, jnp.nan, used)
        return Drawn(jax.nn.one_hot(group, groups, dtype=dtype), normals, beside, used)

    return jax.vmap(one)(keys, world.weights[environments], batch.counts)


def _near(
    loss: losses.Loss,
    model: VectorModel,
    params: Params,
    world: MixtureWorld,
    batch: Batch,
    drawn: Drawn,
) -> RiskFunction:
    """The losses near params: their values there, and a linear function of w - w(params).

    The mean of scale l'(scale f + shift) x, which multiplies it, is a Taylor polynomial in
    (scale - 1, shift): to first order, which is all that is drawn, or exact for squared loss.

    Args:
        loss: of a prediction and a label.
        model: of a linear prediction.
        params: at which the batch is drawn.
        world: a mixture.
        batch: environments and counts [B].
        drawn: numbers of the batch.
    """
    require_linear(model)
    here = params
    weights, zero = model.estimate(here), jnp.zeros(())
    intercept = zero if model.intercept is None else model.intercept(here)
    means = world.means_of(batch.environments)
    labels = linalg.product(drawn.groups, world.labels[:, None])[..., 0]  # [B, m]
    noise = world.noise_along(weights)
    length = jnp.sqrt(jnp.sum(noise**2))
    along = noise / jnp.where(length > 0, length, 1)
    centers = linalg.product(means, weights[:, None]) + intercept  # [B, G, 1]
    f = linalg.product(drawn.groups, centers)[..., 0] + length * drawn.numbers
    first, second = loss.derivatives(f, labels)
    # The factors of x: at scale 1, and what its derivatives in scale and shift add to it.
    factors = drawn.used[..., None] * jnp.stack([first, second * f, second], -1)  # [B, m, 3]
    sums = jnp.sum(factors, 1)  # [B, 3]
    of_groups = linalg.product(jnp.swapaxes(factors, 1, 2), drawn.groups)  # [B, 3, G]
    inside = jnp.sum(factors * drawn.numbers[..., None], 1)  # [B, 3]
    beside = linalg.product(_components(factors), drawn.beside)  # [B, 3, p]
    beside = beside - linalg.product(beside, along[:, None]) * along[None, None]
    total = world.from_noise(inside[..., None] * along[None, None] + beside)
    total = total + linalg.product(of_groups, means)  # [B, 3, p]
    vectors = jnp.concatenate([total, sums[..., None]], -1)  # with that of the intercept
    exact = loss == losses.squared

    def risks(params: Params, scale: float | Array = 1.0, shift: float | Array = 0.0) -> Array:
        values = jnp.sum(drawn.used * loss(scale * f + shift, labels), 1)
        now = zero if model.intercept is None else model.intercept(params)
        change = jnp.append(model.estimate(params) - weights, now - intercept)
        own, by_scale, by_shift = jnp.moveaxis(vectors, 1, 0)
        if exact:
            # l' = (f - y) / 2: the sums are of (f - y) x / 2, f x / 2 and x / 2.
            coefficient = scale * (own + (scale - 1) * by_scale + shift * by_shift)
        else:
            coefficient = _first_order(own, own + by_scale, by_shift, scale, shift)
        return values + linalg.product(coefficient, change[:, None])[:, 0]

    return risks


def _components(vectors: Array) -> Array:
    """The components [B, k, k] of vectors [B, m, k] along orthonormal ones, by Gram and Schmidt."""
    units: list[Array] = []
    for place in range(vectors.shape[-1]):
        vector = vectors[..., place]
        rest = vector
        for unit in (*units, *units):  # twice, which leaves rounding only
            rest = rest - unit * jnp.sum(unit * rest, 1, keepdims=True)
        before, after = (jnp.sum(each**2, 1, keepdims=True) for each in (vector, rest))
        new = after > 1e-10 * before
        units.append(jnp.where(new, rest / jnp.sqrt(jnp.where(new, after, 1)), 0))
    return linalg.product(jnp.swapaxes(vectors, 1, 2), jnp.stack(units, -1))


@jax.custom_jvp
def _first_order(
    value: Array,
    by_scale: Array,
    by_shift: Array,
    scale: float | Array,
    shift: float | Array,
) -> Array:
    """A value at scale 1 and shift 0 with its derivatives there; NaN elsewhere."""
    del by_scale, by_shift
    near = (jnp.asarray(scale) == 1) & (jnp.asarray(shift) == 0)
    return jnp.where(near, value, jnp.nan)


@_first_order.defjvp
def _first_order_derivative(
    primals: tuple[Array, ...], tangents: tuple[Array, ...]
) -> tuple[Array, Array]:
    along_scale, along_shift = _slopes(*primals[1:])
    return _first_order(*primals), tangents[0] + along_scale * tangents[3] + along_shift * tangents[
        4
    ]


@jax.custom_jvp
def _slopes(
    by_scale: Array, by_shift: Array, scale: float | Array, shift: float | Array
) -> tuple[Array, Array]:
    del scale, shift
    return by_scale, by_shift


@_slopes.defjvp
def _refuse_derivative(primals: tuple[Array, ...], tangents: tuple[Array, ...]) -> NoReturn:
    del primals, tangents
    raise ValueError(
        "measurement must have losses with second derivatives in the scale of the prediction for "
        "such an objective, got batch_projections; use measurements.quadrature or examples"
    )
