"""`:explain` and the explaining outputs of `/infer` for mixtures of experts, by the fast path and without it."""

from collections.abc import Iterator
from typing import Any, Final

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.errors import TooLargeError
from service.learn.state import LearnerState
from service.serve.api.schemas.explain_bodies import ExplainResponse
from service.serve.handlers.explain_body import ENTRY_CELLS, EXPERT_CELLS, DenseExplainParser
from service.serve.models.served_model import ServedModel
from service.settings import Settings
from service.softmax.explainer_factory import create_explainer
from service.store.artifact.artifact import Artifact, write_artifact
from service.store.artifact.repository import Version
from tests.support.http_requests import infer, instances, request
from tests.support.mixture_states import CLASSES, make_artifact, make_rows
from tests.support.server_pair import Pair

WIDTHS: Final = {"rings": 6, "platt": 6, "cool": 6, "wide": 160, "double": 3, "single": 1}
EXPERTS: Final = ["mixture", "frequencies", "features", "base", "linear"]
NAMES: Final = dict.fromkeys(WIDTHS, EXPERTS) | {
    "platt": [*EXPERTS[:3], "features alone", *EXPERTS[3:]],
    "wide": EXPERTS[:4],
}
MODELS = pytest.mark.parametrize("name", WIDTHS)


def learned_artifact(head: str = "softmax", *, rule: str = "mixture", **fields: Any) -> Artifact:
    """Return a model that has learned by a rule, and then by mixture."""
    state = LearnerState(make_artifact(head, rule=rule, **fields))
    X, labels = make_rows(head, fields.get("dtype", "float32"), fields.get("n_features", 6))
    state.fold_rows(X[:100], labels[:100])
    if rule != "mixture":
        state.configure({"rule": "mixture", "constants": {"features": 64}})
        state.fold_rows(X[100:], labels[100:])
    return state.export_artifact(CLASSES[head], {})


@pytest.fixture(scope="module")
def mixtures(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """Both servers, with mixtures of each kind."""
    temperature = {"kind": "temperature", "learn": False, "temperature": 2.5}
    artifacts = {
        "rings": learned_artifact(),
        "platt": learned_artifact(
            "sigmoid", rule="newton", calibration={"kind": "platt", "learn": False, "a": 0.5, "b": -1.0}
        ),
        "cool": learned_artifact(calibration=temperature),
        "wide": learned_artifact(n_features=160),
        "double": learned_artifact(dtype="float64", n_features=3),
        "single": learned_artifact("sigmoid", n_features=1),
    }
    root = tmp_path_factory.mktemp("mixtures")
    for name, artifact in artifacts.items():
        write_artifact(root / name / "1", artifact)
    with Pair(root) as running:
        yield running


def served_of(pair: Pair, name: str) -> ServedModel:
    return pair.worker.registry.now.served[name, 1]


def ask(pair: Pair, name: str, verb: str, body: bytes) -> dict[str, Any]:
    """Return a good answer, the same from both."""
    answers = [
        pair.ask(request("POST", f"/v1/models/{name}:{verb}", body), fast=fast)[0] for fast in (True, True, False)
    ]
    assert answers[0] == answers[1] == answers[2]
    assert answers[0].status == 200, answers[0].body
    document: dict[str, Any] = answers[0].json
    return document


def rows_of(name: str, count: int = 2) -> list[list[float]]:
    return np.random.default_rng(1).standard_normal((count, WIDTHS[name])).round(3).tolist()


def same(found: Any, array: Any) -> None:
    """JSON numbers that mean just these bits."""
    assert np.array(found, array.dtype).tobytes() == np.ascontiguousarray(array).tobytes()


@MODELS
@pytest.mark.parametrize("count", [1, 40])
def test_an_answer_is_the_explanation(mixtures: Pair, name: str, count: int) -> None:
    """There are no contributions, but each expert's name, weight, exponent and probabilities."""
    served, rows = served_of(mixtures, name), rows_of(name, count)
    explainer = create_explainer(served.model)
    found = explainer.explain(np.array(rows, served.model.dtype))
    document = ask(mixtures, name, "explain", instances(rows, top=WIDTHS[name]))
    assert found.experts is not None
    for i, row in enumerate(document["explanations"]):
        assert row["bias"] is row["contributions"] is None
        same(row["logits"], found.logits[i])
        same(row["probabilities"], found.probabilities[i])
        same(row["sensitivities"], found.sensitivities[i])
        assert [expert["name"] for expert in row["experts"]] == NAMES[name]
        for entry, expert, P in zip(row["experts"], explainer.experts, found.experts[i], strict=True):
            assert (entry["weight"], entry["exponent"]) == (expert.weight, expert.exponent)
            same(entry["probabilities"], P)


@MODELS
@settings(deadline=None, max_examples=10)
@given(data=st.data())
def test_the_experts_make_up_what_is_served(mixtures: Pair, name: str, data: st.DataObject) -> None:
    """The weighted sum of experts is softmax of the logits; calibrated, that is what `:predict` answers."""
    numbers = st.floats(-30, 30, width=32) | st.sampled_from([0.0, 1e30, -1e30])
    width = WIDTHS[name]
    rows = data.draw(st.lists(st.lists(numbers, min_size=width, max_size=width), min_size=1, max_size=2))
    document, predicted = (ask(mixtures, name, verb, instances(rows)) for verb in ("explain", "predict"))
    assert [row["label"] for row in document["explanations"]] == predicted["labels"]
    assert [row["probabilities"] for row in document["explanations"]] == predicted["predictions"]
    eps = np.finfo(served_of(mixtures, name).model.dtype).eps
    for row in document["explanations"]:
        z = np.array(row["logits"] if len(row["logits"]) > 1 else [0, *row["logits"]])
        p = np.exp(z - z.max()) / np.exp(z - z.max()).sum()
        average = sum(expert["weight"] * np.array(expert["probabilities"]) for expert in row["experts"])
        np.testing.assert_allclose(average, p, rtol=8 * eps * (1 - np.log(p.min())))


@MODELS
def test_top_orders_features_by_their_first_order_effect(mixtures: Pair, name: str) -> None:
    """The effect is that of the distance from the mean of the learned rows, on the probability of the label."""
    served, rows = served_of(mixtures, name), rows_of(name)
    explainer, X = create_explainer(served.model), np.array(rows, served.model.dtype)
    found, top = explainer.explain(X), min(2, WIDTHS[name])
    for i, row in enumerate(ask(mixtures, name, "explain", instances(rows, top=top))["explanations"]):
        slopes = found.sensitivities[i, found.labels[i]]
        order = np.argsort(-np.abs(slopes * (X[i] - explainer.center)), kind="stable")[:top]
        assert [(one["index"], one["contribution"]) for one in row["top"]] == [(j, None) for j in order]
        same([one["sensitivity"] for one in row["top"]], slopes[order])
        assert len(row["experts"]) == len(NAMES[name])


@MODELS
def test_answers_fit_the_document(mixtures: Pair, name: str) -> None:
    """The schema of the answer has each of its members."""
    document = ask(mixtures, name, "explain", instances(rows_of(name), labels=[0, 1]))
    assert ExplainResponse.model_validate(document).model_dump(exclude_unset=True) == document


@MODELS
def test_labels_give_losses(mixtures: Pair, name: str) -> None:
    """An answer to a request with labels has losses and their gradients."""
    served, rows = served_of(mixtures, name), rows_of(name)
    Y = np.ones((2, 1)) if served.model.n_logits == 1 else np.eye(3)[[1, 1]]
    found = create_explainer(served.model).explain(np.array(rows, served.model.dtype), Y)
    assert found.losses is not None
    assert found.loss_gradients is not None
    document = ask(mixtures, name, "explain", instances(rows, labels=[1, 1], top=1000))
    for i, row in enumerate(document["explanations"]):
        assert row["loss"] == found.losses[i]
        same(row["loss_gradient"], found.loss_gradients[i])


@MODELS
def test_v2_answers_with_logits_and_sensitivities(mixtures: Pair, name: str) -> None:
    """V2 answers with the sensitivities and logits of a mixture, and refuses its contributions."""
    served, rows = served_of(mixtures, name), rows_of(name, 3)
    found = create_explainer(served.model).explain(np.array(rows, served.model.dtype))
    for fast in (True, False):
        body = infer(rows, outputs=[{"name": "logits"}, {"name": "sensitivities"}])
        (answer,) = mixtures.ask(request("POST", f"/v2/models/{name}/infer", body), fast=fast)
        for output, array in zip(answer.json["outputs"], (found.logits, found.sensitivities), strict=True):
            assert output["shape"] == list(array.shape)
            same(output["data"], array.ravel())
        body = infer(rows, outputs=[{"name": "contributions"}])
        (answer,) = mixtures.ask(request("POST", f"/v2/models/{name}/infer", body), fast=fast)
        assert (answer.status, "mixture" in answer.json["error"]) == (400, True)


def parser_of(pair: Pair, name: str, cells_max: int) -> DenseExplainParser:
    """Return the parser of a model with another limit of numbers."""
    # A model with other settings needs the registry's other resources, which are private.
    resources = pair.worker.registry._resources._replace(settings=Settings(answer_cells_max=cells_max))
    artifact = served_of(pair, name).artifact
    return DenseExplainParser(ServedModel(Version(name, 1, artifact, None), artifact, resources), resources.settings)


def test_the_answers_of_experts_count(mixtures: Pair) -> None:
    """Each expert counts as its probabilities and its text."""
    # Logits, bias and probabilities, a label, and one feature with three sensitivities and an entry of `top`.
    cells = 9 + 3 + ENTRY_CELLS + len(EXPERTS) * (3 + EXPERT_CELLS)
    body = instances(rows_of("rings", 1), top=1)
    parser_of(mixtures, "rings", cells).parse_explain(body)
    with pytest.raises(TooLargeError):
        parser_of(mixtures, "rings", cells - 1).parse_explain(body)


def test_the_work_behind_experts_is_limited(mixtures: Pair) -> None:
    """The slopes of each expert and those of the random features are computed, whatever `top` is."""
    computed = (3 + 3 + 4 * 3) * 160 + 65 * 3
    parser = parser_of(mixtures, "wide", computed)
    parser.parse_explain(instances(rows_of("wide", 16), top=1))
    with pytest.raises(TooLargeError):
        parser.parse_explain(instances(rows_of("wide", 17), top=1))


def test_mixtures_are_explained_in_a_thread(mixtures: Pair) -> None:
    """One row of a mixture takes longer than the event loop should."""
    assert parser_of(mixtures, "single", 1 << 20).inline_rows == 0
