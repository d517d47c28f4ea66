"""The alert rules and the dashboard: every query runs in a real Prometheus that scrapes a real service."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest
import yaml

from service.access.scopes import Scope
from service.serve.metrics.metric_table import METRICS
from tests.support.api_keys import add_key, bearer
from tests.support.paths import ROOT
from tests.support.prometheus_server import PrometheusServer, promtool, scraping
from tests.support.running_service import serving
from tests.support.waiting import wait_until

ALERTS = ROOT / "deploy" / "prometheus" / "alerts.yaml"
CASES = Path(__file__).parent / "alert_cases.yaml"
ADAPTER = ROOT / "deploy" / "prometheus" / "adapter.yaml"
DASHBOARD = ROOT / "deploy" / "grafana" / "dashboard.json"
PAGE = ROOT / "docs" / "alerts.md"
# What Grafana puts in the place of its variables.
VARIABLES = {"$__rate_interval": "1m", "$instance": ".*", "$model": ".*"}
ROW = [5.1, 3.5, 1.4, 0.2]


def rules() -> dict[str, Any]:
    """Return the alert rules by their names."""
    groups = yaml.safe_load(ALERTS.read_text())["groups"]
    return {rule["alert"]: rule for group in groups for rule in group["rules"]}


def panels() -> dict[str, list[str]]:
    """Return the queries of each panel of the dashboard by its title, with values for variables."""
    found: dict[str, list[str]] = {}
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        for target in panel.get("targets", []):
            query = target["expr"]
            for name, value in VARIABLES.items():
                query = query.replace(name, value)
            found.setdefault(panel["title"], []).append(query)
    return found


class Scraped(NamedTuple):
    """A client of a service with keys, and the Prometheus that scrapes it."""

    web: httpx.Client
    prometheus: PrometheusServer


@pytest.fixture(scope="module")
def scraped(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scraped]:
    """A service that predicts, learns and refuses while Prometheus scrapes it."""
    scratch = tmp_path_factory.mktemp("scraped")
    keys = scratch / "keys.json"
    key, prometheus_key = add_key(keys), add_key(keys, Scope.PREDICT)
    with (
        serving(models, scratch, key=key, SOFTSTEP_KEYS_FILE=keys, SOFTSTEP_METRICS_ACCESS="key") as service,
        scraping(service.url.removeprefix("http://"), prometheus_key, ALERTS, scratch) as prometheus,
        httpx.Client(base_url=service.url, headers=[bearer(key)]) as web,
    ):

        def is_counted() -> bool:
            web.post("/v1/models/iris:predict", json={"instances": [ROW]}).raise_for_status()
            web.post("/v1/models/iris:predict", json={"instances": [[1]]})
            feedback = {"instances": [ROW] * 8, "labels": [0] * 8}
            web.post("/v1/models/iris:feedback?wait=true", json=feedback).raise_for_status()
            counted = (
                "rate(softstep_feedback_commits_total[1m]) > 0",
                'rate(softstep_refusals_total{code="invalid_request"}[1m]) > 0',
                "softstep_learn_lag_seconds",  # the learner's first status comes a moment after its first event
            )
            return all(map(prometheus.query, counted))

        wait_until(is_counted, 30)
        yield Scraped(web, prometheus)


def test_promtool_accepts_the_metrics(scraped: Scraped) -> None:
    """The names, types and help texts follow Prometheus' own conventions."""
    assert promtool("check", "metrics", text=scraped.web.get("/metrics").text) == ""


def test_promtool_accepts_the_alert_rules() -> None:
    """Their syntax and templates are valid."""
    promtool("check", "rules", ALERTS)


def test_alerts_fire_for_their_causes() -> None:
    """Each alert fires in one case, and stays silent in another."""
    promtool("test", "rules", CASES)
    cases = [test["name"] for test in yaml.safe_load(CASES.read_text())["tests"]]
    assert sorted(cases) == sorted(f"{name} {kind}" for name in rules() for kind in ("fires", "stays silent"))


def test_alert_rules_are_evaluated(scraped: Scraped) -> None:
    """Prometheus evaluates every alert rule without an error, and none fires for a healthy service."""
    wait_until(lambda: {rule["health"] for rule in loaded(scraped.prometheus)} == {"ok"}, 30)
    assert sorted(rule["name"] for rule in loaded(scraped.prometheus)) == sorted(rules())
    assert [rule["name"] for rule in loaded(scraped.prometheus) if rule["state"] == "firing"] == []


def loaded(prometheus: PrometheusServer) -> list[Any]:
    """Return the rules that Prometheus evaluates."""
    return [rule for group in prometheus.ask("rules")["groups"] for rule in group["rules"]]


@pytest.mark.parametrize("title", sorted(panels()))
def test_panels_show_data(scraped: Scraped, title: str) -> None:
    """Every query of a panel has a result for a service with traffic."""
    for query in panels()[title]:
        assert scraped.prometheus.query(query), query


def test_dashboard_variables_have_values(scraped: Scraped) -> None:
    """The series that the dashboard's variables are read from exist."""
    for variable in json.loads(DASHBOARD.read_text())["templating"]["list"]:
        if variable["type"] == "query":
            metric, label = re.fullmatch(
                r"label_values\((\w+)(?:\{.*\})?, (\w+)\)", variable["query"]["query"]
            ).groups()
            assert [series["metric"][label] for series in scraped.prometheus.query(metric)]


def test_queries_of_the_adapter_have_results(scraped: Scraped) -> None:
    """Each metric that pods are scaled by has one value for a service; the busy share is a share."""
    values = {}
    for rule in yaml.safe_load(ADAPTER.read_text())["rules"]["custom"]:
        series = re.match(r"\w+", rule["seriesQuery"])[0]
        query = rule["metricsQuery"].replace("<<.Series>>", series)
        query = query.replace("<<.GroupBy>>", "instance").replace("<<.LabelMatchers>>", 'job=~".+"')
        (answer,) = scraped.prometheus.query(query)
        values[series] = float(answer["value"][1])
    assert 0 < values["softstep_worker_busy_seconds_total"] < 1.1  # rates are extrapolated


def test_panels_have_room_and_a_description() -> None:
    """No panel lies over another one, ids are unique, and each panel with queries says what it shows."""
    shown = json.loads(DASHBOARD.read_text())["panels"]
    assert len({panel["id"] for panel in shown}) == len(shown)
    places: set[tuple[int, int]] = set()
    for panel in shown:
        x, y, w, h = (panel["gridPos"][name] for name in "xywh")
        cells = {(column, row) for column in range(x, x + w) for row in range(y, y + h)}
        assert not cells & places
        assert x + w <= 24
        assert panel["type"] == "row" or panel["description"].endswith(".")
        places |= cells


def test_queries_name_existing_metrics() -> None:
    """Every metric of a rule or a panel is in the table of metrics, and its labels are those of the metric."""
    queries = [rule["expr"] for rule in rules().values()] + [
        query for queries in panels().values() for query in queries
    ]
    for query in queries:
        names = re.findall(r"\b((?:softstep_\w+|up))(\{[^}]*\})?", query)
        assert names, query
        for name, selector in names:
            if name != "up":
                spec = METRICS[re.sub(r"_(bucket|sum|count)$", "", name)]
                labels = set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", selector))
                assert labels <= {*spec.labels, "instance", "job"}, query


def test_alerts_say_what_to_do() -> None:
    """Every alert links to a section of its name in docs/alerts.md, and every section belongs to an alert."""
    titles = re.findall(r"^## (Softstep\w+)$", PAGE.read_text(), re.MULTILINE)
    assert sorted(titles) == sorted(rules())
    for name, rule in rules().items():
        assert rule["annotations"]["runbook"] == f"docs/alerts.md#{name.lower()}"
        assert rule["labels"]["severity"] in {"critical", "warning"}
