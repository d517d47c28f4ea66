"""Corners of the protocol: connections, pipelines, slow and rude clients, limits, and what it counts."""

import asyncio
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from service.process.shared_memory import IN_FLIGHT
from service.serve.metrics.counters import EXECUTIONS, FAILURES, ROWS, sum_counters
from service.store.artifact.artifact import write_artifact
from tests.support.http_connection import ClientConnection, Response
from tests.support.http_requests import chunked, instances, request
from tests.support.model_artifacts import make_artifact
from tests.support.server_pair import Pair
from tests.support.waiting import wait_until

IRIS = [[5.1, 3.5, 1.4, 0.2]]
V1 = "/v1/models/iris:predict"
HEAVY = "/v1/models/heavy:predict"
BODY = instances(IRIS)
HOT = request("POST", V1, BODY)
# The same behind the application's routes: a target with a query is not one that the fast path knows.
COLD = request("POST", f"{V1}?cold", BODY)
# Two rows of the heavy model are computed in a thread where thread_after_us is 1.
SLOW = request("POST", HEAVY, instances([[0] * 768] * 2))
PROBE = request("GET", "/healthz")
BOTH = pytest.mark.parametrize("target", [V1, f"{V1}?cold"], ids=["hot", "cold"])
Paired = Callable[..., Pair]


def unnamed(data: bytes) -> bytes:
    """A request without an id, so that its head is one that the protocol remembers."""
    return data.replace(b"X-Request-Id: test\r\n", b"")


def bodies(answers: list[Response]) -> list[tuple[int, bytes]]:
    """Status and body of answers."""
    return [(answer.status, answer.body) for answer in answers]


@contextmanager
def held(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Keeps every kernel call that runs in a thread waiting for an event, which is set at the end of the block."""
    go = threading.Event()
    executed = pair.worker.counters.count_kernel_call

    def wait(*arguments: Any) -> Any:
        go.wait(20)
        return executed(*arguments)

    monkeypatch.setattr(pair.worker.counters, "count_kernel_call", wait)
    try:
        yield go
    finally:
        go.set()


# Heads that are remembered


def test_a_repeated_head_gives_each_body_its_own_answer(pair: Pair) -> None:
    """The second request with the same head is not parsed, and is answered from its own body."""
    rows = [[1.0, 2.0, 3.0, 4.0], [5.0, 6.0, 7.0, 8.0], [9.0, 8.0, 7.0, 6.0]]
    requests = [unnamed(request("POST", V1, instances([row]))) for row in rows]
    wrong = unnamed(request("POST", V1, instances([["no number!!!!"]]).ljust(len(instances([rows[0]])))))
    answers = pair.ask(*requests, wrong, *requests)
    assert any(requests[0].startswith(head) for head in pair.worker.shared.usual_kind.table)
    assert bodies(answers) == bodies(pair.ask(*requests, wrong, *requests, fast=False))
    assert [answer.status for answer in answers] == [200, 200, 200, 422, 200, 200, 200]


def test_a_repeated_head_on_another_connection_is_remembered(pair: Pair) -> None:
    """A head that one client sent is remembered for all clients."""
    assert len({answer for _ in range(3) for answer in bodies(pair.ask(unnamed(HOT)))}) == 1


def test_a_head_that_differs_in_one_byte_is_parsed_again(pair: Pair) -> None:
    """The answer is that of the plain application, not that of the remembered head."""
    good = unnamed(request("POST", V1, BODY, [("Accept", "*/*"), ("Content-Type", "application/json")]))
    pair.ask(good, good)
    name, version = range(good.index(b"Host"), good.index(b"Host") + 4), good.index(b" HTTP/")
    host = range(good.index(b" localhost"), good.index(b" localhost") + len(b" localhost"))
    for place in range(good.index(b"\r\n\r\n")):
        other = good[:place] + b"x" + good[place + 1 :]
        (answer,), (plain,) = pair.ask(other), pair.ask(other, fast=False)
        if place in name or place == version:  # uvicorn misses neither
            assert answer.status == 400
            continue
        if place in host:
            assert answer.status == 421
            continue
        assert answer.status == plain.status, other
        if plain.header("content-type") == "application/json":
            assert answer.body == plain.body


def test_a_remembered_head_that_is_cut_short_is_not_complete(pair: Pair) -> None:
    """A piece that ends within the line ends is not a complete request, whatever its length."""
    for size in range(60, 90):  # the length of the head is among them
        good = unnamed(request("POST", V1, BODY.ljust(size)))
        end = good.index(b"\r\n\r\n")
        pair.ask(good, good)
        for place in range(end, end + 5):

            async def talk(client: ClientConnection, good: bytes = good, place: int = place) -> Response:
                await client.send_pieces([good[:place], good[place:]])
                return await client.read()

            assert pair.talk(talk).status == 200, (size, place)


def test_remembered_heads_are_forgotten_when_models_are_swapped(paired: Paired, tmp_path: Path) -> None:
    """The same head is answered by the new version as soon as that is served."""
    write_artifact(tmp_path / "m" / "1", make_artifact("softmax", 2, ["a", "b"]))
    pair = paired(tmp_path)
    ask = unnamed(request("POST", "/v1/models/m:predict", instances([[1, 2]])))
    assert [answer.json["model_version"] for answer in pair.ask(ask, ask)] == ["1", "1"]
    write_artifact(tmp_path / "m" / "2", make_artifact("softmax", 2, ["a", "b"], seed=8))
    pair.run(pair.worker.load_unload.rescan_models())
    assert [answer.json["model_version"] for answer in pair.ask(ask, ask)] == ["2", "2"]


# Connections


@BOTH
def test_connection_close_is_honoured(pair: Pair, target: str) -> None:
    """The answer says close, and the connection ends."""

    async def talk(client: ClientConnection) -> None:
        answer = await client.ask(request("POST", target, BODY, [("Connection", "close")]))
        assert (answer.status, answer.header("connection")) == (200, "close")
        assert await client.ended()

    pair.talk(talk)


@BOTH
def test_http_1_0_is_answered_and_closed(pair: Pair, target: str) -> None:
    """An old client sees the end of the answer by the end of the connection."""

    async def talk(client: ClientConnection) -> None:
        answer = await client.ask(request("POST", target, BODY, version="1.0"))
        assert (answer.status, answer.header("connection")) == (200, "close")
        assert await client.ended()

    pair.talk(talk)


@BOTH
def test_trailers_change_nothing(pair: Pair, target: str) -> None:
    """Fields after a chunked body are not parsed as headers."""
    trailers = b"X-Request-Id: other\r\nContent-Type: text/csv\r\nExpect: 100-continue\r\n"
    answers = pair.ask(chunked("POST", target, [BODY], trailers=trailers), PROBE)
    assert [answer.status for answer in answers] == [200, 200]
    assert answers[0].header("x-request-id") == "test"
    assert answers[0].header("connection") is None


@BOTH
def test_expect_is_answered_with_continue(pair: Pair, target: str) -> None:
    """A client that waits for 100 before its body gets it, and then its answer."""

    async def talk(client: ClientConnection) -> Response:
        head, _, body = request("POST", target, BODY, [("Expect", "100-continue")]).partition(b"\r\n\r\n")
        assert (await client.ask(head + b"\r\n\r\n")).status == 100
        return await client.ask(body)

    assert bodies([pair.talk(talk)]) == bodies(pair.ask(HOT))


@BOTH
def test_expect_of_too_much_is_refused_at_once(paired: Paired, target: str) -> None:
    """A client that announces a body above the limit gets 413 instead of 100."""
    pair = paired(body_bytes_max=100)
    (answer,) = pair.ask(request("POST", target, b" " * 101, [("Expect", "100-continue")])[:-101])
    assert answer.status == 413


@BOTH
def test_half_a_connection_is_enough_for_an_answer(pair: Pair, target: str) -> None:
    """A client that says it will send no more still gets its answers, from the kernel's thread too."""

    async def talk(client: ClientConnection) -> list[int]:
        await client.send(request("POST", target, BODY) + SLOW + request("POST", target, BODY))
        client.end.shutdown(socket.SHUT_WR)
        return [(await client.read()).status for _ in range(3)]

    assert pair.talk(talk) == [200, 200, 200]


def test_connections_beyond_the_limit_are_closed(paired: Paired) -> None:
    """A connection beyond the limit is closed at once; the others stay usable."""
    pair = paired(connections_max=2)

    async def talk(client: ClientConnection) -> None:
        async with pair.connect() as second, pair.connect() as third:
            assert await third.ended()
            assert (await second.ask(HOT)).status == 200
        assert (await client.ask(HOT)).status == 200

    pair.talk(talk)


# Pipelines


def test_many_requests_in_one_piece_are_answered_in_order(pair: Pair) -> None:
    """A pipeline of small requests comes back in the order in which it was sent."""
    requests = [request("POST", V1, instances([[i, 1, 2, 3]])) for i in range(300)]
    assert pair.talk(pipelined(requests)) == pair.ask(*requests, fast=False)


def test_mixed_requests_in_one_piece_are_answered_in_order(pair: Pair) -> None:
    """Remembered, new, heavy and bad requests in one pipeline are answered in order."""
    bad = request("POST", V1, b"{")
    requests = [SLOW, HOT, COLD, SLOW, SLOW, bad, PROBE, HOT, SLOW, COLD, COLD, bad, SLOW, HOT] * 5
    assert pair.talk(pipelined(requests)) == pair.ask(*requests, fast=False)


def test_requests_that_share_a_kernel_call_get_their_own_rows(pair: Pair) -> None:
    """Heavy requests of one turn of the event loop are computed together, and each has the answer it has alone."""
    data = [request("POST", HEAVY, instances([[i] + [0] * 767] * (1 + i % 3))) for i in range(20)]
    alone = [pair.ask(each, fast=False)[0] for each in data]

    async def together() -> tuple[int, list[Response]]:
        async with AsyncExitStack() as stack:
            clients = [await stack.enter_async_context(pair.connect()) for _ in data]
            before = sum_counters(pair.shared_memory)["heavy/1"][EXECUTIONS]
            for client, each in zip(clients, data, strict=True):
                await client.send(each)
            answers = [await client.read() for client in clients]
            return sum_counters(pair.shared_memory)["heavy/1"][EXECUTIONS] - before, answers

    calls, answers = pair.run(together())
    assert answers == alone
    assert calls < len(data)


def pipelined(requests: list[bytes]) -> Callable[[ClientConnection], Any]:
    """A conversation that sends all requests at once and then reads."""

    async def talk(client: ClientConnection) -> list[Response]:
        await client.send(b"".join(requests))
        return [await client.read() for _ in requests]

    return talk


def test_a_refusal_waits_for_the_answer_before_it(paired: Paired, monkeypatch: pytest.MonkeyPatch) -> None:
    """A refusal is written after the earlier answers, and then the connection ends."""
    pair = paired(thread_after_us=1)

    async def talk(client: ClientConnection) -> None:
        await client.send_pieces([SLOW, b"garbage\r\n\r\n"])
        go.set()
        answer = await client.read()
        assert (answer.status, answer.header("connection")) == (200, "close")
        assert await client.ended()

    with held(pair, monkeypatch) as go:
        pair.talk(talk)


@pytest.mark.parametrize("data", [HOT, unnamed(HOT), COLD, PROBE], ids=["hot", "remembered", "cold", "probe"])
def test_a_client_that_does_not_read_is_not_read_and_then_closed(paired: Paired, data: bytes) -> None:
    """Reading stops while a client does not read its answers, and after a time the connection ends."""
    pair = paired(write_seconds=0.5)
    pair.fast_listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 16)

    async def talk(client: ClientConnection) -> None:
        client.end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
        sending = asyncio.create_task(client.send(data * ((30 << 20) // len(data))))
        (connection,) = await until(lambda: list(pair.connections))
        await until(lambda: connection.flow.write_paused)
        received = pair.received
        await asyncio.sleep(0.2)
        assert pair.received == received
        assert connection.transport.get_write_buffer_size() < 4 << 20
        with pytest.raises((ConnectionResetError, BrokenPipeError)):
            await sending

    pair.talk(talk)
    assert pair.run(pair.settled()) == (0, 0)


async def until(condition: Callable[[], Any]) -> Any:
    """Wait until a condition of the servers is true, and return its value."""
    async with asyncio.timeout(8):
        while not (value := condition()):  # noqa: ASYNC110  # no event tells of it
            await asyncio.sleep(0.01)
        return value


def test_a_pause_of_a_slow_reader_counts_for_no_deadline(paired: Paired) -> None:
    """The deadline of a head does not run while reading has stopped for a slow client."""
    pair = paired(header_seconds=0.5)
    pair.fast_listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 14)
    count = 30  # small requests with large answers: the server reads them at once, and cannot write all
    one_row = request("POST", HEAVY, instances([[0] * 768]))

    async def talk(client: ClientConnection) -> int:
        client.end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
        await client.send_pieces([one_row * count + HOT[:40]])
        await asyncio.sleep(1)
        (connection,) = pair.connections
        assert connection.flow.write_paused
        assert {(await client.read()).status for _ in range(count)} == {200}
        await asyncio.sleep(0.25)
        return (await client.ask(HOT[40:])).status

    assert pair.talk(talk) == 200


def test_a_client_that_reads_late_gets_everything(pair: Pair) -> None:
    """Reading that stopped for a slow client continues when it reads."""
    count = 20_000

    async def talk(client: ClientConnection) -> set[int]:
        sending = asyncio.create_task(client.send(HOT * count))
        await asyncio.sleep(0.2)
        statuses = {(await client.read()).status for _ in range(count)}
        await sending
        return statuses

    assert pair.talk(talk) == {200}


# Time


async def slow_answer(client: ClientConnection, data: bytes) -> Response:
    """Return the answer to a client that stops sending; then the connection must end."""
    await client.send(data)
    answer = await client.read()
    assert await client.ended()
    return answer


@pytest.mark.parametrize("data", [b"P", HOT[:30], HOT[: HOT.index(b"\r\n\r\n") + 2], b"\r\n" + COLD[:60]])
def test_slow_headers_are_given_up(paired: Paired, data: bytes) -> None:
    """A head that does not end in time is answered with 408, and the connection ends."""
    assert paired(header_seconds=0.3).talk(lambda client: slow_answer(client, data)).status == 408


def test_dripping_headers_are_given_up(paired: Paired) -> None:
    """Further bytes do not extend the deadline."""

    async def talk(client: ClientConnection) -> int:
        for at in range(20):
            await client.send(HOT[at : at + 1])
            await asyncio.sleep(0.1)
        return (await client.read()).status

    assert paired(header_seconds=0.4).talk(talk) == 408


@BOTH
def test_a_slow_body_is_given_up(paired: Paired, target: str) -> None:
    """A body that does not arrive in time is answered with one 408, and its bytes are released."""
    pair = paired(body_seconds=0.3)
    assert pair.talk(lambda client: slow_answer(client, request("POST", target, BODY)[:-5])).status == 408
    assert pair.run(pair.settled()) == (0, 0)
    assert pair.ask(request("GET", "/healthz"))[0].status == 200
    assert pair.statuses() == {200: 1, 408: 1}


def test_idle_connections_are_closed(paired: Paired) -> None:
    """An idle connection ends without an answer after its time, before the first request or later."""
    pair = paired(keep_alive_seconds=0.5)

    async def talk(client: ClientConnection) -> None:
        for data in (HOT, COLD, unnamed(HOT), unnamed(HOT)):
            await client.ask(data)
            await asyncio.sleep(0.3)
        started = time.monotonic()
        assert await client.ended()
        assert 0.1 < time.monotonic() - started < 2
        async with pair.connect() as silent:
            assert await silent.ended()

    pair.talk(talk)


@pytest.mark.parametrize("data", [SLOW, unnamed(SLOW)], ids=["parsed", "remembered"])
def test_a_long_kernel_call_is_not_idle_time(paired: Paired, monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    """A connection whose answer is being computed stays open."""
    pair = paired(thread_after_us=1, keep_alive_seconds=0.5)

    async def talk(client: ClientConnection) -> list[int]:
        statuses = [(await client.ask(data)).status for _ in range(2)]
        with held(pair, monkeypatch) as go:
            await client.send(data)
            await asyncio.sleep(1)
            go.set()
            return [*statuses, (await client.read()).status]

    assert pair.talk(talk) == [200, 200, 200]


# Heads that are too large, and what is not HTTP


LARGE = {
    "one header": request("GET", "/healthz", headers=[("X", "x" * 33_000)]),
    "target": request("GET", "/" + "x" * 33_000),
    "many headers": request("GET", "/healthz", headers=[(f"X{i}", "") for i in range(101)]),
    "hot": request("POST", V1, BODY, [("X", "x" * 33_000)]),
    "upgrade": request("GET", "/", headers=[("X", "x" * 33_000), ("Connection", "upgrade"), ("Upgrade", "h2c")]),
    "connect": request("CONNECT", "softstep:1", headers=[("X", "x" * 33_000)]),
    "endless": b"GET / HTTP/1.1\r\nX: " + b"x" * 3_000_000,
    "endless target": b"GET /" + b"x" * 3_000_000,
    "before garbage": chunked("POST", V1, [BODY], [("X", "x" * 33_000)]).replace(b"\r\n0\r\n", b"garbage"),
}


@pytest.mark.parametrize("name", LARGE)
@pytest.mark.parametrize("piece", [1 << 24, 1000], ids=["whole", "dripping"])
def test_a_large_head_is_refused(pair: Pair, name: str, piece: int) -> None:
    """One answer, 431, readable while the client still sends; then the connection ends."""
    data = LARGE[name]

    async def talk(client: ClientConnection) -> Response:
        sending = asyncio.gather(send(client), return_exceptions=True)
        answer = await client.read()
        assert await client.ended()
        client.end.close()
        await sending
        return answer

    async def send(client: ClientConnection) -> None:
        for start in range(0, len(data), piece):
            await client.send(data[start : start + piece])
            await asyncio.sleep(0)

    answer = pair.talk(talk)
    assert (answer.status, list(answer.json)) == (431, ["error", "code"])


MALFORMED = {
    "garbage": b"\x16\x03\x01\x02\x00\x01\x00",
    "http 2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "version": b"GET / HTTP/7.7\r\n\r\n",
    "method": b"GETT / HTTP/1.1\r\n\r\n",
    "bare line feed": b"GET /healthz HTTP/1.1\nHost: a\n\n",
    "space before colon": b"GET /healthz HTTP/1.1\r\nHost : a\r\n\r\n",
    "header without colon": b"GET /healthz HTTP/1.1\r\nHost\r\n\r\n",
    "negative length": b"POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
    "two lengths": b"POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
    "huge length": b"POST / HTTP/1.1\r\nContent-Length: 99999999999999999999999\r\n\r\n",
    "length and chunked": b"POST / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
    "zero byte in header": b"GET / HTTP/1.1\r\nX: \x00\r\n\r\n",
    "non-ASCII target": "GET /\xfc HTTP/1.1\r\n\r\n".encode(),
    "hot body": chunked("POST", V1, [BODY])[:-5] + b"z\r\n",
    "cold body": chunked("POST", f"{V1}?cold", [BODY])[:-5] + b"z\r\n",
    "unknown path's body": chunked("POST", "/unknown", [])[:-5] + b"-1\r\n",
}


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_http_is_refused_as_json(pair: Pair, name: str) -> None:
    """One answer, 400 with one sentence, whole or in pieces; then the connection ends and nothing is held."""

    async def talk(client: ClientConnection, pieces: list[bytes]) -> Response:
        await client.send_pieces(pieces)
        answer = await client.read()
        assert await client.ended()
        return answer

    data = MALFORMED[name]
    for pieces in ([data], [data[:4], data[4:]]):
        answer = pair.talk(lambda client, pieces=pieces: talk(client, pieces))
        if name != "unknown path's body":  # answered 404 before its body is read
            assert (answer.status, list(answer.json), answer.header("connection")) == (400, ["error", "code"], "close")
    assert pair.run(pair.settled()) == (0, 0)


def test_connect_is_refused(pair: Pair) -> None:
    """The method CONNECT is refused."""
    (answer,) = pair.ask(b"CONNECT localhost:443 HTTP/1.1\r\nHost: localhost:443\r\n\r\n")
    assert (answer.status, answer.header("allow"), list(answer.json)) == (405, "GET, HEAD, POST", ["error", "code"])


@BOTH
@pytest.mark.parametrize(
    "headers",
    [
        [("Connection", "Upgrade, HTTP2-Settings"), ("Upgrade", "h2c"), ("HTTP2-Settings", "AAMAAABkAARAAAAAAAIAAAAA")],
        [("Connection", "keep-alive, Upgrade"), ("Upgrade", "websocket"), ("Sec-WebSocket-Version", "13")],
    ],
    ids=["h2c", "websocket"],
)
@pytest.mark.parametrize("cuts", [0, 1], ids=["whole", "bytes"])
def test_an_upgrade_is_declined_by_a_normal_answer(
    pair: Pair, target: str, headers: list[tuple[str, str]], cuts: int
) -> None:
    """A request to upgrade is answered in HTTP/1.1, its body is read, and the next request is answered."""
    data = request("POST", target, BODY, headers)

    async def talk(client: ClientConnection) -> list[Response]:
        await client.send_pieces([data[i : i + 1] for i in range(len(data))] if cuts else [data + data])
        return [await client.read(), *([] if cuts else [await client.read()]), await client.ask(PROBE)]

    assert {answer.status for answer in pair.talk(talk)} == {200}


# Clients that leave


@BOTH
def test_leaving_in_mid_body_leaves_nothing(pair: Pair, target: str) -> None:
    """The body bytes of a client that disconnected are released."""

    async def talk(client: ClientConnection) -> int:
        await client.send_pieces([request("POST", target, b" " * 1000)[:-10]])
        return pair.worker.shared.body_bytes

    assert pair.talk(talk) == 990
    assert pair.run(pair.settled()) == (0, 0)


def test_leaving_before_the_answer_leaves_nothing(paired: Paired, monkeypatch: pytest.MonkeyPatch) -> None:
    """The answer to a client that disconnected is dropped, and its request is no longer in flight."""
    pair = paired(thread_after_us=1)

    async def talk(client: ClientConnection) -> int:
        await client.send_pieces([SLOW + HOT + COLD + SLOW])
        return pair.worker.shared.in_flight

    with held(pair, monkeypatch):
        assert pair.talk(talk) == 1
    assert pair.run(pair.settled()) == (0, 0)
    assert pair.ask(HOT)[0].status == 200


# Limits


@BOTH
@pytest.mark.parametrize("chunks", [False, True], ids=["declared", "chunked"])
@pytest.mark.parametrize("headers", [[], [("Connection", "close")]], ids=["keep-alive", "close"])
def test_a_large_body_is_refused(paired: Paired, target: str, headers: list[tuple[str, str]], *, chunks: bool) -> None:
    """The client can read the answer 413 while it still sends."""
    pair = paired(body_bytes_max=100_000)
    body = b" " * 5_000_000
    data = chunked("POST", target, [body], headers) if chunks else request("POST", target, body, headers)

    async def talk(client: ClientConnection) -> Response:
        sending = asyncio.gather(client.send(data), return_exceptions=True)
        answer = await client.read()
        await sending
        return answer

    answer = pair.talk(talk)
    assert (answer.status, list(answer.json)) == (413, ["error", "code"])
    assert pair.run(pair.settled()) == (0, 0)


@pytest.mark.parametrize("heavy", [SLOW, unnamed(SLOW)], ids=["parsed", "remembered"])
def test_requests_beyond_the_limit_are_refused_for_a_retry(
    paired: Paired, monkeypatch: pytest.MonkeyPatch, heavy: bytes
) -> None:
    """A worker at its limit answers 503 with Retry-After, but still answers probes and metrics."""
    pair = paired(thread_after_us=1, requests_in_flight_max=2)
    pair.ask(heavy, heavy)

    async def talk(client: ClientConnection) -> list[Response]:
        async with pair.connect() as one, pair.connect() as two:
            await client.send_pieces([heavy])
            await one.send_pieces([heavy])
            assert pair.worker.shared.in_flight == 2
            refused = [await two.ask(data) for data in (heavy, SLOW, COLD)]
            probes = ("/healthz", "/readyz", "/ping", "/health", "/metrics", "/v2/health/live", "/v2/health/ready")
            assert {(await two.ask(request("GET", path))).status for path in probes} == {200}
            go.set()
            assert {(await end.read()).status for end in (client, one)} == {200}
            assert (await two.ask(heavy)).status == 200
            return refused

    with held(pair, monkeypatch) as go:
        refused = pair.talk(talk)
    assert [(answer.status, answer.header("retry-after")) for answer in refused] == [(503, "1")] * 3
    assert all(answer.header("x-request-id") for answer in refused)


@BOTH
@pytest.mark.parametrize("chunks", [False, True], ids=["declared", "chunked"])
def test_body_bytes_beyond_the_limit_are_refused_for_a_retry(paired: Paired, target: str, *, chunks: bool) -> None:
    """The body bytes that a worker holds are limited over all clients and both encodings of bodies."""
    pair = paired(body_bytes_in_flight_max=1000)
    body = BODY.ljust(600)
    data = chunked("POST", target, [body]) if chunks else request("POST", target, body)

    async def talk(client: ClientConnection) -> Response:
        await client.send_pieces([data[:-20]])
        async with pair.connect() as other:
            answer = await other.ask(data)
        assert pair.worker.shared.body_bytes <= 1000
        assert (await client.ask(data[-20:])).status == 200
        return answer

    answer = pair.talk(talk)
    assert (answer.status, answer.header("retry-after")) == (503, "1")
    assert pair.run(pair.settled()) == (0, 0)
    assert pair.statuses() == {200: 1, 503: 1}


@BOTH
@pytest.mark.parametrize("fast", [True, False], ids=["fast", "plain"])
def test_a_client_that_leaves_gets_no_answer(paired: Paired, target: str, *, fast: bool) -> None:
    """A connection that ends within a body gets no answer and causes no error."""
    pair = paired()

    async def talk(client: ClientConnection) -> None:
        await client.send_pieces([request("POST", target, BODY)[:-5]])

    pair.talk(talk, fast=fast)
    assert pair.ask(request("GET", "/healthz"), fast=fast)[0].status == 200
    assert pair.run(pair.settled()) == (0, 0)
    assert pair.statuses() == {200: 1}


def test_requests_of_the_application_are_in_flight_too(paired: Paired) -> None:
    """The gauge counts a request that the application waits for like one of the fast path."""
    pair = paired()

    def in_flight() -> int:
        return pair.shared_memory.sum_over_workers(IN_FLIGHT)

    async def becomes(count: int) -> None:
        async with asyncio.timeout(2):
            while in_flight() != count:  # noqa: ASYNC110  # published ten times a second
                await asyncio.sleep(0.01)

    async def talk(client: ClientConnection) -> int:
        await becomes(0)
        await client.send_pieces([COLD[:-5]])
        await becomes(1)
        await client.send(COLD[-5:])
        status = (await client.read()).status
        await becomes(0)
        return status

    assert pair.talk(talk) == 200


# Models that change under a request


@BOTH
def test_a_model_unloaded_while_its_request_arrives_still_answers(paired: Paired, tmp_path: Path, target: str) -> None:
    """A request is answered by the model that was served when its head came."""
    write_artifact(tmp_path / "iris" / "1", make_artifact("softmax", 4, ["a", "b"]))
    pair = paired(tmp_path)

    async def talk(client: ClientConnection) -> Response:
        data = request("POST", target, BODY)
        await client.send_pieces([data[:-5]])
        await asyncio.sleep(0.05)
        await pair.worker.registry.rescan(frozenset({"iris"}))
        return await client.ask(data[-5:])

    assert pair.talk(talk).status == 200
    assert pair.ask(HOT)[0].status == 503


# Counters and faults


def test_every_answer_is_counted_once(paired: Paired) -> None:
    """The counts of answers by status, of requests by model, and uvicorn's own agree with what was asked."""
    pair = paired()
    bad, text = request("POST", V1, b"{"), request("POST", V1, BODY, [("Content-Type", "text/csv")])
    pair.ask(HOT, unnamed(HOT), unnamed(HOT), COLD, bad, text, SLOW, SLOW, request("GET", "/x"))
    pair.ask(LARGE["one header"])
    pair.ask(b"garbage\r\n\r\n")
    pair.ask(b"CONNECT localhost:1 HTTP/1.1\r\nHost: localhost:1\r\n\r\n")
    assert pair.statuses() == {200: 6, 400: 2, 404: 1, 405: 1, 415: 1, 431: 1}
    assert pair.total_requests == 12
    counted = sum_counters(pair.shared_memory)
    assert [counted["iris/1"][cell] for cell in (FAILURES, ROWS)] == [2, 4]
    assert [counted["heavy/1"][cell] for cell in (FAILURES, ROWS)] == [0, 4]


@BOTH
@pytest.mark.parametrize(
    ("sent", "echoed"),
    [("a", True), ("x" * 128, True), ("a b;=\x22", True), ("x" * 129, False), ("", False), ("é", False), ("\t", False)],
)
def test_a_request_id_is_echoed_or_made(pair: Pair, target: str, sent: str, *, echoed: bool) -> None:
    """Short visible text comes back; anything else is replaced by an id of the server's own."""
    data = request("POST", target, BODY).replace(b"Id: test", b"Id: " + sent.encode("latin-1"))
    ids = [answer.header("x-request-id") for answer in pair.ask(data, data)]
    assert (ids == [sent, sent]) == echoed
    assert len(set(ids)) == 1 if echoed else len(set(ids)) == 2
    assert all(ids)


def test_a_fault_in_the_protocol_is_answered_and_logged(
    pair: Pair, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """An exception behind a prediction gives 500 as JSON and a trace in the log, and the next request is answered."""

    def broken(*_: object) -> None:
        raise RuntimeError("on purpose")

    with monkeypatch.context() as context:
        context.setattr(pair.worker.dispatcher, "respond", broken)
        answers = pair.ask(HOT, COLD)
        assert {(answer.status, json.loads(answer.body)["error"]) for answer in answers} == {
            (500, "The server failed to answer; the fault is in its log.")
        }
    assert caplog.text.count("RuntimeError: on purpose") == 2
    assert pair.ask(HOT)[0].status == 200
    wait_until(lambda: pair.worker.shared.body_bytes == 0)
