"""Predictions and explanations of a real service: each form of rows gets the same answer."""

import json
from typing import Any

import httpx
import numpy as np
import pandas as pd
import polars as pl
import pytest
from softstep_client import APIStatusError, InputError, SoftstepError
from softstep_client.prediction import predict
from softstep_client.rows import PREDICT_ROWS_MAX, table_of
from softstep_client.steps import Attempt, Reply
from softstep_client.tensors import BINARY_NUMBERS_MIN

from tests.support.client_calls import new_state, run_flow
from tests.support.running_service import Service

IRIS = ["sepal length (cm)", "sepal width (cm)", "petal length (cm)", "petal width (cm)"]
PENGUINS = [
    {"bill_length_mm": 39.1, "bill_depth_mm": 18.7, "body_mass_g": 3750, "island": "Torgersen", "sex": "male"},
    {"bill_length_mm": None, "body_mass_g": 5000, "island": "Biscoe", "sex": None},
    {"flipper_length_mm": 195.0, "island": "Nowhere"},
]


def iris_rows(count: int) -> np.ndarray:
    """Return rows of iris, float32."""
    return np.random.default_rng(count).uniform(0, 8, (count, 4)).astype(np.float32)


def bits_of(answer: Any) -> bytes:
    """Return the probabilities of an answer as float32."""
    return np.asarray(answer.probabilities, np.float32).tobytes()


@pytest.mark.parametrize("count", [1, 7, BINARY_NUMBERS_MIN])
def test_numbers_in_every_form_get_the_same_answer(client: Any, count: int) -> None:
    """Lists, tuples, dicts, arrays of any order and frames get the same bits; the largest array is sent as binary."""
    array = iris_rows(count)
    rows = array.tolist()
    forms: list[Any] = [
        rows,
        [tuple(row) for row in rows],
        [dict(zip(IRIS, row, strict=True)) for row in rows],
        list(array),
        iter(rows),
        array,
        np.asfortranarray(array),
        array.astype(">f4"),
        array.astype(np.float64),
        array.astype(object),
        pd.DataFrame(array, columns=IRIS),
        pd.DataFrame(array, columns=IRIS, index=range(5, 5 + count))[IRIS[::-1]],
        pd.DataFrame(array),
        pl.DataFrame(array, schema=IRIS),
    ]
    answers = [client.predict("iris", form) for form in forms]
    assert {bits_of(answer) for answer in answers} == {bits_of(answers[0])}
    assert all(answer.labels == answers[0].labels and len(answer.labels) == count for answer in answers)
    assert all(answer.classes == ["setosa", "versicolor", "virginica"] for answer in answers)
    assert {(answer.model, answer.version, answer.seq, answer.epoch) for answer in answers} == {("iris", "1", 0, 0)}


def test_the_answer_has_the_form_of_the_rows(client: Any) -> None:
    """Arrays and pandas' frames get an array of the model's dtype, which may be changed; all else gets lists."""
    for count in (3, BINARY_NUMBERS_MIN):
        array = iris_rows(count)
        for form in (array, pd.DataFrame(array, columns=IRIS)):
            probabilities = client.predict("iris", form).probabilities
            assert (type(probabilities), probabilities.dtype) == (np.ndarray, np.float32)
            probabilities[0] = 0
        for form in (array.tolist(), pl.DataFrame(array, schema=IRIS)):
            assert type(client.predict("iris", form).probabilities) is list


def test_missing_values_of_every_kind_are_missing(client: Any) -> None:
    """None, NaN, NA and null in rows and frames get the answer of a row without the field."""
    expected = client.predict("penguins", PENGUINS)
    names = list(client.schema("penguins")["properties"])
    lists = [[row.get(name) for name in names] for row in PENGUINS]
    frame = pd.DataFrame(lists, columns=names)
    forms: list[Any] = [
        lists,
        [[np.nan if value is None else value for value in row] for row in lists],
        [{name: np.float64(np.nan) if value is None else value for name, value in row.items()} for row in PENGUINS],
        [{name: pd.NA if value is None else value for name, value in row.items()} for row in PENGUINS],
        frame,
        frame.convert_dtypes(),
        frame.astype({"island": "category", "sex": "category"}),
        frame.set_axis(range(len(names)), axis=1),
        np.array(lists, dtype=object),
        pl.DataFrame(frame.replace({np.nan: None}).to_dict("list")),
        pl.DataFrame({name: [row.get(name) for row in PENGUINS] for name in names}, strict=False).with_columns(
            pl.col("bill_length_mm").fill_null(float("nan"))
        ),
    ]
    for form in forms:
        answer = client.predict("penguins", form)
        assert bits_of(answer) == bits_of(expected), type(form)
        assert answer.labels == expected.labels
    assert client.predict("penguins", PENGUINS[1]).labels == expected.labels[1:2]


def test_texts_and_classes_of_a_model_of_texts(client: Any) -> None:
    """A frame of texts gets the answer of the same texts as rows, and every label is one of the classes."""
    schema = client.schema("languages")
    (name,) = schema["properties"]
    texts = ["der Hund läuft", "el perro corre", "le chien court 🐕", ""]
    rows = client.predict("languages", [{name: text} for text in texts])
    assert bits_of(client.predict("languages", pd.DataFrame({name: texts}))) == bits_of(rows)
    assert bits_of(client.predict("languages", pl.DataFrame({name: texts}))) == bits_of(rows)
    assert set(rows.labels) <= set(rows.classes)
    assert len(rows.probabilities[0]) == len(rows.classes)


def test_labels_of_a_multi_label_model_are_lists_of_names(client: Any) -> None:
    """They are the same for JSON and for binary data, whose answer has booleans."""
    array = np.random.default_rng(1).uniform(0, 1, (20, 103))
    binary, rows = client.predict("yeast", array), client.predict("yeast", array.tolist())
    assert array.size >= BINARY_NUMBERS_MIN
    assert binary.labels == rows.labels
    assert bits_of(binary) == bits_of(rows)
    assert any(len(names) > 1 for names in rows.labels)


def test_many_rows_are_predicted_in_parts(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The answer is that of one request; an error says where its part begins."""
    array, texts = iris_rows(700), [{"text": "a"}]
    rows = array.tolist()
    forms = [array, rows, pd.DataFrame(array, columns=IRIS), pl.DataFrame(array, schema=IRIS)]
    whole = [client.predict("iris", form, tokens=True) for form in forms]
    for name, limit in (("PREDICT_ROWS_MAX", 300), ("PREDICT_VALUES_MAX", 4 * 300)):
        with monkeypatch.context() as patch:
            patch.setattr(f"softstep_client.rows.{name}", limit)
            assert table_of(rows).request_rows() == 300
            for form, expected in zip(forms, whole, strict=True):
                answer = client.predict("iris", form)
                assert type(answer.probabilities) is type(expected.probabilities)
                assert bits_of(answer) == bits_of(expected)
                assert (answer.labels, answer.tokens, answer.version) == (expected.labels, None, "1")
            assert len(client.predict("iris", rows, tokens=True).tokens) == 700
            rows[650] = [1.0]
            with pytest.raises(APIStatusError, match=r"Row 50 .*from row 600 of the call") as refused:
                client.predict("iris", rows)
            assert refused.value.first_row == 600
            rows[650] = array[650].tolist()
    assert table_of(texts).request_rows() == PREDICT_ROWS_MAX


def test_the_state_of_parts_is_the_oldest() -> None:
    """Parts may be answered by different states; classes that change between them are an error."""
    body = {"predictions": [[0.5, 0.5]], "labels": ["a"], "model_version": "3"}
    facts = Reply(200, b'{"classes": ["a", "b"], "dtype": "float64"}')
    parts = [Reply(200, json.dumps(body | {"seq": seq, "epoch": 1}).encode()) for seq in (7, 5, 9)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("softstep_client.rows.PREDICT_ROWS_MAX", 1)
        rows = [[1.0]] * 3
        steps, answer = run_flow(
            predict(new_state(), "m", rows, None, None, tokens=False), [parts[0], facts, *parts[1:]]
        )
        assert (answer.seq, answer.epoch, answer.labels) == (5, 1, ["a"] * 3)
        assert [step.request.path for step in steps][2:] == ["/v1/models/m/versions/3:predict"] * 2
        wider = Reply(200, json.dumps(body | {"predictions": [[0.5, 0.4, 0.1]], "seq": 9}).encode())
        more = Reply(200, b'{"classes": ["a", "b", "c"], "dtype": "float64"}')
        outcomes = [parts[0], facts, wider, more]
        _, error = run_flow(predict(new_state(), "m", rows, None, None, tokens=False), outcomes)
        assert type(error) is SoftstepError


def test_a_refused_tensor_is_tried_once_for_each_model() -> None:
    """Once a model has taken as JSON what it refused as a tensor, its arrays are sent as JSON at once."""
    state, array = new_state(), np.ones((BINARY_NUMBERS_MIN, 1))
    body = {"predictions": [[0.5, 0.5]] * len(array), "labels": ["a"] * len(array), "model_version": "1", "seq": 0}
    answer, refused = Reply(200, json.dumps(body).encode()), Reply(400, b"{}")
    facts = Reply(200, b'{"classes": ["a", "b"], "dtype": "float64"}')
    paths = []
    for outcomes in ([refused, Reply(422, b"{}")], [refused, answer, facts], [answer]):
        steps, _ = run_flow(predict(state, "m", array, None, None, tokens=False), outcomes)
        paths.append([step.request.path for step in steps if isinstance(step, Attempt)])
    tensor, rows = "/v2/models/m/infer", "/v1/models/m:predict"
    assert paths == [[tensor, rows], [tensor, rows, "/v1/models/m/versions/1"], [rows]]


def test_large_arrays_are_sent_as_json_to_a_model_with_fields(client: Any) -> None:
    """The first one is refused as a tensor and sent again; later ones are sent as JSON at once."""
    names = list(client.schema("penguins")["properties"])
    array = np.random.default_rng(1).uniform(0, 50, (BINARY_NUMBERS_MIN, len(names)))
    array[:, [not name.startswith("bill") for name in names]] = np.nan
    expected = client.predict(
        "penguins", [[None if np.isnan(value) else value for value in row] for row in array.tolist()]
    )
    for _ in range(2):
        assert bits_of(client.predict("penguins", array)) == bits_of(expected)


@pytest.mark.parametrize("rows", [iris_rows(3), iris_rows(BINARY_NUMBERS_MIN)], ids=["json", "binary"])
def test_a_refused_row_has_the_sentence_of_the_service(client: Any, rows: np.ndarray) -> None:
    """A gap in a model of numbers names the row and the column, whichever way the array was sent."""
    rows[2, 1] = np.nan
    with pytest.raises(APIStatusError) as refused:
        client.predict("iris", rows)
    assert refused.value.sentence == 'Row 2 has a value that is not a number in column "sepal width (cm)".'
    assert (refused.value.status, refused.value.code) == (422, "invalid_request")


def test_versions_and_seqs_can_be_named(client: Any) -> None:
    """A version is a number or its text; `min_seq` 0 holds at once."""
    for version in (1, "1", None):
        assert client.predict("iris", [[5, 3, 1, 0]], version=version, min_seq=0).version == "1"
    with pytest.raises(APIStatusError, match="404 version_not_found"):
        client.predict("iris", [[5, 3, 1, 0]], version=7)
    for bad in ("x", "1/../2", -1):
        with pytest.raises(InputError):
            client.predict("iris", [[5, 3, 1, 0]], version=bad)


def test_a_name_is_one_part_of_the_path(client: Any, shipped: Service) -> None:
    """No name reaches another path; an unknown one is not found."""
    for name in ("", ".", "..", 7):
        with pytest.raises(InputError):
            client.predict(name, [[1]])
    for name in ("iris/versions/1", "iris:predict?", "../v1/models", "ünknown", "a b#c"):
        with pytest.raises(APIStatusError, match="404"):
            client.predict(name, [[5, 3, 1, 0]])
    assert httpx.get(f"{shipped.url}/v1/models/iris").json()["seq"] == 0


def test_explanations_are_those_of_the_service(client: Any, shipped: Service) -> None:
    """The rows of the answer are those of the same request by hand; options are passed on."""
    rows = iris_rows(2)
    body = {"instances": rows.tolist(), "labels": ["setosa", "virginica"], "top": 2}
    by_hand = httpx.post(f"{shipped.url}/v1/models/iris:explain", json=body).json()
    answer = client.explain("iris", rows, labels=np.array(["setosa", "virginica"]), top=2)
    assert answer.rows == by_hand["explanations"]
    assert (answer.classes, answer.features, answer.seq) == (by_hand["classes"], None, 0)
    everything = client.explain("iris", pd.DataFrame(rows, columns=IRIS), seq=0)
    assert everything.features == IRIS
    assert everything.body["model_name"] == everything.model == "iris"


def test_closing_a_copy_leaves_the_client_open(client: Any) -> None:
    """A copy with other options shares the connections, and does not own them."""
    client.with_options(timeout=5, max_retries=0).close()
    assert client.models()


def test_models_and_schemas_are_listed(client: Any, shipped: Service) -> None:
    """They are those of the service."""
    listed = httpx.get(f"{shipped.url}/v1/models").json()["models"]
    assert [model._asdict() for model in client.models()] == listed
    assert client.schema("penguins") == httpx.get(f"{shipped.url}/v1/models/penguins/schema").json()
    assert client.schema("penguins", 1)["type"] == "object"
