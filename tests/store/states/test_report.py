"""Reports are read as they were written, and a report that is not whole counts as none."""

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.store.states.report import Report, read_report, write_report
from service.store.states.snapshots import read_snapshot, write_arrays
from tests.support.reports import make_report

GOLDEN = Path(__file__).parents[2] / "golden" / "report.bin"
OPTIONAL = ("labels", "found", "confusion", "drift")


def assert_equal(one: Report, other: Report) -> None:
    """Check that two reports have the same fields and arrays, bit for bit."""
    for field in fields(Report):
        a, b = getattr(one, field.name), getattr(other, field.name)
        if isinstance(a, np.ndarray):
            np.testing.assert_array_equal(a, b, strict=True)
        else:
            assert a == b, field.name


def golden_report() -> Report:
    """Return the report in the golden file: small numbers that are exact in binary."""
    recent = np.array([[0.5, 1, 0.75, 1, np.nan, np.nan], [2, 0, 0.5, 0, 1.5, 1]])
    return Report(
        seq=5, hash="ab" * 32, epoch=1, start=2, bucket=1, coarse_bucket=4, classes=("a", "ü"), keyframes=(0, 4),
        history_sha256="cd" * 32,
        history=np.array([[1, 0.5, 0.5, 1, 0, 0, 0, 0], [0] * 8, [1, 2, 2, 0, 1, 1.5, 1, 0]], "<f8"),
        labels=np.array([[1, 0], [0, 0], [0, 1]], "<u4"),
        found=np.array([[1, 0], [0, 0], [0, 0]], "<u4"),
        quality=np.array([[2, 2.5, 2, 1, 1, 1.5, 1, 0]]),
        confusion=np.array([[[1, 0], [1, 0]]], "<u4"),
        calibration=np.arange(30.0).reshape(1, 10, 3),
        drift=np.array([[0.25, -8, 8]]),
        recent=recent, recent_rows=np.array([[3, 0, 0], [5, 1, 0]]),
        surprising=np.array([[2.0], [0.5]]), surprising_rows=np.array([[5, 1, 0], [3, 0, 0]]),
    )  # fmt: skip


def test_the_format_stays_as_it_is(tmp_path: Path) -> None:
    """A report of this release has the bytes of the golden file, which is read as it was written."""
    write_report(tmp_path / "report", golden_report())
    assert (tmp_path / "report").read_bytes() == GOLDEN.read_bytes()
    read = read_report(GOLDEN)
    assert read is not None
    assert_equal(read, golden_report())
    assert read.history.flags.owndata  # a mapped file would stay on the disk


@pytest.mark.parametrize("absent", [*OPTIONAL, None])
def test_a_report_is_read_as_it_was_written(tmp_path: Path, absent: str | None) -> None:
    """A report of any length is read as it was written, without the arrays that it does not have."""
    for events in (0, 1, 3, 700, 1500):
        report = make_report(events)
        if absent is not None:
            report = replace(report, **{absent: None})
        write_report(tmp_path / "report", report)
        read = read_report(tmp_path / "report")
        assert read is not None
        assert_equal(read, report)


def test_a_missing_or_damaged_report_counts_as_none(tmp_path: Path) -> None:
    """A missing file, a file of another kind, and a cut or changed report are no report."""
    path = tmp_path / "report"
    assert read_report(path) is None
    content = GOLDEN.read_bytes()
    for damaged in (b"", b"x" * 500, content[:-1], content[:80], content[:-1] + b"\x01", content + b"\0"):
        path.write_bytes(damaged)
        assert read_report(path) is None
    path.unlink()
    path.mkdir()
    assert read_report(path) is None


@given(st.data())
def test_a_report_of_another_form_counts_as_none(tmp_path_factory: pytest.TempPathFactory, data: Any) -> None:
    """A whole file that lacks a part, or has one of another form, is no report and raises nothing."""
    whole = read_snapshot(GOLDEN)
    changed: dict[str, Any] = {**whole.fields, **whole.arrays}
    name = data.draw(st.sampled_from(sorted(changed)))
    if name in whole.arrays:
        shape, dtype = changed[name].shape, changed[name].dtype
        others: list[Any] = [np.zeros((*shape, 1), dtype), np.zeros(shape[1:], dtype), np.zeros(shape, "<f4")]
        others += [] if name in OPTIONAL else [None]
        # No other array has as many of these as this one has.
        others += [np.zeros((2, *shape[1:]), dtype)] if name in {"quality", "confusion", "calibration", "drift"} else []
        changed[name] = data.draw(st.sampled_from(others))
    elif name in {"hash", "history_sha256"}:
        changed[name] = None
        del changed[name]
    else:
        wrong = {"classes": ["a", "b", "c"], "keyframes": [-1], "bucket": 3, "coarse_bucket": 0, "from": 6}
        changed[name] = data.draw(st.sampled_from([None, True, "1", -1, 1.5, wrong.get(name, -5)]))
    path = tmp_path_factory.mktemp("report") / "report"
    arrays = {key: changed[key] for key in whole.arrays if changed[key] is not None}
    write_arrays(path, {key: changed[key] for key in whole.fields if key in changed}, arrays, durable=False)
    assert read_report(path) is None


def test_a_report_is_checked_before_it_is_written() -> None:
    """A report whose arrays do not belong together cannot be made."""
    report = make_report(9)
    with pytest.raises(ValueError, match="drift of a report has another size"):
        replace(report, drift=np.zeros((8, 2)))
    with pytest.raises(ValueError, match="recent of a report has another size"):
        replace(report, recent=np.zeros((1001, 6)))
    with pytest.raises(ValueError, match="labels of a report has another type"):
        replace(report, labels=np.zeros((9, 3), "<i8"))
    with pytest.raises(ValueError, match="wider or more"):
        replace(report, bucket=2)
