"""The exact law of the batch gradient for estimates U U' with few columns."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from causal_sgd import checks, linalg, random
from causal_sgd.sensing.measurements import _law
from causal_sgd.sensing.measurements._risks import population_risks
from causal_sgd.sensing.models import MatrixModel
from causal_sgd.sensing.worlds import World
from causal_sgd.types import Array, Batch, Key, Measurement, Params, RiskFunction, Risks


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

    def gradient(
        key: Key,
        step: Array,
        data: tuple[()],
        model: MatrixModel,
        params: Params,
        world: World,
        batch: Batch,
    ) -> tuple[Params, Array]:
        if model.factor is None:
            raise ValueError(
                "model must have a factor U with estimate U U' for low_rank_law, got a model "
                "without one; gaussian_law serves every model"
            )
        factor, to_params = jax.vjp(model.factor, params)
        k = factor.shape[1]
        columns = jnp.concatenate([factor, world.invariant_basis, world.spurious_basis], 1)
        frame = linalg.orthonormal(columns)  # F; its first k columns are P
        inside = linalg.product(frame.T, columns)  # [n, k + r1 + r2]
        in_factor, shared, own = jnp.split(inside, [k, k + world.invariant_basis.shape[1]], 1)
        error = linalg.product(in_factor, in_factor.T) - linalg.product(
            shared * world.invariant_spectrum[None, :], shared.T
        )

        cores = world.spurious_cores[batch.environments]
        rest = frame.shape[1] - k
        numbers = _law.draw_numbers(
            key,
            factor.size + random.goe_summand_size(rest),
            environments=cores.shape[0],
            spurious_rank=cores.shape[1],
            noise=noise,
            dtype=factor.dtype,
        )
        normals = numbers.normals[: factor.size].reshape(factor.shape)
        # Zero columns of the frame take part in no product, whatever the rank of U is.
        seen = linalg.product(frame.T, normals)  # F' Z, [n, k]
        goe = _frame_goe(numbers.normals[factor.size :], seen)
        part, scale, total = _law.batch_gradient(
            numbers, goe / 2, error, own, cores, batch.counts, noise
        )

        # m G U = F part F' U + scale W U, as one product with the frame and one with the normals
        corner = in_factor[:k]  # T
        within = linalg.product(goe[:k, :k] - seen[:k] * 0.5**0.5, corner)
        coefficients = linalg.product(part, in_factor).at[:k].add(scale * within)
        cotangent = linalg.product(frame, coefficients) + linalg.product(
            normals, scale * 0.5**0.5 * corner
        )
        size = jnp.sum(batch.counts)
        return to_params(cotangent / size)[0], total / (4 * size)

    def whole(data: tuple[()], model: MatrixModel, world: World) -> RiskFunction:
        return population_risks(model, world, world.spurious_cores, noise)

    return Measurement(lambda key, world: (), gradient, risks=Risks(whole))


def _frame_goe(normals: Array, seen: Array) -> Array:
    """F' W F [n, n] from F' Z [n, k]; the block that Z does not determine is drawn."""
    n, k = seen.shape
    within, across = (seen[:k] + seen[:k].T) / 2, seen[k:] * 0.5**0.5
    rest = random.goe(normals, n - k)
    return jnp.block([[within, across.T], [across, rest]])
