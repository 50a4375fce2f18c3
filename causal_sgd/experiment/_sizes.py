"""The least memory that a run of an experiment takes, known before anything is allocated."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

__all__ = ["check_memory"]

NUMBER_BYTES = 4
LARGEST = 2**31 - 1


class Described(Protocol):
    """The fields of an experiment that say which arrays there are; others are sizes."""

    @property
    def model(self) -> str:
        """What is trained."""
        ...

    @property
    def measurement(self) -> str:
        """How gradients are made."""
        ...

    @property
    def metrics(self) -> tuple[str, ...]:
        """What is recorded."""
        ...

    @property
    def family(self) -> str:
        """The family of the world."""
        ...

    @property
    def num_environments(self) -> int | None:
        """Environments of the world."""
        ...

    @property
    def rank(self) -> int | None:
        """Columns of the factors."""
        ...

    @property
    def record_every(self) -> int | None:
        """Steps between frames."""
        ...

    @property
    def world_file(self) -> Path | None:
        """Where the world comes from."""
        ...


def check_memory(experiment: Described, dim: int, free: float) -> None:
    """Refuse an experiment of which one run cannot fit into the memory.

    Args:
        experiment: the experiment.
        dim: its dimension, which may be that of its world file.
        free: bytes for runs.

    Raises:
        ValueError: if it cannot; the message names the field that makes the largest array large.
    """
    factors = max(_arrays(experiment, dim), key=lambda factors: math.prod(factors.values()))
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


def _arrays(experiment: Described, width: int) -> Iterator[dict[str, int]]:
    """Arrays that a run holds: the fields that fix their sizes, and the factor of each."""

    def size(name: str, default: int = 1) -> int:
        value = width if name == "dim" else getattr(experiment, name)
        # The parts refuse what is no number, or none of jax.
        return max(value, 1) if isinstance(value, int) and value <= LARGEST else default

    dim = {"dim": size("dim")}
    if experiment.model == "order-parameters":
        dim = {"dim": 1}  # nothing has a size of dim
    if experiment.world_file is None:
        yield dim | {"invariant_rank": size("invariant_rank")}
        # Without their number the two-point family has 2^r2 environments, and limits r2 itself.
        if experiment.family != "two-point" or experiment.num_environments is not None:
            yield dim | {"spurious_rank": size("spurious_rank")}
            yield {
                "num_environments": size("num_environments"),
                "spurious_rank": size("spurious_rank") ** 2,
            }
    if experiment.model == "order-parameters":
        yield {"rank": size("rank") ** 2}
    elif experiment.model in ("quadratic", "relu"):
        yield dim | {"neurons": size("neurons")}
    elif "diagonal" in experiment.model:
        yield dim
    elif experiment.rank is None:
        yield {"dim": size("dim") ** 2}
    else:
        yield dim | {"rank": size("rank")}
    if experiment.measurement == "fixed-design":
        yield {"num_examples": size("num_examples"), "dim": size("dim") ** 2 // 2}
    steps = size("steps")
    # Of each recorded frame, the metrics and the step.
    numbers = (steps // size("record_every", steps) + 1) * (len(experiment.metrics) + 1)
    yield {"steps": numbers} | ({} if experiment.record_every is None else {"record_every": 1})


def _shown(size: float) -> str:
    return f"{size / 2**30:.3g} GiB"
