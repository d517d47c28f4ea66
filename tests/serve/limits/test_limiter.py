"""The limits of a principal: what is permitted, what is refused and for how long, and what is given back."""

from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.access.principal import ANYONE, Limits, Principal
from service.access.scopes import ALL_SCOPES
from service.errors import TooLargeError
from service.limit_errors import (
    FeedbackLimitError,
    ImportanceLimitError,
    InFlightLimitError,
    LimitError,
    RequestLimitError,
    RowLimitError,
)
from service.process.shared_memory import SharedMemory
from service.serve.limits import buckets as module
from service.serve.limits.bucket_table import BucketTable
from service.serve.limits.limiter import BURST_SECONDS, Limiter, Limiters


class Clock:
    """A clock that the test sets, in seconds."""

    def __init__(self) -> None:
        self.now = 1e6

    def monotonic_ns(self) -> int:
        return round(self.now * 1e9)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic_ns=clock.monotonic_ns))
    return clock


def limiters(workers: int = 1, **limits: float) -> list[Limiter]:
    """Return the limiter of one key in each worker."""
    memory = SharedMemory(workers, 1)
    return [Limiter(BucketTable(memory), worker, "key:a", Limits(**limits)) for worker in range(workers)]  # type: ignore[arg-type]


@pytest.mark.parametrize("rate", [1.0, 7.0, 300.0, 12_345.6])
@pytest.mark.parametrize("workers", [1, 2, 4])
def test_requests_are_permitted_at_the_rate(clock: Clock, rate: float, workers: int) -> None:
    """In 10 s at three times the limit, all workers together accept the limit and a small burst."""
    group = limiters(workers, requests_per_second=rate)
    start, accepted = clock.now, 0
    for number in range(round(30 * rate)):
        clock.now = start + number / (3 * rate)
        try:
            group[number % workers].begin_request()
        except RequestLimitError:
            continue
        accepted += 1
    burst = max(1.0, BURST_SECONDS * rate + 1)
    assert 10 * rate - 1 <= accepted <= 10 * rate + burst
    if rate >= 100:
        assert accepted == pytest.approx(10 * rate, rel=0.05)


def test_the_time_to_wait_is_exact(clock: Clock) -> None:
    """A request that is sent again after Retry-After is accepted; a second before it is refused."""
    (limiter,) = limiters(requests_per_second=0.1)
    limiter.begin_request()
    with pytest.raises(RequestLimitError, match=r"may make 0\.1 requests a second; try again in 10 s") as caught:
        limiter.begin_request()
    assert caught.value.retry_seconds == 10
    clock.now += 9
    with pytest.raises(RequestLimitError):
        limiter.begin_request()
    clock.now += 1
    limiter.begin_request()


def test_a_large_request_is_taken_whole(clock: Clock) -> None:
    """A request of more rows than the burst is accepted without debt, and the next ones wait until it is paid."""
    (limiter,) = limiters(rows_per_second=100)
    limiter.take_rows(1000)
    with pytest.raises(RowLimitError, match="100 rows a second") as caught:
        limiter.take_rows(1)
    assert caught.value.retry_seconds == 10
    clock.now += 9.8
    limiter.take_rows(1)


def test_one_row_takes_a_request_and_a_row(clock: Clock) -> None:
    """The shortest way takes from the same buckets as the general one, and from none if one refuses."""
    (limiter,) = limiters(requests_per_second=4, rows_per_second=1)
    assert limiter.take_row_request()
    assert not limiter.take_row_request()
    with pytest.raises(RowLimitError):
        limiter.take_rows(1)
    limiter.begin_request()
    with pytest.raises(RequestLimitError):
        limiter.begin_request()
    clock.now += 0.25
    limiter.begin_request()


def test_requests_in_flight_count_over_all_workers() -> None:
    """No more requests are in progress than permitted, in whatever worker; one that ends makes room for another."""
    one, other = limiters(2, requests_in_flight=2, requests_per_second=1000)
    first = one.begin_request()
    other.begin_request()
    for limiter in (one, other):
        assert not limiter.take_row_request()
        with pytest.raises(InFlightLimitError) as caught:
            limiter.begin_request()
        assert caught.value.retry_seconds == 1
    one.end_request(first)
    assert other.take_row_request()
    other.begin_request()
    with pytest.raises(InFlightLimitError):
        one.begin_request()


def test_a_refused_request_in_flight_takes_no_request() -> None:
    """The limit of requests in flight does not cost requests of the limit each second."""
    (limiter,) = limiters(requests_in_flight=1, requests_per_second=4)
    limiter.begin_request()
    for _ in range(20):
        with pytest.raises(InFlightLimitError):
            limiter.begin_request()


def test_an_hour_may_be_used_at_once_and_is_never_exceeded(clock: Clock) -> None:
    """The events and the importance of an hour are permitted for each model, and no more."""
    (limiter,) = limiters(feedback_events_per_hour=10, importance_per_hour=100)
    limiter.take_feedback("iris", 9, 30)
    limiter.take_feedback("digits", 10, 100)
    with pytest.raises(FeedbackLimitError, match="10 feedback events an hour") as caught:
        limiter.take_feedback("iris", 2, 1)
    assert caught.value.retry_seconds == 360
    with pytest.raises(ImportanceLimitError, match="100 units of importance an hour"):
        limiter.take_feedback("iris", 1, 71)
    limiter.take_feedback("iris", 1, 70)
    clock.now += 359
    with pytest.raises(LimitError):
        limiter.take_feedback("iris", 1, 1)
    clock.now += 1
    limiter.take_feedback("iris", 1, 1)


def test_more_than_an_hour_permits_is_refused_for_good() -> None:
    """Feedback that no hour has room for is too large, so a client does not try again."""
    (limiter,) = limiters(feedback_events_per_hour=10, importance_per_hour=0.5)
    with pytest.raises(TooLargeError, match=r"0\.5 units of importance an hour"):
        limiter.take_feedback("iris", 1, 1)
    with pytest.raises(TooLargeError, match="10 feedback events an hour"):
        limiter.take_feedback("iris", 11, 0.1)


@given(st.lists(st.tuples(st.integers(1, 5), st.floats(0.1, 20)), max_size=8))
def test_what_was_not_stored_is_given_back(parts: list[tuple[int, float]]) -> None:
    """After everything is given back, the whole hour is permitted again."""
    (limiter,) = limiters(feedback_events_per_hour=1000, importance_per_hour=1000)
    for events, importance in parts:
        limiter.take_feedback("iris", events, importance)
        limiter.give_feedback("iris", events, importance)
    limiter.take_feedback("iris", 1000, 999.99)


def test_a_principal_without_limits_has_no_limiter() -> None:
    """Limiters are made for principals with limits, once for each."""
    group = Limiters(BucketTable(SharedMemory(1, 1)), 0)
    assert group.limiter_of(ANYONE) is None
    group.take_rows(ANYONE, 10**9)
    limited = Principal("key:a", ALL_SCOPES, limits=Limits(requests_per_second=1.0))
    limiter = group.limiter_of(limited)
    assert limiter is group.limiter_of(limited._replace(expires=1.0))
    assert limiter is not group.limiter_of(limited._replace(actor="key:b"))
    with group.hold_request(limited), pytest.raises(RequestLimitError), group.hold_request(limited):
        pass


def test_a_request_that_fails_is_not_in_flight() -> None:
    """A request ends also if its answer is an exception."""
    group = Limiters(BucketTable(SharedMemory(1, 1)), 0)
    limited = Principal("key:a", ALL_SCOPES, limits=Limits(requests_in_flight=1))
    for _ in range(3):
        with pytest.raises(ZeroDivisionError), group.hold_request(limited):
            raise ZeroDivisionError
