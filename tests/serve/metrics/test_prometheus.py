"""The metrics count what happened, in every worker's response."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from service.serve.error_codes import ERROR_CODES
from service.serve.metrics.metric_table import METRICS
from tests.support.http_requests import request
from tests.support.learning_client import data_of, samples
from tests.support.running_service import Service, ask, is_ready, serving
from tests.support.waiting import wait_until

ROW = {"instances": [[5.1, 3.5, 1.4, 0.2]]}
PROC = Path("/proc")
RESTART_SECONDS = 30.0
# FastAPI answers such a request.
EXPECT = ("Expect", "100-continue")
TENSOR = {"inputs": [{"name": "x", "shape": [2, 4], "datatype": "FP32", "data": [5.1, 3.5, 1.4, 0.2] * 2}]}


@pytest.fixture(scope="module")
def two(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service of two workers that only this module uses."""
    with serving(models, tmp_path_factory.mktemp("two"), workers=2) as running:
        yield running


def iris(**more: str) -> tuple[tuple[str, str], ...]:
    """The labels of the iris model."""
    return tuple(sorted({"model": "iris", "version": "1", **more}.items()))


def test_counters_count_requests(two: Service) -> None:
    """Requests by protocol, rows, failures, durations and statuses of both workers are counted."""
    before = samples(two)
    for _ in range(20):  # each on a connection of its own, so that both workers take some
        assert httpx.post(f"{two.url}/v1/models/iris:predict", json=ROW).status_code == 200
        assert httpx.post(f"{two.url}/v2/models/iris/infer", json=TENSOR).status_code == 200
        assert httpx.post(f"{two.url}/v1/models/iris:predict", json={}).status_code == 422
    after = samples(two)

    def grown(name: str, labels: tuple[tuple[str, str], ...]) -> float:
        return after[name, labels] - before.get((name, labels), 0)

    assert grown("softstep_predict_requests_total", iris(protocol="v1")) == 20
    assert grown("softstep_predict_requests_total", iris(protocol="v2")) == 20
    assert grown("softstep_predict_failures_total", iris()) == 20
    assert grown("softstep_predict_rows_total", iris()) == 60
    assert grown("softstep_kernel_calls_total", iris()) == 40
    for route in ("/v1/models/{name}:predict", "/v2/models/{name}/infer"):
        assert grown("softstep_request_seconds_count", iris(route=route)) == 20
        assert grown("softstep_request_seconds_bucket", iris(route=route, le="+Inf")) == 20
        assert 0 < grown("softstep_request_seconds_sum", iris(route=route)) < 20
    assert grown("softstep_refusals_total", (("code", "invalid_request"),)) == 20
    assert grown("softstep_http_responses_total", (("status", "422"),)) == 20
    assert grown("softstep_http_responses_total", (("status", "200"),)) >= 40


def test_every_worker_returns_the_same_counts(two: Service) -> None:
    """The counts do not change between connections to different workers."""
    seen = [samples(two)["softstep_predict_rows_total", iris()] for _ in range(12)]
    assert len(set(seen)) == 1
    assert samples(two)["softstep_workers_ready", ()] == 2


def test_statistics_agree_with_metrics(two: Service) -> None:
    """The v2 statistics of a model count what the metrics count."""
    (stats,) = httpx.get(f"{two.url}/v2/models/iris/stats").json()["model_stats"]
    counted = samples(two)
    requests = sum(counted["softstep_predict_requests_total", iris(protocol=p)] for p in ("v1", "v2"))
    assert stats["inference_stats"]["success"]["count"] == requests
    assert stats["inference_count"] == counted["softstep_predict_rows_total", iris()]
    assert stats["execution_count"] == counted["softstep_kernel_calls_total", iris()]
    assert stats["inference_stats"]["fail"]["count"] == counted["softstep_predict_failures_total", iris()]
    assert stats["last_inference"] > 1_700_000_000_000


def test_learning_is_reported(two: Service) -> None:
    """Events, rows, duplicates and commits are counted, and the losses and the lag are reported."""
    row = ROW["instances"][0]
    for name in ("a", "b", "a"):
        body = {"id": name, "instances": [row, row], "labels": ["setosa", 0]}
        assert httpx.post(f"{two.url}/v1/models/iris:feedback?wait=true", json=body).status_code == 200
    refused = {"id": "a", "instances": [row], "labels": [1]}
    assert httpx.post(f"{two.url}/v1/models/iris:feedback", json=refused).status_code == 409
    wait_until(lambda: samples(two).get(("softstep_learn_seq", iris())) == 2)
    seen = samples(two)
    counts = ("events", "rows", "duplicates", "refusals")
    assert [seen[f"softstep_feedback_{name}_total", iris()] for name in counts] == [2, 4, 1, 1]
    assert seen["softstep_feedback_commits_total", ()] >= 2
    assert seen["softstep_feedback_commit_seconds_total", ()] > 0
    metadata = httpx.get(f"{two.url}/v1/models/iris").json()
    assert seen["softstep_learn_rows", iris()] == metadata["progressive"]["rows"] == 4
    assert seen["softstep_learn_loss", iris()] == metadata["progressive"]["loss"] > 0
    assert [seen[f"softstep_learn_{name}", iris()] for name in ("log_seq", "lag_events", "stalled")] == [2, 0, 0]


def test_unknown_names_add_no_series(two: Service) -> None:
    """Requests with unknown paths, models and methods add only counts of statuses."""
    for path in ("/nowhere", "/v1/models/none:predict"):
        httpx.post(two.url + path, json=ROW)
    before = samples(two).keys()
    for number in range(50):
        httpx.post(f"{two.url}/v1/models/no-{number}:predict", json=ROW)
        httpx.get(f"{two.url}/path/{number}")
    assert samples(two).keys() == before


def test_metrics_have_types_and_help_texts(two: Service) -> None:
    """Every family has a type and a help text, and the names of counters end in _total."""
    families = list(text_string_to_metric_families(httpx.get(f"{two.url}/metrics").text))
    assert {family.type for family in families} == {"counter", "gauge", "histogram"}
    assert all(family.documentation for family in families)
    exported = {f"{family.name}_total" if family.type == "counter" else family.name for family in families}
    assert exported == set(METRICS)


def test_labels_are_those_of_the_table(two: Service) -> None:
    """Every sample has the labels of its metric, and each error code has a series from the start."""
    families = list(text_string_to_metric_families(httpx.get(f"{two.url}/metrics").text))
    for family in families:
        spec = METRICS[f"{family.name}_total" if family.type == "counter" else family.name]
        labels = {frozenset(sample.labels) - {"le"} for sample in family.samples}
        assert labels <= {frozenset(spec.labels)}, family.name
    codes = {labels[0][1] for name, labels in samples(two) if name == "softstep_refusals_total"}
    assert codes == set(ERROR_CODES)


def test_durations_are_counted_by_route(two: Service) -> None:
    """Every successful request is in one histogram: by route and model, or by route if no model answers it."""
    row = ROW["instances"][0]
    versioned = f"{two.url}/v1/models/iris/versions/1"
    before = samples(two)
    httpx.post(f"{versioned}:explain", json=ROW).raise_for_status()
    httpx.post(f"{versioned}:feedback", json={"instances": [row], "labels": [0]}).raise_for_status()
    httpx.post(f"{versioned}:feedback?wait=true", json={"instances": [row], "labels": [0]}).raise_for_status()
    ask(two, request("POST", "/v1/models/iris:predict", b'{"instances": [[1, 2, 3, 4]]}', [EXPECT]))
    httpx.get(versioned).raise_for_status()
    httpx.get(f"{versioned}/weights").raise_for_status()
    httpx.get(f"{two.url}/v1/models").raise_for_status()
    httpx.get(f"{two.url}/v1/models/none")
    after = samples(two)
    counts = {
        (labels["route"], labels["model"], labels["version"]): count
        for (name, pairs), value in after.items()
        if name == "softstep_request_seconds_count" and (count := value - before.get((name, pairs), 0))
        for labels in [dict(pairs)]
        if labels["route"] != "/metrics"
    }
    assert counts == {
        ("/v1/models/{name}:explain", "iris", "1"): 1,
        ("/v1/models/{name}:feedback", "iris", "1"): 2,
        ("/v1/models/{name}:predict", "iris", "1"): 1,
        ("/v1/models/{name}", "", ""): 1,
        ("/v1/models/{name}/weights", "", ""): 1,
        ("/v1/models", "", ""): 1,
    }


def test_refusals_are_counted_by_code(two: Service) -> None:
    """A refusal counts once, on the fast path, by FastAPI, and by the protocol."""
    before = samples(two)
    body = b'{"instances": [[1]]}'
    assert ask(two, request("POST", "/v1/models/iris:predict", body)).status == 422
    assert ask(two, request("POST", "/v1/models/iris:predict", body, [EXPECT])).status == 422
    assert ask(two, request("POST", "/v1/models/none:predict", body)).status == 404
    assert ask(two, b"nonsense\r\n\r\n").status == 400
    after = samples(two)
    grown = {
        labels[0][1]: value - before[name, labels]
        for (name, labels), value in after.items()
        if name == "softstep_refusals_total" and value != before[name, labels]
    }
    assert grown == {"invalid_request": 2, "model_not_found": 1, "malformed_http": 1}


def test_the_disk_and_the_log_are_measured(two: Service) -> None:
    """Free and total bytes are those of the disk, and the log's size is that of its file."""
    row = {"instances": [[5.1, 3.5, 1.4, 0.2]], "labels": [0]}
    httpx.post(f"{two.url}/v1/models/iris:feedback", json=row).raise_for_status()
    seen = {name: value for (name, labels), value in samples(two).items() if not labels}
    status = os.statvfs(data_of(two))
    assert seen["softstep_disk_total_bytes"] == status.f_blocks * status.f_frsize
    assert 0 < seen["softstep_disk_free_bytes"] < seen["softstep_disk_total_bytes"]
    assert seen["softstep_log_bytes"] == (data_of(two) / "log.sqlite").stat().st_size
    assert 0 < seen["softstep_wal_bytes"] < seen["softstep_wal_limit_bytes"]
    assert seen["softstep_disk_reserve_bytes"] == 256 << 20
    assert (seen["softstep_learning"], seen["softstep_draining"], seen["softstep_disk_faults_total"]) == (1, 0, 0)


def test_processes_are_measured_and_restarts_counted(two: Service) -> None:
    """Each process reports its memory and processor time; a killed worker counts as a restart."""
    processes = {"parent", "worker-0", "worker-1", "learner"}
    before = samples(two)

    def values(name: str) -> dict[str, float]:
        return {labels[0][1]: value for (metric, labels), value in samples(two).items() if metric == name}

    def busy() -> dict[str, float]:
        return values("softstep_worker_busy_seconds_total")

    assert values("softstep_process_resident_bytes").keys() == processes
    assert min(values("softstep_process_resident_bytes").values()) > 1 << 20
    assert max(values("softstep_process_cpu_seconds_total").values()) > 0
    assert min(values("softstep_process_open_fds").values()) >= 3
    wait_until(lambda: min(busy().values()) > 0, RESTART_SECONDS)
    assert busy().keys() == {"worker-0", "worker-1"}
    worked = busy()
    assert values("softstep_process_max_fds")["parent"] > 3
    started = values("softstep_process_start_time_seconds")
    assert started["parent"] <= started["worker-0"]
    killed = next(
        child for child in _children(two.process.pid) if (PROC / child / "comm").read_text() == "softstep-worker\n"
    )
    os.kill(int(killed), signal.SIGKILL)
    wait_until(lambda: sum(values("softstep_restarts_total").values()) == 1, RESTART_SECONDS)
    wait_until(lambda: is_ready(two.url, 2), RESTART_SECONDS)
    assert samples(two)["softstep_predict_rows_total", iris()] >= before["softstep_predict_rows_total", iris()]
    assert all(busy()[name] >= seconds for name, seconds in worked.items())


def _children(process: int) -> list[str]:
    """Return the children of a process."""
    return (PROC / str(process) / "task" / str(process) / "children").read_text().split()
