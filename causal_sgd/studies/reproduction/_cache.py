"""The results of finished studies on disk, with their provenance.

The results of a study are a folder of netCDF files and a `record.json`. The record states what they
depend on (`Origin`: the study, its size, the seed, the source that `run` reaches and the versions
of the packages that compute) and on which machine and in what time they were computed. A folder is
written under another name and renamed when it is complete: after a kill it is there whole or not at
all.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import importlib.metadata
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias
from urllib.parse import quote

import causal_sgd
from causal_sgd import checks, studies
from causal_sgd.studies._selection import Wanted, name_of, select
from causal_sgd.studies.reproduction._sources import fingerprint

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["COMPUTING", "Environment", "Origin", "Record", "folder", "load", "lookup", "save"]

COMPUTING = ("jax", "jaxlib", "optax", "numpy")
"""The packages on whose versions all results depend, besides this one."""

RECORD = "record.json"

Environment: TypeAlias = Mapping[str, Any]
"""A machine in plain values: `sweeps._machine.environment` and the number of its cores."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Origin:
    """What results depend on; results of another origin are stale."""

    study: str
    quick: bool
    seed: int
    source: str  # a fingerprint of the source that `run` reaches
    versions: Mapping[str, str]  # of this package, of `COMPUTING` and of those with data
    constants: Mapping[str, str] = dataclasses.field(default_factory=dict)  # those that were set

    @classmethod
    def now(cls, wanted: Wanted, *, quick: bool, seed: int) -> Origin:
        """The origin of results that would be computed now."""
        selected = select(wanted)
        study, module = selected.study, selected.module
        versions = {"causal_sgd": causal_sgd.__version__}
        versions |= {package: importlib.metadata.version(package) for package in COMPUTING}
        for package in studies.requirements(study):
            with contextlib.suppress(importlib.metadata.PackageNotFoundError):
                versions[package] = importlib.metadata.version(package)
        source = fingerprint(module.file, "run", name=module.name, territory=selected.territory)
        return cls(
            study=selected.name,
            quick=quick,
            seed=seed,
            source=source,
            versions=versions,
            constants={name: changed.value for name, changed in selected.constants.items()},
        )

    @property
    def size(self) -> str:
        """The size in a word."""
        return "quick" if self.quick else "full"

    def differences(self, now: Origin) -> list[str]:
        """Why results of this origin are stale, in words; empty where they are not."""
        reasons = [] if self.source == now.source else ["the code that computes them changed"]
        if self.constants != now.constants:
            reasons.append("other constants were set")
        for package in now.versions:
            before = self.versions.get(package, "none")
            if before != now.versions[package]:
                reasons.append(f"{package} is {now.versions[package]}, was {before}")
        return reasons


class Record(NamedTuple):
    """The provenance of a study's results."""

    origin: Origin
    environment: Environment
    seconds: float  # of `run`, see `_times.Clock`
    finished: str  # UTC, ISO 8601
    files: Mapping[str, Mapping[str, str]]  # dataset -> {"file": name, "sha256": of its content}


def folder(out: Path, wanted: Wanted, *, quick: bool, seed: int) -> Path:
    """The folder for the results of a study, by size and seed."""
    results = checks.path("out", out) / "results" / name_of(wanted)
    return results / f"{'quick' if quick else 'full'}-{seed}"


def save(
    path: Path,
    data: Mapping[str, xr.Dataset],
    *,
    origin: Origin,
    environment: Environment,
    seconds: float,
    finished: str,
) -> Record:
    """Write the results of a study, in place of earlier ones.

    Args:
        path: the folder to write.
        data: dataset by name.
        origin: what the results depend on.
        environment: the machine.
        seconds: the time of the computation, see `_times.Clock`.
        finished: time at its end, ISO 8601.

    Raises:
        ValueError: if a dataset holds a value for which netCDF has no type.
        OSError: if the folder cannot be written.
    """
    new, old = (path.with_name(f".{path.name}.{word}") for word in ("new", "old"))
    for remainder in (new, old):  # of a process that was killed
        shutil.rmtree(remainder, ignore_errors=True)
    new.mkdir(parents=True)
    files = {}
    for name, dataset in data.items():
        file = new / f"{quote(name, safe='')}.nc"
        try:
            dataset.to_netcdf(file, engine="scipy")
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"dataset {name!r} must hold values that netCDF can store: {error}"
            ) from error
        files[name] = {"file": file.name, "sha256": _digest(file)}
    record = Record(origin, environment, seconds, finished, files)
    described = record._asdict() | {"origin": dataclasses.asdict(origin)}
    (new / RECORD).write_text(json.dumps(described, indent=1), encoding="utf-8")
    if path.exists():
        path.rename(old)
    new.rename(path)
    shutil.rmtree(old, ignore_errors=True)
    return record


def lookup(path: Path) -> Record | None:
    """The record of a folder; None where there is none, or none that can be read."""
    try:
        described = json.loads((path / RECORD).read_text(encoding="utf-8"))
        return Record(**described | {"origin": Origin(**described["origin"])})
    except (OSError, ValueError, TypeError, KeyError):
        return None


def load(path: Path, record: Record) -> dict[str, xr.Dataset]:
    """Read the datasets of a folder into memory.

    Raises:
        ValueError: if a file is missing or differs from what was written.
    """
    import xarray as xr

    data = {}
    for name, described in record.files.items():
        file = path / described["file"]
        if not file.exists() or _digest(file) != described["sha256"]:
            raise ValueError(f"{file} is {'damaged' if file.exists() else 'missing'}")
        data[name] = xr.load_dataset(file, engine="scipy")
    return data


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
