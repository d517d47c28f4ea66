"""A hostile request: its bytes and the answers that it must get, and helpers that build the bytes."""

import json
from typing import Any, Final, NamedTuple

PREDICT: Final = "/v1/models/iris:predict"
FEEDBACK: Final = "/v1/models/iris:feedback"
INFER: Final = "/v2/models/iris/infer"
ROWS: Final = b'{"instances":[[5.1,3.5,1.4,0.2]]}'
HEALTH: Final = "/healthz"


class Case(NamedTuple):
    """A hostile request.

    Attributes:
        data: The bytes to send.
        statuses: The status of each answer, in their order; none if the connection is closed without one.
    """

    data: bytes
    statuses: tuple[int, ...]


Cases = dict[str, Case]


def head(first: str, *lines: str) -> bytes:
    """Return a head of a request line and headers, one character a byte."""
    return "\r\n".join([first, *lines, "", ""]).encode("latin-1")


def get(path: str, *lines: str, method: str = "GET") -> bytes:
    """Return a request without a body."""
    return head(f"{method} {path} HTTP/1.1", "Host: localhost", *lines)


def post(body: bytes | str, *lines: str, path: str = PREDICT) -> bytes:
    """Return a POST request with Content-Length."""
    data = body.encode("utf-8", "surrogatepass") if isinstance(body, str) else body
    return get(path, f"Content-Length: {len(data)}", *lines, method="POST") + data


def post_json(document: Any, path: str = PREDICT, *lines: str) -> bytes:
    """Return a POST request with a document as JSON."""
    return post(json.dumps(document), "Content-Type: application/json", *lines, path=path)


def rows(cell: str) -> str:
    """Return a body with one row of four cells, of which the first is a text."""
    return f'{{"instances":[[{cell},3.5,1.4,0.2]]}}'


def answered(status: int, requests: dict[str, bytes]) -> Cases:
    """Return cases that all get one answer with one status."""
    return {name: Case(data, (status,)) for name, data in requests.items()}
