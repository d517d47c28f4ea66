"""Store the events of feedback tokens, each in the stream of the version that issued its token.

The events of one request are written in one transaction, also if they belong to several versions. A token that cannot
be opened, or whose version learns too slowly, is refused alone.
"""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Final

from service.errors import LearnerBehindError
from service.serve.handlers.feedback_context import FeedbackContext, FeedbackContexts
from service.serve.log.writer import Writer
from service.serve.metrics.counters import FEEDBACK_REFUSALS, FEEDBACK_START
from service.serve.models.endpoint import Endpoint
from service.serve.models.registry import ModelRegistry
from service.serve.wire.feedback_body import PostedEvent, PostedTokens
from service.serve.wire.token_events import TokenEvent, TokenIssuer, TokenReader
from service.settings import Settings
from service.store.log.events import EventLocation


class TokenBatch:
    """The tokens of one request, and the outcome of each.

    Args:
        contexts: The contexts of the model's served versions.
        read: For each token its event, or the error for which it was refused.

    Attributes:
        events: The event of each token, or None if the token was refused.
        outcomes: The outcome of each token: a location or an error; None while it is written.
    """

    def __init__(self, contexts: Mapping[int, FeedbackContext], read: Sequence[TokenEvent | Exception]) -> None:
        self._contexts: Final = contexts
        self.events: Final = [one.event if isinstance(one, TokenEvent) else None for one in read]
        self.outcomes: Final[list[Any]] = [None if isinstance(one, TokenEvent) else one for one in read]
        self._versions: Final = [one.version if isinstance(one, TokenEvent) else 0 for one in read]

    @property
    def unwritten(self) -> dict[int, list[int]]:
        """The places of the tokens without an outcome, by the version that issued them."""
        places: defaultdict[int, list[int]] = defaultdict(list)
        for place, outcome in enumerate(self.outcomes):
            if outcome is None:
                places[self._versions[place]].append(place)
        return places

    def events_at(self, places: Sequence[int]) -> list[PostedEvent]:
        """Return the events of the tokens at these places."""
        return [event for place in places if (event := self.events[place]) is not None]

    def refuse(self, places: Sequence[int], reason: Exception) -> None:
        """Refuse the tokens at these places."""
        for place in places:
            self.outcomes[place] = reason

    def note_results(self, version: int, places: Sequence[int], result: Any) -> None:  # noqa: ANN401  # see Writer.send_events
        """Note the outcomes of a version's events, and how far the version is committed."""
        if type(result) is not list:
            self.refuse(places, result)
            return
        committed = self._contexts[version].committed
        for place, outcome in zip(places, result, strict=True):
            self.outcomes[place] = outcome
            if type(outcome) is EventLocation and not outcome.duplicate:
                committed.seq = outcome.seq


class TokenFeedback:
    """Reads tokens and writes their events; used on the event loop's thread.

    Args:
        registry: The models that are served.
        contexts: What feedback for each served state needs.
        writer: The writer of the log.
        settings: The limits.
    """

    def __init__(self, registry: ModelRegistry, contexts: FeedbackContexts, writer: Writer, settings: Settings) -> None:
        self._registry: Final = registry
        self._contexts: Final = contexts
        self._writer: Final = writer
        self._lag_events_max: Final = settings.lag_events_max

    def send(
        self, endpoint: Endpoint, posted: PostedTokens, on_outcomes: Callable[[TokenBatch], None]
    ) -> TokenBatch | None:
        """Write the events of tokens in one transaction.

        Returns:
            The batch if every token was refused, or None if `on_outcomes` will be called with it.

        Raises:
            UnacceptableError: A label or a weight is not valid.
            TooLargeError: There are too many tokens of an earlier release.
            LogError: The queue is full, or the server is stopping.
        """
        served = endpoint.served
        contexts = self._contexts.contexts_of(served.name)
        issuers = {version: TokenIssuer(one.sealer, one.parser) for version, one in contexts.items()}
        reader = TokenReader(issuers, None if endpoint.any_version else served.key[1])
        batch = TokenBatch(contexts, reader.read_tokens(posted))
        self._refuse_behind(served.name, contexts, batch)
        unwritten = batch.unwritten
        refused = len(batch.outcomes) - sum(map(len, unwritten.values()))
        served.counters[FEEDBACK_START + FEEDBACK_REFUSALS] += refused
        if not unwritten:
            return batch
        waiting = set(unwritten)

        def note(version: int, result: Any) -> None:  # noqa: ANN401  # see Writer.send_events
            batch.note_results(version, unwritten[version], result)
            waiting.discard(version)
            if not waiting:
                on_outcomes(batch)

        self._writer.send_to_versions(
            [
                (contexts[version].source, batch.events_at(places), partial(note, version))
                for version, places in unwritten.items()
            ]
        )
        return None

    async def submit(self, endpoint: Endpoint, posted: PostedTokens) -> TokenBatch:
        """Write as `send` does, and return the batch with all outcomes."""
        future: asyncio.Future[TokenBatch] = asyncio.get_running_loop().create_future()

        def on_outcomes(batch: TokenBatch) -> None:
            if not future.done():  # the client may have left
                future.set_result(batch)

        return self.send(endpoint, posted, on_outcomes) or await future

    def _refuse_behind(self, name: str, contexts: Mapping[int, FeedbackContext], batch: TokenBatch) -> None:
        """Refuse the tokens of versions whose learner is too far behind."""
        for version, places in batch.unwritten.items():
            try:
                contexts[version].check_lag(self._registry.now.served[name, version], self._lag_events_max)
            except LearnerBehindError as reason:
                batch.refuse(places, reason)
