"""The shortest path for one row gives the bits, the bytes and the counts of the general path."""

import ctypes
import json
import time
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.process.shared_memory import COUNTERS, SharedMemory
from service.serve.metrics.counters import (
    COMPUTE_NANOSECONDS,
    EXECUTIONS,
    LAST_MS,
    ROWS,
    WorkerCounters,
    count_duration,
    histogram_of,
)
from service.serve.models.single_row import BYTES_OFFSET, SingleRow
from service.serve.responses import V1
from service.softmax.classifier import Classifier, Head
from service.softmax.input_stage import Delta, Stage
from service.softmax.kernels.heads import NOT_FINITE
from service.softmax.linear_model import LinearModel
from tests.support.http_connection import Response
from tests.support.http_requests import instances
from tests.support.mixture_states import learned_mixture
from tests.support.server_pair import Pair

HEADS: list[tuple[Head, int]] = [("softmax", 3), ("softmax", 40), ("sigmoid", 1), ("ovr", 5), ("multilabel", 4)]
N = 5
PATHS = {
    "iris": 4, "digits": 64, "breast-cancer": 30, "double": 3, "ovr": 4, "tags": 3, "staged": 3, "segment": 18,
}  # fmt: skip
NUMBERS = st.one_of(
    st.floats(-1e6, 1e6), st.floats(width=32, allow_nan=False, allow_infinity=False), st.integers(-(2**60), 2**60)
)


def single_row_of(model: Classifier) -> tuple[SingleRow, memoryview, WorkerCounters]:
    """The shortest path of a model, the model's counters, and the worker's counters."""
    worker_counters = WorkerCounters(SharedMemory(1, 2), 0)
    single, counters = model.single_row_plan(), worker_counters.model_counters("m", 1)
    assert single is not None
    return SingleRow(single, counters, worker_counters), counters, worker_counters


def model_of(head: Head, n_logits: int, dtype: str) -> LinearModel:
    """A model with random weights."""
    random = np.random.default_rng(n_logits)
    weights = random.standard_normal((N, n_logits)).astype(dtype)
    return LinearModel(head, weights, random.standard_normal(n_logits).astype(dtype))


MODELS = {(head, k, dtype): model_of(head, k, dtype) for head, k in HEADS for dtype in ("float32", "float64")}
STAGE = Stage(np.linspace(-2, 3, N), np.linspace(0.5, 4, N), 2.5)


def learned(model: LinearModel, stage: Stage | None) -> LinearModel:
    """A model with a learned delta."""
    weights = np.random.default_rng(5).standard_normal(model.weights.shape).astype(model.dtype)
    delta = Delta(weights, Stage(np.linspace(1, 2, N), np.linspace(3, 0.1, N), 1.25))
    return LinearModel(model.head, model.weights, model.bias, stage, delta)


STAGED = {
    "stage": LinearModel(
        "softmax", MODELS["softmax", 3, "float32"].weights, MODELS["softmax", 3, "float32"].bias, STAGE
    ),
    "delta": learned(MODELS["softmax", 40, "float32"], None),
    "stage and delta": learned(MODELS["sigmoid", 1, "float64"], STAGE),
}


MIXTURES: dict[str, Classifier] = {
    "mixture": learned_mixture(n_features=N),
    "mixture and offset": learned_mixture("sigmoid", n_features=N, has_offset=True),
    "mixture of float64": learned_mixture(n_features=N, dtype="float64", has_offset=True),
    "wide mixture": learned_mixture(n_features=150),
}


@pytest.mark.parametrize(
    "model", [*MODELS.values(), *STAGED.values(), *MIXTURES.values()], ids=[*map(str, MODELS), *STAGED, *MIXTURES]
)
@given(row=st.lists(st.floats(-1e6, 1e6, width=32), min_size=N, max_size=N), before=st.binary(max_size=40))
def test_a_single_row_has_the_bits_of_the_model(model: Classifier, row: list[float], before: bytes) -> None:
    """The probabilities and the label are those of `classify`, wherever the body begins in the data."""
    single, row = single_row_of(model)[0], (row * model.n_features)[: model.n_features]
    P, labels = model.classify(np.array([row], model.dtype))
    label = single.predict_row(before + instances([row]), len(before))
    if label < NOT_FINITE:  # digits beyond what the scanner takes
        assert any(len(repr(value)) > 15 for value in row)
        return
    assert (single.P.tobytes(), label) == (P.tobytes(), labels[0])


@given(body=st.one_of(st.binary(max_size=60), st.text(alphabet='{"instances":[]1,.e-+ }', max_size=40).map(str.encode)))
def test_other_bodies_are_left_to_the_general_path(body: bytes) -> None:
    """Arbitrary bytes give a negative label, whatever the memory around them has."""
    single = single_row_of(MODELS["softmax", 3, "float32"])[0]
    assert single.predict_row(body, 0) < NOT_FINITE
    assert single.predict_row(instances([[1.0] * N]) + b"," + body, 0) < NOT_FINITE


def test_a_row_that_overflows_is_left_to_the_general_path() -> None:
    """The logits are not finite in float32, so the model computes the row again in float64."""
    steep = LinearModel("softmax", np.full((N, 2), 1e30, np.float32), np.zeros(2, np.float32))
    single = single_row_of(steep)[0]
    assert single.predict_row(instances([[1e20] * N]), 0) == NOT_FINITE
    assert single.predict_row(instances([[1] * N]), 0) == 0
    clipped = single_row_of(STAGED["stage"])[0]
    assert clipped.predict_row(instances([[1e22] * N]), 0) >= 0
    assert clipped.predict_row(b'{"instances": [[1, 2, 3, 4, 9007199254740992e22]]}', 0) >= 0


def test_models_with_too_many_logits_have_no_single_row_plan() -> None:
    """1008 logits fit on the stack, in whole panels of every width."""

    def zeros(n_logits: int) -> LinearModel:
        return LinearModel("softmax", np.zeros((2, n_logits), np.float32), np.zeros(n_logits, np.float32))

    assert zeros(1008).single_row_plan() is not None
    assert zeros(1025).single_row_plan() is None


def test_bytes_objects_have_the_expected_layout() -> None:
    """CPython keeps the bytes at a fixed offset in the object, with a zero byte after them."""
    for text in (b"", b"a", bytes(range(256)) * 9):
        assert ctypes.string_at(id(text) + BYTES_OFFSET, len(text) + 1) == text + b"\0"


@pytest.mark.parametrize("times", [1, 7])
def test_counts_match_the_general_path(times: int) -> None:
    """Requests, rows, calls and responses are counted, and durations are in their buckets."""
    single, counters, worker_counters = single_row_of(MODELS["softmax", 3, "float32"])
    worker_counters.now_ms[0] = 1234
    began = time.perf_counter_ns()
    for _ in range(times):
        assert single.predict_row(instances([[1] * N]), 0) >= 0
        single.count_row()
    passed = time.perf_counter_ns() - began
    counts = counters.tolist()
    durations = histogram_of(counts, V1)
    assert [counts[i] for i in (ROWS, EXECUTIONS, LAST_MS)] == [times, times, 1234]
    assert 0 < counts[COMPUTE_NANOSECONDS] <= durations.nanoseconds <= passed
    assert durations.total == times
    assert sum(counts) == 2 * times + 1234 + counts[COMPUTE_NANOSECONDS] + durations.nanoseconds + times
    assert worker_counters.statuses[200] == times


@pytest.mark.parametrize("seconds", [0, 2e-4, 3e-3, 0.03])
def test_a_duration_is_in_the_bucket_of_the_general_path(seconds: float) -> None:
    """The one bucket that grows is the one in which `count_duration` counts the same time."""
    single, counters, _ = single_row_of(MODELS["softmax", 3, "float32"])
    assert single.predict_row(instances([[1] * N]), 0) >= 0
    time.sleep(seconds)
    single.count_row()
    counted = histogram_of(counters.tolist(), V1)
    expected = memoryview(bytearray(8 * COUNTERS)).cast("q")
    count_duration(expected, V1, counted.nanoseconds)
    assert counted == histogram_of(expected.tolist(), V1)


def unnamed(path: str, body: bytes) -> bytes:
    """A request without an id, whose head the protocol caches."""
    return (
        b"POST /v1/models/%b:predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n"
        % (path.encode(), len(body))
        + body
    )


def plain(answer: Response) -> tuple[Any, ...]:
    """A response without its request id, which is unique."""
    return answer.status, [header for header in answer.headers if header[0] != "x-request-id"], answer.body


@pytest.mark.parametrize("path", PATHS)
@settings(deadline=None)
@given(data=st.data())
def test_responses_to_repeated_heads_match_the_application(pair: Pair, path: str, data: st.DataObject) -> None:
    """The first response, the repeated one and that of the FastAPI application are the same, for any row."""
    width = data.draw(st.sampled_from([PATHS[path]] * 4 + [PATHS[path] + 1]))
    row = data.draw(st.lists(NUMBERS, min_size=width, max_size=width))
    body = json.dumps(
        {"instances": [row]}, separators=data.draw(st.sampled_from([(",", ":"), (" , ", " : ")]))
    ).encode()
    body = body[: data.draw(st.sampled_from([len(body)] * 4 + [len(body) - 3]))]
    sent = unnamed(path, body)
    (expected,) = pair.ask(sent, fast=False)
    assert [plain(answer) for answer in pair.ask(sent, sent, sent)] == [plain(expected)] * 3


def test_repeated_requests_use_the_shortest_path(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """A repeated request of one row is predicted and counted by the shortest path."""
    single_rows: list[SingleRow] = []
    count = SingleRow.count_row

    def noted(single: SingleRow) -> None:
        single_rows.append(single)
        count(single)

    monkeypatch.setattr(SingleRow, "count_row", noted)
    before = pair.statuses().get(200, 0)
    pair.ask(*[unnamed("iris", instances([[5.1, 3.5, 1.4, 0.2]]))] * 5)
    assert len(single_rows) >= 4
    assert pair.statuses()[200] == before + 5
