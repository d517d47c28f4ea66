"""The slices of a report equal those that a plain loop over its rows makes."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.fields.tracked_columns import TrackedColumns
from service.serve.handlers.report_slices import (
    QUALITY_ROWS,
    ClientHistory,
    describe_drift,
    describe_history,
    describe_quality,
    first_changed,
    whole_buckets,
)
from service.softmax.reliability_diagram import reliability_diagram
from service.store.states.report import COLUMNS, Report
from tests.support.reports import make_report

LISTS = ("seq", *COLUMNS, "labels", "found")
SIZES = st.sampled_from([0, 1, 5, 64, 65, 512, 513, 1300, 3000])


def lists_of(document: dict[str, Any]) -> dict[str, list[Any]]:
    """Return the lists of a history."""
    return {name: [list(one) if np.ndim(one) else one for one in document[name]] for name in LISTS}


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_a_client_that_follows_has_the_whole_history(data: Any) -> None:
    """A client that puts the changed buckets in place of its own has what a client has that reads all of them."""
    start = data.draw(st.sampled_from([0, 7]))
    # The rows of the longer report begin with those of the shorter one if both are of one stream.
    whole = make_report(data.draw(SIZES), start=start)
    since = start + data.draw(st.integers(0, whole.seq - start))
    before = lists_of(describe_history(whole))
    kept = sum(end <= since for end in before["seq"])
    client = ClientHistory(since, whole.epoch, whole.bucket)
    changed = lists_of(describe_history(whole, first_changed(whole, client)))
    assert {name: [*before[name][:kept], *changed[name]] for name in LISTS} == before
    assert all(end > since for end in changed["seq"])


@pytest.mark.parametrize(
    "client",
    [
        ClientHistory(0, 0, 4),
        ClientHistory(900, 1, 4),
        ClientHistory(900, None, 4),
        ClientHistory(900, 0, 2),
        ClientHistory(900, 0, None),
        ClientHistory(1301, 0, 4),
    ],
)
def test_a_client_whose_history_is_not_valid_gets_all(client: ClientHistory) -> None:
    """After a forgotten event, a merge of buckets or a new start of the report the client gets every bucket."""
    report = make_report(1300)
    assert report.bucket == 4
    assert first_changed(report, client) == 0
    assert first_changed(report, ClientHistory(900, 0, 4)) == 225
    assert first_changed(report, ClientHistory(1300, 0, 4)) == len(report.history)


@given(
    st.lists(st.integers(0, 700), max_size=12).flatmap(
        lambda rows: st.tuples(st.just(rows), st.integers(0, 4 * len(rows) + 3))
    )
)
def test_the_fewest_whole_buckets_with_enough_rows_are_found(given_rows: tuple[list[int], int]) -> None:
    """They end at or before the seq, hold 1,000 rows, and are not enough without the oldest; or they are all."""
    rows, seq = given_rows
    ends = [4 * (i + 1) for i in range(len(rows))]
    first, stop = whole_buckets(ends, np.array(rows, float), seq)
    assert [end <= seq for end in ends] == [True] * stop + [False] * (len(rows) - stop)
    assert sum(rows[first:stop]) >= QUALITY_ROWS or first == 0
    assert sum(rows[first + 1 : stop]) < QUALITY_ROWS or first == stop


def check_quality(report: Report, document: dict[str, Any], used: slice) -> None:
    """Hold the quality over some of the rows of a report to sums over these rows alone."""
    loss, hit, confidence, accuracy, frozen_loss, frozen_hit = report.recent[used].T
    n = len(loss)
    assert (document["rows"], document["frozen_rows"]) == (n, n)
    expected = {
        "accuracy": hit, "frozen_accuracy": frozen_hit, "both": hit * frozen_hit, "loss": loss,
        "frozen_loss": frozen_loss,
    }  # fmt: skip
    for name, values in expected.items():
        assert document[name] == (pytest.approx(values.mean()) if n else None)
    counts = np.zeros((3, 3), int)
    for _, label, answer in report.recent_rows[used]:
        counts[label, answer] += 1
    assert (document["confusion"] == counts).all()
    diagram = reliability_diagram(np.stack([confidence, accuracy]), n)
    assert [one["rows"] for one in document["calibration"]["bins"]] == [one["rows"] for one in diagram["bins"]]
    assert document["calibration"]["expected_error"] == pytest.approx(diagram["expected_error"])


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 900), st.data())
def test_quality_equals_that_of_its_rows(events: int, data: Any) -> None:
    """Now it is that of the latest rows, and at a past seq that of all rows of the buckets that end there."""
    report = make_report(events)
    check_quality(report, describe_quality(report, None), slice(None))
    document = describe_quality(report, data.draw(st.integers(0, events + 9)))
    check_quality(report, document, slice(document["seq"]))


def test_quality_at_a_past_seq_has_the_rows_before_it() -> None:
    """Of more than 1,000 rows the newest whole buckets count, and `seq` says where they end."""
    report = make_report(6000, start=50)
    assert report.coarse_bucket == 128
    document = describe_quality(report, 3000)
    assert (document["seq"], document["rows"]) == (50 + 23 * 128, 8 * 128)
    assert document["loss"] == pytest.approx(report.quality[15:23, 1].sum() / 1024)
    assert describe_quality(report, 6049)["seq"] == 50 + 46 * 128
    assert describe_quality(report, 6050)["seq"] == 6050
    assert (describe_quality(report, 60)["seq"], describe_quality(report, 60)["rows"]) == (50, 0)


def test_rows_that_the_artifact_did_not_score_count_for_the_model_alone() -> None:
    """Means of the artifact are over the rows that it scored."""
    report = make_report(8)
    recent = report.recent.copy()
    recent[2:, 4:] = np.nan
    document = describe_quality(make_report(8, recent=recent), None)
    assert (document["rows"], document["frozen_rows"]) == (8, 2)
    assert document["frozen_loss"] == pytest.approx(recent[:2, 4].mean())
    assert document["both"] == pytest.approx((recent[:2, 1] * recent[:2, 5]).mean())


def test_shifts_are_means_over_rows() -> None:
    """A bucket without rows has none."""
    report = make_report(300)
    quality = report.quality.copy()
    quality[3, 0] = 0
    shift = describe_drift(make_report(300, quality=quality), None)["shift"]
    assert shift[3] is None
    assert report.drift is not None
    np.testing.assert_array_equal(shift[2], report.drift[2] / 8)
    assert describe_drift(make_report(300, drift=None), None)["shift"] is None


def test_the_drift_of_fields_is_by_field() -> None:
    """Numbers have shifts; the other tracked columns are shares of missing and unknown values."""
    tracked = TrackedColumns(np.array([3, 4, 9]), {"age": 0}, {"age": 1}, {"country": 2})
    report = make_report(8, features=3)
    assert report.drift is not None
    found = describe_drift(report, None, tracked=tracked)
    assert found["names"] == ["age"]
    np.testing.assert_array_equal(found["shift"], report.drift[:, :1])
    assert (found["missing"]["names"], found["unknown"]["names"]) == (["age"], ["country"])
    np.testing.assert_array_equal(found["missing"]["shares"], report.drift[:, 1:2])
    np.testing.assert_array_equal(found["unknown"]["shares"], report.drift[:, 2:])
    for nothing in (
        describe_drift(make_report(8, drift=None), None, tracked=tracked),
        describe_drift(None, None, (), tracked),
    ):
        assert nothing["names"] == ["age"]
        assert nothing["shift"] is nothing["missing"]["shares"] is nothing["unknown"]["shares"] is None
    plain = describe_drift(report, None, ("a", "b", "c"))
    assert (plain["names"], plain["missing"], plain["unknown"]) == (("a", "b", "c"), None, None)
