"""`softstep health`: ask the service on this machine whether it is ready.

A container's HEALTHCHECK, which may have no shell and no curl, runs it every half minute. So it imports no kernel and
no server.
"""

import argparse
from http.client import HTTPConnection, HTTPException
from typing import Final

from service.settings import Settings

# The address to ask a service that listens on every address.
LOOPBACKS: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104
READY: Final = 200


def run(settings: Settings, _arguments: argparse.Namespace) -> int:
    """Return 0 if the service is ready, else 1."""
    connection = HTTPConnection(LOOPBACKS.get(settings.host, settings.host), settings.port, timeout=5)
    try:
        connection.request("GET", "/readyz")
        return 0 if connection.getresponse().status == READY else 1
    except (OSError, HTTPException):
        return 1
    finally:
        connection.close()
