"""Headers over HTTP: little is fetched, and whatever a server does wrong is one line, soon."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from nemofit.errors import DataError, HardwareError, NemofitError, UnknownNameError
from nemofit.formats.connection import Connections, Limits
from nemofit.formats.gguf.header import header_of, read_header
from nemofit.formats.gguf.reader import read_gguf
from nemofit.formats.load import headers_at, load
from nemofit.formats.places import Places
from nemofit.formats.remote import RemoteFile

from .gguf import build
from .gguf.build import DATA, F32, I32, SMALL, STRING, TENSORS, U16, U32
from .serving import Handler, Site, serve, stall, trickle, trickle_headers

WHOLE = build.gguf(SMALL, TENSORS, DATA)
SHORT = Limits(silence_s=0.3, answer_s=0.4)


@pytest.fixture
def site() -> Iterator[Site]:
    with serve() as running:
        yield running


@pytest.fixture
def places(tmp_path: Path) -> Places:
    return Places(home=tmp_path)


def vocabulary(tokens: int, tensors: int, seed: int = 1) -> bytes:
    """A file with as many tokens and merges of the lengths that byte-pair vocabularies have."""
    draw = random.Random(seed)
    words = ["x" * (1 + min(i // (tokens // 9 + 1), 8) + draw.randrange(4)) for i in range(tokens)]
    merges = [f"{words[i // 2 % tokens]} {words[i % tokens]}" for i in range(2 * tokens)]
    pairs = [
        *(p for p in SMALL if not p[0].startswith("tokenizer.")),
        ("tokenizer.ggml.tokens", STRING, words),
        ("tokenizer.ggml.scores", F32, [0.0] * tokens),
        ("tokenizer.ggml.token_type", I32, [1] * tokens),
        ("tokenizer.ggml.merges", STRING, merges),
        ("tokenizer.chat_template", STRING, "y" * 9000),
    ]
    infos = [("token_embd.weight", (32, tokens), 1, 0)]
    end = 64 * tokens
    infos += [
        (f"blk.{i // 9}.ffn_gate_{i}.weight", (32,), 0, end + 128 * i) for i in range(tensors)
    ]
    return build.gguf(pairs, infos, end + 128 * tensors)


@pytest.mark.parametrize(
    ("tokens", "tensors"), [(2500, 100), (32000, 291), (128256, 723), (262144, 1100)]
)
def test_fetches_at_most_a_tenth_more_than_the_header(
    tokens: int, tensors: int, site: Site, tmp_path: Path
) -> None:
    """From 0.1 to 18 MiB of header; what the server counts, not what the reader believes."""
    data = vocabulary(tokens, tensors)
    site.files["/model.gguf"] = data
    path = tmp_path / "model.gguf"
    path.write_bytes(data)
    with open(path, "rb") as local:
        expected = read_header(local, "model.gguf")
    with Connections() as connections:
        file = RemoteFile(connections, f"{site.url}/model.gguf")
        assert header_of(file, file.name) == expected
    assert expected.data_offset > 100_000
    assert site.sent == file.fetched <= 1.1 * expected.data_offset
    assert file.requests == len(site.log) <= 25


def test_an_address_is_the_model_that_the_file_is(
    site: Site, places: Places, tmp_path: Path
) -> None:
    site.files["/a/Tiny Q4.gguf"] = WHOLE
    path = tmp_path / "Tiny Q4.gguf"
    path.write_bytes(WHOLE)
    there, here = load(f"{site.url}/a/Tiny%20Q4.gguf?x=1", places), read_gguf(path)
    assert (there.id, there.tensors, there.metadata) == (here.id, here.tensors, here.metadata)
    assert there.file_bytes == here.file_bytes == len(WHOLE)
    assert there.source == f"{site.url}/a/Tiny%20Q4.gguf"
    assert there.origin is not None
    assert there.origin.url == f"{site.url}/a/Tiny%20Q4.gguf?x=1"
    assert site.log[0][1] == "/a/Tiny%20Q4.gguf?x=1"


def shards(site: Site, count: int) -> None:
    for n in range(count):
        pairs = [("split.no", U16, n), ("split.count", U16, count)]
        infos: list[build.Info] = [(f"{'blk.0.' * n}token_embd.weight", (32, 1), 1, 0)]
        data = build.gguf([*SMALL, *pairs] if n == 0 else pairs, infos, 1 << 16)
        site.files[f"/set/big-{n + 1:05d}-of-{count:05d}.gguf"] = data


def test_any_file_of_a_set_names_the_others(site: Site, places: Places) -> None:
    shards(site, 3)
    model = load(f"{site.url}/set/big-00002-of-00003.gguf", places)
    assert model.id == "big"
    assert len(model.tensors) == 3
    assert model.file_bytes == sum(map(len, site.files.values()))
    assert model.origin is not None
    assert model.origin.url == f"{site.url}/set/big-00001-of-00003.gguf"
    assert site.sent < 64 << 10
    del site.files["/set/big-00003-of-00003.gguf"]
    with pytest.raises(
        DataError, match=r"big-00003-of-00003\.gguf of 3 files is not on the server"
    ):
        load(f"{site.url}/set/big-00001-of-00003.gguf", places)


def test_one_connection_serves_all_windows(site: Site) -> None:
    clients = set()
    data = vocabulary(9000, 50)

    def answer(handler: Handler) -> None:
        clients.add(handler.client_address)
        handler.part(data)

    site.special["/m.gguf"] = answer
    with Connections() as connections:
        header_of(RemoteFile(connections, f"{site.url}/m.gguf"), "m.gguf")
    assert len(site.log) > 2
    assert len(clients) == 1


def test_a_connection_that_the_server_closed_is_made_again(site: Site) -> None:
    data = vocabulary(9000, 50)

    def answer(handler: Handler) -> None:
        handler.part(data)
        handler.close_connection = True  # without having said so

    site.special["/m.gguf"] = answer
    with Connections() as connections:
        header = header_of(RemoteFile(connections, f"{site.url}/m.gguf"), "m.gguf")
    assert header.lengths["tokenizer.ggml.tokens"] == 9000


def test_redirects_are_followed_once_and_secrets_stay_at_home(site: Site) -> None:
    """The place that a redirect leads to is asked directly from then on, without the token."""
    with serve() as elsewhere:
        elsewhere.files["/cdn"] = vocabulary(9000, 50)
        site.special["/m.gguf"] = lambda h: h.say(
            302, {"Location": f"{elsewhere.url}/cdn?s=1"}, b""
        )
        with Connections() as connections:
            headers = {"Authorization": "Bearer hf_secret", "X-Own": "1"}
            header_of(RemoteFile(connections, f"{site.url}/m.gguf", headers), "m.gguf")
        assert len(site.log) == 1
        assert site.log[0][2]["Authorization"] == "Bearer hf_secret"
        assert len(elsewhere.log) > 2
        assert not any("Authorization" in sent for _, _, sent in elsewhere.log)
        assert all(sent["X-Own"] == "1" for _, _, sent in elsewhere.log)


def test_a_password_in_the_address_is_sent_and_never_shown(site: Site, places: Places) -> None:
    site.files["/m.gguf"] = WHOLE
    host = site.url.removeprefix("http://")
    model = load(f"http://me:pass@{host}/m.gguf?token=abc", places)
    assert site.log[0][2]["Authorization"] == "Basic bWU6cGFzcw=="
    assert model.source == f"http://{host}/m.gguf"
    with pytest.raises(UnknownNameError) as caught:
        load(f"http://me:pass@{host}/none.gguf?token=abc", places)
    assert "pass" not in caught.value.message
    assert "abc" not in caught.value.message


def test_a_proxy_of_the_environment_is_used(site: Site, tmp_path: Path) -> None:
    """The proxy gets the whole address; what ``no_proxy`` names goes directly."""
    with serve() as proxy:
        proxy.special["http://model.invalid/m.gguf"] = lambda h: h.part(WHOLE)
        environ = {"http_proxy": proxy.url, "NO_PROXY": "localhost,127.0.0.1"}
        behind = Places(home=tmp_path, environ=environ)
        assert load("http://model.invalid/m.gguf", behind).id == "m"
        site.files["/m.gguf"] = WHOLE
        assert load(f"{site.url}/m.gguf", behind).id == "m"
        assert len(proxy.log) == 1
    with pytest.raises(HardwareError, match="proxy"):
        load("http://m.invalid/m.gguf", Places(home=tmp_path, environ={"ALL_PROXY": "socks5://x"}))


def said(status: int, **headers: str) -> Callable[[Handler], None]:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda handler: handler.say(
        status, named, b"<html>" if "text/html" in str(named) else b""
    )


def whole_file(handler: Handler) -> None:
    """200 with everything, as a server that knows no ranges."""
    handler.send_response(200)
    handler.send_header("Content-Length", str(64 << 20))
    handler.end_headers()
    for _ in range(64):
        handler.write(b"GGUF" * (1 << 18))
        if handler.close_connection:
            break


def lying(place: str, body: bytes = b"") -> Callable[[Handler], None]:
    def answer(handler: Handler) -> None:
        first, last = handler.asked
        sent = body or WHOLE[first : last + 1]
        handler.say(206, {"Content-Range": place}, sent)

    return answer


def short(handler: Handler) -> None:
    """Promises all, sends half, and closes."""
    place = f"bytes 0-{len(WHOLE) - 1}/{len(WHOLE)}"
    headers = {"Content-Range": place, "Content-Length": str(len(WHOLE))}
    handler.say(206, headers, WHOLE[: len(WHOLE) // 2])
    handler.close_connection = True


def too_much(handler: Handler) -> None:
    first, last = handler.asked
    place = f"bytes {first}-{min(last, len(WHOLE) - 1)}/{len(WHOLE)}"
    handler.say(206, {"Content-Range": place}, WHOLE[first : last + 1] + b"more" * 1000)


def garbage(handler: Handler) -> None:
    handler.wfile.write(b"\0\1\2 not HTTP at all\r\n\r\n")
    handler.close_connection = True


def gone(handler: Handler) -> None:
    handler.close_connection = True


CASES: dict[str, tuple[Callable[[Handler], None], type[NemofitError], str]] = {
    "no ranges": (whole_file, HardwareError, r"ignores ranges .* whole file of 0.07 GB"),
    "a web page": (said(200, Content_Type="text/html"), DataError, "is a web page"),
    "a page as a part": (
        lying("bytes 0-14/15", b"<!DOCTYPE html>"), DataError, "web page"),
    "nothing there": (said(404), UnknownNameError, "is not known"),
    "login wanted": (said(401), HardwareError, r"refuses access \(401\)"),
    "forbidden": (said(403), HardwareError, r"refuses access \(403\)"),
    "too often": (said(429, Retry_After="7"), HardwareError, "429"),
    "broken": (said(503), HardwareError, "answered 503"),
    "an empty file": (said(416), DataError, "is empty"),
    "no place": (said(206), HardwareError, "without saying which"),
    "an unknown size": (lying(f"bytes 0-{len(WHOLE) - 1}/*"), HardwareError, "without saying"),
    "another place": (lying("bytes 5-99/5000000"), HardwareError, "where 0 to"),
    "an impossible place": (lying("bytes 9-3/10"), HardwareError, "impossible"),
    "a size of 2^70": (lying(f"bytes 0-9/{1 << 70}"), HardwareError, "impossible"),
    "less than promised": (short, HardwareError, "and ended"),
    "more than asked": (too_much, HardwareError, "more than"),
    "compressed": (
        said(206, Content_Encoding="gzip"), HardwareError, "compressed"),
    "a redirect to itself": (
        said(302, Location="/m.gguf"), HardwareError, "redirects more than 10 times"),
    "a redirect to nowhere": (said(301), HardwareError, "redirects to nowhere"),
    "a redirect to a file": (said(302, Location="file:///etc/passwd"), DataError, "no http"),
    "no HTTP": (garbage, HardwareError, "no proper answer"),
    "hung up": (gone, HardwareError, "127.0.0.1"),
    "silence": (stall, HardwareError, "in time"),
    "a trickle": (trickle, HardwareError, "in time"),
    "a trickle of headers": (trickle_headers, HardwareError, "in time"),
}  # fmt: skip


@pytest.mark.parametrize(("answer", "kind", "says"), CASES.values(), ids=CASES)
def test_what_a_server_does_wrong_is_one_line(
    answer: Callable[[Handler], None], kind: type[NemofitError], says: str, site: Site
) -> None:
    site.special["/m.gguf"] = answer
    with Connections(limits=SHORT) as connections, pytest.raises(kind, match=says) as caught:
        file = RemoteFile(connections, f"{site.url}/m.gguf")
        header_of(file, file.name)
    assert "\n" not in caught.value.message
    assert caught.value.hint
    assert site.sent < 8 << 20  # what fits into the buffers of a closed connection


def test_everything_together_has_a_limit_too(site: Site) -> None:
    """A server that is just quick enough for each answer, with a header that goes on and on."""
    data = vocabulary(9000, 50)

    def answer(handler: Handler) -> None:
        site.stop.wait(0.2)
        handler.part(data)

    site.special["/m.gguf"] = answer
    limits = Limits(total_s=0.3)
    with Connections(limits=limits) as connections, pytest.raises(HardwareError, match="in time"):
        header_of(RemoteFile(connections, f"{site.url}/m.gguf"), "m.gguf")
    assert 1 <= len(site.log) <= 2


def test_a_file_that_changes_between_two_reads(site: Site) -> None:
    for later in ({"size": 1}, {"tag": '"2"'}):
        data = vocabulary(9000, 50)
        asked = iter(range(99))

        def answer(handler: Handler, later: dict[str, object] = later) -> None:
            is_first = next(asked) == 0  # noqa: B023
            grown = data + b"x" * (0 if is_first else int(later.get("size", 0)))  # noqa: B023
            handler.part(grown, ETag='"1"' if is_first else str(later.get("tag", '"1"')))

        site.special["/m.gguf"] = answer
        with Connections() as connections, pytest.raises(HardwareError, match="changed while"):
            header_of(RemoteFile(connections, f"{site.url}/m.gguf"), "m.gguf")


def test_a_header_that_never_ends_costs_no_more_than_it_claims(site: Site) -> None:
    """A list of 2^36 texts in a file of a terabyte is refused after the first window."""
    head = build.start(0, 1) + build.text("tokenizer.ggml.tokens")
    head += struct.pack("<IIQ", build.ARRAY, STRING, 1 << 36)

    def answer(handler: Handler) -> None:
        first, last = handler.asked
        place = {"Content-Range": f"bytes {first}-{last}/{1 << 40}"}
        handler.say(206, place, (head + b"\0" * (last + 1))[first : last + 1])

    site.special["/m.gguf"] = answer
    with Connections() as connections, pytest.raises(DataError, match="texts"):
        header_of(RemoteFile(connections, f"{site.url}/m.gguf"), "m.gguf")
    assert len(site.log) == 1


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("http://", "no http"),
        ("http://[::1", "no http"),
        ("http://host:99999/x.gguf", "no http"),
        ("http://host:port/x.gguf", "no http"),
        ("http://a..b/x.gguf", "no http"),
        ("https://\x00/x.gguf", "no http"),
    ],
)
def test_what_is_no_address_is_refused(url: str, says: str, places: Places) -> None:
    with pytest.raises((DataError, HardwareError), match=says) as caught:
        load(url, places)
    assert "\n" not in caught.value.message


def test_nobody_listens(places: Places) -> None:
    with serve() as site:
        url = site.url
    with pytest.raises(HardwareError, match=r"cannot reach 127\.0\.0\.1:\d+: Connection refused"):
        load(f"{url}/m.gguf", places)


def test_a_page_of_the_hub_is_told_how_to_name_its_file() -> None:
    from nemofit.formats.remote import _page_hint, check

    page = "https://huggingface.co/owner/repo-GGUF"
    assert _page_hint(check(page)) == "name the file itself: hf:owner/repo-GGUF"
    assert _page_hint(check(f"{page}/blob/main/a/b.gguf")).endswith("hf:owner/repo-GGUF:a/b.gguf")


def test_headers_of_a_projector_are_read_by_address(site: Site, places: Places) -> None:
    pairs: list[build.Pair] = [("general.architecture", STRING, "clip"), ("clip.x", U32, 3)]
    site.files["/mmproj.gguf"] = build.gguf(pairs, [("v.weight", (32,), 0, 0)], 128)
    (header,) = headers_at(f"{site.url}/mmproj.gguf", places)
    assert header.values["clip.x"] == 3
