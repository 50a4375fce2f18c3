"""Local steps and averaging: in every round, some environments train by themselves, and a server averages what they find.

The sampler says who takes part in a round and with how many examples a local step: `hetero` sends one environment,
`stratified` all of them, `mixed` some. In the linear regime of a spurious direction, u is multiplied by (1 + eta s_e)^K in
environment e, so that a round multiplies it by the *mean* of these over who takes part, and log|mean_e (1 + eta s_e)^K|
decides where HeteroSGD has mean_e log|1 + eta s_e|^K.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from causal_sgd import checks, random
from causal_sgd.training.algorithms import _parts
from causal_sgd.types import (
    Algorithm,
    Array,
    Batch,
    Evolution,
    Key,
    Measurement,
    Model,
    Params,
    Sampler,
    Snapshot,
    State,
    World,
    WorldFactory,
)

__all__ = ["FederatedState", "fedavg", "fedprox", "scaffold"]

WEIGHTS = ("examples", "probabilities")


class FederatedState(NamedTuple):
    """State of the federated methods."""

    step: Array  # [] int32, rounds done
    world: World
    data: Any  # the measurement's
    params: Params
    server: optax.OptState
    controls: Any  # of each environment, params with a leading axis [E]; () where there are none
    sampler: State
    loss: (
        Array  # [] mean batch loss of the first local steps of the last round; NaN before the first
    )


class Client(NamedTuple):
    """What one environment sends back."""

    change: Params  # where it started minus where it ended
    gradient: Params  # its mean gradient over the local steps, without what was added to it
    loss: Array  # [] of its first batch


def fedavg(
    *,
    world: WorldFactory,
    sampler: Sampler,
    measurement: Measurement,
    model: Model,
    optimizer: optax.GradientTransformation,
    local_steps: int | Array = 1,
    server: optax.GradientTransformation | None = None,
    weights: str = "examples",
    evaluate: Callable[[optax.OptState, Params], Params] | None = None,
    evolve: Evolution | None = None,
) -> Algorithm:
    """Federated averaging (McMahan et al. 2017): K local steps in each environment that takes part, then the mean.

    With K = 1, plain SGD and all environments it is the stratified step; with one environment a round (`hetero`) it is
    HeteroSGD that stays K steps where it is.

    Args:
        world: how nature is drawn.
        sampler: which environments take part in a round, and with how many examples in a local step. Environments
            without examples stay away.
        measurement: how examples become a gradient.
        model: parameters and their estimate.
        optimizer: of the local steps, any optax transformation; it starts anew in every round.
        local_steps: K >= 1; may be traced.
        server: the optimizer of the server, whose gradient is the mean of (start - end) over who takes part (Reddi et
            al. 2021); None for `optax.sgd(1.0)`, which is the mean of the ends.
        weights: of the mean. "examples": proportional to the examples, which is right where environments are drawn with
            their probabilities (`hetero`, `mixed`, `pooled`); "probabilities": those of the environments that take part,
            which is right where all do (`stratified`).
        evaluate: (server's state, params) -> the parameters that metrics see; None for the parameters themselves.
        evolve: how nature changes before every round; None for a world that stays as it is.

    Returns:
        An algorithm for `run`; its steps are rounds.

    Raises:
        ValueError: if an argument is out of range; as for `sgd`.
        AssertionError: as for `sgd`.
    """
    made_of = _parts.Parts.checked(world, sampler, measurement, model, evolve)
    return _federated(
        made_of, optimizer, server, local_steps, weights, evaluate, proximal=0.0, controlled=False
    )


def fedprox(
    *,
    world: WorldFactory,
    sampler: Sampler,
    measurement: Measurement,
    model: Model,
    optimizer: optax.GradientTransformation,
    proximal: float | Array,
    local_steps: int | Array = 1,
    server: optax.GradientTransformation | None = None,
    weights: str = "examples",
    evaluate: Callable[[optax.OptState, Params], Params] | None = None,
    evolve: Evolution | None = None,
) -> Algorithm:
    """FedProx (Li et al. 2020): `fedavg` whose local losses have the proximal term (strength / 2) |params - start|^2.

    Args:
        world: see `fedavg`, as all that is not said here.
        sampler: which environments take part in a round.
        measurement: how examples become a gradient.
        model: parameters and their estimate.
        optimizer: of the local steps.
        proximal: strength of the proximal term, not negative, in units of the signal; 0 is `fedavg`; may be traced. The
            reported loss is without it.
        local_steps: K >= 1; may be traced.
        server: the optimizer of the server.
        weights: of the mean.
        evaluate: (server's state, params) -> the parameters that metrics see.
        evolve: how nature changes before every round.

    Returns:
        An algorithm for `run`; its steps are rounds.

    Raises:
        ValueError: if an argument is out of range; as for `sgd`.
        AssertionError: as for `sgd`.
    """
    checks.number("proximal", proximal, minimum=0)
    made_of = _parts.Parts.checked(world, sampler, measurement, model, evolve)
    return _federated(
        made_of,
        optimizer,
        server,
        local_steps,
        weights,
        evaluate,
        proximal=proximal,
        controlled=False,
    )


def scaffold(
    *,
    world: WorldFactory,
    sampler: Sampler,
    measurement: Measurement,
    model: Model,
    optimizer: optax.GradientTransformation,
    local_steps: int | Array = 1,
    server: optax.GradientTransformation | None = None,
    weights: str = "examples",
    evaluate: Callable[[optax.OptState, Params], Params] | None = None,
    evolve: Evolution | None = None,
) -> Algorithm:
    """SCAFFOLD (Karimireddy et al. 2020): `fedavg` with control variates against the drift of the environments.

    A local step follows g_e - c_e + c, where c_e is the environment's mean gradient over the local steps of the last round
    that it took part in (option II of the paper, which for plain SGD is (start - end) / (K learning_rate) - c + c_e), zero
    before the first, and c is their mean by the environments' probabilities. With one environment a round and K = 1 this is
    SAGA (Defazio et al. 2014) over the environments.

    Args:
        world: see `fedavg`, as all that is not said here.
        sampler: which environments take part in a round.
        measurement: how examples become a gradient.
        model: parameters and their estimate.
        optimizer: of the local steps.
        local_steps: K >= 1; may be traced.
        server: the optimizer of the server.
        weights: of the mean.
        evaluate: (server's state, params) -> the parameters that metrics see.
        evolve: how nature changes before every round.

    Returns:
        An algorithm for `run`; its steps are rounds.

    Raises:
        ValueError: if an argument is out of range; as for `sgd`.
        AssertionError: as for `sgd`.
    """
    made_of = _parts.Parts.checked(world, sampler, measurement, model, evolve)
    return _federated(
        made_of, optimizer, server, local_steps, weights, evaluate, proximal=0.0, controlled=True
    )


def _federated(
    made_of: _parts.Parts,
    optimizer: optax.GradientTransformation,
    server: optax.GradientTransformation | None,
    local_steps: int | Array,
    weights: str,
    evaluate: Callable[[optax.OptState, Params], Params] | None,
    *,
    proximal: float | Array,
    controlled: bool,
) -> Algorithm:
    checks.transformation("optimizer", optimizer)
    if server is not None:
        checks.transformation("server", server)
    _parts.check_evaluate(evaluate)
    checks.whole("local_steps", local_steps, maximum=2**30)
    checks.choice("weights", weights, WEIGHTS)
    serve = optax.sgd(1.0) if server is None else server
    strength = checks.concrete(proximal)
    prox = strength is None or bool(strength.any())

    def init(key: Key) -> FederatedState:
        start = _parts.begin(key, made_of)
        size = start.world.probabilities.shape[0]
        none = jax.tree.map(lambda leaf: jnp.zeros((size, *leaf.shape), leaf.dtype), start.params)
        return FederatedState(
            step=jnp.zeros((), jnp.int32),
            world=start.world,
            data=start.data,
            params=start.params,
            server=serve.init(start.params),
            controls=none if controlled else (),
            sampler=start.sampler,
            loss=start.loss,
        )

    def step(key: Key, state: FederatedState) -> FederatedState:
        world, batch, sampler_state = _parts.meet(
            key, made_of, state.step, state.world, state.sampler
        )
        num_steps = jnp.asarray(local_steps, jnp.int32)
        measurements_key = _parts.stream(key, "measurements")
        alone = batch.environments.shape[0] == 1

        def train(environment: Array, count: Array, correction: Params | None) -> Client:
            """The local steps of one environment, which adds a correction to every gradient."""
            # Who stays away has no say in the mean, but must not divide by its number of examples.
            own = Batch(environment[None], jnp.maximum(count, 1)[None])

            def local(index: Array, carry: tuple[Params, optax.OptState, Params, Array]) -> Any:
                params, optimizer_state, total, first = carry
                place = state.step * num_steps + index
                gradient_key = random.fold_in(measurements_key, place)
                if not alone:
                    gradient_key = random.fold_in(gradient_key, environment)

                def measure(params: Params) -> tuple[Params, Array]:
                    gradient, loss = made_of.measurement.gradient(
                        gradient_key, place, state.data, made_of.model, params, world, own
                    )
                    pulls = [] if correction is None else [correction]
                    if prox:
                        pulls.append(
                            jax.tree.map(
                                lambda new, old: proximal * (new - old), params, state.params
                            )
                        )
                    for pull in pulls:
                        gradient = _parts.keep_types(
                            jax.tree.map(jnp.add, gradient, pull), gradient
                        )
                    return gradient, loss

                params, optimizer_state, gradient, loss = _parts.descend(
                    optimizer, measure, params, optimizer_state
                )
                total = jax.tree.map(jnp.add, total, gradient)
                return (
                    params,
                    optimizer_state,
                    total,
                    jnp.where(index == 0, loss.astype(first.dtype), first),
                )

            zero = jax.tree.map(jnp.zeros_like, state.params)
            carry = state.params, optimizer.init(state.params), zero, state.loss
            params, _, total, loss = jax.lax.fori_loop(0, num_steps, local, carry)
            change = jax.tree.map(jnp.subtract, state.params, params)
            mean = jax.tree.map(lambda leaf: leaf / num_steps, total)
            return Client(
                change,
                mean if correction is None else jax.tree.map(jnp.subtract, mean, correction),
                loss,
            )

        corrections = None
        if controlled:
            shared = _mean(world.probabilities, state.controls)
            corrections = jax.tree.map(
                lambda mean, own: mean[None] - own[batch.environments], shared, state.controls
            )
        clients = _each(train, (*batch, corrections), alone)
        present = batch.counts > 0
        share = (
            batch.counts
            if weights == "examples"
            else jnp.where(present, world.probabilities[batch.environments], 0)
        )
        share = share.astype(state.loss.dtype) / jnp.sum(share)
        change = _mean(share, clients.change)
        updates, server_state = optax.with_extra_args_support(serve).update(
            change, state.server, state.params
        )
        controls = state.controls
        if controlled:
            controls = jax.tree.map(
                lambda old, new: old.at[batch.environments].set(
                    jnp.where(_along_first(present, new), new, old[batch.environments])
                ),
                controls,
                clients.gradient,
            )
        return FederatedState(
            step=state.step + 1,
            world=world,
            data=state.data,
            params=_parts.keep_types(optax.apply_updates(state.params, updates), state.params),
            server=server_state,
            controls=controls,
            sampler=sampler_state,
            loss=_mean(share, clients.loss).astype(state.loss.dtype),
        )

    def snapshot(state: FederatedState) -> Snapshot:
        params = state.params if evaluate is None else evaluate(state.server, state.params)
        return _parts.look(made_of.model, params, state.step, state.world, state.loss)

    return Algorithm(init, step, snapshot, lambda state: state.loss)


def _each(train: Callable[..., Client], arguments: Any, alone: bool) -> Client:
    """The clients of a round, each leaf with an axis [B] in front."""
    if not alone:
        return jax.vmap(train)(*arguments)
    first = jax.tree.map(lambda leaf: leaf[0], arguments)
    return jax.tree.map(lambda leaf: leaf[None], train(*first))


def _mean(weights: Array, tree: Any) -> Any:
    """The mean over the leading axis, by weights [B]; 0 times infinity, of who stays away, is 0."""

    def mean(leaf: Array) -> Array:
        spread = _along_first(weights, leaf)
        return jnp.sum(jnp.where(spread > 0, spread * leaf, 0), 0)

    return jax.tree.map(mean, tree)


def _along_first(vector: Array, array: Array) -> Array:
    return vector.reshape(vector.shape + (1,) * (array.ndim - 1))
