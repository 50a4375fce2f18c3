"""Local steps and averaging: in a round, some environments train alone and a server averages them.

The sampler says which environments take part in a round and with how many examples per local step:
`hetero` sends one environment, `stratified` all of them, `mixed` some. In the linear regime of a
spurious direction, u is multiplied by (1 + eta s_e)^K in environment e, so a round multiplies it by
the *mean* of these factors over the participants. Therefore log|mean_e (1 + eta s_e)^K| decides
where HeteroSGD has mean_e log|1 + eta s_e|^K.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Required, TypedDict, Unpack

import jax
import jax.numpy as jnp
import optax

from causal_sgd import checks, random
from causal_sgd.training.algorithms import _parts, _updates
from causal_sgd.training.algorithms._by_hand import by_hand
from causal_sgd.training.algorithms._examples import Examples, inner_product
from causal_sgd.types import (
    Algorithm,
    Array,
    Batch,
    Evolution,
    Key,
    Measurement,
    Model,
    Params,
    PyTree,
    Sampler,
    Snapshot,
    State,
    World,
    WorldFactory,
)

__all__ = ["FederatedOptions", "FederatedState", "fedavg", "fedprox", "scaffold"]

WEIGHTS = ("examples", "probabilities")
MOST_LOCAL_STEPS = 2**30  # counted in int32


class FederatedOptions(TypedDict, total=False):
    """The options of every federated method.

    Attributes:
        world: how the world is drawn.
        sampler: which environments take part in a round, and with how many examples per local step;
            environments without examples do not take part.
        measurement: how examples become a gradient.
        model: parameters and their estimate.
        optimizer: of the local steps, any optax transformation; its state starts anew in every
            round.
        local_steps: K >= 1; may be traced; 1 by default.
        server: the server's optimizer, whose gradient is the mean of (start - end) over the
            participants (Reddi et al. 2021), any optax transformation that needs no loss; None for
            `optax.sgd(1.0)`, which is the mean of the ends.
        weights: of the mean. "examples" (the default): proportional to the examples, which is right
            where environments are drawn with their probabilities (`hetero`, `mixed`, `pooled`);
            "probabilities": proportional to the probabilities of the participants, which is right
            where all environments take part (`stratified`).
        evaluate: (server's state, params) -> the parameters that metrics see; None for the
            parameters themselves.
        evolve: how the world changes before every round; None for a constant world.
    """

    world: Required[WorldFactory]
    sampler: Required[Sampler]
    measurement: Required[Measurement]
    model: Required[Model]
    optimizer: Required[optax.GradientTransformation]
    local_steps: int | Array
    server: optax.GradientTransformation | None
    weights: str
    evaluate: Callable[[optax.OptState, Params], Params] | None
    evolve: Evolution | None


class FederatedState(NamedTuple):
    """State of the federated methods."""

    step: Array  # [] int32, rounds done
    world: World
    data: PyTree  # the measurement's
    params: Params
    server: optax.OptState
    controls: PyTree  # of each environment, params with a leading axis [E]; () where there are none
    sampler: State
    loss: Array  # [] mean loss of the first local batches of the last round; NaN before the first


def fedavg(**options: Unpack[FederatedOptions]) -> Algorithm:
    """Federated averaging (McMahan et al. 2017): K local steps in each participant, then the mean.

    With K = 1, plain SGD and all environments it is the stratified step; with one environment per
    round (`hetero`) it is HeteroSGD that takes K steps in the same environment.

    Args:
        **options: see `FederatedOptions`.

    Returns:
        An algorithm for `run`; its steps are rounds.

    Raises:
        ValueError: if an argument is out of range; as for `sgd`.
        AssertionError: as for `sgd`.
    """
    return _federated(_settings(**options))


def fedprox(*, proximal: float | Array, **options: Unpack[FederatedOptions]) -> Algorithm:
    """FedProx (Li et al. 2020): `fedavg` with the loss term (proximal / 2) |params - start|^2.

    Args:
        proximal: strength of the proximal term, at least 0, in units of the signal; 0 is `fedavg`;
            may be traced. The reported loss excludes the term.
        **options: see `FederatedOptions`.

    Returns:
        An algorithm for `run`; its steps are rounds.

    Raises:
        ValueError: if an argument is out of range; as for `sgd`.
        AssertionError: as for `sgd`.
    """
    checks.number("proximal", proximal, minimum=0)
    return _federated(_settings(**options)._replace(proximal=proximal))


def scaffold(**options: Unpack[FederatedOptions]) -> Algorithm:
    """SCAFFOLD (Karimireddy et al. 2020): `fedavg` with control variates against client drift.

    A local step follows g_e - c_e + c. The control c_e is the environment's mean gradient over its
    last K local steps (option II of the paper, which for plain SGD is
    (start - end) / (K learning_rate) - c + c_e), zero before the first; c is the mean of the
    controls by the environments' probabilities. With one environment per round and K = 1 this is
    SAGA (Defazio et al. 2014) over the environments.

    Args:
        **options: see `FederatedOptions`.

    Returns:
        An algorithm for `run`; its steps are rounds.

    Raises:
        ValueError: if an argument is out of range; as for `sgd`.
        AssertionError: as for `sgd`.
    """
    return _federated(_settings(**options)._replace(controlled=True))


class _Settings(NamedTuple):
    """A federated method."""

    parts: _parts.Parts
    optimizer: optax.GradientTransformation
    server: optax.GradientTransformation
    local_steps: int | Array
    weights: str
    evaluate: Callable[[optax.OptState, Params], Params] | None
    proximal: float | Array = 0.0
    controlled: bool = False


class _Client(NamedTuple):
    """What one environment sends back; under `vmap` each leaf has an axis [B] in front."""

    change: Params  # start minus end
    gradient: Params  # mean gradient over the local steps, without the correction
    loss: Array  # [] of its first batch


def _settings(
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
) -> _Settings:
    """The options with their defaults, checked."""
    parts = _parts.Parts.checked(world, sampler, measurement, model, evolve)
    if _parts.reduced(model) is not None:
        raise ValueError(
            "model must not be reduced (order_parameters) for fedavg, fedprox and scaffold: the "
            "ends of several clients span more directions than one state holds; use sgd, or "
            "models.factored with low_rank_law"
        )
    checks.transformation("optimizer", optimizer)
    if server is not None:
        checks.transformation("server", server)
    _parts.check_evaluate(evaluate)
    checks.whole("local_steps", local_steps, maximum=MOST_LOCAL_STEPS)
    checks.choice("weights", weights, WEIGHTS)
    server = optax.sgd(1.0) if server is None else server
    return _Settings(parts, optimizer, server, local_steps, weights, evaluate)


def _federated(settings: _Settings) -> Algorithm:
    parts, server, controlled = settings.parts, settings.server, settings.controlled

    def init(key: Key) -> FederatedState:
        start = _parts.init_run(key, parts)
        size = start.world.probabilities.shape[0]
        none = jax.tree.map(lambda leaf: jnp.zeros((size, *leaf.shape), leaf.dtype), start.params)
        return FederatedState(
            step=jnp.zeros((), jnp.int32),
            world=start.world,
            data=start.data,
            params=start.params,
            server=_updates.init_state("server", server, start.params),
            controls=none if controlled else (),
            sampler=start.sampler,
            loss=start.loss,
        )

    def step(key: Key, state: FederatedState) -> FederatedState:
        world, batch, sampler_state = _parts.draw_batch(
            key, parts, state.step, state.world, state.sampler
        )
        clients = _train_clients(settings, key, state, world, batch)
        share = _shares(settings.weights, batch, world).astype(state.loss.dtype)
        share = share / jnp.sum(share)
        # No environment, and so no client, has the number E.
        own = _updates.optimizer_key(key, state.step, len(state.world.probabilities))
        params, server_state = _updates.transform(
            "server", server, _mean(share, clients.change), state.params, state.server, key=own
        )
        controls = _new_controls(state, batch, clients) if controlled else state.controls
        return FederatedState(
            step=state.step + 1,
            world=world,
            data=state.data,
            params=params,
            server=server_state,
            controls=controls,
            sampler=sampler_state,
            loss=_mean(share, clients.loss).astype(state.loss.dtype),
        )

    def snapshot(key: Key, state: FederatedState) -> Snapshot:
        evaluate = settings.evaluate
        params = state.params if evaluate is None else evaluate(state.server, state.params)
        return _parts.take_snapshot(parts, params, state)

    return Algorithm(init, by_hand(step), snapshot, lambda state: state.loss)


def _train_clients(
    settings: _Settings, key: Key, state: FederatedState, world: World, batch: Batch
) -> _Client:
    """The participants of a round."""
    measurements_key = _parts.stream(key, "measurements")

    def train(position: Array, correction: Params | None) -> _Client:
        def examples_of(step: Array) -> Examples:
            return _examples(settings, state, world, batch, measurements_key, position, step)

        def key_of(step: Array) -> Key:
            return _updates.optimizer_key(key, step, batch.environments[position])

        return _local_steps(settings, state, examples_of, key_of, correction)

    corrections = None
    if settings.controlled:
        shared = _mean(world.probabilities, state.controls)
        corrections = jax.tree.map(
            lambda mean, own: mean[None] - own[batch.environments], shared, state.controls
        )
    positions = jnp.arange(batch.counts.shape[0])
    if positions.shape[0] > 1:
        return jax.vmap(train)(positions, corrections)
    only = train(*jax.tree.map(lambda leaf: leaf[0], (positions, corrections)))
    return jax.tree.map(lambda leaf: leaf[None], only)


def _examples(
    settings: _Settings,
    state: FederatedState,
    world: World,
    batch: Batch,
    key: Key,
    position: Array,
    step: Array,
) -> Examples:
    """The examples of one participant in a local step: its part of the batch.

    Args:
        settings: of the method.
        state: before the round.
        world: of the round.
        batch: of the round.
        key: of the measurements of the run.
        position: of the participant within the batch, [].
        step: local steps of all rounds so far, [].
    """
    model, measurement = settings.parts.model, settings.parts.measurement
    key = random.fold_in(key, step)
    whole = Examples(measurement, key, step, state.data, model, world, batch)
    if batch.counts.shape[0] == 1:
        return whole
    if measurement.client is not None:
        return whole._replace(position=position)
    environment, count = batch.environments[position], batch.counts[position]
    # An absent environment has no weight in the mean, but must not divide by its examples.
    own = Batch(environment[None], jnp.maximum(count, 1)[None])
    return whole._replace(key=random.fold_in(key, environment), batch=own)


def _local_steps(
    settings: _Settings,
    state: FederatedState,
    examples_of: Callable[[Array], Examples],
    key_of: Callable[[Array], Key],
    correction: Params | None,
) -> _Client:
    """The K local steps of one environment, with a correction added to every gradient."""
    num_steps = jnp.asarray(settings.local_steps, jnp.int32)
    has_pull = not checks.is_zero(settings.proximal)

    def term(params: Params) -> tuple[Params, Array]:
        """The slope and the value of <correction, change> + proximal / 2 |change|^2."""
        change = jax.tree.map(jnp.subtract, params, state.params)
        pull = jax.tree.map(lambda leaf: settings.proximal * leaf, change)
        if correction is None:
            return pull, inner_product(pull, change) / 2
        slope = jax.tree.map(jnp.add, correction, pull) if has_pull else correction
        value = inner_product(correction, change) + inner_product(pull, change) / 2
        return slope, value

    def local(
        index: Array, carry: tuple[Params, optax.OptState, Params, Array]
    ) -> tuple[Params, optax.OptState, Params, Array]:
        params, optimizer_state, total, first = carry
        step = state.step * num_steps + index
        params, optimizer_state, gradient, loss = _updates.apply_update(
            settings.optimizer,
            examples_of(step),
            params,
            optimizer_state,
            term if has_pull or correction is not None else None,
            key=key_of(step),
        )
        total = jax.tree.map(jnp.add, total, gradient)
        first = jnp.where(index == 0, loss.astype(first.dtype), first)
        return params, optimizer_state, total, first

    zero = jax.tree.map(jnp.zeros_like, state.params)
    carry = (
        state.params,
        _updates.init_state("optimizer", settings.optimizer, state.params),
        zero,
        state.loss,
    )
    params, _, total, loss = jax.lax.fori_loop(0, num_steps, local, carry)
    change = jax.tree.map(jnp.subtract, state.params, params)
    mean = jax.tree.map(lambda leaf: leaf / num_steps.astype(leaf.dtype), total)
    if correction is not None:
        mean = jax.tree.map(jnp.subtract, mean, correction)
    return _Client(change, mean, loss)


def _shares(weights: str, batch: Batch, world: World) -> Array:
    """The weights [B] of the mean over the participants, up to a factor."""
    if weights == "examples":
        return batch.counts
    return jnp.where(batch.counts > 0, world.probabilities[batch.environments], 0)


def _new_controls(state: FederatedState, batch: Batch, clients: _Client) -> Params:
    """The controls after a round: those of the participants are replaced."""
    present = batch.counts > 0
    return jax.tree.map(
        lambda old, new: old.at[batch.environments].set(
            jnp.where(_along_first(present, new), new, old[batch.environments])
        ),
        state.controls,
        clients.gradient,
    )


def _mean(weights: Array, tree: PyTree) -> PyTree:
    """The mean over the leading axis with weights [B]; entries of weight 0 may be infinite."""

    def mean(leaf: Array) -> Array:
        spread = _along_first(weights, leaf)
        return jnp.sum(jnp.where(spread > 0, spread * leaf, 0), 0)

    return jax.tree.map(mean, tree)


def _along_first(vector: Array, array: Array) -> Array:
    return vector.reshape(vector.shape + (1,) * (array.ndim - 1))
