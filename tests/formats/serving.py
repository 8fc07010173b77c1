"""A server of our own on loopback, which gives ranges well or badly, and counts what it sent."""

from __future__ import annotations

import re
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote

RANGE = re.compile(r"bytes=(\d+)-(\d+)")


@dataclass
class Site:
    """What the server has and what it was asked.

    Attributes:
        files: Contents by path.
        special: Paths that another function answers.
        log: Method, path and headers of every request.
        sent: Bytes of bodies that were handed to the network.
        stop: Set at the end, for those that stall.
    """

    url: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    special: dict[str, Callable[[Handler], None]] = field(default_factory=dict)
    log: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)
    sent: int = 0
    stop: threading.Event = field(default_factory=threading.Event)


class Handler(BaseHTTPRequestHandler):
    """Answers from a :class:`Site`."""

    protocol_version = "HTTP/1.1"
    site: Site

    def do_GET(self) -> None:
        path = unquote(self.path.partition("?")[0])
        self.site.log.append((self.command, self.path, dict(self.headers)))
        answer = self.site.special.get(path)
        if answer is not None:
            answer(self)
        elif path in self.site.files:
            self.part(self.site.files[path])
        else:
            self.say(404, {}, b"no such file")

    do_HEAD = do_GET
    do_CONNECT = do_GET

    @property
    def asked(self) -> tuple[int, int]:
        found = RANGE.fullmatch(self.headers.get("Range", ""))
        assert found, "every request asks for a range"
        return int(found[1]), int(found[2])

    def part(self, data: bytes, **headers: str) -> None:
        """The range that was asked for, as RFC 9110 says."""
        first, last = self.asked
        if first >= len(data):
            self.say(416, {"Content-Range": f"bytes */{len(data)}"}, b"")
            return
        last = min(last, len(data) - 1)
        place = {"Content-Range": f"bytes {first}-{last}/{len(data)}"}
        self.say(206, {**place, **headers}, data[first : last + 1])

    def say(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(body))} | headers).items():
            self.send_header(name, value)
        self.end_headers()
        self.write(body)

    def write(self, data: bytes) -> None:
        try:
            self.wfile.write(data)
            self.site.sent += len(data)
        except OSError:
            self.close_connection = True

    def log_message(self, *_: object) -> None:
        """Nothing: the tests read ``Site.log``."""


class Server(ThreadingHTTPServer):
    """Clients that hang up are what the tests are about."""

    daemon_threads = True
    block_on_close = False

    def handle_error(self, *_: object) -> None:
        """Nothing: the client says what went wrong."""


@contextmanager
def serve(context: ssl.SSLContext | None = None) -> Iterator[Site]:
    """A site on a free port, with TLS where there is a context; it ends with the block, also for
    those who still wait."""
    site = Site()
    server = Server(("127.0.0.1", 0), type("H", (Handler,), {"site": site}))
    if context is not None:
        server.socket = context.wrap_socket(
            server.socket, server_side=True, do_handshake_on_connect=False
        )
    site.url = f"http{'s' if context else ''}://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield site
    finally:
        site.stop.set()
        server.shutdown()
        server.server_close()
        thread.join()


def stall(handler: Handler) -> None:
    """Take the request and say nothing."""
    handler.site.stop.wait(30)
    handler.close_connection = True


def trickle(handler: Handler) -> None:
    """A byte now and then, so that no single wait is long."""
    first, last = handler.asked
    handler.send_response(206)
    handler.send_header("Content-Range", f"bytes {first}-{last}/{1 << 20}")
    handler.send_header("Content-Length", str(last - first + 1))
    handler.end_headers()
    while not handler.site.stop.is_set() and not handler.close_connection:
        handler.write(b"G")
        time.sleep(0.05)


def trickle_headers(handler: Handler) -> None:
    """The same before the body begins."""
    handler.wfile.write(b"HTTP/1.1 206 Partial Content\r\n")
    try:
        while not handler.site.stop.is_set():
            handler.wfile.write(b"X-More: yes\r\n")
            time.sleep(0.05)
    except OSError:
        pass
    handler.close_connection = True
