"""Client libraries of other servers work with a running service, each in an environment of its own."""

import json
import subprocess
from collections.abc import Iterator
from typing import Any, NamedTuple

import httpx
import numpy as np
import pytest

from service import __version__
from service.access.scopes import Scope
from tests.clients import environments
from tests.support.api_keys import add_key
from tests.support.paths import ROOT, SHIPPED
from tests.support.running_service import Service, serving

# The first import in a new environment compiles hundreds of modules.
SECONDS = 120.0
ROWS = [[5.1, 3.5, 1.4, 0.2], [6.7, 3.0, 5.2, 2.3]]


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service of the shipped models, whose default model is iris."""
    with serving(SHIPPED, tmp_path_factory.mktemp("clients"), SOFTSTEP_DEFAULT_MODEL="iris") as service:
        yield service


class Locked(NamedTuple):
    """A service with keys, and one of them."""

    service: Service
    key: str


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Locked]:
    """The same with keys, and a key that may only predict."""
    scratch = tmp_path_factory.mktemp("locked")
    key, settings = add_key(scratch / "keys.json", Scope.PREDICT), {"SOFTSTEP_KEYS_FILE": scratch / "keys.json"}
    with serving(SHIPPED, scratch, SOFTSTEP_DEFAULT_MODEL="iris", **settings) as service:
        yield Locked(service, key)


def call(environment: Any, service: Service, key: str, **more: str) -> Any:
    """Run the script of a client in its environment, and return what it prints."""
    if not environments.is_available(environment):
        pytest.skip(f"no Python of {environment.pythons} is installed")
    features = httpx.get(f"{service.url}/v1/models/iris", headers={"X-API-Key": key}).json()["features"]
    done = subprocess.run(
        [environment.ensure(), "-I", ROOT / "tests" / "clients" / f"{environment.name}_client.py"],
        input=json.dumps({"url": service.url, "rows": ROWS, "features": features, "key": key, **more}),
        capture_output=True, text=True, timeout=SECONDS, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def predict(service: Service, rows: list[list[float]] = ROWS) -> Any:
    """The answer of `:predict`."""
    return httpx.post(f"{service.url}/v1/models/iris:predict", json={"instances": rows}).json()


def single(values: Any) -> Any:
    """Return numbers as an array of the model's dtype."""
    return np.array(values, np.float32)


def test_kserve_calls_with_both_protocols(running: Service, locked: Locked) -> None:
    """KServe's client finds the service live and the model ready, and predicts with v1 and v2, JSON and binary."""
    found, expected = call(environments.KSERVE, *locked), predict(running)
    v1, v2 = found["v1"], found["v2"]
    assert (v1["live"], v1["ready"], v2["live"], v2["server ready"], v2["ready"]) == (True,) * 5
    # The client sends float32 numbers in decimal.
    np.testing.assert_array_equal(single(v1["predicted"]["predictions"]), single(expected["predictions"]))
    assert v1["predicted"]["labels"] == expected["labels"]
    assert [row["label"] for row in v1["explained"]["explanations"]] == expected["labels"]
    for answer in (*v2["one tensor"], *v2["a tensor for each feature"], v2["binary outputs"]):
        assert answer["id"] == "7"
        np.testing.assert_array_equal(single(answer["probabilities"]), single(expected["predictions"]))
    assert v2["labels"] == [{"id": "7", "labels": expected["labels"]}] * 2
    assert '"model_name" is not that of the model that answers' in v2["refused"]


def test_mlflow_invokes_with_frames_and_arrays(running: Service, locked: Locked) -> None:
    """MLflow's client invokes the default model with DataFrames and an array; its bodies can be posted with a key."""
    found, expected = call(environments.MLFLOW, *locked, open_url=running.url), predict(running)["predictions"]
    assert found["version"] == __version__
    assert found["predictions"] == dict.fromkeys(found["predictions"], expected)
    assert found["with parameters"] == found["with a key"] == expected


def test_mlserver_codecs_make_requests_and_read_answers(running: Service, locked: Locked) -> None:
    """PandasCodec sends a tensor for each column, NumpyRequestCodec one tensor; the codecs decode the outputs."""
    found, expected = call(environments.MLSERVER, *locked), predict(running)
    probabilities = single(expected["predictions"])
    for values in (*found["probabilities"].values(), found["without nulls"], found["both outputs"][1]):
        np.testing.assert_array_equal(single(values), probabilities)
    mixed = predict(running, found["mixed rows"])["predictions"]
    np.testing.assert_array_equal(single(found["integers and flags"]), single(mixed))
    assert found["both outputs"][0] == expected["labels"]
    assert found["labels as a frame"] == {"labels": expected["labels"]}
