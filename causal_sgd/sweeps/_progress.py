"""The progress of a sweep: a bar on a terminal and in a notebook, log lines elsewhere."""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import sys
import time
from pathlib import Path
from types import TracebackType

from tqdm import tqdm

__all__ = ["Progress"]

LOG = logging.getLogger("causal_sgd")
EVERY = 30.0  # seconds between two lines


class _Output:
    """Standard error, whatever it is: results do not depend on whether it can be written."""

    def __init__(self, stream: object) -> None:
        self._stream = stream

    def _attempt(self, method: str, *arguments: object) -> object:
        # It may be None, closed, full, or an object without such a method.
        with contextlib.suppress(AttributeError, OSError, TypeError, ValueError):
            return getattr(self._stream, method)(*arguments)

    def write(self, text: str) -> None:
        self._attempt("write", text)

    def flush(self) -> None:
        self._attempt("flush")

    def isatty(self) -> bool:
        return bool(self._attempt("isatty"))

    def __getattr__(self, name: str) -> object:  # such as encoding and fileno
        return getattr(self._stream, name)


class Progress:
    """A context that counts finished and diverged runs.

    On a terminal or in a notebook it shows a bar with the rate and the remaining time. Elsewhere it
    writes the same as lines, about every half minute and at the end, to the logger `causal_sgd`
    (level INFO) and to a log file, if there is one.
    """

    def __init__(
        self, label: str, total: int, done: int, *, shown: bool | None, log_file: Path | None
    ) -> None:
        """Show the bar.

        Args:
            label: the title of the bar.
            total: the number of runs.
            done: the number of runs that were finished before.
            shown: whether to draw the bar; None for on a terminal and in a notebook.
            log_file: where lines are appended if there is no bar.
        """
        notebook = _in_notebook()
        output = _Output(sys.stderr)
        terminal = notebook or output.isatty()
        self._bar = _bar(notebook)(
            file=output,
            total=total,
            initial=done,
            unit="run",
            desc=label,
            disable=not (terminal if shown is None else shown),
            dynamic_ncols=True,
        )
        self._label, self._total, self._before = label, total, done
        self.done, self.diverged = done, 0
        self._begin = self._last_line = time.monotonic()
        self._lines = shown is None and not terminal
        self._log_file = log_file

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.close()
        self._write("stopped: " + kind.__name__ if kind else "finished")

    def add(self, runs: int, diverged: int) -> None:
        """Count finished runs."""
        self.done += runs
        self.diverged += diverged
        self._bar.update(runs)
        if self.diverged:
            self._bar.set_postfix_str(f"{self.diverged} diverged", refresh=False)

    def tick(self) -> None:
        """Write a line if the last one is old."""
        if time.monotonic() - self._last_line > EVERY:
            self._write("running")

    def _write(self, state: str) -> None:
        if not self._lines:
            return
        self._last_line = time.monotonic()
        seconds = self._last_line - self._begin
        rate = (self.done - self._before) / seconds if seconds else 0.0
        left = (
            f"{(self._total - self.done) / rate:.0f} s left, "
            if rate and self.done < self._total
            else ""
        )
        text = (
            f"{self._label}: {state}, {self.done} of {self._total} runs, "
            f"{self.diverged} diverged, {left}{rate:.3g} runs/s, {seconds:.0f} s"
        )
        LOG.info(text)
        if self._log_file is not None:
            now = time.strftime("%Y-%m-%d %H:%M:%S")
            # A log that cannot be written does not stop the sweep.
            with contextlib.suppress(OSError), self._log_file.open("a") as file:
                file.write(f"{now} {text}\n")


def _in_notebook() -> bool:
    """Whether this is a Jupyter kernel: not a terminal, but it shows bars."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return hasattr(shell, "kernel")


def _bar(notebook: bool) -> type[tqdm]:
    """A widget if ipywidgets is installed, otherwise a bar of characters."""
    if notebook and importlib.util.find_spec("ipywidgets"):
        from tqdm.notebook import tqdm as widget

        return widget
    return tqdm
