"""Change laws by some per cent, and list the tests and studies that notice.

Run `python benchmarks/mutations.py` for all mutants, or with some of their names; `--list` lists
them. Each mutant multiplies the result or an argument of one function, in a process of its own. A
test of its room must fail, and a claim of each study about its law. With `--tests` or `--studies`
only one of both is run, with `--quick` the studies at their quick size. All mutants take hours on
two cores and are no part of continuous integration. The exit status is 1 if a mutant survives that
is not in `SURVIVORS`, which says why.
"""

from __future__ import annotations

import argparse
import importlib
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.mutants import MUTANTS, SURVIVORS

ROOT = Path(__file__).parents[1]

_CHILD = """
import sys
sys.path.insert(0, {root!r})
from benchmarks import mutations
sys.exit(mutations.{check}({name!r}, *{what!r}))
"""


def apply(name: str) -> None:
    """Change the function of a mutant, before other modules of the package import it.

    Raises:
        LookupError: if the package has no such function any more.
    """
    mutant = MUTANTS[name]
    place, function = mutant.function.split(":")
    module = importlib.import_module(place)
    original = getattr(module, function, None)
    if original is None:
        raise LookupError(f"{place} must define {function}, which the mutant {name!r} changes")
    changed = mutant.change(original)
    for holder in [one for key, one in sys.modules.items() if key.startswith("causal_sgd")]:
        if vars(holder).get(function) is original:
            setattr(holder, function, changed)


def run_tests(name: str, *paths: str) -> int:
    """Run tests on a mutant; the status of pytest."""
    import pytest

    apply(name)
    return int(
        pytest.main(["-q", "-x", "-n", "0", "--no-header", "-p", "no:cacheprovider", *paths])
    )


def run_quick_study(name: str, study: str) -> int:
    """Run a study at its quick size on a mutant; 1 if a claim fails."""
    return run_study(name, study, quick=True)


def run_study(name: str, study: str, *, quick: bool = False) -> int:
    """Run a study on a mutant; 1 if a claim fails."""
    import causal_sgd

    causal_sgd.use_cpu_cores()
    apply(name)
    from causal_sgd import studies

    module = studies.load(study)
    failed = [
        one.claim.text
        for one in studies.verdicts(module, module.run(quick=quick, key=0, progress=False))
        if one.holds is False
    ]
    print("\n".join(f"claim: {text}" for text in failed))
    return 1 if failed else 0


def killers(name: str, *, tests: bool, studies: bool, quick: bool = False) -> dict[str, str | None]:
    """What notices a mutant: "tests" and every study about its law -> the first failure or None."""
    mutant = MUTANTS[name]
    noticed: dict[str, str | None] = {}
    if tests and mutant.tests:
        noticed["tests"] = next(
            filter(None, (_failure("run_tests", name, one) for one in mutant.tests)), None
        )
    if studies:
        check = "run_quick_study" if quick else "run_study"
        noticed |= {one: _failure(check, name, one) for one in mutant.studies}
    return noticed


def _failure(check: str, name: str, what: str) -> str | None:
    """The first failure that a mutant causes in a test file or study, None without one."""
    script = _CHILD.format(root=str(ROOT), check=check, name=name, what=(what,))
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if done.returncode not in (0, 1):
        raise RuntimeError(f"{name}, {what}: {(done.stdout + done.stderr)[-2000:]}")
    if not done.returncode:
        return None
    lines = [line for line in done.stdout.splitlines() if line.startswith(("FAILED ", "claim: "))]
    if not lines:
        raise RuntimeError(f"{name}, {what}: {(done.stdout + done.stderr)[-2000:]}")
    return lines[0].removeprefix("FAILED ").removeprefix("claim: ").split(" - ")[0]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run mutants, print a table and return the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="MUTANT", help="see --list; all by default")
    parser.add_argument("--list", action="store_true", help="list the mutants and run none")
    parser.add_argument("--tests", action="store_true", help="run tests only")
    parser.add_argument("--studies", action="store_true", help="run studies only")
    parser.add_argument("--quick", action="store_true", help="run studies at their quick size")
    options = parser.parse_args(arguments)
    unknown = [name for name in options.names if name not in MUTANTS]
    if unknown:
        parser.error(f"mutants must be of {', '.join(MUTANTS)}, got {unknown[0]!r}")
    names = options.names or list(MUTANTS)
    if options.list:
        print("\n".join(names))
        return 0
    print("| mutant | noticed by | first failure | seconds |\n|---|---|---|---|", flush=True)
    new = []
    for name in names:
        start = time.perf_counter()
        both = options.tests == options.studies
        noticed = killers(
            name,
            tests=options.tests or both,
            studies=options.studies or both,
            quick=options.quick,
        )
        for what, failure in noticed.items():
            key = f"{name}: {what}"
            if failure is None and key not in SURVIVORS:
                new.append(key)
            text = failure or f"**survives**: {SURVIVORS.get(key, 'new')}"
            print(f"| {name} | {what} | {text} | {time.perf_counter() - start:.0f} |", flush=True)
    print(f"\n{len(new)} new survivors" + (f": {', '.join(new)}" if new else ""))
    return 1 if new else 0


if __name__ == "__main__":
    raise SystemExit(main())
