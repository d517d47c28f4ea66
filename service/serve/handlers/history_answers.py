"""Answer how a model has learned: its history, the drift of its features, its quality, and its pulse.

The learner writes a report (store/states/report.py), so every worker answers the same. Where nothing is learned, or no
report can be read, lists are empty and other members null.
"""

from typing import Any, Final

import orjson

from service.process.shared_memory import SharedMemory
from service.serve.handlers.report_files import ReportFiles
from service.serve.handlers.report_slices import (
    ClientHistory,
    describe_drift,
    describe_history,
    describe_quality,
    first_changed,
)
from service.serve.handlers.stream_status import StreamStatus
from service.serve.metrics.counters import (
    BOUNDS,
    FAILURES,
    FEEDBACK_EVENTS,
    FEEDBACK_START,
    ROWS,
    histogram_of,
    sum_model_counters,
)
from service.serve.models.served_model import ServedModel
from service.serve.responses import V1, V2, HttpResponse

# Upper bounds of the duration buckets in seconds; None is the bucket without one.
SECONDS: Final = (*(bound / 1e9 for bound in BOUNDS), None)


class HistoryHandler:
    """Answers how one worker's models have learned.

    Args:
        reports: The reports of their streams.
        status: Reads the status of a stream, or None if the service does not learn.
        memory: The shared memory with the counters of all workers.
    """

    def __init__(self, reports: ReportFiles, status: StreamStatus | None, memory: SharedMemory) -> None:
        self._reports: Final = reports
        self._status: Final = status
        self._memory: Final = memory

    async def history(self, served: ServedModel) -> HttpResponse:
        """Return all buckets of the history."""
        return _json(describe_history(await self._reports.report_of(served)))

    async def drift(self, served: ServedModel) -> HttpResponse:
        """Return how far the features have moved from the training rows."""
        return _json(describe_drift(await self._reports.report_of(served), served.manifest.training))

    async def quality(self, served: ServedModel, seq: int | None) -> HttpResponse:
        """Return how good the latest answers were, or those before a past event."""
        return _json(describe_quality(await self._reports.report_of(served), seq))

    async def pulse(self, served: ServedModel, client: ClientHistory) -> HttpResponse:
        """Return what changes from second to second, and the buckets of the history that have changed."""
        status = {} if self._status is None else await self._status.pulse_of(served)
        report = await self._reports.report_of(served)
        learned = {} if served.learned is None else served.learned.fields
        return _json(
            {
                "seq": served.seq,
                "epoch": learned.get("epoch", 0),
                "log_seq": status.get("log_seq"),
                "lag_events": status.get("lag_events"),
                "lag_seconds": status.get("lag_seconds"),
                "learner": status.get("learner"),
                "published_seconds": served.published_seconds,
                "admin_seq": status.get("admin_seq"),
                "counters": self._count(served),
                "history": None if report is None else describe_history(report, first_changed(report, client)),
            }
        )

    def _count(self, served: ServedModel) -> dict[str, Any]:
        """Return the counts of a model version since the start of the service, summed over all workers."""
        counters = sum_model_counters(self._memory, *served.key)
        predictions = [histogram_of(counters, protocol) for protocol in (V1, V2)]
        buckets, count = [], 0
        for bound, *counts in zip(SECONDS, *(histogram.counts for histogram in predictions), strict=True):
            count += sum(counts)
            buckets.append((bound, count))
        return {
            "requests": count,
            "rows": counters[ROWS],
            "failures": counters[FAILURES],
            "events": counters[FEEDBACK_START + FEEDBACK_EVENTS],
            "duration_buckets": buckets,
        }


def _json(value: dict[str, Any]) -> HttpResponse:
    return HttpResponse(200, orjson.dumps(value, None, orjson.OPT_SERIALIZE_NUMPY))
