"""Replicas of one log: their pods share no disk, and scale by metrics that the service and the adapter have."""

import re
from typing import Any

import pytest
import yaml

from service.serve.metrics.metric_table import METRICS
from tests.support.kubernetes_objects import (
    DEPLOY,
    FILES,
    REPLICAS,
    by_kind,
    check_keys,
    comparable,
    documents,
    render,
    render_all,
    run_helm,
    settings_of,
)

TOKEN_KEY = {
    "name": "SOFTSTEP_TOKEN_KEY",
    "valueFrom": {"secretKeyRef": {"name": "softstep-token-key", "key": "token-key", "optional": True}},
}
ADDRESS = {"name": "SOFTSTEP_LOG", "valueFrom": {"secretKeyRef": {"name": "softstep-log-app", "key": "uri"}}}


KSERVE = {**REPLICAS, "kserve": {"models": {"iris": "pvc://models/kserve"}}}
ROLES = {**REPLICAS, "learners": {"replicas": 2}, "serviceMonitor": {"enabled": True}}


def variants() -> list[dict[str, dict[str, Any]]]:
    """Return the objects of the plain file and of the chart."""
    return [by_kind(documents(DEPLOY / "kubernetes-replicas.yaml")), render(**REPLICAS)]


def test_replicas_learn_from_one_log_and_keep_only_a_cache() -> None:
    """Each pod learns, has the log's address from the Secret, and a data directory that goes with it."""
    for objects in variants():
        assert "StatefulSet" not in objects
        workload = objects["Deployment"]["spec"]
        pod = workload["template"]["spec"]
        (container,) = pod["containers"]
        settings = settings_of(container)
        assert settings.learn
        assert settings.log_copies == "2"
        assert ADDRESS in container["env"]
        assert {"name": "data", "mountPath": "/data"} in container["volumeMounts"]
        assert {"name": "data", "emptyDir": {"sizeLimit": "10Gi"}} in pod["volumes"]
        assert container["readinessProbe"]["httpGet"]["path"] == "/readyz"
        assert pod["topologySpreadConstraints"][0]["labelSelector"]["matchLabels"].items() <= (
            workload["template"]["metadata"]["labels"].items()
        )
        check_keys(pod, "softstep-keys")


def test_kserve_runs_replicas_of_the_same_log() -> None:
    """Its pods keep only a cache; the budget, the spread and the autoscaler are for the pods that KServe makes."""
    objects = by_kind(documents(DEPLOY / "kserve-replicas.yaml"))
    replicas = by_kind(documents(DEPLOY / "kubernetes-replicas.yaml"))
    assert objects["Job"] == replicas["Job"]
    (container,) = objects["ServingRuntime"]["spec"]["containers"]
    settings = settings_of(container)
    assert settings.learn
    assert settings.log_copies == "2"
    assert ADDRESS in container["env"]
    assert objects["ServingRuntime"]["spec"]["annotations"]["prometheus.kserve.io/port"] == str(settings.port)
    service = objects["InferenceService"]
    predictor = service["spec"]["predictor"]
    assert predictor["model"]["runtime"] == objects["ServingRuntime"]["metadata"]["name"]
    assert predictor["model"]["volumeMounts"] == [{"name": "data", "mountPath": "/data"}]
    assert predictor["volumes"] == [{"name": "data", "emptyDir": {"sizeLimit": "10Gi"}}]
    assert service["metadata"]["annotations"]["serving.kserve.io/autoscalerClass"] == "external"
    scaler, wanted = (each["HorizontalPodAutoscaler"]["spec"] for each in (objects, replicas))
    name = service["metadata"]["name"]
    assert scaler == {**wanted, "scaleTargetRef": {**wanted["scaleTargetRef"], "name": f"{name}-predictor"}}
    selector = {"matchLabels": {"serving.kserve.io/inferenceservice": name}}
    assert objects["PodDisruptionBudget"]["spec"] == {"maxUnavailable": 1, "selector": selector}
    assert predictor["topologySpreadConstraints"][0]["labelSelector"] == selector
    assert predictor["minReplicas"] == scaler["minReplicas"]


def test_the_chart_makes_the_same_for_kserve() -> None:
    """A runtime, and for each model what the plain file has; KServe makes the pods, so the chart has none."""
    plain = by_kind(documents(DEPLOY / "kserve-replicas.yaml"))
    made = render(**KSERVE, drainSeconds=2, settings={"SOFTSTEP_WORKERS": "1"})
    assert made.keys() == plain.keys()
    runtime, wanted = (each["ServingRuntime"]["spec"] for each in (made, plain))
    (container,), (wanted_container,) = runtime["containers"], wanted["containers"]
    assert settings_of(container) == settings_of(wanted_container).model_copy(
        update={"drain_seconds": 2.0, "workers": 1}
    )
    for spec in (runtime, wanted):
        del spec["containers"][0]["env"]
    assert comparable(runtime) == comparable(wanted)
    predictor, wanted = (each["InferenceService"]["spec"]["predictor"] for each in (made, plain))
    assert predictor["model"].pop("runtime") == made["ServingRuntime"]["metadata"]["name"]
    del wanted["model"]["runtime"]
    assert predictor == wanted
    assert made["InferenceService"]["metadata"]["annotations"] == plain["InferenceService"]["metadata"]["annotations"]
    for kind in ("HorizontalPodAutoscaler", "PodDisruptionBudget"):
        assert made[kind]["spec"] == plain[kind]["spec"]


def test_kserve_serves_several_models_by_one_runtime() -> None:
    """Without an autoscaler, each has the number of pods that is given."""
    models = {"iris": "pvc://models/kserve", "digits": "s3://models/kserve"}
    made = render_all(log={"secret": "softstep-log-app"}, kserve={"models": models}, replicas=4)
    services = {each["metadata"]["name"]: each["spec"] for each in made if each["kind"] == "InferenceService"}
    assert {name: spec["predictor"]["model"]["storageUri"] for name, spec in services.items()} == models
    assert {spec["predictor"]["minReplicas"] for spec in services.values()} == {4}
    kinds = [each["kind"] for each in made]
    assert [kinds.count(kind) for kind in ("ServingRuntime", "PodDisruptionBudget", "HorizontalPodAutoscaler")] == [
        1,
        2,
        0,
    ]


def test_replicas_have_the_key_of_tokens_of_a_secret() -> None:
    """The plain files use a Secret if it exists; a value of the chart names the Secret."""
    for name, kind in (("kubernetes-replicas.yaml", "Deployment"), ("kserve-replicas.yaml", "ServingRuntime")):
        spec = by_kind(documents(DEPLOY / name))[kind]["spec"]
        (container,) = spec["template"]["spec"]["containers"] if kind == "Deployment" else spec["containers"]
        assert TOKEN_KEY in container["env"]
    rendered = render(**REPLICAS, tokenKeySecret="softstep-token-key")["Deployment"]["spec"]["template"]["spec"]
    (variable,) = [each for each in rendered["containers"][0]["env"] if each["name"] == TOKEN_KEY["name"]]
    assert variable["valueFrom"]["secretKeyRef"] == {"name": "softstep-token-key", "key": "token-key"}


def test_tables_are_made_by_a_job_that_serves_nothing() -> None:
    """It asks the same database, is selected by no Service, and in the chart it runs before the pods."""
    for objects in variants():
        job = objects["Job"]["spec"]["template"]
        (container,) = job["spec"]["containers"]
        assert container["args"] == ["migrate"]
        assert ADDRESS in container["env"]
        assert container["image"] == objects["Deployment"]["spec"]["template"]["spec"]["containers"][0]["image"]
        selector = objects["Service"]["spec"]["selector"]
        assert not selector.items() <= job["metadata"]["labels"].items()
    assert render(**REPLICAS)["Job"]["metadata"]["annotations"]["helm.sh/hook"] == "pre-install,pre-upgrade"
    assert "Job" not in render(log={"secret": "softstep-log-app", "migrate": False})


def test_pods_may_connect_to_the_database_only() -> None:
    """The ports of PostgreSQL and of names are open, and no other."""
    for objects in variants():
        (rule,) = objects["NetworkPolicy"]["spec"]["egress"]
        assert {port["port"] for port in rule["ports"]} == {5432, 53}


def test_the_number_of_pods_follows_metrics_that_exist() -> None:
    """Each metric is the service's own, or made of one by the adapter; the Deployment has no number of its own."""
    rules = yaml.safe_load((DEPLOY / "prometheus" / "adapter.yaml").read_text())["rules"]["custom"]
    made = set()
    for rule in rules:
        (series,) = re.findall(r"^(\w+)\{", rule["seriesQuery"])
        assert series in METRICS
        made.add(rule.get("name", {}).get("as", series))
    for objects in variants():
        scaler = objects["HorizontalPodAutoscaler"]["spec"]
        assert {metric["pods"]["metric"]["name"] for metric in scaler["metrics"]} == made
        assert scaler["scaleTargetRef"]["name"] == objects["Deployment"]["metadata"]["name"]
        assert "replicas" not in objects["Deployment"]["spec"]


def test_pods_that_only_serve_scale_too_and_one_that_learns_alone_does_not() -> None:
    """Without autoscaling a Deployment has the number of the values."""
    scaled = render(learning=False, autoscaling={"enabled": True})
    assert "HorizontalPodAutoscaler" in scaled
    assert "Job" not in scaled
    assert "HorizontalPodAutoscaler" not in render(autoscaling={"enabled": True})
    assert render(log={"secret": "log"}, replicas=5)["Deployment"]["spec"]["replicas"] == 5


def test_the_database_waits_for_a_standby_and_makes_the_secret() -> None:
    """Three servers, ANY 1, durability required; the operator names the Secret <cluster>-app."""
    (cluster,) = documents(DEPLOY / "postgres-cluster.yaml")
    spec = cluster["spec"]
    assert spec["instances"] == 3
    synchronous = spec["postgresql"]["synchronous"]
    assert (synchronous["method"], synchronous["number"], synchronous["dataDurability"]) == ("any", 1, "required")
    assert ADDRESS["valueFrom"]["secretKeyRef"]["name"] == f"{cluster['metadata']['name']}-app"  # type: ignore[index]
    assert "postgres-cluster.yaml" in FILES


def test_learners_have_pods_of_their_own() -> None:
    """Workers answer and scale; learners are a fixed number, and no Service for predictions selects them."""
    objects = {(each["kind"], each["metadata"]["name"]): each for each in render_all(**ROLES)}
    roles = {}
    for name in ("softstep", "softstep-learner"):
        spec = objects["Deployment", name]["spec"]
        labels = spec["template"]["metadata"]["labels"].items()
        roles[name] = settings_of(spec["template"]["spec"]["containers"][0]).role
        for kind in ("Service", "PodDisruptionBudget", "NetworkPolicy"):
            selecting = {each for (found, each), one in objects.items() if found == kind and selector(one) <= labels}
            assert selecting == {name}
        assert selector(objects["Deployment", name]) <= labels
    assert roles == {"softstep": "worker", "softstep-learner": "learner"}
    assert objects["Deployment", "softstep-learner"]["spec"]["replicas"] == 2
    scalers = [each["spec"]["scaleTargetRef"]["name"] for (kind, _), each in objects.items() if kind.startswith("Hori")]
    assert scalers == ["softstep"]
    monitor = selector(objects["ServiceMonitor", "softstep"])
    for name in ("softstep", "softstep-learner"):
        assert monitor <= objects["Service", name]["metadata"]["labels"].items()


def selector(each: dict[str, Any]) -> set[tuple[str, str]]:
    """Return the labels by which an object selects pods or Services."""
    found = each["spec"].get("selector") or each["spec"]["podSelector"]
    return set(found.get("matchLabels", found).items())


def test_the_chart_renders_the_plain_file_of_learners() -> None:
    """Each object of the file is one of the chart's, apart from labels and the optional Secret; it has the role."""
    plain = documents(DEPLOY / "kubernetes-learners.yaml")
    rendered = {(each["kind"], each["metadata"]["name"]): each for each in render_all(**ROLES)}
    assert {(each["kind"], each["metadata"]["name"]) for each in plain} == {
        key for key in rendered if key[1] == "softstep-learner"
    }
    for each in plain:
        assert comparable(rendered[each["kind"], "softstep-learner"]["spec"]) == comparable(each["spec"]), each["kind"]


def test_one_pod_that_learns_alone_has_no_learners() -> None:
    """Without a log in PostgreSQL there is nothing to share."""
    assert [each["kind"] for each in render_all(learners={"replicas": 2})].count("StatefulSet") == 1
    assert not [each for each in render_all(learners={"replicas": 2}) if each["metadata"]["name"] == "softstep-learner"]


@pytest.mark.parametrize(
    "values",
    [
        {"settings": {"SOFTSTEP_ROLE": "learner"}},
        {"settings": {"SOFTSTEP_LOG": "postgresql://db"}},
        {"log": {"secret": "log", "copies": "3"}},
        {"autoscaling": {"busyShare": "1.5"}},
        {"autoscaling": {"cpu": "80"}},
        {"kserve": {"models": {"iris": "pvc://models/kserve"}}},
        {**KSERVE, "learning": False},
        {**KSERVE, "learners": {"replicas": 2}},
    ],
    ids=str,
)
def test_invalid_values_of_replicas_are_refused(values: dict[str, Any]) -> None:
    """An address is a Secret's, and nothing scales by processor time."""
    assert run_helm(values).keys() == {"refused"}
