"""Options of commands that compute: devices or workers, and netCDF or a store for the results."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

from causal_sgd.checks import Place
from causal_sgd.cli.outputs import PLOT_SUFFIXES, check_output
from causal_sgd.cli.quantiles import write_table
from causal_sgd.cli.workers import watched

if TYPE_CHECKING:
    from concurrent.futures import Executor

    import xarray as xr

    from causal_sgd.experiment._base import BaseExperiment
    from causal_sgd.sweeps._sweep import Sweep
    from causal_sgd.types import Trace

__all__ = ["Computation", "Workplace", "start"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Workplace:
    """Options of every command that computes."""

    scheduler: str | None = None
    """Compute on the workers of this Dask scheduler, tcp://HOST:PORT, instead of local devices."""
    cache: Path | None = None
    """Cache compiled programs in this folder."""
    fsync: bool = False
    """Count a unit of a store as done once it is on the disk. Without this, a loss of power may
    damage the last units."""

    def __post_init__(self) -> None:
        """Check the address."""
        if self.scheduler is not None and not re.search(r"^inproc://|:\d+$", self.scheduler):
            raise ValueError(
                "scheduler must be the address of a Dask scheduler with its port, such as "
                f"tcp://HOST:8786, got {self.scheduler!r}"
            )

    def sweep(
        self,
        cell: Callable[..., Trace],
        *,
        store: Place | None,
        by: Callable[..., xr.Dataset] | None = None,
        **options: object,
    ) -> xr.Dataset:
        """Sweep with these options.

        Args:
            cell: the cell.
            store: where the results go; None to keep them in memory.
            by: what sweeps, such as `refine`; None for `sweep`.
            **options: its other arguments.

        Raises:
            KeyboardInterrupt: if interrupted, with a message that says how to continue.
        """
        start(self.cache)
        from causal_sgd.sweeps import sweep

        if store is not None:
            options["fsync"] = self.fsync

        sweeper: Callable[..., xr.Dataset] = sweep if by is None else by
        try:
            with self._executor() as executor:
                return sweeper(cell, store=store, executor=executor, **options)
        except KeyboardInterrupt:
            # Only the command itself can tell which runs a refinement needs next.
            command = None if by is None else "the same command"
            message = "" if store is None else _how_to_continue(store, command)
            raise KeyboardInterrupt(message) from None

    @contextlib.contextmanager
    def _executor(self) -> Iterator[Executor | None]:
        if self.scheduler is None:
            yield None
            return
        try:
            from distributed import Client
        except ImportError:
            raise ValueError(
                "--scheduler needs Dask: pip install 'causal_sgd[distributed]'"
            ) from None
        try:
            client = Client(self.scheduler, timeout=10, set_as_default=False)
        except (OSError, ValueError) as error:
            raise ValueError(
                "--scheduler must be the address of a Dask scheduler, "
                f"got {self.scheduler!r}: {error}"
            ) from None
        with client, watched(lambda: cast("dict[str, int]", client.nthreads())):
            yield client.get_executor(retries=3)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Computation(Workplace):
    """Options of commands that start a sweep."""

    out: Place | None = None
    """Write the results to this file (.csv, .nc or .zarr). A table (.csv) has medians and quantiles
    over the seeds; a netCDF file (.nc) and a store (.zarr) have every run. The sweep of a store can
    be interrupted, resumed and extended; it may have a URL such as s3://bucket/diagram.zarr."""
    force: bool = False
    """Replace files that exist; a store is always continued."""

    def why_unused(self, field: str) -> str | None:
        """Why a flag has no effect here; None if it has one."""
        stored = self.out is not None and self.out.suffix == ".zarr"
        return "without a store as --out" if field == "fsync" and not stored else None

    def compute(
        self,
        experiment: BaseExperiment,
        *,
        by: Callable[..., xr.Dataset] | None = None,
        **options: object,
    ) -> xr.Dataset:
        """Sweep an experiment, into the store if --out is one; the arguments are as in `sweep`."""
        store = self.out if self.out is not None and self.out.suffix == ".zarr" else None
        if self.out is not None and self.out.suffix == ".nc":
            by = _sweep_for_netcdf if by is None else functools.partial(_refine_for_netcdf, by)
        return self.sweep(experiment.cell(), store=store, by=by, **options)

    def write(self, dataset: xr.Dataset, experiment: BaseExperiment, along: Sequence[str]) -> None:
        """Write the results to --out, unless it is a store; a table has columns for some dims."""
        if self.out is not None and self.out.suffix == ".csv":
            from causal_sgd.analysis import final

            table = dataset if "step" in along else final(dataset)
            write_table(Path(self.out), table, along)
        if self.out is not None and self.out.suffix == ".nc":
            from causal_sgd.sweeps._netcdf import write_netcdf

            attributes = {"experiment": json.dumps(experiment.describe())}
            write_netcdf(dataset.assign_attrs(attributes), Path(self.out))

    def check(self, plot: Path | None) -> None:
        """Raise ValueError before the run if its output cannot be written."""
        check_output("--out", self.out, (".csv", ".nc", ".zarr"), force=self.force)
        check_output("--plot", plot, PLOT_SUFFIXES, force=self.force)


def _sweep_for_netcdf(cell: Callable[..., Trace], **options: object) -> xr.Dataset:
    """`sweep`, refused before it computes if a netCDF file could not hold the results."""
    from causal_sgd.sweeps._sweep import Sweep

    sweep = Sweep.make(cell, known=None, **options)
    _check_for_netcdf(sweep)
    return sweep.run()


def _refine_for_netcdf(
    by: Callable[..., xr.Dataset], cell: Callable[..., Trace], **options: object
) -> xr.Dataset:
    """`refine`, refused before it computes if a netCDF file could not hold the full grid."""
    from causal_sgd.sweeps._sweep import Sweep

    _check_for_netcdf(Sweep.make(cell, axes=options["axes"], seeds=options["max_seeds"]))
    return by(cell, **options)


def _check_for_netcdf(sweep: Sweep) -> None:
    """Raise ValueError if a netCDF file could not hold the results of a sweep."""
    import jax

    from causal_sgd.sweeps._netcdf import netcdf_engine

    arrays = {
        name: jax.ShapeDtypeStruct((*sweep.grid.shape, *leaf.shape), leaf.dtype)
        for name, leaf in sweep.shapes.metrics.items()
    }
    try:
        netcdf_engine({**arrays, "seed": sweep.grid.seeds})
    except ValueError as error:
        raise ValueError(f"--out: {error}") from None


def start(cache: Path | None = None) -> None:
    """Use all cores, which must be set before jax starts, and a compilation cache if given."""
    from causal_sgd.sweeps import use_compilation_cache, use_cpu_cores

    use_cpu_cores()
    if cache is not None:
        try:
            use_compilation_cache(cache)
        except ValueError as error:
            raise ValueError(f"--cache: {error}") from None


def _how_to_continue(path: Place, command: str | None) -> str:
    from causal_sgd.sweeps.store import Store, StoreError

    try:
        runs, done = Store(path).progress()
    except StoreError:
        return "nothing is saved yet"
    command = command or f"causal-sgd resume {path}"
    return f"{done} of {runs} runs are saved; continue with: {command}"
