"""Whether code tells jax about all cores before it starts.

    python first_use.py CODE...

A child process for each piece of code runs it up to its first sweep. Where jax had started too
early by then, or there is no sweep, the code is printed and the exit code is 1.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence

# Whatever the code may import is loaded once, before the fork.
from causal_sgd import analysis, cli, experiment, sensing, sweeps, theory, training
from causal_sgd.sweeps import _machine, _sweep, store

LOADED = (analysis, cli, experiment, sensing, store, sweeps, theory, training, _sweep)
CORES = 2  # also on a machine with one
TOO_EARLY, NO_SWEEP = 1, 2


def run(code: str) -> None:
    """Run code up to its first sweep, and leave the process."""
    choose = _machine.local_devices

    def devices(chosen: Sequence[_machine.Device] | None) -> list[_machine.Device]:
        os._exit(0 if len(choose(chosen)) == CORES else TOO_EARLY)

    _machine.cores = lambda: CORES
    _machine.local_devices = devices
    try:
        exec(compile(code, "<code>", "exec"), {})
    except BaseException:
        traceback.print_exc()
    os._exit(NO_SWEEP)


def main(codes: Sequence[str]) -> int:
    """Run each piece of code in a child process."""
    states = {}
    for code in codes:
        child = os.fork()  # jax has not started, so that there are no threads
        if child == 0:
            run(code)
        states[code] = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    for code, state in states.items():
        if state:
            print(f"{'jax starts early' if state == TOO_EARLY else 'no sweep'}: {code}")
    return int(any(states.values()))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
