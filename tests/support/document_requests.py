"""Requests made from the OpenAPI document by schemathesis, and what their responses are held to."""

from contextlib import suppress
from typing import Final

import schemathesis
from hypothesis import HealthCheck, assume, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.schemas import APIOperation
from schemathesis.specs.openapi.checks import (
    allow_header_conformance,
    content_type_conformance,
    negative_data_rejection,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
)

# `positive_data_acceptance` is not among them: whether a row has as many numbers as the model has features, for
# example, depends on the model, so a body that fits the document may be refused. `use_after_free` and
# `ensure_resource_availability` are about resources that calls create, and `missing_required_header` and
# `ignored_auth` about headers and keys that the document does not require.
CHECKS: Final = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    negative_data_rejection,
    response_headers_conformance,
    response_schema_conformance,
    unsupported_method,
    allow_header_conformance,
]
# Unloading these models would disturb the other calls.
NEVER_UNLOADED: Final = "unknown"


def list_operations(url: str) -> list[APIOperation]:
    """Return every operation in the document of a running service."""
    document = schemathesis.openapi.from_url(f"{url}/openapi.json")
    return [found.ok() for found in document.get_all_operations()]


def check_operation(operation: APIOperation, mode: GenerationMode, name: str | None, examples: int) -> int:
    """Send requests of one operation, and hold each response to the document.

    Args:
        operation: The operation.
        mode: Whether the requests fit the document.
        name: The model that every path means, in version 1, so that bodies are read; None: paths are made up too.
        examples: The most requests that are sent.

    Returns:
        The number of requests; 0 if the operation has no such request.

    Raises:
        schemathesis.core.failures.FailureGroup: A response is not as the document says.
    """
    count = 0

    @given(case=operation.as_strategy(generation_mode=mode))
    @settings(
        max_examples=examples, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
    )
    def conforms(case: schemathesis.Case) -> None:
        nonlocal count
        # An empty list or object is written as nothing, so that a bad request would be one without the parameter.
        assume(mode is GenerationMode.POSITIVE or not any(value in ([], {}) for value in (case.query or {}).values()))
        count += 1
        if case.path.endswith("unload"):
            case.path_parameters = {"name": NEVER_UNLOADED}
        elif name is not None:
            given_names = {"name": name, "version": "1"}
            case.path_parameters = {key: given_names[key] for key in case.path_parameters}
        case.call_and_validate(checks=CHECKS)

    with suppress(Unsatisfiable):  # an operation without parameters and body has no bad requests
        conforms()
    return count
