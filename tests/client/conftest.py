"""Both clients of a running service."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.client_calls import KINDS, make_client
from tests.support.paths import SHIPPED
from tests.support.running_service import Service, serving


@pytest.fixture(scope="session")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service of the shipped models, which the tests of clients teach."""
    with serving(SHIPPED, tmp_path_factory.mktemp("shipped")) as running:
        yield running


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    """The kind of the client: "sync" or "async"."""
    return str(request.param)


@pytest.fixture
def client(kind: str, shipped: Service) -> Iterator[Any]:
    """A client of the service."""
    client = make_client(kind, shipped.url)
    yield client
    client.close()


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    """No variable of the environment counts."""
    for name in ("SOFTSTEP_URL", "SOFTSTEP_API_KEY", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
