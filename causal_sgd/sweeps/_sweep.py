"""Many runs: grids times seeds, in tiles of one compiled shape, on every device or worker, into labelled arrays.

The runs of a sweep are laid out flat (axes in the order given, seeds last) and cut into units of one tile each, the last
one filled up. Units are computed in any order and anywhere (`dispatch`, `executors`), and kept in memory or in a store.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from causal_sgd import checks
from causal_sgd.sweeps import _machine
from causal_sgd.sweeps._executors import Backend, Job, LocalDevices, Workers, described_by
from causal_sgd.sweeps._grid import Columns, Grid
from causal_sgd.sweeps._machine import Device
from causal_sgd.sweeps._programs import Cell, Program, dry_run, root_key
from causal_sgd.sweeps._progress import Progress
from causal_sgd.sweeps._scheduler import Failure, dispatch
from causal_sgd.sweeps._sinks import Disk, Memory, Sink, manifest_of
from causal_sgd.types import Key, Trace

if TYPE_CHECKING:
    import xarray as xr

    from causal_sgd.sweeps.store import Store

__all__ = ["SweepError", "compare", "sweep"]


class SweepError(RuntimeError):
    """Some runs of a sweep failed; all others are in `dataset`, and in the store where there is one.

    Attributes:
        failures: the units that failed and why.
        dataset: the results, with the coordinate `done` False for runs that are missing.
    """

    def __init__(self, message: str, failures: Sequence[Failure], dataset: xr.Dataset) -> None:
        """Keep what there is."""
        super().__init__(message)
        self.failures, self.dataset = failures, dataset


def sweep(
    cell: Cell,
    *,
    axes: Mapping[str, Any] | None = None,
    seeds: int | Sequence[int] = 1,
    key: int | Key = 0,
    store: str | Path | None = None,
    executor: Executor | Callable[[], Executor] | None = None,
    config: Mapping[str, Any] | None = None,
    tile: int | None = None,
    tiles_per_task: int = 1,
    retries: int = 2,
    memory: float | None = None,
    devices: Sequence[Device] | None = None,
    progress: bool | None = None,
    label: str = "sweep",
) -> xr.Dataset:
    """Run a cell for every combination of the axes and every seed, compiled once.

    Args:
        cell: cell(key, *, names...) -> Trace, a pure function that builds world, sampler, ... inside and calls `run`.
            The axis values reach it as traced numbers.
        axes: parameter name -> 1-D numbers (`numpy.linspace`, `numpy.geomspace`, a list), or axis name -> `zipped`.
        seeds: how many, or which seed indices. Seed i has the same key at every grid point and in every method.
        key: root key, or the integer to make one of. Each run's key is the root folded with its seed index.
        store: path of a store to keep the results in (a folder, by custom named .zarr). The same call goes on where it was
            stopped; more seeds or other axis values compute only what is new; another configuration is refused.
        executor: any `concurrent.futures.Executor` to compute on, or a function that makes one, in which case it is
            replaced when a worker's death breaks it; None for this process's devices. Workers use one device each.
        config: what to call the configuration in the store, as plain values, beside what can be told from the program.
            A cell of `Experiment` has its own.
        tile: runs in one compiled program; None for the store's, or a size chosen from the program. It may change the last bits.
        tiles_per_task: tiles in one task of the executor; one job of a cluster's queue should hold many.
        retries: how often a tile that fails is tried again.
        memory: bytes that the tiles in flight may use; None for half of what is free.
        devices: where to run; None for all local devices of jax's default backend, which are all cores of a CPU where jax
            had not started (see `use_cpu_cores`).
        progress: show a bar with the time left on standard error; None for a terminal or a notebook, and elsewhere for a line
            now and then to the logger `causal_sgd` and, with a store, to a file beside it (diagram.zarr.log).
        label: what the bar is called.

    Returns:
        A dataset with one variable [*axes, seed, step, ...] per metric and `diverged_at` [*axes, seed] (-1 for never),
        with the axis values, the seed indices and the steps as coordinates. With a store its values are read from disk when
        they are looked at.

    Raises:
        ValueError: before anything is compiled, if an axis is malformed or not a parameter of the cell, there are no
            seeds, a parameter is out of range at an end of its axis, or the memory does not hold even one run.
        StoreError: (a ValueError) if the store cannot be used: another configuration, another writer, no room, ...
        SweepError: at the end, if some tiles failed; everything else is kept.
    """
    return _Sweep(
        cell=cell, axes=axes, seeds=seeds, key=key, store=store, executor=executor, config=config, tile=tile,
        tiles_per_task=tiles_per_task, retries=retries, memory=memory, devices=devices, progress=progress, label=label,
    ).run()  # fmt: skip


def compare(
    cells: Mapping[str, Cell],
    *,
    dim: str = "variant",
    store: str | Path | None = None,
    **options: Any,
) -> xr.Dataset:
    """Sweep several cells over the same axes and seeds, and stack the results.

    Everything that is not an array shape or a number (a sampler, an optimiser, a measurement) varies this way. All
    methods share worlds, data, initialisations and measurements seed by seed, so their differences are paired. All cells
    are checked before any is run, and the next one is compiled while one is.

    Args:
        cells: method name -> cell.
        dim: the name of the new leading dimension.
        store: a folder that holds a store for every cell, named after it.
        **options: as for `sweep`.

    Returns:
        The dataset of `sweep` with `dim` in front. A metric that not all cells have is NaN where it is missing.

    Raises:
        ValueError: as `sweep` does for any of the cells, or if they record other steps or metrics of other shapes.
        SweepError: at the end, if some tiles failed; the dataset in it has all methods.
    """
    import xarray as xr

    checks.instance("cells", cells, Mapping, "a mapping of names to cells")
    checks.instance("dim", dim, str, "the name of a dimension")
    taken = ["seed", "step", *(options.get("axes") or {})]
    if dim in taken:
        raise ValueError(
            f"dim must not be one of {', '.join(taken)}, which the results have already, got {dim!r}"
        )
    if not cells:
        raise ValueError("cells must name at least one cell, got none")
    if store is not None:
        with contextlib.suppress(OSError):  # the first store says what is wrong
            Path(store).mkdir(parents=True, exist_ok=True)
    sweeps: list[_Sweep] = []
    for name, cell in cells.items():
        own = None if store is None else Path(store) / f"{name}.zarr"
        given = inspect.signature(sweep).bind(cell, label=name, store=own, **options)
        given.apply_defaults()
        sweeps.append(_Sweep(**given.arguments))
        _check_alike(sweeps[0], sweeps[-1])
    parts: list[xr.Dataset] = []
    steps: xr.DataArray | None = None
    failed: dict[str, SweepError] = {}
    with ThreadPoolExecutor(_machine.cores()) as pool:
        sweeps[0].begin(pool)
        for index, current in enumerate(sweeps):
            for following in sweeps[index + 1 : index + 2]:
                following.begin(pool)
            try:
                part = current.run()
            except SweepError as error:
                failed[current.label] = error
                part = error.dataset
            if _done(part).any():  # what failed as a whole has no steps
                steps = part["step"] if steps is None else steps
                if not steps.equals(part["step"]):
                    raise ValueError(
                        f"cells must record the same steps, got {steps.values.tolist()} and, for {current.label!r}, "
                        f"{part['step'].values.tolist()}"
                    )
            parts.append(part)
    if failed:
        parts = [
            part.assign_coords(done=_done(part), step=part["step"] if steps is None else steps)
            for part in parts
        ]
    variants = xr.Variable(dim, list(cells))
    dataset = xr.concat(
        parts, dim=variants, combine_attrs="override", join="exact", data_vars="all"
    )
    if failed:
        told = "\n".join(f"{label}: {error}" for label, error in failed.items())
        raise SweepError(
            told, [failure for error in failed.values() for failure in error.failures], dataset
        )
    return dataset


def _done(part: xr.Dataset) -> xr.DataArray:
    """Which runs are there."""
    import xarray as xr

    return part["done"] if "done" in part.coords else xr.ones_like(part["diverged_at"], dtype=bool)


@dataclasses.dataclass(kw_only=True)
class _Sweep:
    """A sweep whose arguments, those of `sweep`, were checked. Nothing of it is traced as a program or compiled yet."""

    cell: Cell
    axes: Mapping[str, Any] | None
    seeds: int | Sequence[int]
    key: int | Key
    store: str | Path | None
    executor: Executor | Callable[[], Executor] | None
    config: Mapping[str, Any] | None
    tile: int | None
    tiles_per_task: int
    retries: int
    memory: float | None
    devices: Sequence[Device] | None
    progress: bool | None
    label: str

    def __post_init__(self) -> None:
        self.grid = Grid.make(self.cell, {} if self.axes is None else self.axes, self.seeds)
        # Before the first key, which would start jax: this may set up all cores.
        self.allowed = _machine.local_devices(self.devices)
        self.root = root_key(self.key)
        if self.tile is not None:
            checks.integer("tile", self.tile)
        if self.memory is not None:
            checks.number("memory", self.memory, above=0)
        checks.integer("tiles_per_task", self.tiles_per_task)
        checks.integer("retries", self.retries, minimum=0)
        if self.executor is not None and not (
            isinstance(self.executor, Executor) or callable(self.executor)
        ):
            raise ValueError(
                f"executor must be a concurrent.futures.Executor or a function that makes one, got {self.executor!r}"
            )
        self.opened = None if self.store is None else _opened(Path(self.store))
        if self.opened is not None and self.tile not in (None, self.opened.tile):
            raise ValueError(
                f"tile must be that of the store, {self.opened.tile}, got {self.tile}: results depend on it"
            )
        self.shapes = dry_run(self.cell, self.grid, self.root)

    @functools.cached_property
    def plan(self) -> _Plan:
        """The program, its tile and devices, and the place for the results; traced when it is first asked for."""
        grid, store = self.grid, self.store
        kinds = [column.dtype for column in grid.runs(np.zeros(1, int), jnp.result_type(float))[1:]]
        kernel = Program.make(self.cell, grid.names, kinds, self.root)
        held = kernel.result_bytes * grid.size if store is None else 0
        tile = self.tile if self.opened is None else self.opened.tile
        tile, devices = kernel.layout(self.allowed, memory=self.memory, tile=tile, held=held)
        environment = described_by(kernel, devices[0])
        if store is None:
            sink: Sink = Memory(grid, kernel, tile, environment)
        else:
            header = manifest_of(self.cell, grid, kernel, kinds, self.config)
            sink = Disk(Path(store), self.opened, header, tile, grid, environment)
        return _Plan(kernel, tile, devices, sink)

    def begin(self, pool: Executor) -> None:
        """Have the pool compile what `run` will need here."""
        kernel, tile, devices, sink = self.plan
        if self.executor is None and not sink.complete():
            units = -(-self.grid.size // tile)
            kernel.begin(
                self.grid.runs(np.zeros(tile, int), jnp.result_type(float)), devices[:units], pool
            )

    def run(self) -> xr.Dataset:
        """Compute what is missing, and give all of it."""
        grid, (kernel, _, devices, sink) = self.grid, self.plan
        with contextlib.ExitStack() as context:
            context.enter_context(sink)
            failures = []
            if units := sink.missing():
                if self.executor is None:
                    backend: Backend = LocalDevices(
                        kernel, devices[: len(units)], sink.columns(units[0])
                    )
                else:
                    backend = Workers(self.executor, Job.make(self.cell, grid.names, self.root))
                context.enter_context(contextlib.closing(backend))
                missing = sum(map(sink.count, units))
                log_file = None if self.store is None else Path(f"{self.store}.log")
                shown = context.enter_context(
                    Progress(
                        self.label,
                        grid.size,
                        grid.size - missing,
                        shown=self.progress,
                        log_file=log_file,
                    )
                )

                def collect(unit: int, trace: Trace, environment: Mapping[str, Any]) -> None:
                    sink.write(unit, trace, environment)
                    count = sink.count(unit)
                    shown.add(count, int((trace.diverged_at[:count] >= 0).sum()))

                failures = dispatch(
                    units, sink.columns, backend, collect,
                    retries=self.retries, tiles_per_task=self.tiles_per_task, tick=shown.tick,
                )  # fmt: skip
            dataset = sink.dataset()
        if failures:
            untried = len(sink.missing()) - len(failures)
            kept = "all others are in `dataset` of this error"
            if self.store is not None:
                kept = f"all others are saved in {self.store}"
            if untried:  # as the first few had failed and none had succeeded
                kept = f"{untried} others were not tried"
            raise SweepError(_told(failures, sink.columns, grid.names, kept), failures, dataset)
        return dataset


def _check_alike(one: _Sweep, other: _Sweep) -> None:
    """Refuse cells whose results could not be stacked."""
    known, others = (
        {"step": shapes.step, **shapes.metrics} for shapes in (one.shapes, other.shapes)
    )
    for name in known:
        if name in others and known[name].shape != others[name].shape:
            raise ValueError(
                f"cells must give the same shapes, got {known[name].shape} for {name!r} in {one.label!r} and "
                f"{others[name].shape} in {other.label!r}"
            )


class _Plan(NamedTuple):
    """How a sweep will be computed."""

    kernel: Program
    tile: int
    devices: Sequence[Device]  # those that have room
    sink: Sink


def _opened(path: Path) -> Store | None:
    """The store at a path; None where there is nothing yet."""
    from causal_sgd.sweeps.store import Store

    return Store(path) if path.exists() else None


def _told(
    failures: Sequence[Failure], columns: Callable[[int], Columns], names: Sequence[str], kept: str
) -> str:
    """Which runs failed, and how."""
    lines = []
    for unit, error in failures:
        seeds, *values = columns(unit)
        where = [
            f"{name} {_range(column)}"
            for name, column in (("seed", seeds), *zip(names, values, strict=True))
        ]
        lines.append(f"  {', '.join(where)}: {_short(error)}")
    return "\n".join([f"{len(failures)} of the sweep's tiles failed; {kept}", *lines])


def _short(error: Exception) -> str:
    """The first and the last line of an error: in between there may be a traceback."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0].strip() if len(lines) == 1 else f"{lines[0].strip()} ... {lines[-1].strip()}"


def _range(column: np.ndarray) -> str:
    low, high = column.min(), column.max()
    return f"{low:.6g}" if low == high else f"{low:.6g} to {high:.6g}"
