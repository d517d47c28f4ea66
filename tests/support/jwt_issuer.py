"""An issuer of JWTs for tests: keys, tokens that are signed by `cryptography` alone, and a server of key sets."""

import json
import threading
import time
from base64 import urlsafe_b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ssl import SSLContext
from typing import Any, Final, NamedTuple

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256, SHA384, SHA512

ISSUER: Final = "https://issuer.example/realms/test"
AUDIENCE: Final = "softstep"
LIFETIME: Final = 10_000.0  # seconds; some tokens are made when a test module is imported, long before they are used
HASHES: Final = {"256": SHA256(), "384": SHA384(), "512": SHA512()}
CURVES: Final = {"ES256": ec.SECP256R1(), "ES384": ec.SECP384R1(), "ES512": ec.SECP521R1()}
CURVE_NAMES: Final = {"ES256": "P-256", "ES384": "P-384", "ES512": "P-521"}


def base64url(data: bytes) -> str:
    """Return bytes in base64url without padding."""
    return urlsafe_b64encode(data).rstrip(b"=").decode()


def number(value: int, size: int | None = None) -> str:
    """Return a number as a JSON Web Key has it."""
    return base64url(value.to_bytes(size or (value.bit_length() + 7) // 8, "big"))


class IssuerKey(NamedTuple):
    """A private key, its name, and the algorithm that it signs with."""

    id: str
    algorithm: str
    private: Any

    def jwk(self, **members: Any) -> dict[str, Any]:
        """Return the public key as a JSON Web Key."""
        public = self.private.public_key()
        named = {"kid": self.id, "use": "sig", "alg": self.algorithm}
        if isinstance(public, rsa.RSAPublicKey):
            numbers = public.public_numbers()
            return {**named, "kty": "RSA", "n": number(numbers.n), "e": number(numbers.e), **members}
        if isinstance(public, ec.EllipticCurvePublicKey):
            point, size = public.public_numbers(), (public.key_size + 7) // 8
            coordinates = {"x": number(point.x, size), "y": number(point.y, size)}
            return {**named, "kty": "EC", "crv": CURVE_NAMES[self.algorithm], **coordinates, **members}
        return {**named, "kty": "OKP", "crv": "Ed25519", "x": base64url(public.public_bytes_raw()), **members}

    def signature(self, text: bytes) -> bytes:
        """Return the signature of a text."""
        if isinstance(self.private, ed25519.Ed25519PrivateKey):
            return self.private.sign(text)
        digest = HASHES[self.algorithm[2:]]
        if isinstance(self.private, ec.EllipticCurvePrivateKey):
            size = (self.private.key_size + 7) // 8
            pair = decode_dss_signature(self.private.sign(text, ec.ECDSA(digest)))
            return b"".join(part.to_bytes(size, "big") for part in pair)
        pss = padding.PSS(padding.MGF1(digest), digest.digest_size)
        chosen = pss if self.algorithm.startswith("PS") else padding.PKCS1v15()
        signed: bytes = self.private.sign(text, chosen, digest)
        return signed

    def sign(self, payload: bytes, **header: Any) -> str:
        """Return a JWT with a payload; members of the header that are None are left out."""
        members = {"alg": self.algorithm, "kid": self.id, "typ": "JWT", **header}
        head = json.dumps({name: value for name, value in members.items() if value is not None}).encode()
        text = f"{base64url(head)}.{base64url(payload)}"
        return f"{text}.{base64url(self.signature(text.encode()))}"

    def token(self, header: dict[str, Any] | None = None, **claims: Any) -> str:
        """Return a JWT that the tests' services accept, with other claims; those that are None are left out."""
        usual = {
            "iss": ISSUER,
            "aud": AUDIENCE,
            "sub": "alice",
            "exp": time.time() + LIFETIME,
            "scope": "softstep:predict",
        }
        members = {name: value for name, value in {**usual, **claims}.items() if value is not None}
        return self.sign(json.dumps(members).encode(), **(header or {}))


@cache
def issuer_key(name: str = "first", algorithm: str = "ES256") -> IssuerKey:
    """Return the key of a name, made once."""
    if algorithm in CURVES:
        return IssuerKey(name, algorithm, ec.generate_private_key(CURVES[algorithm]))
    if algorithm in {"Ed25519", "EdDSA"}:
        return IssuerKey(name, algorithm, ed25519.Ed25519PrivateKey.generate())
    return IssuerKey(name, algorithm, _rsa_key())


@cache
def _rsa_key() -> rsa.RSAPrivateKey:
    """Return the one RSA key, which takes long to make."""
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def key_set(*keys: IssuerKey) -> bytes:
    """Return a JSON Web Key Set."""
    return json.dumps({"keys": [key.jwk() for key in keys]}).encode()


class KeyServer(ThreadingHTTPServer):
    """A server of a key set, which can also misbehave.

    Attributes:
        content: The body of its answers.
        status: Their status.
        requests: The number of requests so far.
        drip: What it sends byte by byte instead of an answer, without end.
        hangs: Whether it sends nothing.
        lingers: Whether its answers have no length and no end.
    """

    daemon_threads = True

    def __init__(self, content: bytes, tls: SSLContext | None = None) -> None:
        super().__init__(("127.0.0.1", 0), _Answer)
        self.content, self.status, self.requests = content, 200, 0
        self.drip = b""
        self.hangs = self.lingers = False
        self.stopped = threading.Event()
        self._scheme = "http" if tls is None else "https"
        if tls is not None:
            self.socket = tls.wrap_socket(self.socket, server_side=True, do_handshake_on_connect=False)

    @property
    def url(self) -> str:
        """The URL of the key set."""
        return f"{self._scheme}://127.0.0.1:{self.server_port}/keys?version=1"

    def handle_error(self, *_: Any) -> None:
        """Say nothing of a client that has left."""


class _Answer(BaseHTTPRequestHandler):
    server: KeyServer

    def do_GET(self) -> None:
        """Send the key set, or what the test has set on the server."""
        server = self.server
        server.requests += 1
        if server.hangs:
            server.stopped.wait()
            return
        while server.drip and not server.stopped.wait(0.02):
            self.wfile.write(server.drip)
        self.send_response(server.status)
        if 300 <= server.status < 400:
            self.send_header("Location", server.url)
        if not server.lingers:
            self.send_header("Content-Length", str(len(server.content)))
        self.end_headers()
        self.wfile.write(server.content)
        if server.lingers:
            server.stopped.wait()

    def log_message(self, *_: Any) -> None:
        """Log nothing."""


@contextmanager
def key_server(content: bytes, tls: SSLContext | None = None) -> Iterator[KeyServer]:
    """Serve a key set until the end of the block."""
    with KeyServer(content, tls) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.stopped.set()
            server.shutdown()
            thread.join()
