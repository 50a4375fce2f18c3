"""The lease on a store in a bucket: at most one process writes, and others can name it.

The lease is an object that is created and renewed by conditional writes, so that of two processes
only one gets it. It lasts `LEASE` seconds and is renewed three times as often. Another process may
take over a lease that has run out, or one of a process of the same machine that no longer exists.
The time counts from when the server wrote the lease; the clock of a process that takes it over is
assumed to agree with the server's within `SKEW` seconds. The owner begins no write more than
`RENEWAL` seconds after a renewal, and a write is not sent again after some seconds: no small object
of a process that lost its lease arrives after the next one began to write. Where the server has no
conditional writes, two processes that begin within a moment may both get the lease.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import psutil

from causal_sgd.sweeps.store._manifest import StoreError
from causal_sgd.sweeps.store._objects import Conflict, Found, Objects

if TYPE_CHECKING:
    from obstore import UpdateVersion

__all__ = ["Lease", "writer"]

NAME = "status/lease"
LEASE = 60.0  # seconds that a lease lasts
RENEWAL = 20.0  # seconds after which it is renewed before anything is written
SKEW = 5.0  # seconds by which the clocks of this machine and of the server may differ
ATTEMPTS = 5  # to acquire a lease that others change at the same time


class Lease:
    """The right of this process to write below a prefix."""

    def __init__(self, objects: Objects) -> None:
        self._objects = objects
        self._lock = threading.Lock()
        self._record: dict[str, Any] = {
            "owner": uuid.uuid4().hex,
            "pid": os.getpid(),
            "started": psutil.Process().create_time(),
            "host": socket.gethostname(),
            "machine": _machine(),
            "since": _text(time.time()),
        }
        self._lost: str | None = None  # why, once it is lost

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Acquire the lease, renew it in the background, and release it.

        Raises:
            StoreError: if another process holds it, or the store cannot be written.
        """
        self._acquire()
        released = threading.Event()
        thread = threading.Thread(target=self._keep, args=(released,), daemon=True)
        try:
            thread.start()
            yield
        finally:
            released.set()
            thread.join()
            with contextlib.suppress(StoreError):
                self.ensure()  # a fresh lease cannot be taken over before it is deleted
                self._objects.delete([NAME])

    def ensure(self) -> None:
        """Renew the lease unless it was renewed lately.

        Raises:
            StoreError: if another process took it over, or it cannot be renewed.
        """
        with self._lock:
            if self._lost is not None:
                raise StoreError(self._lost)
            if (
                max(now - then for now, then in zip(_clocks(), self._renewed, strict=True))
                > RENEWAL
            ):
                self._renew()

    def _acquire(self) -> None:
        for _ in range(ATTEMPTS):
            found = self._objects.find(NAME)
            owner = None if found is None else _describe(found)
            if owner is not None:
                raise StoreError(f"{self._objects.url} is being written by {owner}; wait for it")
            with contextlib.suppress(Conflict):
                self._put(None if found is None else found.version)
                return
        raise StoreError(f"{self._objects.url} is being written by another process; wait for it")

    def _put(self, version: UpdateVersion | None) -> None:
        clocks = _clocks()
        record = self._record | {"renewed": _text(clocks[0])}
        content = json.dumps(record, indent=1).encode()
        self._version = self._objects.put_if(NAME, content, version)
        self._renewed = clocks

    def _renew(self) -> None:
        try:
            self._put(self._version)
        except Conflict:
            found = self._objects.find(NAME)
            other = None if found is None else _describe(found)
            reason = f"was taken over by {other}" if other else "lost the lease of its writer"
            self._lost = (
                f"{self._objects.url} {reason} while it was written; what was written before "
                "is kept, and the same call resumes"
            )
            raise StoreError(self._lost) from None

    def _keep(self, released: threading.Event) -> None:
        """Renew the lease in the background, so that it lasts while nothing is written."""
        while not released.wait(RENEWAL * 0.75):
            with contextlib.suppress(StoreError), self._lock:  # `ensure` raises it again
                if self._lost is None:
                    self._renew()


def writer(objects: Objects) -> str | None:
    """The process that is writing below a prefix; None if there is none."""
    found = objects.find(NAME)
    return None if found is None else _describe(found)


def _describe(found: Found) -> str | None:
    """The process that holds a lease; None if it has run out or the process has ended."""
    text = "another process"
    with contextlib.suppress(ValueError, KeyError, TypeError):  # of a record that was altered
        record = json.loads(found.content)
        text = f"process {record['pid']} on {record['host']} since {record['since']}"
        if record["machine"] == _machine() and not _runs(record["pid"], record["started"]):
            return None
    return text if time.time() < found.modified.timestamp() + LEASE + SKEW else None


def _runs(pid: int, started: float) -> bool:
    """Whether the process that started then still exists."""
    try:
        return abs(psutil.Process(pid).create_time() - started) < 1
    except psutil.NoSuchProcess:
        return False
    except psutil.Error:
        return True


def _machine() -> str:
    """What identifies this machine, and this container where it has its own processes."""
    processes = ""
    with contextlib.suppress(OSError):
        processes = os.readlink("/proc/self/ns/pid")
    return f"{socket.gethostname()} {uuid.getnode():012x} {processes}"


def _clocks() -> tuple[float, float]:
    """The time in seconds by two clocks: one stands still in sleep, the other may be set back."""
    return time.time(), time.monotonic()


def _text(seconds: float) -> str:
    return datetime.datetime.fromtimestamp(seconds).astimezone().isoformat()
