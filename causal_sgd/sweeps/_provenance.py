"""What computed the results of a sweep, as plain values. Imports no jax."""

from __future__ import annotations

from typing import NotRequired, TypedDict

__all__ = ["Environment", "Machine", "Origin", "provenance"]


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
