"""A cell as one program for a tile of runs: traced and measured in every sweep, compiled once.

A cell is traced anew in every sweep, because what it reads may have changed: a global, a variable
of its closure, an attribute. Compiled programs are looked up by the digest of the trace and its
constants, so that an unchanged cell compiles nothing.

This is the only place that maps over runs and the only one that compiles. CPU devices share one
compiled program, which each calls from a thread of its own; every accelerator has its own.
"""

from __future__ import annotations

import collections
import contextlib
import functools
import re
import threading
import traceback
import uuid
import weakref
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core as jex_core

from causal_sgd import random
from causal_sgd.sweeps import _jaxprs
from causal_sgd.sweeps._grid import Columns, Grid
from causal_sgd.sweeps._machine import Device, compiler, settings
from causal_sgd.types import Array, Key, Trace

__all__ = ["CPU_OPTIONS", "Cell", "Program", "TracedCell", "waiting"]

Cell = Callable[..., Trace]
"""cell(key, *, <axis names>) -> Trace: builds all its parts inside and calls `run`."""

# Programs are traced with this many runs to measure them: with one, operations on several runs at
# a time would not show. A tile of 16 is usual at d = 50 and then needs no second trace.
TRACED_RUNS = 16
# Runs in a tile of one seed, which share its draws. More runs read the draws less often, but a grid
# of few points leaves more places empty.
RUNS_OF_A_SEED = 4
# One thread a tile, because every core has a tile of its own; and the widest vectors that the core
# supports, which are not XLA's default.
CPU_OPTIONS = {"xla_cpu_multi_thread_eigen": False, "xla_cpu_prefer_vector_width": 512}
# XLA runs at most this many calls at a time on one CPU device.
CALLS_PER_CPU_DEVICE = 32
CACHED_PROGRAMS = 64  # compiled ones; the least recently used is dropped

waiting = threading.Event()
"""Set when a compilation is first waited for, with nothing left to trace: Python is idle."""


class Program(NamedTuple):
    """A cell as a jitted function of many runs, with properties that need no execution."""

    function: jax.stages.Wrapped  # (root key, seeds [B] or [], values [B]...) -> Trace [B, ...]
    root: Key
    shapes: Trace  # of one run, as jax.ShapeDtypeStruct
    run_bytes: int  # of all values that a run computes
    shares_draws: bool  # whether tiles hold runs of one seed, which hold its draws once
    further_bytes: int  # as `run_bytes`, of each run but the first in such a tile
    shared_bytes: int  # of constants that all runs read as a whole, as designs in full batches
    fingerprint: str  # equal for equal programs, in any process; blind to Python callbacks
    identity: Hashable  # equal for programs that may share a compiled one
    batches_lapack: bool  # whether several runs pass batches of matrices to LAPACK

    @classmethod
    def make(
        cls, cell: Cell, names: tuple[str, ...], kinds: Sequence[np.dtype], root: Key
    ) -> Program:
        """Trace a cell.

        Args:
            cell: the cell.
            names: the parameters that are columns.
            kinds: the types of these columns.
            root: the root key.
        """
        function = _function(cell, names)
        with _explained(names):
            traced = function.trace(root, *_columns(kinds, TRACED_RUNS))
        jaxpr = traced.jaxpr
        fingerprint = _jaxprs.fingerprint(jaxpr)
        if fingerprint not in _measures:
            _measures[fingerprint] = _Measures.make(function, jaxpr, root, kinds)
        return cls(
            function=function,
            root=root,
            shapes=jax.tree.map(
                lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), traced.out_info
            ),
            **_measures[fingerprint]._asdict(),
            fingerprint=fingerprint,
            identity=(
                fingerprint,
                _jaxprs.callbacks(jaxpr.jaxpr),
                *settings().items(),
                *compiler().items(),
            ),
        )

    @property
    def result_bytes(self) -> int:
        """Bytes of the results of one run."""
        return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(self.shapes))

    def begin(self, columns: Columns, devices: Sequence[Device], pool: Executor) -> None:
        """Lower for columns of this length, and let the pool compile what is missing."""
        signature = self._signature(columns)
        _drop_failed(signature)
        for device in dict.fromkeys(_hosts(devices).values()):
            if (device, signature) not in _executables:
                lowered = self.function.lower(*jax.device_put((self.root, *columns), device))
                options = CPU_OPTIONS if device.platform == "cpu" else None
                _executables[device, signature] = pool.submit(
                    lowered.compile, compiler_options=options
                )

    def compile(
        self, columns: Columns, devices: Sequence[Device]
    ) -> dict[Device, Callable[[Columns], Trace]]:
        """Compile for columns of this length, where that was not done before.

        Returns:
            Device -> the function that runs a tile; one function for up to 32 CPU devices.
        """
        signature, hosts = self._signature(columns), _hosts(devices)
        with ThreadPoolExecutor(max(len(set(hosts.values())), 1)) as pool:
            self.begin(columns, devices, pool)
            waiting.set()
        calls = {}
        for device, host in hosts.items():
            _executables.move_to_end((host, signature))
            executable = _executables[host, signature].result()
            calls[device] = functools.partial(self._call, executable, host)
        while len(_executables) > CACHED_PROGRAMS:
            _executables.popitem(last=False)
        return calls

    def _signature(self, columns: Columns) -> Hashable:
        """Equal for programs that compile to the same code for one device."""
        types = tuple((column.shape, column.dtype) for column in columns)
        return self.identity, jax.random.key_impl(self.root), types

    def _call(self, executable: jax.stages.Compiled, device: Device, columns: Columns) -> Trace:
        # Cells whose metrics differ in their names only share a compiled program.
        leaves = jax.tree.leaves(executable(*jax.device_put((self.root, *columns), device)))
        return jax.tree.unflatten(jax.tree.structure(self.shapes), leaves)


class _Measures(NamedTuple):
    """What follows from the fingerprint of a program; see `Program`."""

    run_bytes: int
    shares_draws: bool
    further_bytes: int
    shared_bytes: int
    batches_lapack: bool

    @classmethod
    def make(
        cls,
        function: jax.stages.Wrapped,
        jaxpr: jex_core.ClosedJaxpr,
        root: Key,
        kinds: Sequence[np.dtype],
    ) -> _Measures:
        """Measure a traced program."""
        shared_bytes = _jaxprs.shared_bytes(jaxpr)
        whole = _jaxprs.working_bytes(jaxpr.jaxpr)
        run_bytes = whole // TRACED_RUNS
        if shared_bytes > run_bytes:
            # Values computed from shared data do not grow with the runs: take the increment.
            twice = function.trace(root, *_columns(kinds, 2 * TRACED_RUNS)).jaxpr
            increment = _jaxprs.working_bytes(twice.jaxpr) - whole
            run_bytes = max(increment // TRACED_RUNS, 1)
        shares_draws, further_bytes = _jaxprs.shares_draws(jaxpr.jaxpr), run_bytes
        if shares_draws:
            seed, *values = _columns(kinds, RUNS_OF_A_SEED)
            alike = function.trace(root, seed[0], *values).jaxpr  # the usual tile: traced once
            further = _jaxprs.working_bytes(alike.jaxpr) - run_bytes
            further_bytes = max(further // (RUNS_OF_A_SEED - 1), 1)
        lapack = _jaxprs.batches_lapack(jaxpr.jaxpr)
        return cls(run_bytes, shares_draws, further_bytes, shared_bytes, lapack)


_measures: dict[str, _Measures] = {}  # by fingerprint; a few bytes each


_executables: collections.OrderedDict[tuple[Device, Hashable], Future[jax.stages.Compiled]] = (
    collections.OrderedDict()
)


class TracedCell:
    """A cell with its traces, for the time of one call of `sweep` or `refine`.

    Attributes:
        cell: the cell.
        token: text that no other call has.
    """

    def __init__(self, cell: Cell) -> None:
        """Trace nothing yet."""
        # What jax.jit traced once it would not trace again.
        jitted = isinstance(cell, jax.stages.Wrapped)
        self.cell: Cell = getattr(cell, "__wrapped__", cell) if jitted else cell
        self.token = uuid.uuid4().hex
        self._programs: dict[Hashable, Program] = {}
        self._shapes: dict[Hashable, Trace] = {}  # by corner

    def program(self, names: tuple[str, ...], kinds: Sequence[np.dtype], root: Key) -> Program:
        """The program of the cell for columns of these names and types; traced once."""
        signature = names, tuple(kinds), jax.random.key_impl(root), tuple(settings().items())
        if signature not in self._programs:
            self._programs[signature] = Program.make(self.cell, names, kinds, root)
        return self._programs[signature]._replace(root=root)

    def dry_run(self, grid: Grid, kinds: Sequence[np.dtype], root: Key) -> Trace:
        """Trace the corners of a grid, so that the checks of the parts see concrete numbers.

        A corner is not traced again if the cell passed there before and is still the same program.

        Returns:
            The shapes of one run, as jax.ShapeDtypeStruct.
        """
        earlier = _passed.get(id(self.cell))
        if (
            earlier is not None
            and not self._shapes
            and self.program(grid.names, kinds, root).identity == earlier.identity
        ):
            self._shapes.update(earlier.shapes)
        shapes = None
        for point in grid.corners():
            corner = tuple(sorted(point.items()))
            if corner not in self._shapes:
                self._shapes[corner] = _shapes_at(self.cell, point, root)
            shapes = self._shapes[corner]
        assert shapes is not None, "a grid has a corner"
        return shapes

    def remember(self, program: Program) -> None:
        """Keep the corners that the cell passed, for later calls with the same program."""
        place = id(self.cell)
        with contextlib.suppress(TypeError):  # what has no weak references is traced again
            cell = weakref.ref(self.cell, lambda _: _passed.pop(place, None))
            _passed[place] = _Passed(cell, program.identity, dict(self._shapes))


class _Passed(NamedTuple):
    """The corners that a cell passed as a program."""

    cell: weakref.ref[Cell]  # drops the entry when the cell is gone
    identity: Hashable
    shapes: Mapping[Hashable, Trace]


_passed: dict[int, _Passed] = {}  # by the address of the cell


@contextlib.contextmanager
def _explained(names: Sequence[str]) -> Iterator[None]:
    """Say what a cell must not do where jax says that a traced value has no number.

    Args:
        names: the swept parameters.

    Raises:
        ValueError: in place of jax's error, which is the cause.
    """
    try:
        yield
    except jax.errors.TracerBoolConversionError as error:
        place, line = _place(error)
        read = [repr(name) for name in names if re.search(rf"\b{re.escape(name)}\b", line)]
        subject = " and ".join(read) or "a number of the run"
        hint = ""
        if "optax" in place:
            hint = (
                "Some schedules of optax compare their peak with zero; give them 1 and multiply by "
                "the swept peak. "
            )
        raise ValueError(
            f"cell must not branch on {subject} in Python, as one program serves all values. "
            "Choose between numbers by jnp.where(condition, a, b), and between parts by `compare`, "
            f"with a cell for each choice. {hint}It happened at {place}: {line}"
        ) from error
    except (
        jax.errors.ConcretizationTypeError,
        jax.errors.TracerArrayConversionError,
        jax.errors.TracerIntegerConversionError,
    ) as error:
        place, line = _place(error)
        raise ValueError(
            "cell must compute with its key and its swept parameters by jax alone, as one program "
            "serves all of their values: NumPy and Python (float, int, range, shapes) cannot read "
            "them. Use jax.numpy, and sweep anew for each value of a number that fixes a shape. "
            f"It happened at {place}: {line}"
        ) from error


def _place(error: BaseException) -> tuple[str, str]:
    """The innermost place outside jax where an exception was raised, and its line."""
    package = str(Path(jax.__file__).parent)
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith(package) and not frame.filename.startswith("<")
    ]
    return f"{frames[-1].filename}:{frames[-1].lineno}", frames[-1].line or ""


def _shapes_at(cell: Cell, point: Mapping[str, float], root: Key) -> Trace:
    """The shapes of a run at a point."""
    with _explained(tuple(point)):
        shapes = jax.eval_shape(lambda key: cell(key, **point), root)
    if not isinstance(shapes, Trace):
        raise ValueError(
            f"cell must return the Trace that `run` gives, got {type(shapes).__name__}"
        )
    metrics: Any = shapes.metrics
    if not isinstance(metrics, Mapping) or not all(
        hasattr(leaf, "shape") for leaf in (shapes.step, shapes.diverged_at, *metrics.values())
    ):
        raise ValueError("cell must return the Trace that `run` gives, got one without arrays")
    frames, leaves = shapes.step.shape, metrics.values()
    if len(frames) != 1 or shapes.diverged_at.shape or any(x.shape[:1] != frames for x in leaves):
        arrays = {"step": shapes.step, "diverged_at": shapes.diverged_at, **metrics}
        found = ", ".join(f"{name} {leaf.shape}" for name, leaf in arrays.items())
        raise ValueError(
            "cell must return the Trace of one run, with step [F], diverged_at [] and metrics "
            f"[F, ...], got {found}; sweep runs over seeds itself"
        )
    return shapes


def _hosts(devices: Sequence[Device]) -> dict[Device, Device]:
    """The device on which the program for each device is compiled and called.

    XLA runs calls from several threads side by side on one CPU device, and so on as many cores.
    A program of its own for each CPU device would be the same machine code, compiled once more;
    one program over all of them (`jax.shard_map`) is optimised differently and rounds differently.
    """
    if devices[0].platform != "cpu":
        return {device: device for device in devices}
    return {
        device: devices[index - index % CALLS_PER_CPU_DEVICE]
        for index, device in enumerate(devices)
    }


def _drop_failed(signature: Hashable) -> None:
    """Drop compilations that were cancelled or failed."""
    for place, future in list(_executables.items()):
        if place[1] == signature and (
            future.cancelled() or (future.done() and future.exception() is not None)
        ):
            del _executables[place]


def _function(cell: Cell, names: tuple[str, ...]) -> jax.stages.Wrapped:
    """The jitted function (root key, seeds [B], values [B]...) -> Trace [B, ...] of a cell.

    Given one seed [], it maps over the values alone: what depends on the seed only exists once.
    """

    def one(root: Key, seed: Array, *values: Array) -> Trace:
        trace = cell(random.fold_in(root, seed), **dict(zip(names, values, strict=True)))
        return jax.tree.map(_widened, trace)

    def many(root: Key, seeds: Array, *values: Array) -> Trace:
        mapped = (None, 0 if seeds.ndim else None) + (0,) * len(names)
        return jax.vmap(one, mapped)(root, seeds, *values)

    return jax.jit(many)


def _widened(values: Array) -> Array:
    """The same numbers in a type that NumPy has; bfloat16, float8 and int4 are jax's own.

    Raises:
        ValueError: for anything but numbers, such as random keys.
    """
    kind = getattr(values, "dtype", None)
    if kind is None or (isinstance(kind, np.dtype) and kind.kind in "biufc"):
        return values
    for family, wide in (
        (jnp.floating, np.float32),
        (jnp.signedinteger, np.int8),
        (jnp.unsignedinteger, np.uint8),
    ):
        if jnp.issubdtype(kind, family):
            return values.astype(wide)
    raise ValueError(f"metrics must hold numbers, got {kind}")


def _columns(kinds: Sequence[np.dtype], count: int) -> Columns:
    """Columns for `count` runs; only their shapes and types matter."""
    return (np.zeros(count, np.uint32), *(np.zeros(count, kind) for kind in kinds))
