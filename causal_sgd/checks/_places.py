"""Checks of places: paths on this machine, and URLs of buckets."""

from __future__ import annotations

import os
import re
from pathlib import Path, PurePosixPath
from typing import TypeAlias

__all__ = ["Place", "Url", "path", "place"]


class Url(str):
    """The URL of a place in a bucket, such as s3://bucket/prefix, with some parts as of a path."""

    @property
    def name(self) -> str:
        """The last part."""
        return PurePosixPath(self).name

    @property
    def stem(self) -> str:
        """The last part without its suffix."""
        return PurePosixPath(self).stem

    @property
    def suffix(self) -> str:
        """The suffix of the last part, with its dot."""
        return PurePosixPath(self).suffix

    @property
    def parent(self) -> Url:
        """The URL without its last part."""
        return Url(self.rpartition("/")[0])

    def __truediv__(self, name: str) -> Url:
        return Url(f"{self}/{name}")


Place: TypeAlias = Path | Url
"""Where a store may be."""


def path(name: str, value: object, *, absolute: bool = True) -> Path:
    """Return `value` as a path with ~ expanded, absolute so that it survives a change of folder.

    Args:
        name: of the argument.
        value: a string or an object with a file system path.
        absolute: whether to make it absolute.

    Raises:
        ValueError: if it is not a path, or a URL.
    """
    text = _text(name, value)
    if _is_url(text):
        raise ValueError(
            f"{name} must be a path on this machine, got the URL {text!r}: mount what it names, "
            "or copy it here"
        )
    try:
        result = Path(text).expanduser()
        return result.absolute() if absolute else result
    except (RuntimeError, OSError) as error:  # no such user, or the current folder is gone
        raise ValueError(
            f"{name} must be a path that exists from here, got {text!r}: {error}"
        ) from None


def place(name: str, value: object, *, absolute: bool = True) -> Place:
    """Return `value` as the URL of a place in a bucket, or as a path as `path` does.

    Raises:
        ValueError: if it is neither.
    """
    text = _text(name, value)
    if not _is_url(text):
        return path(name, text, absolute=absolute)
    # What follows ? or # would be lost, and what precedes @ is a secret.
    if not re.fullmatch(r"(s3|gs|az)://[^/?#@\s]+(/[^/?#]+)+/?", text):
        hint = ": pass it as text" if isinstance(value, Path) else ""
        raise ValueError(
            f"{name} must be a path or a URL such as s3://bucket/prefix, gs://bucket/prefix or "
            f"az://container/prefix, got {text!r}{hint}"
        )
    return Url(text.rstrip("/"))


def _text(name: str, value: object) -> str:
    text = os.fspath(value) if isinstance(value, str | os.PathLike) else None
    if not isinstance(text, str) or not text or "\0" in text:
        raise ValueError(f"{name} must be a path, as text or a pathlib.Path, got {value!r}")
    return text


def _is_url(text: str) -> bool:
    # `Path` makes one slash of two. A letter alone is a drive.
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]+:/", text) is not None
