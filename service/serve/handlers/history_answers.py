"""Answer how a model has learned: its history, the drift of its features, its quality, and its pulse.

The learner writes a report (store/states/report.py), so every worker answers the same. Where nothing is learned, or no
report can be read, lists are empty and other members null. The fast path calls `HistoryHandler.respond`, and FastAPI
`HistoryHandler.answer`.
"""

import asyncio
from collections.abc import Mapping
from time import perf_counter_ns
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
    WorkerCounters,
    histogram_of,
    sum_model_counters,
)
from service.serve.models.endpoint import DRIFT, HISTORY, PULSE, QUALITY, Endpoint
from service.serve.models.served_model import ServedModel
from service.serve.responses import NO_QUERY, V1, V2, HttpResponse, Query, RequestHead
from service.store.artifact.model_factory import tracked_columns, training_statistics
from service.store.states.report import Report

# The names of the query's parameters of each call, and its route in the metrics.
QUERIES: Final[Mapping[int, frozenset[bytes]]] = {
    PULSE: frozenset(name.encode() for name in ClientHistory._fields),
    HISTORY: frozenset(),
    DRIFT: frozenset(),
    QUALITY: frozenset((b"seq",)),
}
ROUTES: Final[Mapping[int, str]] = {
    PULSE: "/v1/models/{name}/pulse",
    HISTORY: "/v1/models/{name}/history",
    DRIFT: "/v1/models/{name}/drift",
    QUALITY: "/v1/models/{name}/quality",
}
# Upper bounds of the duration buckets in seconds; None is the bucket without one.
SECONDS: Final = (*(bound / 1e9 for bound in BOUNDS), None)


class HistoryHandler:
    """Answers how one worker's models have learned.

    Args:
        reports: The reports of their streams.
        status: Reads the status of a stream, or None if the service does not learn.
        memory: The shared memory with the counters of all workers.
        counters: The counters of this worker.
    """

    def __init__(
        self, reports: ReportFiles, status: StreamStatus | None, memory: SharedMemory, counters: WorkerCounters
    ) -> None:
        self._reports: Final = reports
        self._status: Final = status
        self._memory: Final = memory
        self._counters: Final = counters

    def respond(
        self, endpoint: Endpoint, head: RequestHead, _body: bytes
    ) -> HttpResponse | asyncio.Future[HttpResponse]:
        """Answer a request on the fast path: at once if nothing has changed on disk since the last answer."""
        began, kind, served = perf_counter_ns(), endpoint.kind, endpoint.served
        report = self._reports.find_known(served)
        status = {} if self._status is None or kind != PULSE else self._status.known_pulse(served)
        if report is None or status is None:
            return asyncio.ensure_future(self._respond_later(endpoint, head, began))
        response = self._describe(kind, served, head.query, report.report, status)
        self._counters.count_route(ROUTES[kind], perf_counter_ns() - began)
        return response

    async def _respond_later(self, endpoint: Endpoint, head: RequestHead, began: int) -> HttpResponse:
        response = await self.answer(endpoint.kind, endpoint.served, head.query)
        self._counters.count_route(ROUTES[endpoint.kind], perf_counter_ns() - began)
        return response

    async def answer(self, kind: int, served: ServedModel, query: Query = NO_QUERY) -> HttpResponse:
        """Answer a call, after reading what has changed on disk.

        Args:
            kind: PULSE, HISTORY, DRIFT or QUALITY.
            served: The state of the model.
            query: The parameters of the call.
        """
        status = {} if self._status is None or kind != PULSE else await self._status.pulse_of(served)
        return self._describe(kind, served, query, await self._reports.report_of(served), status)

    def _describe(
        self, kind: int, served: ServedModel, query: Query, report: Report | None, status: Mapping[str, Any]
    ) -> HttpResponse:
        """Return the response to a call, from what was read."""
        if kind == PULSE:
            value = self._describe_pulse(served, query, report, status)
        elif kind == HISTORY:
            value = describe_history(report)
        elif kind == DRIFT:
            artifact = served.artifact
            value = describe_drift(
                report, training_statistics(artifact), artifact.column_names, tracked_columns(artifact)
            )
        else:
            value = describe_quality(report, query.get("seq"))
        return HttpResponse(200, orjson.dumps(value, None, orjson.OPT_SERIALIZE_NUMPY))

    def _describe_pulse(
        self, served: ServedModel, query: Query, report: Report | None, status: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Return what changes from second to second, and the buckets of the history that have changed."""
        learned = {} if served.learned is None else served.learned.fields
        client = ClientHistory(query.get("since") or 0, query.get("epoch"), query.get("bucket"))
        return {
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
