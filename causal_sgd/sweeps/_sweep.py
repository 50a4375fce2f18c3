"""Many runs in tiles of one compiled shape, on all devices or workers, into labelled arrays.

The runs of a sweep are laid out flat (axes in the given order, seeds last), or seed by seed where
the runs of a seed share what they draw. They are cut into units of one tile each; the last one, or
that of each seed, is padded. Units may be computed in any order and anywhere, and their results are
kept in memory or in a store.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from causal_sgd import checks
from causal_sgd.sweeps import _machine
from causal_sgd.sweeps._executors import (
    Backend,
    ExecutorError,
    Job,
    LocalDevices,
    Workers,
    check_executor,
    check_trace,
    describe,
)
from causal_sgd.sweeps._failures import SweepError, message_of
from causal_sgd.sweeps._grid import AxisValues, Grid, Seeds
from causal_sgd.sweeps._keys import encode_key, root_key
from causal_sgd.sweeps._machine import Device
from causal_sgd.sweeps._names import check_metrics
from causal_sgd.sweeps._programs import Cell, Program, TracedCell
from causal_sgd.sweeps._progress import Progress
from causal_sgd.sweeps._provenance import Environment, plain_values
from causal_sgd.sweeps._results import MemoryResults, Results
from causal_sgd.sweeps._scheduler import Failure, schedule
from causal_sgd.sweeps._tiles import free_bytes, lay_out_tiles
from causal_sgd.sweeps._units import Units
from causal_sgd.types import Key, Trace

if TYPE_CHECKING:
    import xarray as xr

    from causal_sgd.sweeps.store import Store

__all__ = ["Sweep", "sweep"]


def sweep(
    cell: Cell,
    *,
    axes: Mapping[str, AxisValues] | None = None,
    seeds: Seeds = 1,
    key: int | Key = 0,
    store: str | Path | None = None,
    fsync: bool = False,
    executor: Executor | Callable[[], Executor] | None = None,
    config: Mapping[str, object] | None = None,
    tile: int | None = None,
    tiles_per_task: int = 1,
    retries: int = 2,
    timeout: float | None = None,
    memory: float | None = None,
    devices: Sequence[Device] | None = None,
    progress: bool | None = None,
    label: str = "sweep",
) -> xr.Dataset:
    """Run a cell for every combination of axis values and seeds, compiled once.

    Jax's aids for debugging (disabled jit, checks for NaN, strict promotion, transfer guards) have
    no effect here. Call the cell itself to debug a run.

    Args:
        cell: cell(key, *, names...) -> Trace, a pure function that builds world, sampler, ...
            inside and calls `run`. It receives axis values as traced numbers. Every sweep traces it
            anew and so sees the globals, closures, attributes and arrays that it reads as they are
            then; an unchanged cell compiles nothing. Only what jax itself keeps is not read again:
            functions made outside of the cell that it passes to `jax.jit`, `jax.checkpoint` or a
            loop or branch of `jax.lax`.
        axes: parameter name -> 1-D numbers (`numpy.linspace`, `numpy.geomspace`, a list), or axis
            name -> `zipped`. Programs hold them in int32 and float32 (float64 with x64).
        seeds: the number of seeds, or a list of seed indices. Seed i has the same key at every grid
            point and in every method.
        key: root key, or an integer to make one. The key of a run is the root folded with its seed.
        store: path of a store for the results (a folder, conventionally named .zarr), or a URL
            such as s3://bucket/prefix, gs://bucket/prefix or az://container/prefix, with
            `pip install 'causal_sgd[cloud]'`. The same call resumes an interrupted sweep; more
            seeds or other axis values compute only new runs; another configuration is refused.
        fsync: whether the store waits until the disk has a unit before it counts as done. Without
            it, a power failure may cost units that were done.
        executor: any `concurrent.futures.Executor` to compute on, or a function that makes one,
            which is called again when a worker dies or hangs; None for this process's devices.
            Each worker uses one device. Processes must not be forked, since jax has started.
        config: a description of the configuration for the store, in addition to the traced program,
            as a mapping of plain values; tuples and keys that are numbers become what they are in
            JSON, lists and text. A cell of `Experiment` has its own.
        tile: runs in one compiled program; None for the tile of the store, or a size chosen from
            the program. It may change the last bits. If a cell draws examples that depend on no
            axis, the runs of a tile have one seed and share them.
        tiles_per_task: tiles in one task of the executor; a job of a cluster's queue should hold
            many.
        retries: further attempts for a tile that fails, or whose task was cancelled or lost.
        timeout: seconds without any answer from the executor after which the tiles that it is
            computing count as failed and are tried again; None to wait for ever. Time in a queue
            counts. With a function that makes the executor, its hanging workers are replaced.
            Executors of threads, which cannot be stopped, are refused.
        memory: bytes for all tiles that run at a time; None for half of the free memory.
        devices: where to run; None for all local devices of jax's default backend: all CPU cores,
            unless jax had started before (see `use_cpu_cores`). Every CPU device keeps one core
            busy.
        progress: show a bar with the remaining time on standard error. None shows it on a terminal
            and in a notebook; elsewhere the logger `causal_sgd` and, with a store, the file beside
            it (diagram.zarr.log) get a line about every half minute.
        label: the title of the bar.

    Returns:
        A dataset with one variable [*axes, seed, step, ...] per metric and `diverged_at` [*axes,
        seed] (-1 for never); axis values, seed indices and steps are coordinates. With a store,
        values are read from disk on access.

    Raises:
        ValueError: before anything is compiled, if an axis is malformed, has values that programs
            cannot hold or tell apart, or is not a parameter of the cell, there are no seeds, a
            parameter is out of range at an end of its axis, the results use the name of an axis or
            a metric already, the cell does not return the trace of one run, JSON cannot hold
            `config`, or the memory does not hold one run.
        StoreError: (a ValueError) if the store cannot be used: another configuration, another
            writer, no space, ...
        ExecutorError: if the executor accepts no tasks and cannot be replaced, or does not return
            what its tasks return; it has the other results.
        SweepError: at the end, if some tiles failed; all other results are kept.
        KeyboardInterrupt: if interrupted; the message says how many runs are kept.
    """
    return Sweep.make(
        cell,
        axes=axes,
        seeds=seeds,
        key=key,
        store=store,
        fsync=fsync,
        executor=executor,
        config=config,
        tile=tile,
        tiles_per_task=tiles_per_task,
        retries=retries,
        timeout=timeout,
        memory=memory,
        devices=devices,
        progress=progress,
        label=label,
    ).run()


@dataclasses.dataclass(kw_only=True)
class Sweep:
    """The checked arguments of `sweep`. Nothing is traced as a program or compiled yet."""

    cell: Cell
    axes: Mapping[str, AxisValues] | None
    seeds: Seeds
    key: int | Key
    store: checks.Place | None
    fsync: bool
    executor: Executor | Callable[[], Executor] | None
    config: Mapping[str, object] | None
    tile: int | None
    tiles_per_task: int
    retries: int
    timeout: float | None
    memory: float | None
    devices: Sequence[Device] | None
    progress: bool | None
    label: str
    known: dataclasses.InitVar[TracedCell | None] = None  # of a caller that sweeps several times

    @classmethod
    def make(cls, cell: Cell, *, known: TracedCell | None = None, **options: Any) -> Sweep:
        """The sweep of these arguments of `sweep`; its defaults fill in the others."""
        arguments = inspect.signature(sweep).bind(cell, **options)
        arguments.apply_defaults()
        given = arguments.arguments
        if given["store"] is not None:
            given["store"] = checks.place("store", given["store"])
        return cls(**given, known=known)

    @_machine.applied({})
    def __post_init__(self, known: TracedCell | None) -> None:
        self.grid = Grid.make(self.cell, {} if self.axes is None else self.axes, self.seeds)
        # Before the first key, which would start jax: this may set up all cores.
        self.local_devices = _machine.local_devices(self.devices)
        self.root = root_key(self.key)
        if self.tile is not None:
            checks.integer("tile", self.tile)
        if self.memory is not None:
            checks.number("memory", self.memory, above=0, double=True)
        if self.config is not None:
            self.config = plain_values("config", self.config)
        checks.integer("tiles_per_task", self.tiles_per_task)
        checks.integer("retries", self.retries, minimum=0)
        checks.flags(fsync=self.fsync, progress=self.progress is None or self.progress)
        if self.timeout is not None:
            checks.number("timeout", self.timeout, above=0)
            if self.executor is None:
                raise ValueError(
                    "timeout must be None without an executor, because a tile on a device of this "
                    f"process cannot be given up, got {self.timeout!r}"
                )
        if self.executor is not None:
            check_executor(self.executor, self.timeout)
        if (check_memory := getattr(self.cell, "check_memory", None)) is not None:
            check_memory(free_bytes(self.local_devices, self.memory))
        self.opened = None if self.store is None else _open(self.store, self.fsync)
        if self.opened is not None and self.tile not in (None, self.opened.tile):
            raise ValueError(
                f"tile must be that of the store, {self.opened.tile}, got {self.tile}: "
                "results depend on it"
            )
        self.traced = TracedCell(self.cell) if known is None else known
        columns = self.grid.runs(np.zeros(1, int), jnp.result_type(float))[1:]
        self.kinds = [column.dtype for column in columns]
        self.shapes = self.traced.dry_run(self.grid, self.kinds, self.root)
        check_metrics(self.metrics, self.grid.axes)
        self.job = b""
        if self.executor is not None:
            self.job = Job.make(self.traced, self.grid.names, self.root).pickled()

    @property
    def metrics(self) -> dict[str, tuple[int, ...]]:
        """Metric -> the shape of its values in one run, [F, ...]."""
        return {name: leaf.shape for name, leaf in self.shapes.metrics.items()}

    @functools.cached_property
    def plan(self) -> Plan:
        """The program, its tile and devices, and the results; traced on first access."""
        grid, store = self.grid, self.store
        program = self.traced.program(grid.names, self.kinds, self.root)
        self.traced.remember(program)
        result_bytes = program.result_bytes * grid.size if store is None else 0
        by_seed = program.shares_draws if self.opened is None else self.opened.by_seed
        tile, devices = lay_out_tiles(
            program,
            self.local_devices,
            memory=self.memory,
            tile=self.tile if self.opened is None else self.opened.tile,
            by_seed=by_seed,
            result_bytes=result_bytes,
        )
        environment = describe(program, devices[0])
        units = Units(grid, tile, by_seed)
        if store is None:
            results: Results = MemoryResults(units, program, environment)
            return Plan(program, units, devices, results)
        from causal_sgd.sweeps.store import Manifest, StoredResults

        manifest = Manifest.make(
            self.cell,
            grid,
            program.shapes,
            kinds=self.kinds,
            program=program.fingerprint,
            key=encode_key(self.root),
            config=self.config,
        )
        results = StoredResults(store, self.opened, manifest, units, environment, fsync=self.fsync)
        return Plan(program, units, devices, results)

    @_machine.applied({})
    def begin(self, pool: Executor) -> None:
        """Let the pool compile the program that `run` will need."""
        program, units, devices, results = self.plan
        if self.executor is None and not results.complete():
            columns = units.columns(0, jnp.result_type(float))
            program.begin(columns, devices[: units.number], pool)

    @_machine.applied({})
    def run(self) -> xr.Dataset:
        """Compute the missing runs, and return the dataset of all runs."""
        results = self.plan.results
        with results:
            units = results.missing()
            try:
                failures = self._compute(units) if units else []
            except ExecutorError as error:
                error.dataset = results.dataset()
                raise
            except KeyboardInterrupt:
                raise KeyboardInterrupt(how_to_go_on([self])) from None
            dataset = results.dataset()
        if failures:
            untried = len(results.missing()) - len(failures)
            others = "all others are in `dataset` of this error"
            if self.store is not None:
                others = f"all others are saved in {self.store}"
            if untried:  # because the first few failed and none succeeded
                others = f"{untried} others were not tried"
            message = message_of(failures, results.columns, self.grid.names, others)
            raise SweepError(message, failures, dataset)
        return dataset

    def done(self) -> int:
        """The number of runs with results."""
        if "plan" in vars(self):
            return self.plan.results.done()
        return 0 if self.opened is None else self.opened.count_done(self.grid)

    def _compute(self, units: Sequence[int]) -> list[Failure]:
        """Compute units into the results, and show the progress."""
        program, layout, devices, results = self.plan
        with contextlib.ExitStack() as context:
            if self.executor is None:
                backend: Backend = LocalDevices(
                    program, devices[: len(units)], results.columns(units[0])
                )
            else:
                backend = Workers(self.executor, self.job, program.fingerprint, self.timeout)
            context.enter_context(contextlib.closing(backend))
            progress = Progress(
                self.label,
                self.grid.size,
                self.grid.size - sum(map(results.count, units)),
                shown=self.progress,
                log_file=Path(f"{self.store}.log") if isinstance(self.store, Path) else None,
            )
            context.enter_context(progress)

            def collect(unit: int, trace: Trace, environment: Environment) -> None:
                if self.executor is not None:
                    check_trace(trace, program.shapes, layout.tile)
                results.write(unit, trace, environment)
                count = results.count(unit)
                progress.add(count, int((trace.diverged_at[:count] >= 0).sum()))

            return schedule(
                units,
                results.columns,
                backend,
                collect,
                retries=self.retries,
                tiles_per_task=self.tiles_per_task,
                timeout=self.timeout,
                tick=progress.tick,
            )


def how_to_go_on(sweeps: Sequence[Sweep]) -> str:
    """The message of an interruption: how many runs are kept, and how to get the others.

    Args:
        sweeps: those of one call, all of them with a store or none; the last one's is named.
    """
    total, store = sum(each.grid.size for each in sweeps), sweeps[-1].store
    if store is None:
        return f"0 of {total} runs are kept: only with store=PATH, the same call goes on"
    place = store if len(sweeps) == 1 else store.parent
    done = sum(each.done() for each in sweeps)
    return f"{done} of {total} runs are kept in {place}; the same call goes on with the others"


class Plan(NamedTuple):
    """How a sweep will be computed."""

    program: Program
    units: Units
    devices: Sequence[Device]  # for which the memory suffices
    results: Results


def _open(place: checks.Place, fsync: bool) -> Store | None:
    """The store at a place; None if there is none yet."""
    from causal_sgd.sweeps.store import Store
    from causal_sgd.sweeps.store._files import files_at

    return Store(place, fsync=fsync) if files_at(place).exists() else None
