"""What tests do to stores: name their files, forget results, edit headers."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from causal_sgd.sweeps.store import Store
from causal_sgd.sweeps.store._header import put_header


def chunk(path: Path, name: str, unit: int) -> Path:
    """The file of a chunk of a variable."""
    return path / Store(path)._arrays[name].chunk(unit)


def forget(path: Path, units: Sequence[int]) -> None:
    """Mark units as missing, as if a sweep had been killed before them."""
    store = Store(path)
    with store.mending():
        store._ledger.void(units)


def edit(path: Path, change: Callable[[dict[str, Any]], object], *, vouched: bool = False) -> None:
    """Change the attributes in zarr.json; `vouched` as the package would, with hash and copy."""
    file = path / "zarr.json"
    content = json.loads(file.read_text())
    change(content["attributes"])
    if vouched:
        put_header(Store(path)._files, content["attributes"])
    else:
        file.write_text(json.dumps(content))
