"""The metrics count what happened, in every worker's response."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.support.learning_client import samples
from tests.support.running_service import Service, serving
from tests.support.waiting import wait_until

ROW = {"instances": [[5.1, 3.5, 1.4, 0.2]]}
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
    assert grown("softstep_predict_duration_seconds_count", iris()) == 40
    assert grown("softstep_predict_duration_seconds_bucket", iris(le="+Inf")) == 40
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
