"""Several studies at a time, each in a process of its own.

A study traces, compiles and draws on one core; another one uses the rest of them meanwhile. All
processes compute on all cores, so that the last study has them all.
"""

from __future__ import annotations

import contextlib
import functools
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import connection
from typing import TypeVar

__all__ = ["default_jobs", "side_by_side"]

MOST = 4  # each study has gigabytes of its own at times
TaskT = TypeVar("TaskT")
ResultT = TypeVar("ResultT")


def default_jobs() -> int:
    """The number of studies at a time: one on an accelerator, whose memory one process takes."""
    from causal_sgd.sweeps import _machine

    accelerated = _machine.present_devices()[0].platform != "cpu"
    return 1 if accelerated else min(_machine.cores(), MOST)


def side_by_side(
    function: Callable[[TaskT], ResultT], tasks: Sequence[TaskT], *, jobs: int
) -> Iterator[tuple[TaskT, ResultT | None]]:
    """Call a function of tasks in processes, in the order of the tasks.

    A process that dies, as for want of memory, takes all others of its pool with it. Their tasks
    are repeated, one at a time.

    Args:
        function: called with each task; both are pickled.
        tasks: its arguments.
        jobs: the number of processes.

    Yields:
        (task, result) as they are finished; None for a task whose process dies when it is alone.

    Raises:
        Exception: whatever `function` raises.
    """
    left = list(tasks)
    while left:
        for task in (yield from _until_one_dies(function, left, jobs)):
            left.remove(task)
            if (yield from _until_one_dies(function, [task], 1)):
                yield task, None


def _until_one_dies(
    function: Callable[[TaskT], ResultT], left: list[TaskT], jobs: int
) -> Generator[tuple[TaskT, ResultT], None, list[TaskT]]:
    """Yield what is finished and remove it from `left`; return what ran when a process died."""
    waiting = iter(list(left))
    running: dict[Future[ResultT], TaskT] = {}
    with _pool(jobs) as pool:
        while True:
            try:
                for task in waiting:
                    running[pool.submit(function, task)] = task
                    if len(running) == jobs:
                        break
                if not running:
                    return []
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    result = future.result()
                    task = running.pop(future)
                    left.remove(task)
                    yield task, result
            except BrokenProcessPool:
                return list(running.values())


@contextlib.contextmanager
def _pool(jobs: int) -> Iterator[ProcessPoolExecutor]:
    """Processes, which end with the context, whatever they do then."""
    before = multiprocessing.active_children()
    spawned = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(jobs, mp_context=spawned, initializer=_prepare)
    try:
        yield pool
    except BaseException:
        for child in multiprocessing.active_children():
            if child not in before:
                child.kill()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def _prepare() -> None:
    """Prepare a process: leave Ctrl-C to its parent, and end with it."""
    from causal_sgd.sweeps import use_cpu_cores

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None, "a process of the pool has one"
    end = functools.partial(_end_with, parent.sentinel)
    threading.Thread(target=end, daemon=True).start()
    use_cpu_cores()
    import matplotlib as mpl

    mpl.use("Agg")


def _end_with(sentinel: int) -> None:
    connection.wait([sentinel])
    os._exit(1)
