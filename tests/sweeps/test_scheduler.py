"""The scheduler, with a scripted backend."""

from __future__ import annotations

import threading
import time
import types
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any

import numpy as np
import pytest

from causal_sgd.sweeps import _scheduler
from causal_sgd.sweeps._executors import Answer
from causal_sgd.sweeps._scheduler import schedule
from causal_sgd.types import Trace


class Scripted:
    """Answers at once, or does what a script says for a unit's n-th attempt."""

    waits = True

    def __init__(self, script: Callable[[int, int, int], Any], window: int = 3) -> None:
        self.script, self.window = script, window
        self.attempts: dict[int, int] = {}
        self.most = 0
        self.pools = [ThreadPoolExecutor(window)]
        self.under_way = 0
        self.begun: list[int] = []
        self.futures: list[Future[Answer]] = []
        self.lock = threading.Lock()

    def submit(self, tiles: Sequence[Any]) -> Future[Answer]:
        units = [int(columns[0][0]) for columns in tiles]
        for unit in units:
            self.attempts[unit] = self.attempts.get(unit, 0) + 1
        with self.lock:
            self.under_way += 1
            self.most = max(self.most, self.under_way)
        future = self.pools[-1].submit(self._answer, units)
        self.futures.append(future)
        return future

    def _answer(self, units: list[int]) -> Answer:
        self.begun += units
        try:
            time.sleep(0.002)
            return Answer({}, [self._outcome(unit) for unit in units])
        finally:
            with self.lock:
                self.under_way -= 1

    def _outcome(self, unit: int) -> Any:
        outcome = self.script(unit, self.attempts[unit], self.under_way)
        if isinstance(outcome, BaseException) and not isinstance(outcome, ValueError):
            raise outcome
        return outcome if outcome is not None else trace(unit)

    def close(self) -> None:
        pass

    def renew(self) -> bool:
        self.pools.append(ThreadPoolExecutor(self.window))
        return True


def trace(unit: int) -> Trace:
    return Trace(np.zeros((1, 1)), {"unit": np.array([unit])}, np.array([-1]))  # pyright: ignore


def scheduled(
    backend: Scripted, units: int = 20, **options: Any
) -> tuple[list[int], dict[int, str]]:
    done: list[int] = []

    def collect(unit: int, found: Trace, _: Any) -> None:
        assert found.metrics["unit"][0] == unit
        done.append(unit)

    failures = schedule(
        list(range(units)), lambda unit: (np.array([unit]),), backend, collect, **options
    )
    return done, {failure.unit: str(failure.error) for failure in failures}


@pytest.mark.parametrize("group", [1, 3, 50])
def test_every_unit_is_done_once_within_the_window(group: int) -> None:
    backend = Scripted(lambda *_: None)
    done, failures = scheduled(backend, tiles_per_task=group)
    assert sorted(done) == list(range(20))
    assert not failures
    assert backend.most <= backend.window
    assert set(backend.attempts.values()) == {1}


def test_failures_are_retried_and_then_reported() -> None:
    def script(unit: int, attempt: int, _: int) -> Any:
        if unit == 3 or (unit == 5 and attempt < 3) or (unit == 6 and attempt < 2):
            return ValueError(f"attempt {attempt}")
        return None

    backend = Scripted(script)
    done, failures = scheduled(backend, retries=2)
    assert sorted(done) == sorted(set(range(20)) - {3})
    assert failures == {3: "attempt 3"}
    assert (backend.attempts[3], backend.attempts[5], backend.attempts[6]) == (3, 3, 2)


def test_an_answer_that_is_lost_counts_against_its_units_alone() -> None:
    backend = Scripted(lambda unit, attempt, _: OSError("lost") if unit == 4 else None)
    done, failures = scheduled(backend, retries=1, tiles_per_task=5)
    assert sorted(done) == sorted(set(range(20)) - {4})
    assert failures == {4: "lost"}


def test_a_breaking_unit_is_isolated() -> None:
    beside = []

    def script(unit: int, attempt: int, under_way: int) -> Any:
        if unit == 7:
            beside.append(under_way)
            return BrokenProcessPool("gone")
        return None

    backend = Scripted(script)
    done, failures = scheduled(backend, retries=1)
    assert sorted(done) == sorted(set(range(20)) - {7})
    assert failures == {7: "its worker died (gone)"}
    assert beside[1:] == [1] * (len(beside) - 1), "after the first time it was tried alone"


def test_all_tasks_of_a_pool_that_breaks_are_suspects() -> None:
    class Pool(Scripted):
        """Breaks as a whole, like a process pool: every task that runs ends with the worker."""

        def __init__(self) -> None:
            super().__init__(lambda *_: None)
            self.running: list[Future[Answer]] = []

        def submit(self, tiles: Sequence[Any]) -> Future[Answer]:
            (unit,) = (int(columns[0][0]) for columns in tiles)
            self.attempts[unit] = self.attempts.get(unit, 0) + 1
            future: Future[Answer] = Future()
            if self.attempts[unit] > 1 and unit != 1:
                future.set_result(self._answer([unit]))
                return future
            self.running.append(future)
            if len(self.running) == 3 or self.attempts[unit] > 1:
                for each in self.running:
                    each.set_exception(BrokenProcessPool("killed"))
                self.running.clear()
            return future

    done, failures = scheduled(Pool(), 3, retries=0)
    assert sorted(done) == [0, 2]
    assert failures == {1: "its worker died (killed)"}


@pytest.mark.parametrize("replaced", [False, True])
@pytest.mark.parametrize("group", [1, 3])
def test_a_unit_that_hangs_is_given_up_and_named(group: int, replaced: bool, monkeypatch) -> None:
    release = threading.Event()
    hangs = []

    def script(unit: int, *_: int) -> Any:
        if unit == 7:
            hangs.append(unit)
            release.wait(200)
        return None

    backend = Scripted(script, window=5 if replaced else 10)
    if not replaced:
        backend.renew = lambda: False
    now = [0.0]

    def tick() -> None:  # time passes only when nothing else runs, however busy the machine is
        now[0] += sum(not future.done() for future in backend.futures) == len(hangs)

    monkeypatch.setattr(_scheduler, "time", types.SimpleNamespace(monotonic=lambda: now[0]))
    done, failures = scheduled(backend, retries=1, timeout=0.15, tiles_per_task=group, tick=tick)
    release.set()
    assert sorted(done) == sorted(set(range(20)) - {7})
    assert failures == {7: "no answer for 0.15 s"}
    alone = replaced or group > 1  # the first time, its neighbours may have hung
    assert len(hangs) == 2 + (alone and group > 1)


def test_if_everything_fails_the_others_are_not_tried() -> None:
    backend = Scripted(lambda *_: ValueError("no"))
    done, failures = scheduled(backend, units=1000, retries=0)
    assert not done
    assert 3 <= len(failures) <= 3 + backend.window


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError("disk")])
def test_running_tiles_are_collected_when_the_sweep_is_stopped(error: BaseException) -> None:
    backend = Scripted(lambda *_: None)
    done: list[int] = []

    def collect(unit: int, *_: Any) -> None:
        done.append(unit)
        if len(done) == 4:
            raise error

    with pytest.raises(type(error)):
        schedule(list(range(50)), lambda unit: (np.array([unit]),), backend, collect)
    assert sorted(done) == sorted(backend.begun), "what had begun was lost, or collected twice"
    assert len(backend.attempts) <= 4 + backend.window
