"""The key set at a URL is read within a time and a size, from the server that the URL names."""

import socket
import ssl
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from service.access import jwks_url as module
from service.access.jwks_url import fetch_jwks
from service.access.signing_keys import JWKS_BYTES_MAX, parse_jwks
from service.errors import SigningKeysError
from tests.support.jwt_issuer import KeyServer, issuer_key, key_server, key_set

SHORT_SECONDS = 0.3


@pytest.fixture
def server() -> Iterator[KeyServer]:
    """A server of one key."""
    with key_server(key_set(issuer_key())) as running:
        yield running


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the time of a reading end soon."""
    monkeypatch.setattr(module, "FETCH_SECONDS", SHORT_SECONDS)


def test_the_answer_is_returned(server: KeyServer) -> None:
    """An answer with status 200 is returned as it is."""
    assert fetch_jwks(server.url) == server.content


@pytest.mark.parametrize("status", [201, 301, 302, 307, 404, 500])
def test_other_statuses_are_refused(server: KeyServer, status: int) -> None:
    """Any other status is an error, and no redirect is followed."""
    server.status = status
    with pytest.raises(SigningKeysError, match=f"answers {status}"):
        fetch_jwks(server.url)
    assert server.requests == 1


def test_a_large_answer_is_cut(server: KeyServer) -> None:
    """Of a large answer one byte more than the limit is read, and the parser refuses it."""
    server.content = b" " * (2 * JWKS_BYTES_MAX)
    content = fetch_jwks(server.url)
    assert len(content) == JWKS_BYTES_MAX + 1
    with pytest.raises(SigningKeysError, match="larger"):
        parse_jwks(content)


@pytest.mark.usefixtures("short")
@pytest.mark.parametrize(
    ("hangs", "drip"),
    [
        (True, b""),
        (False, b"H"),
        (False, b"HTTP/1.1 200 OK\r\nX: y\r\n"),
        (False, b"HTTP/1.1 200 OK\r\n\r\n" + b" " * 10),
        (False, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n \r\n"),
    ],
)
def test_a_slow_server_is_left(server: KeyServer, *, hangs: bool, drip: bytes) -> None:
    """A server that sends nothing, or one piece after another, is left in time."""
    server.hangs, server.drip = hangs, drip
    began = time.monotonic()
    with pytest.raises(SigningKeysError):
        fetch_jwks(server.url)
    assert time.monotonic() - began < SHORT_SECONDS + 4


@pytest.mark.usefixtures("short")
def test_a_body_without_end_is_no_answer(server: KeyServer) -> None:
    """A body without a length that does not end in time is refused, though a whole key set has arrived."""
    server.lingers = True
    with pytest.raises(SigningKeysError, match="within"):
        fetch_jwks(server.url)


def test_a_missing_server_is_named() -> None:
    """A port on which nothing listens, and bytes that are no HTTP, are errors with a reason."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(SigningKeysError, match="Connection refused"):
        fetch_jwks(f"http://127.0.0.1:{port}/")
    with key_server(b"") as server:
        server.drip = b"nonsense\r\n"
        with pytest.raises(SigningKeysError, match="BadStatusLine"):
            fetch_jwks(server.url)


def write_certificate(path: Path) -> None:
    """Write a certificate for 127.0.0.1, signed by itself, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "issuer")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, SHA256())
    )
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    path.write_bytes(private + certificate.public_bytes(Encoding.PEM))


def test_the_certificate_is_verified(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With https an unknown certificate is refused, and one that the system trusts is accepted."""
    path = tmp_path / "issuer.pem"
    write_certificate(path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)
    with key_server(key_set(issuer_key()), context) as server:
        with pytest.raises(SigningKeysError, match="cannot be asked"):
            fetch_jwks(server.url)
        monkeypatch.setenv("SSL_CERT_FILE", str(path))
        assert fetch_jwks(server.url) == server.content
