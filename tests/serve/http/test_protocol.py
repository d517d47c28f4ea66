"""The fast path answers as the plain application does, however a request comes in pieces."""

import asyncio
import gzip
import random
from itertools import pairwise
from typing import Any

import pytest

from tests.support.http_connection import CLOSED, ClientConnection, Response
from tests.support.http_requests import binary, binary_request, chunked, infer, instances, request
from tests.support.server_pair import Pair

IRIS = [[5.1, 3.5, 1.4, 0.2]]
V1, V2 = "/v1/models/iris:predict", "/v2/models/iris/infer"
# A model whose metadata nothing here asks for: it tells how long its events wait for a learner, which is not there.
TEACH = "/v1/models/ovr:feedback"
EXPLAIN = "/v1/models/iris:explain"
V1_BODY = instances(IRIS)
TEXT, RAW = binary(IRIS)
HEAVY_ROW = [[0] * 767 + [1]]
BINARY_OUT = {"parameters": {"binary_data_output": True}}
PROBE = request("GET", "/v2/health/live")
CONNECTIONS = 100


def predict(body: bytes, *headers: tuple[str, str], target: str = V1) -> bytes:
    """A prediction request, v1 unless the target says otherwise."""
    return request("POST", target, body, headers)


def feedback_body(rows: list[list[float]], labels: list[Any], id: str = "event", **more: Any) -> bytes:  # noqa: A002
    """A feedback body."""
    return instances(rows, labels=labels, id=id, **more)


def typed(content_type: str, body: bytes = V1_BODY) -> bytes:
    """A prediction request with a content type."""
    return predict(body, ("Content-Type", content_type))


REQUESTS = {
    # Good
    "v1": predict(V1_BODY),
    "v1 rows": predict(instances(IRIS * 3)),
    "v1 large": predict(instances(IRIS * 120)),
    "v1 version": predict(V1_BODY, target="/v1/models/iris/versions/1:predict"),
    "v1 form type": typed("application/x-www-form-urlencoded"),
    "v1 charset": typed("Application/JSON; charset=utf-8"),
    "v1 query": predict(V1_BODY, target=f"{V1}?key=value"),
    "v1 escaped path": predict(V1_BODY, target="/v1/models/%69ris:predict"),
    "v1 absolute form": predict(V1_BODY, target=f"http://softstep{V1}"),
    "v1 chunked": chunked("POST", V1, [V1_BODY]),
    "v1 many chunks": chunked("POST", V1, [V1_BODY[:7], V1_BODY[7:20], V1_BODY[20:]]),
    "v1 trailers": chunked("POST", V1, [V1_BODY], trailers=b"X-Checksum: 1\r\n"),
    "v1 close": predict(V1_BODY, ("Connection", "close")),
    "v1 keep-alive": predict(V1_BODY, ("Connection", "keep-alive")),
    "v1 1.0": request("POST", V1, V1_BODY, version="1.0"),
    "v1 sigmoid": predict(instances([[0.5] * 30]), target="/v1/models/breast-cancer:predict"),
    "v1 multilabel": predict(instances([[0, 1, 2], [3, -4, 5]]), target="/v1/models/tags:predict"),
    "v1 double": predict(instances([[0.1, 1e-300, 2]]), target="/v1/models/double:predict"),
    "v1 staged": predict(instances([[0.1, 3, 2e9]]), target="/v1/models/staged:predict"),
    "v1 heavy": predict(instances(HEAVY_ROW), target="/v1/models/heavy:predict"),
    "v2": predict(infer(IRIS, id="7"), target=V2),
    "v2 version": predict(infer(IRIS), target="/v2/models/iris/versions/1/infer"),
    "v2 labels": predict(infer(IRIS, outputs=[{"name": "labels"}, {"name": "probabilities"}]), target=V2),
    "v2 binary out": predict(infer(IRIS, **BINARY_OUT), target=V2),
    "v2 binary in": binary_request(V2, TEXT, RAW),
    "v2 binary both": binary_request(V2, *binary(IRIS * 2, id="b", **BINARY_OUT)),
    "v2 raw": binary_request(V2, b"", RAW),
    "v2 vendor type": predict(
        TEXT + RAW,
        ("Content-Type", f"application/vnd.sagemaker-triton.binary+json;json-header-size={len(TEXT)}"),
        target=V2,
    ),
    "v2 chunked": chunked("POST", V2, [TEXT, RAW], [("Inference-Header-Content-Length", str(len(TEXT)))]),
    "v2 heavy": predict(infer(HEAVY_ROW), target="/v2/models/heavy/infer"),
    # Bad, on the hot paths
    "v1 empty": predict(b""),
    "v1 no length": request("POST", V1),
    "v1 broken": predict(b'{"instances": [[1,2'),
    "v1 no object": predict(b"[1]"),
    "v1 wrong width": predict(instances([[1, 2]])),
    "v1 ragged": predict(b'{"instances": [[1,2,3,4],[1]]}'),
    "v1 boolean": predict(b'{"instances": [[true,2,3,4]]}'),
    "v1 overflow": predict(b'{"instances": [[1e39,2,3,4]]}'),
    "v1 repeated key": predict(b'{"instances": [[1,2,3,4]], "instances": [[1,2,3,4]]}'),
    "v1 unknown field": predict(instances(IRIS, more=1)),
    "v1 wrong type": typed("text/csv"),
    "v1 encoded": predict(gzip.compress(V1_BODY), ("Content-Encoding", "gzip")),
    "v1 not encoded": predict(V1_BODY, ("Content-Encoding", "gzip")),
    "v1 encoded twice": predict(V1_BODY, ("Content-Encoding", "gzip, gzip")),
    "v1 text": typed("text/plain"),
    "v1 other site": predict(V1_BODY, ("Content-Type", "text/plain"), ("Origin", "https://a.example")),
    "v1 byte order mark": predict(b"\xef\xbb\xbf" + V1_BODY),
    "v2 empty": predict(b"{}", target=V2),
    "v2 wrong shape": predict(infer([[1.0, 2.0]]), target=V2),
    "v2 wrong header": request("POST", V2, TEXT + RAW, [("Inference-Header-Content-Length", "9999")]),
    "v2 short binary": binary_request(V2, TEXT, RAW[:-1]),
    # Feedback; its id is taken, so that it has one place however often it is sent
    "feedback": predict(feedback_body(IRIS, ["a"]), target=TEACH),
    "feedback version": predict(feedback_body(IRIS, ["a"]), target="/v1/models/ovr/versions/1:feedback"),
    "feedback chunked": chunked("POST", TEACH, [feedback_body(IRIS, ["a"])]),
    "feedback close": predict(feedback_body(IRIS, ["a"]), ("Connection", "close"), target=TEACH),
    "feedback conflict": predict(feedback_body(IRIS, ["c"]), target=TEACH),
    "feedback many": predict(feedback_body(IRIS * 90, ["a"] * 90, id="many"), target=TEACH),
    "feedback empty": predict(b"", target=TEACH),
    "feedback broken": predict(b'{"instances": [[1,2', target=TEACH),
    "feedback without labels": predict(instances(IRIS), target=TEACH),
    "feedback wrong label": predict(feedback_body(IRIS, ["unknown"]), target=TEACH),
    "feedback wrong weight": predict(feedback_body(IRIS, [0], weights=[0]), target=TEACH),
    "feedback wrong type": predict(feedback_body(IRIS, [0]), ("Content-Type", "text/csv"), target=TEACH),
    "feedback encoded": predict(gzip.compress(feedback_body(IRIS, ["a"])), ("Content-Encoding", "gzip"), target=TEACH),
    "feedback forged token": predict(b'{"tokens": ["AAAA"], "labels": [0]}', target=TEACH),
    "feedback unknown model": predict(feedback_body(IRIS, [0]), target="/v1/models/unknown:feedback"),
    "get feedback": request("GET", TEACH),
    "classes broken": predict(b'{"add": [1]}', target="/v1/models/ovr:classes"),
    "forget unknown": predict(b'{"ids": ["unknown"], "id": "forget"}', target="/v1/models/ovr:forget"),
    "rollback beyond": predict(b'{"seq": 99999}', target="/v1/models/ovr:rollback"),
    "v1 min_seq reached": predict(instances(IRIS, min_seq=0)),
    "v1 min_seq wrong": predict(instances(IRIS, min_seq=-1)),
    "v1 tokens wrong": predict(instances(IRIS, feedback_tokens=1)),
    # Explanations
    "explain": predict(V1_BODY, target=EXPLAIN),
    "explain rows": predict(instances(IRIS * 3, labels=[0, "virginica", [0.5, 0.5, 0]], top=2), target=EXPLAIN),
    "explain version": predict(V1_BODY, target="/v1/models/iris/versions/1:explain"),
    "explain chunked": chunked("POST", EXPLAIN, [V1_BODY[:9], V1_BODY[9:]]),
    "explain close": predict(V1_BODY, ("Connection", "close"), target=EXPLAIN),
    "explain 1.0": request("POST", EXPLAIN, V1_BODY, version="1.0"),
    "explain heavy": predict(instances(HEAVY_ROW), target="/v1/models/heavy:explain"),
    "explain wrong top": predict(instances(IRIS, top=0), target=EXPLAIN),
    "explain wrong label": predict(instances(IRIS, labels=["x"]), target=EXPLAIN),
    "explain broken": predict(b'{"instances": [[1,2', target=EXPLAIN),
    "explain wrong type": predict(V1_BODY, ("Content-Type", "text/csv"), target=EXPLAIN),
    "get explain": request("GET", EXPLAIN),
    "v2 logits": predict(infer(IRIS, outputs=[{"name": "logits"}]), target=V2),
    "convert": predict(b'{"logits": [[1, null, 2]]}', target="/v1/convert"),
    "convert broken": predict(b'{"logits": [[1', target="/v1/convert"),
    # Calls that read how a model has learned
    "drift": request("GET", "/v1/models/iris/drift"),
    "drift version": request("GET", "/v1/models/iris/versions/1/drift"),
    "drift head": request("HEAD", "/v1/models/iris/drift"),
    "drift close": request("GET", "/v1/models/iris/drift", None, [("Connection", "close")]),
    "drift 1.0": request("GET", "/v1/models/iris/drift", version="1.0"),
    "drift with a body": request("GET", "/v1/models/iris/drift", b"1234"),
    "drift chunked": chunked("GET", "/v1/models/iris/drift", [b"1234"]),
    "drift encoded": request("GET", "/v1/models/iris/drift", None, [("Content-Encoding", "gzip")]),
    "drift upgrade": request("GET", "/v1/models/iris/drift", None, [("Connection", "Upgrade"), ("Upgrade", "h2c")]),
    "drift other site": request("GET", "/v1/models/iris/drift", None, [("Origin", "https://a.example")]),
    "drift escaped path": request("GET", "/v1/models/%69ris/drift"),
    "drift absolute form": request("GET", "http://softstep/v1/models/iris/drift"),
    "drift unknown query": request("GET", "/v1/models/iris/drift?since=1"),
    "drift unknown model": request("GET", "/v1/models/unknown/drift"),
    "history": request("GET", "/v1/models/iris/history"),
    "quality": request("GET", "/v1/models/iris/quality?seq=3"),
    "quality wrong": request("GET", "/v1/models/iris/quality?seq=x"),
    "post pulse": request("POST", "/v1/models/iris/pulse", b"{}"),
    "put pulse": request("PUT", "/v1/models/iris/pulse", b"{}"),
    "get pulse call": request("GET", "/v1/models/iris:pulse"),
    # Everything else
    "list": request("GET", "/v1/models"),
    "metadata": request("GET", "/v1/models/double"),  # no test sends it feedback
    "version metadata": request("GET", "/v1/models/double/versions/1"),
    "v2 server": request("GET", "/v2"),
    "v2 metadata": request("GET", "/v2/models/tags"),
    "v2 config": request("GET", "/v2/models/iris/config"),
    "health": request("GET", "/healthz"),
    "head": request("HEAD", "/healthz"),
    "index": request("POST", "/v2/repository/index", b'{"ready": true}'),
    "index broken": request("POST", "/v2/repository/index", b"{"),
    "get with body": request("GET", "/readyz", b"1234"),
    "unknown path": request("GET", "/unknown"),
    "unknown model": predict(V1_BODY, target="/v1/models/unknown:predict"),
    "unknown model v2": predict(infer(IRIS), target="/v2/models/unknown/infer"),
    "unknown version": predict(V1_BODY, target="/v1/models/iris/versions/2:predict"),
    "strange version": predict(V1_BODY, target="/v1/models/iris/versions/01:predict"),
    "get predict": request("GET", V1),
    "head predict": request("HEAD", V1),
    "put infer": request("PUT", V2, b"{}"),
    "options": request("OPTIONS", V1),
    "invocations": request("POST", "/invocations", V1_BODY),
}
ALL = pytest.mark.parametrize("name", REQUESTS)


# The same answers, whole and in pieces


async def exchange(client: ClientConnection, pieces: list[bytes]) -> list[Response]:
    """Return the answers to a request in pieces and to a probe that follows on the connection."""
    await client.send_pieces(pieces)
    return await finish(client, pieces)


async def finish(client: ClientConnection, pieces: list[bytes]) -> list[Response]:
    """Read an answer, then the answer to a probe on the same connection."""
    answer = await client.read(has_body=not b"".join(pieces).startswith(b"HEAD"))
    if answer.header("connection") == "close":
        return [answer, CLOSED if await client.ended() else answer]
    return [answer, await client.ask(PROBE)]


async def expected(pair: Pair, name: str) -> list[Response]:
    """Return the answers of the plain application; the ids of feedback exist before."""
    async with pair.connect(fast=False) as client:
        for feedback_name in ("feedback", "feedback many"):
            assert (await client.ask(REQUESTS[feedback_name])).status == 202
    async with pair.connect(fast=False) as client:
        return await exchange(client, [REQUESTS[name]])


async def in_pieces(pair: Pair, cuts: list[list[bytes]]) -> list[list[Response]]:
    """Responses of the fast path to requests in pieces, each on a connection of its own, all at the same time."""
    answers = []
    for start in range(0, len(cuts), CONNECTIONS):
        some = cuts[start : start + CONNECTIONS]
        clients = [pair.connect() for _ in some]
        opened = [await client.__aenter__() for client in clients]
        for step in range(max(map(len, some))):
            now = [(client, cut[step]) for client, cut in zip(opened, some, strict=True) if step < len(cut)]
            goal = pair.received + sum(len(piece) for _, piece in now)
            for client, piece in now:
                await client.send(piece)
            await pair.wait_received(goal)
        answers += [await finish(client, cut) for client, cut in zip(opened, some, strict=True)]
        for client in clients:
            await client.__aexit__(None, None, None)
    return answers


def cut(data: bytes, *places: int) -> list[bytes]:
    """The pieces of a request that is cut at some places."""
    return [data[start:stop] for start, stop in pairwise([0, *sorted(places), len(data)])]


@ALL
def test_a_whole_request_has_the_answer_of_the_bare_application(pair: Pair, name: str) -> None:
    """Status, headers in their order, body, and whether the connection goes on are the same."""
    one, other = pair.run(expected(pair, name)), pair.run(in_pieces(pair, [[REQUESTS[name]]]))[0]
    assert one[0].status
    assert other == one


@ALL
def test_a_request_cut_at_every_byte_has_the_same_answer(pair: Pair, name: str) -> None:
    """Two pieces, cut anywhere, make no difference; in a long body, at every place near an end and some between."""
    data = REQUESTS[name]
    end = data.index(b"\r\n\r\n") + 8
    places = [place for place in range(1, len(data)) if place < end or place % 41 == 0 or place > len(data) - 8]
    one = pair.run(expected(pair, name))
    for place, other in zip(places, pair.run(in_pieces(pair, [cut(data, place) for place in places])), strict=True):
        assert other == one, place


def test_requests_byte_by_byte_have_the_same_answers(pair: Pair) -> None:
    """The smallest pieces there are make no difference."""
    short = {name: data for name, data in REQUESTS.items() if len(data) < 600}
    others = pair.run(in_pieces(pair, [[data[i : i + 1] for i in range(len(data))] for data in short.values()]))
    for name, other in zip(short, others, strict=True):
        assert other == pair.run(expected(pair, name)), name


@ALL
def test_a_request_cut_at_random_places_has_the_same_answer(pair: Pair, name: str) -> None:
    """Several pieces of any sizes make no difference."""
    data, chance = REQUESTS[name], random.Random(name)
    cuts = [cut(data, *chance.sample(range(1, len(data)), chance.randint(2, 9))) for _ in range(20)]
    one = pair.run(expected(pair, name))
    for pieces, other in zip(cuts, pair.run(in_pieces(pair, cuts)), strict=True):
        assert other == one, [len(piece) for piece in pieces]


def test_requests_in_any_order_on_one_connection_have_the_same_answers(pair: Pair) -> None:
    """A connection keeps nothing of one request for the next: the whole corpus in random order, whole and pipelined."""
    lasting = [name for name, data in REQUESTS.items() if b"close" not in data and b"HTTP/1.0" not in data]
    chance = random.Random(1)
    for _ in range(5):
        names = chance.sample(lasting, len(lasting))
        one = pair.ask(*(REQUESTS[name] for name in names), fast=False)
        assert pair.ask(*(REQUESTS[name] for name in names)) == one
        assert pair.run(pipeline(pair, [REQUESTS[name] for name in names])) == one


async def pipeline(pair: Pair, requests: list[bytes], at_once: int = 1 << 30) -> list[Response]:
    """Answers to requests that are sent without waiting for any."""
    data = b"".join(requests)
    async with pair.connect() as client:

        async def send() -> None:
            for start in range(0, len(data), at_once):
                await client.send(data[start : start + at_once])

        sending = asyncio.create_task(send())
        answers = [await client.read(has_body=not each.startswith(b"HEAD")) for each in requests]
        await sending
        return answers
