"""Every exception of the package survives pickling and copying, as process pools need."""

from __future__ import annotations

import copy
import importlib
import pickle
import pkgutil
from collections.abc import Callable
from concurrent.futures import Executor, Future
from pathlib import Path
from typing import Any

import cloudpickle
import numpy as np
import pytest
import xarray as xr

import causal_sgd
from causal_sgd.sweeps import ExecutorError, StoreError, SweepError, sweep
from causal_sgd.sweeps._scheduler import Failure
from causal_sgd.sweeps.store._arrays import DamagedChunk
from causal_sgd.sweeps.store._objects import Conflict
from causal_sgd.training.algorithms._by_hand import _UnknownError
from causal_sgd.training.algorithms._programs import FactorisationError
from support.executors import CELL

DATASET = xr.Dataset({"loss": ("seed", np.arange(3.0))})
MAKE: dict[type[BaseException], Callable[[], BaseException]] = {
    StoreError: lambda: StoreError("diagram.zarr does not exist"),
    ExecutorError: lambda: ExecutorError("executor accepts no tasks"),
    SweepError: lambda: SweepError("one failed", [Failure(3, ValueError("no"))], DATASET),
    # caught by the package itself
    _UnknownError: _UnknownError,
    FactorisationError: FactorisationError,
    DamagedChunk: lambda: DamagedChunk("is gone"),
    Conflict: lambda: Conflict("status/lease"),
}
COPIES: dict[str, Callable[[BaseException], BaseException]] = {
    "pickle": lambda error: pickle.loads(pickle.dumps(error)),
    "cloudpickle": lambda error: cloudpickle.loads(cloudpickle.dumps(error)),
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
}


def defined() -> set[type[BaseException]]:
    """All exceptions that the modules of the package define."""
    found = set()
    for module in pkgutil.walk_packages(causal_sgd.__path__, "causal_sgd."):
        if module.name.endswith("__main__"):
            continue
        for value in vars(importlib.import_module(module.name)).values():
            if isinstance(value, type) and issubclass(value, BaseException):
                found.add(value)
    return {kind for kind in found if kind.__module__.startswith("causal_sgd")}


def test_every_exception_is_tested() -> None:
    assert defined() == set(MAKE)


@pytest.mark.parametrize("method", COPIES)
@pytest.mark.parametrize("kind", MAKE)
def test_an_exception_survives(kind: type[BaseException], method: str) -> None:
    error = MAKE[kind]()
    error.add_note("in the worker")
    setattr(error, "extra", 1)  # noqa: B010
    found = COPIES[method](error)
    assert type(found) is kind
    assert str(found) == str(error)
    assert vars(found).keys() == vars(error).keys()
    if isinstance(error, SweepError):
        assert isinstance(found, SweepError)
        assert found.dataset.equals(error.dataset)
        (failure,) = found.failures
        assert (failure.unit, repr(failure.error)) == (3, "ValueError('no')")


class Awkward(Exception):
    """Pickles, but cannot be unpickled."""

    def __init__(self, one: int, other: int) -> None:
        super().__init__(f"{one} and {other}")


def test_the_error_of_a_sweep_survives_whatever_a_unit_raised(tmp_path: Path) -> None:
    class Raising(Executor):
        def submit(self, fn: Callable[..., Any], /, *_: Any, **__: Any) -> Future[Any]:
            future: Future[Any] = Future()
            future.set_exception(Awkward(1, 2))
            return future

    with pytest.raises(SweepError, match="1 and 2") as error:
        sweep(CELL, seeds=2, executor=Raising(), store=tmp_path / "own.zarr", retries=0)
    found = pickle.loads(pickle.dumps(error.value))
    assert str(found) == str(error.value)
    assert found.dataset.equals(error.value.dataset)
