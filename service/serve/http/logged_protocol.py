"""The protocol of a service with an access log: it writes a line for each response that is not FastAPI's.

Without an access log connections are of the class SoftstepProtocol itself, so that a request pays nothing for this one.
"""

from typing import Any, ClassVar, cast

import orjson

from service.logs import AccessLog
from service.serve.access_log import AccessEntry
from service.serve.http.protocol import SoftstepProtocol
from service.serve.http.remembered_heads import CachedHead
from service.serve.http.response_forms import PREDICTIONS, ResponseForm
from service.serve.http.shared_state import PendingRequest, SharedState
from service.serve.models.endpoint import Endpoint
from service.serve.models.single_row import SingleRow
from service.serve.request_id import REQUEST_IDS, RecordedNumbers, request_id
from service.serve.responses import HttpResponse, RequestHead


class LoggedProtocol(SoftstepProtocol):
    """Writes the access log of the fast path, and of refusals before a request reaches FastAPI."""

    log: ClassVar[AccessLog]
    numbers: ClassVar[RecordedNumbers]

    @classmethod
    def logging(cls, shared: SharedState, log: AccessLog, numbers: RecordedNumbers) -> type["LoggedProtocol"]:
        """Return a class whose connections have this shared state and this log.

        Args:
            shared: The shared state.
            log: The access log.
            numbers: The numbers of the requests that bring no id.
        """
        return type("LoggedProtocol", (cls,), {"shared": shared, "log": log, "numbers": numbers})

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401  # uvicorn's own arguments
        super().__init__(*args, **kwargs)
        self.entry = AccessEntry()  # of the newest request

    def _repeat_or_shed(self, cached: CachedHead, data: bytes) -> None:
        """Begin the entry of a request, which may be refused at once."""
        self._begin_entry(cached, data)
        super()._repeat_or_shed(cached, data)

    def _repeat(self, cached: CachedHead, data: bytes) -> None:
        """Begin the entry of a request whose head is remembered, then answer it."""
        self._begin_entry(cached, data)
        super()._repeat(cached, data)
        # The next request may begin before the response to this one.
        if self.cycle is not None and not self.cycle.response_complete:
            cast("PendingRequest", self.cycle).entry = self.entry

    def _begin_entry(self, cached: CachedHead, data: bytes) -> None:
        """Begin the entry of a request whose head is remembered."""
        endpoint = cached.endpoint
        method = "GET" if cached.head.startswith(b"GET") else "POST"
        self.entry = AccessEntry(method, _template(cached.url, endpoint), endpoint.served)
        self.entry.bytes_in = len(data) - len(cached.head)
        if self.peer is not None:
            self.entry.client = self.shared.proxies.client_of_head(self.peer, cached.head)

    def on_message_begin(self) -> None:
        """Begin the entry of a request with its first byte."""
        self.entry = AccessEntry()
        self.entry.client = self.peer
        super().on_message_begin()

    def _begin_cycle(self, kind: type[PendingRequest], head: RequestHead) -> PendingRequest:
        """Complete the entry of a request that is not FastAPI's."""
        self.entry.method = kind.method.decode()
        path = self.url.partition(b"?")[0]
        endpoint = self.shared.registry.now.fast_endpoints.get(path)
        if endpoint is None:
            self.entry.route = path.decode()  # of a probe
        else:
            self.entry.route, self.entry.served = _template(self.url, endpoint), endpoint.served
        if self.peer is not None:
            self.entry.client = self.shared.proxies.client_of(self.peer, self.headers)
        cycle = super()._begin_cycle(kind, head)
        cycle.entry = self.entry
        return cycle

    def on_body(self, body: bytes) -> None:
        """Count the bytes of a body."""
        self.entry.bytes_in += len(body)
        super().on_body(body)

    def _write(self, response: HttpResponse, cycle: PendingRequest) -> None:
        """Write a response with the entry of its own request."""
        newest, self.entry = self.entry, getattr(cycle, "entry", self.entry)
        super()._write(response, cycle)
        self.entry = newest

    def _send_usual(self, response: HttpResponse, form: ResponseForm) -> None:
        """Write a usual response, with a line of the log."""
        self._send(response, form, None, closes=False)

    def _send(
        self,
        response: HttpResponse,
        form: ResponseForm,
        sent_id: bytes | None,
        *,
        closes: bool,
        has_body: bool = True,
    ) -> None:
        """Write a response and its line."""
        identity = request_id(sent_id)
        super()._send(response, form, identity, closes=closes, has_body=has_body)
        self.entry.method = self.entry.method or self.parser.get_method().decode("ascii", "replace")
        self.entry.write(self.log, identity, response.status, len(response.body) if has_body else 0)

    def _send_single_row(self, form: ResponseForm, single_row: SingleRow, rest: bytes) -> None:
        """Write the response to a single row and its line."""
        number = self.numbers.last
        super()._send_single_row(form, single_row, rest)
        if self.numbers.last != number:  # the client is still there
            identity = b"%b-%x" % (REQUEST_IDS.series, self.numbers.last)
            numbers = orjson.dumps(single_row.P, None, orjson.OPT_SERIALIZE_NUMPY)
            self.entry.write(self.log, identity, 200, len(PREDICTIONS) + len(numbers) + len(rest))


def _template(target: bytes, endpoint: Endpoint) -> str:
    """Return the path of a request to a model with {name} for the name and without a version."""
    path, served = target.partition(b"?")[0].decode(), endpoint.served
    path = path.replace(f"/versions/{served.version}", "", 1)
    return path.replace(f"/models/{served.name}", "/models/{name}", 1)
