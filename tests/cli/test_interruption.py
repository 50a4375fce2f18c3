"""Ctrl-C and SIGTERM end a command with one line, wherever and however often they arrive."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import causal_sgd.sweeps
from causal_sgd import cli
from causal_sgd.cli import interruption
from support.shell import call, words

SIGNALS = [signal.SIGINT, signal.SIGTERM]
# A process in the background of a shell ignores SIGINT, and so do its children.
LISTENING = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)
from causal_sgd.cli import main
main()
"""


class Interrupts:
    """Its finalizer receives a signal."""

    def __del__(self) -> None:
        signal.raise_signal(signal.SIGINT)


@pytest.fixture(autouse=True)
def left(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """An entry for each time the process would have ended at once, and the tests with it."""
    left: list[bool] = []
    monkeypatch.setattr(interruption, "leave", lambda: left.append(True))
    return left


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_during_garbage_collection_is_not_lost(
    number: int, capsys, monkeypatch, left: list[bool]
) -> None:
    def collected(phase: str, info: dict) -> None:
        gc.callbacks.remove(collected)
        signal.raise_signal(number)

    def collect(self: object) -> int:
        gc.callbacks.append(collected)
        gc.collect()
        time.sleep(120)
        return 0

    before, hook = signal.getsignal(number), sys.unraisablehook
    monkeypatch.setattr(cli.Run, "__call__", collect)
    assert call("run", capsys=capsys) == (130, "", "causal-sgd: interrupted\n")
    assert (signal.getsignal(number), sys.unraisablehook) == (before, hook)
    assert left == []


def test_a_signal_during_a_finalizer_is_not_lost(capsys, monkeypatch) -> None:
    def finalize(self: object) -> int:
        del self
        Interrupts()
        time.sleep(120)
        return 0

    monkeypatch.setattr(cli.Run, "__call__", finalize)
    assert call("run", capsys=capsys) == (130, "", "causal-sgd: interrupted\n")


def test_a_signal_that_is_dropped_again_leaves_none_behind() -> None:
    later: list[int] = []

    def slow(phase: str, info: dict) -> None:
        until = time.monotonic() + 2 * interruption.LATER
        while time.monotonic() < until:
            pass

    def collected(phase: str, info: dict) -> None:
        gc.callbacks.remove(collected)
        signal.raise_signal(signal.SIGINT)

    def interrupted() -> None:
        with interruption.interruptible(for_good=False):
            gc.callbacks.insert(0, collected)
            gc.collect()
            time.sleep(120)

    before = signal.signal(signal.SIGINT, lambda number, frame: later.append(number))
    gc.callbacks.append(slow)
    try:
        for _ in range(6):
            with pytest.raises(KeyboardInterrupt):
                interrupted()
            time.sleep(2 * interruption.LATER)
    finally:
        gc.callbacks.remove(slow)
        signal.signal(signal.SIGINT, before)
    assert later == []


@pytest.mark.parametrize("number", SIGNALS)
def test_without_a_store_the_message_has_nothing_to_add(number: int, capsys, monkeypatch) -> None:
    monkeypatch.setattr(
        causal_sgd.sweeps, "sweep", lambda *_, **options: signal.raise_signal(number)
    )
    assert call("run", capsys=capsys) == (130, "", "causal-sgd: interrupted\n")


def test_the_next_signal_ends_the_process_at_once(monkeypatch, left: list[bool]) -> None:
    with interruption.interruptible(for_good=False):
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGTERM)
        assert left == [], "it came with the first"
        monkeypatch.setattr(interruption, "SAME", -1.0)
        signal.raise_signal(signal.SIGTERM)
    assert left == [True]


def test_a_signal_that_is_sent_again_too_late_is_no_second_one(left: list[bool]) -> None:
    handler = interruption._Handler(for_good=False)
    with pytest.raises(KeyboardInterrupt):
        handler(signal.SIGINT, None)
    handler._raised, handler._own = -10.0, True
    handler(signal.SIGINT, None)
    assert left == []


def test_a_signal_that_is_ignored_stays_so() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with interruption.interruptible(for_good=False):
            signal.raise_signal(signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)


def handles_termination(process: int) -> bool:
    """Whether a process has a handler of SIGTERM, on Linux."""
    status = Path(f"/proc/{process}/status").read_text()
    mask = int(status.partition("SigCgt:")[2].split()[0], 16)
    return bool(mask >> (signal.SIGTERM - 1) & 1)


@pytest.mark.slow
@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.parametrize("delay", [0.3, 1.0, 2.0, 4.0, 8.0])
def test_signals_at_any_time_are_quiet(number: int, delay: float, tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", LISTENING, *words("run --steps 40000000 --seeds 8")],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
        env=os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(Path(__file__).parents[2])},
    )
    # Before its handler is there, a signal ends the process as it ends any.
    while not handles_termination(process.pid):
        time.sleep(0.01)
    time.sleep(delay)
    process.send_signal(number)
    time.sleep(0.7)  # a running tile may take longer
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert (out, err.strip()) in (("", "causal-sgd: interrupted"), ("", ""))
