"""Frames that no client should send: each is answered or ends its connection, and the service goes on within bounds."""

import contextlib
import os
import socket
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import httpx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.serve.grpc.grpc_messages import InferRequest
from service.serve.grpc.message_framing import frame_message
from tests.support.budgets import examples
from tests.support.grpc_service import GrpcService, grpc_calls, serving_grpc
from tests.support.http2_client import (
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    INFER,
    PING,
    PREFACE,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    Http2Client,
    call_headers,
    frame,
    raw_client,
    read_frames,
)
from tests.support.processes import workers
from tests.support.running_service import NO_TLS
from tests.support.waiting import SECONDS, wait_until

MiB = 1 << 20
BODY_MAX = 1 * MiB
ROW = np.array([[5.1, 3.5, 1.4, 0.2]], "<f4")
# The head of a call, without HPACK's dynamic table: names and values as they are.
HEAD, INFER_HEAD = (
    b"".join(b"\x10" + bytes([len(name)]) + name + bytes([len(value)]) + value for name, value in call_headers(path))
    for path in ("/x/y", INFER)
)


@pytest.fixture(scope="module")
def hostile(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GrpcService]:
    """A service with small limits and short times."""
    limits = {
        "SOFTSTEP_BODY_BYTES_MAX": BODY_MAX,
        "SOFTSTEP_BODY_SECONDS": 1,
        "SOFTSTEP_BODY_RATE_MIN": 100 * MiB,
        "SOFTSTEP_KEEP_ALIVE_SECONDS": 1,
        "SOFTSTEP_WRITE_SECONDS": 1,
        "SOFTSTEP_GRPC_STREAMS_MAX": 16,
        "SOFTSTEP_GRPC_RESETS_MAX": 50,
        "SOFTSTEP_GRPC_UNSENT_BYTES_MAX": 2 * MiB,
        "SOFTSTEP_HEADER_BYTES_MAX": 8192,
        "SOFTSTEP_HEADER_COUNT_MAX": 40,
        "SOFTSTEP_CONNECTIONS_MAX": 64,
    }
    with serving_grpc(models, tmp_path_factory.mktemp("hostile"), **limits) as running:
        yield running


@pytest.fixture(autouse=True)
def _goes_on(hostile: GrpcService) -> Iterator[None]:
    """After each test the same process answers, nothing is held, and its memory has not grown much."""
    (worker,) = workers(hostile.service.process.pid)
    before = resident_bytes(worker)
    yield
    assert workers(hostile.service.process.pid) == [worker]
    with grpc_calls(hostile.target) as calls:
        assert calls.ask("ModelInfer", infer_request()).status == grpc.StatusCode.OK
    wait_until(lambda: metric(hostile, "softstep_request_body_bytes") == 0)
    wait_until(lambda: metric(hostile, "softstep_requests_in_flight") == 0)
    assert resident_bytes(worker) - before < 64 * MiB
    assert "request_failed" not in hostile.service.log.read_text()
    assert "Fatal error" not in hostile.service.log.read_text()


def resident_bytes(process: int) -> int:
    """Return the resident memory of a process."""
    return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def metric(service: GrpcService, name: str) -> float:
    """Return the value of a gauge."""
    text = httpx.get(f"{service.service.url}/metrics", verify=NO_TLS).text
    return float(next(line.split()[1] for line in text.splitlines() if line.startswith(f"{name} ")))


def infer_request(rows: int = 1, model: str = "iris", width: int = 4) -> Any:
    """Return a request of some rows."""
    X = np.zeros((rows, width), "<f4")
    X[:, :4] = ROW
    request = InferRequest(model_name=model)
    request.inputs.add(name="features", datatype="FP32", shape=X.shape)
    request.raw_input_contents.append(X.tobytes())
    return request


REQUEST = frame_message(infer_request().SerializeToString())


@contextlib.contextmanager
def connected(hostile: GrpcService, **options: Any) -> Iterator[Http2Client]:
    """Open a connection."""
    with Http2Client(hostile.address, **options) as client:
        yield client


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (None, (3, "malformed_body")),
        (b"", (3, "malformed_body")),
        (b"\0\0", (3, "malformed_body")),
        (b"\0\0\0\0\1", (3, "malformed_body")),
        (b"\0\0\0\0\0", (5, "model_not_found")),
        (REQUEST[:-1], (3, "malformed_body")),
        (REQUEST + b"\0", (3, "malformed_body")),
        (REQUEST + REQUEST, (3, "malformed_body")),
        (b"\1" + REQUEST[1:], (12, "unsupported_encoding")),
        (b"\2" + REQUEST[1:], (3, "malformed_body")),
        (b"\0\xff\xff\xff\xff" + REQUEST[5:], (8, "body_too_large")),
        (struct.pack(">BI", 0, BODY_MAX + 1), (8, "body_too_large")),
    ],
)
def test_a_frame_that_is_not_valid_is_refused(hostile: GrpcService, data: bytes, status: tuple[int, str]) -> None:
    """In one piece, and byte by byte; the connection goes on."""
    with connected(hostile) as client:
        assert client.ask(call_headers(), data) == status
        stream = client.begin(call_headers(), b"", ended=False)
        for byte in data or b"":
            with contextlib.suppress(Exception):  # it may be refused before the end
                client.connection.send_data(stream, bytes([byte]))
                client.flush()
        with contextlib.suppress(Exception):
            client.connection.end_stream(stream)
            client.flush()
        client.read(stream)
        assert client.status(stream) == status
        assert client.ask(call_headers(), REQUEST) == (0, "")


@pytest.mark.parametrize(
    ("headers", "status", "code"),
    [
        (call_headers(content_type="application/json"), b"415", b"unsupported_media_type"),
        (call_headers(content_type="application/grpcx"), b"415", b"unsupported_media_type"),
        (call_headers(method="GET"), b"405", b"method_not_allowed"),
    ],
)
def test_a_client_without_grpc_gets_an_answer_of_http(
    hostile: GrpcService, headers: Any, status: bytes, code: bytes
) -> None:
    """Its status and body are those of HTTP."""
    with connected(hostile) as client:
        stream = client.begin(headers, b"{}")
        client.read(stream)
        assert client.headers[stream][b":status"] == status
        assert code in client.data[stream]


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        (call_headers(content_type="application/grpc+proto"), (0, "")),
        (call_headers(content_type="application/grpc;charset=utf-8"), (0, "")),
        (call_headers(grpc_timeout="10S"), (0, "")),
        (call_headers(grpc_timeout="123456789S"), (3, "malformed_http")),
        (call_headers(grpc_timeout="-1S"), (3, "malformed_http")),
        (call_headers(grpc_timeout="1"), (3, "malformed_http")),
        (call_headers(grpc_encoding="gzip"), (0, "")),
        (call_headers("/x/y"), (12, "not_found")),
        (call_headers("/inference.GRPCInferenceService/ModelStreamInfer"), (12, "not_found")),
        (call_headers(authority="evil.example"), (7, "host_not_permitted")),
        (call_headers(authority="[::1"), (3, "malformed_http")),
        ([*call_headers(), (b"authorization", b"a"), (b"authorization", b"b")], (3, "malformed_http")),
    ],
)
def test_a_head_is_checked(hostile: GrpcService, headers: Any, status: tuple[int, str]) -> None:
    """Its type, time, host and keys."""
    with connected(hostile) as client:
        assert client.ask(headers, REQUEST) == status


def test_a_call_ends_at_its_deadline(hostile: GrpcService) -> None:
    """Also while its request is not complete."""
    with connected(hostile) as client:
        stream = client.begin(call_headers(grpc_timeout="50m"), REQUEST[:5], ended=False)
        client.read(stream)
        assert client.status(stream) == (4, "")
        assert client.ask(call_headers(grpc_timeout="0n"), REQUEST) in {(0, ""), (4, "")}


def test_a_slow_request_is_ended(hostile: GrpcService) -> None:
    """Its connection goes on with other calls."""
    with connected(hostile) as client:
        slow = client.begin(call_headers(), REQUEST[:5], ended=False)
        assert client.ask(call_headers(), REQUEST) == (0, "")
        client.read(slow)
        assert client.status(slow) == (1, "request_timeout")


def test_a_connection_without_calls_is_closed(hostile: GrpcService) -> None:
    """With GOAWAY; also one whose client sends PINGs, or part of a head, or nothing at all."""
    with (
        connected(hostile) as client,
        raw_client(hostile.address) as pings,
        raw_client(hostile.address) as part,
        socket.create_connection(hostile.address, SECONDS) as silent,
    ):
        assert client.ask(call_headers(), REQUEST) == (0, "")
        part.sendall(frame(HEADERS, 0, 1, HEAD))
        for _ in range(20):
            pings.sendall(frame(PING, 0, 0, bytes(8)))
        client.read_to_end()
        assert client.goaways[-1][1] == 0
        for end in (pings, part, silent):
            kinds = [kind for kind, _, _, _ in read_frames(end)]
            assert kinds[0] == SETTINGS
            assert kinds[-1] == GOAWAY


def test_streams_beyond_the_limit_are_refused(hostile: GrpcService) -> None:
    """A client that opens them all the same gets RST_STREAM with REFUSED_STREAM; the others are answered."""
    with connected(hostile, peer_max_concurrent_streams=1000) as client:
        client.read(seconds=0)
        streams = [client.connection.send_request(call_headers()) for _ in range(40)]
        client.flush()
        client.end.settimeout(SECONDS)
        while len(client.resets) < 24:
            client.read_some()
        assert set(client.resets.values()) == {7}
        for stream in streams[:16]:
            client.connection.send_data(stream, REQUEST, end_stream=True)
        client.flush()
        client.read(*streams)
        assert [client.status(stream) for stream in streams[:16]] == [(0, "")] * 16


def test_rapid_resets_close_the_connection(hostile: GrpcService) -> None:
    """A client may cancel some calls at once, but not thousands (CVE-2023-44487)."""
    with raw_client(hostile.address) as end:
        for number in range(10_000):
            stream = 2 * number + 1
            begun = frame(HEADERS, END_HEADERS, stream, HEAD)
            with contextlib.suppress(OSError):
                end.sendall(begun + frame(RST_STREAM, 0, stream, struct.pack(">I", 8)))
        frames = read_frames(end)
    assert frames[-1][0] == GOAWAY
    answered = {stream for kind, _, stream, _ in frames if kind == HEADERS}
    assert len(answered) < 1000


def test_streams_that_a_client_has_the_server_reset_are_bounded(hostile: GrpcService) -> None:
    """Faults of a stream end its call, and their number is limited too (CVE-2025-8671)."""
    with raw_client(hostile.address) as end:
        for number in range(20_000):
            stream = 2 * number + 1
            begun = frame(HEADERS, END_HEADERS, stream, INFER_HEAD) + frame(DATA, 0, stream, REQUEST[:9])
            with contextlib.suppress(OSError):
                end.sendall(begun + frame(WINDOW_UPDATE, 0, stream, struct.pack(">I", 0)))
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_WR)
        frames = read_frames(end)
    assert frames[-1][0] == GOAWAY


def test_calls_that_are_cancelled_in_time_are_no_attack(hostile: GrpcService) -> None:
    """The connection goes on."""
    with connected(hostile) as client:
        for _ in range(20):
            stream = client.begin(call_headers(), REQUEST[:3], ended=False)
            client.connection.reset_stream(stream)
            client.flush()
        assert client.ask(call_headers(), REQUEST) == (0, "")


@pytest.mark.parametrize(
    "frames",
    [
        # Continuations without end (CVE-2024-27316), an unknown one, and headers that are too large when decoded.
        frame(HEADERS, 0, 1, HEAD) + frame(CONTINUATION, 0, 1, HEAD) * 1000,
        frame(CONTINUATION, END_HEADERS, 1, HEAD),
        frame(HEADERS, END_HEADERS, 1, HEAD + b"\x10\x01a\x7f\x81\x7e" + b"x" * 16_384),
        frame(HEADERS, END_HEADERS | END_STREAM, 1, HEAD + b"\x10\x01a\x01b" * 60),
        frame(HEADERS, END_HEADERS, 1, HEAD + b"\x40\x01a\x7f\x01" + b"x" * 128 + b"\xbe" * 200),
        # HPACK that is not valid: an index of no entry, a string beyond its end, a table that is too large.
        frame(HEADERS, END_HEADERS, 1, b"\xff\xff\xff\xff\x7f"),
        frame(HEADERS, END_HEADERS, 1, b"\x40\x7f\xff"),
        frame(HEADERS, END_HEADERS, 1, b"\x3f\xff\xff\xff\x7f" + HEAD),
        # Frames of wrong sizes and streams.
        frame(SETTINGS, 0, 0, b"abc"),
        frame(SETTINGS, 0, 1),
        frame(SETTINGS, 0, 0, struct.pack(">HI", 1, 4096) * 64),
        frame(PING, 0, 0, b"short"),
        frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", 0)),
        frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", 0x7FFFFFFF)) * 2,
        frame(DATA, 0, 1, b"before its head"),
        frame(DATA, 0, 0, b"of no stream"),
        frame(HEADERS, END_HEADERS, 2, HEAD),
        frame(RST_STREAM, 0, 99, struct.pack(">I", 8)),
        frame(99, 0, 0, b"x" * 16_384 * 4),
        b"\xff" * 100,
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    ],
)
def test_frames_that_are_not_valid_end_the_connection(hostile: GrpcService, frames: bytes) -> None:
    """The client gets GOAWAY before, and no other answer."""
    with raw_client(hostile.address) as end:
        with contextlib.suppress(OSError):
            end.sendall(frames)
        found = read_frames(end)
    assert GOAWAY in {kind for kind, _, _, _ in found}
    assert DATA not in {kind for kind, _, _, _ in found}


@pytest.mark.parametrize(
    "flood",
    [
        frame(PING, 0, 0, bytes(8)),
        frame(SETTINGS, 0, 0),
        frame(SETTINGS, 0, 0, struct.pack(">HI", 4, 65_535)),
        frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", 1)),
        frame(2, 0, 1, bytes(5)),
    ],
    ids=["ping", "settings", "window", "update", "priority"],
)
def test_floods_of_control_frames_are_bounded(hostile: GrpcService, flood: bytes) -> None:
    """A client that reads no answers is closed, or its frames are ignored; memory does not grow."""
    with raw_client(hostile.address) as end, contextlib.suppress(OSError):
        end.settimeout(2.0)
        for _ in range(200):
            end.sendall(flood * 500)


def test_a_client_with_no_window_gets_no_answers_but_holds_few(hostile: GrpcService) -> None:
    """Answers wait within the limit, further ones are refused, and the connection is closed after some time."""
    rows = frame_message(infer_request(65_000).SerializeToString())
    assert len(rows) < BODY_MAX + 100
    with connected(hostile, settings={4: 0}) as client:
        streams = [client.begin(call_headers(), rows) for _ in range(8)]
        client.end.settimeout(SECONDS)
        while len(client.trailers) < 5:
            client.read_some()
        refused = [stream for stream in streams if stream in client.trailers]
        assert {client.status(stream) for stream in refused} == {(14, "overloaded")}
        client.read_to_end()
    assert not client.data


def test_a_client_that_reads_nothing_is_closed(hostile: GrpcService) -> None:
    """Its window is as large as can be, but its socket is full."""
    rows = frame_message(infer_request(65_000).SerializeToString())
    with connected(hostile, settings={4: 0x7FFFFFFF}) as client:
        client.connection.set_local_window_size(0x7FFFFFFF)
        for _ in range(200):
            with contextlib.suppress(Exception):
                client.connection.send_data(client.connection.send_request(call_headers()), rows, end_stream=True)
        client.end.settimeout(0.2)
        for _ in range(50):
            client.flush()
        wait_until(lambda: metric(hostile, "softstep_connections") <= 1, 4 * SECONDS)


def test_bodies_beyond_the_limit_are_refused_before_they_are_complete(hostile: GrpcService) -> None:
    """The refusal comes with the first bytes; the client is asked to send no more."""
    with connected(hostile) as client:
        stream = client.begin(call_headers(), struct.pack(">BI", 0, BODY_MAX + 1) + b"x" * 1000, ended=False)
        client.read(stream)
        assert client.status(stream) == (8, "body_too_large")
        client.end.settimeout(SECONDS)
        while stream not in client.resets:
            client.read_some()
        assert client.resets[stream] == 0
        assert client.ask(call_headers(), REQUEST) == (0, "")


def is_closed(end: socket.socket) -> bool:
    """Return whether the server has closed a connection, or reset it."""
    try:
        return not end.recv(1 << 16)
    except ConnectionResetError:
        return True


def test_connections_beyond_the_limit_are_closed(hostile: GrpcService) -> None:
    """They count together with those of HTTP."""
    with contextlib.ExitStack() as stack:
        ends = [stack.enter_context(raw_client(hostile.address)) for _ in range(70)]
        closed = [end for end in ends if is_closed(end)]
        assert 5 <= len(closed) <= 8


@given(data=st.lists(st.tuples(st.integers(0, 10), st.integers(0, 255), st.integers(0, 5), st.binary(max_size=40))))
@settings(max_examples=examples(200), deadline=None)
def test_any_frames_end_in_an_answer_or_a_close(hostile: GrpcService, data: list[tuple[int, int, int, bytes]]) -> None:
    """The process stays the same."""
    with socket.create_connection(hostile.address, SECONDS) as end, contextlib.suppress(OSError):
        end.sendall(PREFACE + frame(SETTINGS, 0, 0) + frame(HEADERS, END_HEADERS, 1, HEAD))
        end.sendall(b"".join(frame(*one) for one in data) + frame(GOAWAY, 0, 0, bytes(8)))
        end.shutdown(socket.SHUT_WR)
        read_frames(end)
