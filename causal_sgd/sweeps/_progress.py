"""How far a sweep is: a bar on a terminal and in a notebook, lines in a log elsewhere."""

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


class Progress:
    """Counts runs that are done and that diverged; used as a context.

    On a terminal or in a notebook it is a bar with the time left and the rate. Elsewhere the same goes, about every half minute and at the
    end, as a line to the logger `causal_sgd` (level INFO) and, where there is one, to a log file.
    """

    def __init__(
        self, label: str, total: int, done: int, *, shown: bool | None, log_file: Path | None
    ) -> None:
        """Begin.

        Args:
            label: what is computed.
            total: runs in all.
            done: of them, those that were there before.
            shown: whether to draw the bar; None for where standard error is a terminal, or a notebook's.
            log_file: where lines are appended when there is no bar.
        """
        notebook = _in_notebook()
        terminal = notebook or sys.stderr.isatty()
        self._bar = _bar(notebook)(
            total=total, initial=done, unit="run", desc=label, disable=not (terminal if shown is None else shown),
            dynamic_ncols=True,
        )  # fmt: skip
        self._label, self._total, self._before = label, total, done
        self.done, self.diverged = done, 0
        self._begin = self._told = time.monotonic()
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
        self._say("stopped: " + kind.__name__ if kind else "finished")

    def add(self, runs: int, diverged: int) -> None:
        """Some runs are done."""
        self.done += runs
        self.diverged += diverged
        self._bar.update(runs)
        if self.diverged:
            self._bar.set_postfix_str(f"{self.diverged} diverged", refresh=False)

    def tick(self) -> None:
        """Write a line if it is time for one."""
        if time.monotonic() - self._told > EVERY:
            self._say("running")

    def _say(self, state: str) -> None:
        if not self._lines:
            return
        self._told = time.monotonic()
        seconds = self._told - self._begin
        rate = (self.done - self._before) / seconds if seconds else 0.0
        left = (
            f"{(self._total - self.done) / rate:.0f} s left, "
            if rate and self.done < self._total
            else ""
        )
        text = (
            f"{self._label}: {state}, {self.done} of {self._total} runs, {self.diverged} diverged, {left}"
            f"{rate:.3g} runs/s, {seconds:.0f} s"
        )
        LOG.info(text)
        if self._log_file is not None:
            now = time.strftime("%Y-%m-%d %H:%M:%S")
            with (
                contextlib.suppress(OSError),
                self._log_file.open("a") as file,
            ):  # a log is not worth a sweep
                file.write(f"{now} {text}\n")


def _in_notebook() -> bool:
    """Whether this is a Jupyter kernel, whose output is no terminal but shows bars."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return hasattr(shell, "kernel")


def _bar(notebook: bool) -> type[tqdm]:
    """A bar of widgets where these are installed, else one of letters."""
    if notebook and importlib.util.find_spec("ipywidgets"):
        from tqdm.notebook import tqdm as widget

        return widget
    return tqdm
