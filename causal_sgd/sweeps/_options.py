"""Arguments of `sweep` that other functions pass on to it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from pathlib import Path
from typing import TypedDict

from causal_sgd.sweeps._grid import AxisValues, Seeds
from causal_sgd.sweeps._machine import Device
from causal_sgd.types import Key

__all__ = ["CompareOptions", "RefineOptions"]


class _Options(TypedDict, total=False):
    key: int | Key
    fsync: bool
    executor: Executor | Callable[[], Executor] | None
    config: Mapping[str, object] | None
    tile: int | None
    tiles_per_task: int
    retries: int
    timeout: float | None
    memory: float | None
    devices: Sequence[Device] | None
    progress: bool | None


class RefineOptions(_Options, total=False):
    """The arguments of `sweep` that do not choose the runs."""

    store: str | Path | None
    label: str


class CompareOptions(_Options, total=False):
    """The arguments of `sweep` that all cells share."""

    axes: Mapping[str, AxisValues] | None
    seeds: Seeds
