"""Real clients over a real socket: tritonclient, httpx, and what KServe, SageMaker and Vertex AI ask of a container."""

import asyncio
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import tritonclient.http
import tritonclient.http.aio
from pydantic import ValidationError
from tritonclient.utils import InferenceServerException

from service.access.scopes import Scope
from service.settings import Settings
from service.store.artifact.artifact import write_artifact
from tests.support.api_keys import add_key, bearer
from tests.support.http_requests import infer
from tests.support.model_artifacts import make_artifact
from tests.support.paths import ROOT, SHIPPED
from tests.support.running_service import Service, serving
from tests.support.server_pair import Pair

IRIS = np.array([[5.1, 3.5, 1.4, 0.2], [6.7, 3.0, 5.2, 2.3]], np.float32)


@pytest.fixture(scope="module")
def triton(service: Service) -> Iterator[Any]:
    """Triton's own client."""
    client = tritonclient.http.InferenceServerClient("{}:{}".format(*service.address))
    yield client
    client.close()


@pytest.fixture(scope="module")
def web(service: Service) -> Iterator[httpx.Client]:
    """A web client."""
    with httpx.Client(base_url=service.url) as client:
        yield client


@pytest.fixture(scope="module")
def expected(web: httpx.Client) -> Any:
    """The probabilities of IRIS by v1."""
    return np.array(predict(web).json()["predictions"])


def predict(web: httpx.Client, path: str = "/v1/models/iris:predict") -> httpx.Response:
    """A v1 prediction of IRIS."""
    return web.post(path, json={"instances": IRIS.astype(float).round(1).tolist()})


def tensor(*, binary: bool = True, module: Any = tritonclient.http) -> Any:
    """IRIS as Triton's client sends it."""
    entry = module.InferInput("features", list(IRIS.shape), "FP32")
    entry.set_data_from_numpy(IRIS, binary_data=binary)
    return entry


# Triton's client


def test_triton_infers_with_its_defaults(triton: Any, expected: Any) -> None:
    """Requests and responses are binary, which is the client's default."""
    result = triton.infer("iris", [tensor()])
    np.testing.assert_array_equal(result.as_numpy("probabilities"), expected.astype(np.float32))
    assert result.get_output("probabilities")["parameters"]["binary_data_size"] == 24


@pytest.mark.parametrize("sent", [True, False])
@pytest.mark.parametrize("wanted", [True, False])
def test_triton_infers_in_any_mixture(triton: Any, expected: Any, *, sent: bool, wanted: bool) -> None:
    """JSON or binary, each way; probabilities and labels; the id comes back."""
    outputs = [tritonclient.http.InferRequestedOutput(name, binary_data=wanted) for name in ("labels", "probabilities")]
    result = triton.infer("iris", [tensor(binary=sent)], outputs=outputs, request_id="7", model_version="1")
    np.testing.assert_allclose(result.as_numpy("probabilities"), expected, rtol=1e-6)
    labels = [label.decode() if isinstance(label, bytes) else label for label in result.as_numpy("labels")]
    assert labels == ["setosa", "virginica"]
    assert result.get_response()["id"] == "7"


@pytest.mark.parametrize("wanted", [True, False])
def test_triton_requests_the_parts_of_an_explanation(triton: Any, expected: Any, *, wanted: bool) -> None:
    """Each part has its shape; contributions and the bias are the logits, and these the probabilities."""
    names = ("logits", "contributions", "sensitivities")
    outputs = [tritonclient.http.InferRequestedOutput(name, binary_data=wanted) for name in names]
    result = triton.infer("iris", [tensor()], outputs=outputs)
    Z, parts, slopes = map(result.as_numpy, names)
    assert (Z.shape, parts.shape, slopes.shape) == ((2, 3), (2, 3, 4), (2, 3, 4))
    assert {array.dtype for array in (Z, parts, slopes)} == {np.dtype(np.float32)}
    e = np.exp(Z - Z.max(axis=1, keepdims=True))
    np.testing.assert_allclose(e / e.sum(axis=1, keepdims=True), expected, rtol=1e-5)
    bias = Z - parts.sum(axis=2)
    np.testing.assert_allclose(bias[0], bias[1], atol=1e-4)
    np.testing.assert_allclose(slopes.sum(axis=1), 0, atol=1e-6)


@pytest.mark.parametrize("wanted", [True, False])
@pytest.mark.parametrize("top", [1, 2, 9])
def test_triton_classifies(triton: Any, expected: Any, top: int, *, wanted: bool) -> None:
    """The classification extension: the top classes as value:index:label, and never more than there are."""
    output = tritonclient.http.InferRequestedOutput("probabilities", binary_data=wanted, class_count=top)
    texts = triton.infer("iris", [tensor()], outputs=[output]).as_numpy("probabilities")
    assert texts.shape == (2, min(top, 3))
    names = ("setosa", "versicolor", "virginica")
    for i, row in enumerate(texts.tolist()):
        order = sorted(range(3), key=lambda k: -expected[i, k])[:top]
        parts = [(text.decode() if isinstance(text, bytes) else text).split(":") for text in row]
        assert [(int(index), name) for _, index, name in parts] == [(k, names[k]) for k in order]
        np.testing.assert_allclose([float(value) for value, _, _ in parts], expected[i, order], rtol=1e-6)


@pytest.mark.parametrize("wanted", [True, False])
def test_triton_reads_the_labels_of_a_multilabel_model(triton: Any, web: httpx.Client, *, wanted: bool) -> None:
    """One flag for each class, beside the probabilities they come from."""
    X = np.array([[0, 1, 2], [3, -4, 5], [-9, 0, 0]], np.float32)
    entry = tritonclient.http.InferInput("features", [3, 3], "FP32")
    entry.set_data_from_numpy(X)
    outputs = [
        tritonclient.http.InferRequestedOutput("probabilities"),
        tritonclient.http.InferRequestedOutput("labels", binary_data=wanted),
    ]
    result = triton.infer("tags", [entry], outputs=outputs)
    flags = result.as_numpy("labels")
    assert (flags.dtype, flags.shape) == (np.bool_, (3, 3))
    thresholds = np.array([0.2, 0.5, 0.8], np.float32)
    np.testing.assert_array_equal(flags, thresholds <= result.as_numpy("probabilities"))
    labels = web.post("/v1/models/tags:predict", json={"instances": X.tolist()}).json()["labels"]
    assert labels == [[("a", "b", "ü\n")[k] for k in np.flatnonzero(row)] for row in flags]


@pytest.mark.parametrize("kind", ["FP16", "FP32", "FP64", "INT8", "INT16", "INT32", "INT64", "UINT8", "UINT64"])
def test_triton_sends_any_datatype(triton: Any, kind: str) -> None:
    """Whole numbers mean the same in each, binary or not; a float64 model answers in its own type."""
    X = np.array([[5, 3, 1], [6, 0, 2]], tritonclient.utils.triton_to_np_dtype(kind))
    whole = tritonclient.http.InferInput("x", [2, 3], "FP64")
    whole.set_data_from_numpy(X.astype(np.float64))
    expected = triton.infer("double", [whole]).as_numpy("probabilities")
    assert expected.dtype == np.float64
    for binary in (True, False)[: 1 if kind == "FP16" else 2]:  # the client sends FP16 as binary data alone
        entry = tritonclient.http.InferInput("x", [2, 3], kind)
        entry.set_data_from_numpy(X, binary_data=binary)
        np.testing.assert_array_equal(triton.infer("double", [entry]).as_numpy("probabilities"), expected)


@pytest.mark.parametrize("binary", [True, False])
def test_triton_sends_booleans_and_a_tensor_for_each_feature(triton: Any, web: httpx.Client, *, binary: bool) -> None:
    """Flags count as 0 and 1, and the tensors of the features may differ in type and stand in any order."""
    features = web.get("/v1/models/iris").json()["features"]
    X = np.array([[5, 1, 1.5, 0], [6, 0, 5.25, 1]])
    whole = tritonclient.http.InferInput("x", [2, 4], "FP64")
    whole.set_data_from_numpy(X)
    expected = triton.infer("iris", [whole]).as_numpy("probabilities")
    columns = {}
    for i, (kind, shape) in enumerate([("INT32", [2]), ("BOOL", [2, 1]), ("FP32", [2, 1]), ("BOOL", [2])]):
        columns[features[i]] = tritonclient.http.InferInput(features[i], shape, kind)
        values = X[:, i].reshape(shape).astype(tritonclient.utils.triton_to_np_dtype(kind))
        columns[features[i]].set_data_from_numpy(values, binary_data=binary)
    for inputs in (list(columns.values()), list(columns.values())[::-1]):
        np.testing.assert_array_equal(triton.infer("iris", inputs).as_numpy("probabilities"), expected)
    with pytest.raises(InferenceServerException, match=r'lacks a column, "petal width \(cm\)"'):
        triton.infer("iris", list(columns.values())[:3])
    flags = tritonclient.http.InferInput("x", [1, 4], "BOOL")
    flags.set_data_from_numpy(np.array([[True, False, True, True]]), binary_data=binary)
    found = triton.infer("iris", [flags]).as_numpy("probabilities")
    predicted = web.post("/v1/models/iris:predict", json={"instances": [[1, 0, 1, 1]]}).json()["predictions"]
    np.testing.assert_array_equal(found, np.array(predicted, np.float32))


def test_triton_chooses_binary_for_each_output(triton: Any, expected: Any) -> None:
    """One output comes as JSON beside another as binary data."""
    outputs = [
        tritonclient.http.InferRequestedOutput("probabilities", binary_data=False),
        tritonclient.http.InferRequestedOutput("labels", binary_data=True),
    ]
    result = triton.infer("iris", [tensor()], outputs=outputs)
    assert "data" in result.get_output("probabilities")
    assert "data" not in result.get_output("labels")
    np.testing.assert_allclose(result.as_numpy("probabilities"), expected, rtol=1e-6)
    assert result.as_numpy("labels").tolist() == [b"setosa", b"virginica"]


def test_triton_infers_by_threads(service: Service, expected: Any) -> None:
    """Several connections at a time, each answered correctly; a heavy model's requests share kernel calls."""
    client = tritonclient.http.InferenceServerClient("{}:{}".format(*service.address), concurrency=4)
    rows = np.eye(8, 768, dtype=np.float32)
    calls = []
    for i in range(len(rows)):
        entry = tritonclient.http.InferInput("x", [1, 768], "FP32")
        entry.set_data_from_numpy(rows[i : i + 1])
        calls.append((client.async_infer("iris", [tensor()]), client.async_infer("heavy", [entry])))
    found = [[call.get_result().as_numpy("probabilities") for call in pair] for pair in calls]
    whole = tritonclient.http.InferInput("x", list(rows.shape), "FP32")
    whole.set_data_from_numpy(rows)
    together = client.infer("heavy", [whole]).as_numpy("probabilities")
    for i, (light, heavy) in enumerate(found):
        np.testing.assert_array_equal(light, expected.astype(np.float32))
        np.testing.assert_array_equal(heavy, together[i : i + 1])
    client.close()


def test_triton_speaks_asyncio(service: Service, expected: Any) -> None:
    """The asyncio client works, with every call that it has."""

    async def talk() -> None:
        module = tritonclient.http.aio
        async with module.InferenceServerClient("{}:{}".format(*service.address)) as client:
            for binary in (True, False):
                result = await client.infer("iris", [tensor(binary=binary, module=module)])
                np.testing.assert_array_equal(result.as_numpy("probabilities"), expected.astype(np.float32))
            assert await client.is_server_live()
            assert await client.is_server_ready()
            assert await client.is_model_ready("iris")
            assert not await client.is_model_ready("unknown")
            assert (await client.get_server_metadata())["name"] == "softstep"
            assert (await client.get_model_metadata("iris"))["platform"] == "softstep_safetensors"
            assert (await client.get_model_config("iris"))["input"][0]["dims"] == [4]
            assert len((await client.get_inference_statistics("iris"))["model_stats"]) == 1
            assert {row["state"] for row in await client.get_model_repository_index()} == {"READY"}
            with pytest.raises(InferenceServerException, match=r"\[404\] Request for unknown model"):
                await client.infer("unknown", [tensor(module=module)])

    asyncio.run(talk())


def test_triton_finds_the_server_and_its_models(triton: Any) -> None:
    """Health, metadata, configuration and statistics, with and without a version."""
    assert triton.is_server_live()
    assert triton.is_server_ready()
    assert triton.is_model_ready("iris")
    assert triton.is_model_ready("iris", "1")
    assert not triton.is_model_ready("unknown")
    assert {"binary_tensor_data", "classification"} <= set(triton.get_server_metadata()["extensions"])
    metadata = triton.get_model_metadata("iris")
    assert metadata["inputs"] == [{"name": "features", "datatype": "FP32", "shape": [-1, 4]}]
    assert metadata == triton.get_model_metadata("iris", "1")
    configuration = triton.get_model_config("iris")
    assert configuration["max_batch_size"] == 65536
    assert configuration["output"][0] == {"name": "probabilities", "data_type": "TYPE_FP32", "dims": [3]}
    (before,) = triton.get_inference_statistics("iris")["model_stats"]
    triton.infer("iris", [tensor()])
    (after,) = triton.get_inference_statistics("iris", "1")["model_stats"]
    assert after["inference_count"] == before["inference_count"] + 2
    assert after["execution_count"] == before["execution_count"] + 1
    assert after["inference_stats"]["success"]["count"] == before["inference_stats"]["success"]["count"] + 1
    assert after["inference_stats"]["success"]["ns"] > before["inference_stats"]["success"]["ns"]
    assert after["last_inference"] >= before["last_inference"]
    every = triton.get_inference_statistics()["model_stats"]
    assert [row["name"] for row in every] == [row["name"] for row in triton.get_model_repository_index()]


def test_triton_reports_errors(triton: Any) -> None:
    """The client finds the sentence of a refusal."""
    wrong = tritonclient.http.InferInput("features", [1, 3], "FP32")
    wrong.set_data_from_numpy(np.zeros((1, 3), np.float32))
    with pytest.raises(InferenceServerException, match=r'\[400\] "shape" must be \[rows, 4\]'):
        triton.infer("iris", [wrong])
    with pytest.raises(InferenceServerException, match=r"\[404\] Request for unknown model"):
        triton.infer("unknown", [wrong])


def test_triton_sends_a_key(models: Path, tmp_path: Path, expected: Any) -> None:
    """Each call of both clients takes headers, which carry the key; without it the client reports the refusal."""
    key = add_key(tmp_path / "keys.json", Scope.PREDICT)
    headers = dict([bearer(key)])
    with Pair(models, keys_file=tmp_path / "keys.json") as pair:
        address = f"127.0.0.1:{pair.fast_listener.getsockname()[1]}"
        client = tritonclient.http.InferenceServerClient(address)
        assert client.is_server_ready()
        assert client.is_model_ready("iris", headers=headers)
        assert not client.is_model_ready("iris")
        result = client.infer("iris", [tensor()], headers=headers)
        np.testing.assert_array_equal(result.as_numpy("probabilities"), expected.astype(np.float32))
        with pytest.raises(InferenceServerException, match=r"\[401\] This call needs a key"):
            client.infer("iris", [tensor()])
        with pytest.raises(InferenceServerException, match=r"\[403\] The key has no scope admin"):
            client.unload_model("iris", headers=headers)
        client.close()


@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
def test_compressed_requests_are_answered(triton: Any, expected: Any, algorithm: str) -> None:
    """Both algorithms of the client; a response stays uncompressed though the client accepts compression."""
    result = triton.infer(
        "iris", [tensor()], request_compression_algorithm=algorithm, response_compression_algorithm=algorithm
    )
    np.testing.assert_allclose(result.as_numpy("probabilities"), expected, rtol=1e-6)


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Service]:
    """A service with two workers and models of its own, which a test may unload and replace."""
    for name in ("one", "two"):
        write_artifact(tmp_path / "models" / name / "1", make_artifact("softmax", 2, ["a", "b"]))
    with serving(tmp_path / "models", tmp_path, workers=2) as running:
        yield running


def test_triton_controls_the_repository(own: Service, tmp_path: Path) -> None:
    """Index, unload and load, in every worker; a version that is new on disk is served after a load."""
    client = tritonclient.http.InferenceServerClient("{}:{}".format(*own.address))
    ready = {"version": "1", "state": "READY", "reason": ""}
    assert client.get_model_repository_index() == [{"name": "one", **ready}, {"name": "two", **ready}]
    entry = tritonclient.http.InferInput("features", [1, 2], "FP32")
    entry.set_data_from_numpy(np.ones((1, 2), np.float32))
    first = client.infer("one", [entry])
    client.unload_model("one")
    for _ in range(20):  # whichever worker is asked
        answer = httpx.get(f"{own.url}/v2/models/one/ready")
        assert (answer.status_code, list(answer.json())) == (503, ["error", "code"])
        assert httpx.post(f"{own.url}/v1/models/one:predict", json={"instances": [[1, 2]]}).status_code == 503
    assert not client.is_model_ready("one")
    with pytest.raises(InferenceServerException, match=r"\[503\] Model is not ready"):
        client.infer("one", [entry])
    client.infer("two", [entry])
    client.load_model("one")
    again = client.infer("one", [entry])
    np.testing.assert_array_equal(again.as_numpy("probabilities"), first.as_numpy("probabilities"))
    client.unload_model("one")
    assert [row["state"] for row in client.get_model_repository_index()] == ["UNAVAILABLE", "READY"]
    assert client.is_server_ready()
    write_artifact(tmp_path / "models" / "one" / "2", make_artifact("softmax", 2, ["a", "b"], seed=8))
    client.load_model("one")
    for _ in range(20):
        body = {"instances": [[1, 2]]}
        assert httpx.post(f"{own.url}/v1/models/one:predict", json=body).json()["model_version"] == "2"
    with pytest.raises(InferenceServerException, match=r"\[404\]"):
        client.load_model("unknown")
    with pytest.raises(InferenceServerException, match='"parameters" must be empty'):
        client.load_model("one", config="{}")
    client.close()


def test_repository_calls_ignore_null_and_unknown_members(web: httpx.Client) -> None:
    """Null is a missing member, and members that the protocol does not have change nothing."""
    more = {"parameters": None, "x": [1]}
    index = "/v2/repository/index"
    assert web.post(index, json={"ready": None, "x": 1}).json() == web.post(index).json()
    assert web.post("/v2/repository/models/iris/load", json=more).json() == {"name": "iris", "load": True}
    for call in ("load", "unload"):
        assert web.post(f"/v2/repository/models/unknown/{call}", json=more).status_code == 404


def test_repository_calls_may_have_no_body(web: httpx.Client) -> None:
    """An empty body counts as an empty object; one of spaces is not valid JSON."""
    for path in ("/v2/repository/index", "/v2/repository/models/iris/load"):
        assert [web.post(path, content=content).status_code for content in (b"", b"{}", b" ", b"\n")] == [
            200, 200, 400, 400,
        ]  # fmt: skip


# httpx


def test_httpx_predicts(web: httpx.Client) -> None:
    """The native protocol, by its default and by a version."""
    for path in ("/v1/models/iris:predict", "/v1/models/iris/versions/1:predict"):
        answer = predict(web, path).json()
        assert answer["labels"] == ["setosa", "virginica"]
        assert np.sum(answer["predictions"], axis=1) == pytest.approx(1, abs=1e-6)
        assert {name: answer[name] for name in ("model_name", "model_version", "seq")} == {
            "model_name": "iris",
            "model_version": "1",
            "seq": 0,
        }


def test_httpx_infers(web: httpx.Client, expected: Any) -> None:
    """The v2 protocol in JSON."""
    body = infer(IRIS.astype(float).round(1).tolist(), id="a")
    answer = web.post("/v2/models/iris/infer", content=body).json()
    assert answer["id"] == "a"
    (output,) = answer["outputs"]
    assert (output["name"], output["datatype"], output["shape"]) == ("probabilities", "FP32", [2, 3])
    np.testing.assert_allclose(np.reshape(output["data"], (2, 3)), expected, rtol=1e-6)


def test_metadata_tells_all_of_a_model(web: httpx.Client) -> None:
    """Metadata has the schema of input and output, the identity of the model, and its state of learning."""
    response = web.get("/v1/models/iris").json()
    assert (response["name"], response["version"], response["state"], response["ready"]) == ("iris", "1", "READY", True)
    assert (response["head"], response["classes"]) == ("softmax", ["setosa", "versicolor", "virginica"])
    assert (response["n_features"], len(response["features"]), response["seq"]) == (4, 4, 0)
    assert len(response["weights_sha256"]) == 64
    assert response["progressive"] == {"events": 0, "rows": 0, "loss": None, "accuracy": None}
    assert response["versions"] == [{"version": "1", "state": "READY", "reason": ""}]
    assert web.get("/v1/models").json()["models"][0] == {"name": "breast-cancer", "version": "1", "state": "READY"}


@pytest.mark.parametrize(
    ("path", "answer"),
    [
        ("/", {"status": "alive"}),
        ("/healthz", {"live": True}),
        ("/readyz", {"ready": True}),
        ("/health", {"ready": True}),
        ("/v2/health/live", {"live": True}),
        ("/v2/health/ready", {"ready": True}),
        ("/v2/models/iris/ready", {"name": "iris", "ready": True}),
        ("/v2/models/iris/versions/1/ready", {"name": "iris", "ready": True}),
    ],
)
def test_health_is_reported_in_json(web: httpx.Client, path: str, answer: dict[str, Any]) -> None:
    """KServe's client reads the bodies of health answers; `/` is the liveness of its v1 protocol."""
    response = web.get(path)
    assert (response.status_code, response.headers["content-type"]) == (200, "application/json")
    assert response.json() == answer


def test_a_request_id_comes_back(web: httpx.Client) -> None:
    """The id of a request returns on predictions, metadata and errors; without one each response has a new id."""
    sent = {"X-Request-Id": "abc-123"}
    for path in ("/v1/models/iris", "/v1/models/unknown", "/healthz"):
        assert web.get(path, headers=sent).headers["x-request-id"] == "abc-123"
    predicted = web.post("/v1/models/iris:predict", json={"instances": [[1, 2, 3, 4]]}, headers=sent)
    assert predicted.headers["x-request-id"] == "abc-123"
    assert len({predict(web).headers["x-request-id"] for _ in range(3)}) == 3


def test_the_document_names_the_paths(web: httpx.Client) -> None:
    """/openapi.json has the path of a prediction, and /v2 answers with a slash behind it too."""
    assert "/v1/models/{name}:predict" in web.get("/openapi.json").json()["paths"]
    assert web.get("/v2/").json() == web.get("/v2").json()


# The contracts of containers


def test_sagemaker_invokes_the_default_model(tmp_path: Path) -> None:
    """/ping and /invocations, the model named by a setting; errors are those of the native protocol."""
    with (
        serving(SHIPPED, tmp_path, SOFTSTEP_DEFAULT_MODEL="iris") as running,
        httpx.Client(base_url=running.url) as web,
    ):
        pong = web.get("/ping")
        assert (pong.status_code, pong.content) == (200, b"")
        assert predict(web, "/invocations").json() == predict(web).json()
        assert web.post("/invocations", json={"instances": [[1]]}).status_code == 422
        types = {"Content-Type": "text/csv", "Accept": "text/csv"}
        assert web.post("/invocations", content=b"5.1,3.5,1.4,0.2", headers=types).text.startswith("setosa,0.999")


def test_sagemaker_invokes_the_only_model(tmp_path: Path) -> None:
    """A directory that is one model needs no setting."""
    with serving(SHIPPED / "iris" / "1", tmp_path) as running, httpx.Client(base_url=running.url) as web:
        assert web.get("/ping").status_code == 200
        assert predict(web, "/invocations").json()["labels"] == ["setosa", "virginica"]


def test_several_models_without_a_default_are_refused(web: httpx.Client) -> None:
    """The refusal names the setting that selects a default model."""
    answer = predict(web, "/invocations")
    assert answer.status_code == 404
    assert "SOFTSTEP_DEFAULT_MODEL" in answer.json()["error"]


def test_vertex_asks_by_routes_and_a_port_of_its_own(tmp_path: Path) -> None:
    """AIP_PREDICT_ROUTE, AIP_HEALTH_ROUTE and AIP_HTTP_PORT are followed, with Vertex AI's form of a request."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    variables = {
        "AIP_PREDICT_ROUTE": "/v1/endpoints/1/deployedModels/2:predict",
        "AIP_HEALTH_ROUTE": "/v1/endpoints/1/deployedModels/2",
        "AIP_HTTP_PORT": port,
        "AIP_STORAGE_URI": "",
        "SOFTSTEP_PORT": "",
    }
    with (
        serving(SHIPPED, tmp_path, SOFTSTEP_DEFAULT_MODEL="iris", **variables) as running,
        httpx.Client(base_url=running.url) as web,
    ):
        assert running.address[1] == port
        assert web.get(variables["AIP_HEALTH_ROUTE"]).json() == {"ready": True}
        body = {"instances": IRIS.astype(float).round(1).tolist(), "parameters": {"confidence": 0.5}, "other": 1}
        assert web.post(variables["AIP_PREDICT_ROUTE"], json=body).json() == predict(web).json()


def test_vertex_names_a_port_and_a_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    """AIP_HTTP_PORT and AIP_STORAGE_URI are read; Softstep's own names go first, and an empty one counts for none."""
    monkeypatch.setenv("AIP_HTTP_PORT", "7080")
    monkeypatch.setenv("AIP_STORAGE_URI", "/mnt/artifacts")
    assert (Settings().port, Settings().models) == (7080, Path("/mnt/artifacts"))
    monkeypatch.setenv("SOFTSTEP_PORT", "7081")
    monkeypatch.setenv("SOFTSTEP_MODELS", "elsewhere")
    assert (Settings().port, Settings().models) == (7081, Path("elsewhere"))
    for name in ("SOFTSTEP_PORT", "SOFTSTEP_MODELS", "AIP_HTTP_PORT", "AIP_STORAGE_URI"):
        monkeypatch.setenv(name, "")
    assert (Settings().port, Settings().models) == (8000, Path("models"))


@pytest.mark.parametrize("address", ["gs://bucket/iris", "s3://bucket/iris", "https://example.com/iris", "file:///i"])
def test_models_are_never_read_from_a_url(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A URL is refused as the models directory, from the option and from the environment."""
    with pytest.raises(ValidationError, match="read from a local directory"):
        Settings(models=Path(address))
    monkeypatch.setenv("AIP_STORAGE_URI", address)
    with pytest.raises(ValidationError, match="read from a local directory"):
        Settings()


def test_a_start_with_a_url_fails_with_a_remedy() -> None:
    """The command exits at once, with a sentence."""
    environment = {**os.environ, "AIP_STORAGE_URI": "gs://bucket/iris", "SOFTSTEP_MODELS": "", "SOFTSTEP_PORT": "0"}
    done = subprocess.run(
        [sys.executable, "-m", "service", "serve"],
        env=environment, cwd=ROOT, capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("softstep: AIP_STORAGE_URI: Models are read from a local directory, not from a URL")
    assert "bucket" not in done.stderr
