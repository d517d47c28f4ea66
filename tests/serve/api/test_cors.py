"""Pages of allowed origins can read every answer: success and refusal, fast path and FastAPI, whole or cut off."""

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from service.access.scopes import Scope
from service.serve.origins import EXPOSED
from tests.support.api_keys import add_key, bearer
from tests.support.http_connection import ClientConnection, Response
from tests.support.http_requests import chunked, infer, instances, request
from tests.support.server_pair import Pair

ROW = [5.1, 3.5, 1.4, 0.2]
A, B, C = "https://a.example", "https://b.example", "https://c.example"
V1, V2 = "/v1/models/iris:predict", "/v2/models/iris/infer"
TEACH = "/v1/models/ovr:feedback"  # no test asks for its metadata, which tells how long events wait
JSON = ("Content-Type", "application/json")
Paired = Callable[..., Pair]


def cors_headers(answer: Response) -> dict[str, str]:
    """The CORS headers of an answer, each of which may occur once."""
    found = [one for one in answer.headers if one[0] == "vary" or one[0].startswith("access-control-")]
    assert len(dict(found)) == len(found), found
    return dict(found)


ALLOWED = {"vary": "Origin", "access-control-allow-origin": A, "access-control-expose-headers": EXPOSED.decode()}


def post(target: str, body: bytes, *headers: tuple[str, str]) -> bytes:
    """A request of a page of the allowed origin."""
    return request("POST", target, body, [("Origin", A), JSON, *headers])


def unnamed(data: bytes) -> bytes:
    """The same without an id, so that its head is remembered."""
    return data.replace(b"X-Request-Id: test\r\n", b"")


GOOD = instances([ROW])
REQUESTS = {
    "single row": post(V1, GOOD),
    "rows": post(V1, instances([ROW] * 3)),
    "chunked": chunked("POST", V1, [GOOD], [("Origin", A), JSON]),
    "heavy": post("/v1/models/heavy:predict", instances([[0] * 768])),
    "wrong row": post(V1, instances([[1]])),
    "wrong type": request("POST", V1, GOOD, [("Origin", A), ("Content-Type", "text/csv")]),
    "wrong encoding": post(V1, GOOD, ("Content-Encoding", "br")),
    "not gzip": post(V1, GOOD, ("Content-Encoding", "gzip")),
    "cold": post(f"{V1}?cold", GOOD),
    "infer": post(V2, infer([ROW])),
    "explain": post("/v1/models/iris:explain", GOOD),
    "feedback": post(TEACH, instances([ROW], labels=["a"], id="cors")),
    "feedback refused": post(TEACH, instances([ROW], labels=["none"])),
    "convert": post("/v1/convert", b'{"logits": [[1, 2]]}'),
    "rollback": post("/v1/models/iris:rollback", b'{"seq": 99999}'),
    "invocations": post("/invocations", GOOD),
    "metadata": request("GET", "/v1/models/iris", headers=[("Origin", A)]),
    "weights": request("GET", "/v1/models/iris/weights", headers=[("Origin", A)]),
    "head": request("HEAD", "/healthz", headers=[("Origin", A)]),
    "probe": request("GET", "/readyz", headers=[("Origin", A)]),
    "unknown": request("GET", "/unknown", headers=[("Origin", A)]),
    "method": request("PUT", V1, GOOD, [("Origin", A)]),
    "close": post(V1, GOOD, ("Connection", "close")),
    "old": request("POST", V1, GOOD, [("Origin", A)], version="1.0"),
    "old, kept": request("POST", V1, GOOD, [("Origin", A), ("Connection", "keep-alive")], version="1.0"),
}
# Refused by the protocol itself, some before the head is complete.
REFUSED = {
    "no host": b"GET /healthz HTTP/1.1\r\nOrigin: https://a.example\r\n\r\n",
    "version": b"GET /healthz HTTP/2.0\r\nHost: a\r\nOrigin: https://a.example\r\n\r\n",
    "malformed": b"GET /healthz HTTP/1.1\r\nHost: a\r\nOrigin: https://a.example\r\nX: 1\r\nY : 1\r\n\r\n",
    "chunk": chunked("POST", V1, [GOOD], [("Origin", A)])[:-5] + b"z\r\n",
    "cold chunk": chunked("POST", f"{V1}?cold", [GOOD], [("Origin", A)])[:-5] + b"z\r\n",
    "large head": request("GET", "/", headers=[("Origin", A), ("X", "x" * 40_000)]),
    "endless head": b"GET / HTTP/1.1\r\nOrigin: https://a.example\r\nX: " + b"x" * 40_000,
    "target": request("GET", "http://softstep", headers=[("Origin", A)]),
    "connect": request("CONNECT", "a:1", headers=[("Origin", A)]),
}


@pytest.fixture(scope="module")
def shared(models: Path) -> Iterator[Pair]:
    """A service that allows two origins."""
    with Pair(models, cors_origins=(A, C)) as pair:
        yield pair


@pytest.mark.parametrize("name", REQUESTS)
@pytest.mark.parametrize("fast", [True, False], ids=["fast", "plain"])
def test_every_answer_has_the_headers_of_its_origin(shared: Pair, name: str, *, fast: bool) -> None:
    """Also the second answer to the same head; another origin gets Vary alone, and so does a program."""
    data = REQUESTS[name]
    last = b"close" in data or b"HTTP/1.0" in data
    for origin, expected in (
        (A, ALLOWED),
        (C, {**ALLOWED, "access-control-allow-origin": C}),
        (B, {"vary": "Origin"}),
        ("null", {"vary": "Origin"}),
        (None, {"vary": "Origin"}),
    ):
        line = b"" if origin is None else f"Origin: {origin}\r\n".encode()
        other = data.replace(f"Origin: {A}\r\n".encode(), line)
        for some in (other, unnamed(other)):
            for answer in shared.ask(*([some] if last else [some, some, some]), fast=fast):
                assert cors_headers(answer) == expected, origin


@pytest.mark.parametrize("name", ["single row", "feedback", "unknown", "cold"])
def test_one_service_may_be_open_to_all(paired: Paired, name: str) -> None:
    """The answer is the same for every page, and for a program."""
    pair = paired(cors_origins=("*",))
    for data in (REQUESTS[name], REQUESTS[name].replace(f"Origin: {A}\r\n".encode(), b"")):
        for answer in pair.ask(data, unnamed(data), unnamed(data)):
            assert cors_headers(answer) == {**ALLOWED, "access-control-allow-origin": "*"}


def test_without_cors_no_answer_has_its_headers(pair: Pair) -> None:
    """A service that no page may call does not mention CORS."""
    for data in REQUESTS.values():
        assert cors_headers(pair.ask(data)[0]) == {}


@pytest.mark.parametrize("name", REFUSED)
def test_refusals_of_the_protocol_have_the_headers_too(shared: Pair, name: str) -> None:
    """A page can read why its request was refused."""
    (answer,) = shared.ask(REFUSED[name])
    assert 400 <= answer.status < 500
    assert cors_headers(answer) == ALLOWED


def test_a_refusal_has_nothing_of_the_request_before(shared: Pair) -> None:
    """Bytes that are no request have no origin and no id, though the connection had some."""

    async def talk(client: ClientConnection) -> Response:
        assert (await client.ask(post(V1, GOOD))).header("x-request-id") == "test"
        return await client.ask(b"\x00")

    answer = shared.talk(talk)
    assert answer.status == 400
    assert cors_headers(answer) == {"vary": "Origin"}
    assert answer.header("x-request-id") != "test"


@pytest.mark.parametrize("target", [V1, f"{V1}?cold"], ids=["fast", "FastAPI"])
def test_limits_have_the_headers_too(paired: Paired, target: str) -> None:
    """A body that is too large or too slow, and a service that is too busy."""
    pair = paired(cors_origins=(A,), body_bytes_max=1000, body_seconds=0.2)
    busy = paired(cors_origins=(A,), body_bytes_in_flight_max=1000)
    large = post(target, b" " * 1001)

    async def stall(client: ClientConnection) -> Response:
        await client.send(post(target, GOOD)[:-5])
        await asyncio.sleep(0.1)
        return await client.read()

    answers = [*pair.ask(large), *busy.ask(large), pair.talk(stall)]
    assert [answer.status for answer in answers] == [413, 503, 408]
    for answer in answers:
        assert cors_headers(answer) == ALLOWED


def test_a_slow_head_has_the_headers_too(paired: Paired) -> None:
    """The Origin counts once the line after it has begun."""
    pair = paired(cors_origins=(A,), header_seconds=0.2)

    async def stall(client: ClientConnection) -> Response:
        await client.send(post(V1, GOOD).partition(b"/json")[0])
        return await client.read()

    answer = pair.talk(stall)
    assert (answer.status, cors_headers(answer)) == (408, ALLOWED)


@pytest.mark.parametrize("origins", [(A,), ("*",)])
def test_a_preflight_is_answered_once(paired: Paired, origins: tuple[str, ...]) -> None:
    """It may use any method and header; each header of the answer occurs once."""
    ask = [("Origin", A), ("Access-Control-Request-Method", "POST"), ("Access-Control-Request-Headers", "x-request-id")]
    (answer,) = paired(cors_origins=origins).ask(request("OPTIONS", V1, None, ask))
    headers = cors_headers(answer)
    assert answer.status == 200
    assert headers["access-control-allow-origin"] == (A if origins == (A,) else "*")
    assert "POST" in headers["access-control-allow-methods"]
    assert headers["access-control-allow-headers"] == "x-request-id"
    assert headers["vary"] == "Origin"


@pytest.mark.parametrize("fast", [True, False], ids=["fast", "plain"])
def test_pages_can_send_keys(models: Path, tmp_path: Path, *, fast: bool) -> None:
    """A preflight needs no key and permits both headers; a page can read why its key is refused."""
    key = add_key(tmp_path / "keys.json", Scope.PREDICT)
    wanted = "authorization,content-type,x-api-key"
    ask = [("Origin", A), ("Access-Control-Request-Method", "POST"), ("Access-Control-Request-Headers", wanted)]
    with Pair(models, cors_origins=(A,), keys_file=tmp_path / "keys.json") as pair:
        for target in (V1, TEACH, "/v1/models/iris:rollback"):
            (preflight,) = pair.ask(request("OPTIONS", target, None, ask), fast=fast)
            assert preflight.status == 200
            assert cors_headers(preflight)["access-control-allow-headers"] == wanted
            (refused,) = pair.ask(post(target, GOOD), fast=fast)
            assert (refused.status, cors_headers(refused)) == (401, ALLOWED)
            assert refused.header("www-authenticate") == 'Bearer realm="softstep"'
            (answer,) = pair.ask(post(target, GOOD, bearer(key)), fast=fast)
            assert (answer.status, cors_headers(answer)) == (200 if target == V1 else 403, ALLOWED)
        assert "WWW-Authenticate" in ALLOWED["access-control-expose-headers"]
