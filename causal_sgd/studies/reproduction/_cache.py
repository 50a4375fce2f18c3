"""The results of finished studies on disk, each with what it was computed from and by.

A study's results are a folder of netCDF files and a `record.json`, which says what they were computed from: the study, its
size, the seed, the source that `run` reaches and the versions of what computes (`Origin`), and, beside that, by which
machine and in what time. A folder is written under another name and renamed when it is whole, so that a kill leaves either
all of it or nothing.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.metadata
import inspect
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import quote

import causal_sgd
from causal_sgd import studies
from causal_sgd.studies.reproduction._sources import fingerprint

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["COMPUTING", "Origin", "Record", "find", "folder", "keep", "load"]

COMPUTING = ("jax", "jaxlib", "optax", "numpy")
"""The packages whose versions results depend on, beside this one."""

RECORD = "record.json"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Origin:
    """What results are computed from; those of another origin are not used for it."""

    study: str
    quick: bool
    seed: int
    source: str  # a fingerprint of what `run` reaches
    versions: Mapping[str, str]  # of this package and `COMPUTING`

    @classmethod
    def now(cls, name: str, *, quick: bool, seed: int) -> Origin:
        """That of results that would be computed now."""
        path = inspect.getfile(studies.load(name))  # pyright: ignore[reportArgumentType]  # a module
        versions = {"causal_sgd": causal_sgd.__version__}
        versions |= {package: importlib.metadata.version(package) for package in COMPUTING}
        return cls(
            study=name,
            quick=quick,
            seed=seed,
            source=fingerprint(Path(path), "run"),
            versions=versions,
        )

    @property
    def size(self) -> str:
        """In a word."""
        return "quick" if self.quick else "full"

    def differences(self, now: Origin) -> list[str]:
        """Where this differs from another one, in words; empty where its results may be used for it."""
        found = [] if self.source == now.source else ["the code that computes it changed"]
        for package in now.versions:
            before = self.versions.get(package, "none")
            if before != now.versions[package]:
                found.append(f"{package} is {now.versions[package]}, was {before}")
        return found


class Record(NamedTuple):
    """What is known of the results of a study without reading them."""

    origin: Origin
    environment: Mapping[str, Any]  # the machine, as `sweeps._machine.environment` describes it
    seconds: float  # wall time of `run`
    finished: str  # UTC, ISO 8601
    files: Mapping[
        str, Mapping[str, str]
    ]  # dataset -> {"file": its name, "sha256": of its content}


def folder(out: Path, name: str, *, quick: bool, seed: int) -> Path:
    """Where the results of a study are kept; those of each size and seed have a place of their own."""
    return Path(out) / "results" / name / f"{'quick' if quick else 'full'}-{seed}"


def keep(
    path: Path,
    data: Mapping[str, xr.Dataset],
    *,
    origin: Origin,
    environment: Mapping[str, Any],
    seconds: float,
    finished: str,
) -> Record:
    """Write the results of a study, in place of earlier ones.

    Args:
        path: of their folder.
        data: dataset by name.
        origin: what they were computed from.
        environment: the machine, in plain values.
        seconds: that it took.
        finished: when.

    Raises:
        ValueError: if a dataset holds something that netCDF has no type for.
        OSError: if the folder cannot be written.
    """
    new, old = (path.with_name(f".{path.name}.{word}") for word in ("new", "old"))
    for left in (new, old):  # by a kill
        shutil.rmtree(left, ignore_errors=True)
    new.mkdir(parents=True)
    files = {}
    for name, dataset in data.items():
        file = new / f"{quote(name, safe='')}.nc"
        try:
            dataset.to_netcdf(file, engine="scipy")
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"dataset {name!r} must hold what a netCDF file can: {error}"
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


def find(path: Path) -> Record | None:
    """What is kept in a folder; None where there is nothing, or nothing that can be read."""
    try:
        described = json.loads((path / RECORD).read_text(encoding="utf-8"))
        return Record(**described | {"origin": Origin(**described["origin"])})
    except (OSError, ValueError, TypeError, KeyError):
        return None


def load(path: Path, record: Record) -> dict[str, xr.Dataset]:
    """The datasets of a folder, in memory.

    Raises:
        ValueError: if a file is missing or is not what was written.
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
