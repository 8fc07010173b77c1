"""The same over TLS, with a certificate that the test makes."""

from __future__ import annotations

import contextlib
import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from nemofit.errors import HardwareError
from nemofit.formats.connection import Connections, Limits
from nemofit.formats.gguf.header import header_of
from nemofit.formats.load import load
from nemofit.formats.places import Places
from nemofit.formats.remote import RemoteFile

from .serving import Handler, Site, serve, stall, trickle
from .test_remote import WHOLE, vocabulary

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl")


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("tls")
    key, file = folder / "key.pem", folder / "certificate.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "3"]
    command += ["-keyout", str(key), "-out", str(file), "-subj", "/CN=localhost"]
    command += ["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    subprocess.run(command, check=True, capture_output=True)
    return file, key


@pytest.fixture
def site(certificate: tuple[Path, Path]) -> Iterator[Site]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    with serve(context) as running:
        yield running


def test_a_certificate_that_nobody_signed_is_refused(site: Site, tmp_path: Path) -> None:
    with pytest.raises(HardwareError, match="certificate") as caught:
        load(f"{site.url}/m.gguf", Places(home=tmp_path))
    assert "certificates and clock" in (caught.value.hint or "")


def test_a_known_certificate_is_enough(
    site: Site, certificate: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All windows over one connection; ``SSL_CERT_FILE`` names what is trusted."""
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate[0]))
    site.files["/m.gguf"] = vocabulary(9000, 50)
    with Connections() as connections:
        header = header_of(RemoteFile(connections, f"{site.url}/m.gguf"), "m.gguf")
    assert header.lengths["tokenizer.ggml.tokens"] == 9000
    site.files["/small.gguf"] = WHOLE
    assert load(f"{site.url}/small.gguf", Places(home=tmp_path)).id == "small"


@pytest.mark.parametrize("answer", [stall, trickle])
def test_silence_and_trickles_end_there_too(
    answer: object,
    site: Site,
    certificate: tuple[Path, Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate[0]))
    site.special["/m.gguf"] = answer  # type: ignore[assignment]
    limits = Limits(silence_s=0.5, answer_s=0.4)
    with Connections(limits=limits) as connections, pytest.raises(HardwareError, match="in time"):
        header_of(RemoteFile(connections, f"{site.url}/m.gguf"), "m.gguf")


def test_a_tunnel_through_a_proxy(
    site: Site, certificate: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """CONNECT first, then TLS to the server itself; the proxy's password goes to the proxy."""
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate[0]))
    site.files["/m.gguf"] = WHOLE
    with serve() as proxy:

        def tunnel(handler: Handler) -> None:
            host, _, port = handler.path.rpartition(":")
            with socket.create_connection((host, int(port))) as there:
                handler.send_response(200)
                handler.end_headers()

                def forward() -> None:
                    with contextlib.suppress(OSError):
                        while data := there.recv(1 << 16):
                            handler.connection.sendall(data)

                thread = threading.Thread(target=forward, daemon=True)
                thread.start()
                with contextlib.suppress(OSError):
                    while data := handler.connection.recv(1 << 16):
                        there.sendall(data)
                with contextlib.suppress(OSError):
                    there.shutdown(socket.SHUT_RDWR)
                thread.join()
            handler.close_connection = True

        target = site.url.removeprefix("https://")
        proxy.special[target] = tunnel
        via = proxy.url.replace("http://", "http://me:pass@")
        behind = Places(home=tmp_path, environ={"https_proxy": via})
        assert load(f"{site.url}/m.gguf", behind).id == "m"
        assert proxy.log[0][0] == "CONNECT"
        assert proxy.log[0][2]["Proxy-Authorization"] == "Basic bWU6cGFzcw=="
