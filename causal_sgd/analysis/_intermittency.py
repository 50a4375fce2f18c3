"""On-off intermittency in recorded signals: their quiet phases, and the exponents of power laws with cutoffs.

Near the transition log|u| of a spurious direction is a random walk under a barrier (`theory.tail_exponent`). Everything here
takes plain arrays of recorded values. The exponents are of greatest likelihood within a window, so that neither the short
phases, which are no power law yet, nor what the end of the record cuts off biases them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import optimize

from causal_sgd import checks

__all__ = ["PowerLaw", "density_exponent", "laminar_phases", "phase_exponent"]

STEEPEST = 20.0  # no exponent of interest is larger


class PowerLaw(NamedTuple):
    """An exponent of greatest likelihood, as if the values were independent."""

    exponent: float
    standard_error: float
    number: int  # values in the window


def laminar_phases(signal: ArrayLike, level: float) -> np.ndarray:
    """Lengths, in frames, of the phases in which a signal stays below a level.

    Args:
        signal: [..., F] recorded values along the last axis; phases do not run on into the next row.
        level: below it is quiet.

    Returns:
        The lengths [n] of all phases whose start and end were both seen, row by row.
    """
    checks.number("level", level)
    values = np.asarray(signal, float)
    if values.ndim == 0:
        raise ValueError("signal must have frames along its last axis, got a number")
    quiet = values.reshape(-1, values.shape[-1]) < level
    # The first frame of each row is a start only if it is seen to be: a phase already going on is left out.
    edges = np.diff(quiet.astype(np.int8), axis=1)
    rows, places = np.nonzero(edges)
    rises = edges[rows, places] < 0
    whole = rises[1:] & (rows[1:] == rows[:-1])  # an end whose start lies in the same row
    return np.diff(places)[whole]


def phase_exponent(
    lengths: ArrayLike, *, shortest: int = 10, longest: int = 1000, cutoff: float = np.inf
) -> PowerLaw:
    """The exponent alpha of lengths n with probabilities ~ n^-alpha exp(-n / cutoff), by greatest likelihood.

    Args:
        lengths: [n] whole numbers, such as `laminar_phases` gives.
        shortest: the window's first length; shorter ones are not used.
        longest: its last; it should be far below the length of the record.
        cutoff: where the power law ends, if that is known: 2 v / lambda^2 for the quiet phases of a random walk of drift
            lambda and variance v a step.

    Returns:
        NaN where fewer than two different lengths lie in the window.
    """
    checks.integer("shortest", shortest)
    checks.integer("longest", longest, minimum=shortest + 1)
    if not cutoff > 0:
        raise ValueError(f"cutoff must be above 0, got {cutoff}")
    values = np.asarray(lengths, float)
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

    found = _root(lambda alpha: moments(alpha)[0] - mean)
    return PowerLaw(found, float(1 / np.sqrt(len(values) * moments(found)[1])), len(values))


def density_exponent(values: ArrayLike, *, low: float, high: float) -> PowerLaw:
    """The exponent theta of a density ~ |u|^(-1 - theta) of positive values in a window, by greatest likelihood.

    The logarithm has the density exp(-theta log|u|) there, an exponential cut off at both ends. Values along a run depend
    on each other: bootstrap over runs for an honest error.

    Args:
        values: any shape, |u|.
        low: the lower end of the window, above 0.
        high: the upper end.

    Returns:
        NaN where no value lies in the window.
    """
    checks.number("low", low, above=0)
    checks.number("high", high, above=low)
    numbers = np.asarray(values, float)
    numbers = numbers[(numbers >= low) & (numbers <= high)]
    if not len(numbers):
        return PowerLaw(np.nan, np.nan, 0)
    width = np.log(high / low)
    place = float(np.log(numbers / low).mean() / width)

    def mean(rate: float) -> float:  # of the exponential of this rate on [0, 1]
        return 0.5 - rate / 12 if abs(rate) < 1e-4 else 1 / rate - 1 / np.expm1(rate)

    rate = _root(lambda exponent: mean(exponent * width) - place) * width
    spread = 1 / 12 if abs(rate) < 1e-2 else 1 / rate**2 - 1 / (4 * np.sinh(rate / 2) ** 2)
    return PowerLaw(rate / width, float(1 / (width * np.sqrt(len(numbers) * spread))), len(numbers))


def _root(falling: Callable[[float], float]) -> float:
    """The root of a falling function of the exponent; an end of the range where there is none."""
    with np.errstate(over="ignore"):
        if falling(-STEEPEST) <= 0:
            return -STEEPEST
        if falling(STEEPEST) >= 0:
            return STEEPEST
        found = optimize.root_scalar(falling, bracket=(-STEEPEST, STEEPEST), method="brentq")
    return float(found.root)
