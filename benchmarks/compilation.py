"""Time XLA's compilation of the programs of each study, one program at a time.

A comparison normally compiles the next method's program while it computes. Here nothing else runs
during a compilation, which isolates its time. Only XLA counts, without tracing and lowering. The
studies run one after another in this process, so a program that they share is compiled for the
first of them only.

Run `python benchmarks/compilation.py` on an idle machine; `--quick` runs the studies at reduced
size, and names select some of them.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any

import jax.monitoring

import causal_sgd as cs
from causal_sgd import studies
from causal_sgd.sweeps import _comparison

EVENT = "/jax/core/compile/backend_compile_duration"


class SynchronousExecutor(Executor):
    """Runs each submitted call before it returns; replaces the pool of a comparison."""

    def __init__(self, workers: int) -> None:
        """Accept and ignore the number of workers."""

    def submit(self, work: Callable[..., Any], /, *arguments: Any, **named: Any) -> Future[Any]:
        """Call the function and return a finished future."""
        future: Future[Any] = Future()
        try:
            future.set_result(work(*arguments, **named))
        except Exception as error:
            future.set_exception(error)
        return future


def main() -> None:
    """Run the studies and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("studies", nargs="*", metavar="study", help="by default all")
    parser.add_argument("--quick", action="store_true", help="run the studies at reduced size")
    options = parser.parse_args()
    for name in options.studies:
        if name not in studies.NAMES:
            parser.error(f"study must be one of {', '.join(studies.NAMES)}, got {name!r}")
    times: list[float] = []

    def listen(event: str, duration_secs: float, **kwargs: str | int) -> None:
        if event == EVENT:
            times.append(duration_secs)

    jax.monitoring.register_event_duration_secs_listener(listen)
    _comparison.ThreadPoolExecutor = SynchronousExecutor
    cs.use_cpu_cores()
    print("| study | programs | all of them, s | slowest, s |\n|---|---|---|---|")
    slowest = 0.0
    for name in options.studies or studies.NAMES:
        times.clear()
        study = studies.load(name)
        if lacking := studies.lacking(study):
            print(f"{name} is skipped: it {lacking}", file=sys.stderr)
            continue
        study.run(quick=options.quick, key=0, progress=False)
        print(
            f"| {name} | {len(times)} | {sum(times):.1f} | {max(times, default=0):.2f} |",
            flush=True,
        )
        slowest = max([slowest, *times])
    print(f"\nslowest of all: {slowest:.2f} s")


if __name__ == "__main__":
    main()
