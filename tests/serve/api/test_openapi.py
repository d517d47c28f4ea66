"""Requests made from the OpenAPI document get responses that it describes; tests/conformance.py sends many more."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from schemathesis import GenerationMode
from schemathesis.schemas import APIOperation

from tests.support.document_requests import check_operation, list_operations
from tests.support.running_service import serving

# Of each operation; the service has some 60.
EXAMPLES = 4


@pytest.fixture(scope="module")
def operations(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[APIOperation]]:
    """Every operation in the document of a running service, which learns from the requests and has no other use."""
    with serving(models, tmp_path_factory.mktemp("openapi")) as service:
        yield list_operations(service.url)


@pytest.mark.parametrize("mode", list(GenerationMode))
@pytest.mark.parametrize("name", [None, "iris", "tags"])
def test_answers_conform(operations: list[APIOperation], mode: GenerationMode, name: str | None) -> None:
    """Requests made from the document, good and bad, get only the statuses, types and bodies that it names.

    With a name, every path means version 1 of that model, so that bodies are read; without, paths are made up too.
    A path without a name would get the same requests each time.
    """
    chosen = [operation for operation in operations if name is None or "{name}" in operation.path]
    tried = sum(check_operation(operation, mode, name, EXAMPLES) > 0 for operation in chosen)
    assert tried >= (len(chosen) if mode is GenerationMode.POSITIVE else 8)
