"""Where a command computes and where its results go: this machine or a scheduler's workers, netCDF or a store."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from causal_sgd.cli.outputs import PLOT_SUFFIXES, check_output

if TYPE_CHECKING:
    import xarray as xr

    from causal_sgd.experiment import Experiment

__all__ = ["Computation", "Workplace", "start"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Workplace:
    """Options of every command that computes."""

    scheduler: str | None = None
    """Compute on the workers of this Dask scheduler, tcp://HOST:PORT, instead of this machine's devices."""
    cache: Path | None = None
    """Keep compiled programs in this folder, and look there first."""

    def sweep(self, cell: Any, *, store: Path | None, by: Any = None, **options: Any) -> xr.Dataset:
        """Sweep as these options say, `by` another function that does where one is given; an interruption says how to go on."""
        start(self.cache)
        from causal_sgd.sweeps import sweep

        try:
            with self._executor() as executor:
                return (by or sweep)(cell, store=store, executor=executor, **options)
        except KeyboardInterrupt:
            again = (
                None if by is None else "the same command"
            )  # what it needs next follows from what is known then
            raise KeyboardInterrupt(
                None if store is None else _how_to_go_on(store, again)
            ) from None

    @contextlib.contextmanager
    def _executor(self) -> Iterator[Any]:
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
                f"--scheduler must be the address of a Dask scheduler, got {self.scheduler!r}: {error}"
            ) from None
        with client:
            yield client.get_executor(retries=3)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Computation(Workplace):
    """Options of the commands that begin a sweep."""

    out: Path | None = None
    """Where the results go: a netCDF file (.nc), or a store (.zarr) that can be interrupted, resumed and grown."""

    def compute(self, experiment: Experiment, **options: Any) -> xr.Dataset:
        """Sweep an experiment and keep the results where they are wanted."""
        store = self.out if self.out is not None and self.out.suffix == ".zarr" else None
        dataset = self.sweep(experiment.cell(), store=store, **options)
        if self.out is not None and store is None:
            from causal_sgd.sweeps._datasets import write_netcdf

            dataset.attrs["experiment"] = json.dumps(experiment.describe())
            write_netcdf(dataset, self.out)
        return dataset

    def check(self, plot: Path | None) -> None:
        """Find out before the run whether what it leaves can be written."""
        check_output("--out", self.out, (".nc", ".zarr"))
        check_output("--plot", plot, PLOT_SUFFIXES)


def start(cache: Path | None = None) -> None:
    """Use all cores, which has to come before jax starts, and a compilation cache where one is wanted."""
    from causal_sgd.sweeps import use_compilation_cache, use_cpu_cores

    use_cpu_cores()
    if cache is not None:
        try:
            use_compilation_cache(cache)
        except ValueError as error:
            raise ValueError(f"--cache: {error}") from None


def _how_to_go_on(path: Path, again: str | None = None) -> str:
    from causal_sgd.sweeps.store import Store, StoreError

    try:
        runs, done = Store(path).progress()
    except StoreError:
        return "nothing is saved yet"
    return f"{done} of {runs} runs are saved; go on with: {again or f'causal-sgd resume {path}'}"
