"""Files that are written as a whole or not at all. Imports neither jax nor a plotting library."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

__all__ = ["replacing"]


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A draft beside a file, which replaces the file at the end of the context.

    If writing fails, the file stays as it was.

    Args:
        path: of the file, which need not exist.

    Raises:
        OSError: if the draft cannot be written; it names the file.
    """
    target = path.resolve()  # a link stays a link
    special = target.exists() and not target.is_file()  # such as /dev/stdout
    if special or not os.access(target.parent, os.W_OK):
        yield target
        return
    draft = target.with_name(f".{target.stem}.{os.getpid()}{target.suffix}")
    try:
        yield draft
        if target.exists():
            shutil.copymode(target, draft)
        draft.replace(target)
    except OSError as error:
        reason = error.strerror or error
        raise OSError(error.errno, f"{path} cannot be written: {reason}") from error
    finally:
        draft.unlink(missing_ok=True)
