"""The one way through a request with a body: the endpoint's kind picks the handler.

`http/fast_path.py` calls handlers from the protocol and `api/` calls them from FastAPI, so both give the same bytes.
Handlers know nothing of each other; `worker.py` puts them together.
"""

import asyncio
from collections.abc import Callable, Mapping
from functools import partial
from typing import Final

from service.access.principal import NO_LIMITS, Principal
from service.access.scopes import Scope
from service.errors import AccessError, InputError, OverloadedError
from service.limit_errors import LimitError
from service.serve.authorization.authorizer import Authorizer
from service.serve.handlers.content_types import ACCEPTED, check_content_type
from service.serve.handlers.limited_endpoint import LimitedEndpoint
from service.serve.handlers.load_shedding import LoadShedder
from service.serve.handlers.turns import LARGE_BINARY_BYTES, LARGE_BYTES, Turns
from service.serve.limits.limiter import Limiters
from service.serve.metrics.counters import FAILURES
from service.serve.models.endpoint import FEEDBACK, KINDS, READS, Endpoint
from service.serve.origins import Origins
from service.serve.responses import OVERLOADED, V1, HttpResponse, RequestHead, body_too_large, refusal

# Responds at once, or by a future if the kernel call is shared, runs in a thread, or must wait for a turn or the disk.
# The head has been checked.
PendingResponse = HttpResponse | asyncio.Future[HttpResponse]
Handler = Callable[[Endpoint, RequestHead, bytes], PendingResponse]


# Starts to store feedback: returns a refusal, or None if the callback will be called with the response.
StartFeedback = Callable[[Endpoint, Principal, bytes, Callable[[HttpResponse | Exception], None]], HttpResponse | None]


class Dispatcher:
    """Picks the handler of a request by the kind of its endpoint.

    Args:
        handlers: The handler of each kind but FEEDBACK.
        start_feedback: Stores feedback. The fast path calls it directly, because a future for each event costs time.
        origins: The origins whose web pages may send requests.
        turns: The turns in which requests with large bodies are answered.
        authorizer: Decides who may make a request.
        limiters: The limits of those who may.
        load: Refuses requests while the worker is overloaded.
        body_bytes_max: The most bytes of a body.

    Attributes:
        origins: As above.
        turns: As above.
        authorizer: As above.
        limiters: As above.
        load: As above.
        body_bytes_max: As above.
        handlers: The handler of each kind, at the kind's index; then in the same order those of limited endpoints.
    """

    def __init__(  # noqa: PLR0917  # the parts of a worker
        self,
        handlers: Mapping[int, Handler],
        start_feedback: StartFeedback,
        origins: Origins,
        turns: Turns,
        authorizer: Authorizer,
        limiters: Limiters,
        load: LoadShedder,
        *,
        body_bytes_max: int,
    ) -> None:
        self.origins: Final = origins
        self.start_feedback: Final = start_feedback
        self.turns: Final = turns
        self.authorizer: Final = authorizer
        self.limiters: Final = limiters
        self.load: Final = load
        self.body_bytes_max: Final = body_bytes_max
        every: dict[int, Handler] = {**handlers, FEEDBACK: self._feedback}
        usual = tuple(every[kind] for kind in range(KINDS))
        limited = tuple(partial(self._respond_limited, handler) for handler in usual)
        self.handlers: Final[tuple[Handler, ...]] = usual + limited

    def check(self, endpoint: Endpoint, head: RequestHead, declared: int) -> RequestHead | HttpResponse:
        """Check the head of a request; return it with its principal for `respond`, or a refusal.

        Args:
            endpoint: What the request is for.
            head: Its head.
            declared: The bytes of its body that the head declares.
        """
        if self.load.is_shedding and self.load.refuses(endpoint):
            return OVERLOADED
        scope = Scope.FEEDBACK if endpoint.kind == FEEDBACK else Scope.PREDICT
        try:
            principal = self.authorizer.authorize(head, scope, endpoint.served.name)
            self.origins.check_site(head.origin, head.fetch_site, head.host)
        except AccessError as reason:  # no failure of a request to the model: it is not one yet
            return refusal(reason, endpoint.protocol)
        if declared > self.body_bytes_max:
            return refusal(body_too_large(self.body_bytes_max), endpoint.protocol)
        try:
            return check_content_type(head, ACCEPTED[endpoint.kind])._replace(principal=principal)
        except InputError as reason:
            endpoint.served.counters[FAILURES] += 1
            return refusal(reason, endpoint.protocol)

    def check_read(self, endpoint: Endpoint, head: RequestHead) -> RequestHead | HttpResponse:
        """Check the head of a GET as `check` does; a web page of any site may send it, and it has no body."""
        try:
            return head._replace(principal=self.authorizer.authorize(head, Scope.PREDICT, endpoint.served.name))
        except AccessError as reason:
            return refusal(reason, V1)

    @staticmethod
    def limit(endpoint: Endpoint, head: RequestHead) -> Endpoint:
        """Return the endpoint for a head that has been checked: another one if its principal has limits."""
        return endpoint if head.principal.limits is NO_LIMITS else LimitedEndpoint(endpoint)

    def respond(self, endpoint: Endpoint, head: RequestHead, body: bytes) -> PendingResponse:
        """Respond to a request whose head has been checked."""
        handler = self.handlers[endpoint.kind]
        if len(body) < LARGE_BYTES or (head.tensor_header is not None and len(body) < LARGE_BINARY_BYTES):
            return handler(endpoint, head, body)
        if self.load.is_shedding and self.load.refuses_large(endpoint):
            return OVERLOADED
        return self.turns.call(partial(handler, endpoint, head, body))

    def _respond_limited(self, handler: Handler, endpoint: Endpoint, head: RequestHead, body: bytes) -> PendingResponse:
        """Take a request from the limits of its principal and give it to its handler, or refuse it."""
        assert isinstance(endpoint, LimitedEndpoint)  # noqa: S101  # only its kinds come here
        try:
            limiter = endpoint.limiter = self.limiters.limiter_of(head.principal)
            if limiter is None:
                return handler(endpoint.endpoint, head, body)
            number = limiter.begin_request()
        except (LimitError, OverloadedError) as reason:
            if endpoint.endpoint.kind not in READS:
                endpoint.served.counters[FAILURES] += 1
            return refusal(reason, endpoint.protocol)
        try:
            response = handler(endpoint.endpoint, head, body)
        except BaseException:
            limiter.end_request(number)
            raise
        if isinstance(response, HttpResponse):
            limiter.end_request(number)
        else:
            response.add_done_callback(lambda _: limiter.end_request(number))
        return response

    def _feedback(self, endpoint: Endpoint, head: RequestHead, body: bytes) -> PendingResponse:
        """Respond to feedback by a future, for callers that cannot take a callback."""
        later: asyncio.Future[HttpResponse] = asyncio.get_running_loop().create_future()

        def on_response(response: HttpResponse | Exception) -> None:
            if later.done():  # the client may have left
                return
            if isinstance(response, HttpResponse):
                later.set_result(response)
            else:
                later.set_exception(response)

        return self.start_feedback(endpoint, head.principal, body, on_response) or later
