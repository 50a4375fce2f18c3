"""A training method, and the record of its run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from causal_sgd.types._parts import Array, Key, State
from causal_sgd.types._snapshots import Snapshot

__all__ = [
    "Algorithm",
    "Trace",
]


class Algorithm(NamedTuple):
    """One training method: pure functions that `run` scans.

    Attributes:
        init: key -> state; draws the world, the data and the initial parameters from streams of the
            key.
        step: (key, state) -> state; the same key at every step, the state counts them. By hand, a
            step of the package's own parts compiles once; one with a function of the user's own
            runs op by op and sees what the function reads.
        snapshot: (key, state) -> what the metrics see; the same key again.
        loss: state -> the last batch loss []; a run has diverged once it is not finite.
    """

    init: Callable[[Key], State]
    step: Callable[[Key, State], State]
    snapshot: Callable[[Key, State], Snapshot]
    loss: Callable[[State], Array]


class Trace(NamedTuple):
    """The record of one run (or, under `vmap`, of many)."""

    step: Array  # [F] int32
    metrics: Mapping[str, Array]  # name -> [F, ...]
    diverged_at: Array  # [] int32, first step with a non-finite loss or parameters; -1 for never
