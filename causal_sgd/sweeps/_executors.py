"""Where tiles are computed: on this process's devices, or by the workers of any executor.

A backend takes a few tiles and returns a future with the trace or the error of each. Workers share
nothing: a job carries all that they need.
"""

from __future__ import annotations

import contextlib
import functools
import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, NamedTuple, Protocol

import cloudpickle
import jax
import numpy as np

from causal_sgd.sweeps import _machine
from causal_sgd.sweeps._grid import Columns
from causal_sgd.sweeps._keys import decode_key, encode_key
from causal_sgd.sweeps._machine import Device, Setting
from causal_sgd.sweeps._programs import Cell, Program, TracedCell
from causal_sgd.sweeps._provenance import Environment
from causal_sgd.types import Key, Trace

if TYPE_CHECKING:
    import xarray as xr

__all__ = [
    "Answer",
    "Backend",
    "ExecutorError",
    "Job",
    "LocalDevices",
    "Workers",
    "check_executor",
    "check_trace",
    "compute",
    "describe",
]


class ExecutorError(RuntimeError):
    """The executor cannot be used any longer; everything done before is kept.

    Attributes:
        dataset: the results so far, with the coordinate `done` False for missing runs; None if
            there are none.
    """

    dataset: xr.Dataset | None = None


class Answer(NamedTuple):
    """The results of a few tiles."""

    environment: Environment
    outcomes: Sequence[Trace | Exception]  # traces hold NumPy arrays [B, ...]


class Backend(Protocol):
    """A place where tiles are computed, as `schedule` uses it.

    Attributes:
        window: the number of tasks to submit ahead.
        waits: whether to wait for running tasks when the sweep is stopped.
    """

    window: int
    waits: bool

    def submit(self, tiles: Sequence[Columns], /) -> Future[Answer]:
        """Start computing some tiles."""
        ...

    def renew(self) -> bool:
        """Replace an executor that is broken or hangs; return False if that is impossible."""
        ...

    def close(self) -> None:
        """Release all resources."""
        ...


class LocalDevices:
    """The devices of this process, each fed by its own host threads.

    An accelerator has two, so that its next tile is ready before the host has copied the results
    of the last one; a CPU device has one, which keeps one core busy.
    """

    waits = True

    def __init__(self, program: Program, devices: Sequence[Device], columns: Columns) -> None:
        """Compile for columns of this length on every device."""
        calls = program.compile(columns, devices)
        seats: queue.SimpleQueue[Callable[[Columns], Trace]] = queue.SimpleQueue()
        for device in devices:
            for _ in range(1 if device.platform == "cpu" else 2):
                seats.put(calls[device])
        own = threading.local()

        def take_seat() -> None:
            own.call = seats.get()

        environment, settings = describe(program, devices[0]), _machine.settings()

        def work(tiles: Sequence[Columns]) -> Answer:
            with _machine.applied(settings):
                return Answer(environment, [_attempt(own.call, columns) for columns in tiles])

        self.window = 2 * seats.qsize()
        self._work = work
        self._pool = ThreadPoolExecutor(seats.qsize(), "tiles", initializer=take_seat)

    def submit(self, tiles: Sequence[Columns]) -> Future[Answer]:
        """Queue tiles for the next free device."""
        return self._pool.submit(self._work, tiles)

    def renew(self) -> bool:
        """Return False: devices are not replaced."""
        return False

    def close(self) -> None:
        """Wait for the running tiles."""
        self._pool.shutdown(cancel_futures=True)


ALLOWED = "executor must be a concurrent.futures.Executor or a function that makes one"


def check_executor(executor: object, timeout: float | None = None) -> None:
    """Refuse an executor that cannot compute, where this can be told without a task.

    Raises:
        ValueError: if it is none and no function, would fork its processes, or has threads and a
            `timeout`: a thread that hangs cannot be stopped, and Python waits for it at its exit.
            A pool whose processes were started before jax passes; others are refused in the worker.
    """
    if not (isinstance(executor, Executor) or callable(executor)):
        raise ValueError(f"{ALLOWED}, got {executor!r}")
    if timeout is not None and (
        isinstance(executor, ThreadPoolExecutor) or executor is ThreadPoolExecutor
    ):
        raise ValueError(
            f"timeout must be None with an executor of threads, got {timeout!r}: a thread cannot "
            "be stopped, and Python waits for it at its exit; use a pool of spawned processes"
        )
    from concurrent.futures import ProcessPoolExecutor  # which loads multiprocessing

    if isinstance(executor, ProcessPoolExecutor) and not getattr(executor, "_processes", None):
        context = getattr(executor, "_mp_context", None)
        if context is not None and context.get_start_method() == "fork":
            raise ValueError(f"the processes of executor {_machine.NO_FORK}, got {executor!r}")


class Workers:
    """The workers of an executor: a process pool, Dask's `client.get_executor()`, `slurm(...)`."""

    waits = False
    window = 10_000  # bounds the queue of the executor, whose number of workers is not known

    def __init__(
        self,
        executor: Executor | Callable[[], Executor],
        job: bytes,
        program: str,
        timeout: float | None = None,
    ) -> None:
        """Take an executor, or a factory, which is called again when a pool breaks or hangs.

        Args:
            executor: the executor or the factory.
            job: a pickled `Job`.
            program: the fingerprint of the program that this process would run.
            timeout: of the sweep, which some executors cannot keep.
        """
        self._timeout = timeout
        self._factory = None if isinstance(executor, Executor) else executor
        self._executor = executor if isinstance(executor, Executor) else self._make()
        self._job, self._program = job, program
        self._unanswered: set[Future[Answer]] = set()

    def submit(self, tiles: Sequence[Columns]) -> Future[Answer]:
        """Send tiles to a worker.

        Raises:
            ExecutorError: if the executor does not return a future.
        """
        future = self._executor.submit(compute, self._job, list(tiles), self._program)
        if not all(
            callable(getattr(future, name, None))
            for name in ("add_done_callback", "cancel", "exception", "result")
        ):
            raise ExecutorError(
                f"executor must return a future from submit, as concurrent.futures does, "
                f"got {future!r} from {self._executor!r}"
            )
        self._unanswered.add(future)
        future.add_done_callback(self._unanswered.discard)
        return future

    def renew(self) -> bool:
        """Make a new executor, if there is a factory."""
        if self._factory is None:
            return False
        self.close()
        self._executor = self._make()
        return True

    def close(self) -> None:
        """Shut down an executor that was made here; any other belongs to the caller."""
        if self._factory is None:
            return
        # `shutdown` forgets the processes. Python waits at its exit for those that still compute.
        processes = dict(getattr(self._executor, "_processes", None) or {})
        self._executor.shutdown(wait=False, cancel_futures=True)
        if self._unanswered:
            self._unanswered.clear()
            time.sleep(0.2)  # a pool that breaks with tasks it has not yet dropped prints an error
            for process in processes.values():
                process.kill()

    def _make(self) -> Executor:
        assert self._factory is not None
        executor = self._factory()
        if not isinstance(executor, Executor):
            raise ValueError(f"{ALLOWED}, got {executor!r}")
        check_executor(executor, self._timeout)
        return executor


class Job(NamedTuple):
    """All that another process needs to compute tiles of a sweep."""

    cell: Cell
    names: tuple[str, ...]
    key: Mapping[str, str]  # encoded by `encode_key`
    settings: Mapping[str, Setting]
    versions: Mapping[str, str]
    token: str  # of the sweep: a worker traces the cell once for each

    @classmethod
    def make(cls, traced: TracedCell, names: tuple[str, ...], root: Key) -> Job:
        """The job of a sweep, with this process's settings."""
        return cls(
            traced.cell,
            names,
            encode_key(root),
            _machine.settings(),
            _machine.versions(),
            traced.token,
        )

    def pickled(self) -> bytes:
        """The job for `compute`.

        Raises:
            ValueError: if the cell cannot be pickled.
        """
        try:
            return cloudpickle.dumps(self)
        except Exception as error:  # whatever the objects that the cell refers to raise
            raise ValueError(
                "cell must be a function that cloudpickle can pickle, for the workers of "
                f"an executor, got {self.cell!r}: {error}"
            ) from error


def compute(job: bytes, tiles: Sequence[Columns], expected: str) -> Answer:
    """Compute tiles in a worker, on its first device.

    Args:
        job: a `Job` pickled by cloudpickle; loaded, traced and compiled once per worker.
        tiles: the columns of each.
        expected: the fingerprint of the program that the process which began the sweep would run.
    """
    if _machine.was_forked():
        raise ExecutorError(f"the processes of executor {_machine.NO_FORK}")
    device = _machine.present_devices()[0]
    loaded, traced = _load(job)
    outcomes = []
    with _machine.applied(loaded.settings):
        kinds = [column.dtype for column in tiles[0][1:]]
        program = traced.program(loaded.names, kinds, decode_key(**loaded.key))
        environment = describe(program, device)
        # Fingerprints of programs are comparable among equal versions only.
        if expected != program.fingerprint and loaded.versions == environment["versions"]:
            return Answer(environment, [RuntimeError(OTHER_PROGRAM)] * len(tiles))
        for columns in tiles:
            with _lapack if program.batches_lapack else contextlib.nullcontext():
                outcomes.append(_attempt(program.compile(columns, [device])[device], columns))
    return Answer(environment, outcomes)


OTHER_PROGRAM = (
    "in this worker the cell is another program than in the process that began the sweep: it reads "
    "something that differs here, such as a variable of a module, a file or a random number; give "
    "it to the cell as an argument or in its closure"
)


def describe(program: Program, device: Device) -> Environment:
    """The environment in which a program computes its results, and the program's fingerprint."""
    return {**_machine.environment(device), "program": program.fingerprint}


def check_trace(trace: Trace, shapes: Trace, tile: int) -> None:
    """Check that the trace of a tile is one of the sweep's program.

    Args:
        trace: with arrays [B, ...].
        shapes: of one run.
        tile: the number of runs B.

    Raises:
        ExecutorError: if its metrics, shapes or types are others.
    """
    found, expected = (jax.tree.flatten_with_path(each)[0] for each in (trace, shapes))
    have = {path: (np.shape(leaf), np.asarray(leaf).dtype) for path, leaf in found}
    want = {path: ((tile, *leaf.shape), leaf.dtype) for path, leaf in expected}
    for path in want | have:
        if have.get(path) != want.get(path):
            name = jax.tree_util.keystr(path).lstrip(".")
            raise ExecutorError(
                f"executor must answer with the results of its tiles, got {_kind(have.get(path))} "
                f"for {name} instead of {_kind(want.get(path))}; do all workers have the same "
                "versions of causal_sgd and jax?"
            )


def _kind(array: tuple[tuple[int, ...], np.dtype] | None) -> str:
    return "nothing" if array is None else f"{array[1]} of shape {array[0]}"


# For executors of threads: two such programs at a time may wait for each other; see `linalg`.
_lapack = threading.Lock()


@functools.lru_cache(maxsize=4)
def _load(job: bytes) -> tuple[Job, TracedCell]:
    """Unpickle a job once, so that all its tiles have the same cell and share its programs."""
    loaded: Job = cloudpickle.loads(job)
    return loaded, TracedCell(loaded.cell)


def _attempt(call: Callable[[Columns], Trace], columns: Columns) -> Trace | Exception:
    """The trace of a tile as NumPy arrays, or its error in a form that can be pickled."""
    try:
        return jax.tree.map(np.asarray, call(columns))
    except Exception as error:  # whatever a user's cell raises: the other tiles go on
        return RuntimeError(f"{type(error).__name__}: {error}")
