"""Many runs: grids times seeds, in tiles of one compiled shape, on every device, into labelled arrays.

This is the only place that maps over runs and the only one that compiles. The runs of a sweep are laid out flat (axes in
the order given, seeds last) and cut into tiles of a fixed number of runs, the last one padded. The size of a tile
depends on the program alone, never on how many runs there are, so that a run gives the same bits in any sweep.
"""

from __future__ import annotations

import collections
import contextlib
import os
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
import psutil
from jax.extend import core as jex_core
from tqdm import tqdm

from causal_sgd import checks
from causal_sgd.grids import Grid
from causal_sgd.types import Array, Key, Trace

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["compare", "sweep", "use_cpu_cores"]

Device = Any  # a jax.Device, which jax does not declare as a type
Cell = Callable[..., Trace]
"""cell(key, *, <axis names>) -> Trace: builds all its parts inside and calls `run`."""

LARGEST_TILE = 1024
CACHE_BYTES = 16 * 2**20  # of all values that the runs of a tile compute on a CPU; few of them live at a time
# One thread a tile, as every core has a tile of its own; and the widest vectors that a core has, which are not the default.
CPU_OPTIONS = {"xla_cpu_multi_thread_eigen": False, "xla_cpu_prefer_vector_width": 512}
ACCELERATOR_LARGEST_TILE = 2**16
ACCELERATOR_BYTES = 2**30


def use_cpu_cores(count: int | None = None) -> int:
    """Let jax use several CPU cores as devices of their own, which is what makes a sweep use them all.

    It has to come before the first use of jax.

    Args:
        count: how many; None for all cores that this process may use.

    Returns:
        The number of local devices that sweeps will use.

    Raises:
        ValueError: if `count` is out of range.
    """
    if count is None:
        count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    checks.integer("count", count)
    with contextlib.suppress(RuntimeError):  # jax has started: it keeps the devices that it has
        jax.config.update("jax_num_cpu_devices", count)
    return len(jax.local_devices())


def sweep(
    cell: Cell,
    *,
    axes: Mapping[str, Any] | None = None,
    seeds: int | Sequence[int] = 1,
    key: int | Key = 0,
    tile: int | None = None,
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
        tile: runs in one compiled program; None for a size chosen from the program. It may change the last bits.
        memory: bytes that the tiles in flight may use; None for half of what is free.
        devices: where to run; None for all local devices of jax's default backend (see `use_cpu_cores`).
        progress: show a bar with the time left on standard error; None for where that is a terminal.
        label: what the bar is called.

    Returns:
        A dataset with one variable [*axes, seed, step, ...] per metric and `diverged_at` [*axes, seed] (-1 for never),
        with the axis values, the seed indices and the steps as coordinates.

    Raises:
        ValueError: before anything is compiled, if an axis is malformed or not a parameter of the cell, there are no
            seeds, a parameter is out of range at an end of its axis, or the memory does not hold even one run.
    """
    grid = Grid.make(cell, axes or {}, seeds)
    root = _root_key(key)
    devices = _devices(devices)
    if tile is not None:
        checks.integer("tile", tile)
    if memory is not None:
        checks.number("memory", memory, above=0)
    _rehearse(cell, grid, root)

    program = _program(cell, grid.names)
    accelerated = devices[0].platform != "cpu"
    one = program.trace(root, *grid.runs(np.zeros(1, int)))
    run_bytes = _working_bytes(one.jaxpr.jaxpr)
    shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), one.out_info)
    budget = _budget(devices, memory)
    held = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(shapes)) * grid.size
    if not accelerated:
        budget -= held if memory is None else 0
    if held > psutil.virtual_memory().available or budget < run_bytes:
        raise ValueError(
            f"memory must hold at least one run ({run_bytes:.3g} bytes) beside the results ({held:.3g} bytes), "
            f"got {max(budget, 0):.3g} bytes free; lower dim or slab_size, or record fewer frames and metrics"
        )
    if not accelerated and _batches_lapack(program.trace(root, *grid.runs(np.zeros(2, int))).jaxpr.jaxpr):
        devices = devices[:1]  # two at a time may wait for each other in XLA's thread pool; see `linalg`
    if tile is None:
        target, largest = (ACCELERATOR_BYTES, ACCELERATOR_LARGEST_TILE) if accelerated else (CACHE_BYTES, LARGEST_TILE)
        # Data that all runs share, such as a design, are read once for all the runs of a tile.
        target += 2 * sum(np.asarray(constant).nbytes for constant in one.jaxpr.consts)
        tile = int(min(2 ** int(np.log2(max(target / run_bytes, 1))), largest))
        while tile > 1 and tile * run_bytes * len(devices) > budget:
            tile //= 2

    results = jax.tree.map(lambda leaf: np.empty((grid.size, *leaf.shape), leaf.dtype), shapes)
    programs = _compile(program, grid, root, tile, devices[: -(-grid.size // tile)])
    _fill(results, programs, grid, root, tile, progress, label)
    return _dataset(results, grid, root, tile, devices)


def compare(cells: Mapping[str, Cell], *, dim: str = "variant", **options: Any) -> xr.Dataset:
    """Sweep several cells over the same axes and seeds, and stack the results.

    Everything that is not an array shape or a number (a sampler, an optimiser, a measurement) varies this way. All
    methods share worlds, data, initialisations and measurements seed by seed, so their differences are paired.

    Args:
        cells: method name -> cell.
        dim: the name of the new leading dimension.
        **options: as for `sweep`.

    Returns:
        The dataset of `sweep` with `dim` in front.
    """
    import xarray as xr

    if not cells:
        raise ValueError("cells must name at least one cell, got none")
    parts = [sweep(cell, label=name, **options) for name, cell in cells.items()]
    return xr.concat(parts, dim=xr.Variable(dim, list(cells)), combine_attrs="override", join="exact", data_vars="all")


def _rehearse(cell: Cell, grid: Grid, root: Key) -> None:
    """Trace the cell at concrete points, so that checks at the doors of its parts see the numbers."""
    for point in grid.corners():
        trace = jax.eval_shape(lambda key, point=point: cell(key, **point), root)
        if not isinstance(trace, Trace):
            raise ValueError(f"cell must return the Trace that `run` gives, got {type(trace).__name__}")


_programs: weakref.WeakKeyDictionary[Cell, dict[tuple[str, ...], Any]] = weakref.WeakKeyDictionary()
_executables: weakref.WeakKeyDictionary[Any, dict[Any, Any]] = weakref.WeakKeyDictionary()


def _program(cell: Cell, names: tuple[str, ...]) -> Any:
    """The function (root key, seeds [B], parameter values [B]...) -> Trace [B, ...] of a cell, jitted once."""
    known = _programs.setdefault(cell, {})
    if names not in known:
        reference = weakref.ref(cell)  # a strong one would keep its own key alive for ever

        def one(root: Key, seed: Array, *values: Array) -> Trace:
            original = reference()
            assert original is not None
            return original(jax.random.fold_in(root, seed), **dict(zip(names, values, strict=True)))

        known[names] = jax.jit(jax.vmap(one, (None, 0) + (0,) * len(names)))
    return known[names]


def _compile(program: Any, grid: Grid, root: Key, tile: int, devices: Sequence[Device]) -> dict[Device, Any]:
    """The program for a tile on each device; compiled side by side, and only where it was not before."""
    known = _executables.setdefault(program, {})
    columns = grid.runs(np.zeros(tile, int))
    kind = tile, jax.random.key_impl(root), tuple(column.dtype for column in columns)
    lowered = {
        device: program.lower(*jax.device_put((root, *columns), device))
        for device in devices
        if (device, kind) not in known
    }
    options = CPU_OPTIONS if devices[0].platform == "cpu" else None
    with ThreadPoolExecutor(max(len(lowered), 1)) as pool:
        compiled = pool.map(lambda program: program.compile(compiler_options=options), lowered.values())
        known |= {(device, kind): executable for device, executable in zip(lowered, compiled, strict=True)}
    return {device: known[device, kind] for device in devices}


def _fill(
    results: Trace,
    programs: Mapping[Device, Any],
    grid: Grid,
    root: Key,
    tile: int,
    progress: bool | None,
    label: str,
) -> None:
    """Let every device take tiles until none is left, and write what they return into `results`."""
    starts = iter(range(0, grid.size, tile))
    lock = threading.Lock()
    stop = threading.Event()

    def work(device: Device) -> None:
        # One host thread per device. An accelerator gets its next tile before the host waits for the last one; a CPU
        # has nothing to gain from that.
        queue: collections.deque[tuple[int, Trace]] = collections.deque()
        depth = 1 if device.platform == "cpu" else 2
        while not stop.is_set():
            with lock:
                start = next(starts, None)
            if start is not None:
                flat = np.minimum(np.arange(start, start + tile), grid.size - 1)  # the last run pads the last tile
                queue.append((start, programs[device](*jax.device_put((root, *grid.runs(flat)), device))))
            if queue and (start is None or len(queue) >= depth):
                collect(*queue.popleft())
            if start is None and not queue:
                return

    def collect(start: int, out: Trace) -> None:
        count = min(tile, grid.size - start)
        for target, source in zip(jax.tree.leaves(results), jax.tree.leaves(out), strict=True):
            target[start : start + count] = np.asarray(source)[:count]
        with lock:
            bar.update(count)

    hidden = None if progress is None else not progress
    with (
        tqdm(total=grid.size, unit="run", desc=label, disable=hidden, dynamic_ncols=True) as bar,
        ThreadPoolExecutor(len(programs)) as pool,
    ):
        try:
            for done in as_completed([pool.submit(work, device) for device in programs]):
                done.result()
        finally:
            stop.set()


def _dataset(results: Trace, grid: Grid, root: Key, tile: int, devices: Sequence[Device]) -> xr.Dataset:
    import xarray as xr

    import causal_sgd

    dims = (*grid.axes, "seed")
    coords: dict[str, Any] = {"seed": grid.seeds, "step": results.step[0]}
    for dim, parameters in grid.axes.items():
        coords |= {name: (dim, values) for name, values in parameters.items()}
    variables = {}
    for name, values in results.metrics.items():
        inner = tuple(f"{name}_{index}" for index in range(values.ndim - 2))
        variables[name] = ((*dims, "step", *inner), values.reshape(*grid.shape, *values.shape[1:]))
    variables["diverged_at"] = (dims, results.diverged_at.reshape(grid.shape))
    attrs = {
        "causal_sgd": causal_sgd.__version__,
        "jax": jax.__version__,
        "platform": devices[0].platform,
        "device": devices[0].device_kind,
        "tile": tile,
        "key": " ".join(str(word) for word in np.asarray(jax.random.key_data(root)).ravel()),
        "key_implementation": str(jax.random.key_impl(root)),
    }
    return xr.Dataset(variables, coords, attrs)


def _root_key(key: int | Key) -> Key:
    if isinstance(key, int | np.integer) and not isinstance(key, bool):
        return jax.random.key(checks.integer("key", key, minimum=0))
    if not (isinstance(key, jax.Array) and jnp.issubdtype(key.dtype, jax.dtypes.prng_key) and key.ndim == 0):
        raise ValueError(f"key must be a whole number or one typed key (jax.random.key), got {key!r}")
    return key


def _devices(devices: Sequence[Device] | None) -> list[Device]:
    chosen = list(jax.local_devices() if devices is None else devices)
    if not chosen:
        raise ValueError("devices must name at least one device, got none")
    return chosen


def _budget(devices: Sequence[Device], memory: float | None) -> float:
    if memory is not None:
        return float(memory)
    if devices[0].platform == "cpu":
        return psutil.virtual_memory().available / 2
    stats = [device.memory_stats() or {} for device in devices]
    free = [s.get("bytes_limit", 2**33) - s.get("bytes_in_use", 0) for s in stats]
    return 0.8 * min(free) * len(devices)


def _working_bytes(jaxpr: Any) -> int:
    """Bytes of all that a program with one run computes, each value counted once: more than it ever holds at a time."""
    own = sum(_bytes(variable.aval) for equation in jaxpr.eqns for variable in equation.outvars)
    return own + max((_working_bytes(inner) for inner in _inner(jaxpr)), default=0)


LAPACK = {"cholesky", "eig", "eigh", "geqrf", "householder_product", "lu", "qr", "schur", "svd"}


def _batches_lapack(jaxpr: Any) -> bool:
    """Whether a program of several runs hands batches of matrices to LAPACK (a user's metric might)."""
    own = any(
        equation.primitive.name in LAPACK and int(np.prod(equation.invars[0].aval.shape[:-2])) > 1
        for equation in jaxpr.eqns
    )
    return own or any(_batches_lapack(inner) for inner in _inner(jaxpr))


def _inner(jaxpr: Any) -> Iterator[Any]:
    """The programs inside a program: bodies of loops, branches, calls."""
    kinds = jex_core.Jaxpr | jex_core.ClosedJaxpr
    for equation in jaxpr.eqns:
        for leaf in jax.tree.leaves(list(equation.params.values()), is_leaf=lambda leaf: isinstance(leaf, kinds)):
            if isinstance(leaf, kinds):
                yield leaf.jaxpr if isinstance(leaf, jex_core.ClosedJaxpr) else leaf


def _bytes(aval: Any) -> int:
    try:
        return int(np.prod(aval.shape)) * aval.dtype.itemsize
    except (AttributeError, TypeError):
        return 0
