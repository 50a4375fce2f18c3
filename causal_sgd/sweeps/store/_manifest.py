"""What a store is made for, and how two of that differ."""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Mapping
from typing import Any, NamedTuple

__all__ = ["Manifest", "StoreError", "changed_lines", "differences", "digest"]


class StoreError(ValueError):
    """A store that cannot be used as it is; the message says what is wrong and what to do."""


class Manifest(NamedTuple):
    """What a store is made for: two sweeps with the same header may share it."""

    configuration: Mapping[str, Any]  # all that decides the results, as plain values
    parameters: Mapping[str, str]  # parameter -> type of its column
    variables: Mapping[str, tuple[str, tuple[int, ...]]]  # name -> type, shape of one run's values
    num_frames: int
    program: str  # fingerprint, comparable among equal versions
    source: str | None  # of the cell, where it can be had

    @property
    def digest(self) -> str:
        """SHA-256 of the configuration as canonical JSON."""
        return digest(self.configuration)


def digest(configuration: Mapping[str, Any]) -> str:
    """SHA-256 of plain values as canonical JSON."""
    text = json.dumps(configuration, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def differences(old: Any, new: Any, name: str = "") -> list[str]:
    """Lines that say where two plain values differ."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        names = dict.fromkeys((*old, *new))
        return [
            line
            for key in names
            for line in differences(
                old.get(key, "nothing"), new.get(key, "nothing"), f"{name}.{key}" if name else key
            )
        ]
    return [] if old == new else [f"{name} is {old} in the store and {new} now"]


def changed_lines(old: str | None, new: str | None) -> list[str]:
    """The lines of a cell's source that changed, where both are known."""
    if old is None or new is None or old == new:
        return (
            ["something that it refers to changed (its source did not)"]
            if old == new and old
            else []
        )
    changed = difflib.unified_diff(old.splitlines(), new.splitlines(), lineterm="", n=0)
    return [
        f"{line[0]} {line[1:].strip()}"
        for line in changed
        if line[0] in "+-" and line[:3] not in ("+++", "---")
    ][:8]
