"""Requests made from the OpenAPI document get responses that it describes."""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    allow_header_conformance,
    content_type_conformance,
    negative_data_rejection,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
)

from tests.support.running_service import serving

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    negative_data_rejection,
    response_headers_conformance,
    response_schema_conformance,
    unsupported_method,
    allow_header_conformance,
]
EXAMPLES = 12


@pytest.fixture(scope="module")
def operations(
    models: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[list[schemathesis.schemas.APIOperation]]:
    """Every operation in the document of a running service, which learns from the requests and has no other use."""
    with serving(models, tmp_path_factory.mktemp("openapi")) as service:
        document = schemathesis.openapi.from_url(f"{service.url}/openapi.json")
        yield [found.ok() for found in document.get_all_operations()]


@pytest.mark.parametrize("mode", list(GenerationMode))
@pytest.mark.parametrize("name", [None, "iris", "tags"])
def test_answers_conform(
    operations: list[schemathesis.schemas.APIOperation], mode: GenerationMode, name: str | None
) -> None:
    """Requests made from the document, good and bad, get only the statuses, types and bodies that it names.

    With a name, every path means version 1 of that model, so that bodies are read; without, paths are made up too.
    """
    tried = 0
    for operation in operations:

        @given(case=operation.as_strategy(generation_mode=mode))
        @settings(max_examples=EXAMPLES, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
        def conforms(case: schemathesis.Case) -> None:
            if case.path.endswith("unload"):  # unloading a model would disturb the other calls
                case.path_parameters = {"name": "unknown"}
            elif name is not None:
                given_names = {"name": name, "version": "1"}
                case.path_parameters = {key: given_names[key] for key in case.path_parameters}
            case.call_and_validate(checks=CHECKS)

        with suppress(Unsatisfiable):  # an operation without parameters and body has no bad requests
            conforms()
            tried += 1
    assert tried >= (len(operations) if mode is GenerationMode.POSITIVE else 8)
