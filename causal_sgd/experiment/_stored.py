"""The experiment of a store, with its file where that is now."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from causal_sgd.experiment._base import BaseExperiment
from causal_sgd.experiment._systems import SYSTEMS, parsed

if TYPE_CHECKING:
    from causal_sgd.experiment._system import File
    from causal_sgd.sweeps.store import Store

__all__ = ["stored_experiment"]


def stored_experiment(
    store: Store, moved: Mapping[str, Path | None] | None = None
) -> BaseExperiment | None:
    """The experiment that a store was made for; None if it was made for another cell.

    A store holds the digest of the file of its experiment. The file is looked for where it was when
    the store was last written, and as far from the store as it was then.

    Args:
        store: the store.
        moved: the field of a file -> where it is now; None to look for it.

    Raises:
        ValueError: if a field is not one of this version.
    """
    description = store.configuration.get("experiment")
    if description is None:
        return None
    for kind in SYSTEMS.values():
        field = kind.SYSTEM.file_field
        digest = description.get(field)
        if digest is not None:
            folder = store.path.parent if isinstance(store.path, Path) else Path()
            places = [folder / path for path in store.files.get(field, [])]
            file = None if moved is None else moved.get(field)
            found = file or _found(places, digest, kind.SYSTEM.read_file)
            description = description | {field: found}
    return parsed(description)


def _found(places: list[Path], digest: object, read_file: Callable[[Path], File]) -> Path:
    """The first place of a file with these contents; else of any file, which is then refused."""
    for place in places:
        with contextlib.suppress(ValueError):
            if read_file(place).digest == digest:
                return place
    return next(_files(places), Path(str(digest)))


def _files(places: list[Path]) -> Iterator[Path]:
    yield from (place for place in places if place.is_file())
    yield from places
