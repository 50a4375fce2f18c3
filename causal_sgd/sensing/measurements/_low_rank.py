"""The exact law of the batch gradient for estimates U U' with few columns."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from causal_sgd import checks, linalg, random
from causal_sgd.sensing.measurements import _law
from causal_sgd.sensing.models import MatrixModel
from causal_sgd.sensing.worlds import World
from causal_sgd.types import Array, Measurement, Params


def low_rank_law(*, noise: float | Array = 0.0) -> Measurement:
    """The distribution of `gaussian_law` for a factor U [d, k]; nothing d x d is formed.

    The gradient with respect to U is G U, and m G = part + scale W with W ~ GOE(d). Let the columns
    of P be an orthonormal basis of the columns of U = P T, and those of F one of P, U* and V. The
    residuals are F C_e F', so `part` follows from C_e and F' W F. For the other term take Z [d, k]
    with iid N(0, 1) entries and N = P' Z. As W is GOE,

        W U = [Z - P N + P (N + N') / sqrt(2)] T / sqrt(2),
        F' W F = (N + N') / 2 within P, (F' Z) / sqrt(2) between the rest of F and P,
        and a GOE matrix within the rest.

    The normal matrix N serves twice, in the GOE matrix P' W P and in the part to remove from Z;
    both are functions of it alone. A step takes O(d (r + k)^2) operations, d k + O((r + k)^2)
    random numbers and the memory of a few arrays [d, r + k]. The distribution and the batch loss
    are exact for every rank k, also above d, and for a U without full rank.

    Args:
        noise: sigma_y >= 0, the standard deviation of the label noise; may be traced. Nothing is
            drawn for a plain 0.

    Returns:
        A measurement of models with a `factor`.

    Raises:
        ValueError: (when the gradient is traced) if the model has no factor.
    """
    checks.number("noise", noise, minimum=0)

    def of_environments(
        draw: Callable[..., _law.Numbers],
        data: tuple[()],
        model: MatrixModel,
        params: Params,
        world: World,
        environments: Array,
        size: Array,
    ) -> tuple[Params, Array]:
        if model.factor is None:
            raise ValueError(
                "model must have a factor U with estimate U U' for low_rank_law, got a model "
                "without one; gaussian_law serves every model"
            )
        factor, to_params = jax.vjp(model.factor, params)
        frame = _frame_of(factor, world)
        cores = world.spurious_cores[environments]
        rest = frame.directions.shape[1] - factor.shape[1]
        numbers = draw(
            size=factor.size + random.goe_summand_size(rest),
            spurious_rank=cores.shape[1],
            noise=noise,
            dtype=factor.dtype,
        )
        normals = numbers.normals[: factor.size].reshape(factor.shape)  # Z
        # Zero columns of the frame take part in no product, whatever the rank of U is.
        seen = linalg.product(frame.directions.T, normals)  # F' Z, [n, k]
        goe = _frame_goe(numbers.normals[factor.size :], seen)
        part, scale, total = _law.batch_gradient(
            numbers, goe / 2, frame.error, frame.spurious_basis, cores, noise
        )
        cotangent = _cotangent(frame, part, scale, normals, seen, goe)
        number = size.astype(factor.dtype)
        return to_params(cotangent / number)[0], total / number / 4

    return _law.measure_by_law(lambda key, world: (), of_environments, noise)


class _Frame(NamedTuple):
    """Directions that hold the factor and all signals, and these in them."""

    directions: Array  # F [d, n], n = k + r1 + r2; its first k columns are P
    factor: Array  # F' U [n, k]; its first k rows are T
    error: Array  # F' (U U' - A*) F [n, n]
    spurious_basis: Array  # F' V [n, r2]


def _frame_of(factor: Array, world: World) -> _Frame:
    """The frame of a factor [d, k].

    The factor comes first, so that P spans its columns alone; no column depends on later ones.
    """
    columns = jnp.concatenate([factor, world.invariant_basis, world.spurious_basis], 1)
    directions = linalg.orthonormal(columns)
    inside = linalg.product(directions.T, columns)  # [n, k + r1 + r2]
    rank = factor.shape[1]
    in_factor, shared, own = jnp.split(inside, [rank, rank + world.invariant_basis.shape[1]], 1)
    error = linalg.product(in_factor, in_factor.T) - linalg.product(
        shared * world.invariant_spectrum[None, :], shared.T
    )
    return _Frame(directions, in_factor, error, own)


def _cotangent(
    frame: _Frame, part: Array, scale: Array, normals: Array, seen: Array, goe: Array
) -> Array:
    """The matrix m G U = F part F' U + scale W U, as one product with F and one with Z; [d, k].

    Args:
        frame: of U.
        part: of the law, [n, n].
        scale: of W, [].
        normals: Z [d, k].
        seen: F' Z [n, k]; its first k rows are N.
        goe: F' W F [n, n].
    """
    rank = normals.shape[1]
    corner = frame.factor[:rank]  # T
    # W P is Z / sqrt(2) outside the span of P and (N + N') / 2 within, in place of N / sqrt(2).
    within = linalg.product(goe[:rank, :rank] - seen[:rank] * 0.5**0.5, corner)
    coefficients = linalg.product(part, frame.factor).at[:rank].add(scale * within)
    return linalg.product(frame.directions, coefficients) + linalg.product(
        normals, scale * 0.5**0.5 * corner
    )


def _frame_goe(normals: Array, seen: Array) -> Array:
    """F' W F [n, n] from F' Z [n, k]; the block that Z does not determine is drawn."""
    n, k = seen.shape
    within, across = (seen[:k] + seen[:k].T) / 2, seen[k:] * 0.5**0.5
    rest = random.goe(normals, n - k)
    return jnp.block([[within, across.T], [across, rest]])
