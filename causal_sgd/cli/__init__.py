"""The command line, with the names that Python uses.

Results go to standard output, progress and errors to standard error. A mistake ends with one line
and exit code 2, a failed claim or run with 1. jax starts only when there is something to simulate,
so that `--help` answers at once.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import io
import operator
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Annotated, Any

import tyro

import causal_sgd
from causal_sgd import checks
from causal_sgd.cli.arguments import fill_help, parse
from causal_sgd.cli.doctor import Doctor
from causal_sgd.cli.explore import Explore
from causal_sgd.cli.flags import check_effect, named
from causal_sgd.cli.help import described, overview, short_help
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
    """The type of the commands with all words that completion offers: systems and studies too."""
    from causal_sgd import studies

    whole = dict(COMMANDS)
    for name, systems in OF_SYSTEMS.items():
        field = ("system", _choice(systems) | None, dataclasses.field(default=None))
        whole[name] = _with_field(COMMANDS[name], field)
    # tyro completes flags only: the names of studies are flags here, and `_print_completion` takes
    # the mark from them.
    first, *others = (STUDY + name for name in studies.NAMES)
    names = tyro.conf.arg(name=first.removeprefix("--"), help="study", aliases=others)
    for name, place in (("reproduce", "studies"), ("list", "study")):
        hint = Annotated[tyro.conf.FlagCreatePairsOff[bool], names]
        field = (place, hint, dataclasses.field(default=False))
        whole[name] = _with_field(COMMANDS[name], field)
    for kind in (*whole.values(), RunSupervised, PhaseSupervised, *SYSTEMS.values()):
        fill_help(kind)
    return _choice(whole)


def _with_field(command: type, field: tuple[str, Any, Any]) -> type:
    """A command with one more field, or another type of one."""
    return dataclasses.make_dataclass(
        command.__name__, [field], bases=(command,), kw_only=True, frozen=True
    )


ALL = "--help-all"
STUDY = "--the-study-"
HELP = ("-h", "--help", ALL)
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
    print(f"{PROGRAM} {causal_sgd.__version__}")
    return 0


def _command(arguments: Sequence[str]) -> Callable[[], int]:
    """The command, ready to be called."""
    words = list(arguments)
    if words[:1] == ["--version"]:
        return _version
    if words and words[0].replace("_", "-").startswith("--tyro-"):
        return _print_completion(words)
    if not words:
        raise ValueError(
            f"command must be one of {', '.join(COMMANDS)}, got none (see {PROGRAM} -h)"
        )
    if words[0].startswith("-"):
        checks.choice("what follows the program's name", words[0], ("--version", *HELP, *COMMANDS))
        return functools.partial(_print_overview, whole=words[0] == ALL)
    kind, place, rest = _chosen(words)
    program = " ".join([PROGRAM, *place])
    if set(HELP) & set(rest):
        return functools.partial(_print_help, kind, program, whole=ALL in rest)
    try:
        command = parse(kind, rest, program=program, description=None)
        check_effect(command, rest)
    except ValueError as error:
        raise ValueError(f"{named(str(error), rest, kind)} (see {program} --help)") from None
    return functools.partial(_call, command, rest)


def _chosen(words: Sequence[str]) -> tuple[type, list[str], list[str]]:
    """The dataclass of a command, the words that name it, and the words after them."""
    name = checks.choice("command", words[0], COMMANDS)
    if name in OF_SYSTEMS and words[1:] and not words[1].startswith("-"):
        systems = OF_SYSTEMS[name]
        return systems[checks.choice("system", words[1], systems)], [*words[:2]], [*words[2:]]
    return COMMANDS[name], [name], [*words[1:]]


def _call(command: Callable[[], int], words: Sequence[str]) -> int:
    """Call a command, whose mistakes name flags."""
    try:
        return command()
    except ValueError as error:
        raise ValueError(named(str(error), words, type(command))) from None


def _print_completion(words: Sequence[str]) -> Callable[[], int]:
    """Print a script for a shell; nothing is left to be called, unless there was no such option."""
    script = io.StringIO()
    try:
        with contextlib.redirect_stdout(script):
            return parse(_completed(), words, program=PROGRAM, description=ABOUT)
    finally:
        whole = script.getvalue().replace("['-h', '--help']", str([*HELP]))
        print(whole.replace(STUDY, ""), end="")


def _print_overview(*, whole: bool) -> int:
    print(overview(PROGRAM, ABOUT, COMMANDS))
    if whole:
        for name, kind in COMMANDS.items():
            print(f"\n{PROGRAM} {name}\n\n{described(kind)}")
    return 0


class _Text(io.StringIO):
    """Text for standard output, with colours if that is a terminal."""

    def isatty(self) -> bool:
        """Whether standard output is a terminal."""
        return sys.__stdout__ is not None and sys.__stdout__.isatty()


def _print_whole_help(kind: type, program: str) -> None:
    """Print every flag; the description as it is, whose lines tyro would join."""
    page, place = _Text(), "DESCRIPTION"
    with contextlib.suppress(SystemExit), contextlib.redirect_stdout(page):
        parse(kind, ["--help"], program=program, description=place)
    print(page.getvalue().replace(place, described(kind), 1), end="")


def _print_help(kind: type, program: str, *, whole: bool) -> int:
    fill_help(kind)
    for system in SYSTEMS.values():
        fill_help(system)
    if whole:
        _print_whole_help(kind, program)
        return 0
    systems = OF_SYSTEMS.get(program.removeprefix(f"{PROGRAM} "), {})
    others = [name for name, other in systems.items() if other is not kind]
    print(short_help(program, kind, systems=others))
    return 0
