"""Ctrl-C in Python says how many runs are kept, and the same call goes on."""

from __future__ import annotations

import signal
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any

import pytest

import causal_sgd
from causal_sgd.sweeps import compare, sweep
from support.executors import CELL, OPTIONS, reference


class Interrupted(Executor):
    """Computes at once, but Ctrl-C comes after some tasks."""

    def __init__(self, after: int) -> None:
        self.left = after

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        if not self.left:
            signal.raise_signal(signal.SIGINT)
        self.left -= 1
        future: Future[Any] = Future()
        future.set_result(fn(*args, **kwargs))
        return future


def test_of_a_sweep(tmp_path) -> None:
    path = tmp_path / "own.zarr"
    with pytest.raises(
        KeyboardInterrupt, match="^8 of 24 runs are kept in .*own.zarr; the same call goes on"
    ):
        sweep(CELL, store=path, executor=Interrupted(2), **OPTIONS)
    with pytest.raises(KeyboardInterrupt, match="^12 of 24 runs are kept in"):
        sweep(CELL, store=path, executor=Interrupted(1), **OPTIONS)
    assert sweep(CELL, store=path, **OPTIONS).equals(reference())


@pytest.mark.slow
def test_without_a_store() -> None:
    with pytest.raises(
        KeyboardInterrupt, match="^0 of 24 runs are kept: only with store=PATH, the same call"
    ):
        sweep(CELL, executor=Interrupted(2), **OPTIONS)


@pytest.mark.slow
def test_of_a_comparison(tmp_path) -> None:
    def other(key: Any, *, spread: Any, learning_rate: Any) -> Any:
        return CELL(key, spread=2 * spread, learning_rate=learning_rate)

    cells = {"one": CELL, "other": other}
    options: dict[str, Any] = {"store": tmp_path / "both", **OPTIONS}
    with pytest.raises(KeyboardInterrupt, match="^32 of 48 runs are kept in .*both; the same"):
        compare(cells, executor=Interrupted(8), **options)
    assert compare(cells, **options).sel(variant="one", drop=True).equals(reference())


@pytest.mark.slow
def test_of_a_refinement(tmp_path) -> None:
    options: dict[str, Any] = {
        "axes": {"spread": [0.0, 1.0, 2.0, 4.0]},
        "level": 0.5,
        "first_seeds": 4,
        "max_seeds": 8,
        "tile": 4,
        "store": tmp_path / "own.zarr",
    }
    with pytest.raises(KeyboardInterrupt, match="^8 runs are kept in .*own.zarr; the same call"):
        causal_sgd.refine(CELL, executor=Interrupted(2), **options)
    found = causal_sgd.refine(CELL, **options)
    options["store"] = None
    assert found.equals(causal_sgd.refine(CELL, **options))
