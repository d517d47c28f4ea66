"""The shipped models, asked over HTTP, say what scikit-learn's own models say of the rows held out in training.

The network's own model is of scikit-learn's form, and computes in plain NumPy. Of models with fields, whose training
tests/models/ checks, the expected answers are those of their weights in float64.
"""

from functools import cache
from types import ModuleType
from typing import Any, NamedTuple

import httpx
import numpy as np
import orjson
import pytest
from numpy.typing import NDArray

from service.store.artifact.artifact import read_artifact
from service.store.artifact.manifest import Manifest
from tests.support.http_requests import binary
from tests.support.imported_models import IMPORTED_NAMES
from tests.support.paths import SHIPPED
from tests.support.running_service import Service
from tests.support.scripts import load_script
from tests.support.shipped_fields import FIELD_NAMES, exact_probabilities, held_out_rows, prepared, shipped_fields

OTHERS = {*FIELD_NAMES, *IMPORTED_NAMES}
NAMES = sorted(path.name for path in SHIPPED.iterdir() if (path / "1").is_dir() and path.name not in OTHERS)
TOLERANCE = 1e-5
EVERY = pytest.mark.parametrize("name", NAMES)
FIELDS = pytest.mark.parametrize("name", FIELD_NAMES)
# Rows of an encoded answer stay below the largest body.
FIELD_ROWS = 500


class Case(NamedTuple):
    """One shipped model: its manifest, its held-out rows (B, N), and scikit-learn's probabilities of them (B, K)."""

    manifest: Manifest
    X: NDArray[np.float64]
    P: NDArray[np.float64]


@pytest.fixture(scope="module")
def train() -> ModuleType:
    """The training script; it lies in no package."""
    return load_script("models/train.py")


@pytest.fixture(scope="module")
def case_of(train: ModuleType) -> Any:
    """Trains a model again as its manifest says; each once."""

    @cache
    def make(name: str) -> Case:
        manifest = read_artifact(SHIPPED / name / "1", 1 << 20).manifest
        trained = train.fit(name, float(manifest.provenance["C"]))
        return Case(manifest, trained.X_test, trained.pipeline.predict_proba(trained.X_test))

    return make


@pytest.fixture
def case(name: str, case_of: Any) -> Case:
    """The case of the model that a test is about."""
    made: Case = case_of(name)
    return made


def post(service: Service, path: str, body: bytes, headers: dict[str, str] | None = None) -> httpx.Response:
    """A request that must succeed."""
    answer = httpx.post(f"{service.url}{path}", content=body, headers=headers, timeout=30)
    assert answer.status_code == 200, answer.text
    return answer


def ask_v1(service: Service, name: str, X: NDArray[Any]) -> tuple[NDArray[np.float32], list[Any], bytes]:
    """Probabilities, labels, and the bytes that the probabilities stood in."""
    answer = post(service, f"/v1/models/{name}:predict", orjson.dumps({"instances": X.tolist()})).content
    document = orjson.loads(answer)
    return np.array(document["predictions"], np.float32), document["labels"], answer


def ask_binary(service: Service, name: str, X: NDArray[Any]) -> NDArray[np.float32]:
    """Probabilities of float32 rows, as binary data both ways."""
    text, raw = binary(X, parameters={"binary_data_output": True})
    headers = {"Inference-Header-Content-Length": str(len(text))}
    answer = post(service, f"/v2/models/{name}/infer", text + raw, headers)
    length = int(answer.headers["inference-header-content-length"])
    (output,) = orjson.loads(answer.content[:length])["outputs"]
    return np.frombuffer(answer.content[length:], "<f4").reshape(output["shape"])


def rows_of(body: bytes) -> list[bytes]:
    """The text of each row of probabilities in a v1 answer."""
    return body.removeprefix(b'{"predictions":[[').partition(b"]]")[0].split(b"],[")


def labels_of(manifest: Manifest, P: NDArray[Any]) -> list[Any]:
    """The labels that probabilities mean."""
    classes = manifest.classes
    if manifest.thresholds is None:
        return [classes[k] for k in P.argmax(axis=1)]
    flags = np.array(manifest.thresholds, P.dtype) <= P
    return [[classes[k] for k in np.flatnonzero(row)] for row in flags]


def test_every_shipped_model_has_cases() -> None:
    """The seven models without fields, and two with fields; others are imported."""
    assert sorted(FIELD_NAMES) == ["languages", "penguins"]
    assert NAMES == ["breast-cancer", "digits", "digits-mlp", "iris", "phishing", "segment", "yeast"]


@EVERY
def test_v1_equals_scikit_learn(service: Service, name: str, case: Case) -> None:
    """Every probability of every held-out row to 1e-5, and the labels that they mean."""
    P, labels, _ = ask_v1(service, name, case.X)
    assert P.shape == case.P.shape
    assert np.abs(P - case.P).max() <= TOLERANCE
    assert labels == labels_of(case.manifest, P)


@EVERY
def test_labels_equal_scikit_learn(service: Service, name: str, case: Case) -> None:
    """Labels are equal where scikit-learn's probabilities differ by more than the tolerance."""
    _, labels, _ = ask_v1(service, name, case.X)
    if case.manifest.thresholds is None:
        first, second = np.sort(case.P, axis=1)[:, :-3:-1].T
        clear = first - second > 2 * TOLERANCE
    else:
        clear = (np.abs(case.P - case.manifest.thresholds) > TOLERANCE).all(axis=1)
    assert clear.mean() > 0.99
    expected = labels_of(case.manifest, case.P)
    assert [labels[i] for i in np.flatnonzero(clear)] == [expected[i] for i in np.flatnonzero(clear)]


@EVERY
def test_v2_binary_equals_scikit_learn(service: Service, name: str, case: Case) -> None:
    """The same of float32 rows, and the same bits as v1's decimals of the same rows mean."""
    X = case.X.astype(np.float32)
    P = ask_binary(service, name, X)
    assert np.abs(P - case.P).max() <= TOLERANCE
    assert P.tobytes() == ask_v1(service, name, X.astype(np.float64))[0].tobytes()


@EVERY
def test_a_row_alone_and_in_a_batch_has_the_same_bits(service: Service, name: str, case: Case) -> None:
    """V1 returns the same decimals and v2 the same bits, in any place of any batch."""
    X = case.X[:24].astype(np.float32)
    whole = ask_binary(service, name, case.X.astype(np.float32))
    together = rows_of(ask_v1(service, name, X.astype(np.float64))[2])
    for i in range(len(X)):
        alone = ask_binary(service, name, X[i : i + 1])
        assert alone.tobytes() == whole[i : i + 1].tobytes()
        values, labels, body = ask_v1(service, name, X[i : i + 1].astype(np.float64))
        assert values.tobytes() == alone.tobytes()
        assert labels == labels_of(case.manifest, values)
        assert rows_of(body) == [together[i]]
    backwards = ask_binary(service, name, X[::-1])
    assert backwards[::-1].tobytes() == whole[: len(X)].tobytes()


@EVERY
def test_the_metrics_in_the_manifest_are_those_of_the_service(service: Service, name: str, case: Case) -> None:
    """The accuracy that a manifest tells is reached by what the service answers."""
    metadata = httpx.get(f"{service.url}/v1/models/{name}").json()
    assert metadata["metrics"] == pytest.approx(case.manifest.metrics)
    assert len(case.X) == metadata["metrics"]["held_out_rows"]


@FIELDS
def test_rows_with_names_get_the_answers_of_the_weights(service: Service, name: str) -> None:
    """Each held-out row, as an object, a list or a row of a frame, has the probabilities of its columns to 1e-5."""
    rows, manifest = held_out_rows(name)[:FIELD_ROWS], shipped_fields(name).manifest
    expected = exact_probabilities(shipped_fields(name), prepared(name).X[prepared(name).test[:FIELD_ROWS]])
    path, names = f"/v1/models/{name}:predict", list(rows[0])
    body = post(service, path, orjson.dumps({"instances": rows})).content
    document = orjson.loads(body)
    P = np.array(document["predictions"], np.float32)
    assert np.abs(P - expected).max() <= TOLERANCE
    assert document["labels"] == labels_of(manifest, P)
    lists, backwards = [list(row.values()) for row in rows], [[*row.values()][::-1] for row in rows]
    for form in ({"instances": lists}, {"dataframe_split": {"columns": names[::-1], "data": backwards}}):
        assert post(service, path, orjson.dumps(form)).content == body
    kinds = {str: "BYTES", float: "FP64"}
    full = [i for i, row in enumerate(rows) if None not in row.values()]
    tensors = [
        {"name": field, "shape": [len(full)], "datatype": kinds[type(values[0])], "data": values}
        for field in names
        for values in [[rows[i][field] for i in full]]
    ]
    answer = post(service, f"/v2/models/{name}/infer", orjson.dumps({"inputs": tensors})).json()
    assert np.array_equal(np.array(answer["outputs"][0]["data"], np.float32).reshape(len(full), -1), P[full])


@FIELDS
def test_a_row_with_names_alone_has_the_bits_of_its_batch(service: Service, name: str) -> None:
    """V1 returns the same decimals for a row alone and in a batch."""
    rows, path = held_out_rows(name)[:24], f"/v1/models/{name}:predict"
    together = rows_of(post(service, path, orjson.dumps({"instances": rows})).content)
    for row, decimals in zip(rows, together, strict=True):
        assert rows_of(post(service, path, orjson.dumps({"instances": [row]})).content) == [decimals]


@FIELDS
def test_the_metadata_of_a_model_with_fields_has_its_metrics(service: Service, name: str) -> None:
    """The metrics are those of the manifest, and the rows that they were computed from are held out."""
    metrics = httpx.get(f"{service.url}/v1/models/{name}").json()["metrics"]
    assert metrics == pytest.approx(shipped_fields(name).manifest.metrics)
    assert len(held_out_rows(name)) == metrics["held_out_rows"]
