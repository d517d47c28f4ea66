"""The front door: uvicorn's httptools protocol, with limits and deadlines, and a hot path for predictions.

A prediction request is answered here, from the parser's callbacks, before a scope, a task or an event exists.
Everything else, and everything unusual (a request behind an unfinished answer, `Expect`, unknown paths), goes on to
FastAPI, which answers the same requests by the same handler: a property test holds both to the same bytes.

A head that was parsed once is remembered with what it meant (gate.py), so that the same bytes need no parser.
connection.py has what a connection is, and how it is written to and ended.
"""

import asyncio
import logging
from functools import partial
from typing import Any, Final, cast

import httptools
import orjson

from service.serve.http.connection import BODY, HEAD, IDLE, NEVER, NO_HEAD, Connection
from service.serve.http.shared_state import BUSY, PLAN_BYTES_MAX, PREDICTIONS, CachedHead, PendingRequest, SharedState
from service.serve.models.served_model import Endpoint, ServedModel
from service.serve.models.single_row import SingleRow
from service.serve.responses import BROKEN, HttpResponse, RequestHead, check_head, error

logger = logging.getLogger("softstep.door")

# A busy server still tells that it lives and how it fares.
PROBES: Final = frozenset((b"/healthz", b"/readyz", b"/ping", b"/metrics", b"/v2/health/live", b"/v2/health/ready"))

MALFORMED: Final = error("malformed_http", "The request is not valid HTTP/1.1.")
NO_PATH: Final = error("invalid_target", "The request's target must be a path of ASCII characters.")
LARGE_HEAD: Final = error("head_too_large", "The request's line and headers are too many or too large.")
NO_TUNNEL: Final = error("method_not_allowed", "This server is no proxy.", ((b"allow", b"GET, POST"),))


class SoftstepProtocol(Connection):
    """One connection. `bound` makes the class that uvicorn is given."""

    @classmethod
    def bound(cls, gate: SharedState) -> type["SoftstepProtocol"]:
        """A class whose connections share a gate."""
        return type("Door", (cls,), {"gate": gate})

    def data_received(self, data: bytes) -> None:
        """Answer a request whose head is remembered; parse anything else."""
        if self.leaving:
            return
        self.chunk = None
        if self.phase == IDLE and (self.cycle is None or self.cycle.response_complete):
            plan = self.plan
            gate = self.gate
            if plan is None or plan.table is not gate.plans or not data.startswith(plan.head):
                end = data.find(b"\r\n\r\n") + 4  # 3 where there is no end, and no head is that short
                self.plan = plan = gate.plans.get(data[:end])
            if (
                plan is not None
                and len(data) == plan.size
                and gate.in_flight + len(self.tasks) < gate.most
                and not self.last
            ):
                self._repeat(plan, data)
                return
            self.chunk = data
        self.message_ended = False
        rest = data
        while rest:
            rest = self._parse(rest)
        if self.phase == HEAD and not self.leaving:
            # The parser tells of a header when it is complete, so the bytes of one that never ends are counted here.
            self.head_bytes += 0 if self.message_ended else len(data)
            if self.head_bytes > self.gate.settings.header_bytes_max:
                self._leave(LARGE_HEAD)

    def _repeat(self, plan: CachedHead, data: bytes) -> None:
        """Answer a request whose head is remembered: `_answer`, without what such a request does not need."""
        gate = self.gate
        endpoint = plan.endpoint
        lone = endpoint.lone
        label = -1 if lone is None else lone.predict_row(data, len(plan.head))
        if label >= 0:
            self._send_lone(cast("SingleRow", lone), label, endpoint.served)
            status = 200
        elif endpoint.teaches:
            self._teach(plan, data)
            return
        else:
            try:
                answer = gate.answers.predict(endpoint, plan.tensor_header, data[len(plan.head) :])
            except Exception:
                logger.exception("a prediction broke")
                answer = BROKEN
            if not isinstance(answer, HttpResponse):
                self._await(answer, NO_HEAD, PendingRequest(plan.url, "1.1", keep_alive=True))
                return
            status = answer.status
            if not self.transport.is_closing():
                self._send(answer, NO_HEAD, closes=False)
        self.server_state.total_requests += 1
        self.deadline = self.loop.time() + gate.keep_alive_seconds
        if self.access_log:
            self._log_access(b"POST", plan.url, "1.1", status)

    def _teach(self, plan: CachedHead, data: bytes) -> None:
        """Take feedback whose head is remembered; until it is on disk and answered its cycle stands for it."""
        gate = self.gate
        cycle = PendingRequest(plan.url, "1.1", keep_alive=True)
        tell = partial(self._tell, cycle)
        try:
            answer = gate.answers.teach(plan.endpoint.served, data[len(plan.head) :], tell)
        except Exception:
            logger.exception("feedback broke")
            answer = BROKEN
        self.cycle = cast("Any", cycle)
        self.deadline = NEVER
        gate.in_flight += 1
        if answer is not None:
            tell(answer)

    def _tell(self, cycle: PendingRequest, answer: HttpResponse) -> None:
        """Write an answer to feedback, unless its client has left."""
        self.gate.in_flight -= 1
        if not cycle.disconnected:
            self._write(answer, cycle, NO_HEAD)

    def _send_lone(self, lone: SingleRow, label: int, served: ServedModel) -> None:
        """Write the answer to a lone row whose probabilities and label are computed."""
        gate = self.gate
        numbers = orjson.dumps(lone.P, None, orjson.OPT_SERIALIZE_NUMPY)
        rest = served.v1_single[label]
        form = gate.lone_form(self.server_state.default_headers)
        size = len(PREDICTIONS) + len(numbers) + len(rest)
        lone.count_row()  # before its client can know of it, so that nobody's death comes in between
        if not self.transport.is_closing():
            self.transport.write(form % (size, next(gate.numbers), numbers, rest))

    def _parse(self, data: bytes) -> bytes:
        """Parse what came; returns what is to be parsed next: nothing, but behind a head that asks for an upgrade."""
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            return self._decline_upgrade(data[upgrade.args[0] :])
        except httptools.HttpParserCallbackError:
            logger.exception("the front door broke")
            self._leave(BROKEN)
        except httptools.HttpParserError:
            self._leave(MALFORMED)
        return b""

    def _decline_upgrade(self, rest: bytes) -> bytes:
        """Read a request as if it had not asked for another protocol, which HTTP lets a server do.

        The parser stops behind the headers of such a request, so it starts again without the one that asked.
        """
        method = self.parser.get_method()
        if method == b"CONNECT":
            self._leave(NO_TUNNEL)
        if self.leaving:
            return b""
        lines = [b"%b: %b\r\n" % header for header in self.headers if header[0] != b"upgrade"]
        head = b"%b %b HTTP/%b\r\n" % (method, self.url, self.parser.get_http_version().encode())
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
        self.phase = IDLE
        return head + b"".join(lines) + b"\r\n" + rest

    # What the parser calls

    def on_message_begin(self) -> None:
        """Begin a request; what uvicorn builds for the application is built only if it goes there."""
        self.phase = HEAD
        self.deadline = self.loop.time() + self.gate.settings.header_seconds
        self.head_bytes = 0
        self.url = b""
        self.headers = []
        self.expect_100_continue = False

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header; what comes behind the body is a trailer, which nothing here reads."""
        if self.phase == HEAD:
            self.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        """Decide who answers."""
        if self.leaving:
            return
        self.fields = dict(self.headers)
        self.expect_100_continue = self.fields.get(b"expect", b"").lower() == b"100-continue"
        if self._head_is_large():
            self._leave(LARGE_HEAD)
        elif self.parser.should_upgrade():
            return  # the parser calls the message complete and stops, and `_decline_upgrade` goes on
        else:
            self.deadline = self.loop.time() + self.gate.settings.body_seconds
            if not self._take_hot():
                self._pass_on()

    def _head_is_large(self) -> bool:
        settings = self.gate.settings
        size = len(self.url) + sum([len(name) + len(value) + 4 for name, value in self.headers])
        return size > settings.header_bytes_max or len(self.headers) > settings.header_count_max

    def _take_hot(self) -> bool:
        """Take a prediction request whose answer can be the next one on this connection."""
        endpoint = self.gate.answers.live.now.hot.get(self.url)
        if endpoint is None or self.expect_100_continue or self.parser.get_method() != b"POST":
            return False
        if self.cycle is not None and not self.cycle.response_complete:
            return False
        self.phase = BODY
        version = self.parser.get_http_version()
        self.cycle = cast("Any", PendingRequest(self.url, version, keep_alive=self._keeps_alive(version)))
        declared = int(self.fields.get(b"content-length", 0))
        if declared > self.gate.settings.body_bytes_max:
            self._write(self._too_large(), cast("Any", self.cycle), RequestHead.of(self.fields))
        elif self.gate.is_full(declared, len(self.tasks)):
            self._write(BUSY, cast("Any", self.cycle), RequestHead.of(self.fields))
        else:
            self.endpoint = endpoint
            self.parts = []
        return True

    def _keeps_alive(self, version: str) -> bool:
        keeps = version != "1.0" and self.parser.should_keep_alive()
        return bool(keeps) and not self.last

    def _too_large(self) -> HttpResponse:
        return error("body_too_large", f"The body may have at most {self.gate.settings.body_bytes_max} bytes.")

    def _pass_on(self) -> None:
        """Hand a request to the application, by way of uvicorn."""
        if not _is_path(self.url):
            self._leave(NO_PATH)
            return
        self.phase = BODY
        url, headers, expects = self.url, self.headers, self.expect_100_continue
        super().on_message_begin()
        self.headers.extend(headers)
        self.url, self.expect_100_continue = url, expects
        gate = self.gate
        declared = int(self.fields.get(b"content-length", 0))
        full = gate.is_full(declared, len(self.tasks))
        if declared <= gate.settings.body_bytes_max and full and url not in PROBES:
            self.app = cast("Any", gate.busy)
        else:
            self.app = cast("Any", self.config.loaded_app)
        super().on_headers_complete()
        self.cycle.keep_alive = self.cycle.keep_alive and not self.last

    def on_body(self, body: bytes) -> None:
        """Keep a part of a body, as long as the limits allow."""
        if self.leaving or self.cycle.response_complete or (self.endpoint is None and self.app is self.gate.busy):
            return
        self.held += len(body)
        self.gate.body_bytes += len(body)
        if self.endpoint is None:
            super().on_body(body)
            if self.gate.body_bytes > self.gate.settings.body_bytes_in_flight_max:
                self._leave(BUSY)
            return
        self.parts.append(body)
        answer = None
        if self.held > self.gate.settings.body_bytes_max:
            answer = self._too_large()
        elif self.gate.is_full(0, len(self.tasks)):
            answer = BUSY
        if answer is not None:
            self.endpoint = None
            self._write(answer, cast("Any", self.cycle), RequestHead.of(self.fields))

    def on_message_complete(self) -> None:
        """Answer a hot request; tell the application that it has all of another."""
        if self.leaving or self.phase == HEAD:
            return
        self.phase = IDLE
        self.message_ended = True
        self.deadline = NEVER
        if self.endpoint is not None:
            endpoint, self.endpoint = self.endpoint, None
            head, body = RequestHead.of(self.fields), b"".join(self.parts)
            self._remember(endpoint, head, body)
            self._answer(endpoint, head, body, cast("Any", self.cycle))
        elif self.cycle.response_complete:
            self._release()
            self._rest()
        else:
            super().on_message_complete()

    def _remember(self, endpoint: Endpoint, head: RequestHead, body: bytes) -> None:
        """Make a plan of a request that came in one piece, for the next one with the same head."""
        chunk = self.chunk
        if chunk is None or head.request_id is not None or not self.cycle.keep_alive:
            return
        end = chunk.find(b"\r\n\r\n") + 4
        if len(chunk) != end + len(body) or end > PLAN_BYTES_MAX:
            return
        tensor_header = check_head(head)
        if isinstance(tensor_header, HttpResponse) or int(self.fields.get(b"content-length", -1)) != len(body):
            return
        self.gate.remember(chunk[:end], len(chunk), endpoint, tensor_header, self.url)

    def _answer(self, endpoint: Endpoint, head: RequestHead, body: bytes, cycle: PendingRequest) -> None:
        try:
            answer = self.gate.answers.respond(endpoint, head, body)
        except Exception:
            logger.exception("a prediction broke")
            answer = BROKEN
        if isinstance(answer, HttpResponse):
            self._write(answer, cycle, head)
        else:
            self._await(answer, head, cycle)

    def _await(self, answer: asyncio.Future[HttpResponse], head: RequestHead, cycle: PendingRequest) -> None:
        """Write an answer when it is there; until then `cycle` stands for its request."""
        self.cycle = cast("Any", cycle)
        self.deadline = NEVER
        self.gate.in_flight += 1

        def done(future: asyncio.Future[HttpResponse]) -> None:
            self.gate.in_flight -= 1
            if future.exception() is not None:
                logger.error("a prediction broke", exc_info=future.exception())
            if not cycle.disconnected:
                self._write(BROKEN if future.exception() else future.result(), cycle, head)

        answer.add_done_callback(done)


def _is_path(url: bytes) -> bool:
    """Whether a request's target is one that the application can be given."""
    if not url.isascii():
        return False
    try:
        return httptools.parse_url(url).path is not None
    except httptools.HttpParserInvalidURLError:
        return False
