"""Give tiles to a backend until all are done: retries, lost or hanging workers, interruption."""

from __future__ import annotations

import collections
import contextlib
import pickle
import queue
import time
from collections.abc import Callable, Sequence
from concurrent.futures import BrokenExecutor, CancelledError, Future
from typing import NamedTuple

from causal_sgd.sweeps._executors import Answer, Backend, ExecutorError
from causal_sgd.sweeps._grid import Columns
from causal_sgd.sweeps._provenance import Environment
from causal_sgd.types import Trace

__all__ = ["ExecutorError", "Failure", "schedule"]

HOPELESS = 3  # after this many failures and no success, the remaining units are not tried
TICK = 1.0  # seconds

Collect = Callable[[int, Trace, Environment], None]


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
    timeout: float | None = None,
    tick: Callable[[], None] = lambda: None,
) -> list[Failure]:
    """Compute every unit, and pass on each trace as soon as it arrives.

    A unit that fails, or whose task is cancelled, is retried on the next free worker. If a worker
    dies or hangs while several tasks are running, each of their units is retried alone, so that a
    unit that kills its worker is told apart from its neighbours. An executor that accepts no more
    tasks, or hangs, is replaced if possible. If an exception stops the sweep, including Ctrl-C,
    tasks that are running on local devices are still collected.

    Args:
        units: the numbers of the units.
        columns: unit -> its input.
        backend: where to compute.
        collect: (unit, trace, environment), called in this thread; an exception ends the sweep.
        retries: attempts after the first one.
        tiles_per_task: units in one task of the backend.
        timeout: seconds without any answer after which running tasks are given up; None to wait.
        tick: called about once a second.

    Returns:
        The units that failed for good. If the first few all do, the others are not tried.

    Raises:
        ExecutorError: if the executor accepts no tasks and cannot be replaced, or does not return
            what the tasks return.
    """
    state = _Schedule(columns, backend, collect, retries, timeout)
    state.waiting.extend(
        list(units[i : i + tiles_per_task]) for i in range(0, len(units), tiles_per_task)
    )
    patience = TICK if timeout is None else min(TICK, timeout)
    try:
        while state.unfinished():
            state.feed()
            try:
                state.settle(state.finished.get(timeout=patience))
            except queue.Empty:
                state.give_up()
            tick()
    except BaseException:
        state.stop()
        raise
    return state.failures


class _Schedule:
    """Waiting and running tasks, and failures."""

    def __init__(
        self,
        columns: Callable[[int], Columns],
        backend: Backend,
        collect: Collect,
        retries: int,
        timeout: float | None,
    ) -> None:
        self.columns, self.backend, self.collect = columns, backend, collect
        self.retries, self.timeout = retries, timeout
        self.waiting: collections.deque[list[int]] = collections.deque()
        # Units that were running when a worker died or the executor hung.
        self.suspects: collections.deque[int] = collections.deque()
        self.isolating = False  # whether a suspect is running
        self.running: dict[Future[Answer], list[int]] = {}
        self.finished: queue.SimpleQueue[Future[Answer]] = queue.SimpleQueue()
        self.attempts: collections.Counter[int] = collections.Counter()  # that failed
        self.failures: list[Failure] = []
        self.succeeded = 0
        self.refused = False  # whether the executor refused the last task
        self.last_event = 0.0  # when a task was last accepted or answered

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
        tiles = [self.columns(unit) for unit in task]
        try:
            future = self.backend.submit(tiles)
        except ExecutorError:
            raise
        except Exception as error:  # it is broken or was shut down
            self.replace(error)
            self.start(task)
            return
        self.refused = False
        self.last_event = time.monotonic()
        self.running[future] = task
        future.add_done_callback(self.finished.put)

    def settle(self, future: Future[Answer]) -> None:
        """Process a finished task; one that was processed or given up before is ignored."""
        task = self.running.pop(future, None)
        if task is None:
            return
        self.last_event = time.monotonic()
        try:
            error = future.exception()
        except CancelledError:
            error = RuntimeError("its task was cancelled")
        if error is None:
            self.accept(task, future.result())
        elif isinstance(error, ExecutorError):
            raise error
        elif isinstance(error, BrokenExecutor):
            error = RuntimeError(f"its worker died ({error or type(error).__name__})")
            # The last of several tasks that a worker's death ended was not alone either.
            alone = self.isolating or not (self.running or self.suspects)
            self.suspect(task, error, alone=alone)
        elif len(task) == 1:  # the worker was lost, or its answer could not be sent
            if self.fail(task[0], error):
                self.waiting.append(task)
        else:
            self.waiting.extend([unit] for unit in task)

    def accept(self, task: list[int], answer: Answer) -> None:
        """Collect the results of a task."""
        if (
            not isinstance(answer, Answer)
            or len(answer.outcomes) != len(task)
            or not all(isinstance(each, Trace | Exception) for each in answer.outcomes)
        ):
            raise ExecutorError(
                "executor must answer with what the submitted function returns, an Answer for "
                f"{len(task)} tiles, got {answer!r:.200}"
            )
        for unit, outcome in zip(task, answer.outcomes, strict=True):
            if not isinstance(outcome, Exception):
                self.collect(unit, outcome, answer.environment)
                self.succeeded += 1
            elif self.fail(unit, outcome):
                self.waiting.append([unit])

    def fail(self, unit: int, error: BaseException) -> bool:
        """Count a failed attempt; return whether the unit is to be tried again."""
        self.attempts[unit] += 1
        if self.attempts[unit] <= self.retries:
            return True
        self.failures.append(Failure(unit, _portable(error)))
        return False

    def suspect(self, units: Sequence[int], error: BaseException, *, alone: bool) -> None:
        """Retry units whose worker died or hung; that is their failure if one of them ran alone."""
        if alone and len(units) == 1:
            units = [unit for unit in units if self.fail(unit, error)]
        self.suspects.extend(units)

    def give_up(self) -> None:
        """Give up all tasks that are running if there was no answer for too long."""
        if self.timeout is None or time.monotonic() - self.last_event < self.timeout:
            return
        late = [future for future in self.running if not future.done()]
        tasks = [(future, self.running.pop(future)) for future in late]
        # A task that can be cancelled has not started, unless the executor never tells.
        queued = [task for future, task in tasks if future.cancel()]
        hanging = [task for future, task in tasks if not future.cancelled()]
        if not hanging:
            hanging, queued = queued, []
        self.waiting.extend(queued)
        error = TimeoutError(f"no answer for {self.timeout:g} s")
        if self.backend.renew():
            units = [unit for task in hanging for unit in task]
            self.suspect(units, error, alone=True)
            return
        for task in hanging:  # its workers stay occupied, so that trying each alone could take long
            if len(task) > 1 or self.fail(task[0], error):
                self.waiting.extend([unit] for unit in task)

    def replace(self, error: Exception) -> None:
        """Replace an executor that accepts no tasks."""
        if self.refused or not self.backend.renew():
            reason = f"executor accepts no tasks ({type(error).__name__}: {error})"
            if not isinstance(error, BrokenExecutor):
                raise ExecutorError(
                    f"{reason}: it must not be shut down before the sweep ends"
                ) from error
            raise ExecutorError(
                f"{reason}: a worker died; give sweep a function that makes the executor, and it "
                "is replaced"
            ) from error
        self.refused = True

    def stop(self) -> None:
        """Cancel tasks that have not started and, on local devices, collect those that have."""
        for future in self.running:
            future.cancel()
        for future in list(self.running):
            if (self.backend.waits or future.done()) and not future.cancelled():
                with contextlib.suppress(Exception):  # the first error is the one to report
                    self.settle(future)


def _portable(error: BaseException) -> Exception:
    """The error, or its text where it cannot be pickled or would stop Python."""
    if isinstance(error, Exception):
        with contextlib.suppress(Exception):
            pickle.loads(pickle.dumps(error))
            return error
    return RuntimeError(f"{type(error).__name__}: {error}")
