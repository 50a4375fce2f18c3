"""A page served on this machine: made once for all requests, which are few and short."""

from __future__ import annotations

import contextlib
import http.server
import re
import socket
import threading
from collections.abc import Callable, Hashable
from concurrent.futures import Future

__all__ = ["MOST_REQUESTS", "Shared", "make_server"]

MOST_REQUESTS = 32  # at a time; others are refused
SECONDS = 10.0  # that a request may take to arrive, or its answer to be taken
OWN = re.compile(r"(127\.0\.0\.1|localhost|\[::1\])(:\d+)?", re.IGNORECASE)
"""The hosts of this machine. Another site could let its own name point here."""
HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


class Shared:
    """A page that is made once for all requests that arrive meanwhile, and again after a change."""

    def __init__(self, make: Callable[[], str], state: Callable[[], Hashable]) -> None:
        """Make nothing yet.

        Args:
            make: makes the page.
            state: what the page depends on; an equal state means an equal page.
        """
        self._make, self._state = make, state
        self._lock = threading.Lock()
        self._made: tuple[Hashable, Future[str]] | None = None

    def __call__(self) -> str:
        """The page of the current state."""
        with self._lock:
            state = self._state()
            made = self._made
            first = made is None or (made[1].done() and made[0] != state)
            made = (state, Future()) if first or made is None else made
            self._made = made
        future = made[1]
        if first:
            try:
                future.set_result(self._make())
            except BaseException as error:
                self._made = None
                future.set_exception(error)
        return future.result()


def make_server(port: int, page: Callable[[], str]) -> http.server.ThreadingHTTPServer:
    """A server of one page at / for browsers on this machine.

    Args:
        port: its port; 0 for any free one.
        page: returns the HTML; called in threads.

    Raises:
        OSError: if the port is taken.
    """
    places = threading.BoundedSemaphore(MOST_REQUESTS)

    class Handler(_Handler):
        free = places
        content = (page,)

    return http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler)


class _Handler(http.server.BaseHTTPRequestHandler):
    free: threading.BoundedSemaphore
    content: tuple[Callable[[], str]]  # in a tuple, so that it is no method
    timeout = SECONDS  # of every single read or write

    def handle(self) -> None:
        if not self.free.acquire(blocking=False):
            self.requestline, self.request_version, self.command = "", "HTTP/1.0", "GET"
            self.send_error(503)
            return
        self._deadline = threading.Timer(SECONDS, self._hang_up)
        self._deadline.daemon = True
        self._deadline.start()
        try:
            # The reader may leave at any time.
            with contextlib.suppress(OSError):
                super().handle()
        finally:
            self._deadline.cancel()
            self.free.release()

    def _hang_up(self) -> None:
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)

    def do_GET(self) -> None:
        """Answer with the page."""
        self._deadline.cancel()  # the request is complete; the page may take its time
        if not OWN.fullmatch(self.headers.get("Host", "localhost").strip()):
            self.send_error(403, "Only for this machine")
        elif self.path.partition("?")[0] != "/":
            self.send_error(404)
        else:
            content = self.content[0]().encode()
            self.send_response(200)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

    def end_headers(self) -> None:
        """Add the headers of every answer."""
        for name, value in HEADERS.items():
            self.send_header(name, value)
        super().end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Log nothing."""
