"""A model with fields is asked, explained, taught, measured and described by the names of its fields."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema_rs
import numpy as np
import pytest
import tritonclient.http

from service.access.scopes import Scope
from service.store.artifact.artifact import write_artifact
from service.store.artifact.model_factory import training_statistics
from tests.support.api_keys import add_key, bearer
from tests.support.field_artifacts import DENSE_COLUMNS, SPARSE_FIELDS, field_artifact
from tests.support.field_rows import NAMES, ROWS, binary_tensors, json_forms, json_tensors, to_csv
from tests.support.http_connection import Response
from tests.support.http_requests import request
from tests.support.model_artifacts import make_artifact
from tests.support.paths import ROOT
from tests.support.running_service import serving
from tests.support.server_pair import Pair

MODEL = "/v1/models/claims"


@pytest.fixture(scope="module")
def models_with_fields(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with fields, one that ignores other names, and one of numbers."""
    root = tmp_path_factory.mktemp("fields")
    write_artifact(root / "claims" / "1", field_artifact())
    write_artifact(root / "lenient" / "1", field_artifact(others="ignore", head="sigmoid", dtype="float64"))
    write_artifact(root / "plain" / "1", make_artifact("softmax", 2, ["a", "b"]))
    return root


@pytest.fixture(scope="module")
def served(models_with_fields: Path) -> Iterator[Pair]:
    """Two servers of these models, the first of which is the default one."""
    with Pair(models_with_fields, default_model="claims") as running:
        yield running


def post(served: Pair, path: str, body: object, kind: str = "application/json") -> Response:
    """The response, which must be the same from both applications."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    sent = request("POST", path, data, [("Content-Type", kind)])
    (fast,), (plain,) = served.ask(sent), served.ask(sent, fast=False)
    assert fast == plain
    return fast


def get(served: Pair, path: str) -> Any:
    """The JSON of a response."""
    (found,) = served.ask(request("GET", path))
    assert found.status == 200, found.body
    return found.json


@pytest.mark.parametrize("name", json_forms(ROWS))
def test_calls_take_every_form(served: Pair, name: str) -> None:
    """Predictions and explanations have the same bytes for the same rows; `/invocations` too."""
    expected = post(served, f"{MODEL}:predict", {"instances": ROWS})
    assert expected.status == 200
    body = json_forms(ROWS, NAMES[::-1])[name]
    found = post(served, f"{MODEL}:predict", body)
    assert found.body.replace(b"outputs", b"predictions") == expected.body
    assert post(served, "/invocations", body).body == expected.body
    explained = post(served, f"{MODEL}:explain", body)
    assert explained.body == post(served, f"{MODEL}:explain", {"instances": ROWS}).body
    assert len(explained.json["features"]) == DENSE_COLUMNS
    probabilities = [one["probabilities"] for one in explained.json["explanations"]]
    np.testing.assert_allclose(probabilities, expected.json["predictions"], rtol=1e-5)


def test_csv_and_json_lines_are_the_same_rows(served: Pair) -> None:
    """A table with a header, and an object in each line."""
    expected = post(served, f"{MODEL}:predict", {"instances": ROWS}).body
    assert post(served, "/invocations", to_csv(ROWS, NAMES[::-1]), "text/csv").body == expected
    lines = b"\n".join(json.dumps(row).encode() for row in ROWS)
    assert post(served, "/invocations", lines, "application/jsonlines").body == expected


def test_v2_answers_tensors_by_field(served: Pair) -> None:
    """JSON and binary tensors get the probabilities of `:predict`; so do explanations."""
    expected = post(served, f"{MODEL}:predict", {"instances": ROWS[:1]}).json["predictions"]
    found = post(served, "/v2/models/claims/infer", json_tensors(ROWS[:1]))
    assert found.json["outputs"][0]["data"] == expected[0]
    text, binary = binary_tensors(ROWS[:1])
    headers = [("Inference-Header-Content-Length", str(len(text)))]
    sent = request("POST", "/v2/models/claims/infer", text + binary, headers)
    assert served.ask(sent)[0].body == found.body
    wanted = {**json_tensors(ROWS[:1]), "outputs": [{"name": "contributions"}]}
    shape = post(served, "/v2/models/claims/infer", wanted).json["outputs"][0]["shape"]
    assert shape == [1, 3, DENSE_COLUMNS]


@pytest.mark.parametrize("call", ["predict", "explain", "feedback"])
def test_refusals_have_codes(served: Pair, call: str) -> None:
    """A value that a field does not take has a code of its own, with row and field in the sentence."""
    refused = post(served, f"{MODEL}:{call}", {"instances": [{"age": 1}, {"country": 1.5}], "labels": ["a", "b"]})
    if call == "predict":
        refused = post(served, f"{MODEL}:{call}", {"instances": [{"age": 1}, {"country": 1.5}]})
    assert (refused.status, refused.json["code"]) == (422, "invalid_value")
    assert refused.json["error"].startswith('Row 1: "country" must be ')
    v2 = post(
        served, "/v2/models/claims/infer", {"inputs": [{"name": "x", "shape": [1], "datatype": "INT8", "data": [1]}]}
    )
    assert (v2.status, v2.json["code"]) == (400, "unknown_field")


def test_a_row_of_numbers_passes_the_encoder(served: Pair) -> None:
    """A list that looks like a row of features is one of fields."""
    found = post(served, f"{MODEL}:predict", {"instances": [[1.0] * DENSE_COLUMNS]})
    assert found.json["error"] == f"Row 0 has {DENSE_COLUMNS} values; this model takes {len(NAMES)}."
    one = [[41, True, "PT", "late", ["milk"], [1, 2, 3]]]
    assert post(served, f"{MODEL}:predict", {"instances": one}).status == 200


def test_feedback_and_tokens_are_stored_as_columns(served: Pair) -> None:
    """One row in two forms with one id is a duplicate; a token of a prediction can be posted with its label."""
    event = json.dumps({"id": "a", "instances": ROWS[:2], "labels": ["a", "b"]}).encode()
    assert served.ask(request("POST", f"{MODEL}:feedback", event))[0].status == 202
    again = {"id": "a", **json_forms(ROWS[:2], NAMES[::-1])["split"], "labels": ["a", "b"]}
    assert post(served, f"{MODEL}:feedback", again).json["duplicate"] is True
    sent = request("POST", f"{MODEL}:predict", json.dumps({"instances": ROWS[:1], "feedback_tokens": True}).encode())
    tokens = served.ask(sent)[0].json["feedback_tokens"]
    labeled = json.dumps({"tokens": tokens, "labels": ["a"]}).encode()
    assert served.ask(request("POST", f"{MODEL}:feedback", labeled))[0].status == 202


def test_metadata_has_the_fields(served: Pair) -> None:
    """Name, kind and what each takes; the tensors of v2 and TensorFlow have the names of the fields."""
    fields = {one["name"]: one for one in get(served, MODEL)["fields"]}
    assert list(fields) == NAMES
    scaled = {"required": False, "mean": 40.0, "scale": 10.0}
    assert fields["age"] == {"name": "age", "kind": "number", "takes": "a number or null", **scaled}
    assert fields["country"]["values"] == ["DE", "PT", 7, True]
    assert fields["picture"]["size"] == 3
    assert fields["country"]["takes"] == "a text, a whole number, true, false or null"
    assert "fields" not in get(served, "/v1/models/plain")
    tensors = {one["name"]: one for one in get(served, "/v2/models/claims")["inputs"]}
    assert {name: one["datatype"] for name, one in tensors.items()} == {
        "age": "FP64", "member": "BOOL", "country": "BYTES", "subject": "BYTES", "basket": "BYTES", "picture": "FP64",
    }  # fmt: skip
    assert [tensors[name]["shape"] for name in ("age", "picture")] == [[-1, 1], [-1, 3]]
    config = get(served, "/v2/models/claims/config")["input"]
    assert config[3] == {"name": "subject", "data_type": "TYPE_STRING", "dims": [1]}
    signature = get(served, f"{MODEL}/metadata")["metadata"]["signature_def"]["signature_def"]["serving_default"]
    assert signature["inputs"]["member"]["dtype"] == "DT_BOOL"


@pytest.mark.parametrize("name", ["claims", "lenient", "plain"])
def test_the_schema_of_a_row_is_what_the_model_takes(served: Pair, name: str) -> None:
    """Its example is answered; the document has the same schema, whose keywords are those of JSON Schema."""
    schema = get(served, f"/v1/models/{name}/schema")
    assert schema == get(served, f"/v1/models/{name}/versions/1/schema")
    jsonschema_rs.meta.validate(schema)
    validator = jsonschema_rs.validator_for(schema)
    (example,) = schema["examples"]
    assert validator.is_valid(example)
    assert post(served, f"/v1/models/{name}:predict", {"instances": [example]}).status == 200
    component = get(served, "/openapi.json")["components"]["schemas"][f"Row.{name}"]
    assert component == {key: value for key, value in schema.items() if key != "$schema"}


@pytest.mark.parametrize("access", ["open", "key"])
def test_the_document_names_no_other_models(models_with_fields: Path, tmp_path: Path, access: str) -> None:
    """It has the rows of the models that a key permits, and none without a key, even if everybody may read it."""
    keys = tmp_path / "keys.json"
    some, none = add_key(keys, Scope.PREDICT, models=("claims",)), add_key(keys, Scope.FEEDBACK)
    with Pair(models_with_fields, keys_file=keys, openapi_access=access) as served:

        def rows(*headers: tuple[str, str]) -> tuple[int, list[str]]:
            (found,) = served.ask(request("GET", "/openapi.json", headers=headers))
            schemas = found.json.get("components", {}).get("schemas", {})
            return found.status, [name for name in schemas if name.startswith("Row.")]

        assert rows(bearer(some)) == (200, ["Row.claims"])
        assert rows(bearer(none)) == (200, [])
        assert rows(bearer("wrong")) == rows() == ((200, []) if access == "open" else (401, []))


WRONG = [{"age": "a"}, {"age": True}, {"member": 1}, {"country": 1.5}, {"subject": 2}, {"basket": {"a": "b"}}, {"x": 1}]


@pytest.mark.parametrize("row", [*ROWS, *WRONG, {"picture": [1, 2]}, {"picture": [1, 2, None]}, {}], ids=json.dumps)
def test_the_schema_agrees_with_the_service(served: Pair, row: dict[str, Any]) -> None:
    """A row fits the schema if and only if it is answered."""
    validator = jsonschema_rs.validator_for(get(served, f"{MODEL}/schema"))
    status = post(served, f"{MODEL}:predict", {"instances": [row]}).status
    assert status == (200 if validator.is_valid(row) else 422)


def test_missing_and_unknown_values_are_counted(served: Pair) -> None:
    """By model, version and field; a model of numbers has none."""

    def counted() -> dict[tuple[str, str], float]:
        text = served.ask(request("GET", "/metrics"))[0].body.decode()
        pattern = r'softstep_field_(\w+)_total\{field="(\w+)",model="lenient",version="1"\} (\S+)'
        return {(kind, field): float(value) for kind, field, value in re.findall(pattern, text)}

    before = counted()
    assert {field for _, field in before} == set(NAMES)
    served.ask(request("POST", "/v1/models/lenient:predict", json.dumps({"instances": ROWS}).encode()))
    grown = {key: value - before[key] for key, value in counted().items()}
    missing = {"age": 2, "member": 2, "country": 0, "subject": 2, "basket": 0, "picture": 2}
    assert grown == {
        **{("missing", name): count for name, count in missing.items()},
        **{("unknown", name): {"country": 1, "basket": 2}.get(name, 0) for name in NAMES},
    }


def test_the_drift_names_fields(served: Pair) -> None:
    """Before any feedback it has their names, and no shift; of a model of numbers it has all features."""
    drift = get(served, f"{MODEL}/drift")
    assert (drift["names"], drift["shift"], drift["seq"]) == (["age"], None, [])
    assert drift["missing"] == {"names": ["age", "member"], "shares": None}
    assert drift["unknown"] == {"names": ["country"], "shares": None}
    plain = get(served, "/v1/models/plain/drift")
    assert (len(plain["names"]), plain["missing"], plain["unknown"]) == (2, None, None)


def test_the_training_of_fields_is_that_of_numbers() -> None:
    """Their means and scales are in the manifest."""
    training = {"rows": 50}
    assert training_statistics(field_artifact(training=training)) == {"rows": 50, "mean": [40.0], "scale": [10.0]}
    assert training_statistics(field_artifact(SPARSE_FIELDS, training=training)) == {
        "rows": 50, "mean": [40.0], "scale": [10.0],
    }  # fmt: skip
    assert training_statistics(field_artifact()) is None


def test_the_examples_of_the_page_are_the_same_rows(tmp_path: Path) -> None:
    """Every body on docs/rows.md gets one answer, and its refusal has the sentence that stands there."""
    text = (ROOT / "docs" / "rows.md").read_text()
    blocks = re.findall(r"^```(json|csv|text) ?(\w*)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    found: dict[str, list[bytes]] = {}
    for language, use, content in blocks:
        found.setdefault(use or language, []).append(content.encode())
    (fields,), (refused,), (sentence,) = found["fields"], found["refused"], found["text"]
    write_artifact(tmp_path / "claims" / "1", field_artifact(tuple(json.loads(fields))))
    with Pair(tmp_path) as served:
        answers = {
            post(served, path, body).body.replace(b"outputs", b"predictions")
            for body in found["body"]
            for path in (f"{MODEL}:predict", "/invocations")
        }
        answers |= {post(served, "/invocations", body, "application/jsonlines").body for body in found["lines"]}
        answers |= {post(served, "/invocations", body, "text/csv").body for body in found["csv"]}
        assert len(answers) == 1
        (answer,) = map(json.loads, answers)
        for body in found["infer"]:
            (output,) = post(served, "/v2/models/claims/infer", body).json["outputs"]
            assert output["data"] == [p for row in answer["predictions"] for p in row]
        refusal = post(served, f"{MODEL}:predict", refused)
        assert (refusal.status, refusal.json["error"]) == (422, sentence.decode().strip())
    assert len(found["body"]) == 5


def test_tritonclient_sends_texts(models_with_fields: Path, tmp_path: Path) -> None:
    """A real client sends BYTES, BOOL and FP64 tensors, binary and as JSON, and teaches by rows."""
    row = ROWS[0]
    values = {
        "age": np.array([[row["age"]]], np.float64),
        "member": np.array([[row["member"]]]),
        "country": np.array([[row["country"]]], np.object_),
        "subject": np.array([row["subject"].encode()], np.object_),
        "basket": np.array([json.dumps(row["basket"])], np.object_),
        "picture": np.array([row["picture"]], np.float32),
    }
    with serving(models_with_fields, tmp_path) as service:
        client = tritonclient.http.InferenceServerClient("{}:{}".format(*service.address))
        kinds = {one["name"]: one["datatype"] for one in client.get_model_metadata("claims")["inputs"]}
        found = []
        for binary in (True, False):
            inputs = []
            for name, array in values.items():
                kind = "FP32" if name == "picture" else kinds[name]
                inputs.append(tritonclient.http.InferInput(name, list(array.shape), kind))
                inputs[-1].set_data_from_numpy(array, binary_data=binary)
            found.append(client.infer("claims", inputs).as_numpy("probabilities"))
        client.close()
    assert found[0].tobytes() == found[1].tobytes()
    assert found[0].shape == (1, 3)
