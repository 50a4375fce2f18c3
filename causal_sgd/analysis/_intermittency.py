"""On-off intermittency in recorded signals: laminar phases and exponents of truncated power laws.

Near the transition log|u| of a spurious direction is a random walk below a barrier
(`theory.tail_exponent`). All functions take plain arrays of recorded values. Exponents are
maximum-likelihood estimates within a window: neither short phases, which do not follow the power
law, nor the end of the record biases them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import optimize

from causal_sgd import checks

__all__ = ["PowerLaw", "density_exponent", "laminar_phases", "phase_exponent"]

LARGEST_EXPONENT = 20.0  # the search covers exponents between minus and plus this value


class PowerLaw(NamedTuple):
    """The maximum-likelihood estimate of an exponent, as if the values were independent."""

    exponent: float
    standard_error: float
    number: int  # number of values in the window


def laminar_phases(signal: ArrayLike, level: float) -> np.ndarray:
    """Lengths, in frames, of the phases in which a signal stays below a level.

    Args:
        signal: [..., F] recorded values along the last axis; phases end with their row.
        level: values below it are laminar.

    Returns:
        The lengths [n] of all phases whose start and end are both in the record, row by row.

    Raises:
        ValueError: if the signal is a single number or the level is not finite.
    """
    checks.number("level", level, double=True)
    values = checks.record("signal", signal)
    if values.ndim == 0:
        raise ValueError("signal must have frames along its last axis, got a number")
    laminar = values.reshape(-1, values.shape[-1]) < level
    # Only changes count: a phase that is already under way in the first frame has no start.
    changes = np.diff(laminar.astype(np.int8), axis=1)
    rows, frames = np.nonzero(changes)
    ends = changes[rows, frames] < 0
    complete = ends[1:] & (rows[1:] == rows[:-1])  # an end whose start lies in the same row
    return np.diff(frames)[complete]


def phase_exponent(
    lengths: ArrayLike, *, shortest: int = 10, longest: int = 1000, cutoff: float = np.inf
) -> PowerLaw:
    """The exponent alpha of lengths n with probabilities ~ n^-alpha exp(-n / cutoff).

    Args:
        lengths: [n] whole numbers, such as those of `laminar_phases`.
        shortest: first length of the window.
        longest: last length of the window; it should be far below the length of the record.
        cutoff: the end of the power law: 2 v / lambda^2 for the laminar phases of a random walk
            with drift lambda and variance v per step; infinite by default.

    Returns:
        The exponent with its standard error; NaN if fewer than two different lengths are in the
        window, or no exponent between -20 and 20 fits them.

    Raises:
        ValueError: if the window is empty or the cutoff is not positive.
    """
    checks.integer("shortest", shortest)
    checks.integer("longest", longest, minimum=shortest + 1)
    if not isinstance(cutoff, float | int | np.number) or not cutoff > 0:
        raise ValueError(f"cutoff must be above 0, got {cutoff}")
    if cutoff != np.inf:
        checks.number("cutoff", cutoff, double=True)
    values = checks.record("lengths", lengths)
    values = values[(values >= shortest) & (values <= longest)]
    if len(np.unique(values)) < 2:
        return PowerLaw(np.nan, np.nan, len(values))
    grid = np.arange(shortest, longest + 1)
    logs, damping, mean = np.log(grid), grid / cutoff, np.log(values).mean()

    def moments(alpha: float) -> tuple[float, float]:
        exponents = -alpha * logs - damping
        weights = np.exp(exponents - exponents.max())
        weights /= weights.sum()
        first = weights @ logs
        return float(first), float(weights @ (logs - first) ** 2)

    # An exponential family: the estimate matches the mean of log n, the information is its
    # variance.
    exponent = _root(lambda alpha: moments(alpha)[0] - mean)
    if np.isnan(exponent):
        return PowerLaw(np.nan, np.nan, len(values))
    information = len(values) * moments(exponent)[1]
    return PowerLaw(exponent, float(1 / np.sqrt(information)), len(values))


def density_exponent(values: ArrayLike, *, low: float, high: float) -> PowerLaw:
    """The exponent theta of a density ~ |u|^(-1 - theta) in a window.

    The logarithm has the density ~ exp(-theta log|u|) there, an exponential law truncated at both
    ends. Values along a run are correlated: bootstrap over runs for a valid standard error.

    Args:
        values: |u|, of any shape.
        low: lower end of the window, above 0.
        high: upper end of the window.

    Returns:
        The exponent with its standard error; NaN if no value is in the window, or no exponent
        between -20 and 20 fits them.

    Raises:
        ValueError: if the window is empty.
    """
    checks.number("low", low, above=0, double=True)
    checks.number("high", high, above=low, double=True)
    numbers = checks.record("values", values)
    numbers = numbers[(numbers >= low) & (numbers <= high)]
    if not len(numbers):
        return PowerLaw(np.nan, np.nan, 0)
    width = np.log(high / low)
    sample_mean = float(np.log(numbers / low).mean() / width)

    def mean(rate: float) -> float:
        """The mean of the exponential law of this rate on [0, 1]; a series near the uniform law."""
        return 0.5 - rate / 12 if abs(rate) < 1e-4 else 1 / rate - 1 / np.expm1(rate)

    rate = _root(lambda exponent: mean(exponent * width) - sample_mean) * width
    variance = 1 / 12 if abs(rate) < 1e-2 else 1 / rate**2 - 1 / (4 * np.sinh(rate / 2) ** 2)
    error = 1 / (width * np.sqrt(len(numbers) * variance))
    return PowerLaw(rate / width, float(error), len(numbers))


def _root(falling: Callable[[float], float]) -> float:
    """The root of a falling function of the exponent; NaN where it is beyond the range."""
    low, high = -LARGEST_EXPONENT, LARGEST_EXPONENT
    with np.errstate(over="ignore"):
        if falling(low) <= 0 or falling(high) >= 0:
            return np.nan
        result = optimize.root_scalar(falling, bracket=(low, high), method="brentq")
    return float(result.root)
