"""The TLS context of a service: its certificate and key, the client CA, and the versions and ciphers that it accepts.

A new context is made whenever a file changes, so that nothing of the old files remains: neither a CA that was removed
nor sessions that clients could resume. Connections keep the context that they began with.
"""

import ssl
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NoReturn

from service.errors import TlsFileError
from service.serve.watched_files import WatchedFiles
from service.settings import Settings

# Of TLS 1.2: forward secrecy and authenticated encryption only. TLS 1.3 has no other ciphers.
CIPHERS: Final = "ECDHE+AESGCM:ECDHE+CHACHA20"
# The protocols that a client can choose from: at the ports of HTTP, and at that of gRPC.
PROTOCOLS: Final = ("http/1.1",)
GRPC_PROTOCOLS: Final = ("h2",)


def watch_tls(settings: Settings, protocols: Sequence[str] = PROTOCOLS) -> WatchedFiles[ssl.SSLContext] | None:
    """Return the TLS context of a port, which follows its files, or None if the service has none.

    Args:
        settings: The paths of the files.
        protocols: The protocols that a client can choose from.

    Raises:
        TlsFileError: A file cannot be read or used.
    """
    if settings.tls_certificate is None:
        return None
    paths = [path for path in (settings.tls_certificate, settings.tls_key, settings.tls_client_ca) if path is not None]
    return WatchedFiles(paths, lambda: make_tls_context(settings, protocols), "the files of TLS")


def make_tls_context(settings: Settings, protocols: Sequence[str] = PROTOCOLS) -> ssl.SSLContext:
    """Return a new context from the files as they are now; the arguments are those of `watch_tls`.

    Raises:
        TlsFileError: A file cannot be read or used.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(CIPHERS)
    context.set_alpn_protocols(protocols)
    context.options |= ssl.OP_NO_RENEGOTIATION
    certificate, key = settings.tls_certificate, settings.tls_key
    assert certificate is not None  # noqa: S101  # the caller has checked it
    for path in (certificate, certificate if key is None else key):
        _check_readable(path)
    try:
        context.load_cert_chain(certificate, key, password=_refuse_encrypted)
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise TlsFileError("the TLS certificate and the key do not belong together") from None
        raise TlsFileError("the TLS certificate or its key is not valid PEM") from None
    if settings.tls_client_ca is not None:
        _check_readable(settings.tls_client_ca)
        try:
            context.load_verify_locations(settings.tls_client_ca)
        except ssl.SSLError:
            raise TlsFileError("the file of SOFTSTEP_TLS_CLIENT_CA is not valid PEM") from None
        is_required = settings.tls_client_certificate == "required"
        context.verify_mode = ssl.CERT_REQUIRED if is_required else ssl.CERT_OPTIONAL
    return context


def _check_readable(path: Path) -> None:
    """Raise TlsFileError with the reason if a file cannot be read; OpenSSL's own message names no file."""
    try:
        path.open("rb").close()
    except OSError as error:
        raise TlsFileError(f"{path} cannot be read: {error.strerror}") from None


def _refuse_encrypted() -> NoReturn:
    raise TlsFileError("the key of the TLS certificate is encrypted; store it without a passphrase")
