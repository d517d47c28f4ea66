"""The fast path: requests to models, and probes, answered from the parser's callbacks before a scope or a task exists.

A head that was parsed once is remembered with what it meant (shared_state.py), so the same bytes need no parser. A
property test holds every response to that of the FastAPI routes.
"""

import asyncio
from functools import partial
from typing import Any, Final, cast

import orjson

from service.serve.handlers.turns import LARGE_BYTES
from service.serve.http.connection import BODY, NEVER, NO_HEAD, Connection
from service.serve.http.shared_state import (
    BUSY,
    HEAD_BYTES_MAX,
    PREDICTIONS,
    CachedHead,
    PendingGet,
    PendingRequest,
)
from service.serve.models.endpoint import FEEDBACK, Endpoint
from service.serve.models.single_row import SingleRow
from service.serve.responses import BROKEN, HttpResponse, RequestHead, error

CHUNKED: Final = -1
# The methods of probes, and the headers of a request that has a body or waits before it sends one.
PENDING_PROBES: Final = {b"GET": PendingGet}
BODY_FIELDS: Final = frozenset((b"content-length", b"transfer-encoding", b"expect"))


class FastPath(Connection):
    """A connection that answers requests to models by itself."""

    def _repeat(self, cached: CachedHead, data: bytes) -> None:
        """Answer a request whose head is remembered: `_answer`, without what such a request does not need."""
        shared = self.shared
        endpoint = cached.endpoint
        single_row = endpoint.single_row
        label = -1 if single_row is None else single_row.predict_row(data, len(cached.head))
        if label >= 0:
            self._send_single_row(cast("SingleRow", single_row), endpoint.served.v1_single[label])
            status = 200
        elif endpoint.kind == FEEDBACK:
            self._start_feedback(cached, data)
            return
        else:
            handler = shared.dispatcher.handlers[endpoint.kind]
            try:
                response = handler(endpoint, cached.request, data[len(cached.head) :])
            except Exception as error:  # noqa: BLE001  # logged with the request's id
                cycle = PendingRequest(cached.url, "1.1", keep_alive=True)
                self._write(BROKEN, cycle, self._log_failure(error, NO_HEAD))
                return
            if not isinstance(response, HttpResponse):
                self._await(response, NO_HEAD, PendingRequest(cached.url, "1.1", keep_alive=True))
                return
            status = response.status
            if not self.transport.is_closing():
                self._send(response, NO_HEAD, closes=False)
        self.server_state.total_requests += 1
        self.deadline = self.loop.time() + shared.keep_alive_seconds
        if self.access_log:
            self._log_access(b"POST", cached.url, "1.1", status)

    def _send_single_row(self, single_row: SingleRow, rest: bytes) -> None:
        """Write the response to a single row whose probabilities are computed; `rest` is what follows them."""
        shared = self.shared
        numbers = orjson.dumps(single_row.P, None, orjson.OPT_SERIALIZE_NUMPY)
        form = shared.single_row_form(self.server_state.default_headers)
        size = len(PREDICTIONS) + len(numbers) + len(rest)
        single_row.count_row()  # count first: a crash after writing would lose the count
        if not self.transport.is_closing():
            self.transport.write(form % (size, next(shared.numbers), numbers, rest))

    def _start_feedback(self, cached: CachedHead, data: bytes) -> None:
        """Store feedback whose head is remembered; its cycle stands for it until the response is written."""
        cycle = PendingRequest(cached.url, "1.1", keep_alive=True)
        on_response = partial(self._finish_feedback, cycle)
        try:
            response: HttpResponse | Exception | None = self.shared.dispatcher.start_feedback(
                cached.endpoint, data[len(cached.head) :], on_response
            )
        except Exception as error:  # noqa: BLE001  # logged with the request's id
            response = error
        self.cycle = cast("Any", cycle)
        self.deadline = NEVER
        self.shared.in_flight += 1
        if response is not None:
            on_response(response)

    def _finish_feedback(self, cycle: PendingRequest, response: HttpResponse | Exception) -> None:
        """Write the response to feedback, unless its client has left."""
        self.shared.in_flight -= 1
        head = NO_HEAD
        if not isinstance(response, HttpResponse):
            head = self._log_failure(response, head)
            response = BROKEN
        if not cycle.disconnected:
            self._write(response, cycle, head)

    def _begin_fast(self) -> bool:
        """Begin a request to a model if its response can be the next one on this connection; else return False."""
        shared = self.shared
        endpoint = shared.registry.now.fast_endpoints.get(self.url)
        if endpoint is None or self.expect_100_continue or self.parser.get_method() != b"POST":
            return False
        if self.cycle is not None and not self.cycle.response_complete:
            return False
        self.phase = BODY
        cycle = PendingRequest(self.url, self.parser.get_http_version(), keep_alive=self._keeps_alive())
        self.cycle = cast("Any", cycle)
        declared = int(self.fields.get(b"content-length", 0))
        head: RequestHead | HttpResponse
        if declared > shared.settings.body_bytes_max:
            head = self._body_too_large()
        elif shared.is_full(declared, len(self.tasks)):
            head = BUSY
        else:
            head = shared.dispatcher.check(endpoint, RequestHead.of(self.fields))
        if isinstance(head, HttpResponse):
            self._write(head, cast("Any", self.cycle), RequestHead.of(self.fields))
        else:
            self.request = head
            self.endpoint = endpoint
            self.parts = []
        return True

    def _begin_probe(self) -> bool:
        """Answer a probe, so that it never waits for the application's turn; return False for any other request."""
        shared, method = self.shared, self.parser.get_method()
        answer = shared.probes.get(self.url.partition(b"?")[0])
        if answer is None or method not in PENDING_PROBES or not BODY_FIELDS.isdisjoint(self.fields):
            return False
        if self.cycle is not None and not self.cycle.response_complete:
            return False
        self.phase = BODY
        cycle = PENDING_PROBES[method](self.url, self.parser.get_http_version(), keep_alive=self._keeps_alive())
        self.cycle = cast("Any", cycle)
        self._write(answer(), cycle, RequestHead.of(self.fields))
        return True

    def _keeps_alive(self) -> bool:
        """Whether the connection stays open after the response to the request whose head is complete."""
        keeps_alive = self.parser.get_http_version() != "1.0" and bool(self.parser.should_keep_alive())
        return keeps_alive and not self.shared.draining

    def _keep_part(self, body: bytes) -> None:
        """Keep a part of a body that is counted already, or refuse the request if a limit is passed."""
        self.parts.append(body)
        refusal = None
        if self.held > self.shared.settings.body_bytes_max:
            refusal = self._body_too_large()
        elif self.shared.is_full(0, len(self.tasks)):
            refusal = BUSY
        if refusal is not None:
            self.endpoint = None
            self._write(refusal, cast("Any", self.cycle), self.request)

    def _body_too_large(self) -> HttpResponse:
        return error(
            "body_too_large",
            f"The body may have at most {self.shared.settings.body_bytes_max} bytes; send several requests.",
        )

    def _finish_fast(self, endpoint: Endpoint) -> None:
        """Answer a request to a model whose body is complete."""
        self.endpoint = None
        head, body = self.request, b"".join(self.parts)
        self._remember(endpoint, head, body)
        cycle: PendingRequest = cast("Any", self.cycle)
        try:
            response = self.shared.dispatcher.respond(endpoint, head, body)
        except Exception as error:  # noqa: BLE001  # logged with the request's id
            head = self._log_failure(error, head)
            response = BROKEN
        if isinstance(response, HttpResponse):
            self._write(response, cycle, head)
        else:
            self._await(response, head, cycle)

    def _remember(self, endpoint: Endpoint, head: RequestHead, body: bytes) -> None:
        """Remember the head of a request that arrived in one piece, for the next request with the same head."""
        chunk = self.chunk
        if chunk is None or head.request_id is not None or not self.cycle.keep_alive:
            return
        end = chunk.find(b"\r\n\r\n") + 4
        if len(chunk) != end + len(body) or end > HEAD_BYTES_MAX or len(body) >= LARGE_BYTES:
            return  # a large body waits for its turn, and `_repeat` waits for none
        if int(self.fields.get(b"content-length", CHUNKED)) == len(body):
            self.shared.remember(chunk[:end], len(chunk), endpoint, head, self.url)

    def _await(self, later: asyncio.Future[HttpResponse], head: RequestHead, cycle: PendingRequest) -> None:
        """Write a response once it is made; until then `cycle` stands for its request."""
        self.cycle = cast("Any", cycle)
        self.deadline = NEVER
        self.later = later
        self.shared.in_flight += 1

        def on_done(future: asyncio.Future[HttpResponse]) -> None:
            self.shared.in_flight -= 1
            self.later = None
            error = asyncio.CancelledError() if future.cancelled() else future.exception()
            if cycle.disconnected:
                return
            sent = head if error is None else self._log_failure(error, head)
            self._write(BROKEN if error else future.result(), cycle, sent)

        later.add_done_callback(on_done)
