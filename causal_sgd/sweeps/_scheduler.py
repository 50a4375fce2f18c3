"""Give tiles to a backend until all are done: retries, lost workers, tiles that always fail, interruption."""

from __future__ import annotations

import collections
import contextlib
import queue
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import BrokenExecutor, CancelledError, Future
from typing import Any, NamedTuple

from causal_sgd.sweeps._executors import Answer, Backend
from causal_sgd.sweeps._grid import Columns
from causal_sgd.types import Trace

__all__ = ["ExecutorError", "Failure", "dispatch"]

HOPELESS = 3  # so many units fail and not one succeeds: the rest is not tried
TICK = 1.0  # seconds

Collect = Callable[[int, Trace, Mapping[str, Any]], None]


class ExecutorError(RuntimeError):
    """The executor broke and cannot be replaced."""


class Failure(NamedTuple):
    """A unit of work that failed as often as it was tried."""

    unit: int
    error: Exception


def dispatch(
    units: Sequence[int],
    columns: Callable[[int], Columns],
    backend: Backend,
    collect: Collect,
    *,
    retries: int = 2,
    tiles_per_task: int = 1,
    tick: Callable[[], None] = lambda: None,
) -> list[Failure]:
    """Compute every unit of work and hand its trace over as soon as it is there.

    A unit that fails is tried again, on whichever worker is free. Where an executor breaks with several tasks under way
    it is replaced and each of their units is tried alone, so that one that kills its worker is told from those beside it.
    When the sweep is stopped by an exception, Ctrl-C among them, what is under way on local devices is still collected.

    Args:
        units: the numbers of the units.
        columns: unit -> its input.
        backend: where to compute.
        collect: (unit, trace, environment), called in this thread; what it raises ends everything.
        retries: how often a failed unit is tried again.
        tiles_per_task: units in one task of the backend.
        tick: called about once a second.

    Returns:
        The units that failed for good; where the first few all do, the rest is not tried.

    Raises:
        ExecutorError: where the executor broke and cannot be replaced.
    """
    table = _Dispatch(columns, backend, collect, retries)
    table.waiting.extend(
        list(units[i : i + tiles_per_task]) for i in range(0, len(units), tiles_per_task)
    )
    try:
        while table.unfinished():
            table.feed()
            with contextlib.suppress(queue.Empty):
                table.settle(table.finished.get(timeout=TICK))
            tick()
    except BaseException:
        table.stop()
        raise
    return table.failures


class _Dispatch:
    """The state of a dispatch: tasks that wait, those under way, and what failed."""

    def __init__(
        self, columns: Callable[[int], Columns], backend: Backend, collect: Collect, retries: int
    ) -> None:
        self.columns, self.backend, self.collect, self.retries = columns, backend, collect, retries
        self.waiting: collections.deque[list[int]] = collections.deque()
        self.suspects: collections.deque[int] = (
            collections.deque()
        )  # each was under way when a worker died
        self.alone = False  # whether what is under way is a suspect
        self.running: dict[Future[Answer], list[int]] = {}
        self.finished: queue.SimpleQueue[Future[Answer]] = queue.SimpleQueue()
        self.tried: collections.Counter[int] = collections.Counter()
        self.failures: list[Failure] = []
        self.succeeded = 0

    def unfinished(self) -> bool:
        return bool(self.waiting or self.suspects or self.running)

    def feed(self) -> None:
        """Keep the backend busy; a suspect is tried with nothing beside it."""
        if len(self.failures) >= HOPELESS and not self.succeeded:
            self.waiting.clear()
            self.suspects.clear()
        if self.running and (self.suspects or self.alone):
            return
        self.alone = bool(self.suspects)
        if self.alone:
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
        """Take what a task gave; one that was dealt with already is ignored."""
        task = self.running.pop(future, None)
        if task is None:
            return
        try:
            answer = future.result()
        except (BrokenExecutor, CancelledError) as error:
            self.lost(task, error)
        except Exception as error:  # the worker was lost, or could not answer
            if len(task) == 1:
                self.failed(task[0], error)
            else:
                self.waiting.extend([unit] for unit in task)
        else:
            for unit, outcome in zip(task, answer.outcomes, strict=True):
                if isinstance(outcome, Exception):
                    self.failed(unit, outcome)
                else:
                    self.collect(unit, outcome, answer.environment)
                    self.succeeded += 1

    def failed(self, unit: int, error: Exception) -> bool:
        """Whether the unit is tried again."""
        self.tried[unit] += 1
        if self.tried[unit] > self.retries:
            self.failures.append(Failure(unit, error))
            return False
        self.waiting.append([unit])
        return True

    def lost(self, task: list[int], error: BaseException) -> None:
        """The executor broke under a task: a new one, and everything that was under way once more."""
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
        elif self.failed(
            units[0], RuntimeError(f"its worker died ({error or type(error).__name__})")
        ):
            self.suspects.append(self.waiting.pop()[0])
        if self.unfinished():
            self.replace(error)

    def replace(self, error: BaseException) -> None:
        if not self.backend.renew():
            raise ExecutorError(
                f"the executor broke ({type(error).__name__}: {error}); give sweep a function that makes the executor, and "
                "it is replaced when a worker dies"
            ) from error

    def stop(self) -> None:
        """Cancel what has not begun and, on local devices, collect what has."""
        for future in self.running:
            future.cancel()
        if self.backend.waits:
            for future in list(self.running):
                if not future.cancelled():
                    with contextlib.suppress(Exception):  # the first error is the one to tell
                        self.settle(future)
