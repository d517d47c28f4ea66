"""`:explain` and the explaining outputs of `/infer` answer as the explainer does, by the fast path and without it."""

import contextlib
import json
import threading
from collections.abc import Callable
from typing import Any

import httpx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.errors import TooLargeError
from service.serve.handlers.explain_body import ENTRY_CELLS, WIDE_TOP, DenseExplainParser, ExplainBody
from service.serve.handlers.explain_format import ExplainFormat
from service.serve.models.batcher import FUNCTION_PRODUCTS, PRODUCTS_PER_US
from service.serve.models.served_model import ServedModel
from service.settings import Settings
from service.softmax.explainer_factory import create_explainer
from service.softmax.explanation import Explanation
from service.softmax.linear_model import LinearModel
from service.store.artifact.artifact import Artifact
from service.store.artifact.repository import Version
from tests.support.budgets import examples
from tests.support.http_connection import Response
from tests.support.http_requests import infer, instances, request
from tests.support.model_artifacts import make_artifact
from tests.support.running_service import Service
from tests.support.server_pair import Pair

IRIS = [[5.1, 3.5, 1.4, 0.2], [6.0, 2.7, 5.1, 1.6]]
LINEAR = {"iris": 4, "digits": 64, "breast-cancer": 30, "double": 3, "ovr": 4, "tags": 3, "staged": 3, "heavy": 768}
LINEAR |= {"platt": 4}
NETWORKS = {"network": 3, "deep": 4, "cool": 3}
CALIBRATED = {"platt": {"kind": "platt", "a": 0.5, "b": -1.0}, "cool": {"kind": "temperature", "temperature": 2.5}}
MODELS = {**LINEAR, **NETWORKS}
SMALL = [name for name in MODELS if name != "heavy"]
LABEL = {"tags": ["a"], "deep": ["a"], "breast-cancer": 1}
SIGMOID = ("breast-cancer", "platt")
# A whole answer of the heavy model has millions of numbers.
TOPS = [(name, top) for name in LINEAR for top in (None, 1, 2, 1000) if (name, top) != ("heavy", 1000)]
numbers = st.one_of(st.floats(-1e4, 1e4), st.floats(width=32, allow_nan=False, allow_infinity=False))


def served_of(pair: Pair, name: str) -> ServedModel:
    return pair.worker.registry.now.served[name, 1]


def parser_of(pair: Pair, artifact: Artifact, **changed: Any) -> DenseExplainParser:
    """Return the parser of an artifact with other settings."""
    # A model with other settings needs the registry's other resources, which are private.
    resources = pair.worker.registry._resources._replace(settings=Settings(**changed))
    return DenseExplainParser(ServedModel(Version("sized", 1, artifact, None), artifact, resources), resources.settings)


def ask(pair: Pair, name: str, body: bytes, *, fast: bool = True) -> Response:
    return pair.ask(request("POST", f"/v1/models/{name}:explain", body), fast=fast)[0]


def explanation_of(pair: Pair, name: str, rows: Any, **more: Any) -> dict[str, Any]:
    """A good answer, the same from both."""
    answers = [ask(pair, name, instances(rows, **more), fast=fast) for fast in (True, False)]
    assert answers[0] == answers[1]
    assert answers[0].status == 200, answers[0].body
    document: dict[str, Any] = answers[0].json
    return document


def expected(pair: Pair, name: str, rows: Any, Y: Any = None) -> tuple[Explanation, ServedModel]:
    served = served_of(pair, name)
    return create_explainer(served.model).explain(np.array(rows, served.model.dtype), Y), served


def rows_of(name: str, count: int = 2) -> list[list[float]]:
    return np.random.default_rng(1).standard_normal((count, MODELS[name])).round(3).tolist()


def same(found: Any, array: Any) -> None:
    """JSON numbers that mean just these bits."""
    assert np.array(found, array.dtype).tobytes() == np.ascontiguousarray(array).tobytes()


@pytest.mark.parametrize("name", SMALL)
def test_an_answer_is_the_explanation(pair: Pair, name: str) -> None:
    """All matrices of a model that is not wide, in the order of its features and classes."""
    rows = rows_of(name)
    document, (found, served) = explanation_of(pair, name, rows), expected(pair, name, rows)
    assert list(document)[:2] == ["explanations", "features"]
    assert document["features"] == list(served.manifest.features)
    assert document["classes"] == list(served.classes)
    assert document.get("calibration") == CALIBRATED.get(name)
    assert (document["model_name"], document["model_version"], document["seq"]) == (name, "1", 0)
    for i, row in enumerate(document["explanations"]):
        same(row["logits"], found.logits[i])
        same(row["probabilities"], found.probabilities[i])
        if name in NETWORKS:
            assert row["bias"] is row["contributions"] is found.contributions is None
        else:
            model = getattr(served.model, "inner", served.model)
            assert isinstance(model, LinearModel)
            assert found.contributions is not None
            same(row["bias"], model.bias)
            same(row["contributions"], found.contributions[i])
        same(row["sensitivities"], found.sensitivities[i])
        assert "loss" not in row


def test_contributions_explain_the_logits_before_calibration(pair: Pair) -> None:
    """Contributions add up to the logits; the calibration in the answer maps these to probabilities."""
    document = explanation_of(pair, "platt", rows_of("platt", 4))
    a, b = (document["calibration"][name] for name in "ab")
    for row in document["explanations"]:
        (z,) = row["logits"]
        assert z == pytest.approx(row["bias"][0] + sum(row["contributions"][0]), abs=1e-5)
        assert row["probabilities"][1] == pytest.approx(1 / (1 + np.exp(-(a * z + b))), rel=1e-5)
    document = explanation_of(pair, "cool", rows_of("cool", 4))
    for row in document["explanations"]:
        e = np.exp(np.array(row["logits"]) / document["calibration"]["temperature"])
        np.testing.assert_allclose(row["probabilities"], e / e.sum(), rtol=1e-5)


@pytest.mark.parametrize("name", MODELS)
def test_labels_and_probabilities_are_those_of_predict(pair: Pair, name: str) -> None:
    rows = rows_of(name)
    (answer,) = pair.ask(request("POST", f"/v1/models/{name}:predict", instances(rows)))
    document = explanation_of(pair, name, rows)
    assert [row["label"] for row in document["explanations"]] == answer.json["labels"]
    assert [row["probabilities"] for row in document["explanations"]] == answer.json["predictions"]


@pytest.mark.parametrize(("name", "top"), TOPS)
def test_top_tells_the_largest_contributions(pair: Pair, name: str, top: int | None) -> None:
    """They are of the label's class, in falling size; the other features have no columns and no names."""
    rows, N = rows_of(name), MODELS[name]
    document = explanation_of(pair, name, rows, **({} if top is None else {"top": top}))
    found, served = expected(pair, name, rows)
    assert found.contributions is not None
    count = min(N, top or (N if N <= 64 else WIDE_TOP))
    assert ("features" in document) == (count == N)
    for i, row in enumerate(document["explanations"]):
        at = served.classes.index(row["label"]) if name != "tags" else int(found.probabilities[i].argmax())
        part = found.contributions[i][at if len(found.contributions[i]) > 1 else 0]
        part = 0 - part if name in SIGMOID and at == 0 else part
        order = np.argsort(-np.abs(part), kind="stable")[:count]
        assert [one["index"] for one in row["top"]] == order.tolist()
        assert [one["feature"] for one in row["top"]] == [served.manifest.features[j] for j in order]
        same([one["contribution"] for one in row["top"]], part[order])
        same([one["sensitivity"] for one in row["top"]], found.sensitivities[i, at][order])
        columns = np.arange(N) if count == N else order
        same(row["contributions"], found.contributions[i][:, columns])
        same(row["sensitivities"], found.sensitivities[i][:, columns])


@pytest.mark.parametrize("name", SIGMOID)
def test_top_is_about_the_label_also_where_two_classes_have_one_logit(pair: Pair, name: str) -> None:
    """The contribution of a feature above its mean and the slope of the label's probability have one sign."""
    rows = np.abs(rows_of(name, 40))
    model = getattr(served_of(pair, name).model, "inner", served_of(pair, name).model)
    if model.stage is not None:
        rows += model.stage.mean
    document = explanation_of(pair, name, rows.tolist())
    assert document["classes"][0] in {row["label"] for row in document["explanations"]}
    for row in document["explanations"]:
        assert all(one["contribution"] * one["sensitivity"] >= 0 for one in row["top"])


@pytest.mark.parametrize("name", SMALL)
def test_labels_give_losses(pair: Pair, name: str) -> None:
    """An answer to a request with labels has losses, and gradients of the same features as the matrices."""
    rows, served = rows_of(name), served_of(pair, name)
    label = LABEL.get(name, served.classes[1])
    Y = np.eye(len(served.classes))[[0 if label == ["a"] else 1] * 2]
    if name in SIGMOID:
        Y = np.ones((2, 1))
    found, _ = expected(pair, name, rows, Y)
    assert found.losses is not None
    assert found.loss_gradients is not None
    document = explanation_of(pair, name, rows, labels=[label, label], top=2)
    for i, row in enumerate(document["explanations"]):
        assert row["loss"] == found.losses[i]
        same(row["loss_gradient"], found.loss_gradients[i][[one["index"] for one in row["top"]]])
    whole = explanation_of(pair, name, rows, labels=[label, label], top=1000)
    for i, row in enumerate(whole["explanations"]):
        same(row["loss_gradient"], found.loss_gradients[i])


def test_a_soft_label_of_two_classes(pair: Pair) -> None:
    """The one logit's target is the second class's share."""
    rows = rows_of("breast-cancer", 1)
    found, _ = expected(pair, "breast-cancer", rows, np.array([[0.75]]))
    assert found.losses is not None
    (row,) = explanation_of(pair, "breast-cancer", rows, labels=[[0.25, 0.75]])["explanations"]
    assert row["loss"] == found.losses[0]


@pytest.mark.parametrize("name", [name for name in SMALL if name != "digits"])
@settings(deadline=None, max_examples=25)
@given(data=st.data())
def test_the_fast_path_answers_a_repeated_head_as_the_application(pair: Pair, name: str, data: st.DataObject) -> None:
    """Good rows and bad, with and without labels and a limit."""
    width = data.draw(st.sampled_from([MODELS[name]] * 5 + [MODELS[name] + 1]))
    rows = data.draw(st.lists(st.lists(numbers, min_size=width, max_size=width), min_size=1, max_size=3))
    label = LABEL.get(name, 0)
    fields = data.draw(
        st.fixed_dictionaries(
            {},
            optional={
                "labels": st.just([label] * len(rows)) | st.just([label]) | st.just(["x"] * len(rows)),
                "top": st.integers(-1, 5),
                "min_seq": st.just(0),
                "parameters": st.just({}),
            },
        )
    )
    body = json.dumps({"instances": rows, **fields}).encode()
    sent = (
        f"POST /v1/models/{name}:explain HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n".encode()
        + body
    )
    (plain,) = pair.ask(sent, fast=False)
    for answer in pair.ask(sent, sent, sent):
        assert (answer.status, answer.body) == (plain.status, plain.body)
    assert plain.status in {200, 422}


def test_many_rows_are_explained_in_a_thread(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are explained in blocks, each row as alone; the buffer of a single row is not reused meanwhile."""
    rows = rows_of("iris", 400)
    document = explanation_of(pair, "iris", rows)
    assert len(document["explanations"]) == 400
    for i in (0, 7, 399):
        assert explanation_of(pair, "iris", rows[i : i + 1])["explanations"] == document["explanations"][i : i + 1]
    monkeypatch.setattr(pair.worker.explain.parts_of(served_of(pair, "iris")).format, "_block_rows", 3)
    assert explanation_of(pair, "iris", rows)["explanations"] == document["explanations"]


def test_the_event_loop_explains_small_requests(pair: Pair) -> None:
    """The size is the products of all layers, backpropagation of each logit included, not the numbers in the answer."""

    def inline_rows(artifact: Artifact, **changed: Any) -> int:
        return parser_of(pair, artifact, **changed).inline_rows

    narrow, wide = (make_artifact("softmax", 4, ["a", "b", "c"], hidden=hidden) for hidden in ((8,), (250, 250)))
    assert inline_rows(narrow) == 4096 // 12
    products = 4 * 250 + 250 * 250 + 250 * 3 + 500 * FUNCTION_PRODUCTS
    assert inline_rows(wide) == 200 * PRODUCTS_PER_US // products // 6 < 4096 // 12
    assert inline_rows(wide, thread_after_us=1) == 0
    heavy = make_artifact("softmax", 4, ["a", "b", "c"], hidden=(512, 512))
    assert inline_rows(heavy, thread_after_us=10**6) == 0


def test_long_explanations_hold_up_no_prediction(paired: Callable[..., Pair], monkeypatch: pytest.MonkeyPatch) -> None:
    """Any number of explanations shares one thread, which runs beside the calls of heavy models."""
    pair, go = paired(thread_after_us=1), threading.Event()
    encode, rows = ExplainFormat.encode_explanations, [[0.0] * MODELS["heavy"]] * 2

    def wait(explain_format: ExplainFormat, parsed: ExplainBody) -> bytes:
        go.wait(20)
        return encode(explain_format, parsed)

    async def talk() -> list[int]:
        async with contextlib.AsyncExitStack() as stack:
            clients = [await stack.enter_async_context(pair.connect()) for _ in range(4)]
            for client in clients[1:]:
                await client.send_pieces([request("POST", "/v1/models/heavy:explain", instances(rows))])
            answers = [await clients[0].ask(request("POST", "/v1/models/heavy:predict", instances(rows)))]
            go.set()
            return [answer.status for answer in [*answers, *[await client.read() for client in clients[1:]]]]

    monkeypatch.setattr(ExplainFormat, "encode_explanations", wait)
    try:
        assert pair.run(talk()) == [200] * 4
    finally:
        go.set()


def test_an_answer_waits_for_its_seq(paired: Callable[..., Pair]) -> None:
    """An explanation waits for its seq as a prediction does; the wait for a seq that never comes is short."""
    pair = paired(min_seq_seconds=0.05)
    for path in (":predict", ":explain"):
        body = instances(IRIS, min_seq=5)
        answers = [pair.ask(request("POST", f"/v1/models/iris{path}", body), fast=fast)[0] for fast in (True, False)]
        assert answers[0] == answers[1]
        assert (answers[0].status, answers[0].header("retry-after")) == (409, "1")


def test_an_overflowing_row_is_explained_in_float64(pair: Pair) -> None:
    """Its logits fit into JSON, and it is predicted too."""
    rows = [[3e38, -3e38, 3e38, 3e38], IRIS[0]]
    document = explanation_of(pair, "iris", rows)
    alone = explanation_of(pair, "iris", IRIS[:1])
    assert document["explanations"][1] == alone["explanations"][0]
    assert max(map(abs, document["explanations"][0]["logits"])) > 3.5e38
    (predicted,) = pair.ask(request("POST", "/v1/models/iris:predict", instances(rows)))
    assert document["explanations"][0]["probabilities"] == predicted.json["predictions"][0]


# What a row of iris tells: logits, bias and probabilities, the label's name, and of each feature six numbers and an
# entry of `top`; its names have 66 characters.
IRIS_TOLD = 9 + 1 + 4 * (6 + ENTRY_CELLS) + 6
SERVERS = pytest.mark.parametrize(("fast", "rows"), [(True, 1), (False, 1), (True, 300), (False, 300)])


@SERVERS
def test_limits_hold(paired: Callable[..., Pair], fast: bool, rows: int) -> None:  # noqa: FBT001
    """Too many numbers or rows are refused before anything is computed; a smaller `top` is accepted."""
    pair = paired(answer_cells_max=IRIS_TOLD * rows, rows_max=300)
    body = [IRIS[0]] * rows
    assert ask(pair, "iris", instances(body), fast=fast).status == 200
    assert ask(pair, "iris", instances(body, labels=[0] * rows), fast=fast).status == 413
    assert ask(pair, "iris", instances(body, labels=[0] * rows, top=3), fast=fast).status == 200
    assert ask(pair, "iris", instances([IRIS[0]] * 301, top=1), fast=fast).status == 413


@SERVERS
def test_the_numbers_of_outputs_are_limited(paired: Callable[..., Pair], fast: bool, rows: int) -> None:  # noqa: FBT001
    """The limit counts the numbers of all requested outputs together."""
    pair = paired(answer_cells_max=15 * rows)
    for names, status in ((["logits"], 200), (["sensitivities"], 200), (["logits", "labels", "contributions"], 413)):
        body = infer([IRIS[0]] * rows, outputs=[{"name": name} for name in names])
        (answer,) = pair.ask(request("POST", "/v2/models/iris/infer", body), fast=fast)
        assert answer.status == status
        assert status == 200 or list(answer.json) == ["error", "code"]


@pytest.mark.parametrize("more", [{}, {"labels": ["a"]}])
def test_names_and_gradients_count(pair: Pair, more: dict[str, Any]) -> None:
    """A number counts as ten characters, and a feature of the gradient as one number."""
    artifact = make_artifact("softmax", 4, ["a", "b"], features=[f"{j:250}" for j in range(4)])
    cells = 6 + 4 * (4 + ENTRY_CELLS) + 100 + 4 * len(more)
    body = instances([[0] * 4], **more)
    parser_of(pair, artifact, answer_cells_max=cells).parse_explain(body)
    with pytest.raises(TooLargeError):
        parser_of(pair, artifact, answer_cells_max=cells - 1).parse_explain(body)


@pytest.mark.parametrize(("hidden", "computed"), [((), 64 * 3 * 10), ((999,), 64 * 2 * 10 + 10 * 999)])
def test_the_work_behind_top_is_limited(pair: Pair, hidden: Any, computed: int) -> None:
    """The few features in an answer are computed from all features, and from the slopes of the hidden units."""
    artifact = make_artifact("softmax", 64, list("abcdefghij"), hidden=hidden)
    parser = parser_of(pair, artifact, answer_cells_max=computed)
    parser.parse_explain(instances([[0] * 64] * 16, top=1))
    with pytest.raises(TooLargeError):
        parser.parse_explain(instances([[0] * 64] * 17, top=1))


def test_null_members_count_as_missing_and_rows_may_have_names(pair: Pair) -> None:
    """Null options change nothing, and rows by feature name are those in the order of the features."""
    names = pair.worker.registry.now.find_served("iris", None).manifest.features
    records = [dict(zip(names, row, strict=True)) for row in IRIS]
    expected = ask(pair, "iris", instances(IRIS)).body
    for body in (instances(IRIS, top=None, labels=None, min_seq=None, parameters=None), instances(records)):
        assert ask(pair, "iris", body).body == expected


REFUSED = {
    "no object": (b"[1]", 400),
    "broken": (b'{"instances": [[1,', 400),
    "key twice": (b'{"instances": [[1,2,3,4]], "top": 1, "top": 2}', 400),
    "no instances": (b"{}", 422),
    "unknown field": (instances(IRIS, more=1), 422),
    "tokens": (instances(IRIS, feedback_tokens=True), 422),
    "narrow": (instances([[1, 2]], top=1), 422),
    "null value": (b'{"instances": [[1,2,3,null]], "top": 1}', 422),
    "too large": (instances([[1e39, 2, 3, 4]]), 422),
    "too large, with labels": (instances([[1e39, 2, 3, 4]], labels=[0]), 422),
    **{f"top {top}": (instances(IRIS, top=top), 422) for top in (0, -1, 1.5, "1", True, [1], 10**30)},
    **{f"min_seq {seq}": (instances(IRIS, min_seq=seq), 422) for seq in (-1, "1", True, 1 << 41)},
    **{
        f"labels {labels}": (instances(IRIS, labels=labels), 422)
        for labels in ([], ["setosa"], ["x", "y"], [0, 3], [0, True], [[1, 0, 0], [1, 1, 0]], "setosa", {})
    },
}


@pytest.mark.parametrize("name", REFUSED)
def test_an_invalid_request_is_refused(pair: Pair, name: str) -> None:
    """Both servers answer with the same sentence and count a failure."""
    body, status = REFUSED[name]
    answers = [ask(pair, "iris", body, fast=fast) for fast in (True, False)]
    assert answers[0] == answers[1]
    assert (answers[0].status, list(answers[0].json)) == (status, ["error", "code"])


@settings(deadline=None, max_examples=examples(150))
@given(
    body=st.one_of(
        st.binary(max_size=60),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=3),
            lambda inner: (
                st.lists(inner, max_size=4)
                | st.dictionaries(st.sampled_from(["instances", "labels", "top", "min_seq", "x"]), inner, max_size=3)
            ),
            max_leaves=10,
        ).map(lambda value: json.dumps(value).encode()),
    )
)
def test_any_body_gets_an_answer(pair: Pair, body: bytes) -> None:
    """Both servers answer the same, never with a server error."""
    fast, plain = (ask(pair, "iris", body, fast=fast) for fast in (True, False))
    assert fast == plain
    assert fast.status in {200, 400, 413, 422}


# Networks


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("top", [1, 2, 1000])
def test_a_network_tells_first_order_effects(pair: Pair, name: str, top: int) -> None:
    """Features are ordered by their effect on the label's probability; there are no sums."""
    rows, N = rows_of(name), NETWORKS[name]
    document, (found, served) = explanation_of(pair, name, rows, top=top), expected(pair, name, rows)
    stage = served.manifest.stage
    centre = np.zeros(N) if stage is None else np.array(stage.mean)
    for i, row in enumerate(document["explanations"]):
        at = int(found.probabilities[i].argmax())
        effect = np.abs(found.sensitivities[i, at] * (np.array(rows[i]) - centre))
        order = np.argsort(-effect, kind="stable")[:top].tolist()
        assert [(one["index"], one["contribution"]) for one in row["top"]] == [(j, None) for j in order]
        assert [one["feature"] for one in row["top"]] == [served.manifest.features[j] for j in order]
        same([one["sensitivity"] for one in row["top"]], found.sensitivities[i, at][order])
        same(row["sensitivities"], found.sensitivities[i] if top >= N else found.sensitivities[i][:, order])


def test_v2_refuses_the_contributions_of_a_network(pair: Pair) -> None:
    """V2 answers with the sensitivities and logits of a network."""
    X = rows_of("network", 90)
    found, _ = expected(pair, "network", X)
    outputs = outputs_of(pair, "network", X, "logits", "sensitivities")
    same(outputs["logits"]["data"], found.logits.ravel())
    same(outputs["sensitivities"]["data"], found.sensitivities.ravel())
    body = infer(X, outputs=[{"name": "contributions"}])
    for fast in (True, False):
        (answer,) = pair.ask(request("POST", "/v2/models/network/infer", body), fast=fast)
        assert (answer.status, "no sums" in answer.json["error"]) == (400, True)


# v2


def outputs_of(pair: Pair, name: str, rows: Any, *names: str) -> dict[str, Any]:
    body = infer(rows, outputs=[{"name": one} for one in names])
    answers = [pair.ask(request("POST", f"/v2/models/{name}/infer", body), fast=fast)[0] for fast in (True, False)]
    assert answers[0] == answers[1]
    assert answers[0].status == 200, answers[0].body
    assert [output["name"] for output in answers[0].json["outputs"]] == list(names)
    return {output["name"]: output for output in answers[0].json["outputs"]}


@pytest.mark.parametrize("name", [name for name in LINEAR if name != "heavy"])
@pytest.mark.parametrize("rows", [1, 2, 90])
def test_v2_gives_the_matrices_whole(pair: Pair, name: str, rows: int) -> None:
    """The matrices have the model's dtype, and come beside the other requested outputs."""
    X = rows_of(name, rows)
    found, served = expected(pair, name, X)
    outputs = outputs_of(pair, name, X, "sensitivities", "labels", "contributions", "probabilities", "logits")
    datatype = {"float32": "FP32", "float64": "FP64"}[served.model.dtype.name]
    for one in ("logits", "contributions", "sensitivities", "probabilities"):
        array = getattr(found, one)
        assert (outputs[one]["datatype"], outputs[one]["shape"]) == (datatype, list(array.shape))
        same(outputs[one]["data"], array.ravel())
    (plain,) = pair.ask(request("POST", f"/v2/models/{name}/infer", infer(X, outputs=[{"name": "labels"}])))
    assert outputs["labels"] == plain.json["outputs"][0]


def test_v2_gives_them_as_binary_data(pair: Pair) -> None:
    """Float32, little-endian, in the order of the outputs."""
    found, _ = expected(pair, "iris", IRIS)
    wishes = [{"name": name} for name in ("contributions", "sensitivities")]
    body = infer(IRIS, outputs=wishes, parameters={"binary_data_output": True})
    (answer,) = pair.ask(request("POST", "/v2/models/iris/infer", body))
    length = int(answer.header("inference-header-content-length") or 0)
    assert found.contributions is not None
    assert answer.body[length:] == found.contributions.tobytes() + found.sensitivities.tobytes()
    sizes = [output["parameters"] for output in json.loads(answer.body[:length])["outputs"]]
    assert sizes == [{"binary_data_size": 2 * 3 * 4 * 4}] * 2


def test_v2_refuses_values_that_its_tensor_cannot_hold(pair: Pair) -> None:
    """A float32 tensor has no logit of 1e39."""
    body = infer([[3e38, -3e38, 3e38, 3e38]], outputs=[{"name": "logits"}])
    for fast in (True, False):
        (answer,) = pair.ask(request("POST", "/v2/models/iris/infer", body), fast=fast)
        assert (answer.status, list(answer.json)) == (400, ["error", "code"])


def test_explanations_are_counted(service: Service) -> None:
    """Explanations count as predictions of their protocol, with their rows."""

    def counts() -> tuple[int, int]:
        (row,) = httpx.get(f"{service.url}/v2/models/iris/stats").json()["model_stats"]
        return row["inference_stats"]["success"]["count"], row["inference_count"]

    before = counts()
    answer = httpx.post(f"{service.url}/v1/models/iris:explain", json={"instances": IRIS, "labels": ["setosa", 1]})
    assert answer.status_code == 200
    assert counts() == (before[0] + 1, before[1] + 2)
