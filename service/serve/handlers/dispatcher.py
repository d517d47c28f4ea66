"""The one way through a request with a body: the endpoint's kind picks the handler.

`http/fast_path.py` calls handlers from the protocol and `api/` calls them from FastAPI, so both give the same bytes.
Handlers know nothing of each other; `worker.py` puts them together.
"""

import asyncio
from collections.abc import Callable, Mapping
from functools import partial
from typing import Final

from service.access.principal import Principal
from service.access.scopes import Scope
from service.errors import AccessError, InputError
from service.serve.authorization.authorizer import Authorizer
from service.serve.handlers.content_types import ACCEPTED, check_content_type
from service.serve.handlers.turns import LARGE_BINARY_BYTES, LARGE_BYTES, Turns
from service.serve.metrics.counters import FAILURES
from service.serve.models.endpoint import FEEDBACK, KINDS, Endpoint
from service.serve.origins import Origins
from service.serve.responses import HttpResponse, RequestHead, refusal

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
        origins: The origins whose web pages may send any body.
        turns: The turns in which requests with large bodies are answered.
        authorizer: Decides who may make a request.

    Attributes:
        origins: As above.
        turns: As above.
        authorizer: As above.
        handlers: The handler of each kind, at the kind's index.
    """

    def __init__(
        self,
        handlers: Mapping[int, Handler],
        start_feedback: StartFeedback,
        origins: Origins,
        turns: Turns,
        authorizer: Authorizer,
    ) -> None:
        self.origins: Final = origins
        self.start_feedback: Final = start_feedback
        self.turns: Final = turns
        self.authorizer: Final = authorizer
        every: dict[int, Handler] = {**handlers, FEEDBACK: self._feedback}
        self.handlers: Final = tuple(every[kind] for kind in range(KINDS))

    def check(self, endpoint: Endpoint, head: RequestHead) -> RequestHead | HttpResponse:
        """Check the head of a request; return it with its principal for `respond`, or a refusal."""
        scope = Scope.FEEDBACK if endpoint.kind == FEEDBACK else Scope.PREDICT
        try:
            principal = self.authorizer.authorize(head, scope, endpoint.served.name)
            return check_content_type(head, ACCEPTED[endpoint.kind], self.origins)._replace(principal=principal)
        except (AccessError, InputError) as reason:
            endpoint.served.counters[FAILURES] += 1
            return refusal(reason, endpoint.protocol)

    def respond(self, endpoint: Endpoint, head: RequestHead, body: bytes) -> PendingResponse:
        """Respond to a request whose head has been checked."""
        handler = self.handlers[endpoint.kind]
        if len(body) < LARGE_BYTES or (head.tensor_header is not None and len(body) < LARGE_BINARY_BYTES):
            return handler(endpoint, head, body)
        return self.turns.call(partial(handler, endpoint, head, body))

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
