"""A file on a server, read by ranges and never downloaded: at most 1.1 times its header.

    with Connections() as connections:
        file = RemoteFile(connections, "https://example.org/model.gguf")
        header = header_of(file, file.name)

The size of a header is not known before it is read, so windows grow with what has been understood
of it: the list of 128256 tokens that has just begun takes at least 8 bytes each, and so on. Lists
of numbers are passed over without being fetched. Source of the protocol: RFC 9110, section 14.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from posixpath import basename
from urllib.parse import SplitResult, quote, unquote, urljoin, urlsplit

from nemofit.errors import DataError, HardwareError, NemofitError, UnknownNameError
from nemofit.units import KIB, MIB, gb

from .connection import Answer, Connections

FIRST = 32 * KIB
"""Bytes of the first window; a header below that costs as much."""
FIRST_OF_SHARD = 4 * KIB
"""The same for the later files of a set, which have no vocabulary."""
MOST = 4 * MIB
"""Bytes of any later window."""
MAX_REDIRECTS = 10
_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+)")
_REDIRECTS = (301, 302, 303, 307, 308)
_SAFE = "/%:@!$&'()*+,;=~?"  # what RFC 3986 lets stand in a path or a query
_SECRET = ("authorization", "cookie")


class RemoteFile:
    """One file of a server.

    Args:
        connections: Open as long as the file is read.
        url: Its address.
        headers: To send along; those that prove who asks go to this server alone.
        first: Bytes of the first window.
        shown: What messages call it; None: its address.
        refuse: Makes an error of a status that is neither an answer nor a redirect.

    Attributes:
        name: The file's name, as messages may hold it.
        fetched: Bytes of the file that came over the network.
        requests: How often the server was asked.
    """

    def __init__(
        self,
        connections: Connections,
        url: str,
        headers: Mapping[str, str] | None = None,
        first: int = FIRST,
        shown: str | None = None,
        refuse: Callable[[str, int, Answer], NemofitError] | None = None,
    ) -> None:
        self.fetched = 0
        self.requests = 0
        self._connections = connections
        self._asked = check(url)
        self._url = self._asked
        self._headers = dict(headers or {})
        self._first = first
        self._shown = shown or shown_url(self._asked)
        self._refuse = refuse or refusal
        self._begin = b""
        self._size: int | None = None
        self._tag: str | None = None
        self.name = name_of(url)

    @property
    def size(self) -> int:
        """Bytes of the file; asks for its beginning where nothing was read yet."""
        if self._size is None:
            self._begin = self._fetch(0, self._first)
        assert self._size is not None
        return self._size

    def window(self, n: int, known: int) -> int:
        """As much as cannot be more than 1.1 times the header, a few MiB at a time."""
        begun = len(self._begin)
        return max(n, begun or min(known + known // 10 - self.fetched, MOST))

    def read(self, at: int, n: int) -> bytes:
        begin, self._begin = self._begin, b""
        if at == 0 and n <= len(begin):
            return begin[:n]
        return self._fetch(at, n)

    def _fetch(self, at: int, n: int) -> bytes:
        answer = self._ask(at, n)
        with answer:
            self._check_status(answer)
            first, last, size = self._place(answer)
            wanted = min(n, size - at)
            if first != at or last - first + 1 != wanted:
                raise self._fault(
                    f"sent bytes {first} to {last} where {at} to {at + n - 1} were asked"
                )
            if self._size not in (None, size):
                raise self._fault(
                    f"had {self._size} bytes and has {size} now: it changed while read"
                )
            tag = answer.header("etag")
            if None not in (tag, self._tag) and tag != self._tag:
                raise self._fault("changed while it was read")
            self._size, self._tag = size, tag
            body = answer.body(wanted)
            self.fetched += len(body)
            if len(body) < wanted:
                raise self._fault(f"sent {len(body)} of {wanted} bytes and ended")
            if answer.has_more:
                raise self._fault(f"sent more than the {wanted} bytes that were asked for")
        return body

    def _ask(self, at: int, n: int) -> Answer:
        """Follow redirects; the place that they end at is asked directly from then on."""
        url = self._url
        for _ in range(MAX_REDIRECTS + 1):
            headers = {
                key: value
                for key, value in self._headers.items()
                if _origin(url) == _origin(self._asked) or key.lower() not in _SECRET
            }
            headers |= {"Range": f"bytes={at}-{at + n - 1}", "Accept-Encoding": "identity"}
            self.requests += 1
            answer = self._connections.get(url, headers, n)
            if answer.status not in _REDIRECTS:
                self._url = url
                return answer
            with answer:
                target = answer.header("location")
            if not target:
                raise self._fault("redirects to nowhere")
            url = check(urljoin(url.geturl(), target))
        raise self._fault(f"redirects more than {MAX_REDIRECTS} times")

    def _check_status(self, answer: Answer) -> None:
        status, kind = answer.status, answer.header("content-type") or ""
        if status == 206:
            if (answer.header("content-encoding") or "identity").lower() != "identity":
                raise self._fault("sends the file compressed, so that no part can be asked for")
            return
        if status == 200 and kind.startswith("text/html"):
            raise DataError(f"{self._shown} is a web page, not a model", _page_hint(self._asked))
        if status == 200:
            length = answer.header("content-length") or ""
            size = f" of {gb(int(length))}" if length.isdecimal() and len(length) < 20 else ""
            raise HardwareError(
                f"{self._shown}: the server ignores ranges and would send the whole file{size}",
                "download the file and name its path",
            )
        raise self._refuse(self._shown, status, answer)

    def _place(self, answer: Answer) -> tuple[int, int, int]:
        said = answer.header("content-range") or ""
        found = _RANGE.fullmatch(said.strip()) if len(said) < 99 else None
        if found is None:
            raise self._fault(f"sent a part without saying which (Content-Range {said!r:.60})")
        first, last, size = (int(n) for n in found.groups())
        if not first <= last < size < 1 << 63:
            raise self._fault(f"sent an impossible part (Content-Range {said!r:.60})")
        return first, last, size

    def _fault(self, what: str) -> HardwareError:
        return HardwareError(
            f"{self._shown}: the server {what}",
            "try again later, or download the file and name its path",
        )


def refusal(shown: str, status: int, answer: Answer) -> NemofitError:
    """What to say of an answer that is none."""
    if status in (404, 410):
        return UnknownNameError("address", shown, hint="check the address for typing errors")
    if status in (401, 403):
        return HardwareError(
            f"{shown}: the server refuses access ({status})",
            "log in there and download the file, then name its path",
        )
    if status == 416:
        return DataError(f"{shown} is empty or became shorter", "download it again")
    if status == 429:
        wait = answer.header("retry-after") or ""
        after = f" in {wait} s" if wait.isdecimal() and len(wait) < 6 else " later"
        return HardwareError(f"{shown}: the server is asked too often (429)", f"try again{after}")
    return HardwareError(f"{shown}: the server answered {status}", "try again later")


def check(url: str) -> SplitResult:
    """Take an address apart.

    Raises:
        DataError: Not an http or https address.
    """
    try:
        parts = urlsplit(url)
        port_is_sound = parts.port is None or 0 < parts.port < 65536
        host = (parts.hostname or "").encode("idna")
    except (ValueError, UnicodeError):
        parts, port_is_sound, host = SplitResult("", "", "", "", ""), False, b""
    is_sound = port_is_sound and bool(host) and all(32 < byte < 127 for byte in host)
    if parts.scheme.lower() not in ("http", "https") or not is_sound:
        raise DataError(
            f"{ascii(url)[:200]} is no http or https address",
            "write for example https://example.org/model.gguf",
        )
    return parts._replace(
        path=quote(parts.path, safe=_SAFE), query=quote(parts.query, safe=_SAFE), fragment=""
    )


def name_of(url: str) -> str:
    """The name of the file that an address leads to, on one line."""
    name = unquote(basename(check(url).path)) or check(url).hostname or "file"
    return name if name.isprintable() else ascii(name)


def sibling_url(url: str, name: str) -> str:
    """The address of another file in the same folder; what follows ``?`` stays."""
    parts = check(url)
    return parts._replace(path=parts.path.rpartition("/")[0] + "/" + quote(name)).geturl()


def shown_url(parts: SplitResult) -> str:
    """An address as messages may hold it: without password and query, which may hold secrets."""
    host = parts.netloc.rpartition("@")[2]
    return ascii(f"{parts.scheme}://{host}{parts.path}")[1:-1][:200]


def _origin(parts: SplitResult) -> tuple[str, str | None, int | None]:
    return parts.scheme, parts.hostname, parts.port


def _page_hint(url: SplitResult) -> str:
    found = re.match(r"/([^/]+/[^/]+)(?:/(?:blob|tree)/[^/]+/?(.*))?$", url.path)
    if found and (url.hostname or "").endswith(("huggingface.co", "hf.co")):
        repository, file = found.groups()
        return f"name the file itself: hf:{repository}" + (f":{file}" if file else "")
    return "name the address of the file itself"
