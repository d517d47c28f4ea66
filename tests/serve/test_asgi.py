"""The ASGI pieces around every response."""

from collections.abc import Callable
from typing import Any

import pytest
from pydantic import TypeAdapter

from service.serve.asgi import route_template
from tests.support.api_document import api_document
from tests.support.http_requests import request
from tests.support.server_pair import Pair


@pytest.mark.parametrize("template", sorted(api_document()["paths"]))
@pytest.mark.parametrize(("name", "version"), [("iris", "1"), ("v1", "1"), ("models", "12"), ("versions", "2")])
def test_a_route_has_no_name_and_no_version(template: str, name: str, version: str) -> None:
    """The route of a request is the template of its path, without the part that names a version."""
    values = {"name": name, "version": version}
    parameters = {key: value for key, value in values.items() if f"{{{key}}}" in template}
    scope = {"path": template.format(**values), "path_params": parameters}
    assert route_template(scope) == template.replace("/versions/{version}", "")


PATHS = [
    "/", "/healthz", "/readyz", "/ping", "/v1/models", "/v1/models/double", "/v1/models/double/versions/1",
    "/v1/models/double/weights", "/v2", "/v2/health/live", "/v2/health/ready", "/v2/models/double",
    "/v2/models/double/ready", "/v2/models/double/config", "/docs", "/openapi.json",
    "/unknown", "/v1/models/unknown", "/v1/models/iris:predict", "/v1/models/double/weights?seq=no",
]  # fmt: skip


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("fast", [True, False], ids=["fast", "plain"])
def test_head_has_the_headers_of_get_and_no_body(pair: Pair, path: str, *, fast: bool) -> None:
    """Status and headers are the same, Content-Length included, and the connection goes on."""
    get, head, again = pair.ask(*(request(method, path) for method in ("GET", "HEAD", "GET")), fast=fast)
    assert head.body == b""
    assert (head.status, head.headers) == (get.status, get.headers)
    assert head.header("content-length") == str(len(get.body))
    assert again == get


def test_refusals_of_methods_name_head(pair: Pair) -> None:
    """Allow lists HEAD beside GET, and not beside POST."""
    refused = pair.ask(request("DELETE", "/healthz"), request("GET", "/v1/models/iris:predict"))
    assert [answer.header("allow") for answer in refused] == ["GET, HEAD", "POST"]


def test_a_refusal_of_the_protocol_to_head_has_no_body(pair: Pair) -> None:
    """Content-Length names the body that GET would get."""
    for data in (request("HEAD", "/healthz", headers=[("X", "x" * 40_000)]), b"HEAD /healthz HTTP/1.1\r\n\r\n"):
        (head,), (get,) = pair.ask(data), pair.ask(data.replace(b"HEAD", b"GET", 1))
        assert (head.status, head.header("content-length")) == (get.status, str(len(get.body)))


def test_a_new_application_analyzes_no_route(paired: Callable[..., Pair], monkeypatch: pytest.MonkeyPatch) -> None:
    """Its first requests use the adapters of parameters and bodies that were made on import, before any fork."""
    made: list[Any] = []
    pair, make = paired(), TypeAdapter.__init__
    monkeypatch.setattr(TypeAdapter, "__init__", lambda *given, **named: (made.append(given), make(*given, **named))[1])
    answers = pair.ask(*(request("GET", path) for path in ("/v1/models", "/metrics", "/unknown")), fast=False)
    assert [answer.status for answer in answers] == [200, 200, 404]
    assert made == []
