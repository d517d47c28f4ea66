"""The fast path: requests to models, and probes, answered from the parser's callbacks before a scope or a task exists.

A head that was parsed once is remembered with what it meant (remembered_heads.py), so the same bytes need no parser. A
property test holds every response to that of the FastAPI routes.
"""

import asyncio
from functools import partial
from typing import Any, Final, cast

import orjson

from service.serve.handlers.history_answers import QUERIES
from service.serve.handlers.probes import ROOT, asks_for_page
from service.serve.handlers.turns import LARGE_BYTES
from service.serve.http.connection import Connection
from service.serve.http.remembered_heads import HEAD_BYTES_MAX, CachedHead
from service.serve.http.response_forms import PREDICTIONS, ResponseForm
from service.serve.http.shared_state import PendingGet, PendingHead, PendingRequest
from service.serve.http.timed_protocol import BODY, NEVER
from service.serve.models.endpoint import FEEDBACK, READS, Endpoint
from service.serve.models.single_row import SingleRow
from service.serve.responses import OVERLOADED, V1, HttpResponse, RequestHead, body_too_large, refusal
from service.serve.wire.usual_query import parse_usual_query

# The methods of requests without a body, and the headers of one that has a body or waits before it sends one.
PENDING_READS: Final = {b"GET": PendingGet, b"HEAD": PendingHead}
# Where a browser gets the console, and any other client a probe's answer.
PAGE_PATH: Final = ROOT.encode()
BODY_FIELDS: Final = frozenset((b"content-length", b"content-encoding", b"transfer-encoding", b"expect"))


class FastPath(Connection):
    """A connection that answers requests to models by itself."""

    def _repeat_or_shed(self, cached: CachedHead, data: bytes) -> None:
        """Answer a request whose head is remembered, or refuse it, while load is shed."""
        if self.shared.dispatcher.load.refuses(cached.endpoint):
            self._write(OVERLOADED, PendingRequest(cached.form, keep_alive=True))
        else:
            self._repeat(cached, data)

    def _repeat(self, cached: CachedHead, data: bytes) -> None:
        """Answer a request whose head is remembered."""
        shared = self.shared
        endpoint = cached.endpoint
        single_row = endpoint.single_row
        label = -1 if single_row is None else single_row.predict_row(data, len(cached.head))
        if label >= 0:
            self._send_single_row(cached.form, cast("SingleRow", single_row), endpoint.served.v1_single[label])
        elif endpoint.kind == FEEDBACK:
            self._start_feedback(cached, data)
            return
        else:
            handler = shared.dispatcher.handlers[endpoint.kind]
            try:
                response = handler(endpoint, cached.request, data[len(cached.head) :])
            except Exception as error:  # noqa: BLE001  # logged with the request's id
                cycle = PendingRequest(cached.form, keep_alive=True)
                self._write(self._log_failure(error, cycle), cycle)
                return
            if not isinstance(response, HttpResponse):
                self._await(response, PendingRequest(cached.form, keep_alive=True))
                return
            if self.transport.is_closing():
                pass
            elif response.headers:
                self._send(response, cached.form, None, closes=False)
            else:
                self._send_usual(response, cached.form)
        self.server_state.total_requests += 1
        self.deadline = self.loop.time() + shared.keep_alive_seconds

    def _send_single_row(self, form: ResponseForm, single_row: SingleRow, rest: bytes) -> None:
        """Write the response to a single row whose probabilities are computed; `rest` is what follows them."""
        numbers = orjson.dumps(single_row.P, None, orjson.OPT_SERIALIZE_NUMPY)
        text = form.single_row(self.server_state.default_headers)
        size = len(PREDICTIONS) + len(numbers) + len(rest)
        single_row.count_row()  # count first: a crash after writing would lose the count
        if not self.transport.is_closing():
            self.transport.write(text % (size, next(form.numbers), numbers, rest))

    def _start_feedback(self, cached: CachedHead, data: bytes) -> None:
        """Store feedback whose head is remembered; its cycle stands for it until the response is written."""
        cycle = PendingRequest(cached.form, keep_alive=True)
        on_response = partial(self._finish_feedback, cycle)
        try:
            response: HttpResponse | Exception | None = self.shared.dispatcher.start_feedback(
                cached.endpoint, cached.request.principal, data[len(cached.head) :], on_response
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
        if not isinstance(response, HttpResponse):
            response = self._log_failure(response, cycle)
        if not cycle.disconnected:
            self._write(response, cycle)

    def _begin_fast(self) -> bool:
        """Begin a request to a model if its response can be the next one on this connection; else return False."""
        shared = self.shared
        endpoint = shared.registry.now.fast_endpoints.get(self.url)
        if (
            endpoint is None
            or endpoint.kind in READS
            or self.expect_100_continue
            or b"content-encoding" in self.fields
            or self.parser.get_method() != b"POST"
        ):
            return False
        if self.cycle is not None and not self.cycle.response_complete:
            return False
        if self.kind.is_public and endpoint.kind == FEEDBACK:
            return False
        head = RequestHead.of(self.fields)._replace(certificate=self.kind.certificate)
        cycle = self._begin_cycle(PendingRequest, head)
        checked: RequestHead | HttpResponse
        declared = int(self.fields.get(b"content-length", 0))
        if declared <= shared.settings.body_bytes_max and shared.is_full(declared, len(self.tasks)):
            checked = OVERLOADED
        else:
            checked = shared.dispatcher.check(endpoint, head, declared)
        self._continue_fast(endpoint, checked, cycle)
        return True

    def _begin_read(self) -> bool:
        """Begin a call that reads how a model has learned, if it can be answered as above; else return False."""
        shared, method = self.shared, self.parser.get_method()
        path, _, query = self.url.partition(b"?")
        endpoint = shared.registry.now.fast_endpoints.get(path)
        if endpoint is None or endpoint.kind not in READS or method not in PENDING_READS:
            return False
        numbers = parse_usual_query(query, QUERIES[endpoint.kind])
        if numbers is None or not BODY_FIELDS.isdisjoint(self.fields):
            return False
        if self.cycle is not None and not self.cycle.response_complete:
            return False
        head = RequestHead.of(self.fields)._replace(certificate=self.kind.certificate, query=numbers)
        cycle = self._begin_cycle(PENDING_READS[method], head)
        is_full = shared.is_full(0, len(self.tasks))
        checked = OVERLOADED if is_full else shared.dispatcher.check_read(endpoint, head)
        self._continue_fast(endpoint, checked, cycle)
        return True

    def _continue_fast(self, endpoint: Endpoint, checked: RequestHead | HttpResponse, cycle: PendingRequest) -> None:
        """Refuse a request to a model, or wait for the end of it; `checked` is its head, or the refusal."""
        if isinstance(checked, HttpResponse):
            self._write(checked, cycle)
        else:
            self.request = checked
            self.endpoint = self.shared.dispatcher.limit(endpoint, checked)
            self.parts = []

    def _begin_probe(self) -> bool:
        """Answer a probe, so that it never waits for the application's turn; return False for any other request."""
        shared, method = self.shared, self.parser.get_method()
        path = self.url.partition(b"?")[0]
        answer = shared.probes.get(path)
        if answer is None or method not in PENDING_READS or not BODY_FIELDS.isdisjoint(self.fields):
            return False
        if path == PAGE_PATH and shared.settings.has_console and asks_for_page(self.fields.get(b"accept", b"")):
            return False
        if self.cycle is not None and not self.cycle.response_complete:
            return False
        self._write(answer(), self._begin_cycle(PENDING_READS[method], RequestHead.of(self.fields)))
        return True

    def _begin_cycle(self, kind: type[PendingRequest], head: RequestHead) -> PendingRequest:
        """Begin the cycle of the request whose head is complete."""
        self.phase = BODY
        keep_alive = self._keeps_alive()
        form = self.shared.usual_form
        if head.origin is not None or self.http_version == "1.0":
            form = self.shared.form(head.origin, keep_alive_asked=keep_alive and self.http_version == "1.0")
        cycle = kind(form, head.request_id, keep_alive=keep_alive)
        self.cycle = cast("Any", cycle)
        return cycle

    def _keeps_alive(self) -> bool:
        """Whether the connection stays open after the response to the request whose head is complete."""
        return bool(self.parser.should_keep_alive()) and not self.shared.is_draining()

    def _keep_part(self, body: bytes) -> None:
        """Keep a part of a body that is counted already, or refuse the request if a limit is passed."""
        self.parts.append(body)
        response = None
        if self.held > self.shared.settings.body_bytes_max:
            response = refusal(body_too_large(self.shared.settings.body_bytes_max), V1)
        elif self.shared.is_full(0, len(self.tasks)):
            response = OVERLOADED
        if response is not None:
            self.endpoint = None
            self._write(response, cast("Any", self.cycle))

    def _finish_fast(self, endpoint: Endpoint) -> None:
        """Answer a request to a model whose body is complete."""
        self.endpoint = None
        head, body = self.request, b"".join(self.parts)
        cycle: PendingRequest = cast("Any", self.cycle)
        self._remember(endpoint, cycle, body)
        try:
            response = self.shared.dispatcher.respond(endpoint, head, body)
        except Exception as error:  # noqa: BLE001  # logged with the request's id
            response = self._log_failure(error, cycle)
        if isinstance(response, HttpResponse):
            self._write(response, cycle)
        else:
            self._await(response, cycle)

    def _remember(self, endpoint: Endpoint, cycle: PendingRequest, body: bytes) -> None:
        """Remember the head of a request that arrived in one piece, for the next request with the same head."""
        chunk = self.chunk
        if chunk is None or cycle.request_id is not None or not cycle.keep_alive or cycle.method == b"HEAD":
            return
        end = chunk.find(b"\r\n\r\n") + 4
        if len(chunk) != end + len(body) or end > HEAD_BYTES_MAX or len(body) >= LARGE_BYTES:
            return  # a large body waits for its turn, and `_repeat` waits for none
        if b"transfer-encoding" not in self.fields:
            heads = self.shared.heads
            heads.remember(self.kind, chunk[:end], len(chunk), endpoint, self.request, self.url, cycle.form)

    def _await(self, later: asyncio.Future[HttpResponse], cycle: PendingRequest) -> None:
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
            self._write(future.result() if error is None else self._log_failure(error, cycle), cycle)

        later.add_done_callback(on_done)
