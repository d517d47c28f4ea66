"""Requests of a key with limits: the fast path and FastAPI permit and refuse the same, by the same buckets."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from service.access.key_file import LimitsRecord
from service.serve.handlers.limited_endpoint import LimitedEndpoint, LimitedSingleRow
from service.serve.models.endpoint import EXPLAIN, KINDS, PREDICT, Endpoint
from tests.support.api_keys import add_key, bearer
from tests.support.http_requests import infer, instances, request
from tests.support.paths import SHIPPED
from tests.support.server_pair import Pair

ROW = [5.1, 3.5, 1.4, 0.2]
IRIS = "/v1/models/iris"
# So long a time takes 1 of a limit of 0.001 a second.
NEVER = 0.001


class Limited:
    """A server, and the headers of keys with limits."""

    def __init__(self, pair: Pair, keys: Path) -> None:
        self.pair, self._keys = pair, keys

    def key(self, **limits: float) -> tuple[str, str]:
        """Add a key, and return its header."""
        text = add_key(self._keys, limits=LimitsRecord.model_validate(limits))
        authorizer = self.pair.worker.authorizer
        authorizer.use(authorizer.read_changed())
        return bearer(text)


@pytest.fixture(scope="module")
def limited(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Limited]:
    folder = tmp_path_factory.mktemp("limited")
    data, models = folder / "data", folder / "models"
    shutil.copytree(SHIPPED / "iris", models / "iris")
    add_key(data / "keys.json")
    with Pair(models, data=data) as pair:
        yield Limited(pair, data / "keys.json")


CALLS = {
    "one row": ("POST", f"{IRIS}:predict", instances([ROW])),
    "two rows": ("POST", f"{IRIS}:predict", instances([ROW, ROW])),
    "infer": ("POST", "/v2/models/iris/infer", infer([ROW])),
    "explain": ("POST", f"{IRIS}:explain", instances([ROW])),
    "invocations": ("POST", "/invocations", instances([ROW])),
    "feedback": ("POST", f"{IRIS}:feedback", instances([ROW], labels=[0])),
    "feedback that waits": ("POST", f"{IRIS}:feedback?wait=false", instances([ROW], labels=[0])),
    "metadata": ("GET", IRIS, None),
    "pulse": ("GET", f"{IRIS}/pulse?since=0", None),
}


@pytest.mark.parametrize("fast", [True, False], ids=["fast", "plain"])
@pytest.mark.parametrize("call", CALLS)
def test_every_call_counts_as_a_request(limited: Limited, call: str, *, fast: bool) -> None:
    """Each call of a key takes one request; when the limit is reached all calls are refused, on both paths."""
    method, target, body = CALLS[call]
    header = limited.key(requests_per_second=NEVER)
    data = request(method, target, body, [header])
    first, second, third = limited.pair.ask(data, data, data, fast=fast)
    assert first.status in {200, 202}
    for one in (second, third):
        assert (one.status, one.json["code"]) == (429, "too_many_requests")
        assert int(str(one.header("retry-after"))) in {999, 1000}
    other = limited.pair.ask(data, fast=not fast)[0]
    assert (other.status, other.json["code"]) == (429, "too_many_requests")
    assert limited.pair.run(limited.pair.settled()) == (0, 0)


@pytest.mark.parametrize("fast", [True, False], ids=["fast", "plain"])
@pytest.mark.parametrize("call", [call for call, (_, _, body) in CALLS.items() if body is not None])
def test_rows_are_counted(limited: Limited, call: str, *, fast: bool) -> None:
    """Rows are taken by every call that has some; a call without rows is answered further on."""
    method, target, body = CALLS[call]
    header = limited.key(rows_per_second=NEVER)
    data = request(method, target, body, [header])
    first, second = limited.pair.ask(data, data, fast=fast)
    assert first.status in {200, 202}
    assert (second.status, second.json["code"]) == (429, "too_many_rows")
    assert limited.pair.ask(request("GET", IRIS, None, [header]), fast=fast)[0].status == 200


def test_remembered_heads_are_limited(limited: Limited) -> None:
    """A head that is remembered takes from the limits too, and answers as one without limits within them."""
    header = limited.key(requests_per_second=20, rows_per_second=20)
    usual = request("POST", f"{IRIS}:predict", instances([ROW]), [limited.key()])
    data = request("POST", f"{IRIS}:predict", instances([ROW]), [header])
    data = data.replace(b"X-Request-Id: test\r\n", b"")  # a head with an id is not remembered
    answers = limited.pair.ask(*[data] * 30)
    (expected,) = limited.pair.ask(usual)
    permitted = [answer for answer in answers if answer.status == 200]
    assert {answer.body for answer in permitted} == {expected.body}
    assert 6 <= len(permitted) < 30
    cached = [one for head, one in limited.pair.worker.shared.heads.kind().table.items() if data.startswith(head)]
    assert [type(one.endpoint) for one in cached] == [LimitedEndpoint]


def test_a_request_in_flight_is_counted_until_its_answer(limited: Limited) -> None:
    """A key may have as many requests in progress as its limit, and more once they are answered."""
    header = limited.key(requests_in_flight=1)
    data = request("POST", f"{IRIS}:predict", instances([ROW]), [header])
    for _ in range(3):
        for fast in (True, False):
            assert [one.status for one in limited.pair.ask(data, data, fast=fast)] == [200, 200]


def test_a_limited_endpoint_follows_the_usual_one(limited: Limited) -> None:
    """When a model learns, the endpoint of a key with limits serves the same state as the usual one."""
    served = limited.pair.worker.registry.now.find_served("iris", None)
    usual = Endpoint(PREDICT, served, any_version=True)
    endpoint = LimitedEndpoint(usual)
    assert (endpoint.kind, endpoint.any_version, endpoint.protocol) == (PREDICT + KINDS, True, usual.protocol)
    assert endpoint.single_row is None  # before the first request
    limiter: Any = SimpleNamespace(take_row_request=lambda: True)
    endpoint.limiter = limiter
    first = endpoint.single_row
    assert first is not None
    assert first is endpoint.single_row
    later: Any = SimpleNamespace(single_row=SimpleNamespace(P=1, count_row=2, predict_row=lambda _data, start: start))
    usual.serve(later)
    assert endpoint.served is later
    assert endpoint.single_row is not None
    assert (endpoint.single_row.P, endpoint.single_row.predict_row(b"", 3)) == (1, 3)
    later.single_row = None
    usual.serve(later)
    assert endpoint.single_row is None
    assert LimitedEndpoint(Endpoint(EXPLAIN, served)).single_row is None


@pytest.mark.parametrize(("label", "permitted", "expected"), [(1, True, 1), (1, False, -1), (-2, True, -2)])
def test_only_a_predicted_row_is_taken(label: int, expected: int, *, permitted: bool) -> None:
    """A body that the general path has to answer is taken there; a refused row has a negative label."""
    taken = []

    def take() -> bool:
        taken.append(True)
        return permitted

    row: Any = SimpleNamespace(P=None, count_row=None, predict_row=lambda _data, _start: label)
    limiter: Any = SimpleNamespace(take_row_request=take)
    assert LimitedSingleRow(row, limiter).predict_row(b"", 0) == expected
    assert len(taken) == (label >= 0)
