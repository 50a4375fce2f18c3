"""A split of the examples into two environments that is learned, and the penalty of IRMv1 on it."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from causal_sgd import checks, random
from causal_sgd.training import samplers
from causal_sgd.training.algorithms import _parts
from causal_sgd.training.algorithms._by_hand import by_hand
from causal_sgd.training.algorithms._updates import init_state, optimizer_key, transform
from causal_sgd.types import (
    Algorithm,
    AnyModel,
    Array,
    Key,
    Measurement,
    Params,
    PyTree,
    Snapshot,
    World,
    WorldFactory,
)

__all__ = ["ZinState", "zin"]

Auxiliary = str | Callable[[PyTree, PyTree], Array]
NAMES = ("time", "free")


class ZinState(NamedTuple):
    """State of `zin`."""

    step: Array  # [] int32, updates done
    world: World
    data: PyTree  # the measurement's
    params: Params
    split: Params  # of the network, or logits [E, n]
    optimizers: tuple[optax.OptState, optax.OptState]  # of the model, of the split
    loss: Array  # [] the objective before the last update; NaN before the first


def zin(
    *,
    world: WorldFactory,
    measurement: Measurement,
    model: AnyModel,
    optimizer: optax.GradientTransformation,
    split_optimizer: optax.GradientTransformation | None = None,
    auxiliary: Auxiliary = "time",
    weight: float | Array = 1e4,
    start: int | Array = 5000,
    hidden: int = 16,
) -> Algorithm:
    """ZIN and EIIL: infer two environments, then penalise what differs between them.

    Every example i belongs to the first of two inferred environments with weight q_i, a network of
    one hidden layer of an auxiliary variable z_i (ZIN, Lin et al. 2022), or a free logit of its own
    (EIIL, Creager et al. 2021). With the loss l_i of an example, means over all examples, and the
    derivative d in a scale of the prediction, the penalty is

        P = (d mean q l)^2 + (d mean (1 - q) l)^2.

    For `start` steps the split ascends P at the model's parameters while the model descends the
    mean loss. From then on the split stays, and the model descends
    (mean l + weight P) / (1 + weight). Every step uses all examples. The true environments are
    never used but for their order, which makes the time. The reference of EIIL is a trained model;
    here it is trained along with the split, as in ZIN.

    Args:
        world: how the world is drawn.
        measurement: that keeps its examples: `supervised.measurements.examples` with a data set, or
            `counts` without `fresh`, whose atoms share a weight in every environment.
        model: what is trained.
        optimizer: of the model. The source has Adam at 5e-3 and weight decay 1e-3.
        split_optimizer: of the split; None for the model's. The source has Adam at 1e-3.
        auxiliary: "time" for the place of an example among all, from 0 to 1, one environment after
            the other; "free" for a logit each; or (data, world) -> z [E, n, k].
        weight: of the penalty, at least 0; may be traced. 1e4 in the source.
        start: updates before the split stays, at least 0; may be traced.
        hidden: width of the network.

    Returns:
        An algorithm for `run`. The loss that it reports is what the model descends. Snapshots hold
        q [E, n] as `split`.

    Raises:
        ValueError: as for `sgd`, or if the measurement has no losses of single examples.
        AssertionError: as for `sgd`.
    """
    parts = _parts.Parts.checked(world, samplers.stratified(batch_size=1), measurement, model, None)
    if measurement.risks is None or measurement.risks.each is None:
        raise ValueError(
            "measurement must keep examples for zin, as supervised.measurements.examples(1000) "
            f"does, got {measurement.name}"
        )
    if not callable(auxiliary):
        checks.choice("auxiliary", auxiliary, NAMES)
    checks.number("weight", weight, minimum=0)
    checks.number("start", start, minimum=0)
    checks.integer("hidden", hidden)
    chosen = optimizer, split_optimizer or optimizer
    for name, one in zip(("optimizer", "split_optimizer"), chosen, strict=True):
        checks.transformation(name, one)
    method = Method(parts, auxiliary, weight, start, hidden, chosen)

    def snapshot(key: Key, state: ZinState) -> Snapshot:
        del key
        seen = _parts.take_snapshot(parts, state.params, state)
        return Snapshot(
            step=seen.step,
            params=seen.params,
            world=seen.world,
            batch_loss=seen.batch_loss,
            model=seen.model,
            measurement=seen.measurement,
            data=seen.data,
            split=method.shares(state.split, state.data, state.world),
        )

    return Algorithm(method.first, by_hand(method.next), snapshot, lambda state: state.loss)


class Method(NamedTuple):
    """The parts of the method."""

    parts: _parts.Parts
    auxiliary: Auxiliary
    weight: float | Array
    start: int | Array
    hidden: int
    optimizers: tuple[optax.GradientTransformation, optax.GradientTransformation]

    def first(self, key: Key) -> ZinState:
        """Return the state before the first step.

        Args:
            key: the run's.
        """
        begun = _parts.init_run(key, self.parts)
        own = random.fold_in(_parts.stream(key, "initialisation"), 1)
        split = self._first_split(own, begun.data, begun.world)
        states = (
            init_state("optimizer", self.optimizers[0], begun.params),
            init_state("split_optimizer", self.optimizers[1], split),
        )
        return ZinState(
            step=jnp.zeros((), jnp.int32),
            world=begun.world,
            data=begun.data,
            params=begun.params,
            split=split,
            optimizers=states,
            loss=begun.loss,
        )

    def next(self, key: Key, state: ZinState) -> ZinState:
        """Return the state after one step, in which only the optimizers may draw.

        Args:
            key: the run's.
            state: before the step.
        """
        losses, weights = self._each(state.data, state.world)

        def penalty(params: Params, split: Params) -> tuple[Array, Array]:
            """The mean loss and P."""
            one = jnp.ones((), weights.dtype)
            each, slopes = jax.jvp(lambda scale: losses(params, scale), (one,), (one,))
            shares = self.shares(split, state.data, state.world)
            inside, outside = (
                jnp.sum(weights * shares * slopes),
                jnp.sum(weights * (1 - shares) * slopes),
            )
            return jnp.sum(weights * each), inside**2 + outside**2

        early = state.step < self.start
        weight = jnp.where(early, 0, jnp.asarray(self.weight, weights.dtype))

        def objective(params: Params) -> Array:
            average, spread = penalty(params, state.split)
            return (average + weight * spread) / (1 + weight)

        def ascended() -> tuple[Params, optax.OptState]:
            ascent = jax.grad(lambda split: -penalty(state.params, split)[1])(state.split)
            optimizer, own = self.optimizers[1], optimizer_key(key, state.step, 1)
            return transform(
                "split_optimizer", optimizer, ascent, state.split, state.optimizers[1], key=own
            )

        value, slope = jax.value_and_grad(objective)(state.params)
        optimizer, own = self.optimizers[0], optimizer_key(key, state.step)
        params, of_model = transform(
            "optimizer", optimizer, slope, state.params, state.optimizers[0], key=own
        )
        # The network costs most of a step, and its gradient nothing once the split stays.
        split, of_split = jax.lax.cond(early, ascended, lambda: (state.split, state.optimizers[1]))
        return state._replace(
            step=state.step + 1,
            params=params,
            split=split,
            optimizers=(of_model, of_split),
            loss=value.astype(state.loss.dtype),
        )

    def shares(self, split: Params, data: PyTree, world: World) -> Array:
        """Return the weight q of every example in the first inferred environment, [E, n].

        Args:
            split: parameters of the split.
            data: the measurement's.
            world: of the run.
        """
        if self.auxiliary == "free":
            return jax.nn.sigmoid(split)
        z = self._variable(data, world)
        inner = jnp.tensordot(z, split["hidden"], 1, precision="highest")
        features = jax.nn.relu(inner + split["shift"][None, None])
        return jax.nn.sigmoid(
            jnp.tensordot(features, split["output"], 1, precision="highest") + split["level"]
        )

    def _each(self, data: PyTree, world: World) -> tuple[Callable[..., Array], Array]:
        risks = self.parts.measurement.risks
        assert risks is not None
        assert risks.each is not None
        return risks.each(data, self.parts.model, world)

    def _variable(self, data: PyTree, world: World) -> Array:
        """The auxiliary variable z [E, n, k]."""
        weights = self._each(data, world)[1]
        if callable(self.auxiliary):
            z = self.auxiliary(data, world)
            if jnp.ndim(z) != 3 or jnp.shape(z)[:2] != weights.shape:
                raise ValueError(
                    f"auxiliary must return z of shape {[*weights.shape, 'k']}, got "
                    f"{[*jnp.shape(z)]}"
                )
            return z
        flat = weights.ravel()
        return (jnp.cumsum(flat) - flat / 2).reshape(*weights.shape, 1)

    def _first_split(self, key: Key, data: PyTree, world: World) -> Params:
        """Uniform initial weights of the network, as linear layers of PyTorch begin."""
        if self.auxiliary == "free":
            weights = self._each(data, world)[1]
            return random.normals(key, weights.shape, weights.dtype)
        width, size = self.hidden, self._variable(data, world).shape[-1]
        words = random.bits(key, (size + 2) * width + 1)
        levels = 2 * random.uniforms(words, jnp.result_type(float)) - 1
        near, far = levels[: (size + 1) * width], levels[(size + 1) * width :]
        near, far = near / size**0.5, far / width**0.5
        return {
            "hidden": near[width:].reshape(size, width),
            "shift": near[:width],
            "output": far[:width],
            "level": far[width],
        }
