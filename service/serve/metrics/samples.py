"""Read the value of every metric: counters summed over workers, processes, the disk, and the state of learning."""

import platform
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

from service import __version__, compiler
from service.process.shared_memory import (
    BODY_BYTES,
    BUCKETS_MAX,
    BUSY_NANOSECONDS,
    COMMIT_NANOSECONDS,
    COMMITS,
    CONNECTIONS,
    IN_FLIGHT,
    QUEUE_NANOSECONDS,
    READY,
    RESTARTS,
    SHEDDING,
    STATUS_MAX,
    STATUSES,
    SharedMemory,
)
from service.serve.limits.bucket_table import BucketTable
from service.serve.metrics.counters import (
    COMPUTE_NANOSECONDS,
    EXECUTIONS,
    EXPLAIN,
    FAILURES,
    FEEDBACK_COUNTERS,
    FEEDBACK_START,
    ROUTES,
    ROWS,
    SHED,
    SHED_COUNTERS,
    Histogram,
    histogram_of,
    sum_counters,
    sum_refusals,
)
from service.serve.metrics.field_counters import FieldKey, sum_field_counters
from service.serve.metrics.metric_table import LEARNING
from service.serve.metrics.process_usage import read_processes, slot_name
from service.serve.responses import V1, V2
from service.settings import Settings
from service.store.directory.data_directory import DataDirectory
from service.store.directory.disk_usage import measure_disk

NANO: Final = 1e-9
# The kinds of refused requests, in the order of their cells.
SHED_NAMES: Final = ("prediction", "explanation", "feedback")
# The counters of feedback, in the order of their cells.
FEEDBACK_NAMES: Final = ("events", "rows", "duplicates", "refusals")
# What the members of a bin of the reliability diagram are exported as (softmax/reliability_diagram.py).
BIN_NAMES: Final = ("rows", "confidence", "accuracy")

# For each model and version, the known values of the metrics of learning.
Learning = Mapping[tuple[str, str], Mapping[str, Any]]


class MetricSources(NamedTuple):
    """The objects that the metrics are read from.

    Attributes:
        memory: The shared memory with the counters.
        settings: The settings, for the limits.
        data: The data directory, or None if the service does not learn.
        learning: The state of learning of each version, as this worker knows it.
        fields: The served versions that have fields.
        models_readable: Whether this worker's last scan of the models directory could read it.
        is_open: Whether SOFTSTEP_OPEN lets everyone make every call.
    """

    memory: SharedMemory
    settings: Settings
    data: DataDirectory | None
    learning: Learning
    fields: Sequence[FieldKey]
    models_readable: bool
    is_open: bool


class Sample(NamedTuple):
    """One value of a metric of metric_table.py, with the values of its labels."""

    metric: str
    value: float | Histogram
    labels: tuple[str, ...] = ()


def read_samples(sources: MetricSources) -> Iterator[Sample]:
    """Yield every sample of the service."""
    yield from _service(sources)
    yield from _responses(sources.memory)
    yield from _counters(sources.memory)
    yield from _fields(sources)
    yield from _processes(sources.memory)
    if sources.data is not None:
        yield from _disk(sources.data, sources)
    yield from _learning(sources.learning)


def _service(sources: MetricSources) -> Iterator[Sample]:
    memory, settings = sources.memory, sources.settings
    yield Sample("softstep_info", 1, (__version__, platform.python_version(), compiler.TARGET, settings.role))
    yield Sample("softstep_workers", memory.workers)
    yield Sample("softstep_workers_ready", memory.sum_over_workers(READY))
    yield Sample("softstep_draining", memory.draining)
    yield Sample("softstep_open", sources.is_open)
    yield Sample("softstep_models_readable", sources.models_readable)
    if settings.learn:
        yield Sample("softstep_learning", sources.data is not None)
        yield Sample("softstep_log_readable", not memory.is_log_lost)
        yield Sample("softstep_log_forks_total", memory.log_forks)
        yield Sample("softstep_states_diverged_total", memory.divergences)
    if settings.log is not None:
        yield Sample("softstep_learners", memory.learners)
    yield Sample("softstep_connections", memory.sum_over_workers(CONNECTIONS))
    yield Sample("softstep_connections_limit", settings.connections_max * memory.workers)
    yield Sample("softstep_requests_in_flight", memory.sum_over_workers(IN_FLIGHT))
    delay = max(memory.cells[memory.slot(slot) + QUEUE_NANOSECONDS] for slot in range(memory.workers))
    yield Sample("softstep_queue_seconds", delay * NANO)
    yield Sample("softstep_workers_shedding", memory.sum_over_workers(SHEDDING))
    yield Sample("softstep_limit_buckets", BucketTable(memory).count_used())
    yield Sample("softstep_limit_buckets_limit", BUCKETS_MAX)
    yield Sample("softstep_request_body_bytes", memory.sum_over_workers(BODY_BYTES))


def _responses(memory: SharedMemory) -> Iterator[Sample]:
    for status in range(100, STATUS_MAX):
        count = memory.sum_over_workers(STATUSES + status)
        if count:
            yield Sample("softstep_http_responses_total", count, (str(status),))
    for code, count in sum_refusals(memory).items():
        yield Sample("softstep_refusals_total", count, (code,))


def _counters(memory: SharedMemory) -> Iterator[Sample]:
    """Yield the counters of model versions and of routes; a route's row has a name that begins with a slash."""
    for key, counters in sorted(sum_counters(memory).items()):
        if key.startswith("/"):
            yield Sample("softstep_request_seconds", histogram_of(counters, V1), (key, "", ""))
        else:
            name, _, version = key.partition("/")
            yield from _model((name, version), counters)


def _model(names: tuple[str, str], counters: list[int]) -> Iterator[Sample]:
    histograms = [histogram_of(counters, number) for number in range(len(ROUTES))]
    v1 = histograms[V1].total + histograms[EXPLAIN].total
    yield Sample("softstep_predict_requests_total", v1, (*names, "v1"))
    yield Sample("softstep_predict_requests_total", histograms[V2].total, (*names, "v2"))
    yield Sample("softstep_predict_failures_total", counters[FAILURES], names)
    yield Sample("softstep_predict_rows_total", counters[ROWS], names)
    for kind, count in zip(SHED_NAMES, counters[SHED : SHED + SHED_COUNTERS], strict=True):
        yield Sample("softstep_shed_requests_total", count, (*names, kind))
    yield Sample("softstep_kernel_calls_total", counters[EXECUTIONS], names)
    yield Sample("softstep_kernel_seconds_total", counters[COMPUTE_NANOSECONDS] * NANO, names)
    for route, histogram in zip(ROUTES, histograms, strict=True):
        if histogram.total:
            yield Sample("softstep_request_seconds", histogram, (route, *names))
    feedback = counters[FEEDBACK_START : FEEDBACK_START + FEEDBACK_COUNTERS]
    for name, count in zip(FEEDBACK_NAMES, feedback, strict=True):
        yield Sample(f"softstep_feedback_{name}_total", count, names)


def _fields(sources: MetricSources) -> Iterator[Sample]:
    """Yield the missing and unknown values of each field of the versions that are served."""
    for key in sources.fields:
        for field, (missing, unknown) in zip(key.fields, sum_field_counters(sources.memory, key), strict=True):
            labels = key.name, str(key.version), field
            yield Sample("softstep_field_missing_total", missing, labels)
            yield Sample("softstep_field_unknown_total", unknown, labels)


def _processes(memory: SharedMemory) -> Iterator[Sample]:
    for slot in range(memory.slots):
        restarts = memory.cells[memory.slot(slot) + RESTARTS]
        yield Sample("softstep_restarts_total", restarts, (slot_name(memory, slot),))
    for slot in range(memory.workers):
        busy = memory.cells[memory.slot(slot) + BUSY_NANOSECONDS]
        yield Sample("softstep_worker_busy_seconds_total", busy * NANO, (slot_name(memory, slot),))
    for usage in read_processes(memory):
        labels = (usage.name,)
        yield Sample("softstep_process_resident_bytes", usage.resident_bytes, labels)
        yield Sample("softstep_process_cpu_seconds_total", usage.cpu_seconds, labels)
        for metric, value in (
            ("softstep_process_start_time_seconds", usage.start_seconds),
            ("softstep_process_open_fds", usage.open_files),
            ("softstep_process_max_fds", usage.files_max),
        ):
            if value is not None:
                yield Sample(metric, value, labels)


def _disk(data: DataDirectory, sources: MetricSources) -> Iterator[Sample]:
    memory, settings = sources.memory, sources.settings
    usage = measure_disk(data)
    if usage is not None:
        yield Sample("softstep_disk_free_bytes", usage.free)
        yield Sample("softstep_disk_total_bytes", usage.total)
        yield Sample("softstep_log_bytes", usage.log)
        yield Sample("softstep_wal_bytes", usage.wal)
    yield Sample("softstep_disk_reserve_bytes", settings.disk_reserve_bytes)
    yield Sample("softstep_wal_limit_bytes", settings.wal_bytes_max)
    yield Sample("softstep_disk_faults_total", memory.disk_faults.get())
    yield Sample("softstep_feedback_commits_total", memory.sum_over_workers(COMMITS))
    yield Sample("softstep_feedback_commit_seconds_total", memory.sum_over_workers(COMMIT_NANOSECONDS) * NANO)


def _learning(learning: Learning) -> Iterator[Sample]:
    """Yield the state of learning of each version; bins are named by their upper bounds."""
    for labels, values in learning.items():
        for metric in LEARNING:
            value = values.get(metric.removeprefix("softstep_learn_"))
            if value is not None:
                yield Sample(metric, value, labels)
        calibration = values.get("calibration") or {"expected_error": None, "bins": []}
        if calibration["expected_error"] is not None:
            yield Sample("softstep_learn_calibration_error", calibration["expected_error"], labels)
        for number, cells in enumerate(calibration["bins"], 1):
            for name in BIN_NAMES:
                if cells[name] is not None:
                    bound = f"{number / len(calibration['bins']):g}"
                    yield Sample(f"softstep_learn_bin_{name}", cells[name], (*labels, bound))
