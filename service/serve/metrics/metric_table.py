"""The table of metrics: the name, type, labels, unit and meaning of everything that /metrics exports.

samples.py yields the values, prometheus.py renders them, and docs/write_metrics.py writes docs/metrics.md.
"""

from typing import Final, Literal, NamedTuple


class MetricSpec(NamedTuple):
    """One metric.

    Attributes:
        kind: Its type in Prometheus.
        unit: The unit of its values.
        text: Its help text.
        labels: The names of its labels.
    """

    kind: Literal["counter", "gauge", "histogram"]
    unit: str
    text: str
    labels: tuple[str, ...] = ()


MODEL: Final = ("model", "version")
BIN: Final = (*MODEL, "bin")
PROCESS: Final = ("process",)
FLAG: Final = "1 or 0"

SERVICE: Final = {
    "softstep_info": MetricSpec(
        "gauge",
        "1",
        "The running release, its Python, the kernels' target, and the role.",
        ("version", "python", "kernels", "role"),
    ),
    "softstep_workers": MetricSpec("gauge", "processes", "Worker processes that should run."),
    "softstep_workers_ready": MetricSpec("gauge", "processes", "Workers that serve predictions."),
    "softstep_draining": MetricSpec("gauge", FLAG, "1 from SIGTERM on, else 0."),
    "softstep_open": MetricSpec(
        "gauge", FLAG, "1 if `SOFTSTEP_OPEN` lets everyone make every call, because there are no keys; else 0."
    ),
    "softstep_models_readable": MetricSpec(
        "gauge", FLAG, "0 if the models directory is missing, empty or unreadable; the models from before are served."
    ),
    "softstep_learning": MetricSpec(
        "gauge", FLAG, "1 if feedback is stored, 0 if the data directory cannot be used; absent if learning is off."
    ),
    "softstep_log_readable": MetricSpec(
        "gauge", FLAG, "0 if the learner's last look at the feedback log failed, else 1; absent if learning is off."
    ),
    "softstep_log_forks_total": MetricSpec(
        "counter",
        "forks",
        "How often the log of a model version had other events than were folded; absent if learning is off.",
    ),
    "softstep_states_diverged_total": MetricSpec(
        "counter",
        "states",
        "How often what a model version had learned differed from other replicas; absent if learning is off.",
    ),
    "softstep_learners": MetricSpec(
        "gauge", "replicas", "Replicas that fold events, this one included; absent without a log in PostgreSQL."
    ),
    "softstep_connections": MetricSpec("gauge", "connections", "Open connections."),
    "softstep_connections_limit": MetricSpec("gauge", "connections", "Connections that all workers may hold."),
    "softstep_requests_in_flight": MetricSpec("gauge", "requests", "Requests in progress."),
    "softstep_queue_seconds": MetricSpec(
        "gauge", "seconds", "Time that requests wait in the worker where they wait longest, as measured last."
    ),
    "softstep_workers_shedding": MetricSpec("gauge", "processes", "Workers that refuse requests by 503 to keep up."),
    "softstep_limit_buckets": MetricSpec(
        "gauge", "buckets", "Limits of keys that count something now, one for each key, limit and model."
    ),
    "softstep_limit_buckets_limit": MetricSpec("gauge", "buckets", "Limits that can count at one time."),
    "softstep_request_body_bytes": MetricSpec("gauge", "bytes", "Bytes of request bodies in memory."),
}
REQUESTS: Final = {
    "softstep_http_responses_total": MetricSpec("counter", "responses", "Responses by HTTP status.", ("status",)),
    "softstep_refusals_total": MetricSpec("counter", "responses", "Error responses by their code.", ("code",)),
    "softstep_request_seconds": MetricSpec(
        "histogram",
        "seconds",
        "Time from the complete request to the response, of requests that succeeded.",
        ("route", *MODEL),
    ),
    "softstep_predict_requests_total": MetricSpec(
        "counter", "requests", "Answered prediction requests.", (*MODEL, "protocol")
    ),
    "softstep_predict_failures_total": MetricSpec("counter", "requests", "Rejected requests to a model.", MODEL),
    "softstep_predict_rows_total": MetricSpec("counter", "rows", "Predicted rows.", MODEL),
    "softstep_shed_requests_total": MetricSpec(
        "counter", "requests", "Requests refused because the worker was overloaded.", (*MODEL, "kind")
    ),
    "softstep_field_missing_total": MetricSpec(
        "counter", "values", "Missing values in the rows of accepted requests.", (*MODEL, "field")
    ),
    "softstep_field_unknown_total": MetricSpec(
        "counter", "values", "Unknown categories and names in the rows of accepted requests.", (*MODEL, "field")
    ),
    "softstep_kernel_calls_total": MetricSpec("counter", "calls", "Kernel calls.", MODEL),
    "softstep_kernel_seconds_total": MetricSpec("counter", "seconds", "Time in kernel calls, in seconds.", MODEL),
}
PROCESSES: Final = {
    "softstep_restarts_total": MetricSpec(
        "counter", "processes", "Unexpected exits; the parent starts the process again.", PROCESS
    ),
    "softstep_process_resident_bytes": MetricSpec(
        "gauge", "bytes", "Resident memory; pages that processes share count in each of them.", PROCESS
    ),
    "softstep_process_cpu_seconds_total": MetricSpec("counter", "seconds", "Processor time, in seconds.", PROCESS),
    "softstep_worker_busy_seconds_total": MetricSpec(
        "counter", "seconds", "Time in which a worker's event loop worked or waited for a core, in seconds.", PROCESS
    ),
    "softstep_process_start_time_seconds": MetricSpec(
        "gauge", "seconds", "When the process started, in seconds since 1970.", PROCESS
    ),
    "softstep_process_open_fds": MetricSpec("gauge", "descriptors", "Open file descriptors.", PROCESS),
    "softstep_process_max_fds": MetricSpec("gauge", "descriptors", "Limit of open file descriptors.", PROCESS),
}
DISK: Final = {
    "softstep_disk_free_bytes": MetricSpec("gauge", "bytes", "Free bytes of the data directory's disk."),
    "softstep_disk_total_bytes": MetricSpec("gauge", "bytes", "Size of the data directory's disk, in bytes."),
    "softstep_disk_reserve_bytes": MetricSpec(
        "gauge", "bytes", "Free bytes below which feedback is refused: SOFTSTEP_DISK_RESERVE_BYTES."
    ),
    "softstep_log_bytes": MetricSpec("gauge", "bytes", "Size of the feedback log, in bytes."),
    "softstep_wal_bytes": MetricSpec("gauge", "bytes", "Size of the log's write-ahead log, in bytes."),
    "softstep_wal_limit_bytes": MetricSpec(
        "gauge", "bytes", "Size above which feedback is refused: SOFTSTEP_WAL_BYTES_MAX."
    ),
    "softstep_disk_faults_total": MetricSpec("counter", "faults", "Disk faults; after each, the log is opened again."),
}
FEEDBACK: Final = {
    "softstep_feedback_events_total": MetricSpec("counter", "events", "Feedback events that were stored.", MODEL),
    "softstep_feedback_rows_total": MetricSpec("counter", "rows", "Rows of the stored feedback events.", MODEL),
    "softstep_feedback_duplicates_total": MetricSpec(
        "counter", "events", "Feedback events that were already stored.", MODEL
    ),
    "softstep_feedback_refusals_total": MetricSpec(
        "counter", "events", "Feedback events that the log or a bad token refused.", MODEL
    ),
    "softstep_feedback_commits_total": MetricSpec("counter", "commits", "Committed transactions of feedback."),
    "softstep_feedback_commit_seconds_total": MetricSpec(
        "counter", "seconds", "Time in transactions of feedback, in seconds."
    ),
}
LEARNING: Final = {
    f"softstep_learn_{name}": MetricSpec("gauge", unit, text, MODEL)
    for name, unit, text in (
        ("seq", "events", "Seq of the last event in the served weights."),
        ("log_seq", "events", "Seq of the last committed event."),
        ("lag_events", "events", "Committed events that are not in the served weights yet."),
        ("lag_seconds", "seconds", "Age of the oldest committed event that is not in the served weights yet."),
        ("rows", "rows", "Rows that were scored before they were learned."),
        ("loss", "nats", "Progressive loss, mean over all rows."),
        ("accuracy", "fraction", "Progressive accuracy over all rows."),
        ("recent_loss", "nats", "Progressive loss, mean over the recent rows."),
        ("recent_accuracy", "fraction", "Progressive accuracy over the recent rows."),
        ("skipped_rows", "rows", "Rows that could not be learned."),
        ("unfit_events", "events", "Events that do not fit the model."),
        ("step_norm", "norm", "Norm of the last update."),
        ("mean_step_norm", "norm", "Mean norm of all updates."),
        ("epoch", "forgets", "Number of times that feedback was forgotten."),
        (
            "bound_differs",
            FLAG,
            "1 if the models directory has another artifact than the one that feedback began with.",
        ),
        ("published_seconds", "seconds", "Time when the served weights were published, in seconds since 1970."),
        ("stalled", FLAG, "1 if an event stops the fold, else 0."),
        ("held", FLAG, "1 if learning is held, for the reason in the model's metadata; else 0."),
        ("refolded", "fraction", "Completed fraction of a refold."),
    )
}
CALIBRATION: Final = {
    "softstep_learn_calibration_error": MetricSpec("gauge", "fraction", "Expected calibration error.", MODEL),
    "softstep_learn_bin_rows": MetricSpec("gauge", "rows", "Recent feedback rows in this confidence bin.", BIN),
    "softstep_learn_bin_confidence": MetricSpec("gauge", "fraction", "Mean confidence of the rows in this bin.", BIN),
    "softstep_learn_bin_accuracy": MetricSpec(
        "gauge", "fraction", "Fraction of the rows in this bin whose predicted label was right.", BIN
    ),
}
# The metrics by the headings of docs/metrics.md.
SECTIONS: Final[dict[str, dict[str, MetricSpec]]] = {
    "Service": SERVICE,
    "Requests": REQUESTS,
    "Processes": PROCESSES,
    "Disk": DISK,
    "Feedback": FEEDBACK,
    "Learning": LEARNING,
    "Calibration": CALIBRATION,
}
METRICS: Final = {name: spec for section in SECTIONS.values() for name, spec in section.items()}
