"""A service with gRPC that all tests of this folder share."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.grpc_service import GrpcCalls, GrpcService, grpc_calls, serving_grpc


@pytest.fixture(scope="session")
def grpc_service(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GrpcService]:
    """A real service with the limits that are set by default, and gRPC."""
    with serving_grpc(models, tmp_path_factory.mktemp("grpc")) as running:
        yield running


@pytest.fixture
def calls(grpc_service: GrpcService) -> Iterator[GrpcCalls]:
    """Calls to that service, on a channel of the test's own."""
    with grpc_calls(grpc_service.target) as made:
        yield made
