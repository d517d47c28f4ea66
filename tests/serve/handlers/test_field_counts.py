"""Missing and unknown values are counted once for each request that is accepted, whatever it waits for."""

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from service.access.key_file import LimitsRecord
from service.serve.metrics.field_counters import sum_field_counters
from service.serve.models.served_model import ServedModel
from service.store.artifact.artifact import write_artifact
from tests.support.api_keys import add_key, bearer
from tests.support.field_artifacts import SPARSE_FIELDS, field_artifact
from tests.support.http_connection import Response
from tests.support.http_requests import request
from tests.support.server_pair import Pair

# A row with two unknown values; those of all other fields are missing.
ROW = {"country": "FR", "basket": ["eggs"]}
TENSORS = {
    "inputs": [
        {"name": "country", "shape": [1], "datatype": "BYTES", "data": ["FR"]},
        {"name": "basket", "shape": [1], "datatype": "BYTES", "data": ['["eggs"]']},
    ]
}
# The model that `/invocations` asks.
DEFAULT = "tickets"
MODELS = pytest.mark.parametrize("name", ["claims", DEFAULT])
BOTH = pytest.mark.parametrize("fast", [True, False])
ONE_ROW = {"instances": [ROW]}
LABELED = {**ONE_ROW, "labels": ["a"]}
# Each call, with a body of that row.
CALLS: dict[str, tuple[str, Any, str]] = {
    "objects": (":predict", ONE_ROW, ""),
    "columns": (":predict", {"inputs": {name: [value] for name, value in ROW.items()}}, ""),
    "tokens": (":predict", {**ONE_ROW, "feedback_tokens": True}, ""),
    "min_seq": (":predict", {**ONE_ROW, "min_seq": 0}, ""),
    "explain": (":explain", LABELED, ""),
    "served state": (":explain", {**ONE_ROW, "seq": 0}, ""),
    "feedback": (":feedback", LABELED, ""),
    "trajectory": (":trajectory", ONE_ROW, ""),
    "tensors": ("/infer", TENSORS, ""),
    "logits": ("/infer", {**TENSORS, "outputs": [{"name": "logits"}]}, ""),
    "invocations": ("/invocations", ONE_ROW, ""),
    "csv": ("/invocations", b'country,basket\nFR,"[""eggs""]"\n', "text/csv"),
    "lines": ("/invocations", json.dumps(ROW).encode(), "application/jsonlines"),
    "nan": ("/invocations", json.dumps({"instances": [{**ROW, "age": float("nan")}]}).encode(), ""),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of dense rows, and one of sparse rows."""
    root = tmp_path_factory.mktemp("counts")
    write_artifact(root / "claims" / "1", field_artifact())
    write_artifact(root / "tickets" / "1", field_artifact(SPARSE_FIELDS))
    return root


@pytest.fixture(scope="module")
def served(folder: Path) -> Iterator[Pair]:
    """Both servers of these models, with short waits."""
    with Pair(folder, min_seq_seconds=0.05, wait_seconds=0.05, default_model=DEFAULT) as running:
        yield running


def model_of(served: Pair, name: str) -> ServedModel:
    return served.worker.registry.now.served[name, 1]


def counts(served: Pair, name: str) -> Counter[tuple[str, str]]:
    """The missing and unknown values of each field."""
    key = model_of(served, name).field_key
    assert key is not None
    sums = dict(zip(key.fields, sum_field_counters(served.shared_memory, key), strict=True))
    missing = {("missing", field): pair[0] for field, pair in sums.items()}
    return Counter(missing | {("unknown", field): pair[1] for field, pair in sums.items()})


def expected(served: Pair, name: str) -> Counter[tuple[str, str]]:
    """The counts of one row."""
    encoder = model_of(served, name).artifact.row_encoder
    assert encoder is not None
    absent = [field for field in encoder.names if field not in ROW]
    return Counter([*(("missing", field) for field in absent), *(("unknown", field) for field in ROW)])


def post(
    served: Pair, name: str, call: str, body: Any, kind: str = "", *, fast: bool = True, key: str = ""
) -> Response:
    """The response to a call of a model."""
    protocol = "v2" if call == "/infer" else "v1"
    path = call if call == "/invocations" else f"/{protocol}/models/{name}{call}"
    headers = ([("Content-Type", kind)] if kind else []) + ([bearer(key)] if key else [])
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return served.ask(request("POST", path, data, headers), fast=fast)[0]


@BOTH
@pytest.mark.parametrize(
    ("name", "call"),
    [
        (name, call)
        for name in ("claims", DEFAULT)
        for call in CALLS
        if name == DEFAULT or CALLS[call][0] != "/invocations"
    ],
)
def test_each_call_counts_its_row_once(served: Pair, name: str, call: str, *, fast: bool) -> None:
    """Also one with tokens, whose feedback has no values; and one whose body is parsed again without NaN."""
    before = counts(served, name)
    found = post(served, name, *CALLS[call], fast=fast)
    assert found.status in {200, 202}, found.body
    assert counts(served, name) - before == expected(served, name)
    if call == "tokens":
        tokens = {"tokens": found.json["feedback_tokens"], "labels": ["a"]}
        assert post(served, name, ":feedback", tokens, fast=fast).status == 202
        assert counts(served, name) - before == expected(served, name)


@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("claims", ":predict"),
        ("claims", ":explain"),
        *((DEFAULT, call) for call in (":predict", ":explain", "/invocations")),
    ],
)
def test_a_request_that_waits_is_counted_when_it_is_answered(
    served: Pair, name: str, call: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not at all if its seq never comes, also when a request without rows follows."""
    before, body = counts(served, name), {**ONE_ROW, "min_seq": 5}
    tokens = post(served, name, ":predict", {**ONE_ROW, "feedback_tokens": True}).json["feedback_tokens"]
    taught = counts(served, name)
    assert taught - before == expected(served, name)
    assert post(served, name, call, body).status == 409
    assert post(served, name, ":feedback", {"tokens": tokens, "labels": ["a"]}).status == 202
    assert counts(served, name) == taught

    async def wait(*_: object) -> None:
        monkeypatch.setattr(model_of(served, name), "seq", 5)

    monkeypatch.setattr(served.worker.registry, "wait_for_seq", wait)
    assert post(served, name, call, body).status == 200
    assert counts(served, name) - taught == expected(served, name)


@MODELS
def test_a_question_about_a_past_state_is_counted_once(
    served: Pair, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The state encodes the row again."""
    assert post(served, name, ":feedback", LABELED).status == 202
    monkeypatch.setattr(model_of(served, name), "seq", 3)
    before = counts(served, name)
    found = post(served, name, ":explain", {**ONE_ROW, "seq": 0})
    assert (found.status, found.json["seq"]) == (200, 0)
    assert counts(served, name) - before == expected(served, name)


@MODELS
@BOTH
def test_a_refused_request_counts_nothing(folder: Path, tmp_path: Path, name: str, *, fast: bool) -> None:
    """A row that is not accepted, rows beyond the limit of the key, and feedback beyond it."""
    keys = tmp_path / "data" / "keys.json"
    limited = add_key(keys, limits=LimitsRecord(rows_per_second=0.01))
    teacher = add_key(keys, limits=LimitsRecord(feedback_events_per_hour=1))
    with Pair(folder, data=tmp_path / "data", default_model=name) as running:
        before = counts(running, name)
        for call in (":predict", ":explain", ":trajectory", "/invocations"):
            wrong = {"instances": [{**ROW, "age": "x"}]}
            assert post(running, name, call, wrong, fast=fast, key=limited).status == 422
        assert counts(running, name) == before
        some = [CALLS[call] for call in ("objects", "explain", "trajectory", "tensors", "invocations")]
        statuses = [post(running, name, call, body, fast=fast, key=limited).status for call, body, _ in some]
        assert statuses == [200, 429, 429, 429, 429]
        assert counts(running, name) - before == expected(running, name)
        statuses = [post(running, name, ":feedback", LABELED, fast=fast, key=teacher).status for _ in range(2)]
        assert statuses == [202, 429]
        assert counts(running, name) - before == expected(running, name) + expected(running, name)


@MODELS
def test_feedback_that_waits_is_counted_once(served: Pair, name: str) -> None:
    """Nothing learns here, so the answer comes after the limit; the event is stored and counted."""
    before = counts(served, name)
    assert post(served, name, ":feedback?wait=true", LABELED).status == 409
    assert counts(served, name) - before == expected(served, name)
