"""The access log: one line for each response, on the fast path and off it."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from service.log_event_table import EVENTS
from service.logs import AccessLog
from service.serve.handlers.load_shedding import LoadShedder
from service.serve.http.logged_protocol import LoggedProtocol
from tests.support.http_connection import ClientConnection, Response
from tests.support.http_requests import infer, instances, request
from tests.support.server_pair import Pair

V1 = "/v1/models/iris:predict"
VERSION = "/v1/models/iris/versions/1:predict"
BODY = instances([[5.1, 3.5, 1.4, 0.2]])
FEEDBACK = json.dumps({"instances": [[5.1, 3.5, 1.4, 0.2]], "labels": [0]}).encode()
HOT = request("POST", V1, BODY)
PREDICT, POST_FEEDBACK = "/v1/models/{name}:predict", "/v1/models/{name}:feedback"
# Each request with the method, the route and the status of its line; None is a model that no line names.
REQUESTS: dict[str, tuple[bytes, tuple[str, str | None, int, str | None]]] = {
    "a row": (HOT, ("POST", PREDICT, 200, "iris")),
    "a version": (request("POST", VERSION, BODY), ("POST", PREDICT, 200, "iris")),
    "rows": (request("POST", V1, instances([[1, 2, 3, 4]] * 9)), ("POST", PREDICT, 200, "iris")),
    "v2": (
        request("POST", "/v2/models/iris/infer", infer([[1, 2, 3, 4]])),
        ("POST", "/v2/models/{name}/infer", 200, "iris"),
    ),
    "feedback": (request("POST", "/v1/models/iris:feedback", FEEDBACK), ("POST", POST_FEEDBACK, 202, "iris")),
    "a query": (request("POST", f"{V1}?secret=1", BODY), ("POST", PREDICT, 200, "iris")),
    "an error": (request("POST", V1, b"{"), ("POST", PREDICT, 400, "iris")),
    "an unknown path": (request("GET", "/x?secret=1"), ("GET", None, 404, None)),
    "an unknown model": (request("POST", "/v1/models/secret:predict", BODY), ("POST", PREDICT, 404, None)),
    "metadata": (request("GET", "/v1/models/iris"), ("GET", "/v1/models/{name}", 200, None)),
    "metrics": (request("GET", "/metrics"), ("GET", "/metrics", 200, None)),
    "statistics": (request("GET", "/v2/models/iris/stats"), ("GET", "/v2/models/{name}/stats", 200, "iris")),
    "a pulse": (request("GET", "/v1/models/iris/pulse?since=1"), ("GET", "/v1/models/{name}/pulse", 200, "iris")),
    "drift of a version": (
        request("GET", "/v1/models/iris/versions/1/drift"),
        ("GET", "/v1/models/{name}/drift", 200, "iris"),
    ),
    "drift without a body": (
        request("HEAD", "/v1/models/iris/drift"),
        ("HEAD", "/v1/models/{name}/drift", 200, "iris"),
    ),
    "a wrong pulse": (
        request("GET", "/v1/models/iris/pulse?since=secret"),
        ("GET", "/v1/models/{name}/pulse", 422, "iris"),
    ),
    "a probe": (request("GET", "/readyz?secret=1"), ("GET", "/readyz", 200, None)),
    "a probe without a body": (request("HEAD", "/v2/health/live"), ("HEAD", "/v2/health/live", 200, None)),
    "HEAD": (request("HEAD", "/v1/models/iris"), ("HEAD", "/v1/models/{name}", 200, None)),
    "a large head": (request("GET", "/healthz", None, [("X", "x" * 40_000)]), ("GET", None, 431, None)),
    "no HTTP": (b"secret\r\n\r\n", ("", None, 400, None)),
}


def unnamed(data: bytes) -> bytes:
    """Return a request without an id, so that its head is one that the protocol remembers."""
    return data.replace(b"X-Request-Id: test\r\n", b"")


@pytest.fixture(scope="module")
def logged(models: Path) -> Iterator[Pair]:
    """Both servers with an access log."""
    with Pair(models, access_log=True) as running:
        yield running


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The fields of each line that is written."""
    written: list[dict[str, Any]] = []
    monkeypatch.setattr(AccessLog, "write", lambda _, fields: written.append(dict(fields)))
    return written


@pytest.mark.parametrize(("data", "expected"), REQUESTS.values(), ids=REQUESTS)
def test_each_response_has_a_line(
    logged: Pair,
    lines: list[dict[str, Any]],
    data: bytes,
    expected: tuple[str, str | None, int, str | None],
) -> None:
    """The line has the fields of the table, the response's id and the sizes of both bodies; nothing of the query."""
    data = unnamed(data)
    answers = [answer for _ in range(3) for answer in logged.ask(data)]
    assert len(lines) == 3
    for answer, line in zip(answers, lines, strict=True):
        assert set(line) == {"request_id", *EVENTS["access"].fields}
        assert line["request_id"] == answer.header("x-request-id")
        found = line["method"], line["route"], line["status"], line["model"]
        assert found[1:] == expected[1:]
        assert found[0] == expected[0] or expected[0] == ""
        assert line["status"] == answer.status
        assert line["bytes_out"] == len(answer.body)
        is_read = expected[3] is not None or not data.startswith(b"POST")
        assert line["bytes_in"] == (len(data.partition(b"\r\n\r\n")[2]) if is_read else 0)
        assert (line["version"], line["seq"]) == ((1, 0) if expected[3] else (None, None))
        assert 0 < line["duration_ms"] < 10_000
        assert "secret" not in repr(line)


def test_lines_keep_their_own_requests_in_a_pipeline(logged: Pair, lines: list[dict[str, Any]]) -> None:
    """A request that arrives before the response to feedback does not change the line of that feedback."""
    feedback = request("POST", "/v1/models/iris:feedback", FEEDBACK).replace(b"Id: test", b"Id: first")

    async def talk(client: ClientConnection) -> list[Response]:
        await client.send_pieces([feedback + HOT])
        return [await client.read() for _ in range(2)]

    assert [answer.status for answer in logged.talk(talk)] == [202, 200]
    assert [(line["request_id"], line["route"]) for line in lines] == [("first", POST_FEEDBACK), ("test", PREDICT)]
    assert [line["bytes_in"] for line in lines] == [len(FEEDBACK), len(BODY)]


def test_a_line_keeps_its_method_in_a_pipeline(logged: Pair, lines: list[dict[str, Any]]) -> None:
    """A GET that arrives before the response to feedback does not change the method of its line."""
    feedback = request("POST", "/v1/models/iris:feedback", FEEDBACK)

    async def talk(client: ClientConnection) -> None:
        await client.send_pieces([feedback + request("GET", "/v1/models/iris/drift")])
        assert [(await client.read()).status for _ in range(2)] == [202, 200]

    logged.talk(talk)
    assert [line["method"] for line in lines] == ["POST", "GET"]


def test_a_repeated_request_in_a_conversation_has_its_own_line(logged: Pair, lines: list[dict[str, Any]]) -> None:
    """The ids of remembered heads are those of the responses."""
    answers = logged.ask(*[unnamed(HOT), unnamed(request("POST", "/v1/models/iris:feedback", FEEDBACK))] * 4)
    assert [line["request_id"] for line in lines] == [answer.header("x-request-id") for answer in answers]
    assert len({line["request_id"] for line in lines}) == 8


def test_a_request_that_is_shed_has_its_own_line(
    logged: Pair, lines: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The line of a remembered head that an overloaded worker refuses has its route, model and sizes."""
    logged.ask(*[unnamed(HOT)] * 2)
    monkeypatch.setattr(LoadShedder, "observe_turn", lambda *_: None)
    monkeypatch.setattr(LoadShedder, "refuses", lambda *_: True)
    monkeypatch.setattr(logged.worker.load, "is_shedding", True)
    logged.worker.protocol.shared.in_flight_max = 0
    (answer,) = logged.ask(unnamed(HOT))
    assert (answer.status, lines[-1]["status"]) == (503, 503)
    assert lines[-1]["request_id"] == answer.header("x-request-id")
    assert {name: lines[-1][name] for name in ("route", "model", "bytes_in")} == {
        name: lines[0][name] for name in ("route", "model", "bytes_in")
    }


def test_a_line_names_the_client_behind_a_proxy(paired: Callable[..., Pair], lines: list[dict[str, Any]]) -> None:
    """A trusted proxy names it, in heads that are parsed, remembered, FastAPI's, refused and those of probes."""
    named = [("X-Forwarded-For", "203.0.113.7, 198.51.100.1")]
    requests = [
        *[unnamed(request("POST", "/v1/models/iris:predict", BODY, named))] * 3,
        request("GET", "/v1/models/iris", None, named),
        request("GET", "/readyz", None, named),
        request("POST", "/v1/models/none:predict", BODY, named),
    ]
    for proxies, client in ((("127.0.0.0/8",), "198.51.100.1"), ((), "127.0.0.1")):
        paired(access_log=True, proxies=proxies).ask(*requests)
        assert [line["client"] for line in lines] == [client] * len(requests)
        lines.clear()


def test_without_an_access_log_no_connection_has_its_code(pair: Pair) -> None:
    """A request pays nothing for a log that is off."""
    assert not issubclass(pair.worker.protocol, LoggedProtocol)


INFER = request("POST", "/v2/models/iris/infer", infer([[1.0, 2.0, 3.0, 4.0]]))
LEARN = request("POST", "/v1/models/iris:feedback", FEEDBACK)
FAULTS = {
    "a named request": ("respond", [HOT]),
    "a request that brings no id": ("respond", [unnamed(HOT)]),
    "a request of the application": ("respond", [HOT.replace(b":predict", b"%3Apredict")]),
    "a remembered head": ("handlers", [unnamed(INFER), unnamed(INFER)]),
    "remembered feedback": ("start_feedback", [unnamed(LEARN), unnamed(LEARN)]),
    "feedback of the application": ("start_feedback", [LEARN.replace(b":feedback", b"%3Afeedback")]),
}


@pytest.mark.parametrize(("name", "requests"), FAULTS.values(), ids=FAULTS)
def test_a_fault_is_logged_with_the_id_of_its_response(
    pair: Pair,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    name: str,
    requests: list[bytes],
) -> None:
    """An operator finds the traceback of a response with status 500 by its X-Request-Id."""

    def broken(*_: object) -> None:
        raise RuntimeError("on purpose")

    pair.worker.shared.heads.forget()  # other tests sent the same heads
    pair.ask(*requests[1:])
    caplog.clear()
    monkeypatch.setattr(pair.worker.dispatcher, name, broken if name != "handlers" else (broken,) * 9)
    (answer,) = pair.ask(requests[0])
    assert answer.status == 500
    (record,) = caplog.records
    assert (record.__dict__["event"], record.__dict__["fields"]) == (
        "request_failed", {"request_id": answer.header("x-request-id")}
    )  # fmt: skip
