"""The world of a file."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import jax

from causal_sgd.experiment._system import File
from causal_sgd.sensing.worlds import _arrays
from causal_sgd.types import Key

__all__ = ["read_world"]


def read_world(path: Path) -> File:
    """Read a world file once for all that is known of it. Does not start jax."""
    arrays = _arrays.read_archive(path)
    world = _arrays.from_archive(path, arrays)
    # A key would start jax, before a sweep can set up all cores.
    shapes = jax.eval_shape(lambda: world(cast("Key", None)))
    (dim, shared), (_, own) = shapes.invariant_basis.shape, shapes.spurious_basis.shape
    parts = {"world": world, "frame": shared + own}
    return File(parts, {"dim": dim}, _arrays.digest(arrays))
