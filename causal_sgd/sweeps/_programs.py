"""One compiled program for a tile of runs: traced and measured once, and compiled once for all CPU cores or once for each GPU.

This is the only place that maps over runs and the only one that compiles. A tile is a fixed number of runs, and the size
that is chosen depends on the program alone, never on how many runs there are, so that a run gives the same bits in any
sweep.
"""

from __future__ import annotations

import collections
import functools
import hashlib
import re
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import psutil
from jax.extend import core as jex_core

from causal_sgd import checks, random
from causal_sgd.sweeps._grid import LARGEST_SEED, Columns, Grid
from causal_sgd.sweeps._machine import Device, settings
from causal_sgd.sweeps._relocation import moved
from causal_sgd.types import Array, Key, Trace

__all__ = ["CPU_OPTIONS", "Cell", "Program", "dry_run", "root_key", "waiting"]

Cell = Callable[..., Trace]
"""cell(key, *, <axis names>) -> Trace: builds all its parts inside and calls `run`."""

# For a look at a program: one would not show what is done to several at a time. A tile of 16 is usual at d = 50, and not traced again.
TRACED_RUNS = 16
LARGEST_TILE = 1024
CACHE_BYTES = (
    30 * 10**6
)  # of all values that the runs of a tile compute on a CPU; few of them live at a time
# One thread a tile, as every core has a tile of its own; and the widest vectors that a core has, which are not the default.
CPU_OPTIONS = {"xla_cpu_multi_thread_eigen": False, "xla_cpu_prefer_vector_width": 512}
ACCELERATOR_LARGEST_TILE = 2**16
ACCELERATOR_BYTES = 2**30
PROGRAMS_KEPT = (
    64  # compiled ones; a program that is needed again after so many others is compiled again
)

waiting = threading.Event()
"""Set when a program is first waited for, with nothing left to trace: XLA works and Python is idle."""


class Program(NamedTuple):
    """A cell as a program for many runs at once, and what is known of it without running it."""

    program: Any  # the jitted (root key, seeds [B], values [B]...) -> Trace [B, ...]
    root: Key
    shapes: Trace  # of one run, as jax.ShapeDtypeStruct
    run_bytes: int  # of all values that a run computes
    shared_bytes: (
        int  # of constants that all runs read as a whole, such as a design in full batches
    )
    fingerprint: (
        str  # the same for the same program, in any process; what Python callbacks do aside
    )
    identity: Any  # equal for kernels that may share compiled programs
    batches_lapack: (
        bool  # whether several runs hand batches of matrices to LAPACK (a user's metric might)
    )

    @classmethod
    def make(
        cls, cell: Cell, names: tuple[str, ...], kinds: Sequence[np.dtype], root: Key
    ) -> Program:
        """Trace a cell whose parameters `names` are columns of the types `kinds`; once for a cell."""
        known = _programs.setdefault(cell, {})
        place = names, tuple(kinds), jax.random.key_impl(root), tuple(settings().values())
        if place not in known:
            program = _program(cell, names)
            tile = program.trace(root, *_columns(kinds, TRACED_RUNS))
            shapes = jax.tree.map(
                lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), tile.out_info
            )
            shared_bytes = _shared_bytes(tile.jaxpr)
            run_bytes = _working_bytes(tile.jaxpr.jaxpr) // TRACED_RUNS
            if (
                shared_bytes > run_bytes
            ):  # and what is made of the shared data must not be counted with every run
                two = program.trace(root, *_columns(kinds, 2 * TRACED_RUNS))
                run_bytes = max(
                    (_working_bytes(two.jaxpr.jaxpr) - _working_bytes(tile.jaxpr.jaxpr))
                    // TRACED_RUNS,
                    1,
                )
            fingerprint = _fingerprint(tile.jaxpr)
            known[place] = cls(
                program, root, shapes,
                run_bytes=run_bytes,
                shared_bytes=shared_bytes,
                fingerprint=fingerprint,
                identity=object() if _calls_back(tile.jaxpr.jaxpr) else fingerprint,
                batches_lapack=_batches_lapack(tile.jaxpr.jaxpr),
            )  # fmt: skip
        return known[place]._replace(root=root)

    @property
    def result_bytes(self) -> int:
        """Bytes of what one run returns."""
        return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(self.shapes))

    def layout(
        self, devices: Sequence[Device], *, memory: float | None, tile: int | None, held: int
    ) -> tuple[int, Sequence[Device]]:
        """The tile, and the devices that have room for one each.

        Args:
            devices: that may be used.
            memory: bytes that the tiles in flight may use; None for half of what is free.
            tile: the tile if it is given.
            held: bytes of results that stay in memory beside the tiles.

        Raises:
            ValueError: if not even one run, or the tile that is given, has room.
        """
        accelerated = devices[0].platform != "cpu"
        if self.batches_lapack and not accelerated:
            devices = devices[
                :1
            ]  # two at a time may wait for each other in XLA's thread pool; see `linalg`
        budget = _budget(devices, memory) - (held if memory is None and not accelerated else 0)
        least = self.run_bytes * (tile or 1)
        if held > psutil.virtual_memory().available or budget < least:
            what = "one run" if tile is None else f"one tile of {tile} runs"
            raise ValueError(
                f"memory must hold at least {what} ({least:.3g} bytes) beside the results ({held:.3g} bytes), "
                f"got {max(budget, 0):.3g} bytes free; lower dim or slab_size, or record fewer frames and metrics"
            )
        if tile is None:
            target, largest = (
                (ACCELERATOR_BYTES, ACCELERATOR_LARGEST_TILE)
                if accelerated
                else (CACHE_BYTES, LARGEST_TILE)
            )
            # Data that all runs share are read once for all the runs of a tile; too large a tile leaves cores without one.
            target += self.shared_bytes // 4
            tile = int(min(2 ** int(np.log2(max(target / self.run_bytes, 1))), largest))
            while tile > 1 and tile * self.run_bytes > budget:
                tile //= 2
        room = max(
            int(budget // (tile * self.run_bytes)), 1
        )  # fewer devices, never another tile for more of them
        return tile, devices[:room]

    def begin(self, columns: Columns, devices: Sequence[Device], pool: Executor) -> None:
        """Lower for columns of this length, and have the pool compile what `compile` will need and what is not there."""
        kind = self._kind(columns)
        _forget_failed(kind)
        missing = [device for device in devices if (device, kind) not in _executables]
        if missing and self._one_for_all(devices):
            missing = missing[:1] if _movable(kind) is None else []
        self._start(missing, columns, kind, pool)

    def compile(
        self, columns: Columns, devices: Sequence[Device]
    ) -> dict[Device, Callable[[Columns], Trace]]:
        """The program for columns of this length on each device; compiled only where it was not, for CPUs once."""
        kind = self._kind(columns)
        with ThreadPoolExecutor(max(len(devices), 1)) as pool:
            self.begin(columns, devices, pool)
            waiting.set()
            missing = [device for device in devices if (device, kind) not in _executables]
            if missing and (source := _movable(kind)) is not None:  # CPUs, which share one program
                compiled = source.result()
                for device in missing.copy():
                    if (program := moved(compiled, device)) is not None:
                        _executables[device, kind] = Loaded(_done(program), movable=False)
                        missing.remove(device)
                self._start(missing, columns, kind, pool)
        programs = {}
        for device in devices:
            _executables.move_to_end((device, kind))
            programs[device] = functools.partial(
                self._call, _executables[device, kind].program.result(), device
            )
        while len(_executables) > PROGRAMS_KEPT:
            _executables.popitem(last=False)
        return programs

    def _kind(self, columns: Columns) -> Any:
        """What programs that are the same share, apart from the device."""
        return (
            self.identity,
            jax.random.key_impl(self.root),
            tuple((c.shape, c.dtype) for c in columns),
        )

    def _one_for_all(self, devices: Sequence[Device]) -> bool:
        """Whether what is compiled for one device may be moved to the others."""
        return devices[0].platform == "cpu" and self.identity == self.fingerprint and not _cached()

    def _start(
        self, devices: Sequence[Device], columns: Columns, kind: Any, pool: Executor
    ) -> None:
        """Lower for these devices, and compile side by side."""
        for device in devices:
            lowered = self.program.lower(*jax.device_put((self.root, *columns), device))
            options = CPU_OPTIONS if device.platform == "cpu" else None
            program = pool.submit(lowered.compile, compiler_options=options)
            _executables[device, kind] = Loaded(program, movable=not _cached())

    def _call(self, executable: Any, device: Device, columns: Columns) -> Trace:
        return executable(*jax.device_put((self.root, *columns), device))


class Loaded(NamedTuple):
    """A program that is compiled or will be, and whether it is really compiled here, and not loaded or moved itself."""

    program: Future[Any]
    movable: bool


_programs: weakref.WeakKeyDictionary[Cell, dict[Any, Program]] = weakref.WeakKeyDictionary()
_executables: collections.OrderedDict[tuple[Device, Any], Loaded] = collections.OrderedDict()
_dry_runs: weakref.WeakKeyDictionary[Cell, dict[Any, Trace]] = weakref.WeakKeyDictionary()


def root_key(key: int | Key) -> Key:
    """The root key that is given, or that of a whole number."""
    if isinstance(key, int | np.integer) and not isinstance(key, bool):
        return jax.random.key(
            checks.integer("key", key, minimum=0, maximum=LARGEST_SEED)
        )  # jax would leave out higher bits
    if not (
        isinstance(key, jax.Array)
        and jnp.issubdtype(key.dtype, jax.dtypes.prng_key)
        and key.ndim == 0
    ):
        raise ValueError(
            f"key must be a whole number or one typed key (jax.random.key), got {key!r}"
        )
    return key


def dry_run(cell: Cell, grid: Grid, root: Key) -> Trace:
    """Trace the cell at concrete points, so that checks at the doors of its parts see the numbers; once for a point.

    Returns:
        What one run gives, as jax.ShapeDtypeStruct.
    """
    passed = _dry_runs.setdefault(cell, {})
    shapes = None
    for point in grid.corners():
        shapes = passed.get(tuple(point.items()))
        if shapes is not None:
            continue
        shapes = jax.eval_shape(lambda key, point=point: cell(key, **point), root)
        if not isinstance(shapes, Trace):
            raise ValueError(
                f"cell must return the Trace that `run` gives, got {type(shapes).__name__}"
            )
        passed[tuple(point.items())] = shapes
    assert shapes is not None  # a grid has a corner
    return shapes


def _cached() -> bool:
    """Whether programs may come from jax's cache on disk, from where they cannot be moved on."""
    return jax.config.jax_compilation_cache_dir is not None  # pyright: ignore[reportAttributeAccessIssue]


def _forget_failed(kind: Any) -> None:
    """Leave out programs that were given up or could not be compiled."""
    for place, loaded in list(_executables.items()):
        if place[1] == kind and (
            loaded.program.cancelled()
            or (loaded.program.done() and loaded.program.exception() is not None)
        ):
            del _executables[place]


def _movable(kind: Any) -> Future[Any] | None:
    """The program as it was, or is being, compiled for some CPU device."""
    return next(
        (
            loaded.program
            for (device, known), loaded in _executables.items()
            if known == kind and device.platform == "cpu" and loaded.movable
        ),
        None,
    )


def _done(value: Any) -> Future[Any]:
    """A future of what is there."""
    future: Future[Any] = Future()
    future.set_result(value)
    return future


def _program(cell: Cell, names: tuple[str, ...]) -> Any:
    """The function (root key, seeds [B], parameter values [B]...) -> Trace [B, ...] of a cell, jitted."""
    reference = weakref.ref(
        cell
    )  # a strong one would keep its own key in the table of kernels alive for ever

    def one(root: Key, seed: Array, *values: Array) -> Trace:
        original = reference()
        assert original is not None
        return original(random.fold_in(root, seed), **dict(zip(names, values, strict=True)))

    return jax.jit(jax.vmap(one, (None, 0) + (0,) * len(names)))


def _columns(kinds: Sequence[np.dtype], count: int) -> Columns:
    """Columns of the right types for so many runs; only their shapes matter."""
    return (np.zeros(count, np.uint32), *(np.zeros(count, kind) for kind in kinds))


def _fingerprint(jaxpr: Any) -> str:
    """A digest of a program and its constants that is the same in every process with the same versions."""
    digest = hashlib.sha256(
        re.sub(r"0x[0-9a-f]+", "", str(jaxpr)).encode()
    )  # addresses of Python functions
    for constant in jaxpr.consts:
        array = np.asarray(constant)
        digest.update(
            f"{array.shape} {array.dtype}".encode() + np.ascontiguousarray(array).tobytes()
        )
    return digest.hexdigest()


def _budget(devices: Sequence[Device], memory: float | None) -> float:
    if memory is not None:
        return float(memory)
    if devices[0].platform == "cpu":
        return psutil.virtual_memory().available / 2
    stats = [device.memory_stats() or {} for device in devices]
    free = [s.get("bytes_limit", 2**33) - s.get("bytes_in_use", 0) for s in stats]
    return 0.8 * min(free) * len(devices)


def _working_bytes(jaxpr: Any) -> int:
    """Bytes of all that a program computes, each value counted once: more than it ever holds at a time.

    A jitted function counts as if it were written out; of loops and branches one at a time is at work.
    """
    own = sum(_bytes(variable.aval) for equation in jaxpr.eqns for variable in equation.outvars)
    called, largest = 0, 0
    for equation in jaxpr.eqns:
        for inner in _inner(equation):
            size = _working_bytes(inner)
            if equation.primitive.name in ("jit", "pjit"):
                called += size
            else:
                largest = max(largest, size)
    return own + called + largest


def _shared_bytes(jaxpr: Any) -> int:
    """Bytes of the constants of a program, except those of which a run takes some rows, as told by their size."""
    taken = {
        _bytes(equation.invars[0].aval)
        for equation in _every(jaxpr.jaxpr)
        if equation.primitive.name == "gather"
    }
    sizes = [np.asarray(constant).nbytes for constant in jaxpr.consts]
    return sum(size for size in sizes if size not in taken)


LAPACK = {"cholesky", "eig", "eigh", "geqrf", "householder_product", "lu", "qr", "schur", "svd"}


def _batches_lapack(jaxpr: Any) -> bool:
    """Whether a program of several runs hands batches of matrices to LAPACK (a user's metric might)."""
    return any(
        equation.primitive.name in LAPACK and int(np.prod(equation.invars[0].aval.shape[:-2])) > 1
        for equation in _every(jaxpr)
    )


def _calls_back(jaxpr: Any) -> bool:
    """Whether a program calls Python functions, which it does not show."""
    return any("callback" in equation.primitive.name for equation in _every(jaxpr))


def _every(jaxpr: Any) -> Iterator[Any]:
    """The equations of a program and of all programs inside it."""
    for equation in jaxpr.eqns:
        yield equation
        for inner in _inner(equation):
            yield from _every(inner)


def _inner(equation: Any) -> Iterator[Any]:
    """The programs inside an equation: bodies of loops, branches, calls."""
    kinds = jex_core.Jaxpr | jex_core.ClosedJaxpr
    for leaf in jax.tree.leaves(
        list(equation.params.values()), is_leaf=lambda leaf: isinstance(leaf, kinds)
    ):
        if isinstance(leaf, kinds):
            yield leaf.jaxpr if isinstance(leaf, jex_core.ClosedJaxpr) else leaf


def _bytes(aval: Any) -> int:
    try:
        return int(np.prod(aval.shape)) * aval.dtype.itemsize
    except (AttributeError, TypeError):
        return 0
