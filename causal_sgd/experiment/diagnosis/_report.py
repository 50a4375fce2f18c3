"""What a table with environments says about rejection, before anything is trained."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from causal_sgd import checks
from causal_sgd.experiment.diagnosis._tables import Table, number
from causal_sgd.supervised.worlds import SupervisedWorld
from causal_sgd.theory.sparse import heterogeneity_lasso

__all__ = ["Report", "report"]

STEPS = 12  # of the path, where none are given
SMALLEST = 0.02  # of them, as a share of the largest stable one
ZERO = 1e-6  # of a standardised weight
SHOWN = 6  # environments, up to which a report shows each
CLEAR = 2.0  # standard errors of a residual correlation that differ from chance


@dataclasses.dataclass(frozen=True)
class Report:
    """What `report` found, in units of pooled standard deviations; it prints as a table.

    There are E environments, p features and L learning rates.

    Attributes:
        features: their names.
        environments: their names.
        weights: of pooled least squares, [p].
        drives: E_e x_j r_j [E, p], with r_j what pooled least squares of all other features leaves
            of the label: a small weight u^2 of the feature grows by this times the learning rate.
        correlations: of x_j and r_j within the environment, about zero, [E, p].
        standard_errors: of the drives, [E, p]; NaN where the numbers of examples are unknown.
        dissent: share of environments whose drive has another sign than the mean one, [p].
        clear_dissent: of those where it is beyond two standard errors, [p].
        learning_rates: [L].
        path: weights that u^2 - v^2 has in the mean, by learning rate, [L, p].
        rejected_at: [p], the first learning rate of the path from which on the weight is zero.
        stable_steps: the largest steps of u^2 - v^2 at pooled least squares: of the sharpest
            environment and of the pooled loss.
        largest_linear_step: of a plain linear model, on the pooled loss.
        verdicts: for each feature, in words.
    """

    features: tuple[str, ...]
    environments: tuple[str, ...]
    weights: np.ndarray
    drives: np.ndarray
    correlations: np.ndarray
    standard_errors: np.ndarray
    dissent: np.ndarray
    clear_dissent: np.ndarray
    learning_rates: np.ndarray
    path: np.ndarray
    rejected_at: np.ndarray
    stable_steps: tuple[float, float]
    largest_linear_step: float
    verdicts: tuple[str, ...]

    @property
    def largest_stable_step(self) -> float:
        """Of u^2 - v^2 on the pooled loss, at pooled least squares."""
        return self.stable_steps[1]

    def _tables(self) -> tuple[Table, Table]:
        few = len(self.environments) <= SHOWN
        between = [f"r in {name}" for name in self.environments] if few else ["least r", "most r"]
        shown = self.correlations
        if not few:
            shown = np.stack([shown.min(0), shown.max(0)])
        rows = [
            [
                name,
                number(float(self.weights[place])),
                *[f"{value:+.2f}" for value in shown[:, place]],
                f"{self.dissent[place]:.2f} ({self.clear_dissent[place]:.2f})",
                self.verdicts[place],
            ]
            for place, name in enumerate(self.features)
        ]
        columns = ["feature", "weight", *between, "dissent (clear)", "verdict"]
        low, high = self.stable_steps
        notes = [
            "r: correlation with what all other features leave of the label; dissent: share of "
            "environments where its sign is not that of the mean",
            f"largest stable step of u^2 - v^2: {number(high)} of the pooled loss, {number(low)} "
            f"of the sharpest environment; of a linear model {number(self.largest_linear_step)}",
        ]
        title = f"{len(self.features)} features in {len(self.environments)} environments"
        chosen = np.unique(np.linspace(0, len(self.path) - 1, min(6, len(self.path))).astype(int))
        names = ["feature", "pooled", *(number(float(self.learning_rates[at])) for at in chosen)]
        weights = [
            [
                name,
                f"{self.weights[place]:+.3f}",
                *(f"{self.path[at, place]:+.3f}" for at in chosen),
            ]
            for place, name in enumerate(self.features)
        ]
        path = Table("Weights in the mean of training, by learning rate", names, weights)
        return Table(title, columns, rows, notes), path

    def __str__(self) -> str:
        """The tables as text."""
        return "\n\n".join(table.text() for table in self._tables())

    def _repr_html_(self) -> str:
        return "".join(table.html() for table in self._tables())


def report(
    data: Callable[[jax.Array], SupervisedWorld] | SupervisedWorld,
    *,
    learning_rates: ArrayLike | Sequence[float] | None = None,
    batch_size: float | None = None,
    within: bool = False,
) -> Report:
    """What a table says about rejection by a linear model u^2 - v^2; nothing is trained.

    Inputs and label are standardised over all environments. HeteroSGD with the weights u^2 - v^2
    finds in the mean the Lasso whose penalties are learning_rate / 2 times the variances of the
    gradient between environments (`theory.sparse.heterogeneity_lasso`, first order in the learning
    rate). The path of this Lasso tells which features are lost at which step. Thresholds of one
    feature at a time mislead where features are correlated. A feature that no environment
    contradicts is as a rule kept at all steps that are stable.

    Args:
        data: the world of a table, `worlds.from_arrays(...)`, or any other whose second moments are
            known.
        learning_rates: of the path, [L] above 0, in house units, in which the loss is a mean
            squared residual over 4; None for 12 up to the largest stable one.
        batch_size: examples of an environment in a step, at least 1, whose noise is added as that
            of Gaussian ones; None for all examples of it.
        within: whether the means of every environment are subtracted from its inputs and labels.

    Raises:
        ValueError: if an argument is out of range, or a feature or the label is constant.
    """
    world = _world(data)
    checks.flags(within=within)
    if batch_size is not None:
        checks.number("batch_size", batch_size, minimum=1)
    shares = np.asarray(world.probabilities, float)
    if len(shares) < 2:
        raise ValueError("data must have at least two environments, got one")
    dim = world.estimate_shape[0]
    names = getattr(world, "columns", None) or [f"x{j}" for j in range(dim)]
    second, cross, squares = _standardised(world, shares, within, names)
    pooled = np.einsum("e,eij->ij", shares, second)
    weights = np.linalg.lstsq(pooled, shares @ cross, rcond=None)[0]
    drives, correlations, variances = _left_out(second, cross, squares, shares)
    counts = getattr(world, "counts", None)
    errors = np.full(drives.shape, np.nan)
    if counts is not None:
        errors = np.sqrt(variances / np.asarray(counts, float)[:, None])
    sign = np.sign(shares @ drives)
    against = drives * sign < 0
    clear = against & (np.abs(drives) > CLEAR * np.nan_to_num(errors))
    stable = _stable(weights, second, cross, shares)
    rates = _rates(learning_rates, stable[1])
    path = _path(second, cross, shares, rates, batch_size, squares)
    rejected = np.array([_first_zero(path[:, j], rates) for j in range(len(weights))])
    dissent, clear_dissent = against.mean(0), clear.mean(0)
    environments = getattr(world, "environments", None) or range(len(shares))
    return Report(
        features=tuple(map(str, names)),
        environments=tuple(map(str, environments)),
        weights=weights,
        drives=drives,
        correlations=correlations,
        standard_errors=errors,
        dissent=dissent,
        clear_dissent=clear_dissent,
        learning_rates=rates,
        path=path,
        rejected_at=rejected,
        stable_steps=stable,
        largest_linear_step=float(4 / np.linalg.eigvalsh(pooled)[-1]),
        verdicts=tuple(
            _verdict(rejected[j], rates[-1], dissent[j], clear_dissent[j], stable[1])
            for j in range(dim)
        ),
    )


def _world(data: object) -> SupervisedWorld:
    allowed = "the world of a table, such as worlds.from_arrays(x, y, environment)"
    if not hasattr(data, "draw_moments"):
        checks.function("data", data, 1, allowed)
        assert callable(data)
        data = data(jax.random.key(0))
        if not hasattr(data, "draw_moments"):
            raise ValueError(f"data must be {allowed}, got one that draws a {type(data).__name__}")
    world: SupervisedWorld = data  # type: ignore[assignment]
    try:
        jnp.shape(world.second_moments)
    except ValueError as error:  # only samples can be drawn
        kind = type(world).__name__
        raise ValueError(
            f"data must be {allowed}, or another one with known moments, got a {kind}"
        ) from error
    return world


class _Standardised(NamedTuple):
    """Moments in units of pooled standard deviations, about pooled means."""

    second: np.ndarray  # [E, p, p]
    cross: np.ndarray  # [E, p]
    squares: np.ndarray  # [E] of the label


def _standardised(
    world: SupervisedWorld, shares: np.ndarray, within: bool, names: Sequence[str]
) -> _Standardised:
    moments = np.asarray(world.second_moments, float)
    means = moments[:, -1, :-1]
    values = moments[:, :-1, :-1]
    if within:
        values = values - means[:, :, None] * means[:, None, :]
    else:
        mean = shares @ means
        values = values - means[:, :, None] * mean - mean[:, None] * means[:, None, :]
        values = values + mean[:, None] * mean
    scale = np.sqrt(np.clip(np.einsum("e,eii->i", shares, values), 0, None))
    peak = np.sqrt(np.einsum("e,eii->i", shares, moments[:, :-1, :-1]))
    constant = np.flatnonzero(~(scale > 1e-4 * peak))
    if len(constant):
        place = int(constant[0])
        name = "the label" if place == len(scale) - 1 else f"the input {names[place]!r}"
        where = " within environments" if within else ""
        raise ValueError(f"data must have no constant column{where}, got {name}")
    values = values / scale[:, None] / scale
    return _Standardised(values[:, :-1, :-1], values[:, :-1, -1], values[:, -1, -1])


def _left_out(
    second: np.ndarray, cross: np.ndarray, squares: np.ndarray, shares: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Drives, correlations, and variances of x_j r_j, of every feature left out of the fit."""
    pooled, target = np.einsum("e,eij->ij", shares, second), shares @ cross
    found = [np.empty_like(cross) for _ in range(3)]
    for j in range(cross.shape[1]):
        others = np.delete(np.arange(cross.shape[1]), j)
        w = np.zeros(cross.shape[1])
        w[others] = np.linalg.lstsq(pooled[np.ix_(others, others)], target[others], rcond=None)[0]
        applied = second @ w  # [E, p]
        drive = cross[:, j] - applied[:, j]
        left = np.clip(squares - 2 * cross @ w + applied @ w, 1e-12, None)
        spread = second[:, j, j] * left
        correlation = drive / np.sqrt(np.clip(spread, 1e-12, None))
        # Var(x r) = E x^2 E r^2 + (E x r)^2 for Gaussian x and r of mean zero (Isserlis 1918).
        for array, values in zip(found, (drive, correlation, spread + drive**2), strict=True):
            array[:, j] = values
    return found[0], found[1], found[2]


def _stable(
    weights: np.ndarray, second: np.ndarray, cross: np.ndarray, shares: np.ndarray
) -> tuple[float, float]:
    """2 / sharpness of the loss in (u, v): of the sharpest environment, and of the pooled one.

    The Hessian is 2 R S R + diag(g) with the roots R = (u, -v), S for both of them, and the
    gradients g = (S w - c, c - S w), which vanish for the pooled loss alone.
    """
    roots = np.sqrt(np.concatenate([np.clip(weights, 0, None), np.clip(-weights, 0, None)]))
    signs = np.repeat([1.0, -1.0], len(weights))

    def step(matrix: np.ndarray, products: np.ndarray) -> float:
        scaled = np.tile(matrix, (2, 2)) * np.outer(signs * roots, signs * roots)
        slopes = signs * np.tile(matrix @ weights - products, 2)
        return 2 / max(float(np.linalg.eigvalsh(2 * scaled + np.diag(slopes))[-1]), 1e-12)

    sharpest = min(step(*each) for each in zip(second, cross, strict=True))
    return sharpest, step(np.einsum("e,eij->ij", shares, second), shares @ cross)


def _rates(learning_rates: ArrayLike | Sequence[float] | None, largest: float) -> np.ndarray:
    if learning_rates is None:
        return np.geomspace(SMALLEST, 1, STEPS) * largest
    checks.number("learning_rates", learning_rates, above=0, scalar=False)
    rates = np.sort(np.atleast_1d(np.asarray(learning_rates, float)))
    if rates.ndim > 1 or not rates.size:
        raise ValueError(f"learning_rates must have shape [L], got {list(rates.shape)}")
    return rates


def _path(
    second: np.ndarray,
    cross: np.ndarray,
    shares: np.ndarray,
    rates: np.ndarray,
    batch_size: float | None,
    squares: np.ndarray,
) -> np.ndarray:
    noise = {} if batch_size is None else {"batch_size": batch_size, "label_squares": squares}
    paths = [  # one compiled program for all learning rates, and for tables of the same size
        heterogeneity_lasso(
            second, cross, learning_rate=rate, probabilities=shares, signed=True, **noise
        ).estimate
        for rate in rates
    ]
    return np.stack([np.asarray(weights) for weights in paths])


def _first_zero(values: np.ndarray, rates: np.ndarray) -> float:
    """The first learning rate from which on a weight is zero; infinite if it is not at last."""
    used = np.flatnonzero(np.abs(values) > ZERO)
    place = 0 if not len(used) else int(used[-1]) + 1
    return float(rates[place]) if place < len(rates) else float("inf")


def _verdict(rejected: float, last: float, dissent: float, clear: float, stable: float) -> str:
    if np.isfinite(rejected):
        words = f"rejected from a step of {number(rejected)} on"
        return words if rejected <= stable else f"{words}, which is not stable"
    if not dissent:
        return "kept: no environment contradicts it"
    doubtful = "" if clear else ", and those that dissent may do so by chance"
    return f"kept up to a step of {number(last)}{doubtful}"
