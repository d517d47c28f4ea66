"""The public module: what it exports, what importing it loads, and that the wheel has it."""

import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import service
import softstep
from service.serving_settings import ServingSettings
from service.store.artifact.artifact_loader import TENSOR_BYTES_MAX
from tests.support.paths import ROOT
from tests.support.processes import SECONDS

# Only serving, training and some sources need these.
OTHERS = {"fastapi", "starlette", "uvicorn", "apsw", "cryptography", "sklearn", "onnx", "onnxruntime", "skops"}
OTHERS |= {"pyarrow", "pandas", "rich", "matplotlib"}


def test_it_exports_what_its_page_names() -> None:
    """Each name of the module is there, and the version is that of the service."""
    assert sorted(softstep.__all__) == ["Artifact", "__version__", "artifact_of", "load_artifact", "write_artifact"]
    assert all(hasattr(softstep, name) for name in softstep.__all__)
    assert softstep.__version__ == service.__version__


def test_a_pipeline_goes_to_a_folder_and_back(tmp_path: Path) -> None:
    """The two lines where people train, and a third that reads the model again."""
    X, y = load_iris(return_X_y=True)
    pipeline = make_pipeline(StandardScaler(), LogisticRegression()).fit(X, y)
    softstep.write_artifact(tmp_path / "iris" / "1", softstep.artifact_of(pipeline))
    artifact = softstep.load_artifact(tmp_path / "iris" / "1")
    assert artifact.manifest.classes == ("0", "1", "2")
    assert artifact.manifest.training is not None
    assert np.allclose(artifact.manifest.training.mean or (), X.mean(axis=0))


def test_the_limit_of_loading_is_that_of_serving() -> None:
    """What a service accepts by default is loaded by default."""
    assert ServingSettings.model_fields["artifact_bytes_max"].default == TENSOR_BYTES_MAX


def test_importing_it_loads_no_server_and_no_other_library() -> None:
    """A notebook has it beside any library; nothing of them is imported by it."""
    script = f"import sys, softstep; print(sorted({OTHERS!r} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=SECONDS, check=True
    )
    assert done.stdout == "[]\n"


def test_the_wheel_has_it(tmp_path: Path) -> None:
    """The module is at the top of the wheel, beside the package; nothing is downloaded to build it."""
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--no-index", "--quiet"]
    subprocess.run(
        [*command, "--wheel-dir", str(tmp_path), str(ROOT)], check=True, timeout=SECONDS, capture_output=True
    )
    (wheel,) = tmp_path.glob("softstep-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    assert {"softstep.py", "service/__init__.py", "service/convert/vowpal/score_rows.py"} <= names
    assert not [name for name in names if name.startswith(("tests/", "loadtest/", "models/"))]
