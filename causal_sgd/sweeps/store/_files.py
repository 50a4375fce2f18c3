"""Where the bytes of a store lie: named files that are written whole, and logs that grow.

All other modules of the store use these few operations. `Folder` is a folder of this machine,
`Bucket` a place in the cloud; another kind of place is one more class with the same methods.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import socket
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from causal_sgd import checks
from causal_sgd.sweeps.store._lock import locked, writer
from causal_sgd.sweeps.store._manifest import StoreError

if TYPE_CHECKING:
    from zarr.storage import StoreLike

__all__ = ["Files", "Folder", "files_at"]


def files_at(store: str | Path, *, fsync: bool = False) -> Files:
    """The files of a store.

    Args:
        store: a path, or a URL such as s3://bucket/prefix.
        fsync: whether every write waits until the disk has it; in a bucket, a write always waits
            until the bucket has it.

    Raises:
        ValueError: if it is neither.
        StoreError: if it is a URL and obstore is not installed.
    """
    place = checks.place("store", store)
    if isinstance(place, Path):
        return Folder(place, fsync=fsync)
    from causal_sgd.sweeps.store._bucket import Bucket

    return Bucket(place)


class Files(Protocol):
    """The files of one store, named by paths with slashes that are relative to it.

    Only one process writes at a time, inside `writing`; any number may read meanwhile.
    """

    def __str__(self) -> str:
        """The path or URL, for messages."""
        ...

    def exists(self) -> bool:
        """Whether there is anything at this place."""
        ...

    def state(self) -> object:
        """Changes whenever the header or a file in status/ changes."""
        ...

    def zarr(self) -> StoreLike:
        """The files as zarr opens them, for reading."""
        ...

    def get(self, name: str) -> bytes:
        """The content of a file.

        Raises:
            FileNotFoundError: if there is none.
        """
        ...

    def get_each(self, names: Iterable[str]) -> Iterator[bytes | None]:
        """The contents of many files in order, None for those that are missing."""
        ...

    def put(self, name: str, content: bytes) -> None:
        """Write a whole file atomically: a reader sees the old content or the new."""
        ...

    def put_each(self, contents: Iterable[tuple[str, bytes]]) -> None:
        """Write many whole files, name and content, each atomically, in any order."""
        ...

    def remove(self, name: str) -> None:
        """Remove a file, if it is there."""
        ...

    def read_log(self, name: str) -> bytes:
        """The content of a log; empty if there is none."""
        ...

    def append(self, name: str, offset: int, content: bytes) -> None:
        """Append to a log whose length is `offset` bytes; what follows them is discarded.

        A process killed meanwhile leaves some part of the content, from its beginning.
        """
        ...

    def put_log(self, name: str, content: bytes) -> None:
        """Replace a whole log atomically."""
        ...

    def size(self, name: str) -> int:
        """The length of a log or file in bytes; 0 if there is none."""
        ...

    def creating(self) -> contextlib.AbstractContextManager[Files]:
        """Create a store: its files, the header first, are written to the result.

        A process killed meanwhile leaves no store, or one without runs.

        Raises:
            FileExistsError: if there is anything at this place.
        """
        ...

    def writing(self) -> contextlib.AbstractContextManager[None]:
        """Hold the right to write.

        Raises:
            StoreError: if another process holds it, or the place cannot be written.
        """
        ...

    def writer(self) -> str | None:
        """A description of the process that is writing; None if there is none."""
        ...

    def check(self) -> None:
        """Check, inside `writing`, that this is still the store that was opened.

        Raises:
            StoreError: if it was moved, removed or taken over since.
        """
        ...


class Folder:
    """A store in a folder of this machine."""

    def __init__(self, path: Path, *, fsync: bool = False) -> None:
        """Name the folder.

        Args:
            path: of the folder, as the user spells it.
            fsync: whether every write waits until the disk has it.
        """
        self.path = path
        self._root = os.fspath(path.resolve())
        self._fsync = fsync
        self._identity: tuple[int, int] | None = None  # of the folder, while writing

    def __str__(self) -> str:
        return str(self.path)

    def exists(self) -> bool:
        """Whether there is anything at the path."""
        return os.path.exists(self._root)

    def state(self) -> object:
        """Changes whenever the header or a file in status/ changes."""
        files = [Path(self._root, "zarr.json"), *Path(self._root).glob("status/**/*")]
        states = []
        for file in files:
            with contextlib.suppress(OSError):  # gone meanwhile
                status = file.stat()
                states.append((str(file), status.st_mtime_ns, status.st_size))
        return states

    def zarr(self) -> StoreLike:
        """The files as zarr opens them, for reading."""
        return self.path

    def get(self, name: str) -> bytes:
        """The content of a file."""
        with open(f"{self._root}/{name}", "rb", buffering=0) as file:
            return file.readall()

    def get_each(self, names: Iterable[str]) -> Iterator[bytes | None]:
        """The contents of many files in order, None for those that are missing."""
        for name in names:
            try:
                yield self.get(name)
            except (FileNotFoundError, NotADirectoryError):
                yield None

    def put(self, name: str, content: bytes) -> None:
        """Write a whole file atomically."""
        path = f"{self._root}/{name}"
        folder, _, base = path.rpartition("/")
        draft = f"{folder}/.{base}.{os.getpid()}"
        try:
            try:
                self._write(draft, content)
            except FileNotFoundError:  # make the folder of a chunk, but never that of the store
                os.stat(self._root)
                os.makedirs(folder, exist_ok=True)
                self._write(draft, content)
            os.replace(draft, path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(draft)
            raise
        if self._fsync:
            _sync(folder)

    def put_each(self, contents: Iterable[tuple[str, bytes]]) -> None:
        """Write many whole files."""
        for name, content in contents:
            self.put(name, content)

    def _write(self, path: str, content: bytes) -> None:
        with open(path, "wb", buffering=0) as file:
            _write_all(file.fileno(), content)
            if self._fsync:
                os.fsync(file.fileno())

    def remove(self, name: str) -> None:
        """Remove a file, if it is there."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(f"{self._root}/{name}")

    def read_log(self, name: str) -> bytes:
        """The content of a log; empty if there is none."""
        try:
            return self.get(name)
        except FileNotFoundError:
            return b""

    def append(self, name: str, offset: int, content: bytes) -> None:
        """Append to a log whose length is `offset` bytes."""
        log = os.open(f"{self._root}/{name}", os.O_WRONLY | os.O_CREAT, 0o666)
        try:
            size = os.fstat(log).st_size
            if size < offset:
                raise OSError(f"{name} has {size} bytes instead of {offset}")
            os.ftruncate(log, offset)
            os.lseek(log, offset, os.SEEK_SET)
            _write_all(log, content)
            if self._fsync:
                os.fsync(log)
        finally:
            os.close(log)

    def put_log(self, name: str, content: bytes) -> None:
        """Replace a whole log atomically."""
        self.put(name, content)

    def size(self, name: str) -> int:
        """The length of a log or file in bytes; 0 if there is none."""
        try:
            return os.stat(f"{self._root}/{name}").st_size
        except FileNotFoundError:
            return 0

    @contextlib.contextmanager
    def creating(self) -> Iterator[Folder]:
        """Write the files of a new store to another folder, which then gets the path."""
        draft = self.path.with_name(f".{self.path.name}.{socket.gethostname()}-{os.getpid()}")
        try:
            draft.mkdir()
            yield Folder(draft, fsync=self._fsync)
            os.rename(draft, self.path)
        except OSError as error:
            if self.path.exists() and any(self.path.iterdir() if self.path.is_dir() else [1]):
                raise FileExistsError(errno.EEXIST, "exists", str(self)) from error
            raise
        finally:
            shutil.rmtree(draft, ignore_errors=True)

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """Hold the lock beside the folder, whatever the spelling of its path."""
        with locked(Path(self._root)):
            try:
                self._identity = self._stat()
                yield
            finally:
                self._identity = None

    def writer(self) -> str | None:
        """The process that holds the lock; None if there is none."""
        return writer(Path(self._root))

    def check(self) -> None:
        """Check that the folder and its header are still where they were."""
        if self._identity is None or self._stat() == self._identity:
            return
        raise StoreError(
            f"{self} was moved, replaced or removed, or lost its zarr.json, while it was written; "
            "what was written before is kept where the folder is now"
        )

    def _stat(self) -> tuple[int, int] | None:
        """What identifies the folder; None without one that has a header."""
        try:
            os.stat(f"{self._root}/zarr.json")
            found = os.stat(self._root)
        except OSError:
            return None
        return found.st_dev, found.st_ino


def _write_all(file: int, content: bytes) -> None:
    view = memoryview(content)
    while view:
        view = view[os.write(file, view) :]


def _sync(folder: str) -> None:
    """Flush the names in a folder to the disk, where the system can do that."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
