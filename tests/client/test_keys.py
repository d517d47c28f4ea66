"""Clients of a real service with keys: what a key permits, and the limits that it waits for."""

from collections.abc import Iterator
from itertools import islice
from typing import Any, NamedTuple

import pytest
from softstep_client import APIStatusError

from service.access.key_file import LimitsRecord
from service.access.scopes import Scope
from tests.support.api_keys import add_key
from tests.support.client_calls import make_client
from tests.support.paths import SHIPPED
from tests.support.running_service import serving

# Far more calls than the limit permits in the time that they take.
CALLS_MAX = 200
ROWS = [[6.0, 2.7, 5.1, 1.6]]


class Locked(NamedTuple):
    """A service with keys.

    Attributes:
        url: Its URL.
        predict: A key that may predict.
        slow: A key that may do everything, with one request a second.
    """

    url: str
    predict: str
    slow: str


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Locked]:
    """A service of the shipped models with keys."""
    scratch = tmp_path_factory.mktemp("locked")
    path = scratch / "keys.json"
    predict, slow = add_key(path, Scope.PREDICT), add_key(path, limits=LimitsRecord(requests_per_second=1))
    with serving(SHIPPED, scratch, SOFTSTEP_KEYS_FILE=path) as service:
        yield Locked(service.url, predict, slow)


@pytest.fixture
def make(kind: str, locked: Locked) -> Iterator[Any]:
    """A function that makes a client of the service with a key."""
    clients: list[Any] = []

    def new_client(key: str | None, **options: Any) -> Any:
        clients.append(make_client(kind, locked.url, api_key=key, **options))
        return clients[-1]

    yield new_client
    for client in clients:
        client.close()


def test_a_key_that_may_predict_reads_the_names_of_classes_too(make: Any, locked: Locked) -> None:
    """Feedback needs another scope; without a key, and with a wrong one, nothing is permitted."""
    client = make(locked.predict)
    assert client.predict("iris", ROWS).classes == ["setosa", "versicolor", "virginica"]
    assert client.schema("iris")["type"] == "object"
    with pytest.raises(APIStatusError, match="403 scope_missing"):
        client.feedback("iris", ROWS, ["setosa"])
    with pytest.raises(APIStatusError, match="401 key_missing"):
        make(None).predict("iris", ROWS)
    with pytest.raises(APIStatusError, match="401 key_invalid") as refused:
        make(locked.predict[::-1]).wait_ready("iris")
    assert locked.predict[::-1] not in str(refused.value)


def test_the_limit_of_a_key_is_waited_for(make: Any, locked: Locked) -> None:
    """Calls beyond it are refused with a Retry-After, and succeed when that time is over."""
    client = make(locked.slow, max_retries=0)
    with pytest.raises(APIStatusError, match="429 too_many_requests"):
        list(islice(iter(client.models, None), CALLS_MAX))
    patient = client.with_options(max_retries=5)
    assert all(patient.models() for _ in range(2))
