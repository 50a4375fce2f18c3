"""The exact law of a fresh batch's losses and gradients, by the action of Wishart matrices.

In the noises eps ~ N(0, I_k) of an environment, z = A (eps, 1), the moments of n examples are
S = A M A' / n with

    M (u, c) = (W u + g (g'u) + sqrt(n) c g, sqrt(n) g'u + n c),

g ~ N(0, I_k) and W a Wishart matrix of n - 1 degrees. Only W on a few vectors is needed: along
orthonormal e_1, e_2, ..., each of which may depend on what was drawn for its predecessors,

    W u = sum_j f_j f_j'u,    f_j = t_j e_j + (I - E_j E_j') n_j,    E_j = (e_1, ..., e_j),

with t_j^2 ~ chi^2 of n - j degrees and n_j ~ N(0, I_k); f_j = 0 without degrees. This is the
triangle of Bartlett (1933) in coordinates that are chosen on the way, as in the bidiagonalisation
of Golub and Kahan (1965). Nothing [k, k] is formed.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from causal_sgd import checks, linalg, random
from causal_sgd.supervised._moments import MomentData
from causal_sgd.supervised.measurements._risks import (
    check_examples,
    held_out,
    require_linear,
    residual_of,
    risk_gradient,
)
from causal_sgd.supervised.models import VectorModel
from causal_sgd.supervised.worlds import LinearWorld
from causal_sgd.types import Array, Batch, Choice, Key, Measurement, Params, RiskFunction, Risks

__all__ = ["batch_directions"]


def batch_directions(*, num_validation: int | Array | None = None) -> Measurement:
    """A fresh batch in every step, by the exact law of its losses and gradients at the parameters.

    A step costs O(p k) for k noises, whatever the size of the batch: two products with the mixing
    for a gradient, four for the penalties of IRMv1 or IGA. `batch_moments` has the same law at
    O(p^2 k), and losses that can be differentiated at will; it is the faster one for small p.

    What is drawn depends on the parameters. Objectives may differentiate the losses once with
    respect to them, and at will with respect to the scale and the shift of the prediction; those of
    the gradients use `types.Measured.hessian_products`.

    Args:
        num_validation: examples of every environment that nothing trains on, for the metric
            `validation_risk`; may be traced; None for none.

    Returns:
        A measurement for linear Gaussian worlds and models that predict linearly.

    Raises:
        ValueError: if the number of examples is not a whole number, at least 1, or (when it runs)
            the world is of another kind.
    """
    check_examples(num_validation=num_validation)

    def init(key: Key, world: LinearWorld) -> MomentData:
        _require_linear_world(world)
        return MomentData(None, held_out(key, world, num_validation))

    def gradient(
        key: Key,
        step: Array,
        data: MomentData,
        model: VectorModel,
        params: Params,
        world: LinearWorld,
        batch: Batch,
    ) -> tuple[Params, Array]:
        del step, data
        require_linear(model)
        law = Law.of(key, world, batch).along(residual_of(model, params))
        return risk_gradient(_near(model, params, law), batch, params)

    def directions(
        key: Key,
        step: Array,
        data: MomentData,
        model: VectorModel,
        params: Params,
        world: LinearWorld,
        batch: Batch,
    ) -> RiskFunction:
        del step, data
        require_linear(model)
        law = Law.of(key, world, batch, directions=2).along(residual_of(model, params))
        return _near(model, params, law.along(_prediction(model, params)))

    def products(
        key: Key,
        step: Array,
        data: MomentData,
        model: VectorModel,
        params: Params,
        world: LinearWorld,
        batch: Batch,
        choose: Choice,
    ) -> tuple[Array, Params, Params]:
        del step, data
        require_linear(model)
        law = Law.of(key, world, batch, directions=2)
        return _products(model, params, law, choose)

    def whole(data: MomentData, model: VectorModel, world: LinearWorld) -> RiskFunction:
        del data
        return _population(model, world.mixing, world.means)

    def single(
        data: MomentData, model: VectorModel, world: LinearWorld, environment: Array
    ) -> RiskFunction:
        del data
        return _population(model, world.mixing[environment][None], world.means[environment][None])

    return Measurement(
        init,
        gradient,
        risks=Risks(
            whole,
            single=single,
            shifted=True,
            fresh=True,
            directions=directions,
            products=products,
        ),
    )


class Law(NamedTuple):
    """The moments of a batch as far as they are drawn, in B environments."""

    mixing: Array  # [B, p + 1, k]
    means: Array  # [B, p + 1]
    counts: Array  # [B] n
    center: Array  # [B, k] g
    candidates: list[Array]  # [B, 6] normals of the chi-square of each direction
    words: Array  # [B, 7 * directions] of the chi-squares
    normals: list[Array]  # [B, k] n_j of each direction
    units: tuple[Array, ...] = ()  # e_j, [B, k] each
    factors: tuple[Array, ...] = ()  # f_j, [B, k] each

    @classmethod
    def of(cls, key: Key, world: LinearWorld, batch: Batch, *, directions: int = 1) -> Law:
        """The law of a batch with all its numbers, of which the first do not depend on the others.

        Args:
            key: of the step.
            world: of the environments.
            batch: environments and counts [B].
            directions: along which W will be drawn.
        """
        environments = batch.environments
        mixing, means = world.mixing[environments], world.means[environments]
        noises, streams = mixing.shape[-1], 1 + 2 * environments.astype(jnp.uint32)
        sizes = [noises, *(random.CHI_SQUARE_NORMALS, noises) * directions]
        _, (center, *numbers) = random.normal_regions(
            key, [], mixing.dtype, own_sizes=sizes, own_streams=streams
        )
        words = random.bits(key, random.CHI_SQUARE_WORDS * directions, streams + 1)
        counts = batch.counts.astype(mixing.dtype)
        return cls(mixing, means, counts, center, numbers[::2], words, numbers[1::2])

    def along(self, vectors: Array) -> Law:
        """Draw W along one more direction.

        Args:
            vectors: in the coordinates of z, [q] or one for each environment [B, q].
        """
        index, width = len(self.units), random.CHI_SQUARE_WORDS
        unit = self._unit(self._to_noise(vectors)[0])
        degrees = self.counts - (1 + index)
        words = self.words[:, index * width : (index + 1) * width]
        squares = random.chi_square(self.candidates[index], words, jnp.maximum(degrees, 0))
        beside = self._beside(self.normals[index], (*self.units, unit))
        factor = jnp.sqrt(squares)[:, None] * unit + beside
        factor = jnp.where((degrees > 0)[:, None], factor, 0)
        return self._replace(units=(*self.units, unit), factors=(*self.factors, factor))

    def applied(self, vectors: Array) -> Array:
        """S v [B, q] for vectors [q] or [B, q] in the span of those that W was drawn along."""
        noise, constant = self._to_noise(vectors)
        size, root = self.counts, jnp.sqrt(self.counts)
        inside = _dot(self.center, noise)
        top = self.center * (inside + root * constant)[:, None]
        for factor in self.factors:
            top = top + factor * _dot(factor, noise)[:, None]
        bottom = root * inside + size * constant
        values = linalg.product(self.mixing, top[..., None])[..., 0]
        values = values + self.means * bottom[:, None]
        whole = jnp.concatenate([values, bottom[:, None]], 1)
        return jnp.where((size > 0)[:, None], whole / jnp.maximum(size, 1)[:, None], 0)

    def _to_noise(self, vectors: Array) -> tuple[Array, Array]:
        """(u, c) with z'v = eps'u + c; [B, k] and [B]."""
        vectors = jnp.broadcast_to(vectors, (self.means.shape[0], self.means.shape[1] + 1))
        inner, last = vectors[:, :-1], vectors[:, -1]
        noise = linalg.product(inner[:, None, :], self.mixing)[:, 0]
        return noise, _dot(self.means, inner) + last

    def _unit(self, noise: Array) -> Array:
        """The direction of noise [B, k] beside the units, or zero if it lies within them."""
        rest = self._beside(noise, self.units)
        before, after = _dot(noise, noise), _dot(rest, rest)
        new = after > 1e-10 * before if self.units else after > 0
        return jnp.where(new[:, None], rest / jnp.sqrt(jnp.where(new, after, 1))[:, None], 0)

    @staticmethod
    def _beside(vectors: Array, units: tuple[Array, ...]) -> Array:
        """What of vectors [B, k] is orthogonal to units; twice, which leaves rounding only."""
        for unit in (*units, *units):
            vectors = vectors - unit * _dot(unit, vectors)[:, None]
        return vectors


def _dot(one: Array, other: Array) -> Array:
    return jnp.sum(one * other, -1)


def _prediction(model: VectorModel, params: Params) -> Array:
    """The derivative of the residual's vector with respect to the scale, (w, 0, b); [q]."""
    vector = residual_of(model, params)
    return jnp.where(jnp.arange(len(vector)) == len(vector) - 2, 0, vector)


def _near(model: VectorModel, params: Params, law: Law) -> RiskFunction:
    """The losses near params: (2 v - u)'S u / 4 with v at other params and u at these.

    It is v'Sv / 4 up to the square of v - u, which is zero at params for every scale and shift.

    Args:
        model: of a linear prediction.
        params: at which the law was drawn.
        law: drawn along the residual and, for scales other than a plain 1, the prediction.
    """
    here = params
    vector = residual_of(model, here)
    applied = law.applied(vector)

    def risks(params: Params, scale: float | Array = 1.0, shift: float | Array = 0.0) -> Array:
        point, image = vector, applied
        if not checks.is_zero(scale - 1):
            by_scale = _prediction(model, here)
            point = point + (scale - 1) * by_scale
            image = image + (scale - 1) * law.applied(by_scale)
        if not checks.is_zero(shift):
            by_shift = (jnp.arange(len(vector)) == len(vector) - 1).astype(vector.dtype)
            point = point + shift * by_shift
            image = image + shift * law.applied(by_shift)
        other = residual_of(model, params, scale, shift)
        return _dot(image, (2 * other - point)[None]) / 4

    return risks


def _products(
    model: VectorModel, params: Params, law: Law, choose: Choice
) -> tuple[Array, Params, Params]:
    """The losses [B], their gradients and sum_b H_b d_b; see `types.Risks.products`.

    With v(params), its derivative J and c = J d, the product is the derivative of
    v'(S c) / 2 + c'(S v) / 2 where the brackets are held fixed.
    """
    point = jax.lax.stop_gradient(params)
    vector = residual_of(model, point)
    law = law.along(vector)
    applied = law.applied(vector)
    near = _near(model, point, law)
    losses, gradients = near(point), jax.jacrev(near)(point)
    directions = choose(losses, gradients)

    def turned(params: Params) -> Array:
        def one(direction: Params) -> Array:
            return jax.jvp(lambda p: residual_of(model, p), (params,), (direction,))[1]

        return jax.vmap(one)(directions)  # [B, q]

    changes = turned(point)
    second = law.along(changes).applied(changes)

    def bracket(params: Params) -> Array:
        vector = residual_of(model, params)
        return jnp.sum(_dot(second, vector[None]) + _dot(applied, turned(params))) / 2

    return losses, gradients, jax.grad(bracket)(point)


def _population(model: VectorModel, mixing: Array, means: Array) -> RiskFunction:
    """The population's losses [B], without moments."""
    require_linear(model)

    def risks(params: Params, scale: float | Array = 1.0, shift: float | Array = 0.0) -> Array:
        vector = residual_of(model, params, scale, shift)
        spread = linalg.product(vector[None, None, :-1], mixing)[:, 0]
        center = linalg.product(means, vector[:-1, None])[:, 0] + vector[-1]
        return (_dot(spread, spread) + center**2) / 4

    return risks


def _require_linear_world(world: object) -> None:
    if not isinstance(world, LinearWorld):
        raise ValueError(
            "world must be linear and Gaussian with batch_directions, got "
            f"{type(world).__name__}; use batch_moments or examples"
        )
