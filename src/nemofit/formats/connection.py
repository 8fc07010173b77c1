"""HTTP for :mod:`.remote`: connections that are kept, time limits, proxies, and nothing unasked.

Every wait ends: for a connection, for each piece of an answer, and for the answer as a whole,
however slowly it trickles in.
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import socket
import ssl
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import NoReturn
from urllib.parse import SplitResult, unquote, urlsplit

from nemofit import __version__
from nemofit.errors import HardwareError
from nemofit.units import KIB

_PIECE = 64 * KIB


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How long to wait.

    Attributes:
        silence_s: For a connection, and for the next piece of an answer.
        answer_s: For an answer as a whole, before its size counts.
        bytes_per_s: The slowest transfer that is waited for.
        total_s: For everything that is asked for over the same connections.
    """

    silence_s: float = 10.0
    answer_s: float = 20.0
    bytes_per_s: int = 32 * KIB
    total_s: float = 300.0


class Connections:
    """Open connections, one for each server, closed at the end of the ``with`` block."""

    def __init__(
        self, environ: Mapping[str, str] | None = None, limits: Limits | None = None
    ) -> None:
        self.limits = limits or Limits()
        self._environ = environ or {}
        self._end = time.monotonic() + self.limits.total_s
        self._open: dict[tuple[str, str], http.client.HTTPConnection] = {}

    def __enter__(self) -> Connections:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for connection in self._open.values():
            connection.close()
        self._open.clear()

    def get(self, url: SplitResult, headers: Mapping[str, str], expected: int) -> Answer:
        """Ask for an address.

        Args:
            url: Checked before.
            headers: Beside those that every request has.
            expected: Bytes of the body that are wanted, for the time limit.

        Raises:
            HardwareError: The server cannot be reached, breaks off, or takes too long.
        """
        key = url.scheme, url.netloc
        kept = self._open.pop(key, None)
        for connection in (kept, None) if kept else (None,):
            fresh = connection is None
            connection = connection or self._connect(url)
            seconds = self.limits.answer_s + expected / self.limits.bytes_per_s
            deadline = _Deadline(connection, min(seconds, self._end - time.monotonic()))
            try:
                response = self._send(connection, url, headers)
                if deadline.is_over:
                    response.close()
                    raise TimeoutError
            except (OSError, http.client.HTTPException, ValueError) as error:
                deadline.cancel()
                connection.close()
                if fresh or deadline.is_over or isinstance(error, TimeoutError):
                    _failed(url, error, deadline)
                continue  # the server had closed what was kept
            return Answer(self, key, url, connection, response, deadline)
        raise AssertionError

    def keep(self, key: tuple[str, str], connection: http.client.HTTPConnection) -> None:
        """Take back a connection whose answer was read to its end."""
        self._open[key] = connection

    def _send(
        self,
        connection: http.client.HTTPConnection,
        url: SplitResult,
        headers: Mapping[str, str],
    ) -> http.client.HTTPResponse:
        target = (url.path or "/") + (f"?{url.query}" if url.query else "")
        if url.scheme == "http" and self._proxy(url):
            target = f"http://{url.netloc.rpartition('@')[2]}{target}"
        own = {"User-Agent": f"nemofit/{__version__}", "Accept": "*/*"}
        if url.username and not any(key.lower() == "authorization" for key in headers):
            own["Authorization"] = _basic(url)
        connection.request("GET", target, headers={**own, **headers})
        return connection.getresponse()

    def _connect(self, url: SplitResult) -> http.client.HTTPConnection:
        proxy = self._proxy(url)
        host, port = url.hostname or "", url.port
        wait = self.limits.silence_s
        via = proxy or url
        if url.scheme == "http":
            return http.client.HTTPConnection(via.hostname or "", via.port, timeout=wait)
        context = ssl.create_default_context()
        connection = http.client.HTTPSConnection(
            via.hostname or "", via.port, timeout=wait, context=context
        )
        if proxy is not None:
            extra = {"Proxy-Authorization": _basic(proxy)} if proxy.username else {}
            connection.set_tunnel(host, port, extra)
        return connection

    def _proxy(self, url: SplitResult) -> SplitResult | None:
        """The proxy that the environment names for an address."""
        for name in (f"{url.scheme}_proxy", "all_proxy"):
            said = self._environ.get(name) or self._environ.get(name.upper())
            if not said:
                continue
            skip = self._environ.get("no_proxy") or self._environ.get("NO_PROXY") or ""
            if _is_exempt(url.hostname or "", skip):
                return None
            proxy = urlsplit(said if "://" in said else f"http://{said}")
            if proxy.scheme not in ("http", "https") or not proxy.hostname:
                raise HardwareError(
                    f"the proxy in {name} is of the kind {proxy.scheme!r:.20}, not http",
                    f"set {name} to an http proxy, or download the file and name its path",
                )
            return proxy
        return None


class Answer:
    """What a server answered; its body comes as far as it is asked for."""

    def __init__(
        self,
        connections: Connections,
        key: tuple[str, str],
        url: SplitResult,
        connection: http.client.HTTPConnection,
        response: http.client.HTTPResponse,
        deadline: _Deadline,
    ) -> None:
        self.status = response.status
        self._connections = connections
        self._key = key
        self._url = url
        self._connection = connection
        self._response = response
        self._deadline = deadline
        self.has_more = False

    def __enter__(self) -> Answer:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._deadline.cancel()
        whole = self._response.isclosed() and not self._response.will_close
        if error is None and whole:
            self._connections.keep(self._key, self._connection)
        else:
            self._response.close()
            self._connection.close()

    def header(self, name: str) -> str | None:
        """A header line by name, None where there is none."""
        return self._response.getheader(name)

    def body(self, n: int) -> bytes:
        """At most ``n`` bytes; ``has_more`` then says whether the server sent more.

        Raises:
            HardwareError: It breaks off or takes too long.
        """
        parts: list[bytes] = []
        left = n + 1
        try:
            while left and (part := self._response.read1(min(left, _PIECE))):
                parts.append(part)
                left -= len(part)
        except (OSError, http.client.HTTPException, ValueError) as error:
            _failed(self._url, error, self._deadline)
        if self._deadline.is_over:
            _failed(self._url, TimeoutError(), self._deadline)
        self.has_more = not left
        if self._response.length == 0:
            self._response.close()  # read to its end: the connection can be used again
        return b"".join(parts)[:n]


class _Deadline:
    """Ends a connection when its time is over, whatever it waits for."""

    def __init__(self, connection: http.client.HTTPConnection, seconds: float) -> None:
        self.is_over = seconds <= 0
        self._connection = connection
        self._timer = threading.Timer(max(0.0, seconds), self._end)
        self._timer.daemon = True
        self._timer.start()

    def cancel(self) -> None:
        self._timer.cancel()

    def _end(self) -> None:
        self.is_over = True
        sock = self._connection.sock
        if sock is not None:
            with contextlib.suppress(OSError):
                socket.socket.shutdown(sock, socket.SHUT_RDWR)


def _failed(url: SplitResult, error: BaseException, deadline: _Deadline) -> NoReturn:
    host = url.netloc.rpartition("@")[2]
    retry = "try again later, or download the file and name its path"
    if deadline.is_over or isinstance(error, TimeoutError):
        raise HardwareError(f"{host} does not answer in time", retry) from error
    if isinstance(error, ssl.SSLError):
        reason = getattr(error, "verify_message", None) or error.reason or "no secure connection"
        raise HardwareError(
            f"{host}: {reason}", "check the address and this machine's certificates and clock"
        ) from error
    if isinstance(error, socket.gaierror):
        raise HardwareError(
            f"the name {host} is not known on this network", "check the address and the network"
        ) from error
    if isinstance(error, OSError) and error.strerror:
        raise HardwareError(f"cannot reach {host}: {error.strerror}", retry) from error
    raise HardwareError(f"{host} broke off or sent no proper answer", retry) from error


def _is_exempt(host: str, skip: str) -> bool:
    """Whether ``no_proxy`` names a host: itself, a domain that it is in, or everything."""
    for name in skip.lower().split(","):
        name = name.strip().lstrip("*").lstrip(".") or name.strip()
        if name == "*" or (name and (host == name or host.endswith("." + name))):
            return True
    return False


def _basic(url: SplitResult) -> str:
    pair = f"{unquote(url.username or '')}:{unquote(url.password or '')}"
    return "Basic " + base64.b64encode(pair.encode()).decode()
