"""What happens to the workers of a Dask scheduler while a command computes on them."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterable, Iterator

from causal_sgd.cli.outputs import say

__all__ = ["watched"]

SECONDS = 2.0  # between two looks


@contextlib.contextmanager
def watched(workers: Callable[[], Iterable[str]], seconds: float = SECONDS) -> Iterator[None]:
    """Tell of workers that are lost, when they are and at the end.

    Args:
        workers: returns the addresses of the present ones; it may fail where the scheduler is gone.
        seconds: between two looks.
    """
    watch = _Watch(workers)
    ended = threading.Event()

    def look() -> None:
        while not ended.wait(seconds):
            watch.look()

    watch.look()
    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(seconds)
        watch.look()
        if watch.lost:
            count = f"{watch.lost} {'worker was' if watch.lost == 1 else 'workers were'}"
            say(f"{count} lost; others computed their runs again")


class _Watch:
    """The workers at the last look, and how many have been lost."""

    def __init__(self, workers: Callable[[], Iterable[str]]) -> None:
        self._workers = workers
        self._present: set[str] | None = None
        self.lost = 0

    def look(self) -> None:
        """Say what has changed since the last look."""
        try:
            present = set(self._workers())
        except Exception:  # of a scheduler that is gone; the computation itself says so
            return
        before = self._present
        self._present = present
        if before is None:
            if not present:
                say("the scheduler has no workers yet; waiting for some")
            return
        for address in sorted(before - present):
            self.lost += 1
            left = "waiting for others" if not present else f"{len(present)} left"
            say(f"lost the worker {address}; {left}")
