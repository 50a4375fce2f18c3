"""The least memory that a run of an experiment takes, known before anything is allocated."""

from __future__ import annotations

import math

from causal_sgd.experiment._table import AnyExperiment

__all__ = ["check_memory", "frame_numbers", "size"]

NUMBER_BYTES = 4
LARGEST = 2**31 - 1


def size(experiment: AnyExperiment, name: str, default: int = 1) -> int:
    """A field that is a size, at least 1; the default where it is none."""
    value = getattr(experiment, name)
    # The parts refuse what is no number, or none of jax.
    return max(value, 1) if isinstance(value, int) and value <= LARGEST else default


def frame_numbers(experiment: AnyExperiment) -> dict[str, int]:
    """The array of all recorded frames."""
    steps = size(experiment, "steps")
    # Of each frame, the metrics and the step.
    frames = steps // size(experiment, "record_every", steps) + 1
    every = {} if experiment.record_every is None else {"record_every": 1}
    return {"steps": frames * (len(experiment.metrics) + 1)} | every


def check_memory(experiment: AnyExperiment, free: float) -> None:
    """Refuse an experiment of which one run cannot fit into the memory.

    Args:
        experiment: the experiment, with the sizes of its file.
        free: bytes for runs.

    Raises:
        ValueError: if it cannot; the message names the field that makes the largest array large.
    """
    factors = max(
        experiment.SYSTEM.arrays(experiment), key=lambda factors: math.prod(factors.values())
    )
    least = NUMBER_BYTES * math.prod(factors.values())
    if least > free:
        largest = max(factors, key=lambda name: factors[name])
        given = {name: getattr(experiment, name) for name in factors if name != largest}
        others = [f"{name} {value}" for name, value in given.items() if value is not None]
        raise ValueError(
            f"{largest} must be such that a run fits into the {_shown(free)} that are free, got "
            f"{getattr(experiment, largest)}, with which it takes at least {_shown(least)}"
            + (f" (with {', '.join(others)})" if others else "")
        )


def _shown(size: float) -> str:
    return f"{size / 2**30:.3g} GiB"
