"""How long studies take: measured here where they have run, else on a reference machine."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, TypedDict

from causal_sgd.studies._selection import Wanted, name_of
from causal_sgd.studies.reproduction import _cache
from causal_sgd.studies.reproduction._cache import Environment

__all__ = [
    "MACHINE",
    "REFERENCE",
    "Clock",
    "Reference",
    "Time",
    "duration",
    "longest_first",
    "machine_of",
    "reference",
    "time_of",
]

REFERENCE = Path(__file__).with_name("reference_times.json")  # by benchmarks/study_times.py
MACHINE = ("platform", "device", "machine", "cpu", "cores")
"""The fields of an environment that identify a kind of machine."""


class Reference(TypedDict):
    """The wall times of all studies on a reference machine, and how they were measured."""

    command: str
    date: str
    machine: Environment  # the fields `MACHINE`
    versions: dict[str, str]
    full: dict[str, float]  # study -> seconds
    quick: dict[str, float]


class Clock:
    """Measures the time of a study beside others."""

    def __init__(self, jobs: int) -> None:
        """Start, with the number of studies that run at a time."""
        self._jobs = jobs
        self._start = time.perf_counter(), time.process_time()

    def seconds(self) -> float:
        """The wall time of a study that runs alone; of several at a time the share of one, by the
        cores' time or by equal parts, whichever is more.
        """
        from causal_sgd.sweeps import _machine

        wall, busy = time.perf_counter() - self._start[0], time.process_time() - self._start[1]
        return min(wall, max(wall / self._jobs, busy / _machine.cores()))


class Time(NamedTuple):
    """The time of one study, compilation included; see `Clock`."""

    seconds: float
    here: bool  # on cores of the same kind and number as this machine's
    machine: str
    date: str


def time_of(study: Wanted, out: Path, *, quick: bool) -> Time | None:
    """The time of the latest run with results in `out`, else of the reference, else None."""
    name = name_of(study)
    runs = _cache.folder(out, name, quick=quick, seed=0).parent
    records = [
        record
        for path in runs.glob("quick-*" if quick else "full-*")
        if (record := _cache.lookup(path)) is not None
    ]
    if records:
        last = max(records, key=lambda record: record.finished)
        environment, date = last.environment, last.finished[:10]
        return Time(last.seconds, _is_here(environment), machine_of(environment), date)
    table = reference()
    seconds = table["quick" if quick else "full"].get(name)
    if seconds is None:
        return None
    return Time(seconds, _is_here(table["machine"]), machine_of(table["machine"]), table["date"])


def longest_first(wanted: Sequence[Wanted], out: Path, *, quick: bool) -> list[Wanted]:
    """Studies in the order in which they end earliest, several at a time: unknown times first."""

    def seconds(study: Wanted) -> float:
        known = time_of(study, out, quick=quick)
        return math.inf if known is None else known.seconds

    return sorted(wanted, key=seconds, reverse=True)


def duration(seconds: float) -> str:
    """A time in seconds, or in minutes from two minutes on."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"


def reference() -> Reference:
    """The times shipped with the package."""
    return json.loads(REFERENCE.read_text(encoding="utf-8"))


def machine_of(environment: Environment) -> str:
    """A machine in a few words."""
    count = environment.get("cores")
    words = f"{count} {environment['machine']} core{'s' if count != 1 else ''}"
    return words if environment["platform"] == "cpu" else f"{environment['device']}, {words}"


def _is_here(environment: Environment) -> bool:
    from causal_sgd.sweeps import _machine

    return (environment["cpu"], environment.get("cores")) == (
        _machine.kind_of_cpu(),
        _machine.cores(),
    )
