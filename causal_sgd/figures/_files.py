"""Files that are written as a whole or not at all. Imports neither jax nor a plotting library."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
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
    beside = os.access(target.parent, os.W_OK)
    if special or not (beside or target.exists()):
        yield target
        return
    with contextlib.ExitStack() as context:
        folder = target.parent
        if not beside:
            folder = Path(context.enter_context(tempfile.TemporaryDirectory()))
        draft = folder / f".{target.stem}.{os.getpid()}{target.suffix}"
        context.callback(draft.unlink, missing_ok=True)
        try:
            yield draft
            if beside:
                if target.exists():
                    shutil.copymode(target, draft)
                draft.replace(target)
            else:
                _overwrite(target, draft)
        except OSError as error:
            reason = error.strerror or error
            raise OSError(error.errno, f"{path} cannot be written: {reason}") from error


def _overwrite(target: Path, draft: Path) -> None:
    """Copy a draft into a file whose folder takes no new files; restore the file if that fails."""
    earlier = draft.with_name("earlier")
    shutil.copyfile(target, earlier)
    try:
        shutil.copyfile(draft, target)
    except BaseException:
        shutil.copyfile(earlier, target)
        raise
