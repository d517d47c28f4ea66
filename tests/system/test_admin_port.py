"""A service with a second port for feedback and administration."""

import json
import socket
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from service.access.scopes import Scope
from service.serve.authorization.route_scopes import ROUTE_SCOPES
from tests.support.http_requests import instances, request
from tests.support.paths import SHIPPED
from tests.support.running_service import serving
from tests.support.waiting import SECONDS

ROW = [5.1, 3.5, 1.4, 0.2]
FEEDBACK = "/v1/models/iris:feedback"


@pytest.fixture(scope="module")
def ports(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[httpx.Client, httpx.Client]]:
    """Run a service with two ports; return a client of each, the public one first."""
    scratch = tmp_path_factory.mktemp("ports")
    with serving(SHIPPED, scratch, SOFTSTEP_ADMIN_PORT=0) as service:
        lines = [json.loads(line) for line in service.log.read_text().splitlines()]
        (url,) = [line["url"] for line in lines if line["event"] == "admin_port"]
        with httpx.Client(base_url=service.url) as public, httpx.Client(base_url=url) as admin:
            yield public, admin


def hidden_calls(admin: httpx.Client) -> list[tuple[str, str]]:
    """Return the method and the path of each call of feedback and administration, for iris."""
    names = {name for name, scope in ROUTE_SCOPES.items() if scope in {Scope.FEEDBACK, Scope.ADMIN}}
    found = [
        (method.upper(), path.replace("{name}", "iris").replace("{version}", "1"))
        for path, calls in admin.get("/openapi.json").json()["paths"].items()
        for method, call in calls.items()
        if any(call["operationId"].startswith(name) for name in names)
    ]
    assert {path for _, path in found} >= {FEEDBACK, "/v1/models/iris/versions/1/weights"}
    return found


def test_the_first_port_has_no_call_of_feedback_or_administration(ports: tuple[httpx.Client, httpx.Client]) -> None:
    """Each is unknown there whatever the method, and known on the second port."""
    public, admin = ports
    for method, path in hidden_calls(admin):
        for asked in (method, "GET", "POST", "PUT"):
            answer = public.request(asked, path)
            assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
        assert admin.request("PUT", path).status_code == 405


def test_both_ports_predict_and_have_probes(ports: tuple[httpx.Client, httpx.Client]) -> None:
    """The second port has every call, so that a client within needs one address."""
    for client in ports:
        assert client.post("/v1/models/iris:predict", json={"instances": [ROW]}).status_code == 200
        for path in ("/healthz", "/readyz", "/metrics", "/v1/models/iris", "/v2/models/iris"):
            assert client.get(path).status_code == 200


def test_each_port_says_what_it_permits(ports: tuple[httpx.Client, httpx.Client]) -> None:
    """Without keys the first port permits predictions alone, and the second one everything."""
    scopes = [client.get("/v1/key").json()["scopes"] for client in ports]
    assert scopes == [["predict"], ["predict", "feedback", "admin"]]


def status_of(url: httpx.URL, data: bytes) -> int:
    """Send a request in one piece; return the status of its response."""
    with socket.create_connection((url.host, int(url.port or 80)), SECONDS) as end:
        end.sendall(data)
        return int(end.recv(1 << 16).split()[1])


def test_a_head_that_the_second_port_remembers_is_unknown_on_the_first(
    ports: tuple[httpx.Client, httpx.Client],
) -> None:
    """The same bytes are feedback on one port and unknown on the other."""
    # A head is remembered if it comes with its body and has no id of its own.
    data = request("POST", FEEDBACK, instances([ROW], labels=[0])).replace(b"X-Request-Id: test\r\n", b"")
    statuses = [[status_of(client.base_url, data) for client in ports] for _ in range(3)]
    assert statuses == [[404, 202]] * 3


def test_an_admin_port_in_use_fails_the_start(tmp_path: Path, ports: tuple[httpx.Client, httpx.Client]) -> None:
    """The exit code is 1, and the log names the port."""
    port = ports[1].base_url.port
    with (
        pytest.raises(AssertionError, match=rf"(?s)exit code 1.*port {port}"),
        serving(SHIPPED, tmp_path, SOFTSTEP_ADMIN_PORT=port),
    ):
        pass
