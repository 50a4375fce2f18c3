"""`causal-sgd status | resume | repair | export`: commands for a store."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import tyro

from causal_sgd.checks import Place
from causal_sgd.cli.computation import Workplace, start
from causal_sgd.cli.outputs import beside, check_output

if TYPE_CHECKING:
    from causal_sgd.sweeps.store import Store

__all__ = ["Export", "Repair", "Resume", "Status"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Status:
    """Print the contents of a store: runs that are done, missing and diverged, and damage.

    The exit code is 1 if the store is damaged.

    For example: causal-sgd status diagram.zarr --verify
    """

    path: tyro.conf.Positional[Place]
    """The store, or its URL."""
    verify: bool = False
    """Read all data and compare them with their checksums."""
    json: bool = False
    """Print one JSON object and nothing else."""

    def __call__(self) -> int:
        """Print the status."""
        from causal_sgd.sweeps.store import Store

        store = Store(self.path)
        faults = store.faults() if self.verify else store.damaged
        runs, done = store.progress()
        diverged = store.diverged() if not faults else None
        if self.json:
            report = {
                "path": str(self.path),
                "runs": runs,
                "done": done,
                "missing": runs - done,
                "diverged": diverged,
                "tiles": store.num_tiles,
                "tile": store.tile,
                "units": store.num_units,
                "tiles_per_unit": store.tiles_per_unit,
                "format_version": store.format_version,
                "damaged": {str(place): fault for place, fault in faults.items()},
                "writer": store.writer(),
                "created": store.created,
                "configuration_hash": store.hash,
                "configuration": store.configuration,
                "axes": {name: values.tolist() for name, values in _axes(store)[0].items()},
                "environments": store.environments,
            }
            print(json.dumps(report))
            return 1 if faults else 0
        share = f" ({done / runs:.1%})" if runs else ""
        lost = "" if diverged is None else f", {diverged} diverged"
        print(f"{self.path}: {done} of {runs} runs done{share}, {runs - done} missing{lost}")
        axes, points = _axes(store)
        for name, values in axes.items():
            ends = (
                f"{values.min():.6g}"
                if len(values) == 1
                else f"{len(values)} values, {values.min():.6g} to {values.max():.6g}"
            )
            print(f"  {name:20} {ends}")
        rows = [] if points is None else [("points", points)]
        rows += [
            ("metrics", ", ".join(name for name in store.variables if name != "diverged_at")),
            ("tiles", f"{store.num_tiles} of {store.tile} runs each, {store.done.sum()} done"),
            ("units on disk", f"{store.num_units} of {store.tiles_per_unit} tiles each"),
            ("configuration", f"{store.hash[:12]}, created {store.created}"),
            ("format", str(store.format_version)),
        ]
        for machine in store.environments:
            versions = [f"{name} {machine['versions'][name]}" for name in ("causal_sgd", "jax")]
            place = f"{machine['platform']} ({machine['cpu']})"
            rows.append(("computed by", f"{', '.join(versions)} on {place}"))
        if store.writer():
            rows.append(("being written by", str(store.writer())))
        for name, text in rows:
            print(f"  {name:20} {text}")
        for fault in faults.values():
            print(f"  damaged: {fault}")
        if faults:
            print(f"repair it with: causal-sgd repair {self.path}")
        elif done < runs and not store.writer():
            print(f"complete it with: {_how_to_complete(store)}")
        return 1 if faults else 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Resume(Workplace):
    """Compute the missing runs of a store that `run` or `phase` created.

    For example: causal-sgd resume diagram.zarr
    """

    path: tyro.conf.Positional[Place]
    """The store, or its URL."""
    world_file: Path | None = None
    """The store's world file, if it has moved on its own."""
    data_file: Path | None = None
    """The store's data file, if it has moved on its own."""

    def __call__(self) -> int:
        """Compute the missing runs."""
        from causal_sgd.sweeps.store import Store

        _complete(Store(self.path), self, self.world_file, self.data_file)
        return 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Repair(Workplace):
    """Repair a store: restore its files, and compute damaged units again.

    For example: causal-sgd repair diagram.zarr
    """

    path: tyro.conf.Positional[Place]
    """The store, or its URL."""
    world_file: Path | None = None
    """The store's world file, if it has moved on its own."""
    data_file: Path | None = None
    """The store's data file, if it has moved on its own."""
    convert: bool = False
    """Convert a store of an older format to the current one, in place."""

    def __call__(self) -> int:
        """Find, report and recompute."""
        from causal_sgd.sweeps.store import Store, repair

        faults = repair(self.path, convert=self.convert)
        store = Store(self.path)
        for fault in faults.values():
            print(f"damaged: {fault}")
        units = sum(isinstance(place, int) for place in faults)
        mended = len(faults) - units
        files = f", and {mended} other {'fault was' if mended == 1 else 'faults were'} mended"
        print(
            f"{self.path}: {units} of {store.num_units} units are damaged{files if mended else ''}"
        )
        if self.convert:
            print(f"{self.path} has format {store.format_version}")
        if units and "experiment" not in store.configuration:
            print(f"they are marked as missing; complete the store: {_how_to_complete(store)}")
        elif units:
            _complete(store, self, self.world_file, self.data_file)
        return 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Export:
    """Write the results of a store to a netCDF file or a table.

    A table has the runs that are done, with a row for every recorded step. A netCDF file has the
    grid of the parameters and seeds; if only some of it was requested, as by phase --refine, it has
    the runs that are done along one dimension.

    For example: causal-sgd export diagram.zarr diagram.csv
    """

    path: tyro.conf.Positional[Place]
    """The store, or its URL."""
    out: Annotated[tyro.conf.Positional[Path | None], tyro.conf.arg(metavar="OUT")] = None
    """The file, .nc or .csv; by default the name of the store with .nc."""
    force: bool = False
    """Replace the file if it exists."""

    def __call__(self) -> int:
        """Write the file."""
        from causal_sgd.sweeps.store import Store, export_results

        out = beside(self.path, ".nc") if self.out is None else self.out
        check_output("OUT", out, (".nc", ".csv"), force=self.force)
        dataset = export_results(self.path, out)
        if "seed" not in dataset.dims:  # a list of runs
            runs = dataset["diverged_at"].size
            missing, words = Store(self.path).progress()[0] - runs, "; {} missing runs are left out"
        else:
            runs = dataset.done.size
            missing, words = int((~dataset.done).sum()), ", of which {} are missing"
        print(f"{out}: {runs} runs" + (words.format(missing) if missing else ""))
        return 0


def _axes(store: Store) -> tuple[dict[str, np.ndarray], str | None]:
    """The values of parameters and seeds, and how many points of their grid there are, if few."""
    from causal_sgd.sweeps.store._forms import is_refined, unique_axes

    grid = store.hull()
    axes, points = grid.axes, None
    if is_refined(grid):
        axes = unique_axes(store, grid)
        sizes = " x ".join(str(len(axis[name])) for name, axis in axes.items())
        points = f"{grid.shape[0]} of a grid of {sizes}"
    named = {name: values for axis in axes.values() for name, values in axis.items()}
    return named | {"seed": grid.seeds}, points


def _how_to_complete(store: Store) -> str:
    if "experiment" in store.configuration:
        return f"causal-sgd resume {store.path}"
    cell = store.configuration.get("cell")
    words = f"the cell {cell}" if cell else "its cell"
    return f"run the same sweep of {words} with store={str(store.path)!r} again"


def _complete(
    store: Store, workplace: Workplace, world_file: Path | None, data_file: Path | None
) -> None:
    """Compute the missing runs of every request, with files that may have moved."""
    runs, done = store.progress()
    if done == runs:
        print(f"{store.path}: nothing is missing")
        return
    from causal_sgd.experiment._stored import stored_experiment
    from causal_sgd.sweeps._keys import decode_key

    experiment = stored_experiment(store, {"world_file": world_file, "data_file": data_file})
    if experiment is None:
        raise ValueError(f"{store.path} was created from Python: {_how_to_complete(store)}")
    field = experiment.SYSTEM.file_field
    file = getattr(experiment, field)
    if file is not None and not file.exists():
        option = field.replace("_", "-")
        words = field.replace("_", " ")
        raise ValueError(f"--{option} must be the {words} of {store.path}, got none at {file}")
    start(workplace.cache)  # before the key, which starts jax
    cell = experiment.cell()
    key = decode_key(store.configuration["key"], store.configuration["key_implementation"])
    for grid in store.requests:
        arguments = grid.arguments()
        workplace.sweep(
            cell,
            store=store.path,
            axes=arguments["axes"],
            seeds=arguments["seeds"],
            key=key,
            config=store.configuration.get("config"),
            label=store.path.name,
        )
    store.refresh()
    runs, done = store.progress()
    print(f"{store.path}: {done} of {runs} runs done")
