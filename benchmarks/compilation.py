"""How long XLA takes to compile the programs of every study, one program at a time.

A comparison compiles the next method's program while it computes; here each program is compiled before anything else goes on,
as its own time is what is asked for. Counted is XLA alone, without tracing and lowering. The studies run one after another in
this process, so that what they share is compiled for the first of them only.

Run `python benchmarks/compilation.py` where nothing else runs; `--quick` for the studies' reduced size, and names for some of them.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any

import jax.monitoring

import causal_sgd as cs
from causal_sgd import studies
from causal_sgd.sweeps import _sweep

EVENT = "/jax/core/compile/backend_compile_duration"


class AtOnce(Executor):
    """Runs what is submitted before it returns; stands for the pool of a comparison."""

    def __init__(self, workers: int) -> None:
        """Whatever the number of workers."""

    def submit(self, work: Callable[..., Any], /, *arguments: Any, **named: Any) -> Future[Any]:
        """Its result or its error, which are there."""
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
    parser.add_argument("studies", nargs="*", metavar="study", help="by default all of them")
    parser.add_argument("--quick", action="store_true", help="the reduced size of the studies")
    options = parser.parse_args()
    for name in options.studies:
        if name not in studies.NAMES:
            parser.error(f"study must be one of {', '.join(studies.NAMES)}, got {name!r}")
    times: list[float] = []

    def listen(event: str, duration_secs: float, **kwargs: str | int) -> None:
        if event == EVENT:
            times.append(duration_secs)

    jax.monitoring.register_event_duration_secs_listener(listen)
    _sweep.ThreadPoolExecutor = AtOnce
    cs.use_cpu_cores()
    print("| study | programs | all of them, s | slowest, s |\n|---|---|---|---|")
    slowest = 0.0
    for name in options.studies or studies.NAMES:
        times.clear()
        studies.load(name).run(quick=options.quick, key=0, progress=False)
        print(
            f"| {name} | {len(times)} | {sum(times):.1f} | {max(times, default=0):.2f} |",
            flush=True,
        )
        slowest = max([slowest, *times])
    print(f"\nslowest of all: {slowest:.2f} s")


if __name__ == "__main__":
    main()
