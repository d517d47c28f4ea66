"""Select and sum parts of a report: the changed buckets of its history, and its quality up to a past event."""

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

import numpy as np

from service.fields.tracked_columns import TrackedColumns
from service.softmax.arrays import Doubles
from service.softmax.reliability_diagram import BINS, reliability_diagram, summarize_bins
from service.store.states.report import COLUMNS, RECENT, Report

# Rows over which the quality at a past event is computed; as many as the learner keeps of the latest.
QUALITY_ROWS: Final = 1000
# The columns of history and quality that count rows, and the others.
LOSSES: Final = ("loss", "loss_max", "frozen_loss")
COUNTS: Final = tuple(name for name in COLUMNS if name not in LOSSES)
LOSS_COLUMNS: Final = [COLUMNS.index(name) for name in LOSSES]
COUNT_COLUMNS: Final = [COLUMNS.index(name) for name in COUNTS]
ROWS: Final = COLUMNS.index("rows")


class ClientHistory(NamedTuple):
    """The history that a client has already.

    Attributes:
        since: The seq up to which it has the history.
        epoch: The number of FORGET events in it, or None if unknown.
        bucket: The events of a bucket in it, or None if unknown.
    """

    since: int
    epoch: int | None = None
    bucket: int | None = None


def bucket_ends(report: Report, bucket: int, stop: int, first: int = 0) -> list[int]:
    """Return the last seq of each bucket from `first` to before `stop`, the newest of which may still be filling."""
    return [min(report.start + (i + 1) * bucket, report.seq) for i in range(first, stop)]


def first_changed(report: Report, client: ClientHistory) -> int:
    """Return the first bucket of the history that a client lacks or that has changed since; 0 if all of them may have.

    After a forgotten event, a merge of buckets or a new start of the report nothing that the client has is valid.
    """
    if client.epoch != report.epoch or client.bucket != report.bucket or client.since > report.seq:
        return 0
    if client.since == report.seq:
        return len(report.history)
    return max(0, client.since - report.start) // report.bucket


def describe_history(report: Report | None, first: int = 0) -> dict[str, Any]:
    """Return the buckets of the history from one on: sums over the rows of each; empty without a report."""
    if report is None:
        empty: dict[str, Any] = {name: [] for name in ("seq", *COLUMNS)}
        return {"until": None, "epoch": None, "from": None, "bucket": None, **empty, "labels": None, "found": None}
    table = report.history[first:]
    return {
        "until": report.seq,
        "epoch": report.epoch,
        "from": report.start,
        "bucket": report.bucket,
        "seq": bucket_ends(report, report.bucket, len(report.history), first),
        **dict(zip(COUNTS, table[:, COUNT_COLUMNS].astype(np.int64).T.tolist(), strict=True)),
        **dict(zip(LOSSES, table[:, LOSS_COLUMNS].T.tolist(), strict=True)),
        "labels": None if report.labels is None else report.labels[first:],
        "found": None if report.found is None else report.found[first:],
    }


def describe_drift(
    report: Report | None,
    training: Mapping[str, Any] | None,
    features: Sequence[str] = (),
    tracked: TrackedColumns | None = None,
) -> dict[str, Any]:
    """Return the mean shift of each feature from the training rows, in their standard deviations, of each bucket.

    For a model with fields, that is the shift of each number, and the shares of missing and of unknown values by field.

    Args:
        report: The report, or None.
        training: The statistics of the training rows as JSON values, or None.
        features: The names of the features; not needed with fields.
        tracked: The columns of the report's drift, or None without fields.
    """
    means = None
    if report is not None and report.drift is not None:
        means = [d / n if n else None for d, n in zip(report.drift, report.quality[:, ROWS], strict=True)]
    shares = None if tracked is None else (tracked.missing, tracked.unknown)
    missing, unknown = [None, None] if shares is None else [_describe_shares(means, places) for places in shares]
    shift = means if tracked is None or means is None else _take_places(means, tracked.numbers)
    return {
        "until": None if report is None else report.seq,
        "from": None if report is None else report.start,
        "bucket": None if report is None else report.coarse_bucket,
        "seq": [] if report is None else bucket_ends(report, report.coarse_bucket, len(report.quality)),
        "training": training,
        "names": features if tracked is None else list(tracked.numbers),
        "shift": shift,
        "missing": missing,
        "unknown": unknown,
    }


def _describe_shares(means: Sequence[Doubles | None] | None, places: Mapping[str, int]) -> dict[str, Any]:
    """Return the names of fields, and the means of their columns at these places."""
    return {"names": list(places), "shares": None if means is None else _take_places(means, places)}


def _take_places(means: Sequence[Doubles | None], places: Mapping[str, int]) -> list[Doubles | None]:
    """Return the means of each bucket at these places."""
    return [None if row is None else row[list(places.values())] for row in means]


def whole_buckets(ends: Sequence[int], rows: Doubles, seq: int) -> tuple[int, int]:
    """Return the fewest buckets that end at or before a seq and have 1,000 rows together, or all that end there.

    Args:
        ends: The last seq of each bucket, ascending.
        rows: (Q,), the rows of each bucket.
        seq: The seq.

    Returns:
        The first of the buckets, and the one after the last.
    """
    stop = sum(end <= seq for end in ends)
    first, held = stop, 0.0
    while first > 0 and held < QUALITY_ROWS:
        first -= 1
        held += float(rows[first])
    return first, stop


def describe_quality(report: Report | None, seq: int | None) -> dict[str, Any]:
    """Return how good the answers were: over the latest rows, or over the rows before a past event.

    Args:
        report: The report, or None, which counts as one without rows.
        seq: The past event, or None for now.
    """
    if report is None:
        return _quality(None, np.zeros(len(COLUMNS)), None, summarize_bins(np.zeros((BINS, 3))))
    if seq is None:
        return _recent_quality(report)
    ends = bucket_ends(report, report.coarse_bucket, len(report.quality))
    first, stop = whole_buckets(ends, report.quality[:, ROWS], seq)
    confusion = None if report.confusion is None else report.confusion[first:stop].sum(0, dtype=np.int64)
    calibration = summarize_bins(report.calibration[first:stop].sum(0))
    until = ends[stop - 1] if stop else report.start
    return _quality(until, report.quality[first:stop].sum(0), confusion, calibration)


def _recent_quality(report: Report) -> dict[str, Any]:
    """Return the quality over the latest rows."""
    recent = dict(zip(RECENT, report.recent.T, strict=True))
    is_scored = ~np.isnan(recent["frozen_hit"])
    both = recent["hit"][is_scored] * recent["frozen_hit"][is_scored]
    sums = {
        "rows": len(report.recent),
        "loss": recent["loss"].sum(),
        "loss_max": recent["loss"].max(initial=0),
        "hits": recent["hit"].sum(),
        "frozen_rows": is_scored.sum(),
        "frozen_loss": recent["frozen_loss"][is_scored].sum(),
        "frozen_hits": recent["frozen_hit"][is_scored].sum(),
        "both_hits": both.sum(),
    }
    confusion = None
    if report.confusion is not None:
        confusion = np.zeros(report.confusion.shape[1:], np.int64)
        pairs = report.recent_rows[:, 1:]
        np.add.at(confusion, tuple(pairs[((pairs >= 0) & (pairs < len(confusion))).all(1)].T), 1)
    window = np.stack([recent["confidence"], recent["accuracy"]])
    calibration = reliability_diagram(window, len(report.recent))
    return _quality(report.seq, np.array([sums[name] for name in COLUMNS], np.float64), confusion, calibration)


def _quality(seq: int | None, sums: Doubles, confusion: Any, calibration: dict[str, Any]) -> dict[str, Any]:  # noqa: ANN401
    """Return the means of a row of sums (8,), with the rest of the quality."""
    of = dict(zip(COLUMNS, sums.tolist(), strict=True))
    rows, frozen_rows = of["rows"], of["frozen_rows"]
    return {
        "seq": seq,
        "rows": int(rows),
        "confusion": confusion,
        "calibration": calibration,
        "accuracy": _mean(of["hits"], rows),
        "frozen_accuracy": _mean(of["frozen_hits"], frozen_rows),
        "both": _mean(of["both_hits"], frozen_rows),
        "loss": _mean(of["loss"], rows),
        "frozen_loss": _mean(of["frozen_loss"], frozen_rows),
        "frozen_rows": int(frozen_rows),
    }


def _mean(total: float, rows: float) -> float | None:
    return total / rows if rows else None
