"""Ctrl-C and SIGTERM: the first one stops a command with a message, the next one at once."""

from __future__ import annotations

import _thread
import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from types import CodeType, FrameType
from typing import TYPE_CHECKING

from causal_sgd.cli.outputs import say

if TYPE_CHECKING:
    from sys import UnraisableHookArgs

__all__ = ["EXIT_CODE", "interruptible", "leave"]

MESSAGE = "causal-sgd: interrupted"
EXIT_CODE = 130  # as of a program that Ctrl-C ends
SIGNALS = (signal.SIGINT, signal.SIGTERM)  # the queue of a cluster sends SIGTERM before it kills
SAME = 0.5  # seconds in which a second signal belongs to the first: a shell may pass it on as well
LATER = 0.01  # seconds until a callback that cannot be interrupted has returned


@contextlib.contextmanager
def interruptible(*, for_good: bool) -> Iterator[None]:
    """Raise KeyboardInterrupt at Ctrl-C and SIGTERM, wherever they arrive.

    Python drops an exception inside a callback of the garbage collector, of which jax has one, or a
    finalizer; it is raised again. A signal that is ignored, as Ctrl-C is in the background of a
    shell, stays so.

    Args:
        for_good: whether the process ends afterwards, so that its end can be interrupted, too.
    """
    if threading.current_thread() is not threading.main_thread():  # which receives all signals
        yield
        return
    handler = _Handler(for_good)
    handled = [one for one in SIGNALS if signal.getsignal(one) not in (signal.SIG_IGN, None)]
    before = {one: signal.signal(one, handler) for one in handled}
    hook, sys.unraisablehook = sys.unraisablehook, handler.raise_again
    handler.hook = hook
    try:
        yield
    finally:
        if not for_good:
            handler.close()
            sys.unraisablehook = hook
            for one, previous in before.items():
                signal.signal(one, previous)


def leave() -> None:
    """End the process at once; Python may crash at its exit while computations are running."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError, OSError, RuntimeError, ValueError):
            stream.flush()
    os._exit(EXIT_CODE)


def _send(number: int) -> None:
    """Send a signal to the main thread, which it also wakes up where the system can do so."""
    if hasattr(signal, "pthread_kill"):
        signal.pthread_kill(threading.main_thread().ident or 0, number)
    else:
        _thread.interrupt_main(signal.Signals(number))


def _importing(frame: FrameType | None) -> bool:
    """Whether a module is being loaded."""
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


def _within(frame: FrameType | None, code: CodeType) -> bool:
    """Whether a function is running."""
    while frame is not None:
        if frame.f_code is code:
            return True
        frame = frame.f_back
    return False


class _Handler:
    """Handles the signals of one command."""

    def __init__(self, for_good: bool) -> None:
        self._for_good = for_good
        self.hook = sys.unraisablehook
        self._raised: float | None = None  # when
        self._lost = False
        self._own = False  # whether the next signal is one of `_send`
        self._number = int(signal.SIGINT)
        self._senders: list[threading.Thread] = []

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if _within(frame, self.raise_again.__func__.__code__):
            return  # it would be dropped again; the sender goes on
        own, self._own = self._own, False
        if own and not self._lost:
            return  # late: the one before it has been raised
        now = time.monotonic()
        if self._raised is None or self._lost:
            if self._for_good and _importing(frame):
                say(MESSAGE)
                leave()  # the start of a library in C++ may crash where it is interrupted
            self._raised, self._lost, self._number = now, False, number
            raise KeyboardInterrupt
        if now - self._raised > SAME:
            leave()

    def raise_again(self, dropped: UnraisableHookArgs) -> None:
        """Take an exception that Python drops, in place of `sys.unraisablehook`."""
        if not issubclass(dropped.exc_type, KeyboardInterrupt):
            self.hook(dropped)
            return
        self._lost = True
        self._senders.append(threading.Thread(target=self._send, daemon=True))
        self._senders[-1].start()

    def close(self) -> None:
        """Send nothing any more."""
        self._lost = False
        for sender in self._senders:
            sender.join()

    def _send(self) -> None:
        """Send the signal until it raises, or is dropped once more and has another sender."""
        while True:
            time.sleep(LATER)
            if not self._lost or threading.current_thread() is not self._senders[-1]:
                return
            self._own = True
            _send(self._number)
