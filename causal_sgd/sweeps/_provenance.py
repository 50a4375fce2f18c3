"""What computed the results of a sweep, as plain values. Imports no jax."""

from __future__ import annotations

import datetime
import json
import reprlib
from collections.abc import Mapping
from typing import NotRequired, TypedDict

from causal_sgd import checks

__all__ = ["Environment", "Machine", "Origin", "now", "plain_values", "provenance"]


class Origin(TypedDict):
    """The part of an environment that every dataset names."""

    versions: dict[str, str]  # package -> version
    platform: str
    device: str


class Machine(Origin):
    """What results depend on beyond their program."""

    machine: str
    cpu: str  # equal for CPUs with equal instruction sets
    x64: bool
    matmul_precision: str
    compiler: NotRequired[dict[str, str]]  # what is not its default; absent in older stores
    git_commit: str | None  # of the working directory


class Environment(Machine):
    """What results depend on beyond their configuration."""

    program: str  # its fingerprint, comparable among equal versions


def provenance(
    origin: Origin, tile: int, key: str, key_implementation: str
) -> dict[str, str | int]:
    """The attributes of every sweep's dataset: what computed it, and the root key."""
    return {
        "causal_sgd": origin["versions"]["causal_sgd"],
        "jax": origin["versions"]["jax"],
        "platform": origin["platform"],
        "device": origin["device"],
        "tile": tile,
        "key": key,
        "key_implementation": key_implementation,
    }


def plain_values(name: str, values: Mapping[str, object]) -> dict[str, object]:
    """Return values as they are after they were written as JSON and read again.

    Tuples become lists, and keys that are numbers become text.

    Args:
        name: of the argument, for the message.
        values: what JSON can hold.

    Raises:
        ValueError: if JSON cannot hold them, or two keys are the same text.
    """

    def unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
        for index, (key, _) in enumerate(pairs):
            if any(key == other for other, _ in pairs[:index]):
                raise ValueError(f"two of its keys are {key!r} as text")
        return dict(pairs)

    allowed = "plain values that JSON can hold"
    checks.instance(name, values, Mapping, f"a mapping of names to {allowed}")
    try:
        text = json.dumps(dict(values), allow_nan=False, ensure_ascii=False)
        text.encode()  # fails for halves of surrogate pairs
        return json.loads(text, object_pairs_hook=unique)
    except (TypeError, ValueError, RecursionError) as error:
        shown = reprlib.repr(values)
        raise ValueError(f"{name} must hold {allowed}, got {shown}: {error}") from None


def now() -> str:
    """The local time with its zone, to the second."""
    return datetime.datetime.now().astimezone().isoformat(timespec="seconds")
