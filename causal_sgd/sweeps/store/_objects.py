"""The objects of a bucket under one prefix: the requests of a store, and their errors in one line.

obstore reads credentials, regions and endpoints from the environment, such as AWS_ACCESS_KEY_ID,
AWS_ENDPOINT_URL and AWS_ALLOW_HTTP, GOOGLE_APPLICATION_CREDENTIALS, or AZURE_STORAGE_ACCOUNT_NAME.
"""

from __future__ import annotations

import contextlib
import datetime
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from causal_sgd.sweeps.store._manifest import StoreError

if TYPE_CHECKING:
    from obstore import ObjectMeta, PutResult, UpdateVersion
    from obstore.store import ObjectStore

__all__ = ["Conflict", "Found", "Objects", "at_once"]

_A = TypeVar("_A")
_B = TypeVar("_B")

RETRIES = datetime.timedelta(seconds=10)
"""Time in which a write may be sent again. Together with obstore's limit of 30 s on one attempt and
with the longest time between two renewals, it is at most the time that a lease lasts."""

THREADS = 32  # requests at a time
AHEAD = 64  # objects that are requested before they are needed

_NO_BUCKET = re.compile("NoSuchBucket|ContainerNotFound|specified bucket does not exist")


class Conflict(Exception):
    """Another process created, changed or removed the object meanwhile."""


class Found(NamedTuple):
    """An object that was read."""

    content: bytes
    version: UpdateVersion
    modified: datetime.datetime  # by the clock of the server


class Objects:
    """The objects of a bucket whose names begin with a prefix; names are relative to it."""

    def __init__(self, url: str) -> None:
        """Name the bucket and the prefix; nothing is requested.

        Args:
            url: such as s3://bucket/prefix, gs://bucket/prefix or az://container/prefix.

        Raises:
            StoreError: if obstore is not installed, or does not accept the URL.
        """
        self.url = url
        try:
            from obstore import exceptions
            from obstore.store import from_url
        except ImportError as error:
            raise StoreError(
                f"{url} needs obstore ({error}): pip install 'causal_sgd[cloud]'"
            ) from error
        self._errors = exceptions
        with self._translated("opened"):
            self.store: ObjectStore = from_url(url)
            self._writes: ObjectStore = from_url(url, retry_config={"retry_timeout": RETRIES})

    def __reduce__(self) -> tuple[type[Objects], tuple[str]]:
        return Objects, (self.url,)

    def find(self, name: str) -> Found | None:
        """An object and its version; None if there is none."""
        with contextlib.suppress(FileNotFoundError), self._translated("read", name):
            result = self.store.get(name)
            content = result.bytes().to_bytes()
            return Found(content, _version(result.meta), result.meta["last_modified"])
        return None

    def get(self, name: str) -> bytes:
        """The content of an object.

        Raises:
            FileNotFoundError: if there is none.
            StoreError: if it cannot be read.
        """
        with self._translated("read", name):
            return self.store.get(name).bytes().to_bytes()

    def get_each(self, names: Iterable[str]) -> Iterator[bytes | None]:
        """The contents of many objects in order, None for those that are missing."""
        for found in at_once(self.find, names):
            yield None if found is None else found.content

    def size(self, name: str) -> int | None:
        """The length of an object in bytes; None if there is none."""
        with contextlib.suppress(FileNotFoundError), self._translated("read", name):
            return self.store.head(name)["size"]
        return None

    def sizes(self, folder: str | None = None) -> dict[str, int]:
        """The lengths in bytes of all objects, or of those in a folder."""
        return {each["path"]: each["size"] for each in self._list(folder)}

    def times(self, folder: str) -> dict[str, tuple[datetime.datetime, str | None]]:
        """When the objects in a folder were written, and their versions."""
        return {each["path"]: (each["last_modified"], each["e_tag"]) for each in self._list(folder)}

    def _list(self, folder: str | None) -> Sequence[ObjectMeta]:
        with self._translated("read", folder or ""):
            return self.store.list(folder).collect()

    def put(self, name: str, content: bytes) -> None:
        """Write a whole object; readers see the old content or the new."""
        with self._translated("written", name, writes=True):
            self._writes.put(name, content)

    def put_if(self, name: str, content: bytes, version: UpdateVersion | None) -> UpdateVersion:
        """Write a whole object if it still has a version.

        Where the server has no conditional writes, the version is compared before the object is
        written, which leaves a moment for another process to write.

        Args:
            name: of the object.
            content: which no other process writes under this name.
            version: which the object must have; None if it must not exist.

        Returns:
            The new version.

        Raises:
            Conflict: if the object has another version.
        """
        errors = self._errors
        try:
            with self._translated("written", name, writes=True):
                mode = "create" if version is None else version
                return _version(self._writes.put(name, content, mode=mode))
        except (errors.AlreadyExistsError, errors.PreconditionError, FileNotFoundError):
            found = self.find(name)
            if found is not None and found.content == content:
                return found.version  # written by an attempt whose answer was lost
            raise Conflict(name) from None
        except (errors.NotSupportedError, NotImplementedError):
            found = self.find(name)
            if (None if found is None else found.version) != version:
                raise Conflict(name) from None
            with self._translated("written", name, writes=True):
                return _version(self._writes.put(name, content))

    def delete(self, names: Sequence[str]) -> None:
        """Delete objects, if they are there; in any order."""
        if not names:
            return
        try:
            with self._translated("written", names[0]):
                self._writes.delete(names)
        except FileNotFoundError:  # some servers refuse the request where one is missing
            if len(names) > 1:
                for name in names:
                    self.delete([name])

    @contextlib.contextmanager
    def _translated(self, verb: str, name: str = "", *, writes: bool = False) -> Iterator[None]:
        """Raise FileNotFoundError or StoreError, of one line, in place of the errors of obstore.

        Conflicts and missing support for conditional writes pass unchanged.
        """
        errors = self._errors
        try:
            yield
        except FileNotFoundError as error:
            if _NO_BUCKET.search(str(error)):
                raise StoreError(f"{self.url} cannot be {verb}: {_reason(error)}") from error
            raise FileNotFoundError(f"{self.url}/{name} does not exist") from None
        except (errors.AlreadyExistsError, errors.PreconditionError, errors.NotSupportedError):
            raise
        except (errors.BaseError, ValueError) as error:
            kept = "; what was done before is kept, and the same call resumes" if writes else ""
            raise StoreError(f"{self.url} cannot be {verb}: {_reason(error)}{kept}") from error


def _version(meta: ObjectMeta | PutResult) -> UpdateVersion:
    """What identifies the version of an object, without what the server does not tell."""
    version: UpdateVersion = {}
    if meta["e_tag"] is not None:
        version["e_tag"] = meta["e_tag"]
    if meta["version"] is not None:
        version["version"] = meta["version"]
    return version


def at_once(act: Callable[[_A], _B], items: Iterable[_A]) -> Iterator[_B]:
    """The results of a function for some items in order, computed by several threads."""
    pending: deque[Future[_B]] = deque()
    with ThreadPoolExecutor(THREADS) as pool:
        try:
            for item in items:
                pending.append(pool.submit(act, item))
                if len(pending) > AHEAD:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for request in pending:
                request.cancel()


def _reason(error: Exception) -> str:
    """The message of an error of obstore without the body of the answer and the debug output."""
    text = str(error).strip() or type(error).__name__
    if _NO_BUCKET.search(text):
        return "there is no such bucket"
    code = re.search(r"<Code>(\w+)</Code>", text)
    status = re.search(r"status code: (401|403)", text)
    line = text.splitlines()[0].split(": <")[0]
    if status:
        line = "permission denied" if status[1] == "403" else "wrong credentials"
    return f"{line} ({code[1]})" if code else line
