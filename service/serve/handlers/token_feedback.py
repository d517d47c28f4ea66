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
from service.serve.handlers.turns import Turns
from service.serve.log.writer import Writer
from service.serve.metrics.counters import FEEDBACK_REFUSALS, FEEDBACK_START
from service.serve.models.endpoint import Endpoint
from service.serve.models.registry import ModelRegistry
from service.serve.wire.feedback_body import PostedEvent, PostedTokens
from service.serve.wire.token_events import TokenEvent, TokenIssuer, TokenReader
from service.settings import Settings
from service.store.log.events import EventLocation

# Tokens that are read in one turn of the event loop, which takes about 20 ms.
TOKENS_PER_TURN: Final = 1000


class TokenBatch:
    """The tokens of one request, and the outcome of each.

    Args:
        contexts: The contexts of the model's served versions.
        read: For each token its event, or the error for which it was refused.

    Attributes:
        contexts: As above.
        events: The event of each token, or None if the token was refused.
        outcomes: The outcome of each token: a location or an error; None while it is written.
    """

    def __init__(self, contexts: Mapping[int, FeedbackContext], read: Sequence[TokenEvent | Exception]) -> None:
        self.contexts: Final = contexts
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
        committed = self.contexts[version].committed
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
        turns: The turns in which large bodies are read.
        settings: The limits.
    """

    def __init__(
        self, registry: ModelRegistry, contexts: FeedbackContexts, writer: Writer, turns: Turns, settings: Settings
    ) -> None:
        self._registry: Final = registry
        self._contexts: Final = contexts
        self._writer: Final = writer
        self._turns: Final = turns
        self._lag_events_max: Final = settings.lag_events_max

    def send(
        self, endpoint: Endpoint, posted: PostedTokens, on_outcomes: Callable[[TokenBatch], None], actor: str
    ) -> TokenBatch | None:
        """Write the events of tokens in one transaction; of more than TOKENS_PER_TURN use `submit`.

        Args:
            endpoint: The model that they are posted to.
            posted: The tokens.
            on_outcomes: As below.
            actor: Who sent them.

        Returns:
            The batch if every token was refused, or None if `on_outcomes` will be called with it.

        Raises:
            UnacceptableError: A label or a weight is not valid.
            TooLargeError: There are too many tokens of an earlier release.
            LogError: The queue is full, or the server is stopping.
        """
        contexts, reader = self._open_reader(endpoint)
        return self._write(endpoint, TokenBatch(contexts, reader.read_tokens(posted)), on_outcomes, actor)

    async def submit(self, endpoint: Endpoint, posted: PostedTokens, actor: str) -> TokenBatch:
        """Write as `send` does, and return the batch with all outcomes; the tokens of a large body take turns."""
        contexts, reader = self._open_reader(endpoint)
        read = reader.read_tokens(posted, 0, TOKENS_PER_TURN)
        for first in range(TOKENS_PER_TURN, len(posted.tokens), TOKENS_PER_TURN):
            read += await self._turns.call(partial(reader.read_tokens, posted, first, first + TOKENS_PER_TURN))
        future: asyncio.Future[TokenBatch] = asyncio.get_running_loop().create_future()

        def on_outcomes(batch: TokenBatch) -> None:
            if not future.done():  # the client may have left
                future.set_result(batch)

        return self._write(endpoint, TokenBatch(contexts, read), on_outcomes, actor) or await future

    def _open_reader(self, endpoint: Endpoint) -> tuple[Mapping[int, FeedbackContext], TokenReader]:
        """Return the contexts of the model's served versions, and a reader of their tokens."""
        contexts = self._contexts.contexts_of(endpoint.served.name)
        issuers = {version: TokenIssuer(one.sealer, one.parser) for version, one in contexts.items()}
        return contexts, TokenReader(issuers, None if endpoint.any_version else endpoint.served.key[1])

    def _write(
        self, endpoint: Endpoint, batch: TokenBatch, on_outcomes: Callable[[TokenBatch], None], actor: str
    ) -> TokenBatch | None:
        """Write the events of tokens that were read; see `send`."""
        served = endpoint.served
        self._refuse_behind(served.name, batch)
        unwritten = batch.unwritten
        served.counters[FEEDBACK_START + FEEDBACK_REFUSALS] += len(batch.outcomes) - sum(map(len, unwritten.values()))
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
                (batch.contexts[version].source, batch.events_at(places), partial(note, version))
                for version, places in unwritten.items()
            ],
            actor,
        )
        return None

    def _refuse_behind(self, name: str, batch: TokenBatch) -> None:
        """Refuse the tokens of versions whose learner is too far behind."""
        for version, places in batch.unwritten.items():
            served = self._registry.now.served.get((name, version))
            try:
                if served is not None:  # else it was unloaded since the tokens were read
                    batch.contexts[version].check_lag(served, self._lag_events_max)
            except LearnerBehindError as reason:
                batch.refuse(places, reason)
