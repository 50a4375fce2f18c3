"""Jobs of a cluster's queue as an executor for `sweep`."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any, ParamSpec, Protocol, TypeVar

from causal_sgd import checks

__all__ = ["Slurm", "slurm"]

P = ParamSpec("P")
T = TypeVar("T")
Result = TypeVar("Result", covariant=True)


class Submitted(Protocol[Result]):
    """A submitit job."""

    def done(self) -> bool:
        """Whether it succeeded, failed or was lost."""
        ...

    def result(self) -> Result:
        """What it returned; raises if it failed or was lost."""
        ...

    def cancel(self) -> None:
        """Take it off the queue, or end it."""
        ...


class Queue(Protocol):
    """A submitit executor."""

    def submit(self, fn: Callable[..., T], /, *args: object, **kwargs: object) -> Submitted[T]:
        """Submit the call of a function as one job."""
        ...


def slurm(executor: Queue, *, poll: float = 2.0) -> Slurm:
    """Submit the tasks of a sweep as jobs of a cluster's queue.

    Args:
        executor: a submitit executor (`pip install 'causal_sgd[slurm]'`) with its partition, time,
            ... set.
        poll: seconds between two checks of the jobs.

    Returns:
        An executor for `sweep(..., executor=..., tiles_per_task=...)`; every task is one job.

    Raises:
        ValueError: if `executor` cannot submit jobs.
    """
    if not hasattr(executor, "submit"):
        raise ValueError(f"executor must be one of submitit's, got {executor!r}")
    return Slurm(executor, checks.number("poll", poll, above=0, double=True))


class Slurm(Executor):
    """The jobs of a submitit executor as futures; see `slurm`."""

    def __init__(self, executor: Queue, poll: float) -> None:
        """Start the thread that watches the jobs."""
        self._executor, self._poll = executor, poll
        self._jobs: list[tuple[Submitted[Any], Future[Any]]] = []
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._watcher = threading.Thread(target=self._watch, name="slurm", daemon=True)
        self._watcher.start()

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Submit one job; the future of a job that the queue refuses has the error."""
        if self._stop.is_set():
            raise RuntimeError("cannot schedule new futures after shutdown")
        future: Future[T] = Future()
        try:
            job = self._executor.submit(fn, *args, **kwargs)
        except Exception as error:  # such as a limit on the number of jobs
            future.set_exception(error)
            return future
        with self._lock:
            self._jobs.append((job, future))
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Stop watching; wait for the remaining jobs, or cancel them."""
        while wait and not cancel_futures and self._jobs:
            time.sleep(self._poll)
        self._stop.set()
        self._watcher.join()
        for job, future in self._jobs:
            if cancel_futures:
                job.cancel()
            future.cancel()

    def _watch(self) -> None:
        while not self._stop.wait(self._poll):
            with self._lock:
                jobs = list(self._jobs)
            for job, future in jobs:
                # An error here must not end the thread, or no job would ever be answered.
                try:
                    if future.cancelled():
                        job.cancel()
                    elif not job.done():
                        continue
                    elif future.set_running_or_notify_cancel():
                        future.set_result(job.result())
                except Exception as error:  # the job failed or was lost
                    if not future.cancelled():
                        future.set_exception(error)
                with self._lock:
                    self._jobs.remove((job, future))
