"""Calibrated models over HTTP: every protocol returns the bits of `CalibratedModel`; metadata describes them."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from service.serve.api.schemas.explain_bodies import ExplainResponse
from service.serve.api.schemas.metadata_bodies import ModelMetadata, ProgressiveValidation, Reliability
from service.softmax.calibration import CalibratedModel
from service.softmax.progress import summarize_progress
from service.softmax.reliability_diagram import reliability_diagram
from service.store.artifact.model_factory import build_model
from tests.support.http_requests import binary, binary_request, infer, instances, request
from tests.support.model_artifacts import extra_artifacts
from tests.support.server_pair import Pair

CALIBRATED = {
    name: artifact for name, artifact in extra_artifacts().items() if artifact.manifest.calibration is not None
}


def test_there_are_both_kinds_and_a_network() -> None:
    """One model has a temperature after hidden layers, another has Platt scaling."""
    assert {type(build_model(artifact)) for artifact in CALIBRATED.values()} == {CalibratedModel}
    assert {artifact.manifest.head for artifact in CALIBRATED.values()} == {"softmax", "sigmoid"}
    assert {bool(artifact.manifest.hidden) for artifact in CALIBRATED.values()} == {True, False}


@pytest.mark.parametrize("name", CALIBRATED)
@settings(max_examples=25, deadline=None)
@given(count=st.integers(1, 40), seed=st.integers(0, 1000))
def test_answers_have_the_bits_of_the_calibrated_model(pair: Pair, name: str, count: int, seed: int) -> None:
    """V1 and v2, JSON and binary, one row and many, with and without the fast path, return the same bits."""
    artifact = CALIBRATED[name]
    X = np.random.default_rng(seed).standard_normal((count, artifact.n_features)).astype(np.float32) * 3
    P, labels = build_model(artifact).classify(X)
    for fast in (True, False):
        (answer,) = pair.ask(request("POST", f"/v1/models/{name}:predict", instances(X.tolist())), fast=fast)
        assert np.array(answer.json["predictions"], np.float32).tobytes() == P.tobytes()
        assert answer.json["labels"] == [artifact.manifest.classes[k] for k in labels]
        (answer,) = pair.ask(request("POST", f"/v2/models/{name}/infer", infer(X.tolist(), "FP32")), fast=fast)
        assert np.array(answer.json["outputs"][0]["data"], np.float32).tobytes() == P.tobytes()
        text, raw = binary(X, "<f4", "FP32", parameters={"binary_data_output": True})
        (answer,) = pair.ask(binary_request(f"/v2/models/{name}/infer", text, raw), fast=fast)
        assert answer.body.endswith(P.tobytes())


TOLD: dict[str, Any] = {
    "cool": {"kind": "temperature", "learn": True, "temperature": 2.5},
    "platt": {"kind": "platt", "learn": False, "a": 0.5, "b": -1.0},
    "iris": None,
}


@pytest.mark.parametrize("name", TOLD)
def test_metadata_tells_the_calibration(pair: Pair, name: str) -> None:
    """Metadata has the kind, the switch and the numbers; null without a calibration."""
    for fast in (True, False):
        (answer,) = pair.ask(request("GET", f"/v1/models/{name}"), fast=fast)
        assert answer.json["calibration"] == TOLD[name]


def fits(form: Any, value: object) -> bool:
    """Return whether a value validates against a type of the document."""
    try:
        TypeAdapter(form).validate_python(value, strict=True)
    except ValidationError:
        return False
    return True


@pytest.mark.parametrize("name", TOLD)
def test_the_document_has_their_form(pair: Pair, name: str) -> None:
    """Metadata and explanations fit their models, which refuse a missing number and a number of another type."""
    metadata = ModelMetadata.model_fields["calibration"].annotation
    explanations = ExplainResponse.model_fields["calibration"].annotation
    assert fits(metadata, TOLD[name])
    rows = [[0.0] * len(pair.ask(request("GET", f"/v1/models/{name}"))[0].json["features"])]
    (answer,) = pair.ask(request("POST", f"/v1/models/{name}:explain", instances(rows)))
    assert fits(ExplainResponse, answer.json)
    for key in TOLD[name] or ():
        assert not fits(metadata, {**TOLD[name], key: "x"})
        assert not fits(metadata, {other: TOLD[name][other] for other in TOLD[name] if other != key})
        assert key == "learn" or not fits(explanations, {**answer.json["calibration"], key: None})


def test_the_document_has_the_form_of_the_bins() -> None:
    """The model of reliability takes diagrams with and without rows, and no other number of bins."""
    for rows in (0, 3):
        diagram = reliability_diagram(np.full((2, 5), 0.95), rows)
        assert fits(Reliability, diagram)
        assert not fits(Reliability, {**diagram, "bins": diagram["bins"][1:]})
        assert not fits(Reliability, {**diagram, "bins": [{**one, "confidence": "x"} for one in diagram["bins"]]})
    assert set(summarize_progress(np.zeros(8), np.zeros((2, 5)))) <= set(ProgressiveValidation.model_fields)
