"""The served page: made once, for browsers on this machine only, with bounded requests."""

from __future__ import annotations

import contextlib
import http.client
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from causal_sgd.cli import serving


@contextlib.contextmanager
def served(page) -> Iterator[int]:
    """The port of a server of a page."""
    with serving.make_server(0, page) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


def get(port: int, path: str = "/", **headers: str) -> http.client.HTTPResponse:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=200)
    connection.request("GET", path, headers=headers)
    answer = connection.getresponse()
    answer.read()
    return answer


def test_only_hosts_of_this_machine_are_answered_and_never_in_a_frame() -> None:
    with served(lambda: "page") as port:
        for host in ("localhost", f"127.0.0.1:{port}", "[::1]:80", "LOCALHOST:1"):
            assert get(port, Host=host).status == 200
        for host in ("evil.example", "127.0.0.1.evil.example", "localhost:80.evil", "10.0.0.1", ""):
            assert get(port, Host=host).status == 403
        for answer in (get(port), get(port, "/other")):
            assert answer.headers["X-Frame-Options"] == "DENY"
            assert answer.headers["Content-Security-Policy"] == "frame-ancestors 'none'"
            assert answer.headers["X-Content-Type-Options"] == "nosniff"


def test_a_page_is_made_once_for_all_requests_until_its_state_changes() -> None:
    made, state, begin = [], [0], threading.Event()

    def make() -> str:
        begin.wait(10)
        made.append(1)
        return str(len(made))

    page = serving.Shared(make, lambda: state[0])
    answers: list[str] = []
    threads = [threading.Thread(target=lambda: answers.append(page())) for _ in range(8)]
    for thread in threads:
        thread.start()
    begin.set()
    for thread in threads:
        thread.join()
    assert answers == ["1"] * 8
    assert page() == "1"
    state[0] = 1
    assert page() == "2"


def test_a_page_that_fails_is_tried_again() -> None:
    results = iter([ValueError("no"), "page"])

    def make() -> str:
        result = next(results)
        if isinstance(result, ValueError):
            raise result
        return result

    page = serving.Shared(make, lambda: 0)
    with pytest.raises(ValueError, match="no"):
        page()
    assert page() == "page"


def slow_requests(port: int, count: int) -> list[socket.socket]:
    """Requests that do not arrive as a whole."""
    slow = [socket.create_connection(("127.0.0.1", port), timeout=200) for _ in range(count)]
    for connection in slow:
        with contextlib.suppress(ConnectionError):  # it may be refused before
            connection.sendall(b"GET / HT")
    return slow


def get_status(port: int) -> int | None:
    """The status of an answer; None if the connection is closed before it is read."""
    with contextlib.suppress(ConnectionError):
        return get(port).status
    return None


def test_requests_are_bounded_in_number(monkeypatch) -> None:
    monkeypatch.setattr(serving, "SECONDS", 200.0)
    monkeypatch.setattr(serving, "MOST_REQUESTS", 2)
    with served(lambda: "page") as port:
        slow = slow_requests(port, 2)
        while get_status(port) != 503:
            slow += slow_requests(port, 1)  # one may have been refused in favour of the last `get`
        for connection in slow:
            connection.close()
        while get_status(port) != 200:
            time.sleep(0.01)


def test_requests_are_bounded_in_time(monkeypatch) -> None:
    monkeypatch.setattr(serving, "SECONDS", 0.2)
    with served(lambda: "page") as port:
        (connection,) = slow_requests(port, 1)
        assert connection.recv(10) == b"", "it was hung up"
        connection.close()
