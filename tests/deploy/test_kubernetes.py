"""The files for Kubernetes and the Helm chart are valid, agree, and name what the service has."""

import re
from typing import Any

import pytest
import yaml

from service import __version__
from tests.support.kubernetes_objects import (
    CHART,
    DEPLOY,
    FILES,
    KEYS_MOUNT,
    REPLICAS,
    by_kind,
    check_keys,
    check_objects,
    comparable,
    documents,
    render,
    render_all,
    run_helm,
    settings_of,
)
from tests.support.paths import ROOT

KSERVE = ["kserve.yaml", "kserve-replicas.yaml"]
WORKLOADS = ["kubernetes.yaml", "kubernetes-stateless.yaml", "kubernetes-replicas.yaml", "kubernetes-learners.yaml"]


@pytest.mark.parametrize("name", FILES)
def test_objects_are_valid(name: str) -> None:
    """Every object fits the schema of its kind."""
    check_objects(documents(DEPLOY / name))


@pytest.mark.parametrize("name", WORKLOADS)
def test_pods_are_safe(name: str) -> None:
    """A pod runs without privileges and service links, from a tagged image of this version, and has all probes."""
    objects = by_kind(documents(DEPLOY / name))
    workload = objects.get("StatefulSet") or objects["Deployment"]
    check_pod(workload["spec"]["template"]["spec"])
    assert {"Service", "PodDisruptionBudget", "NetworkPolicy"} <= objects.keys()
    labels = workload["spec"]["template"]["metadata"]["labels"].items()
    assert workload["spec"]["selector"]["matchLabels"].items() <= labels
    assert objects["Service"]["spec"]["selector"].items() <= labels
    assert objects["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"].items() <= labels
    assert objects["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"].items() <= labels


def check_pod(pod: dict[str, Any]) -> None:
    """Check the pod of a workload."""
    (container,) = pod["containers"]
    assert pod["enableServiceLinks"] is False
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert container["image"].endswith(f":{__version__}")
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert {"requests", "limits"} <= container["resources"].keys()
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert container[probe]["timeoutSeconds"] >= 5
    settings = settings_of(container)
    seconds = settings.drain_seconds + settings.shutdown_seconds
    assert seconds < pod["terminationGracePeriodSeconds"]


def test_one_pod_learns_and_many_only_serve() -> None:
    """The StatefulSet has one replica and a volume at the data directory; the Deployment has no volume."""
    learning = by_kind(documents(DEPLOY / "kubernetes.yaml"))["StatefulSet"]["spec"]
    serving = by_kind(documents(DEPLOY / "kubernetes-stateless.yaml"))["Deployment"]["spec"]
    assert learning["replicas"] == 1
    assert learning["volumeClaimTemplates"][0]["metadata"]["name"] == "data"
    container = learning["template"]["spec"]["containers"][0]
    assert container["volumeMounts"] == [{"name": "data", "mountPath": "/data"}, KEYS_MOUNT]
    assert settings_of(container).learn is True
    assert serving["replicas"] > 1
    assert [volume["name"] for volume in serving["template"]["spec"]["volumes"]] == ["keys"]
    assert settings_of(serving["template"]["spec"]["containers"][0]).learn is False


@pytest.mark.parametrize("name", WORKLOADS)
def test_pods_have_keys_from_a_secret(name: str) -> None:
    """The whole Secret is mounted where the service looks for its keys, and its user can read it."""
    objects = by_kind(documents(DEPLOY / name))
    check_keys((objects.get("StatefulSet") or objects["Deployment"])["spec"]["template"]["spec"], "softstep-keys")


@pytest.mark.parametrize("name", KSERVE)
def test_kserve_leaves_authorization_to_the_platform(name: str) -> None:
    """The runtime has no keys, so it starts only because it is open."""
    (container,) = by_kind(documents(DEPLOY / name))["ServingRuntime"]["spec"]["containers"]
    settings = settings_of(container)
    assert settings.open
    assert settings.keys_file is None


@pytest.mark.parametrize("name", KSERVE)
def test_kserve_has_the_protocols_of_both_ports(name: str) -> None:
    """The runtime names v1 and v2 over HTTP, and v2 over gRPC, and has the ports of the settings."""
    spec = by_kind(documents(DEPLOY / name))["ServingRuntime"]["spec"]
    (container,) = spec["containers"]
    settings = settings_of(container)
    assert spec["protocolVersions"] == ["v1", "v2", "grpc-v2"]
    assert [port["containerPort"] for port in container["ports"]] == [settings.port, settings.grpc_port]
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert container[probe]["httpGet"]["port"] == settings.port


def test_compose_has_keys_in_its_data_volume() -> None:
    """The keys are in the data volume, where `softstep keys` can replace their file; open is off by default."""
    (service,) = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"].values()
    assert "data:/data" in service["volumes"]
    assert service["environment"]["SOFTSTEP_KEYS_FILE"] == "/data/keys.json"
    assert service["environment"]["SOFTSTEP_OPEN"] == "${SOFTSTEP_OPEN:-false}"
    assert all(port.startswith("127.0.0.1:") for port in service["ports"])


def test_the_base_image_is_pinned_by_digest() -> None:
    """Every stage of the Dockerfile is built on the one base that is named with its digest."""
    first, *others = re.findall(r"^FROM (\S+)(?: AS (\S+))?$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    assert re.fullmatch(r"python:3\.\d+-slim@sha256:[0-9a-f]{64}", first[0])
    assert others
    assert {image for image, _ in others} == {first[1]}


def test_the_service_monitor_selects_the_service() -> None:
    """Its labels and its port are those of the Service."""
    (monitor,) = documents(DEPLOY / "prometheus" / "service-monitor.yaml")
    service = by_kind(documents(DEPLOY / "kubernetes.yaml"))["Service"]
    assert monitor["spec"]["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    assert monitor["spec"]["endpoints"][0]["port"] == service["spec"]["ports"][0]["name"]


def test_kserve_mounts_a_data_volume() -> None:
    """The InferenceService keeps one pod with a claimed volume at the data directory."""
    objects = by_kind(documents(DEPLOY / "kserve.yaml"))
    predictor = objects["InferenceService"]["spec"]["predictor"]
    claim = predictor["volumes"][0]["persistentVolumeClaim"]["claimName"]
    assert claim == objects["PersistentVolumeClaim"]["metadata"]["name"]
    assert predictor["model"]["volumeMounts"] == [{"name": "data", "mountPath": "/data"}]
    assert predictor["maxReplicas"] == 1
    assert objects["ServingRuntime"]["spec"]["containers"][0]["image"].endswith(f":{__version__}")


def test_probes_ask_existing_paths() -> None:
    """Every path that a probe of a deployment file asks is a call of the service."""
    for name in FILES:
        for path in re.findall(r"path: (/\S+?)[,}]", (DEPLOY / name).read_text()):
            assert f"`GET {path}`" in (ROOT / "docs" / "http.md").read_text()


def test_helm_finds_no_fault() -> None:
    """The chart passes `helm lint`; that it has no icon is no fault."""
    found = run_helm(None)["lint"]
    assert found["errors"] == []
    assert [message["error"] for message in found["messages"]] == ["icon is recommended"]


@pytest.mark.parametrize(
    ("values", "name"), list(zip(({"learning": True}, {"learning": False}, REPLICAS), WORKLOADS[:3], strict=True))
)
def test_the_chart_renders_the_plain_files(values: dict[str, Any], name: str) -> None:
    """With default values the chart has the objects of the plain file, apart from labels and the optional Secret."""
    rendered, plain = render(**values), by_kind(documents(DEPLOY / name))
    assert rendered.keys() == plain.keys()
    for kind, expected in plain.items():
        assert comparable(rendered[kind]["spec"]) == comparable(expected["spec"]), kind
        assert rendered[kind]["metadata"]["name"] == expected["metadata"]["name"]


def test_values_of_the_chart_reach_the_pod() -> None:
    """Models, the token key, settings and placement are in the pod, and the monitor is on request."""
    objects = render(
        image={"repository": "registry.example/softstep", "tag": __version__},
        models={"persistentVolumeClaim": {"claimName": "models"}},
        tokenKeySecret="tokens",
        keysSecret="callers",
        settings={"SOFTSTEP_WORKERS": "4"},
        serviceMonitor={"enabled": True, "labels": {"release": "prometheus"}},
        prometheusRule={"enabled": True, "labels": {"release": "prometheus"}},
        podDisruptionBudget={"enabled": False},
        networkPolicy={"enabled": False},
        persistence={"size": "1Ti", "storageClassName": "fast"},
        nodeSelector={"disk": "fast"},
        tolerations=[{"key": "models", "operator": "Exists"}],
        affinity={"nodeAffinity": {}},
        podAnnotations={"team": "a"},
        imagePullSecrets=[{"name": "registry"}],
    )
    assert objects.keys() == {"StatefulSet", "Service", "ServiceMonitor", "PrometheusRule"}
    assert objects["PrometheusRule"]["spec"] == yaml.safe_load((DEPLOY / "prometheus" / "alerts.yaml").read_text())
    for kind in ("ServiceMonitor", "PrometheusRule"):
        assert objects[kind]["metadata"]["labels"]["release"] == "prometheus"
    workload = objects["StatefulSet"]["spec"]
    pod = workload["template"]["spec"]
    check_pod(pod)
    container = pod["containers"][0]
    assert settings_of(container).workers == 4
    assert container["env"][-1]["valueFrom"]["secretKeyRef"] == {"name": "tokens", "key": "token-key"}
    assert {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]} == {
        "data": "/data",
        "keys": "/keys",
        "models": "/models",
    }
    check_keys(pod, "callers")
    claim = workload["volumeClaimTemplates"][0]["spec"]
    assert (claim["storageClassName"], claim["resources"]["requests"]["storage"]) == ("fast", "1Ti")
    assert pod["nodeSelector"] == {"disk": "fast"}
    selector = objects["ServiceMonitor"]["spec"]["selector"]["matchLabels"]
    assert selector.items() <= objects["Service"]["metadata"]["labels"].items()
    (monitor,) = documents(DEPLOY / "prometheus" / "service-monitor.yaml")
    assert objects["ServiceMonitor"]["spec"]["endpoints"] == monitor["spec"]["endpoints"]


@pytest.mark.parametrize("learning", [True, False])
def test_a_chart_without_a_secret_of_keys_can_be_open(*, learning: bool) -> None:
    """Nothing is mounted then, and the setting that opens the service reaches the pod."""
    objects = render(learning=learning, keysSecret="", settings={"SOFTSTEP_OPEN": "true"})
    pod = (objects.get("StatefulSet") or objects["Deployment"])["spec"]["template"]["spec"]
    check_pod(pod)
    assert "volumes" not in pod
    settings = settings_of(pod["containers"][0])
    assert settings.open
    assert settings.keys_file is None


def test_a_certificate_and_an_admin_port_reach_the_pod() -> None:
    """Probes and metrics ask over HTTPS, the Secret is mounted, and the second port has a Service of its own."""
    objects = render_all(
        learning=False,
        keysSecret="",
        settings={"SOFTSTEP_OPEN": "true"},
        tls={"secret": "certificate"},
        adminPort={"enabled": True},
        serviceMonitor={"enabled": True},
    )
    (workload,) = [each for each in objects if each["kind"] == "Deployment"]
    pod = workload["spec"]["template"]["spec"]
    check_pod(pod)
    container = pod["containers"][0]
    settings = settings_of(container)
    assert (str(settings.tls_certificate), str(settings.tls_key)) == ("/tls/tls.crt", "/tls/tls.key")
    assert container["volumeMounts"] == [{"name": "tls", "mountPath": "/tls", "readOnly": True}]
    assert pod["volumes"] == [{"name": "tls", "secret": {"secretName": "certificate"}}]
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert container[probe]["httpGet"]["scheme"] == "HTTPS"
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert ports == {"http": settings.port, "admin": settings.admin_port}
    public, admin = [each for each in objects if each["kind"] == "Service"]
    assert [port["targetPort"] for each in (public, admin) for port in each["spec"]["ports"]] == ["http", "admin"]
    assert public["spec"]["selector"] == admin["spec"]["selector"]
    (monitor,) = [each for each in objects if each["kind"] == "ServiceMonitor"]
    assert monitor["spec"]["endpoints"][0]["scheme"] == "https"
    assert not monitor["spec"]["selector"]["matchLabels"].items() <= admin["metadata"]["labels"].items()
    (policy,) = [each for each in objects if each["kind"] == "NetworkPolicy"]
    assert [port["port"] for port in policy["spec"]["ingress"][0]["ports"]] == ["http", "admin"]


def test_a_port_of_grpc_reaches_the_pod() -> None:
    """The setting, the ports of the pod and of its Service, and the NetworkPolicy agree."""
    objects = render_all(learning=True, grpcPort={"enabled": True})
    (workload,) = [each for each in objects if each["kind"] == "StatefulSet"]
    container = workload["spec"]["template"]["spec"]["containers"][0]
    settings = settings_of(container)
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert ports == {"http": settings.port, "grpc": settings.grpc_port}
    services = [each for each in objects if each["kind"] == "Service"]
    assert {"name": "grpc", "port": 9000, "targetPort": "grpc"} in services[0]["spec"]["ports"]
    (policy,) = [each for each in objects if each["kind"] == "NetworkPolicy"]
    assert [port["port"] for port in policy["spec"]["ingress"][0]["ports"]] == ["http", "grpc"]


@pytest.mark.parametrize(
    "values",
    [
        {"settings": {"SOFTSTEP_TLS_CERTIFICATE": "/tls.crt"}},
        {"image": {"repository": "softstep", "tag": "latest"}},
        {"settings": {"WORKERS": "1"}},
        {"settings": {"SOFTSTEP_PORT": "9000"}},
        {"settings": {"SOFTSTEP_GRPC_PORT": "9000"}},
        {"settings": {"SOFTSTEP_KEYS_FILE": "/data/keys.json"}},
        {"replicas": 0},
        {"persistence": {"size": "large"}},
        {"unknown": True},
    ],
    ids=str,
)
def test_invalid_values_are_refused(values: dict[str, Any]) -> None:
    """The schema of the chart refuses moving tags, unknown values, and settings that are none."""
    assert run_helm(values).keys() == {"refused"}


def test_the_chart_has_the_version_of_the_service() -> None:
    """The chart's version and its default image are those of this release."""
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert chart["version"] == chart["appVersion"] == __version__
