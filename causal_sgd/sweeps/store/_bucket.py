"""A store in a bucket of an object store, such as S3: the same files as in a folder.

Objects are written whole, and nothing can be appended to one. A log is therefore an object, its
base, and segments: objects named by the offset of their first byte, such as
`status/journal.00000000000000004096`. The log is the base overlaid with the segments, up to the
first gap. Bytes of the base and of segments agree wherever they overlap, so that segments can be
merged into the base in two steps, and a process may be killed between them.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import re
import time
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from causal_sgd.sweeps.store import _lease
from causal_sgd.sweeps.store._lease import Lease
from causal_sgd.sweeps.store._manifest import StoreError
from causal_sgd.sweeps.store._objects import Conflict, Objects, at_once

if TYPE_CHECKING:
    from obstore import UpdateVersion
    from zarr.storage import StoreLike

__all__ = ["Bucket"]

LOGS = "status"  # the folder of all logs
HEADER = "zarr.json"
SEGMENTS = 64  # above which they are merged into the base
SEEN = 5.0  # seconds for which the header is assumed to be where it was


@dataclasses.dataclass
class _Log:
    """The pieces of a log."""

    base: int = 0  # bytes
    segments: dict[int, int] = dataclasses.field(default_factory=dict)  # offset -> bytes

    @property
    def length(self) -> int:
        """The number of bytes up to the first gap."""
        length = self.base
        for offset, size in sorted(self.segments.items()):
            if offset > length:
                break
            length = max(length, offset + size)
        return length

    @property
    def end(self) -> int:
        """The end of the last piece, beyond any gap."""
        return max([self.base, *(offset + size for offset, size in self.segments.items())])

    @property
    def is_scattered(self) -> bool:
        """Whether to merge its segments; for long logs more rarely, as the base is written anew."""
        count, size = len(self.segments), sum(self.segments.values())
        return count > SEGMENTS and count > math.isqrt(self.end * count // max(size, 1))


class Bucket:
    """A store in a bucket: the methods of `Files`.

    Outside `writing` no lease is taken: a write there may meet one of another process.
    """

    def __init__(self, url: str) -> None:
        """Name the bucket and the prefix; nothing is requested.

        Args:
            url: such as s3://bucket/prefix.

        Raises:
            StoreError: if obstore is not installed, or does not accept the URL.
        """
        self.url = url.rstrip("/")
        self._objects = Objects(self.url)
        self._lease: Lease | None = None  # while writing
        self._logs: dict[str, _Log] | None = None  # while writing, once they were listed
        self._seen: float | None = None  # when the header was last seen, while writing

    def __str__(self) -> str:
        return self.url

    def exists(self) -> bool:
        """Whether there is any object but a lease."""
        if self._objects.size(HEADER) is not None:
            return True
        return bool(self._objects.sizes().keys() - {_lease.NAME})

    def state(self) -> object:
        """Changes whenever the header or a file in status/ changes."""
        return self._objects.times(LOGS)  # with the copy of the header

    def zarr(self) -> StoreLike:
        """The files as zarr opens them, for reading."""
        from zarr.storage import ObjectStore

        return ObjectStore(self._objects.store, read_only=True)

    def get(self, name: str) -> bytes:
        """The content of a file."""
        return self._objects.get(name)

    def get_each(self, names: Iterable[str]) -> Iterator[bytes | None]:
        """The contents of many files in order, read at the same time; None for missing ones."""
        return self._objects.get_each(names)

    def put(self, name: str, content: bytes) -> None:
        """Write a whole file atomically; for a log there is `put_log`."""
        self._hold()
        self._objects.put(name, content)

    def put_each(self, contents: Iterable[tuple[str, bytes]]) -> None:
        """Write many whole files at the same time."""

        def put(item: tuple[str, bytes]) -> None:
            self.put(*item)

        for _ in at_once(put, contents):
            pass

    def put_log(self, name: str, content: bytes) -> None:
        """Replace a whole log atomically."""
        log = self._log(name)
        if log.segments:  # they would overlay the new content
            self.compact(name)
        self.put(name, content)
        log.base = len(content)

    def remove(self, name: str) -> None:
        """Remove a file, if it is there."""
        self._hold()
        self._objects.delete([name])

    def _hold(self) -> None:
        """Check that the lease is ours, while writing."""
        if self._lease is not None:
            self._lease.ensure()

    def read_log(self, name: str) -> bytes:
        """The content of a log; empty if there is none."""
        return self._read(name, self._log(name))[0]

    def append(self, name: str, offset: int, content: bytes) -> None:
        """Append to a log whose length is `offset` bytes, as a new segment."""
        if not _is_log(name):
            raise ValueError(f"name of a log must begin with {LOGS}/, got {name!r}")
        self._hold()
        log = self._log(name)
        if log.length < offset:
            raise OSError(f"{name} has {log.length} bytes instead of {offset}")
        if log.end > offset:  # also beyond a gap, which the new segment would fill
            log = self.compact(name, offset)
        if not content:
            return
        try:
            self._objects.put_if(_segment(name, offset), content, None)
        except Conflict:
            raise self._lost() from None
        log.segments[offset] = len(content)
        if log.is_scattered:
            self.compact(name)

    def compact(self, name: str, length: int | None = None) -> _Log:
        """Merge the segments of a log into its base.

        A process killed meanwhile leaves the log as it is, or some part from its beginning that
        is no shorter than `length`.

        Args:
            name: of the log.
            length: bytes to keep; all by default.
        """
        log = self._log(name)
        content, version = self._read(name, log)
        content = content[:length]
        try:
            self._objects.put_if(name, content, version)
        except Conflict:
            raise self._lost() from None
        self._objects.delete([_segment(name, offset) for offset in log.segments])
        log.base, log.segments = len(content), {}
        return log

    def size(self, name: str) -> int:
        """The length of a log or file in bytes; 0 if there is none."""
        return self._log(name).length if _is_log(name) else self._objects.size(name) or 0

    @contextlib.contextmanager
    def creating(self) -> Iterator[Bucket]:
        """Hold the lease while the files of a new store are written, its header first.

        Raises:
            FileExistsError: if there is anything at this place.
        """
        with self.writing():
            if self.exists():
                raise FileExistsError(f"{self} exists")
            yield self

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """Hold the lease, and merge the segments of all logs at the end."""
        lease = Lease(self._objects)
        with lease.held():
            try:
                self._lease = lease
                if self._objects.size(HEADER) is not None:
                    self._seen = time.monotonic()
                yield
                with contextlib.suppress(StoreError):
                    for name in [name for name, log in (self._logs or {}).items() if log.segments]:
                        lease.ensure()
                        self.compact(name)
            finally:
                self._lease = self._logs = self._seen = None

    def writer(self) -> str | None:
        """The process that holds the lease; None if there is none."""
        return _lease.writer(self._objects)

    def check(self) -> None:
        """Check that the lease is ours and the header is where it was."""
        if self._lease is None:
            return
        self._lease.ensure()
        if self._seen is None or time.monotonic() - self._seen < SEEN:
            return
        if self._objects.size(HEADER) is None:
            raise StoreError(
                f"{self} was moved or removed, or lost its zarr.json, while it was written"
            )
        self._seen = time.monotonic()

    def _log(self, name: str) -> _Log:
        """The pieces of a log: as the server lists them, or as this process has written them."""
        logs = self._logs
        if logs is None:
            logs = self._list()
            if self._lease is not None:
                self._logs = logs
        return logs.setdefault(name, _Log())

    def _list(self) -> dict[str, _Log]:
        """The pieces of all logs."""
        logs: dict[str, _Log] = {}
        for name, size in self._objects.sizes(LOGS).items():
            segment = re.fullmatch(r"(.+)\.(\d{20})", name)
            if segment:
                logs.setdefault(segment[1], _Log()).segments[int(segment[2])] = size
            else:
                logs.setdefault(name, _Log()).base = size
        return logs

    def _read(self, name: str, log: _Log) -> tuple[bytes, UpdateVersion | None]:
        """The content of a log, and the version of its base."""
        offsets = sorted(log.segments)
        segments = list(self._objects.get_each(_segment(name, offset) for offset in offsets))
        base = self._objects.find(name)  # last, since it has what was merged meanwhile
        content = bytearray() if base is None else bytearray(base.content)
        for offset, segment in zip(offsets, segments, strict=True):
            if segment is not None:
                if offset > len(content):
                    break
                content[offset : offset + len(segment)] = segment
        return bytes(content), None if base is None else base.version

    def _lost(self) -> StoreError:
        return StoreError(
            f"{self} was written by another process meanwhile; what was written before is kept, "
            "and the same call resumes"
        )


def _is_log(name: str) -> bool:
    """Whether a file may be a log."""
    return name.startswith(f"{LOGS}/")


def _segment(name: str, offset: int) -> str:
    """The name of the segment of a log that begins at a byte."""
    return f"{name}.{offset:020d}"
