"""The limits of each principal, as one worker applies them.

    limit                        bucket of                   taken                       refused
    requests_per_second          the actor                   before the request          while the bucket is in debt
    rows_per_second              the actor                   when the body is parsed     while the bucket is in debt
    requests_in_flight           the actor                   before the request          above the limit
    feedback_events_per_hour     the actor and the model     when the body is parsed     if the bucket has not enough
    importance_per_hour          the actor and the model     when the body is parsed     if the bucket has not enough

A request may have more rows than flow in at once: it is answered if the bucket is not in debt, and taken whole, so the
next one waits longer. The limits of an hour are for what a model learns; they are never exceeded.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from service.access.principal import NO_LIMITS, Limits, Principal
from service.errors import TooLargeError
from service.limit_errors import (
    FeedbackLimitError,
    ImportanceLimitError,
    InFlightLimitError,
    LimitError,
    RequestLimitError,
    RowLimitError,
)
from service.serve.limits.bucket_table import BucketTable, tag_of
from service.serve.limits.buckets import SECOND, Buckets

# What a second's limit permits at once, in seconds of its flow. Over 10 s it is 2.5 % more than the limit; at least one
# request is always permitted.
BURST_SECONDS: Final = 0.25
HOUR: Final = 3600.0
# For so long the table keeps the entry of an actor's requests in flight after the last one has begun.
KEEP_SECONDS: Final = 60.0
# Principals whose limiters are remembered: a few MiB at most.
LIMITERS_MAX: Final = 4096
NO_PLACE: Final = -1


class Limiter:
    """The limits of one principal; used on the event loop's thread.

    Args:
        table: The buckets.
        worker: The number of this worker.
        actor: The name of the principal.
        limits: Its limits.
    """

    def __init__(self, table: BucketTable, worker: int, actor: str, limits: Limits) -> None:
        self._table: Final = table
        self._worker: Final = worker
        self._actor: Final = actor
        self._limits: Final = limits
        requests, rows = limits.requests_per_second, limits.rows_per_second
        self._requests: Final = None if requests is None else self._rate("requests", requests)
        self._rows: Final = None if rows is None else self._rate("rows", rows)
        rates = [(name, rate) for name, rate in (("requests", requests), ("rows", rows)) if rate is not None]
        self._row_request: Final = Buckets(table, [tag_of(actor, name) for name, _ in rates])
        for number, (_, rate) in enumerate(rates):
            self._row_request.set_cost(number, 1 / rate, BURST_SECONDS)
        self._in_flight: Final = None if limits.requests_in_flight is None else self._buckets("in_flight")
        self._hours: Final[dict[str, Buckets]] = {}

    def take_row_request(self) -> bool:
        """Take a whole request of one row; if a limit refuses it, take nothing and return False."""
        if self._in_flight is not None and self._count_in_flight(self._in_flight.place) >= self._in_flight_max:
            return False
        return self._row_request.take() == 0

    def begin_request(self) -> int:
        """Take a request; return a number for `end_request`.

        Raises:
            LimitError: A limit refuses it.
            OverloadedError: The table of buckets is full.
        """
        if self._requests is not None:
            wait = self._requests.take()
            if wait:
                text = f"make {self._limits.requests_per_second:g} requests a second"
                raise _refusal(RequestLimitError, text, wait)
        if self._in_flight is None:
            return NO_PLACE
        self._in_flight.keep(KEEP_SECONDS)
        place = self._in_flight.place
        self._table.in_flight[self._worker, place] += 1
        if self._count_in_flight(place) > self._in_flight_max:
            self.end_request(place)
            if self._requests is not None:
                self._requests.give()
            text = f"have {self._in_flight_max} requests in progress at one time"
            raise _refusal(InFlightLimitError, text, SECOND)
        return place

    def end_request(self, number: int) -> None:
        """Note that a request is answered, or its client has left."""
        if number != NO_PLACE:
            self._table.in_flight[self._worker, number] -= 1

    def take_rows(self, rows: int) -> None:
        """Take the rows of a request that has begun; raise RowLimitError if the limit refuses them."""
        rate = self._limits.rows_per_second
        if self._rows is None or rate is None:
            return
        self._rows.set_cost(0, rows / rate, BURST_SECONDS)
        wait = self._rows.take()
        if wait:
            raise _refusal(RowLimitError, f"send {rate:g} rows a second", wait)

    def take_feedback(self, model: str, events: int, importance: float) -> None:
        """Take feedback for a model.

        Args:
            model: The model's name.
            events: The number of events.
            importance: The sum of the importance of all rows.

        Raises:
            FeedbackLimitError: The limit of events refuses it.
            ImportanceLimitError: The limit of importance refuses it.
            TooLargeError: No hour has room for it.
        """
        parts = self._hour_parts(events, importance)
        if not parts:
            return
        for _, amount, limit, noun in parts:
            if amount > limit:
                raise TooLargeError(f"The key may send {limit:g} {noun} an hour to one model; send less at one time.")
        buckets = self._hour_buckets(model, parts)
        for number, (_, amount, limit, _) in enumerate(parts):
            cost = amount * HOUR / limit
            buckets.set_cost(number, cost, HOUR - cost)
        wait = buckets.take()
        if wait:
            kind, _, limit, noun = parts[buckets.refused]
            raise _refusal(kind, f"send {limit:g} {noun} an hour to one model", wait)

    def give_feedback(self, model: str, events: int, importance: float) -> None:
        """Give back feedback that was taken but not stored."""
        parts = self._hour_parts(events, importance)
        if parts and events:
            buckets = self._hour_buckets(model, parts)
            for number, (_, amount, limit, _) in enumerate(parts):
                buckets.set_cost(number, amount * HOUR / limit, 0)
            buckets.give()

    @property
    def _in_flight_max(self) -> int:
        return self._limits.requests_in_flight or 0

    def _count_in_flight(self, place: int) -> int:
        return int(self._table.in_flight[:, place].sum())

    def _buckets(self, limit: str, model: str = "") -> Buckets:
        return Buckets(self._table, [tag_of(self._actor, limit, model)])

    def _rate(self, limit: str, rate: float) -> Buckets:
        """Return the bucket of a limit for each second, from which 1 is taken."""
        buckets = self._buckets(limit)
        buckets.set_cost(0, 1 / rate, BURST_SECONDS)
        return buckets

    def _hour_parts(self, events: int, importance: float) -> list[tuple[type[LimitError], float, float, str]]:
        """Return for each limit of an hour its error, what is taken, the limit, and what it counts."""
        limits = self._limits
        parts: list[tuple[type[LimitError], float, float, str]] = []
        if limits.feedback_events_per_hour is not None:
            parts.append((FeedbackLimitError, events, limits.feedback_events_per_hour, "feedback events"))
        if limits.importance_per_hour is not None:
            parts.append((ImportanceLimitError, importance, limits.importance_per_hour, "units of importance"))
        return parts

    def _hour_buckets(self, model: str, parts: Sequence[tuple[type[LimitError], float, float, str]]) -> Buckets:
        buckets = self._hours.get(model)
        if buckets is None:
            tags = [tag_of(self._actor, kind.code, model) for kind, _, _, _ in parts]
            buckets = self._hours[model] = Buckets(self._table, tags)
        return buckets


class Limiters:
    """The limiters of one worker.

    Args:
        table: The buckets.
        worker: The number of this worker.
    """

    def __init__(self, table: BucketTable, worker: int) -> None:
        self._table: Final = table
        self._worker: Final = worker
        self._limiters: Final[dict[tuple[str, Limits], Limiter]] = {}

    def limiter_of(self, principal: Principal) -> Limiter | None:
        """Return the limits of a principal, or None if it has none.

        Raises:
            OverloadedError: The table of buckets is full.
        """
        if principal.limits is NO_LIMITS:
            return None
        key = (principal.actor, principal.limits)
        limiter = self._limiters.get(key)
        if limiter is None:
            if len(self._limiters) >= LIMITERS_MAX:
                self._limiters.clear()
            limiter = self._limiters[key] = Limiter(self._table, self._worker, *key)
        return limiter

    @contextmanager
    def hold_request(self, principal: Principal) -> Iterator[None]:
        """Take a request that is in progress within the context.

        Raises:
            LimitError: A limit refuses it.
            OverloadedError: The table of buckets is full.
        """
        limiter = self.limiter_of(principal)
        number = NO_PLACE if limiter is None else limiter.begin_request()
        try:
            yield
        finally:
            if limiter is not None:
                limiter.end_request(number)

    def take_rows(self, principal: Principal, rows: int) -> None:
        """Take the rows of a principal's request; raise LimitError if a limit refuses them."""
        limiter = self.limiter_of(principal)
        if limiter is not None:
            limiter.take_rows(rows)


def _refusal(kind: type[LimitError], permitted: str, wait: int) -> LimitError:
    """Return the error of a limit, with the time until it permits more."""
    seconds = math.ceil(wait / SECOND)
    return kind(f"The key may {permitted}; try again in {seconds} s.", seconds)
