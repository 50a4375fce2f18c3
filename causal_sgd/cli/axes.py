"""Axes of a diagram, as the command line states them."""

from __future__ import annotations

import numpy as np

from causal_sgd import checks
from causal_sgd.experiment._base import BaseExperiment

__all__ = ["check_axis_used", "parse_axis"]

FORM = "NAME=START:STOP:COUNT, NAME=START:STOP:COUNT:log or NAME=VALUE,VALUE,..."
MOST_VALUES = 10**6
INTEGERS = np.iinfo(np.int32)  # as which a program receives whole numbers


def parse_axis(option: str, text: str, kind: type[BaseExperiment]) -> tuple[str, np.ndarray]:
    """The parameter and the values of an axis.

    Args:
        option: the option of the command line, for messages.
        text: NAME=START:STOP:COUNT, with :log at the end for a geometric axis, or NAME=VALUE,...
        kind: the class of the experiment whose parameters may be axes.

    Returns:
        The name of the parameter, and its increasing values [n].

    Raises:
        ValueError: if the text has another form, the parameter cannot be swept, or the values are
            not finite and increasing, or beyond int32 where the parameter is an integer.
    """
    name, equals, values = text.partition("=")
    if not equals:
        raise ValueError(f"{option} must have the form {FORM}, got {text!r}")
    name = checks.spelled(f"{option} parameter", name.strip(), kind.sweepable())
    parts = values.split(":")
    axis = _listed(parts[0]) if len(parts) == 1 else _spaced(option, text, parts)
    if axis is None:
        raise ValueError(f"{option} must have the form {FORM}, got {text!r}")
    if not np.isfinite(axis).all() or not (np.diff(axis) > 0).all():
        raise ValueError(f"{option} must run over finite, increasing values, got {text!r}")
    typed = name.replace("_", "-")
    if name in kind.integer_axes():
        if (axis != np.round(axis)).any() and len(parts) == 1:
            raise ValueError(f"{option} must have whole numbers for {typed}, got {text!r}")
        if axis[0] < INTEGERS.min or axis[-1] > INTEGERS.max:
            raise ValueError(
                f"{option} must have whole numbers from {INTEGERS.min} to {INTEGERS.max} for "
                f"{typed}, the range of int32, got {text!r}"
            )
        axis = np.unique(np.round(axis).astype(int))
    return name, axis


def _listed(text: str) -> np.ndarray | None:
    try:
        return np.array([float(value) for value in text.split(",")])
    except ValueError:
        return None


def _spaced(option: str, text: str, parts: list[str]) -> np.ndarray | None:
    logarithmic = parts[3:] == ["log"]
    if len(parts) != 3 + logarithmic:
        return None
    try:
        start, stop, count = float(parts[0]), float(parts[1]), int(parts[2])
    except ValueError:
        return None
    if count < 1:
        return None
    if count > MOST_VALUES:
        raise ValueError(f"{option} must have at most {MOST_VALUES} values, got {text!r}")
    if not np.isfinite([start, stop]).all():
        raise ValueError(f"{option} must run over finite, increasing values, got {text!r}")
    if logarithmic and min(start, stop) <= 0:
        raise ValueError(f"{option} must have ends above 0 for a logarithmic axis, got {text!r}")
    return (np.geomspace if logarithmic else np.linspace)(start, stop, count)


def check_axis_used(option: str, name: str, experiment: BaseExperiment) -> None:
    """Raise ValueError if nothing would change along an axis."""
    typed = name.replace("_", "-")
    reason = experiment.why_no_axis(name)
    if reason is not None:
        raise ValueError(f"{option} must be a parameter that can be swept; {typed} cannot {reason}")
    reason = experiment.why_unused(name)
    if reason is not None:
        raise ValueError(f"{option} must be a parameter with an effect; {typed} has none {reason}")
