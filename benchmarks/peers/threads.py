"""Threads that draw random numbers together."""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

Task = Callable[[], object]

# Below about a millisecond of normals per thread, handing out work costs more than it saves.
_NORMALS_PER_THREAD = 2**17


def worth(normals: int) -> int:
    """Number of threads that pay off for this many normals."""
    cores = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    return max(1, min(cores, normals // _NORMALS_PER_THREAD))


@contextmanager
def parallel(workers: int) -> Iterator[Callable[[Sequence[Task]], None]]:
    """Yields a function that runs `workers` tasks at once, the first in the calling thread."""
    if workers == 1:

        def run_all(tasks: Sequence[Task]) -> None:
            tasks[0]()

        yield run_all
        return
    with ThreadPoolExecutor(workers - 1) as pool:

        def run_all_at_once(tasks: Sequence[Task]) -> None:
            others = [pool.submit(task) for task in tasks[1:]]
            tasks[0]()
            for other in others:
                other.result()

        yield run_all_at_once
