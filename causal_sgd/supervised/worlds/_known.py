"""What a user may know of the truth behind given data."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from causal_sgd import checks
from causal_sgd.supervised.worlds._placement import Numbers, numbers_of
from causal_sgd.types import Array

__all__ = ["known_inputs", "known_weights"]


def known_weights(target: Numbers | None, dim: int) -> np.ndarray | Array:
    """The weights w* [p]; NaN where it is unknown."""
    if target is None:
        return np.full(dim, np.nan)
    return numbers_of("target", target, (dim,))


def known_inputs(
    causal: Sequence[str | int] | None, names: tuple[str, ...] | None, dim: int
) -> np.ndarray:
    """Which inputs [p] are causal, by their names or places.

    Raises:
        ValueError: if one is unknown.
    """
    mask = np.zeros(dim, bool)
    given = () if causal is None else causal
    checks.instance("causal", given, (list, tuple), "a list of names or places of inputs")
    for each in given:
        if isinstance(each, str):
            if names is None:
                raise ValueError(f"causal must hold numbers of columns without names, got {each!r}")
            mask[names.index(checks.choice("causal", each, names))] = True
        else:
            mask[checks.integer("causal", each, minimum=0, maximum=dim - 1)] = True
    return mask
