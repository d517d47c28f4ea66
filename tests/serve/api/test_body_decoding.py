"""Encoded bodies get the answer of the body that they encode, within the same limits."""

import asyncio
import gzip
import json
import zlib
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from service.serve.api import body_decoding
from service.serve.wire.content_decoder import zstd
from tests.support.budgets import examples
from tests.support.http_connection import ClientConnection, Response
from tests.support.http_requests import Headers, binary, chunked, infer, instances, request
from tests.support.server_pair import Pair

ROW = [5.1, 3.5, 1.4, 0.2]
V1, V2 = "/v1/models/iris:predict", "/v2/models/iris/infer"
BODY = instances([ROW])
TEXT, RAW = binary([ROW] * 3)
Paired = Callable[..., Pair]
ENCODERS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress, "x-gzip": gzip.compress, "GZip": gzip.compress, "deflate": zlib.compress,
    "zstd": zstd.compress, " zstd ,": zstd.compress, "identity": bytes, "": bytes,
}  # fmt: skip
CALLS = {
    "predict": (V1, BODY, ()),
    "version": ("/v1/models/iris/versions/1:predict", instances([ROW] * 3), ()),
    "large": (V1, instances([ROW] * 20_000), ()),
    "invocations": ("/invocations", BODY, ()),
    "infer": (V2, infer([ROW]), ()),
    "binary": (V2, TEXT + RAW, (("Inference-Header-Content-Length", str(len(TEXT))),)),
    "explain": ("/v1/models/iris:explain", BODY, ()),
    "feedback": ("/v1/models/ovr:feedback", instances([ROW], labels=["a"], id="encoded"), ()),
    "classes": ("/v1/models/iris:classes", b'{"add": [1]}', ()),
    "forget": ("/v1/models/iris:forget", b'{"ids": ["unknown"]}', ()),
    "rollback": ("/v1/models/iris:rollback", b'{"seq": 99999}', ()),
    "configure": ("/v1/models/iris:configure", b'{"paused": 1}', ()),
    "convert": ("/v1/convert", b'{"logits": [[1, 2]]}', ()),
    "index": ("/v2/repository/index", b'{"ready": true}', ()),
    "load": ("/v2/repository/models/iris/load", b'{"parameters": 1}', ()),
    "not JSON": (V1, b"{", ()),
    "wrong type": (V1, BODY, (("Content-Type", "text/csv"),)),
    "unknown": ("/unknown", BODY, ()),
}


def encoded(target: str, body: bytes, name: str, headers: Headers = ()) -> bytes:
    """A request whose body is encoded."""
    return request("POST", target, ENCODERS[name](body), [("Content-Encoding", name), *headers])


def statuses(answers: list[Response]) -> list[int]:
    return [answer.status for answer in answers]


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("fast", [True, False], ids=["fast", "plain"])
def test_every_call_takes_encoded_bodies(pair: Pair, call: str, *, fast: bool) -> None:
    """The answer is that of the plain body, in any coding, whole and in chunks, on one connection."""
    target, body, headers = CALLS[call]
    pair.ask(request("POST", target, body, headers))  # the id of feedback exists then
    (plain,) = pair.ask(request("POST", target, body, headers), fast=fast)
    sent = [encoded(target, body, name, headers) for name in ENCODERS]
    packed = gzip.compress(body)
    pieces = [packed[at : at + 1000] for at in range(0, len(packed), 1000)]
    sent.append(chunked("POST", target, pieces, [("Content-Encoding", "gzip"), *headers]))
    assert pair.ask(*sent, fast=fast) == [plain] * len(sent)


@pytest.mark.parametrize("target", [V1, f"{V1}?cold", V2, "/v1/models/iris:feedback", "/v1/convert"])
@pytest.mark.parametrize(
    "lines",
    [["br"], ["gzip, gzip"], ["gzip", "gzip"], ["identity, gzip"], ["gzip", "identity"], ["aws-chunked"], ["\xff"]],
)
def test_other_or_several_codings_are_refused(pair: Pair, target: str, lines: list[str]) -> None:
    """The response is 415 and names the supported ones; a client that expects 100 does not send the body."""
    headers = [("Content-Encoding", line) for line in lines]
    for data in (
        request("POST", target, BODY, headers),
        request("POST", target, BODY, [*headers, ("Expect", "100-continue")])[: -len(BODY)],
    ):
        for fast in (True, False):
            (answer,) = pair.ask(data, fast=fast)
            assert (answer.status, answer.json["code"]) == (415, "unsupported_encoding")
            assert answer.header("accept-encoding") == "gzip, deflate, zstd"


def test_a_client_that_waits_for_continue_is_asked_for_its_body(pair: Pair) -> None:
    """Then the encoded body is answered."""
    data = encoded(V1, BODY, "gzip", [("Expect", "100-continue")])
    head, _, body = data.partition(b"\r\n\r\n")

    async def talk(client: ClientConnection) -> list[int]:
        return [(await client.ask(head + b"\r\n\r\n")).status, (await client.ask(body)).status]

    assert pair.talk(talk) == [100, 200]


@pytest.mark.parametrize("name", ["gzip", "deflate", "zstd"])
def test_a_damaged_body_is_refused_and_the_connection_goes_on(pair: Pair, name: str) -> None:
    """Cut off, with something after it, or not encoded at all: 400 with a code of its own."""
    good = ENCODERS[name](BODY)
    for body in (good[:-1], good + b"\x00", BODY, b"\x00" * 9, good[1:]):
        bad = request("POST", V1, body, [("Content-Encoding", name)])
        answers = pair.ask(bad, encoded(V1, BODY, name), request("POST", V1, BODY))
        assert statuses(answers) == [400, 200, 200]
        assert answers[0].json["code"] == "malformed_encoding"
    assert pair.run(pair.settled()) == (0, 0)


def test_an_empty_body_needs_no_coding(pair: Pair) -> None:
    """There is nothing to decode; calls whose body may be missing take it."""
    headers = [("Content-Encoding", "gzip")]
    assert statuses(pair.ask(request("POST", "/v2/repository/index", b"", headers))) == [200]
    assert pair.ask(request("POST", V1, b"", headers))[0].json["error"] == "The body is empty; send a JSON object."


@pytest.mark.parametrize("name", ["gzip", "deflate", "zstd"])
@pytest.mark.parametrize("fast", [True, False], ids=["fast", "plain"])
def test_a_bomb_is_cut_at_the_limit(paired: Paired, monkeypatch: pytest.MonkeyPatch, name: str, *, fast: bool) -> None:
    """The response is 413, nothing is inflated beyond the limit, and the connection goes on."""
    pair = paired(body_bytes_max=1 << 20)
    read, sizes = body_decoding.ContentDecoder.read, []

    def count(decoder: body_decoding.ContentDecoder, size_max: int) -> bytes:
        part = read(decoder, size_max)
        sizes.append(len(part))
        return part

    monkeypatch.setattr(body_decoding.ContentDecoder, "read", count)
    bomb = encoded(V1, bytes(100 << 20), name)
    answers = pair.ask(bomb, request("POST", V1, BODY), fast=fast)
    assert statuses(answers) == [413, 200]
    assert answers[0].json["code"] == "body_too_large"
    assert sum(sizes) <= (1 << 20) + body_decoding.SLICE_BYTES
    assert pair.run(pair.settled()) == (0, 0)


def test_a_body_of_the_limit_is_accepted(paired: Paired) -> None:
    """The limit counts the decoded bytes, to the byte; more encoded bytes than the limit are refused too."""
    pair = paired(body_bytes_max=5000)
    for size, status in ((5000, 200), (5001, 413)):
        assert statuses(pair.ask(encoded(V1, BODY.ljust(size), "gzip"))) == [status]
    members = gzip.compress(b"") * 300  # 6,000 bytes that stand for none
    chunks = [members[at : at + 20] for at in range(0, len(members), 20)]
    answers = pair.ask(
        request("POST", V1, members, [("Content-Encoding", "gzip")]),
        chunked("POST", V1, chunks, [("Content-Encoding", "gzip")]),
    )
    assert statuses(answers) == [413, 413]


def test_decoded_bytes_count_as_held(paired: Paired) -> None:
    """A worker that would hold too many bytes answers 503, and holds none afterwards."""
    pair = paired(body_bytes_in_flight_max=400_000)
    big = encoded(V1, BODY.ljust(1_000_000), "gzip")
    for fast in (True, False):
        (answer,) = pair.ask(big, fast=fast)
        assert (answer.status, answer.json["code"], answer.header("retry-after")) == (503, "overloaded", "1")
        assert pair.run(pair.settled()) == (0, 0)
    assert statuses(pair.ask(encoded(V1, BODY.ljust(300_000), "gzip"))) == [200]


def test_a_client_that_leaves_leaves_nothing(pair: Pair) -> None:
    """The decoded bytes of a body without an end are released when its client disconnects."""
    data = encoded(V1, BODY.ljust(3_000_000), "gzip")

    async def talk(client: ClientConnection) -> None:
        await client.send_pieces([data[:-5]])
        async with asyncio.timeout(5):
            while pair.worker.shared.body_bytes < 100_000:  # noqa: ASYNC110  # decoded in a thread
                await asyncio.sleep(0.01)

    pair.talk(talk)
    assert pair.run(pair.settled()) == (0, 0)


def test_decoding_leaves_the_event_loop_free(pair: Pair) -> None:
    """While a large body is decoded, other requests are answered."""
    big = encoded(V1, json.dumps({"instances": [ROW], "parameters": "x" * (60 << 20)}).encode(), "gzip")
    answered = 0

    async def ask(client: ClientConnection) -> int:
        nonlocal answered
        async with pair.connect() as other:
            asking = asyncio.create_task(client.ask(big))
            while pair.worker.shared.body_bytes < 1 << 20:  # noqa: ASYNC110  # decoded in a thread
                await asyncio.sleep(0)
            while pair.worker.shared.body_bytes < 50 << 20:
                assert (await other.ask(request("POST", V1, BODY))).status == 200
                answered += 1
            return (await asking).status

    assert pair.talk(ask) == 200
    assert answered > 3


targets = st.sampled_from([V1, f"{V1}?cold", V2, "/v1/models/iris:feedback", "/v1/convert", "/unknown"])
lines = st.lists(
    st.sampled_from(
        [
            ("Content-Encoding", "gzip"), ("Content-Encoding", "deflate"), ("content-encoding", "ZSTD"),
            ("Content-Encoding", "identity"), ("Content-Encoding", ","), ("Content-Type", "text/plain"),
            ("Content-Type", "application/json"), ("Content-Type", "text/csv"), ("Origin", "https://a.example"),
            ("Origin", "null"), ("Sec-Fetch-Site", "same-origin"), ("Sec-Fetch-Site", "cross-site"),
            ("Connection", "keep-alive"), ("Accept-Encoding", "gzip"),
        ]
    ),
    max_size=4,
)  # fmt: skip


@settings(deadline=None, max_examples=examples(150), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    method=st.sampled_from(["POST", "POST", "POST", "GET", "HEAD", "PUT"]),
    target=targets,
    headers=lines,
    body=st.sampled_from([BODY, instances([ROW], labels=["none"]), b"", b"{", b"\xef\xbb\xbf" + BODY]),
    encode=st.sampled_from([bytes, gzip.compress, zlib.compress, zstd.compress]),
    chunks=st.booleans(),
)
def test_both_servers_answer_alike(
    pair: Pair,
    *,
    method: str,
    target: str,
    headers: list[tuple[str, str]],
    body: bytes,
    encode: Callable[[bytes], bytes],
    chunks: bool,
) -> None:
    """Any mix of methods, types, origins and codings has the answer of the plain application, header for header."""
    data = encode(body)
    some = (
        chunked(method, target, [data] if data else [], headers) if chunks else request(method, target, data, headers)
    )
    probe = request("GET", "/healthz")
    assert pair.ask(some, some, probe) == pair.ask(some, some, probe, fast=False)
