"""Feedback through a proxy that cuts, delays or drops one answer in ten: each call counts once."""

from pathlib import Path

import pytest
from softstep_client import Event, Receipt

from tests.support.client_calls import KINDS
from tests.support.disturbed_feedback import Outcome, run_disturbed
from tests.support.disturbing_proxy import WAYS
from tests.support.running_service import serving

CALLS = 250


@pytest.mark.parametrize("kind", KINDS)
def test_each_feedback_counts_once_whatever_happens_to_answers(kind: str, iris_models: Path, tmp_path: Path) -> None:
    """Every call has a receipt of an event of its own, and the model has learned exactly these."""
    with serving(iris_models, tmp_path) as service:
        outcome, proxy = run_disturbed(kind, service.url, service.address, CALLS)
    assert set(proxy.disturbed) == set(WAYS)
    assert proxy.answers >= CALLS + proxy.disturbed.total()
    assert outcome.violations() == []
    assert len({receipt.seq for receipt in outcome.receipts}) == CALLS
    assert outcome.metadata["log_seq"] == outcome.metadata["progressive"]["rows"] == CALLS


def test_lost_and_doubled_events_are_found() -> None:
    """The check of the campaign fails for an event that is lost, doubled or of no call."""
    one, two = (Receipt([Event(name, seq, False, "1")], None, "iris") for name, seq in (("a", 1), ("b", 2)))
    a, b = ({"id": name, "seq": seq, "kind": "feedback"} for name, seq in (("a", 1), ("b", 2)))
    assert Outcome([one, two], [a, b], {}).violations() == []
    assert Outcome([one, two], [a], {}).violations() == ["lost: ('b', 2)"]
    assert Outcome([one], [a, b], {}).violations() == ["not acknowledged: ('b', 2)"]
    assert Outcome([one, one], [a], {}).violations() == ["one event for two calls: ('a', 1)"]
