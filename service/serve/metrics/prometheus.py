"""Render the metrics in Prometheus' text format: the counters, summed over workers, and the state of learning."""

from collections.abc import Iterable, Mapping
from typing import Any, Final

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from service.process.shared_memory import (
    BODY_BYTES,
    COMMIT_NANOSECONDS,
    COMMITS,
    CONNECTIONS,
    IN_FLIGHT,
    READY,
    STATUS_MAX,
    STATUSES,
    SharedMemory,
)
from service.serve.metrics.counters import (
    BOUNDS,
    BUCKETS,
    COMPUTE_NANOSECONDS,
    EXECUTIONS,
    FAILURES,
    FEEDBACK_START,
    NANOSECONDS,
    ROWS,
    sum_counters,
)
from service.serve.responses import V1, V2

# The metrics of feedback, in the order of their counters, with their help texts.
FEEDBACK_HELP: Final = {
    "events": "Feedback events that were stored.",
    "rows": "Rows of the stored feedback events.",
    "duplicates": "Feedback events that were already stored.",
    "refusals": "Feedback events that the log rejected.",
}
# The metrics of learning, with their help texts.
LEARNING_HELP: Final = {
    "seq": "Seq of the last event in the served weights.",
    "log_seq": "Seq of the last committed event.",
    "lag_events": "Committed events that are not in the served weights yet.",
    "lag_seconds": "Age of the oldest committed event that is not in the served weights yet, in seconds.",
    "rows": "Rows that were scored before they were learned.",
    "loss": "Progressive loss, mean over all rows.",
    "accuracy": "Progressive accuracy over all rows.",
    "recent_loss": "Progressive loss, mean over the recent rows.",
    "recent_accuracy": "Progressive accuracy over the recent rows.",
    "skipped_rows": "Rows that could not be learned.",
    "unfit_events": "Events that do not fit the model.",
    "step_norm": "Norm of the last update.",
    "mean_step_norm": "Mean norm of all updates.",
    "epoch": "Number of times that feedback was forgotten.",
    "bound_differs": "1 if the models directory has another artifact than the one that feedback began with, else 0.",
    "published_seconds": "Time when the served weights were published, in seconds since 1970.",
    "stalled": "1 if an event stops the fold, else 0.",
    "refolded": "Completed fraction of a refold.",
}
# The metrics of each confidence bin (reliability_of in softmax/calibration_learner.py), with their help texts.
BIN_HELP: Final = {
    "rows": "Recent feedback rows in this confidence bin.",
    "confidence": "Mean confidence of the rows in this bin.",
    "accuracy": "Fraction of the rows in this bin whose predicted label was right.",
}

# For each model and version, the known values of the metrics in LEARNING_HELP.
Learning = Mapping[tuple[str, str], Mapping[str, Any]]


class MetricsCollector(Collector):
    """Collects the metrics of the service when Prometheus scrapes it."""

    def __init__(self, memory: SharedMemory, version: str, learning: Learning) -> None:
        self._memory = memory
        self._version = version
        self._learning = learning

    def collect(self) -> Iterable[Metric]:
        """Yield every metric of the service, summed over workers."""
        info = GaugeMetricFamily("softstep_info", "The running version.", labels=["version"])
        info.add_metric([self._version], 1)
        yield info
        yield self._gauge("softstep_workers_ready", "Workers that serve predictions.", READY)
        yield self._gauge("softstep_connections", "Open connections.", CONNECTIONS)
        yield self._gauge("softstep_requests_in_flight", "Requests in progress.", IN_FLIGHT)
        yield self._gauge("softstep_request_body_bytes", "Bytes of request bodies in memory.", BODY_BYTES)
        responses = CounterMetricFamily("softstep_http_responses", "Responses by HTTP status.", labels=["status"])
        for status in range(100, STATUS_MAX):
            count = self._memory.sum_over_workers(STATUSES + status)
            if count:
                responses.add_metric([str(status)], count)
        yield responses
        commits = self._memory.sum_over_workers(COMMITS)
        seconds = self._memory.sum_over_workers(COMMIT_NANOSECONDS) / 1e9
        yield CounterMetricFamily("softstep_feedback_commits", "Committed transactions of feedback.", value=commits)
        yield CounterMetricFamily(
            "softstep_feedback_commit_seconds", "Time in transactions of feedback, in seconds.", value=seconds
        )
        yield from self._models()
        yield from self._states()

    def _gauge(self, name: str, text: str, cell: int) -> Metric:
        return GaugeMetricFamily(name, text, value=self._memory.sum_over_workers(cell))

    def _models(self) -> Iterable[Metric]:
        labels = ["model", "version"]
        requests = CounterMetricFamily(
            "softstep_predict_requests", "Answered prediction requests.", labels=[*labels, "protocol"]
        )
        failures = CounterMetricFamily("softstep_predict_failures", "Rejected prediction requests.", labels=labels)
        rows = CounterMetricFamily("softstep_predict_rows", "Predicted rows.", labels=labels)
        executions = CounterMetricFamily("softstep_kernel_calls", "Kernel calls.", labels=labels)
        compute = CounterMetricFamily("softstep_kernel_seconds", "Time in kernel calls, in seconds.", labels=labels)
        durations = HistogramMetricFamily(
            "softstep_predict_duration_seconds",
            "Time from the complete request to the complete response, in seconds.",
            labels=labels,
        )
        feedback = [
            CounterMetricFamily(f"softstep_feedback_{name}", text, labels=labels)
            for name, text in FEEDBACK_HELP.items()
        ]
        for key, counters in sorted(sum_counters(self._memory).items()):
            name, _, version = key.partition("/")
            names = [name, version]
            requests.add_metric([*names, "v1"], counters[V1])
            requests.add_metric([*names, "v2"], counters[V2])
            failures.add_metric(names, counters[FAILURES])
            rows.add_metric(names, counters[ROWS])
            executions.add_metric(names, counters[EXECUTIONS])
            compute.add_metric(names, counters[COMPUTE_NANOSECONDS] / 1e9)
            durations.add_metric(names, _buckets(counters), counters[NANOSECONDS] / 1e9)
            for family, count in zip(feedback, counters[FEEDBACK_START : FEEDBACK_START + len(feedback)], strict=True):
                family.add_metric(names, count)
        yield from (requests, failures, rows, executions, compute, durations, *feedback)

    def _states(self) -> Iterable[Metric]:
        """Yield the state of learning of each version, as this worker knows it."""
        for name, text in LEARNING_HELP.items():
            family = GaugeMetricFamily(f"softstep_learn_{name}", text, labels=["model", "version"])
            for (model, version), values in self._learning.items():
                if values.get(name) is not None:
                    family.add_metric([model, version], float(values[name]))
            yield family
        yield from self._reliability()

    def _reliability(self) -> Iterable[Metric]:
        """Yield how far confidence and accuracy of recent rows differ; bins are named by their upper bounds."""
        labels = ["model", "version"]
        error = GaugeMetricFamily("softstep_learn_calibration_error", "Expected calibration error.", labels=labels)
        bins = {
            name: GaugeMetricFamily(f"softstep_learn_bin_{name}", text, labels=[*labels, "bin"])
            for name, text in BIN_HELP.items()
        }
        for key, values in self._learning.items():
            calibration = values.get("calibration") or {"expected_error": None, "bins": []}
            if calibration["expected_error"] is not None:
                error.add_metric(key, calibration["expected_error"])
            for number, cells in enumerate(calibration["bins"], 1):
                for name, family in bins.items():
                    if cells[name] is not None:
                        family.add_metric([*key, f"{number / len(calibration['bins']):g}"], cells[name])
        yield from (error, *bins.values())


def _buckets(counters: list[int]) -> list[tuple[str, float]]:
    """Return cumulative counts by upper bounds in seconds."""
    bounds = [*(str(bound / 1e9) for bound in BOUNDS), "+Inf"]
    running, buckets = 0, []
    for bound, count in zip(bounds, counters[BUCKETS : BUCKETS + len(bounds)], strict=True):
        running += count
        buckets.append((bound, float(running)))
    return buckets


def render_metrics(memory: SharedMemory, version: str, learning: Learning) -> bytes:
    """Return the metrics of all workers in Prometheus' text format.

    Args:
        memory: The shared memory with the counters.
        version: The version of the running service.
        learning: For each model and version, the known values of the metrics in LEARNING_HELP.
    """
    registry = CollectorRegistry(auto_describe=False)
    registry.register(MetricsCollector(memory, version, learning))
    return generate_latest(registry)
