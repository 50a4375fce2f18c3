"""The mark of what all runs of one key draw alike."""

from __future__ import annotations

from typing import Any

import jax
from jax.ad_checkpoint import checkpoint_name

SHAREABLE = "shareable"
"""The name that marked numbers bear in a traced program."""


def shareable(numbers: Any) -> Any:
    """Mark large numbers that a run draws from its key and keeps, such as examples.

    A sweep then computes runs of one seed together and holds these numbers once for all of them,
    unless they depend on an axis. The mark computes nothing.

    Args:
        numbers: a pytree of arrays.

    Returns:
        The same numbers.
    """
    return jax.tree.map(lambda leaf: checkpoint_name(leaf, SHAREABLE), numbers)
