"""Models to serve, a service in its own process, two servers in a thread, and a client of raw HTTP.

`Pair` runs two servers of the same models on one event loop: the service's own protocol, the fast one, and
uvicorn's, the plain one. The client runs on that loop too, so it can wait until a server has received each piece.

Every error that a client reads here is held to the table of error codes (error_bodies.py).
"""

import asyncio
import contextlib
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator, Sequence
from http.client import HTTPResponse
from pathlib import Path
from typing import Any, NamedTuple, Self, TypeVar

import httpx
import numpy as np
import orjson
import uvicorn
import uvloop
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from service.process.shared_memory import HANDLED, STATUS_MAX, STATUSES, SharedMemory
from service.process.unload_list import publish_unload_list, read_unload_list
from service.process.wakeup import Wakeup
from service.serve.api.app import make_app
from service.serve.http.protocol import SoftstepProtocol
from service.serve.models import load_unload as orders
from service.serve.wire.feedback_tokens import TokenKeys
from service.serve.worker import Server, Worker, WorkerLinks, config_of
from service.settings import Settings
from service.store.artifact.artifact import Artifact, write_artifact
from service.store.directory.data_directory import DataDirectory
from tests.support.error_bodies import check_error, is_error

ROOT = Path(__file__).parents[2]
SHIPPED = ROOT / "models"
SECONDS = 5.0
START_SECONDS = 60.0
T = TypeVar("T")
Headers = Iterable[tuple[str, str]]
Parameters = dict[str, Any]


# Models


def make_artifact(
    head: str,
    n_features: int,
    classes: list[str],
    dtype: str = "float32",
    *,
    seed: int = 7,
    hidden: Sequence[int] = (),
    **fields: Any,
) -> Artifact:
    """Make an artifact with random weights; `hidden` are the widths of hidden layers."""
    random = np.random.default_rng(seed)
    n_outputs = 1 if head == "sigmoid" else len(classes)
    layers, tensors, inputs = [], {}, n_features
    for number, width in enumerate(hidden):
        names = f"hidden.{number}.weight", f"hidden.{number}.bias"
        layers.append({"weight": names[0], "bias": names[1], "activation": ("sigmoid", "tanh", "relu")[number % 3]})
        tensors[names[0]] = (random.standard_normal((inputs, width)) / np.sqrt(inputs)).astype(dtype)
        tensors[names[1]] = random.standard_normal(width).astype(dtype)
        inputs = width
    layers.append({"weight": "weight", "bias": "bias", "activation": "identity"})
    features = [f"x{i}" for i in range(n_features)]
    manifest = {"head": head, "classes": classes, "features": features, "dtype": dtype, "layers": layers, **fields}
    tensors["weight"] = (random.standard_normal((inputs, n_outputs)) / np.sqrt(inputs)).astype(dtype)
    return Artifact.from_fields(manifest, {**tensors, "bias": random.standard_normal(n_outputs).astype(dtype)})


def extra_artifacts() -> dict[str, Artifact]:
    """Make a model of each kind that is not shipped."""
    stage = {"mean": [1.0, -2.0, 0.5], "scale": [2.0, 0.5, 1.0], "clip": 3.0}
    return {
        "heavy": make_artifact("softmax", 768, [f"c{k}" for k in range(1000)]),
        "double": make_artifact("softmax", 3, ["a", "b", "c"], "float64"),
        "ovr": make_artifact("ovr", 4, ["a", "b", "c"]),
        "tags": make_artifact("multilabel", 3, ["a", "b", "ü\n"], thresholds=[0.2, 0.5, 0.8]),
        "staged": make_artifact("softmax", 3, ["a", "b"], stage=stage),
        "network": make_artifact("softmax", 3, ["a", "b", "c"], hidden=(17, 5), stage=stage),
        "cool": make_artifact(
            "softmax",
            3,
            ["a", "b", "c"],
            hidden=(9,),
            calibration={"kind": "temperature", "learn": True, "temperature": 2.5},
        ),
        "platt": make_artifact("sigmoid", 4, ["no", "yes"], calibration={"kind": "platt", "a": 0.5, "b": -1.0}),
        "deep": make_artifact("multilabel", 4, ["a", "b"], "float64", hidden=(6,) * 12),
    }


def write_models(root: Path) -> Path:
    """Write the shipped models and the extra ones into a directory, and return it."""
    shutil.copytree(SHIPPED, root, ignore=shutil.ignore_patterns("*.py", "__pycache__"))
    for name, artifact in extra_artifacts().items():
        write_artifact(root / name / "1", artifact)
    return root


# A service in processes of its own


class Service(NamedTuple):
    """A running `softstep serve`."""

    url: str
    process: subprocess.Popen[str]
    log: Path

    @property
    def address(self) -> tuple[str, int]:
        """The host and port."""
        url = httpx.URL(self.url)
        return url.host, int(url.port or 80)


@contextlib.contextmanager
def serving(models: Path, scratch: Path, *, workers: int = 1, **environment: object) -> Iterator[Service]:
    """Run `softstep serve` on a free port until the end of the block.

    Args:
        models: The models directory.
        scratch: Where the data directory and the service's log are made.
        workers: The number of worker processes.
        environment: Further environment variables.
    """
    variables = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("SOFTSTEP_", "AIP_"))},
        "SOFTSTEP_PORT": "0",
        "SOFTSTEP_DRAIN_SECONDS": "0",
        **{name: str(value) for name, value in environment.items()},
    }
    command = [sys.executable, "-m", "service", "serve", "--models", str(models), "--data", str(scratch / "data")]
    log = scratch / "log"
    with (
        log.open("w") as errors,
        subprocess.Popen(
            [*command, "--workers", str(workers)], env=variables, cwd=ROOT, stdout=-1, stderr=errors, text=True
        ) as process,
    ):
        try:
            yield Service(_ready_url(process, workers, log), process, log)
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(SECONDS)


def _ready_url(process: subprocess.Popen[str], workers: int, log: Path) -> str:
    """Return the URL of a service once all its workers take predictions; fail with its log if they never do."""
    assert process.stdout is not None
    until = time.monotonic() + START_SECONDS
    url = ""
    while time.monotonic() < until and process.poll() is None:
        if not url and select.select([process.stdout], [], [], 0.1)[0]:
            url = (process.stdout.readline().split() + [""] * 3)[2]
        if url and is_ready(url, workers):
            return url
        time.sleep(0.02)
    raise AssertionError(f"the service is not ready, exit code {process.poll()}; its log:\n{log.read_text()}")


def is_ready(url: str, workers: int) -> bool:
    """Return whether all workers of a service take predictions."""
    with contextlib.suppress(httpx.TransportError):
        return f"softstep_workers_ready {workers}.0\n" in httpx.get(f"{url}/metrics", timeout=2).text
    return False


def wait_until(condition: Callable[[], bool], seconds: float = SECONDS) -> None:
    """Wait until a condition holds; fail after some seconds."""
    pause = threading.Event()
    for _ in range(int(seconds / 0.02)):
        if condition():
            return
        pause.wait(0.02)
    raise AssertionError("the condition did not hold in time")


# Two servers on one loop


class Pair:
    """Both servers on one event loop in a thread, with a log and without a learner.

    Attributes:
        worker: The parts of the fast server's worker.
        fast_listener: The listening socket of the service's own protocol.
        plain_listener: The listening socket of uvicorn's protocol.
        received: The number of bytes that both servers have received.
        loop: The event loop of servers and client.
        orders: The pipe's end that receives the worker's load and unload requests.
    """

    def __init__(self, models: Path, **settings: Any) -> None:
        self._scratch = tempfile.TemporaryDirectory()
        self.settings = Settings(models=models, **{"scan_seconds": 60.0, "data": Path(self._scratch.name), **settings})
        self.shared_memory = SharedMemory(1, 64)
        self.received = 0
        self.fast_listener, self.plain_listener = (socket.create_server(("127.0.0.1", 0)) for _ in range(2))
        self.loop = uvloop.new_event_loop()
        self.orders, pipe = os.pipe()
        links = None
        if self.settings.learn:
            links = WorkerLinks(DataDirectory(self.settings.data), TokenKeys([bytes(32)]), Wakeup(), (Wakeup(),))
        self.worker = Worker(self.settings, self.shared_memory, 0, pipe, links)
        self._servers: list[uvicorn.Server] = []
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        wait_until(lambda: len(self._servers) == 2 and all(server.started for server in self._servers))
        return self

    def __exit__(self, *_: object) -> None:
        for server in self._servers:
            server.should_exit = True
        self._thread.join(3 * SECONDS)
        self.loop.close()
        self._scratch.cleanup()

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        self.loop.run_until_complete(self._serve())

    async def _serve(self) -> None:
        worker = self.worker
        self.loop.add_reader(self.orders, self._carry)
        protocol = self._counting(SoftstepProtocol.bound(worker.shared))
        fast_app = make_app(worker.context, worker.counters, worker.lifespan)
        plain_app = make_app(worker.context, worker.counters)
        self._servers += [
            Server(config_of(self.settings, fast_app, protocol), worker.shared),
            uvicorn.Server(config_of(self.settings, plain_app, self._counting(HttpToolsProtocol))),
        ]
        sockets = (self.fast_listener, self.plain_listener)
        await asyncio.gather(
            *(server.serve([listener]) for server, listener in zip(self._servers, sockets, strict=True))
        )
        self.loop.remove_reader(self.orders)

    @property
    def connections(self) -> set[Any]:
        """The open connections of the fast server."""
        return self._servers[0].server_state.connections

    @property
    def total_requests(self) -> int:
        """The requests that uvicorn counted at the fast server."""
        return self._servers[0].server_state.total_requests

    def statuses(self) -> dict[int, int]:
        """Return the number of responses by status."""
        counts = {status: self.shared_memory.sum_over_workers(STATUSES + status) for status in range(100, STATUS_MAX)}
        return {status: count for status, count in counts.items() if count}

    def _carry(self) -> None:
        """Carry out a worker's load or unload request as the parent process does."""
        for line in os.read(self.orders, 4096).splitlines():
            unloaded = orders.apply_line(
                frozenset(orjson.loads(read_unload_list(self.shared_memory)[1] or b"[]")), line
            )
            publish_unload_list(self.shared_memory, orjson.dumps(sorted(unloaded)))
            self.shared_memory.cells[self.shared_memory.slot(0) + HANDLED] = orders.parse_slot_and_token(line)[1]

    def _counting(self, protocol: type[Any]) -> type[Any]:
        pair = self

        class Counting(protocol):  # type: ignore[misc]
            def data_received(self, data: bytes) -> None:
                pair.received += len(data)
                super().data_received(data)

        return Counting

    def run(self, coroutine: Coroutine[Any, Any, T], seconds: float = 12.0) -> T:
        """Run a coroutine on the servers' loop and return its result."""
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(seconds)

    def talk(self, conversation: Callable[["Line"], Coroutine[Any, Any, T]], *, fast: bool = True) -> T:
        """Run a conversation over one connection and return its result."""

        async def connected() -> T:
            async with self.connect(fast=fast) as line:
                return await conversation(line)

        return self.run(connected())

    def ask(self, *requests: bytes, fast: bool = True) -> list["Response"]:
        """Send requests one by one over one connection and return the responses."""

        async def talk(line: Line) -> list[Response]:
            return [await line.ask(request) for request in requests]

        return self.talk(talk, fast=fast)

    @contextlib.asynccontextmanager
    async def connect(self, *, fast: bool = True) -> AsyncIterator["Line"]:
        """Connect to one of the servers until the end of the block."""
        listener = self.fast_listener if fast else self.plain_listener
        with socket.socket() as end:
            end.setblocking(False)
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await self.loop.sock_connect(end, listener.getsockname())
            yield Line(self, end)

    async def taken(self, count: int) -> None:
        """Wait until the servers have received this many bytes in total."""
        async with asyncio.timeout(SECONDS):
            while self.received < count:  # noqa: ASYNC110  # there is no event to wait for
                await asyncio.sleep(0)

    async def settled(self) -> tuple[int, int]:
        """Wait until no request is in flight; return the requests in flight and the body bytes that are held."""
        shared = self.worker.shared
        async with asyncio.timeout(SECONDS):
            while shared.in_flight or shared.body_bytes:  # noqa: ASYNC110  # there is no event to wait for
                await asyncio.sleep(0.01)
        return shared.in_flight, shared.body_bytes


class Response(NamedTuple):
    """An HTTP response as received, without its date."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes

    def header(self, name: str) -> str | None:
        """The value of a header, or None."""
        return dict(self.headers).get(name)

    @property
    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)


CLOSED = Response(0, (), b"")
# The body with which uvicorn's own protocol answers bytes that are not HTTP.
UVICORN_MALFORMED = b"Invalid HTTP request received."


def checked(response: Response, target: str | None = None, *, has_body: bool = True) -> Response:
    """Return a response; check it against the table of error codes if it is an error with a body."""
    if has_body and response.body != UVICORN_MALFORMED and is_error(response.status, response.body):
        check_error(response.status, dict(response.headers), response.body, target)
    return response


class Line:
    """A client's end of a connection."""

    def __init__(self, pair: Pair, end: socket.socket) -> None:
        self.pair = pair
        self.end = end
        self.unread = b""

    async def send(self, data: bytes) -> None:
        """Send bytes as they are."""
        await self.pair.loop.sock_sendall(self.end, data)

    async def send_pieces(self, pieces: Iterable[bytes]) -> None:
        """Send pieces, each after the server has received the previous one; nothing else may send meanwhile."""
        for piece in pieces:
            goal = self.pair.received + len(piece)
            await self.send(piece)
            await self.pair.taken(goal)

    async def ask(self, request: bytes) -> Response:
        """Send a request and read its response."""
        await self.send(request)
        return await self.read(target_of(request), has_body=not request.startswith(b"HEAD"))

    async def more(self) -> bool:
        """Read what has arrived; return False at the end of the connection."""
        try:
            async with asyncio.timeout(SECONDS):
                data = await self.pair.loop.sock_recv(self.end, 1 << 18)
        except ConnectionResetError:
            return False
        self.unread += data
        return bool(data)

    async def read(self, target: str | None = None, *, has_body: bool = True) -> Response:
        """Read one response, or CLOSED if the connection ends before it is complete; check errors.

        Args:
            target: The request's target, if it is known.
            has_body: False for the response to HEAD.
        """
        while b"\r\n\r\n" not in self.unread:
            if not await self.more():
                return CLOSED
        head, _, self.unread = self.unread.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = tuple((name, value) for name, _, value in (line.partition(": ") for line in lines) if name != "date")
        length = int(dict(headers).get("content-length", 0)) if has_body else 0
        while len(self.unread) < length:
            if not await self.more():
                return CLOSED
        body, self.unread = self.unread[:length], self.unread[length:]
        return checked(Response(int(first.split()[1]), headers, body), target, has_body=has_body)

    async def ended(self) -> bool:
        """Return whether the connection ends without another byte."""
        return not self.unread and not await self.more()


# Requests


def target_of(data: bytes) -> str | None:
    """Return the target of a request, or None if the bytes are not a request."""
    words = data.partition(b"\r\n")[0].split(b" ")
    return words[1].decode("latin-1") if len(words) == 3 and words[2].startswith(b"HTTP/1") else None


def request(
    method: str, target: str, body: bytes | None = None, headers: Headers = (), *, version: str = "1.1"
) -> bytes:
    """Return a request with a fixed id, and with Content-Length if it has a body."""
    lines = [f"{method} {target} HTTP/{version}", "Host: softstep", "X-Request-Id: test"]
    lines += [f"{name}: {value}" for name, value in headers]
    if body is not None:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + (body or b"")


def chunked(method: str, target: str, chunks: Iterable[bytes], headers: Headers = (), trailers: bytes = b"") -> bytes:
    """Return a request whose body is chunked."""
    head = request(method, target, None, [*headers, ("Transfer-Encoding", "chunked")])
    return head + b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n" + trailers + b"\r\n"


def instances(rows: Any, **more: Any) -> bytes:
    """Return a v1 body."""
    return json.dumps({"instances": rows, **more}).encode()


def infer(rows: list[list[float]], datatype: str = "FP32", **more: Any) -> bytes:
    """Return a v2 body in JSON."""
    return json.dumps({"inputs": [tensor(rows, datatype)], **more}).encode()


def tensor(rows: list[list[float]], datatype: str = "FP32") -> Parameters:
    """Return a v2 input in JSON."""
    return {"name": "features", "shape": [len(rows), len(rows[0])], "datatype": datatype, "data": rows}


def binary(
    rows: Any, dtype: str = "<f4", datatype: str = "FP32", input_fields: Parameters | None = None, **more: Any
) -> tuple[bytes, bytes]:
    """Return the JSON part and the tensor of a v2 body with binary data."""
    X = np.asarray(rows, dtype)
    raw = X.tobytes()
    parameters = {"binary_data_size": len(raw)}
    entry = {
        "name": "x",
        "shape": list(X.shape),
        "datatype": datatype,
        "parameters": parameters,
        **(input_fields or {}),
    }
    return json.dumps({"inputs": [{**entry, **(input_fields or {})}], **more}).encode(), raw


def binary_request(target: str, text: bytes, raw: bytes, headers: Headers = ()) -> bytes:
    """Return a v2 request with binary data."""
    return request("POST", target, text + raw, [("Inference-Header-Content-Length", str(len(text))), *headers])


def ask(service: Service, data: bytes) -> Response:
    """Send bytes to a running service and read the response."""
    with socket.create_connection(service.address, SECONDS) as end:
        with contextlib.suppress(ConnectionError):  # a refusal may come before the end
            end.sendall(data)
        answer = HTTPResponse(end, method=data.partition(b" ")[0].decode("latin-1"))
        answer.begin()
        headers = tuple((name.lower(), value) for name, value in answer.getheaders())
        response = Response(answer.status, headers, answer.read())
        return checked(response, target_of(data), has_body=not data.startswith(b"HEAD"))
