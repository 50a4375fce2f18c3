"""The command line, with the names that Python uses.

Results go to standard output, progress and errors to standard error. A mistake ends with one line
and exit code 2, a failed claim or run with 1. jax starts only when there is something to simulate,
so that `--help` answers at once.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import importlib.metadata
import operator
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Annotated, Any

import tyro

from causal_sgd import checks
from causal_sgd.cli.arguments import fill_help, parse
from causal_sgd.cli.doctor import Doctor
from causal_sgd.cli.explore import Explore
from causal_sgd.cli.interruption import EXIT_CODE as INTERRUPTED
from causal_sgd.cli.interruption import interruptible, leave
from causal_sgd.cli.listing import List
from causal_sgd.cli.outputs import say
from causal_sgd.cli.phases import Phase, PhaseSupervised
from causal_sgd.cli.reproduce import Reproduce
from causal_sgd.cli.runs import Run, RunSupervised
from causal_sgd.cli.stores import Export, Repair, Resume, Status
from causal_sgd.cli.tables import Report
from causal_sgd.experiment import SYSTEMS

__all__ = ["main"]

PROGRAM = "causal-sgd"
ABOUT = (
    "Simulate how SGD over heterogeneous environments learns the invariant and forgets the "
    "spurious. --version prints the version; --tyro-print-completion SHELL prints a completion "
    "script for bash, zsh or fish."
)

COMMANDS = {
    "run": Run,
    "phase": Phase,
    "status": Status,
    "resume": Resume,
    "repair": Repair,
    "export": Export,
    "explore": Explore,
    "reproduce": Reproduce,
    "report": Report,
    "list": List,
    "doctor": Doctor,
}
OF_SYSTEMS: dict[str, dict[str, type]] = {
    "run": {"sensing": Run, "supervised": RunSupervised},
    "phase": {"sensing": Phase, "supervised": PhaseSupervised},
}
"""The commands that take a system as their first word; sensing where there is none."""


def _choice(commands: Mapping[str, type]) -> Any:
    """The type of one of these commands."""
    return tyro.conf.OmitSubcommandPrefixes[
        functools.reduce(
            operator.or_,
            (Annotated[command, tyro.conf.subcommand(name)] for name, command in commands.items()),
        )
    ]


def _completed() -> Any:
    """The type of the commands with the words of a system, which completion offers."""
    whole = dict(COMMANDS)
    for name, systems in OF_SYSTEMS.items():
        field = ("system", _choice(systems) | None, dataclasses.field(default=None))
        whole[name] = dataclasses.make_dataclass(
            name, [field], bases=(COMMANDS[name],), kw_only=True, frozen=True
        )
    return _choice(whole)


Command = _choice(COMMANDS)
OUT_OF_MEMORY = (
    "out of memory; use fewer --seeds, axis values or --num-environments, or a smaller --dim"
)
SIGPIPE_EXIT = 141  # the exit code of a program that SIGPIPE ends


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command and exit: 0 for success, 1 for a failure, 2 for a mistake, 130 for Ctrl-C."""
    alone = arguments is None  # in a process of its own
    with interruptible(for_good=alone), _drawing_to_files():
        _open_standard_streams()
        code = _main(sys.argv[1:] if arguments is None else arguments)
        if alone and code == INTERRUPTED:
            leave()
        sys.exit(code)


def _main(arguments: Sequence[str]) -> int:
    try:
        return _command(arguments)()
    except ValueError as error:
        return _fail(f"error: {' '.join(str(error).split())}", 2)
    except RuntimeError as error:
        # jax is not imported here to name its errors.
        if str(error).startswith("RESOURCE_EXHAUSTED"):
            return _fail(f"{OUT_OF_MEMORY}: {' '.join(str(error).split())[:200]}")
        if type(error).__module__.partition(".")[0] != "causal_sgd":
            raise
        return _fail(str(error))
    except MemoryError as error:
        return _fail(f"{OUT_OF_MEMORY}: {error}")
    except BrokenPipeError:  # the reader has closed the pipe, as in `causal-sgd list | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return SIGPIPE_EXIT
    except OSError as error:  # such as a full disk; mistakes are found before the computation
        return _fail(str(error))
    except KeyboardInterrupt as stop:
        return _fail("interrupted" + (f"; {stop}" if str(stop) else ""), INTERRUPTED)


def _fail(message: str, code: int = 1) -> int:
    say(f"{PROGRAM}: {message}")
    return code


def _open_standard_streams() -> None:
    """Open standard streams that are closed, or the first file opened would be one of them."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)


@contextlib.contextmanager
def _drawing_to_files() -> Iterator[None]:
    """Let matplotlib start with Agg: a shell inherits the backend of the notebook it belongs to."""
    before = os.environ.get("MPLBACKEND")
    os.environ["MPLBACKEND"] = "agg"
    try:
        yield
    finally:
        del os.environ["MPLBACKEND"]
        if before is not None:
            os.environ["MPLBACKEND"] = before


def _version() -> int:
    print(f"{PROGRAM} {importlib.metadata.version('causal_sgd')}")
    return 0


def _command(arguments: Sequence[str]) -> Callable[[], int]:
    """The command, ready to be called."""
    if list(arguments[:1]) == ["--version"]:
        return _version
    if arguments and not arguments[0].startswith("-"):
        checks.choice("command", arguments[0], COMMANDS)
    words = list(arguments)
    place = [PROGRAM, *(name for name in words[:1] if name in COMMANDS)]
    command, program, description = Command, PROGRAM, ABOUT
    completing = bool(words) and words[0].replace("_", "-").startswith("--tyro-")
    if completing:
        command = _completed()
    elif words and words[0] in OF_SYSTEMS and words[1:] and not words[1].startswith("-"):
        systems = OF_SYSTEMS[words[0]]
        checks.choice("system", words[1], systems)
        place.append(words[1])
        command, program, description = systems[words[1]], " ".join(place), None
        words = words[2:]
    if completing or {"-h", "--help"} & set(words):
        for each in (*COMMANDS.values(), RunSupervised, PhaseSupervised, *SYSTEMS.values()):
            fill_help(each)
    try:
        return parse(command, words, program=program, description=description)
    except ValueError as error:
        raise ValueError(f"{error} (see {' '.join([*place, '--help'])})") from None
