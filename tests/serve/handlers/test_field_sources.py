"""A model whose fields share values is asked, taught, explained and described as one whose fields have copies."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest

from service.store.artifact.artifact import read_artifact, write_artifact
from service.store.artifact.fingerprint import compute_genesis
from tests.support.field_artifacts import field_artifact
from tests.support.http_connection import Response
from tests.support.http_requests import request
from tests.support.server_pair import Pair
from tests.support.shared_values import (
    HASHED_VALUES,
    SHARED_FIELDS,
    SHARED_ROWS,
    VALUE_NAMES,
    copy_values,
    shared_artifacts,
    value_tensors,
)

FIELDS = {"dense": SHARED_FIELDS, "sparse": SHARED_FIELDS + HASHED_VALUES}
LEARNING = {"training": {"rows": 100}, "learning": {"rule": "adagrad"}}
# One field of each value refuses what the other takes.
STRICT_FIELDS: tuple[dict[str, Any], ...] = (
    {"name": "size", "kind": "number", "mean": 2.5},
    {"name": "sizes", "source": "size", "kind": "category", "values": ["x", 3], "unknown": "refuse"},
    {"name": "words", "source": "note", "kind": "text", "words": [1, 1], "terms": ["late"]},
    {"name": "tag", "source": "note", "kind": "category", "values": ["a", True], "missing": "refuse"},
)
kinds = pytest.mark.parametrize("kind", FIELDS)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models of dense and of sparse rows, with shared values and with copies."""
    root = tmp_path_factory.mktemp("sources")
    for kind, fields in FIELDS.items():
        shared, copies = shared_artifacts(fields, **LEARNING)
        write_artifact(root / kind / "1", shared)
        write_artifact(root / f"{kind}-copies" / "1", copies)
    write_artifact(root / "strict" / "1", field_artifact(STRICT_FIELDS))
    return root


@pytest.fixture(scope="module")
def served(folder: Path) -> Iterator[Pair]:
    """Two servers of these models."""
    with Pair(folder) as running:
        yield running


def post(served: Pair, path: str, body: object) -> Response:
    """The response, which must be the same from both applications."""
    sent = request("POST", path, json.dumps(body).encode(), [("Content-Type", "application/json")])
    (fast,), (plain,) = served.ask(sent), served.ask(sent, fast=False)
    assert fast == plain
    return fast


def get(served: Pair, path: str) -> Any:
    """The JSON of a response."""
    (found,) = served.ask(request("GET", path))
    assert found.status == 200, found.body
    return found.json


@kinds
@pytest.mark.parametrize("call", ["predict", "explain"])
def test_answers_are_those_of_copies(served: Pair, kind: str, call: str) -> None:
    """Alone and together, as objects and as lists; columns have the names of the fields."""
    for rows in (*([row] for row in SHARED_ROWS), SHARED_ROWS):
        copies = [copy_values(row, FIELDS[kind]) for row in rows]
        lists = [[row.get(name) for name in VALUE_NAMES] for row in rows]
        expected = post(served, f"/v1/models/{kind}-copies:{call}", {"instances": copies})
        assert expected.status == 200, expected.body
        renamed = expected.body.replace(f"{kind}-copies".encode(), kind.encode())
        assert post(served, f"/v1/models/{kind}:{call}", {"instances": rows}).body == renamed
        assert post(served, f"/v1/models/{kind}:{call}", {"instances": lists}).body == renamed
        split = {"columns": VALUE_NAMES, "data": lists}
        assert post(served, f"/v1/models/{kind}:{call}", {"dataframe_split": split}).body == renamed


@kinds
def test_refusals_name_the_value(served: Pair, kind: str) -> None:
    """The row has no value of the field's name."""
    refused = post(served, f"/v1/models/{kind}:predict", {"instances": [{"age": 30.5}]})
    assert (refused.status, refused.json["code"]) == (422, "invalid_value")
    assert refused.json["error"] == 'Row 0: "age" must be a whole number or null.'
    unknown = post(served, f"/v1/models/{kind}:predict", {"instances": [{"words": "late"}]})
    assert (unknown.status, unknown.json["code"]) == (422, "unknown_field")


@kinds
def test_the_schema_agrees_with_the_service(served: Pair, kind: str) -> None:
    """A row fits the schema if and only if it is answered, and so does its example."""
    schema = get(served, f"/v1/models/{kind}/schema")
    jsonschema_rs.meta.validate(schema)
    validator = jsonschema_rs.validator_for(schema)
    (example,) = schema["examples"]
    assert list(example) == list(schema["properties"]) == VALUE_NAMES
    wrong: list[dict[str, Any]] = [
        {"age": 30.5}, {"age": "x"}, {"words": "a"}, {"note": 1}, {"decade": 30}, {"picture": [1]}, {"member": "x"},
    ]  # fmt: skip
    for row in (*SHARED_ROWS, example, {}, {"age": 30.0}, *wrong):
        status = post(served, f"/v1/models/{kind}:predict", {"instances": [row]}).status
        assert status == (422 if row in wrong else 200), row
        assert validator.is_valid(row) == (row not in wrong), row


def test_a_schema_has_what_all_fields_take(served: Pair) -> None:
    """A value is required if one field refuses that it is missing, and the example suits all of them."""
    schema = get(served, "/v1/models/strict/schema")
    assert (schema["required"], schema["examples"]) == (["note"], [{"size": 3, "note": "some words"}])
    validator = jsonschema_rs.validator_for(schema)
    for row, fits in (
        ({"note": "late", "size": 3}, True),
        ({"note": "late", "size": None}, True),
        ({"note": "late", "size": 2.5}, False),
        ({"note": "late", "size": 4}, False),
        ({"note": None}, False),
        ({"note": True}, False),
        ({}, False),
    ):
        status = post(served, "/v1/models/strict:predict", {"instances": [row]}).status
        assert (validator.is_valid(row), status) == (fits, 200 if fits else 422), row


@kinds
def test_metadata_has_fields_and_tensors_of_values(served: Pair, kind: str) -> None:
    """A field has its source, and a tensor the name of a value."""
    described = get(served, f"/v1/models/{kind}")["fields"]
    assert [one["name"] for one in described] == [field["name"] for field in FIELDS[kind]]
    assert [one.get("source") for one in described] == [field.get("source") for field in FIELDS[kind]]
    documented = get(served, "/openapi.json")["components"]["schemas"]["FieldDescription"]["properties"]
    assert {member for one in described for member in one} <= set(documented)
    inputs = get(served, f"/v2/models/{kind}")["inputs"]
    assert [(one["name"], one["datatype"], one["shape"]) for one in inputs] == [
        ("age", "FP64", [-1, 1]),
        ("note", "BYTES", [-1, 1]),
        ("basket", "BYTES", [-1, 1]),
        ("picture", "FP64", [-1, 2]),
        ("member", "BOOL", [-1, 1]),
    ]
    answer = post(served, f"/v2/models/{kind}/infer", value_tensors(SHARED_ROWS[:2])).json["outputs"][0]["data"]
    predictions = post(served, f"/v1/models/{kind}:predict", {"instances": SHARED_ROWS[:2]}).json["predictions"]
    assert answer == [p for row in predictions for p in row]


@kinds
def test_feedback_is_one_event_in_two_forms(served: Pair, kind: str) -> None:
    """Values in the order of their first fields are the same row, so a second form is a duplicate."""
    path = f"/v1/models/{kind}:feedback"
    event = {"id": "once", "instances": SHARED_ROWS, "labels": ["a", "b", "c", "a"]}
    (first,) = served.ask(request("POST", path, json.dumps(event).encode()))
    assert first.status == 202, first.body
    lists = [[row.get(name) for name in VALUE_NAMES] for row in SHARED_ROWS]
    (again,) = served.ask(request("POST", path, json.dumps(event | {"instances": lists}).encode()))
    assert (again.status, again.json["duplicate"]) == (202, True)


@kinds
def test_values_are_counted_by_field(served: Pair, kind: str) -> None:
    """A missing value is missing for each field that reads it; unknown categories are those of one field."""

    def counted() -> dict[tuple[str, str], float]:
        text = served.ask(request("GET", "/metrics"))[0].body.decode()
        pattern = rf'softstep_field_(\w+)_total\{{field="([^"]+)",model="{kind}",version="1"\}} (\S+)'
        return {(what, field): float(value) for what, field, value in re.findall(pattern, text)}

    before = counted()
    served.ask(request("POST", f"/v1/models/{kind}:predict", json.dumps({"instances": [{"age": 41}]}).encode()))
    grown = {key for key, value in counted().items() if value > before[key]}
    readers = {field["name"] for field in SHARED_FIELDS} - {"age", "decade"}
    missing = readers | ({"grams"} if kind == "sparse" else set())
    assert grown == {("missing", name) for name in missing} | {("unknown", "decade")}


@kinds
def test_sources_are_bound(folder: Path, kind: str) -> None:
    """They decide what a row means; the manifest keeps them."""
    shared, copies = (read_artifact(folder / name / "1", 1 << 20) for name in (kind, f"{kind}-copies"))
    assert shared.content_sha256 == copies.content_sha256
    assert compute_genesis(shared) != compute_genesis(copies)
    assert [getattr(field, "source", None) for field in shared.manifest.fields or ()] == [
        field.get("source") for field in FIELDS[kind]
    ]
