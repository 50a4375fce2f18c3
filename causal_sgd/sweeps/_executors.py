"""Where tiles are computed: on this process's devices, or by the workers of any `concurrent.futures.Executor`.

A backend takes a few tiles and gives a future of what came of each: a trace, or the error that it ended with. A worker is
told everything it needs; nothing is shared but the numbers that travel.
"""

from __future__ import annotations

import contextlib
import functools
import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from typing import Any, NamedTuple, Protocol

import cloudpickle
import jax
import numpy as np

from causal_sgd import checks
from causal_sgd.sweeps import _machine
from causal_sgd.sweeps._grid import Columns
from causal_sgd.sweeps._programs import Cell, Program
from causal_sgd.types import Key, Trace

__all__ = [
    "Answer",
    "Backend",
    "Job",
    "LocalDevices",
    "Slurm",
    "Workers",
    "compute",
    "described_by",
    "slurm",
]


class Answer(NamedTuple):
    """What came of a few tiles."""

    environment: Mapping[str, Any]
    outcomes: Sequence[Trace | Exception]  # traces hold NumPy arrays [B, ...]


class Backend(Protocol):
    """What `dispatch` asks of a place where tiles are computed.

    Attributes:
        window: how many requests to have under way at a time.
        waits: whether what is under way is waited for when the sweep is stopped.
    """

    window: int
    waits: bool

    def submit(self, tiles: Sequence[Columns], /) -> Future[Answer]:
        """Begin to compute some tiles."""
        ...

    def renew(self) -> bool:
        """Replace what broke; False where that cannot be done."""
        ...

    def close(self) -> None:
        """Let go of everything."""
        ...


class LocalDevices:
    """The devices of this process, each with host threads of its own.

    An accelerator has two, so that its next tile is there before the host has taken the last one's results; a CPU has
    nothing to gain from that.
    """

    waits = True

    def __init__(self, kernel: Program, devices: Sequence[Any], columns: Columns) -> None:
        """Compile for columns like these on every device."""
        programs = kernel.compile(columns, devices)
        seats: queue.SimpleQueue[Any] = queue.SimpleQueue()
        for device in devices:
            for _ in range(1 if device.platform == "cpu" else 2):
                seats.put(device)
        mine = threading.local()

        def sit() -> None:
            mine.device = seats.get()

        described, settings = described_by(kernel, devices[0]), _machine.settings()

        def work(tiles: Sequence[Columns]) -> Answer:
            with _machine.applied(settings):
                return Answer(
                    described, [_attempt(programs[mine.device], columns) for columns in tiles]
                )

        self.window = 2 * seats.qsize()
        self._work = work
        self._pool = ThreadPoolExecutor(seats.qsize(), "tiles", initializer=sit)

    def submit(self, tiles: Sequence[Columns]) -> Future[Answer]:
        """Queue tiles for the next device that is free."""
        return self._pool.submit(self._work, tiles)

    def renew(self) -> bool:
        """Devices are not replaced."""
        return False

    def close(self) -> None:
        """Wait for the tiles that have begun."""
        self._pool.shutdown(cancel_futures=True)


class Workers:
    """The workers of an executor: a process pool, Dask's `client.get_executor()`, `slurm(...)`, ..."""

    waits = False
    window = 10_000  # a bound on what waits in the executor, not on the workers, whose number is not known

    def __init__(self, executor: Executor | Callable[[], Executor], job: Job) -> None:
        """Take an executor, or a function that makes one, which is then asked again where a pool broke."""
        self._make = None if isinstance(executor, Executor) else executor
        self._executor = executor if isinstance(executor, Executor) else self._made()
        self._job = cloudpickle.dumps(job)

    def submit(self, tiles: Sequence[Columns]) -> Future[Answer]:
        """Send tiles to a worker."""
        return self._executor.submit(compute, self._job, list(tiles))

    def renew(self) -> bool:
        """A new executor where there is a function that makes one."""
        if self._make is None:
            return False
        self.close()
        self._executor = self._made()
        return True

    def close(self) -> None:
        """Shut down what was made here; an executor that was given stays its owner's."""
        if self._make is not None:
            self._executor.shutdown(wait=False, cancel_futures=True)

    def _made(self) -> Executor:
        assert self._make is not None
        made = self._make()
        if not isinstance(made, Executor):
            raise ValueError(
                f"executor must be a concurrent.futures.Executor or a function that makes one, got {made!r}"
            )
        return made


class Job(NamedTuple):
    """All that another process needs to compute tiles of a sweep."""

    cell: Cell
    names: tuple[str, ...]
    key_data: np.ndarray
    key_implementation: str
    settings: Mapping[str, Any]

    @classmethod
    def make(cls, cell: Cell, names: tuple[str, ...], root: Key) -> Job:
        """The job of a sweep, with this process's settings."""
        implementation = str(jax.random.key_impl(root))
        return cls(
            cell, names, np.asarray(jax.random.key_data(root)), implementation, _machine.settings()
        )


def compute(job: bytes, tiles: Sequence[Columns]) -> Answer:
    """Compute tiles in a worker, on its first device.

    Args:
        job: a `Job` pickled by cloudpickle; unpickled, traced and compiled once in a worker.
        tiles: the columns of each.
    """
    device = jax.local_devices()[0]
    unpickled = _unpickled(job)
    outcomes = []
    with _machine.applied(unpickled.settings):
        root = jax.random.wrap_key_data(
            jax.numpy.asarray(unpickled.key_data), impl=unpickled.key_implementation
        )
        kernel = Program.make(
            unpickled.cell, unpickled.names, [column.dtype for column in tiles[0][1:]], root
        )
        for columns in tiles:
            with _lapack if kernel.batches_lapack else contextlib.nullcontext():
                outcomes.append(_attempt(kernel.compile(columns, [device])[device], columns))
        return Answer(described_by(kernel, device), outcomes)


def described_by(kernel: Program, device: Any) -> dict[str, Any]:
    """The environment that a program's results come from, with the fingerprint that the program has there."""
    return _machine.environment(device) | {"program": kernel.fingerprint}


_lapack = (
    threading.Lock()
)  # for executors of threads: two at a time may wait for each other; see `linalg`


@functools.lru_cache(maxsize=4)
def _unpickled(job: bytes) -> Job:
    """A job, whose cell stays the same for all its tiles: what is traced and compiled belongs to the cell."""
    return cloudpickle.loads(job)


def _attempt(program: Callable[[Columns], Trace], columns: Columns) -> Trace | Exception:
    """The trace of a tile as NumPy arrays, or its error in a form that travels between processes."""
    try:
        return jax.tree.map(np.asarray, program(columns))
    except Exception as error:  # whatever a user's cell does: the other tiles go on
        return RuntimeError(f"{type(error).__name__}: {error}")


def slurm(executor: Any, *, poll: float = 2.0) -> Slurm:
    """Jobs of a cluster's queue as an executor for `sweep`.

    Args:
        executor: a submitit executor (`pip install 'causal_sgd[slurm]'`) with its partition, time, ... set.
        poll: seconds between two looks at the jobs.

    Returns:
        An executor, for `sweep(..., executor=..., tiles_per_task=...)`; every task is one job of the queue.
    """
    if not hasattr(executor, "submit"):
        raise ValueError(f"executor must be one of submitit's, got {executor!r}")
    return Slurm(executor, checks.number("poll", poll, above=0))


class Slurm(Executor):
    """Jobs of a submitit executor as futures; see `slurm`."""

    def __init__(self, executor: Any, poll: float) -> None:
        """Nothing is submitted yet."""
        self._executor, self._poll = executor, poll
        self._jobs: list[tuple[Any, Future[Any]]] = []
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._watcher = threading.Thread(target=self._watch, name="slurm", daemon=True)
        self._watcher.start()

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """One job of the queue."""
        future: Future[Any] = Future()
        job = self._executor.submit(fn, *args, **kwargs)
        with self._lock:
            self._jobs.append((job, future))
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Stop watching; cancel the jobs that are left when asked to."""
        while wait and not cancel_futures and self._jobs:
            time.sleep(self._poll)
        self._stop.set()
        self._watcher.join()
        for job, future in self._jobs:
            if cancel_futures:
                job.cancel()
            future.cancel()

    def _watch(self) -> None:
        while not self._stop.wait(self._poll):
            with self._lock:
                jobs = list(self._jobs)
            for job, future in jobs:
                if future.cancelled():
                    job.cancel()
                elif not job.done():
                    continue
                else:
                    try:
                        future.set_result(job.result())
                    except Exception as error:  # the job's own error, or that it was lost
                        future.set_exception(error)
                with self._lock:
                    self._jobs.remove((job, future))
