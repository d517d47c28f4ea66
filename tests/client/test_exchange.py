"""Retries without a network: which outcomes are sent again, after which pauses, and which errors they become."""

import json
import pickle
from typing import Any

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st
from softstep_client import APIConnectionError, APIStatusError, APITimeoutError
from softstep_client.exchange import exchange
from softstep_client.options import Options
from softstep_client.retries import (
    DELAY_SECONDS_MAX,
    FIRST_DELAY_SECONDS,
    RETRY_AFTER_EXCESS,
    RETRY_AFTER_SECONDS_MAX,
    is_retried,
    parse_retry_after,
    retry_delay,
)
from softstep_client.steps import ApiRequest, Attempt, Failure, Outcome, Pause, Reply

from service.serve.error_codes import ERROR_CODES
from tests.support.client_calls import run_flow

REQUEST = ApiRequest("POST", "/v1/models/iris:feedback", b"{}", event_id="mine")
FINE = Reply(200, b"{}")
CUT = Failure(httpx2.ReadError("cut"), is_timeout=False)
SLOW = Failure(httpx2.ReadTimeout("slow"), is_timeout=True)


def refusal(status: int, code: str | None, retry_after: str | None = None, **more: Any) -> Reply:
    """Return an answer of the service that refuses a request."""
    return Reply(status, json.dumps({"error": "A sentence.", "code": code, **more}).encode(), retry_after, None, "r-1")


def carry_out(*outcomes: Outcome, retries: int = 2) -> tuple[list[float], int, Any]:
    """Return the pauses of a request, the number of its attempts, and its result or error."""
    steps, result = run_flow(exchange(REQUEST, Options(10.0, retries)), list(outcomes))
    attempts = [step for step in steps if isinstance(step, Attempt)]
    assert all(attempt == Attempt(REQUEST, 10.0) for attempt in attempts)
    return [step.seconds for step in steps if isinstance(step, Pause)], len(attempts), result


# Codes that the client does not retry although the table says that a later request can succeed, with the reasons.
NOT_RETRIED = {
    "state_pending": "the client has no call that gets this answer",
    "stream_gone": "409: sending it again is the decision of the application",
    "internal_error": "500: the server failed, and its log says why",
}


def test_the_codes_that_are_retried_are_those_of_the_table() -> None:
    """A code is retried if the service says that the same request can succeed, with the exceptions above."""
    later = {code for code, row in ERROR_CODES.items() if row.retry.startswith(("later", "yes"))}
    retried = {code for code, row in ERROR_CODES.items() if is_retried(row.status, code)}
    assert retried == later - set(NOT_RETRIED)
    assert {code for code in retried if ERROR_CODES[code].status in {409, 422}} == {"not_reached_yet"}


@pytest.mark.parametrize("outcome", [CUT, SLOW, *(Reply(status, b"<html>") for status in (408, 429, 502, 503, 504))])
def test_failures_that_may_pass_are_retried(outcome: Outcome) -> None:
    """Twice by default, then they are the error; a success in between is the result."""
    assert carry_out(FINE) == ([], 1, FINE)
    assert carry_out(outcome, outcome, FINE)[1:] == (3, FINE)
    _, count, error = carry_out(outcome, outcome, outcome)
    assert count == 3
    assert error.event_id == "mine"
    expected = {CUT: APIConnectionError, SLOW: APITimeoutError}.get(outcome, APIStatusError)  # type: ignore[call-overload]
    assert type(error) is expected
    assert carry_out(outcome, retries=0)[:2] == ([], 1)


@pytest.mark.parametrize("status", [301, 400, 401, 403, 404, 409, 410, 413, 415, 421, 422, 431, 500, 501])
def test_other_answers_are_final(status: int) -> None:
    """They are raised at once, also with a Retry-After."""
    pauses, count, error = carry_out(Reply(status, b"", "1"))
    assert (pauses, count, error.status, error.code) == ([], 1, status, None)


def test_codes_decide_where_a_status_has_several_meanings() -> None:
    """Such as 409, 503, and `some_refused`, which counts as its reason."""
    assert carry_out(refusal(409, "not_reached_yet", "1"), FINE)[1:] == (2, FINE)
    assert carry_out(refusal(409, "id_taken"))[1] == 1
    assert carry_out(refusal(503, "learning_off"))[1] == 1
    assert carry_out(refusal(503, "log_full", "1"), FINE)[1] == 2
    assert carry_out(refusal(429, "some_refused", "1", reason="learner_behind"), FINE)[1] == 2
    assert carry_out(refusal(409, "some_refused", "1", reason="id_taken"))[1] == 1
    assert carry_out(refusal(409, "some_refused", "1", reason="not_reached_yet"), FINE)[1] == 2


def test_retry_after_is_obeyed() -> None:
    """A pause is at least as long; a call fails at once if it would be too long."""
    (pause,), _, _ = carry_out(refusal(429, "too_many_requests", "7"), FINE)
    assert 7 <= pause <= 7 * (1 + RETRY_AFTER_EXCESS)
    for seconds in ("61", "9" * 400):
        pauses, count, error = carry_out(refusal(429, "too_many_requests", seconds))
        assert (pauses, count, error.code) == ([], 1, "too_many_requests")


@given(st.integers(0, 10_000), st.floats(0, 1), st.floats(0, RETRY_AFTER_SECONDS_MAX))
def test_delays_grow_and_stay_bounded(retry: int, chance: float, retry_after: float) -> None:
    """Each is from half of its largest value to that, which doubles up to a limit."""
    largest = min(FIRST_DELAY_SECONDS * 2 ** min(retry, 4), DELAY_SECONDS_MAX)
    delay = retry_delay(retry, None, chance)
    assert delay is not None
    assert largest / 2 <= delay <= largest
    after = retry_delay(retry, retry_after, chance)
    assert after is not None
    assert retry_after <= after <= retry_after * (1 + RETRY_AFTER_EXCESS)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None),
        ("0", 0.0),
        (" 12 ", 12.0),
        ("Thu, 01 Jan 1970 00:01:40 GMT", 40.0),
        ("Thu, 01 Jan 1970 00:00:01 GMT", 0.0),
        ("-1", None),
        ("1.5", None),
        ("soon", None),
        ("", None),
        ("²", None),
    ],
)
def test_retry_after_is_seconds_or_a_date(value: str | None, seconds: float | None) -> None:
    """Anything else counts as none."""
    assert parse_retry_after(value, 60.0) == seconds


@given(st.text())
def test_no_header_breaks_the_parser(value: str) -> None:
    """A value of any text is seconds, 0 or more, or none."""
    seconds = parse_retry_after(value, 60.0)
    assert seconds is None or seconds >= 0


def test_an_error_has_what_the_service_says() -> None:
    """Status, code, sentence, body and request id; its text names all that a reader needs."""
    _, _, error = carry_out(refusal(422, "invalid_value"))
    assert (error.status, error.code, error.sentence, error.request_id) == (422, "invalid_value", "A sentence.", "r-1")
    assert error.body == {"error": "A sentence.", "code": "invalid_value"}
    assert str(error) == "422 invalid_value: A sentence."
    assert "redirect" in str(carry_out(Reply(302, b""))[2])
    assert str(carry_out(CUT, retries=0)[2]) == "The connection to the service failed (ReadError)."
    assert str(carry_out(SLOW, retries=0)[2]) == "The service did not answer in time (ReadTimeout)."
    assert carry_out(CUT, retries=0)[2].__cause__ is CUT.error


@pytest.mark.parametrize("outcome", [CUT, SLOW, refusal(422, "invalid_value")])
def test_errors_can_be_sent_to_other_processes(outcome: Outcome) -> None:
    """A pickled error has all that it had."""
    _, _, error = carry_out(outcome, retries=0)
    again = pickle.loads(pickle.dumps(error))  # noqa: S301 - of this test
    assert (type(again), str(again), vars(again)) == (type(error), str(error), vars(error))


@given(st.integers(200, 599), st.binary())
def test_no_answer_breaks_the_client(status: int, content: bytes) -> None:
    """An answer of any bytes is a result or an APIStatusError."""
    _, _, result = carry_out(Reply(status, content), retries=0)
    assert isinstance(result, Reply if status < 300 else APIStatusError)
