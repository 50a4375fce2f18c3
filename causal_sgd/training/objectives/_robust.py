"""Weights of the environments that follow their losses."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from causal_sgd import checks
from causal_sgd.training.objectives._values import check_weights
from causal_sgd.types import Array, Measured, Objective, Params, State

__all__ = ["group_dro"]


def group_dro(
    *, rate: float | Array, weight: float | Array = 1.0, risk_weight: float | Array = 0.0
) -> Objective:
    """GroupDRO (Sagawa et al. 2020): sum_e q_e R_e with q_e <- q_e exp(rate R_e), normalised.

    The weights q [E] of the environments that occur begin equal and are updated by a step's losses
    before they weigh them. Of a batch with fewer environments only theirs change; the others share
    in the normalisation.

    Args:
        rate: of the weights, at least 0; may be traced.
        weight: of the weighted loss, at least 0; may be traced.
        risk_weight: of the mean loss, at least 0; may be traced.

    Returns:
        An objective for measurements with risks on a batch. Its state is log q [E].

    Raises:
        ValueError: if an argument is negative.
    """
    check_weights(weight, risk_weight)
    checks.number("rate", rate, minimum=0)

    def init(probabilities: Array, params: Params) -> State:
        del params
        present = probabilities > 0
        return jnp.where(present, -jnp.log(jnp.sum(present, dtype=float)), -jnp.inf)

    def gradient(
        step: Array, state: State, examples: Measured, params: Params
    ) -> tuple[Params, Array, State]:
        del step
        environments, shares = examples.batch.environments, examples.shares

        def value(params: Params) -> tuple[Array, State]:
            losses = examples.risks()(params)
            raised = state.at[environments].add(rate * jax.lax.stop_gradient(losses))
            logarithms = jax.nn.log_softmax(raised)
            weights = jnp.exp(logarithms)[environments]
            terms = (risk_weight * shares + weight * weights) * losses
            return jnp.sum(terms), logarithms.astype(state.dtype)

        (height, new), slope = jax.value_and_grad(value, has_aux=True)(params)
        return slope, height, new

    return Objective(init, gradient)
