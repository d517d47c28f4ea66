"""Read and check the objects of deploy/: the plain files, and what the Helm chart renders."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from service.settings import Settings
from tests.support.paths import ROOT

DEPLOY = ROOT / "deploy"
# The oldest and the newest release of Kubernetes whose schemas the files are validated with.
RELEASES = ("1.25", "1.37")
# Kinds that Kubernetes itself does not have, so it has no schema of them.
FOREIGN = {"ServiceMonitor", "PrometheusRule", "ServingRuntime", "InferenceService", "Cluster"}
KEYS_MOUNT = {"name": "keys", "mountPath": "/keys", "readOnly": True}
FILES = [
    "kubernetes.yaml",
    "kubernetes-stateless.yaml",
    "kubernetes-replicas.yaml",
    "kubernetes-learners.yaml",
    "kserve.yaml",
    "kserve-replicas.yaml",
    "postgres-cluster.yaml",
    "prometheus/service-monitor.yaml",
]
REPLICAS: dict[str, Any] = {"log": {"secret": "softstep-log-app"}, "autoscaling": {"enabled": True}}
CHART = DEPLOY / "helm" / "softstep"
# Runs Helm's own code in a process of its own, since it is a large library that starts threads.
HELM = """
import json, sys
import helm_python as helm
folder, values = sys.argv[1], json.loads(sys.argv[2])
with helm.Chart.load(folder) as chart:
    try:
        files = {} if values is None else chart.render(values, name="softstep", namespace="models")
        print(json.dumps({"lint": helm.lint(folder), "files": files}))
    except helm.HelmValuesError as error:
        print(json.dumps({"refused": str(error)}))
"""


def documents(path: Path) -> list[dict[str, Any]]:
    """Return the objects of a file."""
    return [document for document in yaml.safe_load_all(path.read_text()) if document]


def by_kind(objects: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return objects by their kinds, of which each occurs once."""
    assert len({each["kind"] for each in objects}) == len(objects)
    return {each["kind"]: each for each in objects}


def check_objects(objects: list[dict[str, Any]]) -> None:
    """Check that objects have the fields of their kinds, and no others."""
    for each in objects:
        for release in RELEASES:
            if each["kind"] not in FOREIGN:
                kubernetes_validate.validate(each, release, strict=True)


def settings_of(container: dict[str, Any]) -> Settings:
    """Return the settings that the environment of a container makes, with an address of a log for that of a Secret."""
    values = {variable["name"]: variable["value"] for variable in container["env"] if "value" in variable}
    if "SOFTSTEP_LOG" in {variable["name"] for variable in container["env"]}:
        values["SOFTSTEP_LOG"] = "postgresql://db/softstep"
    with pytest.MonkeyPatch.context() as patch:
        for name, value in values.items():
            patch.setenv(name, value)
        settings = Settings()
    assert {f"SOFTSTEP_{name.upper()}" for name in settings.model_fields_set} == values.keys()
    return settings


def check_keys(pod: dict[str, Any], secret: str) -> None:
    """Check that a pod reads its keys from a Secret that must exist."""
    (container,) = pod["containers"]
    (volume,) = [volume for volume in pod["volumes"] if volume["name"] == "keys"]
    assert volume["secret"] == {"secretName": secret, "defaultMode": 0o440}
    assert pod["securityContext"]["fsGroup"] == pod["securityContext"]["runAsGroup"]
    assert KEYS_MOUNT in container["volumeMounts"]
    settings = settings_of(container)
    assert settings.keys_path == Path(KEYS_MOUNT["mountPath"]) / "keys.json"
    assert not settings.open


def run_helm(values: dict[str, Any] | None) -> dict[str, Any]:
    """Render the chart with values, or lint it without."""
    command = [sys.executable, "-c", HELM, str(CHART), json.dumps(values)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    return dict(json.loads(done.stdout))


def render(**values: Any) -> dict[str, dict[str, Any]]:
    """Return the objects of the chart by their kinds, each valid."""
    return by_kind(render_all(**values))


def render_all(**values: Any) -> list[dict[str, Any]]:
    """Return all objects of the chart, each valid."""
    texts = [text for name, text in run_helm(values)["files"].items() if name.endswith(".yaml")]
    objects = [each for text in texts for each in yaml.safe_load_all(text) if each]
    check_objects(objects)
    return objects


def comparable(value: Any) -> Any:
    """Return a specification without what the chart adds to the plain file, or leaves out."""
    if isinstance(value, dict):
        dropped = {"labels", "matchLabels", "selector", "imagePullPolicy"}
        kept = {key: comparable(part) for key, part in value.items() if key not in dropped}
        if kept.get("type") == "ClusterIP":
            del kept["type"]
        if "env" in kept:
            kept["env"] = {variable["name"]: variable["value"] for variable in kept["env"] if "value" in variable}
        return kept
    return [comparable(part) for part in value] if isinstance(value, list) else value
