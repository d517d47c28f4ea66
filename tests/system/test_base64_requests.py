"""A real service answers rows in base64 as it answers the same numbers in JSON, and learns the same from them."""

from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest

from tests.support.http_requests import as_base64
from tests.support.paths import SHIPPED
from tests.support.running_service import Service, serving

# Numbers that float16 has too.
ROWS = [[5.0, 3.5, 1.5, 0.25], [6.75, 3.0, 5.25, 2.25]]
LABELS = ["setosa", "virginica"]
PREDICT, EXPLAIN, FEEDBACK = ":predict", ":explain", ":feedback?wait=true"


@pytest.fixture(scope="module")
def learning(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service with the shipped models, which learns from these tests alone."""
    with serving(SHIPPED, tmp_path_factory.mktemp("base64")) as running:
        yield running


def post(service: Service, call: str, **body: Any) -> httpx.Response:
    """Send a call of the model iris."""
    return httpx.post(f"{service.url}/v1/models/iris{call}", json=body, timeout=20)


@pytest.mark.parametrize("datatype", ["<f4", "<f2"])
@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize(
    ("call", "more"), [(PREDICT, {}), (PREDICT, {"min_seq": 0}), (EXPLAIN, {}), (EXPLAIN, {"top": 2})]
)
def test_answers_have_the_same_bytes(
    learning: Service, call: str, more: dict[str, Any], count: int, datatype: str
) -> None:
    """The whole answer to one row or several is that to the numbers in JSON, with and without other fields."""
    plain, encoded = (
        post(learning, call, instances=rows, **more) for rows in (ROWS[:count], as_base64(ROWS[:count], datatype))
    )
    assert (encoded.status_code, encoded.content) == (200, plain.content)


@pytest.mark.parametrize("count", [1, 2])
def test_a_retry_in_the_other_form_is_the_duplicate(learning: Service, count: int) -> None:
    """An event sent as JSON, float32 and float16 is stored once; other numbers with its id are refused."""
    rows, labels = ROWS[:count], LABELS[:count]
    first, *retries = (
        post(learning, FEEDBACK, id=f"event-{count}", instances=form, labels=labels)
        for form in (as_base64(rows), rows, as_base64(rows, "<f2"))
    )
    assert (first.status_code, first.json()["duplicate"]) == (200, False)
    for retry in retries:
        assert (retry.status_code, retry.json()) == (200, {**first.json(), "duplicate": True})
    changed = as_base64([[9, 9, 9, 9]] * count)
    other = post(learning, FEEDBACK, id=f"event-{count}", instances=changed, labels=labels)
    assert (other.status_code, other.json()["code"]) == (409, "id_taken")


@pytest.mark.parametrize("call", [PREDICT, EXPLAIN, FEEDBACK])
@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("AAAA", "has 3 bytes; this model takes 16 (float32) or 8 (float16)"),
        ("____" + "A" * 18 + "==", "is not standard base64"),
        (as_base64([[1, np.nan, 2, 3]])[0]["b64"], "finite"),
        (as_base64([[1, np.inf, 2, 3]], "<f2")[0]["b64"], "finite"),
    ],
    ids=["too short", "URL-safe", "NaN", "infinity"],
)
def test_wrong_rows_are_refused(learning: Service, call: str, text: str, words: str) -> None:
    """Each call answers 422 and says what to change, as for numbers in JSON."""
    more = {"labels": LABELS[:1]} if call == FEEDBACK else {}
    refused = post(learning, call, instances=[{"b64": text}], **more)
    assert (refused.status_code, refused.json()["code"]) == (422, "invalid_request")
    assert words in refused.json()["error"]
