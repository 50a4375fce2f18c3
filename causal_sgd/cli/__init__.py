"""The command line, with the names that Python uses.

Results go to standard output, progress and errors to standard error. A mistake ends with one line and exit code 2, a claim
or a run that fails with 1. jax starts only once there is something to simulate, so that `--help` answers at once.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.metadata
import io
import operator
import os
import re
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from typing import Annotated, Any

import tyro

from causal_sgd import checks
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
    "--version tells the version; --tyro-print-completion SHELL prints what completes commands in bash, zsh or fish."
)

COMMANDS = {
    "run": Run, "phase": Phase, "status": Status, "resume": Resume, "repair": Repair, "export": Export, "explore": Explore,
    "reproduce": Reproduce, "list": List, "doctor": Doctor,
}  # fmt: skip
Command = tyro.conf.OmitSubcommandPrefixes[
    functools.reduce(
        operator.or_,
        (Annotated[command, tyro.conf.subcommand(name)] for name, command in COMMANDS.items()),
    )
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
        if (
            type(error).__module__.partition(".")[0] != "causal_sgd"
        ):  # jax is not imported here to name its errors
            raise
        print(f"causal-sgd: {error}", file=sys.stderr)
        return 1
    except MemoryError as error:
        print(
            f"causal-sgd: not enough memory; ask for fewer seeds, a smaller grid or a smaller dim: {error}",
            file=sys.stderr,
        )
        return 1
    except BrokenPipeError:  # whoever reads has enough, as in `causal-sgd list | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141  # as shells say of a program that a pipe ended
    except (
        OSError
    ) as error:  # a full disk, say; what a mistake causes is told before anything is computed
        print(f"causal-sgd: {error}", file=sys.stderr)
        return 1
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
    if list(arguments[:1]) == ["--version"]:
        return _version
    if arguments and not arguments[0].startswith("-"):
        checks.choice("command", arguments[0], COMMANDS)
    errors = io.StringIO()
    try:
        with contextlib.redirect_stderr(errors):
            return tyro.cli(Command, prog="causal-sgd", args=list(arguments), description=ABOUT)  # pyright: ignore
    except ImportError as error:
        if "shtab" not in str(error):
            raise
        raise ValueError(
            "completion must be for bash, zsh or fish; that for tcsh needs: pip install shtab"
        ) from None
    except SystemExit as stop:
        if not stop.code:
            raise
        text = re.sub(r"\x1b\[[0-9;]*m", "", errors.getvalue())
        lines = [line.strip(" │|+╭╮╰╯").strip() for line in text.splitlines()[1:]]
        lines = [
            line for line in lines if line.strip("─-")
        ]  # not the boxes' rules, in Unicode or ASCII
        told = []
        for line in lines:
            if line.startswith(("For full", "Argument helptext", "(required)")):
                break
            told.append(line)
        message = re.sub(r"^Error parsing __tyro\S*: ", "", " ".join(told[:4]))
        message = re.sub(
            r"no type matching \{None\}\|(\S+) could be instantiated from \['(.*)'\]\. Got.*",
            r"must be \1, got '\2'",
            message,
        )
        message = re.sub(r"Error parsing (\S+): must", r"\1 must", message)
        message = re.sub(
            r"Error parsing (\S+): invalid literal for int\(\) with base 10: ",
            r"\1 must be a whole number, got ",
            message,
        )
        message = re.sub(
            r"Error parsing (\S+): could not convert string to float: ",
            r"\1 must be a number, got ",
            message,
        )
        command = " ".join(
            ["causal-sgd", *(name for name in arguments[:1] if name in COMMANDS), "--help"]
        )
        raise ValueError(f"{message} (see {command})") from None
