"""Answers that succeed and are not Softstep's, such as those of another server at the URL, without a network."""

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from softstep_client import APIStatusError, SoftstepError, inspection, learning, prediction
from softstep_client.learning import Lesson, WriteOptions
from softstep_client.steps import Flow, Reply
from softstep_client.tensors import BINARY_NUMBERS_MIN

from tests.support.budgets import examples
from tests.support.client_calls import new_state, run_flow

OPTIONS = WriteOptions(None, "mine", None, False)
LARGE = np.ones((BINARY_NUMBERS_MIN, 1))
FLOWS: dict[str, Callable[[], Flow[Any]]] = {
    "predict": lambda: prediction.predict(new_state(), "iris", [[1]], None, None, tokens=False),
    "tensors": lambda: prediction.predict(new_state(), "iris", LARGE, None, None, tokens=False),
    "explain": lambda: prediction.explain(new_state(), "iris", [[1]], None, {}),
    "feedback": lambda: learning.feedback(new_state(), "iris", Lesson([[1]], None, [0], None, 1000), OPTIONS),
    "rollback": lambda: learning.change(new_state(), "iris", "rollback", {"seq": 0}, OPTIONS),
    "models": lambda: inspection.models(new_state()),
}
PREDICTION = {"predictions": [[0.5, 0.5]], "labels": ["a"], "model_name": "iris", "model_version": "1", "seq": 0}
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3) | st.sampled_from(["1", "FP32", "labels"]),
    lambda part: (
        st.lists(part, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "predictions",
                    "labels",
                    "model_version",
                    "seq",
                    "outputs",
                    "events",
                    "id",
                    "name",
                    "datatype",
                    "shape",
                ]
            ),
            part,
            max_size=5,
        )
    ),
    max_leaves=12,
)


@pytest.mark.parametrize("name", FLOWS)
@pytest.mark.parametrize("content", [b"", b"<html>", b"[]", b"{}", b"null", b'{"models": 1}', b"[" * 100_000, b"\xff"])
def test_an_answer_of_another_server_is_an_error(name: str, content: bytes) -> None:
    """It is an APIStatusError that says so, and never one of Python."""
    _, error = run_flow(FLOWS[name](), [Reply(200, content)])
    assert isinstance(error, APIStatusError), error
    assert (error.status, error.code) == (200, None)
    assert "URL" in error.sentence


@pytest.mark.parametrize("name", FLOWS)
@settings(max_examples=examples(400))
@given(document=json_values, json_bytes=st.sampled_from([None, "0", "-1", "x", "7"]))
def test_no_document_breaks_a_call(name: str, document: Any, json_bytes: str | None) -> None:
    """An answer of any JSON is a result or an error of this package."""
    reply = Reply(200, json.dumps(document).encode(), None, json_bytes)
    _, result = run_flow(FLOWS[name](), [reply, reply])
    assert not isinstance(result, Exception) or isinstance(result, SoftstepError), result


@pytest.mark.parametrize(
    "metadata", [{}, {"classes": 7, "dtype": "float32"}, {"classes": ["x", "y"], "dtype": "float32"}]
)
def test_metadata_that_never_fits_the_answer_is_an_error(metadata: dict[str, Any]) -> None:
    """It is read a few times, and then the prediction fails."""
    replies = [Reply(200, json.dumps(PREDICTION).encode()), *[Reply(200, json.dumps(metadata).encode())] * 3]
    steps, error = run_flow(FLOWS["predict"](), replies)
    assert type(error) is SoftstepError
    assert len(steps) <= 6
