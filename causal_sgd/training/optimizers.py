"""Optax transformations that optax lacks: sharpness-aware steps, restarts, preconditioned factors,
steps of gates, noise of a run's own, averaged iterates.

Everything else is optax, unwrapped: `optax.clip_by_global_norm`, `optax.MultiSteps`, schedules,
`optax.contrib`. All numbers may be traced.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
import optax.contrib

from causal_sgd import _room, checks, linalg, random
from causal_sgd.training._gates import gates, relative_cap
from causal_sgd.types import Array, Key, Params, PyTree

_room(__name__)
__all__ = [
    "averaged",
    "gates",
    "langevin",
    "moving_average",
    "relative_cap",
    "restarted",
    "sam",
    "scaled",
    "tail_average",
]


class AverageState(NamedTuple):
    """State of the averages."""

    updates: Array  # [] int32, updates so far
    average: Params


def sam(
    optimizer: optax.GradientTransformation, *, radius: float | Array
) -> optax.GradientTransformationExtraArgs:
    """Sharpness-aware minimisation (Foret et al. 2021) with both gradients by the same batch.

    The gradient is taken at params + radius * gradient / |gradient|, and the update is made from
    params: two gradients per step. Clipping and accumulation belong inside: sam(chain(clip, ...)).

    Args:
        optimizer: of the update.
        radius: rho >= 0, in the units of the parameters; 0 is the optimizer itself.

    Returns:
        `optax.contrib.sam` as a transformation that needs `grad_fn`. All algorithms pass it, and
        refuse measurements by an exact law: what these draw depends on the parameters, so their
        second gradient would not be that of the same examples.
    """
    checks.transformation("optimizer", optimizer)
    checks.number("radius", radius, minimum=0)
    # optax.contrib.normalize divides zero by zero where the gradient vanishes.
    ascent = optax.chain(optax.normalize_by_update_norm(radius, eps=1e-12), optax.scale(-1.0))
    step = optax.with_extra_args_support(optimizer).update

    def inner(**drawn: Key) -> optax.GradientTransformationExtraArgs:
        keyed = optax.GradientTransformation(optimizer.init, functools.partial(step, **drawn))
        return optax.contrib.sam(keyed, ascent, opaque_mode=True)

    def update(
        updates: optax.Updates,
        state: optax.OptState,
        params: optax.Params | None = None,
        *,
        grad_fn: Callable[[Params, Array], Params] | None = None,
        key: Key | None = None,
        **others: object,
    ) -> tuple[optax.Updates, optax.OptState]:
        del others  # optax's version refuses them
        drawn = {} if key is None else {"key": key}
        return inner(**drawn).update(updates, state, params, grad_fn=grad_fn)

    return optax.GradientTransformationExtraArgs(inner().init, update)


class RestartState(NamedTuple):
    """State of `restarted`."""

    updates: Array  # [] int32, updates so far
    inner: optax.OptState


def restarted(
    optimizer: optax.GradientTransformation, *, at: int | Array
) -> optax.GradientTransformationExtraArgs:
    """Forget the optimizer's state before one update, as sources do where a weight jumps.

    Args:
        optimizer: any optax transformation.
        at: updates before the restart, at least 0; may be traced.

    Returns:
        A transformation that needs the parameters.

    Raises:
        ValueError: if an argument is out of range.
    """
    checks.transformation("optimizer", optimizer)
    checks.number("at", at, minimum=0)
    inner = optax.with_extra_args_support(optimizer)

    def init(params: optax.Params) -> RestartState:
        return RestartState(jnp.zeros((), jnp.int32), optimizer.init(params))

    def update(
        updates: optax.Updates,
        state: PyTree,
        params: optax.Params | None = None,
        **extra: object,
    ) -> tuple[optax.Updates, RestartState]:
        if params is None:
            raise ValueError("params must be passed to the update of a restarted optimizer")
        fresh = optimizer.init(params)
        current = jax.tree.map(
            lambda new, old: jnp.where(state.updates == at, new, old), fresh, state.inner
        )
        updates, current = inner.update(updates, current, params, **extra)
        return updates, RestartState(jnp.asarray(optax.safe_increment(state.updates)), current)

    return optax.GradientTransformationExtraArgs(init, update)


def scaled(*, damping: float | Array) -> optax.GradientTransformation:
    """Precondition the gradient of a factor by the inverse Gram matrix of its partner.

    For U U' the gradient [d, k] becomes gradient (U'U + lambda I)^-1. For U V' that of U is
    multiplied by (V'V + lambda I)^-1 and that of V by (U'U + lambda I)^-1: ScaledGD (Tong, Ma and
    Chi 2021) and, with lambda > 0, ScaledGD(lambda) (Xu, Shen, Chi and Ma 2023). A step size goes
    behind it: `optax.chain(scaled(damping=0.1), optax.sgd(0.1))`. Near a solution of the same rank
    the rate of convergence then does not depend on the condition number of the signal, and near
    zero a direction of eigenvalue s grows by 1 + (learning_rate / lambda) s per step.

    Args:
        damping: lambda >= 0, in units of the signal; may be traced. 0 needs k columns of full rank:
            otherwise the Gram matrix is singular, and the run diverges.

    Returns:
        A transformation for the parameters of `models.factored` and `models.order_parameters` (U
        itself), `models.asymmetric` (two factors of one shape) and `models.diagonal` (a vector, the
        diagonal of U). Parameters of another model that happen to be one array [n, k] are treated
        as U. It raises a ValueError for parameters of other shapes, and if it receives none.
    """
    checks.number("damping", damping, minimum=0)

    def precondition(gradient: Array, partner: Array) -> Array:
        if partner.ndim == 1:
            return gradient / (partner**2 + jnp.asarray(damping, partner.dtype))
        gram = linalg.product(partner.T, partner)
        identity = jnp.eye(gram.shape[0], dtype=gram.dtype)
        gram = gram + jnp.asarray(damping, gram.dtype) * identity
        return linalg.solve_positive(gram, gradient.T).T

    def update(
        updates: optax.Updates, state: optax.OptState, params: optax.Params | None = None
    ) -> tuple[optax.Updates, optax.OptState]:
        if params is None:
            raise ValueError("params must be passed to the update of a scaled optimizer")
        factors = jax.tree.leaves(params)
        shapes = [jnp.shape(factor) for factor in factors]
        one = len(shapes) == 1 and len(shapes[0]) in (1, 2)
        if not one and not (len(shapes) == 2 and len(shapes[0]) == 2 and shapes[0] == shapes[1]):
            raise ValueError(
                "params must be one factor [d, k], a diagonal [d] or two factors of one shape "
                f"[d, k] for a scaled optimizer, got shapes {shapes}"
            )
        gradients, structure = jax.tree.flatten(updates)
        pairs = zip(gradients, reversed(factors), strict=True)
        return jax.tree.unflatten(structure, [precondition(*pair) for pair in pairs]), state

    return optax.GradientTransformation(optax.identity().init, update)


class LangevinState(NamedTuple):
    """State of `langevin`."""

    updates: Array  # [] int32, updates so far


def langevin(
    learning_rate: optax.ScalarOrSchedule, *, temperature: float | Array
) -> optax.GradientTransformationExtraArgs:
    """SGD with Gaussian noise (SGLD, Welling and Teh 2011), drawn anew in every run.

    params <- params - rate gradient + sqrt(2 rate T) normal. With the exact gradient of a loss and
    a small rate, exp(-loss / T) is stationary: the noise is the same in all directions, wherever
    the parameters are. On a quadratic of curvature h the stationary variance is T / (h (1 - rate h
    / 2)). A normal number of size sigma that is added to each gradient (`optax.noisy_sgd`) is the
    temperature rate sigma^2 / 2.

    The normal numbers belong to the run and the update: all algorithms pass a `key`, from the
    stream `optimizer` of the run's key, to the transformations that accept one. Clipping belongs
    before it, an average behind it: `optax.chain(clip, langevin(...), moving_average(...))`. Of
    `optax.MultiSteps` take `GradientTransformationExtraArgs(*steps.gradient_transformation())`, as
    a plain `GradientTransformation` drops the key.

    Args:
        learning_rate: a number or a schedule of optax.
        temperature: T >= 0, in units of the loss; may be traced.

    Returns:
        A transformation that needs `key`; it raises a ValueError without one.

    Raises:
        ValueError: if the temperature is negative.
    """
    if callable(learning_rate):
        checks.function("learning_rate", learning_rate, 1, "a number or a schedule of optax")
    else:
        checks.number("learning_rate", learning_rate, minimum=0)
    checks.number("temperature", temperature, minimum=0)

    def init(params: optax.Params) -> LangevinState:
        del params
        return LangevinState(jnp.zeros((), jnp.int32))

    def update(
        updates: optax.Updates,
        state: PyTree,
        params: optax.Params | None = None,
        *,
        key: Key | None = None,
        **others: object,
    ) -> tuple[optax.Updates, LangevinState]:
        del params, others
        if key is None:
            raise ValueError("key must be passed to the update of a langevin optimizer")
        rate = learning_rate(state.updates) if callable(learning_rate) else learning_rate
        gradients, structure = jax.tree.flatten(updates)

        def moved(index: int, gradient: Array) -> Array:
            step = jnp.asarray(rate, gradient.dtype)
            scale = jnp.sqrt(2 * step * jnp.asarray(temperature, gradient.dtype))
            noise = random.normals(random.fold_in(key, index), gradient.shape, gradient.dtype)
            return scale * noise - step * gradient

        moves = [moved(*pair) for pair in enumerate(gradients)]
        count = jnp.asarray(optax.safe_increment(state.updates))
        return jax.tree.unflatten(structure, moves), LangevinState(count)

    return optax.GradientTransformationExtraArgs(init, update)


def moving_average(*, decay: float | Array) -> optax.GradientTransformation:
    """An exponential moving average of the parameters, for `averaged`; it goes last in a chain.

    Updates pass unchanged. The weights of the iterates sum to one: the average is corrected for its
    start at zero.

    Args:
        decay: of the weights, in [0, 1); about the last 1 / (1 - decay) updates count.
    """
    checks.number("decay", decay, minimum=0, maximum=1)
    concrete = checks.concrete(decay)
    if concrete is not None and concrete == 1:
        raise ValueError("decay must be below 1: at 1 no iterate would have a weight")

    def weight(count: Array) -> Array:
        # Weight of the newest iterate; with it the weights of all iterates sum to one.
        rate = jnp.asarray(decay, jnp.result_type(float))
        return (1 - decay) / (1 - rate ** count.astype(rate.dtype))

    return _average(weight)


def tail_average(*, start: int | Array) -> optax.GradientTransformation:
    """The mean of the parameters after `start` updates, for `averaged`; it goes last in a chain.

    Updates pass unchanged. This is Polyak-Ruppert averaging, or stochastic weight averaging
    (Izmailov et al. 2018) of every iterate. Up to `start` the average is the newest iterate.

    Args:
        start: updates before the first that counts, at least 0.
    """
    checks.number("start", start, minimum=0)

    def weight(count: Array) -> Array:
        first = jnp.asarray(start)
        if jnp.issubdtype(first.dtype, jnp.integer):
            # Exact also for counts that a float would round.
            since = count - first.astype(count.dtype)
        else:
            since = count.astype(first.dtype) - first
        return 1 / jnp.maximum(since, 1).astype(jnp.result_type(float))

    return _average(weight)


def averaged(state: optax.OptState, params: Params) -> Params:
    """Return the average of `moving_average` or `tail_average`, as the `evaluate` of an algorithm.

    Args:
        state: of an optimizer that contains one of them.
        params: the current parameters; unused.

    Raises:
        ValueError: if there is no average, or more than one.
    """
    del params
    found = optax.tree.get_all_with_path(state, "AverageState")
    if len(found) != 1:
        raise ValueError(
            "state must hold one average, of moving_average or tail_average last in the "
            f"optimizer's chain, got {len(found)}"
        )
    ((_, average_state),) = found
    return average_state.average


def _average(weight: Callable[[Array], Array]) -> optax.GradientTransformation:
    """The recursion average += weight(count) (params - average); count is 1 at the first update."""

    def init(params: Params) -> AverageState:
        return AverageState(jnp.zeros((), jnp.int32), params)

    def update(
        updates: Params, state: PyTree, params: Params = None
    ) -> tuple[Params, AverageState]:
        count = jnp.asarray(optax.safe_increment(state.updates))
        share = weight(count)
        newest = optax.apply_updates(params, updates)
        average = jax.tree.map(
            lambda old, new: (old + share * (new - old)).astype(old.dtype), state.average, newest
        )
        return updates, AverageState(count, average)

    return optax.GradientTransformation(init, update)
