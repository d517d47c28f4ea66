"""The metrics as Prometheus reads them: the counters of the board, summed over workers, and how learning stands."""

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

# In the order of the counters of writer.py.
FEEDBACK_TEXTS: Final = {
    "events": "Feedback events that were written.",
    "rows": "Rows of those events.",
    "duplicates": "Feedback events that were there already.",
    "refusals": "Feedback events that the log refused.",
}
LEARNING_TEXTS: Final = {
    "seq": "The event up to which the served weights have learned.",
    "log_seq": "The last event that is committed.",
    "lag_events": "Events that are committed and not served yet.",
    "lag_seconds": "Age of the first event that is not served yet.",
    "rows": "Rows that were scored before their step.",
    "loss": "Progressive loss, mean over all rows.",
    "accuracy": "Progressive accuracy, over all rows.",
    "recent_loss": "Progressive loss, mean over the last rows.",
    "recent_accuracy": "Progressive accuracy, over the last rows.",
    "skipped_rows": "Rows that could not be learned from.",
    "unfit_events": "Events that could not apply to the model.",
    "step_norm": "Norm of the last step.",
    "mean_step_norm": "Mean norm of all steps.",
    "epoch": "How often something was forgotten.",
    "bound_differs": "1 where the models directory has another artifact than the stream began with, else 0.",
    "published_seconds": "When the served weights were published, in seconds since 1970.",
    "stalled": "1 where an event stops the fold, else 0.",
    "refolded": "Share of a refolding that is done.",
}
# Of each bin of the recent rows by how sure their answers were, see reliability_of in softmax/calibration_learner.py.
BIN_TEXTS: Final = {
    "rows": "Recent rows whose answer was so sure.",
    "confidence": "Mean confidence of those rows.",
    "accuracy": "Share of those rows whose answer was right.",
}

Learning = Mapping[tuple[str, str], Mapping[str, Any]]


class MetricsCollector(Collector):
    """Turns the board into Prometheus metrics when they are asked for."""

    def __init__(self, board: SharedMemory, version: str, learning: Learning) -> None:
        self._board = board
        self._version = version
        self._learning = learning

    def collect(self) -> Iterable[Metric]:
        """Every metric of the service, summed over workers."""
        info = GaugeMetricFamily("softstep_info", "The running version.", labels=["version"])
        info.add_metric([self._version], 1)
        yield info
        yield self._gauge("softstep_workers_ready", "Workers that answer predictions.", READY)
        yield self._gauge("softstep_connections", "Open connections.", CONNECTIONS)
        yield self._gauge("softstep_requests_in_flight", "Requests being worked on.", IN_FLIGHT)
        yield self._gauge("softstep_request_body_bytes", "Request body bytes held in memory.", BODY_BYTES)
        answers = CounterMetricFamily("softstep_http_responses", "Answers by HTTP status.", labels=["status"])
        for status in range(100, STATUS_MAX):
            count = self._board.sum_over_workers(STATUSES + status)
            if count:
                answers.add_metric([str(status)], count)
        yield answers
        commits = self._board.sum_over_workers(COMMITS)
        seconds = self._board.sum_over_workers(COMMIT_NANOSECONDS) / 1e9
        yield CounterMetricFamily("softstep_feedback_commits", "Transactions that hold feedback.", value=commits)
        yield CounterMetricFamily("softstep_feedback_commit_seconds", "Seconds in those transactions.", value=seconds)
        yield from self._models()
        yield from self._states()

    def _gauge(self, name: str, text: str, cell: int) -> Metric:
        return GaugeMetricFamily(name, text, value=self._board.sum_over_workers(cell))

    def _models(self) -> Iterable[Metric]:
        labels = ["model", "version"]
        requests = CounterMetricFamily(
            "softstep_predict_requests", "Answered prediction requests.", labels=[*labels, "protocol"]
        )
        failures = CounterMetricFamily("softstep_predict_failures", "Refused prediction requests.", labels=labels)
        rows = CounterMetricFamily("softstep_predict_rows", "Predicted rows.", labels=labels)
        executions = CounterMetricFamily("softstep_kernel_calls", "Kernel calls.", labels=labels)
        compute = CounterMetricFamily("softstep_kernel_seconds", "Seconds in kernels.", labels=labels)
        durations = HistogramMetricFamily(
            "softstep_predict_duration_seconds", "From a whole request to its whole answer.", labels=labels
        )
        taught = [
            CounterMetricFamily(f"softstep_feedback_{name}", text, labels=labels)
            for name, text in FEEDBACK_TEXTS.items()
        ]
        for key, counters in sorted(sum_counters(self._board).items()):
            name, _, version = key.partition("/")
            names = [name, version]
            requests.add_metric([*names, "v1"], counters[V1])
            requests.add_metric([*names, "v2"], counters[V2])
            failures.add_metric(names, counters[FAILURES])
            rows.add_metric(names, counters[ROWS])
            executions.add_metric(names, counters[EXECUTIONS])
            compute.add_metric(names, counters[COMPUTE_NANOSECONDS] / 1e9)
            durations.add_metric(names, _buckets(counters), counters[NANOSECONDS] / 1e9)
            for family, count in zip(taught, counters[FEEDBACK_START : FEEDBACK_START + len(taught)], strict=True):
                family.add_metric(names, count)
        yield from (requests, failures, rows, executions, compute, durations, *taught)

    def _states(self) -> Iterable[Metric]:
        """How the learning of each version stands, as the worker that is asked sees it."""
        for name, text in LEARNING_TEXTS.items():
            family = GaugeMetricFamily(f"softstep_learn_{name}", text, labels=["model", "version"])
            for (model, version), values in self._learning.items():
                if values.get(name) is not None:
                    family.add_metric([model, version], float(values[name]))
            yield family
        yield from self._reliability()

    def _reliability(self) -> Iterable[Metric]:
        """How far confidence and truth agree over the recent rows; bins are named by their upper bound."""
        labels = ["model", "version"]
        error = GaugeMetricFamily("softstep_learn_calibration_error", "Expected calibration error.", labels=labels)
        bins = {
            name: GaugeMetricFamily(f"softstep_learn_bin_{name}", text, labels=[*labels, "bin"])
            for name, text in BIN_TEXTS.items()
        }
        for key, values in self._learning.items():
            told = values.get("calibration") or {"expected_error": None, "bins": []}
            if told["expected_error"] is not None:
                error.add_metric(key, told["expected_error"])
            for number, cells in enumerate(told["bins"], 1):
                for name, family in bins.items():
                    if cells[name] is not None:
                        family.add_metric([*key, f"{number / len(told['bins']):g}"], cells[name])
        yield from (error, *bins.values())


def _buckets(counters: list[int]) -> list[tuple[str, float]]:
    """Cumulative counts by upper bound in seconds."""
    bounds = [*(str(bound / 1e9) for bound in BOUNDS), "+Inf"]
    running, buckets = 0, []
    for bound, count in zip(bounds, counters[BUCKETS : BUCKETS + len(bounds)], strict=True):
        running += count
        buckets.append((bound, float(running)))
    return buckets


def render_metrics(board: SharedMemory, version: str, learning: Learning) -> bytes:
    """The metrics of all workers in Prometheus' text format.

    Args:
        board: Where they count.
        version: Of the running service.
        learning: For each model and version the values that LEARNING_TEXTS names, as far as they are known.
    """
    registry = CollectorRegistry(auto_describe=False)
    registry.register(MetricsCollector(board, version, learning))
    return generate_latest(registry)
