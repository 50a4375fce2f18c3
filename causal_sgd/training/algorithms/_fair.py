"""A predictor and its gates against one critic per environment."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from causal_sgd import checks, random
from causal_sgd.training.algorithms import _parts
from causal_sgd.training.algorithms._by_hand import by_hand
from causal_sgd.training.algorithms._examples import Examples
from causal_sgd.training.algorithms._updates import init_state, optimizer_key, transform
from causal_sgd.types import (
    Algorithm,
    AnyModel,
    Array,
    Batch,
    Evolution,
    Key,
    Measurement,
    Params,
    PyTree,
    Sampler,
    Snapshot,
    State,
    World,
    WorldFactory,
)

__all__ = ["FairState", "fair"]

Temperature = float | Array | Callable[[Array], Any]
COOLING = optax.exponential_decay(5.0, 100, 0.993, staircase=True, end_value=0.05)


class FairState(NamedTuple):
    """State of `fair`."""

    step: Array  # [] int32, updates of the predictor done
    world: World
    data: PyTree  # the measurement's
    params: Params  # of the predictor and its gates
    critics: Params  # of the plain model, with a leading axis [E]
    optimizers: tuple[optax.OptState, optax.OptState, optax.OptState]  # predictor, critics, gates
    sampler: State
    loss: Array  # [] the predictor's objective before the last update; NaN before the first


def fair(
    *,
    world: WorldFactory,
    sampler: Sampler,
    measurement: Measurement,
    model: AnyModel,
    weight: float | Array,
    optimizer: optax.GradientTransformation,
    critic_optimizer: optax.GradientTransformation | None = None,
    gate_optimizer: optax.GradientTransformation | None = None,
    adversary_steps: int = 3,
    temperature: Temperature = COOLING,
    evolve: Evolution | None = None,
) -> Algorithm:
    """FAIR-Gumbel: a gated predictor against one critic per environment (Gu et al. 2024).

    The predictor g and the critic f_e of every environment are linear in the gated inputs a * x,
    with intercepts where the model has one. For the loss L = r^2 / 4 the gain of a critic,
    E_e [(y - g) f_e - f_e^2 / 2] / 2, is L_e(g) - L_e(g + f_e), so that the game is

        min over g and the gates, max over f_e:  mean_e L_e(g) + weight (L_e(g) - L_e(g + f_e)),

    which is the source's objective divided by 2, with the same weight. Means over environments are
    weighted by their shares of the batch. A step updates the critics `adversary_steps` times and
    then the predictor and the logits of the gates once, each on a batch of its own with gates

        a_j = sigmoid((logit_j + noise_j) / temperature),  noise_j standard logistic.

    The game needs nothing but losses on a batch: with `measurements.moments` it plays on the whole
    law or data set at a cost of p^2 a step, and only the gates are random.

    Args:
        world: how the world is drawn.
        sampler: which environments feed a batch; the source has
            `stratified(batch_size=64 * environments)`.
        measurement: how examples become losses; of squared loss.
        model: of gates, `supervised.models.gated`.
        weight: of the critics' gain, at least 0; may be traced. 36 in the source.
        optimizer: of the predictor. The source's is Adam at 1e-3 with weight decay 1e-3, which is
            `optax.chain(optax.add_decayed_weights(5e-4), optax.adam(1e-3))` of half the objective.
        critic_optimizer: of the critics, all at once; None for the predictor's.
        gate_optimizer: of the logits; None for the predictor's. The source has no decay here.
        adversary_steps: updates of the critics in a step, at least 1; static.
        temperature: of the gates: a number above 0, which may be traced, or a schedule of optax
            (number of steps -> number). By default the source's: 5, times 0.993 every 100 steps,
            at least 0.05.
        evolve: how the world changes before every step; None for a constant world.

    Returns:
        An algorithm for `run`. The loss that it reports is the predictor's objective.

    Raises:
        ValueError: as for `sgd`, or if the model has no gates, or the measurement no squared losses
            (on a batch, when it runs).
        AssertionError: as for `sgd`.
    """
    parts = _parts.Parts.checked(world, sampler, measurement, model, evolve)
    if getattr(model, "plain", None) is None:
        raise ValueError(
            "model must have gates for fair, such as supervised.models.gated(dim=2), got "
            f"{type(model).__name__}"
        )
    if measurement.risks is None or not measurement.risks.squared:
        raise ValueError(
            "measurement must have squared losses of environments for fair, as "
            f"supervised.measurements.moments() has, got {measurement.name}"
        )
    checks.number("weight", weight, minimum=0)
    steps = checks.integer("adversary_steps", adversary_steps)
    if callable(temperature):
        checks.function("temperature", temperature, 1, "a number or a schedule of optax")
    else:
        checks.number("temperature", temperature, above=0)
    chosen = optimizer, critic_optimizer or optimizer, gate_optimizer or optimizer
    for name, one in zip(NAMES, chosen, strict=True):
        checks.transformation(name, one)
    game = Game(parts, weight, steps, temperature, chosen)

    def snapshot(key: Key, state: FairState) -> Snapshot:
        del key
        return _parts.take_snapshot(parts, state.params, state)

    return Algorithm(game.first, by_hand(game.next), snapshot, lambda state: state.loss)


NAMES = ("optimizer", "critic_optimizer", "gate_optimizer")


class Game(NamedTuple):
    """The parts of a game."""

    parts: _parts.Parts
    weight: float | Array
    adversary_steps: int
    temperature: Temperature
    optimizers: tuple[optax.GradientTransformation, ...]  # predictor, critics, gates

    @property
    def model(self) -> AnyModel:
        """That of the gates."""
        return self.parts.model

    def first(self, key: Key) -> FairState:
        """Return the state before the first step; every critic has initial parameters of its own.

        Args:
            key: the run's.
        """
        start = _parts.init_run(key, self.parts)
        size = start.world.probabilities.shape[0]
        own = random.fold_in(_parts.stream(key, "initialisation"), 1 + jnp.arange(size))
        critics = jax.vmap(self.model.plain.init)(own)
        predictor, logits = _apart(start.params)
        states = tuple(
            init_state(*named)
            for named in zip(NAMES, self.optimizers, (predictor, critics, logits), strict=True)
        )
        return FairState(
            step=jnp.zeros((), jnp.int32),
            world=start.world,
            data=start.data,
            params=start.params,
            critics=critics,
            optimizers=(states[0], states[1], states[2]),
            sampler=start.sampler,
            loss=start.loss,
        )

    def next(self, key: Key, state: FairState) -> FairState:
        """Return the state after one step.

        Args:
            key: the run's.
            state: before the step.
        """
        world = _parts.evolved(key, self.parts, state.step, state.world)
        predictor, logits = _apart(state.params)
        begin = state.step * (self.adversary_steps + 1)

        def attack(
            carry: tuple[Params, optax.OptState, State], place: Array
        ) -> tuple[tuple[Params, optax.OptState, State], None]:
            critics, optimizer, sampler = carry
            stage, sampler = self._stage(key, state, world, sampler, begin + place)
            gates = stage.gates(logits)

            def remaining(critics: Params) -> Array:
                return jnp.sum(stage.shares * stage.losses(predictor, critics, gates)[1])

            slope = jax.grad(remaining)(critics)
            own = optimizer_key(key, state.step * self.adversary_steps + place, 1)
            critics, optimizer = transform(
                NAMES[1], self.optimizers[1], slope, critics, optimizer, key=own
            )
            return (critics, optimizer, sampler), None

        carry = state.critics, state.optimizers[1], state.sampler
        carry, _ = jax.lax.scan(attack, carry, jnp.arange(self.adversary_steps))
        critics, critic_state, sampler = carry
        stage, sampler = self._stage(key, state, world, sampler, begin + self.adversary_steps)

        def objective(predictor: Params, logits: Array) -> Array:
            own, rest = stage.losses(predictor, critics, stage.gates(logits))
            return jnp.sum(stage.shares * (own + self.weight * (own - rest)))

        value, (slope, tilt) = jax.value_and_grad(objective, (0, 1))(predictor, logits)
        optimizer, _, gate = self.optimizers
        own, last_own = (optimizer_key(key, state.step, part) for part in (0, 2))
        predictor, first = transform(
            NAMES[0], optimizer, slope, predictor, state.optimizers[0], key=own
        )
        logits, last = transform(NAMES[2], gate, tilt, logits, state.optimizers[2], key=last_own)
        return state._replace(
            step=state.step + 1,
            world=world,
            params={**predictor, "logits": logits},
            critics=critics,
            optimizers=(first, critic_state, last),
            sampler=sampler,
            loss=value.astype(state.loss.dtype),
        )

    def _stage(
        self, key: Key, state: FairState, world: World, sampler: State, index: Array
    ) -> tuple[Stage, State]:
        """One batch, which no other update sees, with the noise of its gates."""
        batch, sampler = _parts.drawn_batch(key, self.parts, index, world, sampler)
        examples = Examples(
            self.parts.measurement,
            random.fold_in(_parts.stream(key, "measurements"), index),
            index,
            state.data,
            self.model.plain,
            world,
            batch,
        )
        size, kind = state.params["logits"].shape[0], state.params["logits"].dtype
        # In (0, 1), where the logistic quantile is finite.
        level = random.uniforms(
            random.bits(random.fold_in(_parts.stream(key, "gates"), index), size), kind
        )
        level = level + jnp.asarray(2.0**-24, kind)
        heat = self.temperature(state.step) if callable(self.temperature) else self.temperature
        return Stage(examples, jnp.log(level) - jnp.log1p(-level), jnp.asarray(heat, kind)), sampler


class Stage(NamedTuple):
    """The examples and the gates of one update."""

    examples: Examples
    noise: Array  # [p] standard logistic
    temperature: Array  # []

    @property
    def shares(self) -> Array:
        """The share of each environment in the examples, [B]."""
        return self.examples.shares

    def gates(self, logits: Array) -> Array:
        """Return the gates [p] in (0, 1).

        Args:
            logits: [p].
        """
        return jax.nn.sigmoid((logits + self.noise) / self.temperature)

    def losses(self, predictor: Params, critics: Params, gates: Array) -> tuple[Array, Array]:
        """Return the losses [B] of the predictor, and of its sum with each environment's critic.

        Args:
            predictor: of the plain model.
            critics: of the plain model, with a leading axis [E].
            gates: [p].
        """
        model, batch = self.examples.model, self.examples.batch

        # One environment at a time: its critic is of no use to others, and it draws the same.
        def of_one(environment: Array, count: Array) -> tuple[Array, Array]:
            alone = self.examples._replace(batch=Batch(environment[None], count[None]))
            risks = alone.risks()
            total = jax.tree.map(lambda g, f: g + f[environment], predictor, critics)
            return (
                risks(model.rescaled(predictor, gates))[0],
                risks(model.rescaled(total, gates))[0],
            )

        return jax.vmap(of_one)(batch.environments, batch.counts)


def _apart(params: Params) -> tuple[Params, Array]:
    """The parameters of the predictor, and the logits of its gates."""
    return {name: leaf for name, leaf in params.items() if name != "logits"}, params["logits"]
