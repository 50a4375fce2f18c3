"""Give tiles to a backend until all are done: retries, lost workers, interruption."""

from __future__ import annotations

import collections
import contextlib
import queue
from collections.abc import Callable, Sequence
from concurrent.futures import BrokenExecutor, CancelledError, Future
from typing import NamedTuple

from causal_sgd.sweeps._executors import Answer, Backend
from causal_sgd.sweeps._grid import Columns
from causal_sgd.sweeps._provenance import Environment
from causal_sgd.types import Trace

__all__ = ["ExecutorError", "Failure", "schedule"]

HOPELESS = 3  # after this many failures and no success, the remaining units are not tried
TICK = 1.0  # seconds

Collect = Callable[[int, Trace, Environment], None]


class ExecutorError(RuntimeError):
    """The executor broke and cannot be replaced."""


class Failure(NamedTuple):
    """A unit that failed in every attempt."""

    unit: int
    error: Exception


def schedule(
    units: Sequence[int],
    columns: Callable[[int], Columns],
    backend: Backend,
    collect: Collect,
    *,
    retries: int = 2,
    tiles_per_task: int = 1,
    tick: Callable[[], None] = lambda: None,
) -> list[Failure]:
    """Compute every unit, and pass on each trace as soon as it arrives.

    A unit that fails is retried on the next free worker. If an executor breaks while several tasks
    are running, it is replaced and each of their units is retried alone, so that a unit that kills
    its worker is told apart from its neighbours. If an exception stops the sweep, including Ctrl-C,
    tasks that are running on local devices are still collected.

    Args:
        units: the numbers of the units.
        columns: unit -> its input.
        backend: where to compute.
        collect: (unit, trace, environment), called in this thread; an exception ends the sweep.
        retries: attempts after the first one.
        tiles_per_task: units in one task of the backend.
        tick: called about once a second.

    Returns:
        The units that failed for good. If the first few all do, the others are not tried.

    Raises:
        ExecutorError: if the executor broke and cannot be replaced.
    """
    state = _Schedule(columns, backend, collect, retries)
    state.waiting.extend(
        list(units[i : i + tiles_per_task]) for i in range(0, len(units), tiles_per_task)
    )
    try:
        while state.unfinished():
            state.feed()
            with contextlib.suppress(queue.Empty):
                state.settle(state.finished.get(timeout=TICK))
            tick()
    except BaseException:
        state.stop()
        raise
    return state.failures


class _Schedule:
    """Waiting and running tasks, and failures."""

    def __init__(
        self, columns: Callable[[int], Columns], backend: Backend, collect: Collect, retries: int
    ) -> None:
        self.columns, self.backend, self.collect, self.retries = columns, backend, collect, retries
        self.waiting: collections.deque[list[int]] = collections.deque()
        # Units that were running when a worker died.
        self.suspects: collections.deque[int] = collections.deque()
        self.isolating = False  # whether a suspect is running
        self.running: dict[Future[Answer], list[int]] = {}
        self.finished: queue.SimpleQueue[Future[Answer]] = queue.SimpleQueue()
        self.attempts: collections.Counter[int] = collections.Counter()  # that failed
        self.failures: list[Failure] = []
        self.succeeded = 0

    def unfinished(self) -> bool:
        return bool(self.waiting or self.suspects or self.running)

    def feed(self) -> None:
        """Keep the backend busy; a suspect runs alone."""
        if len(self.failures) >= HOPELESS and not self.succeeded:
            self.waiting.clear()
            self.suspects.clear()
        if self.running and (self.suspects or self.isolating):
            return
        self.isolating = bool(self.suspects)
        if self.isolating:
            self.start([self.suspects.popleft()])
            return
        while self.waiting and len(self.running) < self.backend.window:
            self.start(self.waiting.popleft())

    def start(self, task: list[int]) -> None:
        try:
            future = self.backend.submit([self.columns(unit) for unit in task])
        except BrokenExecutor as error:
            self.suspects.extend(task)
            self.replace(error)
            return
        self.running[future] = task
        future.add_done_callback(self.finished.put)

    def settle(self, future: Future[Answer]) -> None:
        """Process a finished task; one that was processed before is ignored."""
        task = self.running.pop(future, None)
        if task is None:
            return
        try:
            answer = future.result()
        except (BrokenExecutor, CancelledError) as error:
            self.recover(task, error)
        except Exception as error:  # the worker was lost, or its answer could not be sent
            if len(task) == 1:
                self.retry(task[0], error)
            else:
                self.waiting.extend([unit] for unit in task)
        else:
            for unit, outcome in zip(task, answer.outcomes, strict=True):
                if isinstance(outcome, Exception):
                    self.retry(unit, outcome)
                else:
                    self.collect(unit, outcome, answer.environment)
                    self.succeeded += 1

    def retry(self, unit: int, error: Exception) -> bool:
        """Record a failure and reschedule the unit; return whether it will be retried."""
        self.attempts[unit] += 1
        if self.attempts[unit] > self.retries:
            self.failures.append(Failure(unit, error))
            return False
        self.waiting.append([unit])
        return True

    def recover(self, task: list[int], error: BaseException) -> None:
        """Replace an executor that broke under a task, and reschedule all tasks it was running."""
        units = list(task)
        for other in list(self.running):  # a broken executor ends all its futures at once
            with contextlib.suppress(Exception, CancelledError):
                other.exception(timeout=60)
            if other.cancelled() or (
                other.done() and isinstance(other.exception(), BrokenExecutor)
            ):
                units += self.running.pop(other)
            else:
                self.settle(other)
        if len(units) > 1:
            self.suspects.extend(units)
        elif self.retry(
            units[0], RuntimeError(f"its worker died ({error or type(error).__name__})")
        ):
            self.suspects.append(self.waiting.pop()[0])
        if self.unfinished():
            self.replace(error)

    def replace(self, error: BaseException) -> None:
        if not self.backend.renew():
            raise ExecutorError(
                f"the executor broke ({type(error).__name__}: {error}); give sweep a function that "
                "makes the executor, and it is replaced when a worker dies"
            ) from error

    def stop(self) -> None:
        """Cancel tasks that have not started and, on local devices, collect those that have."""
        for future in self.running:
            future.cancel()
        if self.backend.waits:
            for future in list(self.running):
                if not future.cancelled():
                    with contextlib.suppress(Exception):  # the first error is the one to report
                        self.settle(future)
