"""Feedback and changes of what was learned, in a real service."""

from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pandas as pd
import polars as pl
import pytest
from softstep_client import APIStatusError, InputError, Softstep

from tests.support.client_calls import make_client
from tests.support.paths import SHIPPED
from tests.support.running_service import Service, serving

ROWS = [[6.0, 2.7, 5.1, 1.6], [5.1, 3.5, 1.4, 0.2]]
LABELS = ["versicolor", "setosa"]


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service of the shipped models for this module."""
    with serving(SHIPPED, tmp_path_factory.mktemp("taught")) as running:
        yield running


@pytest.fixture
def client(kind: str, taught: Service) -> Iterator[Any]:
    """A client whose model iris is as it was trained."""
    client = make_client(kind, taught.url)
    client.rollback("iris", 0, wait=True)
    yield client
    client.close()


def metadata(service: Service) -> dict[str, Any]:
    """Return the metadata of iris."""
    return dict(httpx.get(f"{service.url}/v1/models/iris").json())


def test_feedback_is_learned_before_it_returns(client: Any) -> None:
    """With `wait` the receipt has losses, and a prediction with its seq is answered by what was learned."""
    before = client.predict("iris", ROWS)
    receipt = client.feedback("iris", ROWS, LABELS, wait=True)
    after = client.predict("iris", ROWS, min_seq=receipt.seq)
    assert after.seq >= receipt.seq > before.seq
    assert len(receipt.losses) == 2
    assert all(
        new[at] > old[at] for at, new, old in zip([1, 0], after.probabilities, before.probabilities, strict=True)
    )
    assert [event.duplicate for event in receipt.events] == [False]
    assert (receipt.model, receipt.events[0].version) == ("iris", "1")


def test_a_repeated_id_counts_once(client: Any, kind: str) -> None:
    """The same call with its id is a duplicate with the same seq; other content with that id is refused."""
    first = client.feedback("iris", ROWS, LABELS, id=f"once-{kind}")
    again = client.feedback("iris", np.array(ROWS), pd.Series(LABELS), id=f"once-{kind}")
    assert (again.id, again.seq, again.events[0].duplicate) == (f"once-{kind}", first.seq, True)
    assert first.losses is None
    with pytest.raises(APIStatusError) as refused:
        client.feedback("iris", ROWS, LABELS[::-1], id=f"once-{kind}")
    assert (refused.value.status, refused.value.code, refused.value.event_id) == (409, "id_taken", f"once-{kind}")


def test_ids_that_the_client_makes_differ(client: Any) -> None:
    """Two calls with the same rows are two events."""
    one, other = (client.feedback("iris", ROWS, LABELS) for _ in range(2))
    assert one.id != other.id
    assert other.seq == one.seq + 1


def test_labels_and_weights_take_every_form(client: Any) -> None:
    """Names, indexes and probabilities, as lists, arrays and series, have the losses of the same labels as names."""
    forms: list[Any] = [
        LABELS,
        tuple(LABELS),
        iter(LABELS),
        [1, 0],
        np.array([1, 0]),
        np.array([[0.0, 1, 0], [1, 0, 0]]),
        pd.Series(LABELS, index=[7, 3]),
        pd.Series(LABELS, dtype="category"),
        pl.Series(LABELS),
    ]
    losses = []
    for labels in forms:
        back = client.rollback("iris", 0, wait=True)
        weights = np.array([2.0, 0.5]) if labels is LABELS else pl.Series([2.0, 0.5])
        receipt = client.feedback("iris", ROWS, labels, weights=weights, wait=True)
        assert receipt.seq == back.seq + 1
        losses.append(receipt.losses)
    assert losses == [losses[0]] * len(forms)
    assert losses[0][0] == pytest.approx(1.1543, abs=1e-4)


def test_many_rows_are_sent_as_several_events(client: Any, taught: Service) -> None:
    """Each batch has the id of the call with its number; the same call again repeats all of them."""
    frame = pd.DataFrame(ROWS * 5, columns=metadata(taught)["features"])
    before = metadata(taught)["log_seq"]
    receipt = client.feedback("iris", frame, LABELS * 5, weights=[1.0] * 10, batch=4, wait=True)
    assert [event.id for event in receipt.events] == [receipt.id, f"{receipt.id}/2", f"{receipt.id}/3"]
    assert [event.seq for event in receipt.events] == [before + 1, before + 2, before + 3]
    assert (receipt.seq, len(receipt.losses)) == (before + 3, 10)
    again = client.feedback("iris", frame, LABELS * 5, weights=[1.0] * 10, batch=4, id=receipt.id)
    assert all(event.duplicate for event in again.events)
    assert metadata(taught)["log_seq"] == before + 3


def test_a_batch_that_is_refused_leaves_the_others_stored(client: Any, taught: Service) -> None:
    """The error has the id of the call, with which the corrected call can be repeated."""
    before = metadata(taught)["log_seq"]
    with pytest.raises(APIStatusError) as refused:
        client.feedback("iris", ROWS, ["setosa", "nonsense"], batch=1)
    assert metadata(taught)["log_seq"] == before + 1
    receipt = client.feedback("iris", ROWS, ["setosa", "virginica"], batch=1, id=refused.value.event_id)
    assert [event.duplicate for event in receipt.events] == [True, False]


def test_tokens_take_the_place_of_rows(client: Any) -> None:
    """Each token is an event of its own, also in batches, and counts once."""
    answer = client.predict("iris", np.array(ROWS), tokens=True)
    assert len(answer.tokens) == 2
    assert answer.tokens[0] not in repr(answer)
    receipt = client.feedback("iris", tokens=answer.tokens, labels=LABELS, wait=True)
    assert (len(receipt.events), len(receipt.losses)) == (2, 2)
    again = client.feedback("iris", tokens=answer.tokens, labels=LABELS, batch=1)
    assert [(event.id, event.seq, event.duplicate) for event in again.events] == [
        (event.id, event.seq, True) for event in receipt.events
    ]


def test_a_refused_token_leaves_the_others_stored(client: Any) -> None:
    """The error has the body of the service, which says what was stored."""
    (token,) = client.predict("iris", ROWS[:1], tokens=True).tokens
    with pytest.raises(APIStatusError) as refused:
        client.feedback("iris", tokens=[token, "x"], labels=LABELS)
    assert (refused.value.code, refused.value.body["reason"]) == ("some_refused", "invalid_token")
    assert (refused.value.body["accepted"], refused.value.event_id) == (1, None)


def test_labels_are_corrected_and_events_forgotten(client: Any) -> None:
    """A correction has an event for each id; after a forget the model is the one that never saw the event."""
    trained = client.predict("iris", ROWS).probabilities
    first = client.feedback("iris", ROWS, LABELS, wait=True)
    second = client.feedback("iris", ROWS[:1], ["setosa"], wait=True)
    receipt = client.correct("iris", pl.Series([first.id, second.id]), [LABELS[::-1], ["virginica"]], wait=True)
    assert [event.id for event in receipt.events] == [receipt.id, f"{receipt.id}/2"]
    assert client.predict("iris", ROWS, min_seq=receipt.seq).probabilities != trained
    receipt = client.forget("iris", [first.id, second.id], id=f"forget-{receipt.id}", wait=True)
    assert receipt.id.startswith("forget-")
    assert client.predict("iris", ROWS, min_seq=receipt.seq).probabilities == trained
    with pytest.raises(APIStatusError, match="404 unknown_id"):
        client.forget("iris", ["never-sent"])


def test_added_classes_are_in_the_next_answer(client: Any) -> None:
    """Also after a rollback removed them, and others were added in their place."""
    names = ["setosa", "versicolor", "virginica"]
    assert client.predict("iris", ROWS).classes == names
    for name in ("hybrid", "other"):
        receipt = client.classes("iris", [name], wait=True)
        answer = client.predict("iris", ROWS, min_seq=receipt.seq)
        assert answer.classes == [*names, name]
        assert len(answer.probabilities[0]) == 4
        receipt = client.rollback("iris", 0, wait=True)
        assert client.predict("iris", ROWS, min_seq=receipt.seq).classes == names


def test_classes_that_this_client_changes_are_read_again(client: Any) -> None:
    """Also if the number of classes is what it was, and no label shows a new name."""
    for name in ("one", "two"):
        receipt = client.classes("iris", [name], wait=True)
        answer = client.predict("iris", ROWS, min_seq=receipt.seq)
        assert (answer.classes[3], set(answer.labels) & {"one", "two"}) == (name, set())
        if name == "one":
            client.rollback("iris", 0, wait=True)


def test_classes_that_another_client_adds_are_found(client: Any, taught: Service) -> None:
    """An answer with more classes than are known, or with the name of another one, has the new names."""
    with Softstep(taught.url) as other:
        for name in ("first", "second"):
            added = other.classes("iris", [name], wait=True)
            if name == "first":
                assert client.predict("iris", ROWS, min_seq=added.seq).classes[3] == name
            learned = other.feedback("iris", ROWS * 20, [name] * 40, weights=[100.0] * 40, wait=True)
            answer = client.predict("iris", ROWS, min_seq=learned.seq)
            assert answer.labels == [name] * 2
            assert answer.classes[3] == name
            other.rollback("iris", 0, wait=True)


def test_a_call_can_be_conditional(client: Any) -> None:
    """`if_seq` refuses a change if something was learned since."""
    receipt = client.feedback("iris", ROWS, LABELS)
    client.configure("iris", paused=True, if_seq=receipt.seq, wait=True)
    with pytest.raises(APIStatusError, match="409 seq_moved"):
        client.configure("iris", paused=False, if_seq=receipt.seq)
    client.configure("iris", paused=False, version=1)


def test_the_rule_and_its_constants_are_configured(client: Any, taught: Service) -> None:
    """They are in the metadata."""
    client.configure("iris", rule="ftrl", constants={"rate": 0.25}, shadow=True, wait=True)
    learning = metadata(taught)["learning"]
    assert (learning["rule"], learning["constants"]["rate"], learning["shadow"]) == ("ftrl", 0.25, True)
    client.configure("iris", shadow=False, wait=True)


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"rows": ROWS},
        {"labels": LABELS},
        {"rows": ROWS, "labels": LABELS[:1]},
        {"rows": ROWS, "labels": LABELS, "weights": [1.0]},
        {"rows": ROWS, "labels": "setosa"},
        {"rows": ROWS, "labels": LABELS, "tokens": ["x", "y"]},
        {"rows": [], "labels": []},
        {"tokens": [], "labels": []},
        {"tokens": ["x", "y"], "labels": LABELS, "id": "mine"},
        {"rows": ROWS, "labels": LABELS, "batch": 0},
        {"rows": ROWS, "labels": LABELS, "batch": 1.5},
    ],
    ids=lambda arguments: ",".join(arguments) or "nothing",
)
def test_what_cannot_be_feedback_is_not_sent(client: Any, taught: Service, arguments: dict[str, Any]) -> None:
    """It is refused before any request."""
    before = metadata(taught)["log_seq"]
    with pytest.raises(InputError):
        client.feedback("iris", **arguments)
    assert metadata(taught)["log_seq"] == before
