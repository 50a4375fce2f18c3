"""The command line, with the names that Python uses.

Results go to standard output, progress and errors to standard error. A mistake ends with one line and exit code 2, a claim
or a run that fails with 1. jax starts only once there is something to simulate, so that `--help` answers at once.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import io
import os
import re
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from typing import Annotated, Any

import tyro

from causal_sgd.cli.explore import Explore
from causal_sgd.cli.health import Doctor
from causal_sgd.cli.listing import List
from causal_sgd.cli.phases import Phase
from causal_sgd.cli.reproduce import Reproduce
from causal_sgd.cli.runs import Run
from causal_sgd.cli.stores import Export, Repair, Resume, Status

__all__ = ["main"]

ABOUT = (
    "Simulate how SGD over heterogeneous environments learns the invariant and forgets the spurious. "
    "--version tells the version; --tyro-print-completion SHELL prints what completes commands in bash, zsh or tcsh."
)

Command = tyro.conf.OmitSubcommandPrefixes[
    Annotated[Run, tyro.conf.subcommand("run")]
    | Annotated[Phase, tyro.conf.subcommand("phase")]
    | Annotated[Status, tyro.conf.subcommand("status")]
    | Annotated[Resume, tyro.conf.subcommand("resume")]
    | Annotated[Repair, tyro.conf.subcommand("repair")]
    | Annotated[Export, tyro.conf.subcommand("export")]
    | Annotated[Explore, tyro.conf.subcommand("explore")]
    | Annotated[Reproduce, tyro.conf.subcommand("reproduce")]
    | Annotated[List, tyro.conf.subcommand("list")]
    | Annotated[Doctor, tyro.conf.subcommand("doctor")]
]


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse, run, and exit: 0 for success, 1 where a claim fails, 2 for a mistake, 130 when interrupted."""
    sys.exit(_main(sys.argv[1:] if arguments is None else arguments))


def _main(arguments: Sequence[str]) -> int:
    try:
        with _terminable():
            return _parse(arguments)()
    except ValueError as error:
        print(f"causal-sgd: error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except RuntimeError as error:
        if type(error).__module__.partition(".")[0] != "causal_sgd":  # jax is not imported here to name its errors
            raise
        print(f"causal-sgd: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:  # whoever reads has enough, as in `causal-sgd list | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141  # as shells say of a program that a pipe ended
    except KeyboardInterrupt as stop:
        print("causal-sgd: interrupted" + (f"; {stop}" if str(stop) else ""), file=sys.stderr)
        return 130


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
    """End as by Ctrl-C where a cluster's queue asks to, before it kills."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _version() -> int:
    print(f"causal-sgd {importlib.metadata.version('causal_sgd')}")
    return 0


def _parse(arguments: Sequence[str]) -> Any:
    """The command; tyro's boxed complaints become one line."""
    if list(arguments) == ["--version"]:
        return _version
    errors = io.StringIO()
    try:
        with contextlib.redirect_stderr(errors):
            return tyro.cli(Command, prog="causal-sgd", args=list(arguments), description=ABOUT)  # pyright: ignore
    except SystemExit as stop:
        if not stop.code:
            raise
        text = re.sub(r"\x1b\[[0-9;]*m", "", errors.getvalue())
        lines = [line.strip(" │|+╭╮╰╯").strip() for line in text.splitlines()[1:]]
        lines = [line for line in lines if line.strip("─-")]  # not the boxes' rules, in Unicode or ASCII
        told = []
        for line in lines:
            if line.startswith(("For full", "Argument helptext", "(required)")):
                break
            told.append(line)
        message = re.sub(r"^Error parsing __tyro\S*: ", "", " ".join(told[:4]))
        raise ValueError(message + " (see causal-sgd --help)") from None
