"""The lock of a store: at most one process writes, and others can name it."""

from __future__ import annotations

import contextlib
import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import filelock

from causal_sgd.sweeps._provenance import now
from causal_sgd.sweeps.store._manifest import StoreError

__all__ = ["locked", "writer"]


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock of the store at `path`.

    Raises:
        StoreError: if another process holds it, or the store cannot be written.
    """
    lock = filelock.FileLock(_beside(path, "lock"), timeout=0)
    try:
        lock.acquire()
    except filelock.Timeout:
        raise StoreError(
            f"{path} is being written by {writer(path) or 'another process'}; wait for it"
        ) from None
    except OSError as error:
        raise StoreError(f"{path} cannot be written: {error.strerror or error}") from error
    try:
        owner = {"pid": os.getpid(), "host": socket.gethostname(), "since": now()}
        with contextlib.suppress(OSError):
            _beside(path, "writer").write_text(json.dumps(owner))
        yield
    finally:
        with contextlib.suppress(OSError):
            _beside(path, "writer").unlink()
        lock.release()


def writer(path: Path) -> str | None:
    """The process that is writing the store at `path`; None if there is none."""
    with (
        contextlib.suppress(OSError, filelock.Timeout),
        filelock.FileLock(_beside(path, "lock"), timeout=0),
    ):
        return None  # a name that is still there belongs to a killed process
    with contextlib.suppress(OSError, ValueError, KeyError):
        owner = json.loads(_beside(path, "writer").read_text())
        return f"process {owner['pid']} on {owner['host']} since {owner['since']}"
    return None


def _beside(path: Path, kind: str) -> Path:
    """A hidden file beside the store: zarr does not expect other files inside."""
    return path.with_name(f".{path.name}.{kind}")
