"""Receipts of calls that write, made of the answers of the service."""

from typing import Any

import pytest
from softstep_client import Event, Receipt
from softstep_client.answers import join_receipts, parse_receipt

ONE = {"model_name": "iris", "model_version": "2", "id": "a", "seq": 4, "duplicate": False}
MANY = {
    "model_name": "iris",
    "model_version": "2",
    "events": [
        {"id": "a", "seq": 4, "duplicate": False, "losses": [0.5]},
        {"id": "b", "seq": 9, "duplicate": True, "losses": None, "model_version": "1"},
    ],
}


@pytest.mark.parametrize(
    ("body", "rows", "losses"),
    [
        (ONE, 2, None),
        (ONE | {"losses": [0.5, None]}, 2, [0.5, None]),
        (ONE | {"losses": None}, 2, [None, None]),
        (MANY, 1, [0.5, None]),
    ],
)
def test_losses_have_one_value_for_each_row(body: dict[str, Any], rows: int, losses: list[float | None] | None) -> None:
    """None where it is no longer known; there are none at all if the call did not wait."""
    assert parse_receipt(body, rows).losses == losses


def test_events_name_their_own_version() -> None:
    """That at the top is the version of events without one."""
    receipt = parse_receipt(MANY, 1)
    assert receipt.events == [Event("a", 4, False, "2"), Event("b", 9, True, "1")]
    assert (receipt.id, receipt.seq, receipt.model) == ("a", 9, "iris")
    assert parse_receipt(ONE, 1).events == [Event("a", 4, False, "2")]


def test_batches_are_joined_in_order() -> None:
    """Their losses are, too, if all batches have them."""
    first, second = (
        Receipt([Event(name, 1, False, "1")], losses, "m") for name, losses in (("a", [1.0]), ("b", [2.0]))
    )
    joined = join_receipts([first, second])
    assert ([event.id for event in joined.events], joined.losses) == (["a", "b"], [1.0, 2.0])
    without = Receipt(second.events, None, "m")
    assert join_receipts([first, without]).losses is None
    assert join_receipts([first]) is first
