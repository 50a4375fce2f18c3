"""Methods on coloured digits, and which of their settings validation takes."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from causal_sgd.studies.supervised import _digit_networks as networks
from causal_sgd.studies.supervised import _digits as digits
from causal_sgd.studies.supervised._either_way import either_way

if TYPE_CHECKING:
    import xarray as xr

    from causal_sgd.studies._cells import Cell
    from causal_sgd.types import Array, Key, Objective, Snapshot, Trace

__all__ = [
    "BALANCE",
    "METHODS",
    "PENALTIES",
    "RATE",
    "STEP",
    "STEPS",
    "WEIGHT",
    "WEIGHTS",
    "WORLDS",
    "Setting",
    "chosen",
    "ends",
    "explicit",
    "implicit",
    "objective",
    "rows",
    "settings",
]

WORLDS = {"contradiction": digits.CONTRADICTION, "same sign": digits.SAME_SIGN}
HELD, TEST = 500, 1000  # images of the validation and of the test, which nothing trains on
SHARE = (HELD + TEST) / 5000
RATE, RATES = 0.8, (0.3, 0.8, 1.0)  # of SGD
BALANCE = 0.1  # rate of GroupDRO's weights
STEP, STEPS = 1e-3, (1e-3, 3e-3)  # of Adam
WEIGHT, WEIGHTS = 1e3, (1.0, 10.0, 100.0, 1e3, 1e4)  # of a penalty
ANNEALED = 0.5  # the share of the run before which a weight is at most 1
METHODS = {  # by SGD on one input of the colour: pooled batches, gates, GroupDRO, and step sizes
    "HeteroSGD, gates": (0, 1, 0, RATES),
    "pooled, gates": (1, 1, 0, (RATE,)),
    "GroupDRO, gates": (1, 1, 1, (RATE,)),
    "GroupDRO, one input": (1, 0, 1, (RATE,)),
}
PENALTIES = ("V-REx", "IRMv1")


class Setting(NamedTuple):
    """One row of a sweep: a world, a method, its step size, and the weight of its penalty."""

    world: str
    method: str
    rate: float
    weight: float = 0.0


def settings(kind: str) -> list[Setting]:
    """The rows of a sweep, in its order.

    Args:
        kind: "implicit" or "explicit", as the cell.
    """
    if kind == "implicit":
        return [Setting(w, m, r) for w in WORLDS for m, row in METHODS.items() for r in row[-1]]
    weighed = [("pooled", 0.0), ("GroupDRO", 0.0), *itertools.product(PENALTIES, WEIGHTS)]
    return [Setting(w, m, r, weight) for w in WORLDS for m, weight in weighed for r in STEPS]


def rows(kind: str) -> dict[str, list[float]]:
    """The numbers of a sweep's rows by the parameters of its cell."""
    found = settings(kind)
    agreements = np.array([WORLDS[each.world] for each in found])
    numbers = {"first": agreements[:, 0], "second": agreements[:, 1]}
    numbers["learning_rate"] = np.array([each.rate for each in found])
    if kind == "implicit":
        for place, name in enumerate(("pooled", "gated", "balanced")):
            numbers[name] = np.array([float(METHODS[each.method][place]) for each in found])
        return {name: values.tolist() for name, values in numbers.items()}
    for name, method in (("vrex", "V-REx"), ("irmv1", "IRMv1"), ("balanced", "GroupDRO")):
        weights = [1.0 if method == "GroupDRO" else each.weight for each in found]
        numbers[name] = np.array(weights) * [each.method == method for each in found]
    return {name: values.tolist() for name, values in numbers.items()}


def implicit(steps: int) -> Cell:
    """Runs by SGD of networks with the colour as one input, behind gates or not.

    Batches are of one environment or of both, whose losses GroupDRO weighs or not. In the `first`
    and the `second` environment the colour agrees with the label in a share of the examples.
    """

    def cell(
        key: Key,
        *,
        first: float | Array,
        second: float | Array,
        learning_rate: float | Array,
        pooled: float | Array,
        gated: float | Array,
        balanced: float | Array,
    ) -> Trace:
        import jax.numpy as jnp
        import optax

        from causal_sgd.training import objectives, optimizers

        start = jnp.where(jnp.asarray(gated) > 0, networks.START, 1.0)
        agreements = jnp.stack([jnp.asarray(first), jnp.asarray(second)])
        return networks.trained(
            key,
            model=networks.gated(networks.mlp(), start=start),
            optimizer=optimizers.gates(
                optax.sgd(learning_rate), learning_rate=gated * learning_rate
            ),
            sampler=either_way(jnp.asarray(pooled) > 0, batch_size=digits.BATCH),
            agreements=agreements,
            steps=steps,
            objective=objectives.group_dro(
                rate=balanced * BALANCE, weight=balanced, risk_weight=1 - balanced
            ),
            metrics=_metrics(agreements),
            test_share=SHARE,
        )

    return cell


def explicit(steps: int) -> Cell:
    """Runs of a plain network on two channels by V-REx, IRMv1 and GroupDRO with Adam.

    Weights of penalties beyond 1, and a restart of Adam, come at half time.
    """

    def cell(
        key: Key,
        *,
        first: float | Array,
        second: float | Array,
        learning_rate: float | Array,
        vrex: float | Array,
        irmv1: float | Array,
        balanced: float | Array,
    ) -> Trace:
        import jax.numpy as jnp
        import optax

        from causal_sgd.training import objectives, optimizers, samplers

        start = int(ANNEALED * steps)
        agreements = jnp.stack([jnp.asarray(first), jnp.asarray(second)])
        after = {"vrex": vrex, "irmv1": irmv1, "balanced": balanced}
        return networks.trained(
            key,
            model=networks.mlp("channels"),
            optimizer=optimizers.restarted(optax.adam(learning_rate), at=start),
            sampler=samplers.stratified(batch_size=digits.BATCH),
            agreements=agreements,
            steps=steps,
            encoding="channels",
            objective=objectives.annealed(
                objective,
                start=start,
                before={name: jnp.minimum(weight, 1.0) for name, weight in after.items()},
                after=after,
            ),
            metrics=_metrics(agreements),
            test_share=SHARE,
            of_each=digits.BATCH // 2,
        )

    return cell


def objective(*, vrex: float | Array, irmv1: float | Array, balanced: float | Array) -> Objective:
    """`objectives.vrex`, `irmv1` and `group_dro` in one program, and their sums.

    Args:
        vrex: weight of the variance of the losses over environments; may be traced.
        irmv1: weight of their mean squared derivative in the scale; may be traced.
        balanced: 1 for the weights of GroupDRO in the mean loss, 0 for the shares; may be traced.
    """
    import jax
    import jax.numpy as jnp

    from causal_sgd.training import objectives
    from causal_sgd.types import Measured, Objective, Params, State

    def gradient(
        step: Array, state: State, examples: Measured, params: Params
    ) -> tuple[Params, Array, State]:
        del step

        def value(params: Params) -> tuple[Array, State]:
            risks, shares = examples.risks(), examples.shares
            one = jnp.ones((), shares.dtype)
            losses, slopes = jax.jvp(lambda scale: risks(params, scale), (one,), (one,))
            logarithms = jax.nn.log_softmax(state + BALANCE * jax.lax.stop_gradient(losses))
            weights = balanced * jnp.exp(logarithms) + (1 - balanced) * shares
            deviations = (losses - jnp.sum(shares * losses)) ** 2
            penalties = vrex * deviations + irmv1 * slopes**2
            return jnp.sum(weights * losses + shares * penalties), logarithms

        (height, new), slope = jax.value_and_grad(value, has_aux=True)(params)
        return slope, height, new

    return Objective(objectives.group_dro(rate=BALANCE).init, gradient)


def chosen(found: Mapping[Setting, xr.Dataset], world: str, method: str, by: str) -> Setting:
    """The setting of a method in a world that is the best in the mean over seeds.

    Args:
        found: of `ends`.
        world: its name.
        method: its name.
        by: "accuracy" for the least share of right signs in the validation's environments, "loss"
            for the largest loss there, "test" for the share where a tenth of the colours agree.
    """

    def score(runs: xr.Dataset) -> float:
        if by == "test":
            return float(runs.accuracies[..., 0].mean())
        if by == "loss":
            return -float(runs.validation_losses.max("validation_losses_0").mean())
        return float(runs.validation.min("validation_0").mean())

    candidates = [each for each in found if (each.world, each.method) == (world, method)]
    return max(candidates, key=lambda each: score(found[each]))


def ends(data: Mapping[str, xr.Dataset]) -> dict[Setting, xr.Dataset]:
    """The means over the last quarter of all settings, NaN where a run diverged."""
    found = {}
    for kind in ("implicit", "explicit"):
        runs = data[kind].isel(step=-1)
        runs = runs.where(runs.diverged_at < 0)
        found |= {each: runs.isel(row=place) for place, each in enumerate(settings(kind))}
    return found


def _metrics(agreements: Array) -> dict[str, Callable[[Snapshot], Array]]:
    """Shares of right signs in the test, and in the validation shares and losses by environment."""
    import jax
    import jax.numpy as jnp

    def of(snapshot: Snapshot, images: slice) -> tuple[Array, Array]:
        return snapshot.once(digits.predictions)[:, images], snapshot.world.test_bits[images]

    def gap(snapshot: Snapshot) -> Array:
        one, other = of(snapshot, slice(TEST))[0]
        return jnp.mean(one - other)

    def accuracies(snapshot: Snapshot) -> Array:
        shown = of(snapshot, slice(TEST))
        noisy = [digits.expected(digits.right, *shown, each) for each in digits.AGREEMENTS]
        return jnp.stack([*noisy, digits.expected(digits.right, *shown, 0.5, 0.0)])

    def validation(snapshot: Snapshot) -> Array:
        shown = of(snapshot, slice(TEST, None))
        return jax.vmap(lambda each: digits.expected(digits.right, *shown, each))(agreements)

    def validation_losses(snapshot: Snapshot) -> Array:
        shown = of(snapshot, slice(TEST, None))

        def loss(margins: Array) -> Array:
            return jax.nn.softplus(-margins)

        return jax.vmap(lambda each: digits.expected(loss, *shown, each))(agreements)

    return {each.__name__: each for each in (gap, accuracies, validation, validation_losses)}
