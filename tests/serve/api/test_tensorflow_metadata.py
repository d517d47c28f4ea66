"""Models are described in the form of TensorFlow Serving beside the native one."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.store.artifact.artifact import write_artifact
from tests.support.model_artifacts import make_artifact
from tests.support.running_service import Service, serving


@pytest.fixture
def own(iris_models: Path, tmp_path: Path) -> Iterator[Service]:
    """A service of two versions of iris, of which the second is refused, and of a float64 model."""
    shutil.copytree(iris_models / "iris" / "1", iris_models / "iris" / "2")
    (iris_models / "iris" / "2" / "model.json").write_text("{}")
    write_artifact(iris_models / "double" / "1", make_artifact("sigmoid", 2, ["no", "yes"], "float64"))
    with serving(iris_models, tmp_path) as running:
        yield running


def status(version: str, state: str, code: str, message: str = "") -> dict[str, Any]:
    """The status of a version."""
    return {"version": version, "state": state, "status": {"error_code": code, "error_message": message}}


def test_the_status_of_versions_follows_what_is_served(own: Service) -> None:
    """Served versions are available, refused ones ended with their reason, unloaded ones ended without an error."""
    with httpx.Client(base_url=own.url) as web:
        whole = web.get("/v1/models/iris").json()
        reason = whole["versions"][1]["reason"]
        assert reason
        assert whole["model_version_status"] == [
            status("1", "AVAILABLE", "OK"),
            status("2", "END", "FAILED_PRECONDITION", reason),
        ]
        alone = web.get("/v1/models/iris/versions/1").json()
        assert alone["model_version_status"] == [status("1", "AVAILABLE", "OK")]
        web.post("/v2/repository/models/double/unload")
        assert web.get("/v1/models/double").json()["model_version_status"] == [status("1", "END", "OK", "unloaded")]


def test_the_signature_describes_the_tensors(own: Service) -> None:
    """The type is that of the model, sizes are strings, and the input that it names is taken."""
    with httpx.Client(base_url=own.url) as web:
        for path in ("/v1/models/double", "/v1/models/double/versions/1"):
            document = web.get(f"{path}/metadata").json()
            assert document["model_spec"] == {"name": "double", "signature_name": "", "version": "1"}
            signature = document["metadata"]["signature_def"]["signature_def"]["serving_default"]
            shape = {"dim": [{"size": "-1", "name": ""}, {"size": "2", "name": ""}], "unknown_rank": False}
            tensor = {"dtype": "DT_DOUBLE", "tensor_shape": shape}
            assert signature["inputs"] == {"features": {**tensor, "name": "features"}}
            assert signature["outputs"] == {"probabilities": {**tensor, "name": "probabilities"}}
        answer = web.post("/v1/models/double:predict", json={"inputs": {"features": [[1, 2]]}}).json()
        assert len(answer["outputs"][0]) == 2
        assert web.get("/v1/models/unknown/metadata").status_code == 404
