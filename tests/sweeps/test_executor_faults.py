"""Executors that cancel, break, hang, were shut down or answer nonsense."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import (
    BrokenExecutor,
    Executor,
    Future,
    ProcessPoolExecutor,
    ThreadPoolExecutor,
)
from typing import Any

import jax
import numpy as np
import pytest

import causal_sgd
from causal_sgd.sweeps import ExecutorError, SweepError, sweep
from causal_sgd.sweeps._executors import Answer
from causal_sgd.types import Trace
from support.cases import few
from support.executors import AXES, CELL, OPTIONS, reference


class Faulty(Executor):
    """Computes at once, but spoils the answers of some tasks."""

    def __init__(
        self, spoil: Callable[[int, Future[Any], Any], None], tasks: tuple[int, ...]
    ) -> None:
        self.spoil, self.tasks, self.count = spoil, tasks, 0

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        answer = fn(*args, **kwargs)
        if self.count in self.tasks:
            self.spoil(self.count, future, answer)
        else:
            future.set_result(answer)
        self.count += 1
        return future


def cancel(_: int, future: Future[Any], __: Any) -> None:
    future.cancel()
    future.set_running_or_notify_cancel()


def break_off(_: int, future: Future[Any], __: Any) -> None:
    future.set_exception(BrokenExecutor("gone"))


def leave(_: int, future: Future[Any], __: Any) -> None:
    future.set_exception(SystemExit(3))


@pytest.mark.parametrize("made", [False, True], ids=["given", "made"])
@pytest.mark.parametrize("spoil", few([cancel, break_off, leave], [cancel, break_off]))
def test_one_answer_that_is_lost_is_tried_again(spoil: Any, made: bool) -> None:
    executor = Faulty(spoil, (1, 4))
    found = sweep(CELL, executor=(lambda: executor) if made else executor, **OPTIONS)
    assert found.equals(reference())


@pytest.mark.parametrize("spoil", [cancel, break_off, leave])
def test_a_tile_whose_answers_are_always_lost_is_named(spoil: Any) -> None:
    text = {cancel: "its task was cancelled", break_off: "its worker died", leave: "SystemExit: 3"}
    executor = Faulty(spoil, (0, *range(6, 20)))
    with pytest.raises(SweepError, match=f"spread 0: {text[spoil]}") as error:
        sweep(CELL, executor=executor, retries=1, **OPTIONS)
    assert error.value.dataset.done.sum() == 20


def nothing(_: int, future: Future[Any], __: Any) -> None:
    future.set_result(None)


def too_few(_: int, future: Future[Any], answer: Answer) -> None:
    future.set_result(answer._replace(outcomes=[]))


def no_traces(_: int, future: Future[Any], answer: Answer) -> None:
    future.set_result(answer._replace(outcomes=[7 for _ in answer.outcomes]))


def of_other_runs(_: int, future: Future[Any], answer: Answer) -> None:
    (trace,) = answer.outcomes
    assert isinstance(trace, Trace)
    future.set_result(answer._replace(outcomes=[trace._replace(diverged_at=np.zeros(3))]))


@pytest.mark.parametrize("spoil", [nothing, too_few, no_traces, of_other_runs])
def test_nonsense_is_refused_by_name_and_the_rest_is_kept(spoil: Any) -> None:
    with pytest.raises(ExecutorError, match="^executor must answer with .*, got ") as error:
        sweep(CELL, executor=Faulty(spoil, (2,)), **OPTIONS)
    assert error.value.dataset is not None
    assert 8 <= error.value.dataset.done.sum() < 24


def test_an_executor_that_returns_no_futures_is_refused_by_name() -> None:
    class NoFutures(Executor):
        def submit(self, *_: Any, **__: Any) -> Any:
            return None

    with pytest.raises(ExecutorError, match="executor must return a future from submit"):
        sweep(CELL, executor=NoFutures(), **OPTIONS)


@pytest.mark.parametrize("made", [False, True], ids=["given", "made"])
def test_an_executor_that_was_shut_down_is_refused_by_name(tmp_path, made: bool) -> None:
    executor = ThreadPoolExecutor(1)
    executor.shutdown()
    with pytest.raises(ExecutorError, match="must not be shut down before the sweep ends"):
        sweep(CELL, executor=(lambda: executor) if made else executor, **OPTIONS)


def hanging(where: float) -> Callable[..., Trace]:
    """A cell that does not answer at one value of the spread."""

    def reach(spread: np.ndarray) -> np.ndarray:
        if spread == where:
            time.sleep(600)
        return np.zeros((), np.float32)

    def cell(key: jax.Array, *, spread: Any, learning_rate: Any) -> Trace:
        zero = jax.pure_callback(
            reach, jax.ShapeDtypeStruct((), np.float32), spread, vmap_method="sequential"
        )
        return CELL(key, spread=spread + zero, learning_rate=learning_rate)

    return cell


@pytest.mark.long
@pytest.mark.slow
def test_a_worker_that_hangs_is_replaced_and_does_not_outlive_the_sweep() -> None:
    def pool() -> Executor:
        executor = ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"))
        executor.submit(reference).result()  # its start is no part of the time that a tile takes
        return executor

    options: dict[str, Any] = OPTIONS | {"axes": AXES | {"learning_rate": [0.2]}}
    with pytest.raises(SweepError, match=r"1 of the sweep's .*\n.*spread 0: no answer") as error:
        sweep(
            hanging(0.0),
            executor=pool,
            timeout=20.0,
            retries=0,
            **options,
        )
    assert error.value.dataset.done.sum("seed").values.ravel().tolist() == [0, 4, 4]
    deadline = time.monotonic() + 100
    while multiprocessing.active_children() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not multiprocessing.active_children()


FORKING = """
import multiprocessing
import sys
import warnings
from concurrent.futures import ProcessPoolExecutor
import jax
from causal_sgd.sweeps import sweep
from support.executors import CELL, OPTIONS
warnings.simplefilter("ignore")  # jax's and Python's on forks

def swept(**options):
    try:
        return dict(sweep(CELL, **OPTIONS, **options).sizes)
    except Exception as error:
        return f"{type(error).__name__}: {error}"

fork = multiprocessing.get_context("fork")
early, late = (ProcessPoolExecutor(1, fork) for _ in range(2))
early.submit(int).result()
print(swept(executor=early))
late.submit(int).result()
print(swept(executor=late))
with ProcessPoolExecutor(1, fork) as pool:
    print(pool.submit(swept).result())
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_only_processes_forked_before_jax_starts_compute() -> None:
    command = [sys.executable, "-c", FORKING]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    found = subprocess.run(
        command, capture_output=True, text=True, env=environment, timeout=120, check=True
    )
    early, late, inside = found.stdout.splitlines()
    assert early == str(dict(reference().sizes))
    refused = "must not be forked after jax has started"
    assert late.startswith(f"ExecutorError: the processes of executor {refused}")
    assert inside.startswith(f"ValueError: the process of a sweep {refused}")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
@pytest.mark.parametrize("made", [False, True], ids=["given", "made"])
def test_a_pool_that_would_fork_is_refused_before_anything_is_stored(tmp_path, made: bool) -> None:
    executor = ProcessPoolExecutor(1, multiprocessing.get_context("fork"))
    path = tmp_path / "own.zarr"
    with pytest.raises(ValueError, match="^the processes of executor must not be forked"):
        sweep(CELL, executor=(lambda: executor) if made else executor, store=path, **OPTIONS)
    assert made or not path.exists()


def test_a_cell_that_cannot_be_sent_to_workers_is_refused_by_name() -> None:
    lock = threading.Lock()

    def cell(key: jax.Array, *, spread: Any, learning_rate: Any) -> Trace:
        assert not lock.locked()
        return CELL(key, spread=spread, learning_rate=learning_rate)

    with pytest.raises(ValueError, match="cell must be a function that cloudpickle can pickle"):
        sweep(cell, executor=ThreadPoolExecutor, **OPTIONS)


def test_a_timeout_needs_an_executor() -> None:
    with pytest.raises(ValueError, match="timeout must be None without an executor"):
        sweep(CELL, timeout=3.0, **OPTIONS)
    with pytest.raises(ValueError, match="timeout must be a finite number above 0"):
        sweep(CELL, timeout=0, executor=ThreadPoolExecutor, **OPTIONS)


@pytest.mark.parametrize("how", [ThreadPoolExecutor, lambda: ThreadPoolExecutor(1)])
def test_a_timeout_is_refused_for_threads_which_cannot_be_stopped(how: Any, tmp_path) -> None:
    message = "timeout must be None with an executor of threads"
    with pytest.raises(ValueError, match=message):
        sweep(CELL, timeout=3.0, executor=how, **OPTIONS)
    with ThreadPoolExecutor(1) as executor, pytest.raises(ValueError, match=message):
        sweep(CELL, timeout=3.0, executor=executor, store=tmp_path / "own.zarr", **OPTIONS)
    assert not (tmp_path / "own.zarr").exists()


class Job:
    """A job of a cluster's queue."""

    def __init__(self, done: Callable[[], bool]) -> None:
        self.done = done

    def result(self) -> str:
        return "result"

    def cancel(self) -> None:
        pass


class Queue:
    """A queue that accepts two jobs."""

    def __init__(self) -> None:
        self.jobs = [Job(lambda: True), Job(lambda: bool(1 / 0))]

    def submit(self, fn: Callable[..., Any], /, *args: object, **kwargs: object) -> Any:
        return self.jobs.pop()


def test_jobs_that_a_queue_refuses_or_loses_end_with_their_errors() -> None:
    executor = causal_sgd.slurm(Queue(), poll=0.01)
    lost, well, refused = (executor.submit(print) for _ in range(3))
    assert isinstance(lost.exception(10), ZeroDivisionError)
    assert well.result(10) == "result", "the thread that watches the jobs goes on"
    assert isinstance(refused.exception(10), IndexError)
    executor.shutdown()
    with pytest.raises(RuntimeError, match="after shutdown"):
        executor.submit(print)
