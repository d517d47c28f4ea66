"""Clients that are generated from the OpenAPI document have its names and work."""

import importlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.access.scopes import Scope
from tests.support.api_keys import add_key
from tests.support.running_service import Service, serving

ROW = [5.1, 3.5, 1.4, 0.2]
GOLDEN = Path(__file__).parents[2] / "golden" / "openapi_components.json"
# The generator formats its output with ruff by default; the test needs no formatted output.
CONFIGURATION = {
    "post_hooks": [],
    "package_name_override": "softstep_generated_client",
    # The generator knows no text as a request body.
    "content_type_overrides": dict.fromkeys(["text/csv", "application/jsonlines"], "application/octet-stream"),
}


@pytest.fixture
def key(tmp_path: Path) -> str:
    """A key of the service, which is then its only one."""
    return add_key(tmp_path / "keys.json", Scope.PREDICT, Scope.FEEDBACK)


@pytest.fixture
def trained(models: Path, tmp_path: Path, key: str) -> Any:  # noqa: ARG001  # the file of keys has to exist
    """A service of the test's own, which learns and requires keys."""
    with serving(models, tmp_path, SOFTSTEP_KEYS_FILE=tmp_path / "keys.json") as running:
        yield running


@pytest.fixture
def generated(trained: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The package that openapi-python-client generates from the document of the running service."""
    configuration = tmp_path / "configuration.json"
    configuration.write_text(json.dumps(CONFIGURATION))
    command = [sys.executable, "-m", "openapi_python_client", "generate", "--url", f"{trained.url}/openapi.json"]
    target = tmp_path / str(CONFIGURATION["package_name_override"])
    options = ["--meta", "none", "--output-path", str(target), "--config", str(configuration), "--fail-on-warning"]
    done = subprocess.run([*command, *options], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    monkeypatch.syspath_prepend(tmp_path)
    return importlib.import_module(target.name)


def test_a_generated_client_predicts_and_sends_feedback(generated: Any, trained: Service, key: str) -> None:
    """openapi-python-client generates every call without a warning; its calls send the key and return the types."""
    models = importlib.import_module(f"{generated.__name__}.models")
    calls = {
        name: importlib.import_module(f"{generated.__name__}.api.{name}")
        for name in ("native_v1.predict_latest", "learning.feedback_latest", "learning.feedback_version")
    }
    row, options = models.PredictRequest(instances=[ROW]), {"base_url": trained.url, "timeout": httpx.Timeout(20)}
    with generated.Client(**options) as client:
        stranger = calls["native_v1.predict_latest"].sync(name="iris", client=client, body=row)
    assert isinstance(stranger, models.Error)
    assert stranger.code == models.ErrorCode.KEY_MISSING
    with generated.AuthenticatedClient(**options, token=key) as client:
        predicted = calls["native_v1.predict_latest"].sync(name="iris", client=client, body=row)
        first, other = (
            models.FeedbackRows(instances=[ROW], labels=[label], id="evt-1") for label in ("setosa", "virginica")
        )
        served = calls["learning.feedback_latest"].sync(name="iris", client=client, body=first, wait=True)
        refused = calls["learning.feedback_version"].sync(name="iris", version="1", client=client, body=other)
    assert isinstance(predicted, models.PredictResponse)
    assert (predicted.labels, predicted.model_version, predicted.seq) == (["setosa"], "1", 0)
    assert isinstance(served, models.FeedbackServed)
    assert (served.id, served.seq, served.duplicate, len(served.losses)) == ("evt-1", 1, False, 1)
    assert isinstance(refused, models.Error)
    assert refused.code == models.ErrorCode.ID_TAKEN


def test_the_names_of_components_are_stable(service: Service) -> None:
    """Generated clients, those of openapi-typescript too, name their types after the components of the document."""
    components = httpx.get(f"{service.url}/openapi.json").json()["components"]["schemas"]
    # The rows of the models that are served are components too.
    assert sorted(name for name in components if not name.startswith("Row.")) == json.loads(GOLDEN.read_text())
