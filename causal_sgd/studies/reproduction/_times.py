"""How long studies take: measured here where they have run, else on a reference machine."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from causal_sgd.studies.reproduction import _cache

__all__ = ["MACHINE", "REFERENCE", "Time", "duration", "machine_of", "reference", "time_of"]

REFERENCE = Path(__file__).with_name("reference_times.json")  # by benchmarks/study_times.py
MACHINE = ("platform", "device", "machine", "cpu", "cores")
"""The fields of an environment that identify a kind of machine."""
"""What names a kind of machine in an environment."""


class Time(NamedTuple):
    """The wall time of one study, compilation included."""

    seconds: float
    here: bool  # on cores of the same kind and number as this machine's
    machine: str
    date: str


def time_of(name: str, out: Path, *, quick: bool) -> Time | None:
    """The time of the latest run with results in `out`, else of the reference, else None."""
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


def duration(seconds: float) -> str:
    """A time in seconds, or in minutes from two minutes on."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"


def reference() -> dict[str, Any]:
    """The times shipped with the package by size and study, with their machine and command."""
    return json.loads(REFERENCE.read_text(encoding="utf-8"))


def machine_of(environment: Mapping[str, Any]) -> str:
    """A machine in a few words."""
    count = environment.get("cores")
    words = f"{count} {environment['machine']} core{'s' if count != 1 else ''}"
    return words if environment["platform"] == "cpu" else f"{environment['device']}, {words}"


def _is_here(environment: Mapping[str, Any]) -> bool:
    from causal_sgd.sweeps import _machine

    return (environment["cpu"], environment.get("cores")) == (
        _machine.kind_of_cpu(),
        _machine.cores(),
    )
