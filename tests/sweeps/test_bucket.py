"""A store's files in a bucket: objects, logs made of segments, and the lease of the writer."""

from __future__ import annotations

import contextlib
import http.server
import itertools
import json
import os
import pickle
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import hypothesis
import obstore.store
import pytest
from hypothesis import strategies as st
from obstore.store import MemoryStore

from causal_sgd.sweeps.store import StoreError, _bucket, _lease, _objects
from causal_sgd.sweeps.store._bucket import Bucket
from support import buckets

LOG = "status/journal"


@pytest.fixture(scope="module")
def environment() -> Iterator[dict[str, str]]:
    with buckets.bucket() as environment:
        yield environment


@pytest.fixture
def url(environment, monkeypatch) -> str:
    """Of an empty store on a server."""
    buckets.use(environment, monkeypatch)
    return f"s3://{buckets.BUCKET}/{uuid.uuid4().hex}"


@pytest.fixture
def in_memory(monkeypatch) -> Callable[[], Bucket]:
    """Makes bucket after bucket with the same objects, without a server."""
    objects = MemoryStore()
    monkeypatch.setattr(obstore.store, "from_url", lambda *_, **__: objects)
    return lambda: Bucket("s3://bucket/prefix")


def test_files_are_written_read_listed_in_order_and_removed(url) -> None:
    files = Bucket(f"{url}/with space/")
    assert str(files) == f"{url}/with space"
    with pytest.raises(FileNotFoundError, match="with space/a/b does not exist$"):
        files.get("a/b")
    assert files.size("a/b") == 0
    for content in (b"old", b"new content", b""):
        files.put("a/b", content)
        assert files.get("a/b") == content
        assert files.size("a/b") == len(content)
    names = [f"c/{index}" for index in range(20)]
    for name in names:
        files.put(name, name.encode())
    files.remove("c/7")
    files.remove("c/7")  # missing: no error
    expected = [None if name == "c/7" else name.encode() for name in names]
    assert list(files.get_each([*names, "none"])) == [*expected, None]
    assert list(pickle.loads(pickle.dumps(files)).get_each(["c/8"])) == [b"c/8"]


def test_many_files_are_read_at_the_same_time_and_only_some_ahead(in_memory, monkeypatch) -> None:
    files, together = in_memory(), threading.Barrier(8)
    for index in range(200):
        files.put(f"c/{index}", bytes([index]))
    find, asked = _objects.Objects.find, []

    def slowly(self: _objects.Objects, name: str) -> object:
        if name in [f"c/{index}" for index in range(8)]:
            together.wait(20)  # raises unless all eight are under way
        return find(self, name)

    def names() -> Iterator[str]:
        for index in range(200):
            asked.append(index)
            yield f"c/{index}"

    monkeypatch.setattr(_objects.Objects, "find", slowly)
    contents = files.get_each(names())
    assert next(contents) == b"\0"
    assert len(asked) <= _objects.AHEAD + 1
    assert list(contents) == [bytes([index]) for index in range(1, 200)]


def test_many_files_are_written_at_the_same_time(in_memory, monkeypatch) -> None:
    files, together = in_memory(), threading.Barrier(8)
    put = _objects.Objects.put

    def slowly(self: _objects.Objects, name: str, content: bytes) -> None:
        together.wait(20)  # raises unless all eight are under way
        put(self, name, content)

    names = [f"c/{index}" for index in range(8)]
    monkeypatch.setattr(_objects.Objects, "put", slowly)
    files.put_each((name, name.encode()) for name in names)
    assert list(files.get_each(names)) == [name.encode() for name in names]

    def failing(self: _objects.Objects, name: str, content: bytes) -> None:
        raise StoreError(f"{name} cannot be written")

    monkeypatch.setattr(_objects.Objects, "put", failing)
    with pytest.raises(StoreError, match="^a cannot be written"):
        files.put_each([("a", b""), ("b", b"")])


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["append", "append", "append", "cut", "compact", "put", "end"]),
        st.floats(0, 1),
        st.binary(max_size=5),
    ),
    max_size=25,
)


@pytest.mark.slow
@hypothesis.settings(max_examples=50)
@hypothesis.given(steps=STEPS)
def test_a_log_is_what_was_appended_whatever_its_pieces(steps) -> None:
    with pytest.MonkeyPatch.context() as patch, contextlib.ExitStack() as stack:
        objects = MemoryStore()
        patch.setattr(obstore.store, "from_url", lambda *_, **__: objects)
        patch.setattr(_bucket, "SEGMENTS", 3)
        files, reader, log = Bucket("s3://b/p"), Bucket("s3://b/p"), b""
        stack.enter_context(files.writing())
        for step, where, content in steps:
            if step in ("append", "cut"):
                offset = len(log) if step == "append" else int(where * len(log))
                files.append(LOG, offset, content)
                log = log[:offset] + content
            elif step == "compact":
                files.compact(LOG)
            elif step == "put":
                files.put_log(LOG, content)
                log = content
            else:
                stack.close()
                assert len(objects.list("status").collect()) <= 1  # the base alone
                stack.enter_context(files.writing())
            assert files.read_log(LOG) == reader.read_log(LOG) == log
            assert files.size(LOG) == reader.size(LOG) == len(log)


class Killed(BaseException):
    """In place of the end of the process."""


def dying(objects: MemoryStore, after: int, keep: int) -> Any:
    """The objects for a process that dies at a write; of many deletions it does every `keep`th."""
    left = itertools.count(after, -1)

    class Dying:
        def __getattr__(self, name: str) -> Any:
            return getattr(objects, name)

        def put(self, *args: Any, **options: Any) -> Any:
            if next(left) == 0:
                raise Killed
            return objects.put(*args, **options)

        def delete(self, names: list[str]) -> None:
            if next(left) == 0:
                objects.delete(list(names)[::keep])
                raise Killed
            objects.delete(list(names))

    return Dying()


CHANGES: dict[str, tuple[Callable[[Bucket], None], int]] = {
    "append": (lambda files: files.append(LOG, 15, b"new"), 15),
    "compact": (lambda files: files.compact(LOG) and None, 15),
    "cut in a segment": (lambda files: files.append(LOG, 11, b"new"), 11),
    "cut in the base": (lambda files: files.append(LOG, 2, b"new"), 2),
    "cut all": (lambda files: files.append(LOG, 0, b"new"), 0),
}


@pytest.mark.parametrize("keep", [1, 2, 3])
@pytest.mark.parametrize("change", CHANGES)
def test_a_process_killed_at_any_request_leaves_a_log_from_its_beginning(
    monkeypatch, change: str, keep: int
) -> None:
    act, least = CHANGES[change]
    old = b"base-" + b"segments.."
    for after in range(10):
        objects = MemoryStore()
        monkeypatch.setattr(obstore.store, "from_url", lambda *_, objects=objects, **__: objects)
        files = Bucket("s3://b/p")
        files.put_log(LOG, old[:5])
        for offset in range(5, 15, 2):
            files.append(LOG, offset, old[offset : offset + 2])
        mortal = Bucket("s3://b/p")
        monkeypatch.setattr(mortal._objects, "_writes", dying(objects, after, keep))
        try:
            act(mortal)
            finished = True
        except Killed:
            finished = False
        log = Bucket("s3://b/p").read_log(LOG)
        new = old[:least] if change == "compact" else old[:least] + b"new"
        if finished:
            assert log == new
            return
        assert log == new or (old.startswith(log) and len(log) >= least)
        heir = Bucket("s3://b/p")  # appends behind whatever is left, and nothing old comes back
        heir.append(LOG, len(log), b"!")
        assert Bucket("s3://b/p").read_log(LOG) == log + b"!"
    raise AssertionError("the change never ended")


def test_a_reader_sees_the_whole_log_while_its_segments_are_merged(in_memory, monkeypatch) -> None:
    files, reader = in_memory(), in_memory()
    for offset in range(10):
        files.append(LOG, offset, bytes([offset]))
    get_each = reader._objects.get_each

    def merged_before(names: Any) -> Any:
        files.compact(LOG)
        return get_each(names)

    monkeypatch.setattr(reader._objects, "get_each", merged_before)
    assert reader.read_log(LOG) == bytes(range(10))


def test_long_logs_are_merged_more_rarely(in_memory, monkeypatch) -> None:
    files = in_memory()
    merged: list[int] = []
    compact = files.compact
    monkeypatch.setattr(files, "compact", lambda name: (merged.append(1), compact(name))[1])
    files.put_log(LOG, bytes(10**6))
    for index in range(100):
        files.append(LOG, 10**6 + index, b"x")
    assert not merged  # the base would have been written anew
    for index in range(100):
        files.append("status/inputs", index, b"x")
    assert len(merged) == 1


def test_a_log_is_not_extended_beyond_a_gap_nor_elsewhere(in_memory) -> None:
    files = in_memory()
    files.append(LOG, 0, b"abc")
    with pytest.raises(OSError, match="status/journal has 3 bytes instead of 4"):
        files.append(LOG, 4, b"d")
    with pytest.raises(ValueError, match="must begin with status/, got 'log'"):
        files.append("log", 0, b"d")


def lease(url: str) -> dict[str, Any]:
    return json.loads(Bucket(url).get("status/lease"))


def test_a_second_writer_is_refused_and_the_first_is_named(url) -> None:
    files, other = Bucket(url), Bucket(url)
    assert other.writer() is None
    with files.writing():
        named = rf"process {os.getpid()} on \S+ since \S+"
        with (
            pytest.raises(StoreError, match=f"{url} is being written by {named}; wait for it$"),
            other.writing(),
        ):
            raise AssertionError
        writer = other.writer()
        assert writer is not None
        assert writer.startswith(f"process {os.getpid()} on ")
    assert other.writer() is None
    with other.writing():  # released, also after an error
        pass
    with pytest.raises(ArithmeticError), files.writing():
        raise ArithmeticError
    assert other.writer() is None


def test_of_writers_that_begin_at_once_exactly_one_wins(url) -> None:
    begin, end = threading.Barrier(4), threading.Barrier(4)

    def write(_: int) -> str:
        files = Bucket(url)
        begin.wait(20)
        try:
            with files.writing():
                end.wait(20)
                return "wins"
        except StoreError as error:
            end.wait(20)
            return str(error)

    with ThreadPoolExecutor(4) as pool:
        for _ in range(3):
            *refused, wins = sorted(pool.map(write, range(4)))
            assert wins == "wins"
            assert all(f"{url} is being written by process" in message for message in refused)


def abandon(files: Bucket, **changes: Any) -> None:
    """Leave the lease of a process that was killed while it wrote."""
    with files.writing():
        record = lease(str(files)) | changes
    files.put("status/lease", json.dumps(record).encode())


def test_the_lease_of_a_process_that_ended_is_taken_over_at_once(url) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    files = Bucket(url)
    abandon(files, pid=ended.pid)
    assert files.writer() is None
    with files.writing():
        assert lease(url)["pid"] == os.getpid()
    abandon(files, started=1.0)  # another process has its number now
    with files.writing():
        pass
    abandon(files, pid=ended.pid, machine="another")  # whose processes are not known here
    with pytest.raises(StoreError, match=f"written by process {ended.pid} on"), files.writing():
        pass


def test_a_lease_that_ran_out_is_taken_over_and_not_before(url, monkeypatch) -> None:
    files = Bucket(url)
    abandon(files, machine="another", host="far")
    assert "on far since" in (files.writer() or "")
    now = time.time()
    monkeypatch.setattr(_lease.time, "time", lambda: now + _lease.LEASE + _lease.SKEW - 9)
    with pytest.raises(StoreError, match="on far since"), files.writing():
        pass
    monkeypatch.setattr(_lease.time, "time", lambda: now + _lease.LEASE + _lease.SKEW + 1)
    with files.writing():
        assert "on far" not in (files.writer() or "")


def test_a_lease_that_cannot_be_read_lasts_as_long_as_any(url, monkeypatch) -> None:
    files = Bucket(url)
    files.put("status/lease", b"{")
    with pytest.raises(StoreError, match="is being written by another process"), files.writing():
        pass
    now = time.time()
    monkeypatch.setattr(_lease.time, "time", lambda: now + _lease.LEASE + _lease.SKEW + 1)
    with files.writing():
        pass


def test_the_lease_is_renewed_in_the_background(url, monkeypatch) -> None:
    monkeypatch.setattr(_lease, "RENEWAL", 0.1)
    files = Bucket(url)
    with files.writing():
        first, until = lease(url), time.monotonic() + 20
        while lease(url)["renewed"] == first["renewed"] and time.monotonic() < until:
            time.sleep(0.02)
        assert lease(url)["renewed"] > first["renewed"]
        assert lease(url)["since"] == first["since"]


WRITES: dict[str, Callable[[Bucket], None]] = {
    "put": lambda files: files.put("a", b"x"),
    "append": lambda files: files.append(LOG, 0, b"x"),
    "remove": lambda files: files.remove("a"),
    "check": lambda files: files.check(),
}


@pytest.mark.parametrize("write", WRITES)
def test_a_writer_that_lost_its_lease_writes_no_more(url, monkeypatch, write: str) -> None:
    files, other = Bucket(url), Bucket(url)
    other.put("zarr.json", b"{}")
    other.put("a", b"old")
    first, second = contextlib.ExitStack(), contextlib.ExitStack()
    with second, first:
        first.enter_context(files.writing())
        lost, now = lease(url), time.time()
        with monkeypatch.context() as patch:
            patch.setattr(_lease.time, "time", lambda: now + 2 * _lease.LEASE)
            second.enter_context(other.writing())
        monkeypatch.setattr(_lease, "RENEWAL", 0.0)
        for _ in range(2):
            with pytest.raises(StoreError, match=rf"{url} was taken over by process \d+ on"):
                WRITES[write](files)
        assert files.get("a") == b"old"
        assert other.read_log(LOG) == b""
        first.close()  # does not release what is no longer its own
        assert lease(url)["owner"] != lost["owner"]
    assert other.writer() is None


def test_a_writer_that_slept_goes_on_if_nobody_took_over(url, monkeypatch) -> None:
    files = Bucket(url)
    with files.writing():
        first, now = lease(url), time.time()
        # The clock of the day has moved on, and nothing was renewed.
        with monkeypatch.context() as patch:
            patch.setattr(_lease.time, "time", lambda: now + 2 * _lease.LEASE)
            files.put("a", b"new")
        assert files.get("a") == b"new"
        assert lease(url)["renewed"] > first["renewed"]
        assert "process" in (Bucket(url).writer() or "")


def test_a_store_removed_while_it_is_written_is_noticed(url, monkeypatch) -> None:
    monkeypatch.setattr(_bucket, "SEEN", 0.0)
    files, other = Bucket(url), Bucket(url)
    other.put("zarr.json", b"{}")
    with files.writing():
        files.check()
        other.remove("zarr.json")
        with pytest.raises(StoreError, match=f"{url} was moved or removed, or lost its zarr.json"):
            files.check()
        monkeypatch.setattr(_lease, "RENEWAL", 0.0)
        other.remove("status/lease")
        with pytest.raises(StoreError, match=f"{url} lost the lease of its writer"):
            files.put("a", b"x")


def test_what_another_writer_appended_is_never_overwritten(url, monkeypatch) -> None:
    files, other = Bucket(url), Bucket(url)
    with files.writing():
        files.append(LOG, 0, b"ab")
        other.append(LOG, 2, b"other")  # as of a writer that was suspended
        with pytest.raises(StoreError, match=f"{url} was written by another process meanwhile"):
            files.append(LOG, 2, b"cd")
        stale = files._read(LOG, files._log(LOG))
        other.put_log(LOG, b"base")
        monkeypatch.setattr(files, "_read", lambda *_: stale)
        with pytest.raises(StoreError, match=f"{url} was written by another process meanwhile"):
            files.compact(LOG)
        assert other.read_log(LOG) == b"base"


def test_a_write_whose_answer_was_lost_is_recognised(in_memory, monkeypatch) -> None:
    objects = in_memory()._objects
    first = objects.put_if("a", b"one", None)
    assert objects.put_if("a", b"one", None) == first
    assert objects.put_if("a", b"two", first) == objects.put_if("a", b"two", first)
    with pytest.raises(_objects.Conflict):
        objects.put_if("a", b"three", first)


def test_a_server_without_conditional_writes_is_compared_instead(url, monkeypatch) -> None:
    monkeypatch.setenv("AWS_CONDITIONAL_PUT", "disabled")
    files, other = Bucket(url), Bucket(url)
    with files.writing():
        with pytest.raises(StoreError, match="is being written by process"), other.writing():
            pass
        for offset in range(3):
            files.append(LOG, offset, b"x")
    assert other.read_log(LOG) == b"xxx"
    assert other.writer() is None


@contextlib.contextmanager
def answering(status: int, body: str = "") -> Iterator[str]:
    """A server that answers every request with the same status."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def answer(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body.encode())

        do_GET = do_PUT = do_HEAD = do_POST = answer

        def log_message(self, *_: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


REFUSALS = {
    "permission": (403, "<Error><Code>AccessDenied</Code></Error>", "permission denied"),
    "credentials": (401, "", "wrong credentials"),
    "request": (400, "<Error>\n<Code>InvalidRequest</Code></Error>", r"400 .*\(InvalidRequest\)"),
}


@pytest.mark.parametrize("kind", REFUSALS)
def test_errors_of_the_server_are_one_line_that_names_the_store(
    url, monkeypatch, kind: str
) -> None:
    status, body, text = REFUSALS[kind]
    with answering(status, body) as endpoint:
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
        files = Bucket(url)
        for act in (files.read_log, files.get, lambda name: files.put(name, b"x")):
            with pytest.raises(StoreError, match=f"^{url} cannot be (read|written): .*{text}") as e:
                act(LOG)
            assert "\n" not in str(e.value)


def test_a_missing_bucket_server_or_library_is_said(url, monkeypatch) -> None:
    files = Bucket("s3://missing/prefix")
    for act in (files.get, files.read_log, lambda name: files.put(name, b"x")):
        with pytest.raises(StoreError, match=r"s3://missing/prefix cannot be .*no such bucket$"):
            act("status/a")
    with monkeypatch.context() as patch:
        patch.setattr(_objects, "RETRIES", _objects.RETRIES * 0.01)
        patch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
        with pytest.raises(StoreError, match="cannot be written: .*; what was done before is kept"):
            Bucket(url).put("a", b"x")
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "obstore", None)
        with pytest.raises(StoreError, match=r"needs obstore .*pip install 'causal_sgd\[cloud\]'"):
            Bucket(url)
    with pytest.raises(StoreError, match="^s3://b[|] cannot be opened: "):
        Bucket("s3://b|")
