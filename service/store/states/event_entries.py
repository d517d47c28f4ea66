"""Entries of a stream's events for people, as `GET …/events` and `softstep log` show them.

An entry is what event_summaries.py says of an event, with the answer to its rows before they were learned. That is
known of the latest rows since the learner started (losses.py):

    loss    the loss of the only row, the mean of several rows; None if the label was corrected since
    answer  the index of the class that the model answered to the only row

Of the most surprising rows, which the report has, each has an entry of its own, with its own label, answer and loss.
"""

from enum import StrEnum
from math import isfinite
from pathlib import Path
from typing import Any, Final

from service.store.log.event_summaries import EventSummary, summarize_before, summarize_seqs
from service.store.log.events import SEQ_MAX, Kind
from service.store.log.feedback_log import FeedbackLog
from service.store.states.losses import NO_CLASS, LossReader, RowRecord
from service.store.states.report import REPORT_NAME, read_report

Entry = dict[str, Any]


class EventChoice(StrEnum):
    """Which events are listed."""

    ALL = "all"  # newest first
    ADMIN = "admin"  # all but feedback, newest first
    SURPRISING = "surprising"  # the rows with the largest losses, largest first


class EventEntries:
    """Lists the events of one stream; used on the thread that has the log.

    Args:
        path: The folder of the stream, which may be missing.
    """

    def __init__(self, path: Path) -> None:
        self._path: Final = path
        self._losses: Final = LossReader(path / "losses")

    def list_entries(
        self, log: FeedbackLog, stream: int, choice: EventChoice, limit: int, before: int | None = None
    ) -> list[Entry]:
        """Return the entries of some events.

        Args:
            log: The log.
            stream: The stream's number.
            choice: Which events.
            limit: How many entries at most.
            before: The seq before which they are, or None for the end of the stream.
        """
        end = SEQ_MAX + 1 if before is None else before
        if choice == EventChoice.SURPRISING:
            return self._surprising(log, stream, end, limit)
        summaries = summarize_before(log, stream, end, limit, admin_only=choice == EventChoice.ADMIN)
        rows = self._losses.read_rows([one.seq for one in summaries if one.kind == Kind.FEEDBACK])
        return [_entry(*_add_answer(one, rows.get(one.seq, []))) for one in summaries]

    def _surprising(self, log: FeedbackLog, stream: int, before: int, limit: int) -> list[Entry]:
        report = read_report(self._path / REPORT_NAME)
        if report is None:
            return []
        rows = zip(report.surprising[:, 0].tolist(), report.surprising_rows.tolist(), strict=True)
        wanted = [(loss, *row) for loss, row in rows if row[0] < before][:limit]
        summaries = summarize_seqs(log, stream, (seq for _, seq, _, _ in wanted))
        return [
            _entry(summaries[seq]._replace(label=_index(label)), _index(answer), loss)
            for loss, seq, label, answer in wanted
            if seq in summaries and summaries[seq].rows is not None  # it may have been forgotten since
        ]


def _add_answer(summary: EventSummary, rows: list[RowRecord]) -> tuple[EventSummary, int | None, float | None]:
    """Return the summary of an event with the answer to it and its loss, from the records of its rows."""
    if not summary.rows or len(rows) < summary.rows:  # it was forgotten, or some of its rows are discarded
        return summary, None, None
    rows = rows[-summary.rows :]  # those of the last time, if it was learned again
    if len(rows) > 1:
        return summary, None, sum(row.loss for row in rows) / len(rows)
    loss, label, answer = rows[0]
    if summary.label is None:  # its payload was too long to read
        summary = summary._replace(label=_index(label))
    is_current = label in {summary.label, NO_CLASS}
    return summary, _index(answer), loss if is_current else None


def _index(number: int) -> int | None:
    """Return the index of a class; None where a multi-label model has several."""
    return None if number < 0 else number


def _number(loss: float | None) -> float | None:
    """Return a loss; None for one that is not finite, which JSON cannot have."""
    return loss if loss is not None and isfinite(loss) else None


def _entry(summary: EventSummary, answer: int | None = None, loss: float | None = None) -> Entry:
    return {
        "seq": summary.seq,
        "kind": summary.kind.name.lower(),
        "id": summary.id,
        "time_ms": summary.time_ms,
        "actor": summary.actor,
        "removed": summary.removed,
        "rows": summary.rows,
        "label": summary.label,
        "answer": answer,
        "loss": _number(loss),
        "detail": summary.detail,
    }
