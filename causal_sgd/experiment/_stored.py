"""The experiment of a store, with its world file where that is now."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from causal_sgd.experiment._experiment import Experiment

if TYPE_CHECKING:
    from causal_sgd.sweeps.store import Store

__all__ = ["stored_experiment"]


def stored_experiment(store: Store, world_file: Path | None = None) -> Experiment | None:
    """The experiment that a store was made for; None if it was made for another cell.

    A store holds the digest of its world file. The file is looked for where it was when the store
    was last written, and as far from the store as it was then.

    Args:
        store: the store.
        world_file: where the file is now; None to look for it.

    Raises:
        ValueError: if a field is not one of this version.
    """
    description = store.configuration.get("experiment")
    if description is None:
        return None
    digest = description.get("world_file")
    if digest is not None:
        places = [store.path.parent / path for path in store.files.get("world_file", [])]
        description = description | {"world_file": world_file or _found(places, digest)}
    return Experiment.parse(description)


def _found(places: list[Path], digest: object) -> Path:
    """The first place of a file with these contents; else of any file, which is then refused."""
    from causal_sgd.experiment import _build

    for place in places:
        with contextlib.suppress(ValueError):
            if _build.world_of_file(place).digest == digest:
                return place
    return next(_files(places), Path(str(digest)))


def _files(places: list[Path]) -> Iterator[Path]:
    yield from (place for place in places if place.is_file())
    yield from places
