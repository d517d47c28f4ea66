"""`softstep health`: ask the service on this machine whether it is ready.

A container's HEALTHCHECK, which may have no shell and no curl, runs it every half minute. So it imports no kernel and
no server.
"""

import argparse
import ssl
from contextlib import suppress
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from pathlib import Path
from typing import Final

import orjson

from service.console import print_error
from service.settings import Settings

# The address to ask a service that listens on every address.
LOOPBACKS: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104
READY: Final = 200
SECONDS: Final = 5.0
# The whole answer of a service has a few hundred.
REASON_BYTES_MAX: Final = 1 << 14


def run(settings: Settings, _arguments: argparse.Namespace) -> int:
    """Return 0 if the service is ready, else 1 with the reason on standard error."""
    host, port = LOOPBACKS.get(settings.host, settings.host), settings.port
    connection = HTTPConnection(host, port, timeout=SECONDS)
    if settings.tls_certificate is not None:
        connection = HTTPSConnection(
            host, port, timeout=SECONDS, context=_tls_context(settings, settings.tls_certificate)
        )
    try:
        connection.request("GET", "/readyz")
        response = connection.getresponse()
        if response.status == READY:
            return 0
        print_error(_reason(response))
    except (OSError, HTTPException):
        print_error("no service answers at this host and port")
    finally:
        connection.close()
    return 1


def _reason(response: HTTPResponse) -> str:
    """Return the sentence with which a service says why it is not ready."""
    with suppress(ValueError, TypeError, KeyError):
        return str(orjson.loads(response.read(REASON_BYTES_MAX))["error"])
    return f"the service answers with status {response.status}"


def _tls_context(settings: Settings, certificate: Path) -> ssl.SSLContext:
    """Return the context of a client on the service's own machine.

    It asks for no particular certificate: that of a service rarely names a loopback address, and nothing secret is
    sent. Where clients need a certificate it shows the service's own.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if settings.tls_client_ca is not None:
        context.load_cert_chain(certificate, settings.tls_key)
    return context
