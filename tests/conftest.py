"""Fixtures of all tests: models directories and a running service."""

import gc
import logging
import shutil
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import settings

from service.store.log.postgres_schema import create_schema
from tests.support.budgets import THOROUGH
from tests.support.error_bodies import check_httpx_response
from tests.support.leaked_secrets import SecretFinder
from tests.support.model_artifacts import write_models
from tests.support.paths import SHIPPED
from tests.support.postgres_servers import PostgresCluster, require_postgres, running_cluster
from tests.support.running_service import Service, serving

LONG_MODULES = (
    "tests/softmax/kernels/test_determinism.py",
    "tests/serve/api/test_openapi.py",
    "tests/system/",
    "tests/commands/",
    "tests/torture/",
    "tests/learn/",
    "tests/console/",
    "tests/train/",
    "tests/test_",
)

# Tests have no deadlines: a time says nothing on a loaded machine.
for profile in ("default", THOROUGH):
    settings.register_profile(profile, deadline=None)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Keep the garbage collector from what is collected, which stays: to visit it once takes a second."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put long modules first: a module stays in one test process, and a long one at the end would run alone."""

    def place(item: pytest.Item) -> int:
        starts = (item.nodeid.startswith(path) for path in LONG_MODULES)
        return next((at for at, found in enumerate(starts) if found), len(LONG_MODULES))

    items.sort(key=place)


@pytest.fixture(scope="session", autouse=True)
def checked_errors() -> Iterator[None]:
    """Hold every error that a test gets by httpx to the table of error codes."""
    send = httpx.Client.send

    def send_and_check(client: httpx.Client, request: httpx.Request, **options: Any) -> httpx.Response:
        response = send(client, request, **options)
        if not options.get("stream"):
            check_httpx_response(response)
        return response

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(httpx.Client, "send", send_and_check)
        yield


@pytest.fixture(scope="session", autouse=True)
def _logs_without_secrets() -> Iterator[None]:
    """No line of the log has a secret or marked payload; those of other processes are checked as they end."""
    finder, events = SecretFinder(), logging.getLogger("softstep")
    events.addHandler(finder)
    yield
    events.removeHandler(finder)
    assert finder.found == []


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the shipped models and one of each further kind; tests leave it as it is."""
    return write_models(tmp_path_factory.mktemp("models") / "models")


@pytest.fixture(scope="session")
def service(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A real `softstep serve` with those models and default limits, shared by all tests."""
    with serving(models, tmp_path_factory.mktemp("service")) as running:
        yield running


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresCluster]:
    """A PostgreSQL server, shared by the tests of a process; each makes databases of its own."""
    require_postgres()
    with running_cluster() as cluster:
        yield cluster


@pytest.fixture
def address(postgres_server: PostgresCluster) -> Iterator[str]:
    """The address of a log in PostgreSQL without streams, of the test's own."""
    made = postgres_server.make_database(create_schema)
    yield made
    postgres_server.drop_database(made)


@pytest.fixture(scope="module")
def shared_address(postgres_server: PostgresCluster) -> Iterator[str]:
    """The address of a log in PostgreSQL that the tests of a file share."""
    made = postgres_server.make_database(create_schema)
    yield made
    postgres_server.drop_database(made)


@pytest.fixture
def iris_models(tmp_path: Path) -> Path:
    """A models directory that holds iris version 1, of the test's own."""
    shutil.copytree(SHIPPED / "iris", tmp_path / "models" / "iris")
    return tmp_path / "models"
