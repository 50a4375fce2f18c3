"""The verdict on a part of a trained model: rejected, kept, or not invariant."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.typing import ArrayLike

from causal_sgd import checks
from causal_sgd.experiment.diagnosis._growth import Growth, growth
from causal_sgd.experiment.diagnosis._subspaces import Masks, hashable, structure_of
from causal_sgd.experiment.diagnosis._tables import Table, number
from causal_sgd.training import algorithms
from causal_sgd.types import (
    Array,
    Key,
    Measurement,
    Model,
    Params,
    Sampler,
    Snapshot,
    WorldFactory,
    check_snapshot,
)

__all__ = ["Diagnosis", "diagnose"]

REJECTED, KEPT, UNDECIDED = "rejected", "kept", "undecided"
NOT_INVARIANT = "not invariant: cannot be rejected this way"
BATCHES = 2**31 - 2  # folded into a run's key for batches that no step of the run has seen
CERTAIN = 2.0  # standard errors of an exponent that decide


@dataclasses.dataclass(frozen=True)
class Diagnosis:
    """What `diagnose` found, in words and numbers; it prints as a table.

    Attributes:
        learning_rate: [L].
        verdicts: "rejected", "kept", "undecided" (within two standard errors) or "not invariant:
            cannot be rejected this way", one for each learning rate.
        reasons: for each of them.
        numbers: behind them, as NumPy arrays.
        environments: names of the environments.
    """

    learning_rate: np.ndarray
    verdicts: tuple[str, ...]
    reasons: tuple[str, ...]
    numbers: Growth
    environments: tuple[str, ...]

    @property
    def verdict(self) -> str:
        """The verdict where it is the same at all learning rates.

        Raises:
            ValueError: if it is not.
        """
        if len(set(self.verdicts)) > 1:
            raise ValueError(f"verdicts must agree for one verdict, got {self.verdicts}")
        return self.verdicts[0]

    @property
    def critical_learning_rate(self) -> float:
        """From where on the part is rejected; 0 for any, infinite for never."""
        return float(self.numbers.window[0])

    @property
    def largest_stable_step(self) -> float:
        """2 / sharpness of the pooled risk, above which even the mean of all steps diverges."""
        return float(self.numbers.stable_steps[1])

    def _tables(self) -> tuple[Table, Table]:
        found = self.numbers
        rows = [
            [
                number(float(rate)),
                f"{number(float(values[0]))} +- {number(float(errors[0]))}",
                f"{verdict}; {reason}",
            ]
            for rate, values, errors, verdict, reason in zip(
                self.learning_rate,
                found.exponents,
                found.standard_error,
                self.verdicts,
                self.reasons,
                strict=True,
            )
        ]
        low, high = found.stable_steps
        notes = [
            _interval(found),
            f"largest stable step: {number(float(high))} of the pooled loss, "
            f"{number(float(low))} of the sharpest environment",
            "valid at these parameters; no forecast of training",
        ]
        first = Table("Diagnosis", ["learning rate", "exponent a step", "verdict"], rows, notes)
        columns = ["environment", "drive", "defect", "defect / slope", "coupling / stiffness"]
        parts = [
            [
                name,
                ", ".join(number(float(each)) for each in found.drive[0, place]),
                number(float(found.defect[0, place])),
                _ratio(float(found.defect[0, place]), float(found.slope[place])),
                _ratio(float(found.coupling[0, place]), float(found.stiffness[0, place])),
            ]
            for place, name in enumerate(self.environments)
        ]
        return first, Table("Environments", columns, parts)

    def __str__(self) -> str:
        """The tables as text."""
        return "\n\n".join(table.text() for table in self._tables())

    def _repr_html_(self) -> str:
        return "".join(table.html() for table in self._tables())


def diagnose(
    params: Params | Snapshot,
    *,
    world: WorldFactory | None = None,
    sampler: Sampler,
    measurement: Measurement | None = None,
    model: Model | None = None,
    subspace: object,
    learning_rate: ArrayLike | Sequence[float],
    value: float | None = 0.0,
    cap: float | None = None,
    tolerance: float = 1e-3,
    num_steps: int = 300,
    burn_in: int = 50,
    num_blocks: int = 10,
    key: Key | None = None,
) -> Diagnosis:
    """Does SGD with this sampler reject a part of a model, at these learning rates?

    A part can be rejected by multiplicative noise only if its zero is a fixed point of the steps in
    every environment, whatever the other parameters are. Two numbers test this at the parameters:
    the defect |P g_e|, the gradient of an environment inside the subspace, and the coupling
    |P H_e (1 - P)| to parameters outside. Where both vanish, the part dies if the largest Lyapunov
    exponent of the product of P (I - eta H) P over batches is negative, and is kept if it is
    positive. Where they do not, an environment pushes the part away from zero however small it is,
    and heterogeneity only shakes it: the case of a weight of a linear model or of a plain network.

    This certifies the given parameters, as those at the end of training. It does not forecast: at
    initial parameters the exponent is another one.

    Args:
        params: of the model; or a snapshot of a run, which has a world, a measurement and a model.
        world: how the world is drawn, as for `sgd`; not with a snapshot.
        sampler: which environments feed a step.
        measurement: how examples become losses; not with a snapshot.
        model: what was trained; not with a snapshot.
        subspace: a name, a mask or a number of leading directions; see `growth`.
        learning_rate: eta [L] or [], of plain SGD in the subspace, above 0; one program computes
            all. With momentum beta read eta / (1 - beta).
        value: what the parameters of a mask are set to; None to leave them.
        cap: the largest relative change of a gate in a step, as of `optimizers.gates`; None for no
            limit.
        tolerance: the largest ratios of defect and coupling to the stiffness |P H_e P| that count
            as zero. The first is a distance: that at which the drive is as large as the defect.
        num_steps: batches that are averaged over.
        burn_in: batches before.
        num_blocks: parts of the average, for standard errors.
        key: of the run, from which its world and data follow; batches are fresh ones.

    Returns:
        Verdicts with reasons, exponents, defects, drives and learning rates that reject.

    Raises:
        ValueError: if an argument is out of range or missing, or the measurement has no risks on a
            batch.
    """
    checks.number("tolerance", tolerance, above=0)
    snapshot = _snapshot(params, world, sampler, measurement, model, key)
    checks.number("learning_rate", learning_rate, above=0, scalar=False)
    if value is not None:
        checks.number("value", value)
    rates = np.atleast_1d(np.asarray(learning_rate, float))
    options = _Options(
        sampler, hashable(snapshot.params, subspace), value, cap, num_steps, burn_in, num_blocks
    )
    batches = None if key is None else jax.random.fold_in(key, BATCHES)
    arguments = snapshot, jnp.asarray(rates, float), batches
    if _is_hashable(options):
        found = _compiled(*arguments, options)
    else:  # compiled each time
        found = jax.jit(functools.partial(_program, options=options))(*arguments)
    found = jax.tree.map(np.asarray, found)
    judged = [_judged(found, place, float(rate), tolerance) for place, rate in enumerate(rates)]
    verdicts, reasons = zip(*judged, strict=True)
    size = found.defect.shape[1]
    names = getattr(snapshot.world, "environments", None) or range(size)
    return Diagnosis(rates, verdicts, reasons, found, tuple(map(str, names)))


class _Options(NamedTuple):
    """What is static in the program of a diagnosis."""

    sampler: Sampler
    subspace: int | str | Masks
    value: float | None
    cap: float | None
    num_steps: int
    burn_in: int
    num_blocks: int


def _program(snapshot: Snapshot, rates: Array, key: Key | None, options: _Options) -> Growth:
    return growth(snapshot, learning_rate=rates, key=key, **options._asdict())


_compiled = jax.jit(_program, static_argnums=3)


def _is_hashable(value: object) -> bool:
    try:
        hash(value)
    except TypeError:  # a sampler with arrays
        return False
    return True


def _snapshot(
    params: Params | Snapshot,
    world: WorldFactory | None,
    sampler: Sampler,
    measurement: Measurement | None,
    model: Model | None,
    key: Key | None,
) -> Snapshot:
    parts = {"world": world, "measurement": measurement, "model": model}
    if isinstance(params, Snapshot):
        for name, part in parts.items():
            if part is not None:
                raise ValueError(f"{name} must be None with a snapshot, which has one")
        check_snapshot(params)
        return params
    for name, part in parts.items():
        if part is None:
            raise ValueError(f"{name} must be given with the parameters of a model, got None")
    checks.made_of("model", model, ("init", "estimate"), "a Model")
    assert world is not None
    assert measurement is not None
    assert model is not None
    # A run's own checks of its parts, world and data; its optimizer is not used.
    run = algorithms.sgd(
        world=world,
        sampler=sampler,
        measurement=measurement,
        model=model,
        optimizer=optax.identity(),
    )
    root = jax.random.key(0) if key is None else checks.key("key", key)
    _check_params(params, model, root)
    found = run.snapshot(root, run.init(root))
    return dataclasses.replace(found, params=params, next_batch=None)


def _check_params(params: Params, model: Model, key: Key) -> None:
    """Refuse what are no parameters of the model.

    Raises:
        ValueError: naming the leaf that does not fit.
    """
    expected = jax.eval_shape(model.init, key)
    structure, given = jax.tree.structure(expected), jax.tree.structure(params)
    if structure != given:
        raise ValueError(
            f"params must have the structure of the model's, {structure_of(expected)}, got "
            f"{structure_of(params)}"
        )
    paths = jax.tree_util.tree_flatten_with_path(params)[0]
    for (path, leaf), like in zip(paths, jax.tree.leaves(expected), strict=True):
        name = f"params{jax.tree_util.keystr(path)}"
        checks.number(name, leaf, scalar=False)
        if np.shape(leaf) != like.shape:
            raise ValueError(
                f"{name} must have shape {list(like.shape)}, got {list(np.shape(leaf))}: of one run"
            )


def _judged(found: Growth, place: int, rate: float, tolerance: float) -> tuple[str, str]:
    """The verdict at one learning rate, and its reason."""
    stiffness = float(np.max(found.stiffness[place]))
    smallest = 10 * float(np.finfo(found.slope.dtype).eps)
    for words, values, floor in (
        (_defective, found.defect[place], smallest * np.max(found.slope)),
        (_coupled, found.coupling[place], smallest * stiffness),
    ):
        worst = int(np.argmax(values))
        if not values[worst] <= tolerance * stiffness + floor:
            return NOT_INVARIANT, words(found, place, worst)
    exponent, error = float(found.exponents[place, 0]), float(found.standard_error[place, 0])
    if np.isnan(exponent):
        return UNDECIDED, "the exponent is not a number"
    if not abs(exponent) > CERTAIN * error:
        return UNDECIDED, "the exponent is zero within two standard errors"
    beyond = float(found.stable_steps[1])
    unstable = f"; the step is beyond the largest stable one, {number(beyond)}"
    suffix = unstable if rate > beyond else ""
    if exponent < 0:
        return REJECTED, f"deviations die out, by {number(exponent)} a step in the mean{suffix}"
    return KEPT, _kept(found, place, rate) + suffix


def _kept(found: Growth, place: int, rate: float) -> str:
    low, high = (float(each) for each in found.window)
    drive = found.drive[place]  # [E, m]
    if np.all(np.max(drive, 1) > 0):
        agree = "every environment drives it up"
        return agree + ("" if np.isinf(low) else f"; rejected from a step of {number(low)} on")
    if rate < low:
        words = "the environments disagree, but the step is too small"
        if np.isinf(low):
            return "the environments disagree, but too little for any step"
        return f"{words}: rejected from {number(low)} on"
    if rate > high:
        return "the step overshoots zero by more than it shrinks"
    return f"deviations grow, by {number(float(found.exponents[place, 0]))} a step in the mean"


def _defective(found: Growth, place: int, worst: int) -> str:
    return (
        "the gradient of an environment does not vanish there (environment "
        f"{worst}: {number(float(found.defect[place, worst]))}), so that there is no common "
        "fixed point and heterogeneity only shakes this direction"
    )


def _coupled(found: Growth, place: int, worst: int) -> str:
    ratio = found.coupling[place, worst] / max(found.stiffness[place, worst], 1e-30)
    return (
        "the gradient there follows parameters outside (environment "
        f"{worst}: {number(float(ratio))} of the curvature inside), so that the subspace is no "
        "fixed point for other values of them"
    )


def _interval(found: Growth) -> str:
    (low, high), (low_error, high_error) = found.window, found.window_error
    if np.isinf(low):
        return "rejected at none of the learning rates that were looked at"
    start = f"from {number(float(low))} +- {number(float(low_error))}" if low > 0 else "from 0"
    end = (
        "the largest that were looked at"
        if np.isinf(high)
        else f"{number(float(high))} +- {number(float(high_error))}"
    )
    return f"rejected at learning rates {start} to {end}"


def _ratio(value: float, whole: float) -> str:
    return number(value / whole) if whole > 0 else number(float("nan"))
