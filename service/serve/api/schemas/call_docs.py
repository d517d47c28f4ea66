"""Parts of what the OpenAPI document says of a call: request bodies, responses and errors, with examples."""

from collections.abc import Mapping
from typing import Any, Final

from pydantic import BaseModel

from service.serve.api.schemas.error_examples import error_responses

Docs = dict[str, Any]
Examples = Mapping[str, object]

JSON: Final = "application/json"
BINARY: Final = "application/octet-stream"
CSV: Final = "text/csv"
JSON_LINES: Final = "application/jsonlines"
NDJSON: Final = "application/x-ndjson"
# The schema of a header with a seq.
SEQ_HEADER: Final = {"schema": {"type": "integer"}, "example": 0}
# FastAPI drops every null from its document, in examples too; `openapi_document.py` puts them back.
NULL: Final = "\0null"


def replace_nulls(value: Any, null: object, replacement: object) -> Any:  # noqa: ANN401  # any JSON value
    """Return a JSON value with `replacement` wherever `null` stands."""
    if isinstance(value, dict):
        return {key: replace_nulls(one, null, replacement) for key, one in value.items()}
    if isinstance(value, list):
        return [replace_nulls(one, null, replacement) for one in value]
    return replacement if value == null else value


def examples(values: Examples) -> Docs:
    """Return examples by their names, with NULL for null."""
    return {"examples": {name: {"value": replace_nulls(value, None, NULL)} for name, value in values.items()}}


def request(model: type[BaseModel], values: Examples, *others: type[BaseModel], required: bool = True) -> Docs:
    """Return what a call says of its JSON request body, which fits one of some models.

    FastAPI does not see the models, because the routes read bytes: `openapi_document.py` adds them to the components.
    """
    references = [{"$ref": f"#/components/schemas/{one.__name__}"} for one in (model, *others)]
    content = {"schema": references[0] if len(references) == 1 else {"anyOf": references}, **examples(values)}
    return {"requestBody": {"required": required, "content": {JSON: content}}}


def response(model: Any, values: Examples, description: str = "OK") -> Docs:  # noqa: ANN401  # a model or a union
    """Return what a call says of a JSON response."""
    return {"description": description, "model": model, "content": {JSON: examples(values)}}


def file_content(values: Examples) -> Docs:
    """Return what a call says of binary content; the examples show its JSON part."""
    return {BINARY: {"schema": {"type": "string", "format": "binary"}, **examples(values)}}


def text_content(kind: str, values: Examples) -> Docs:
    """Return what a call says of content that is text of a media type."""
    return {kind: {"schema": {"type": "string"}, **examples(values)}}


def call(  # the parts of a call
    name: str,
    success: Docs,
    codes: tuple[str, ...],
    body: Docs | None = None,
    *,
    v2: bool = False,
) -> Docs:
    """Return what the document says of a call.

    Args:
        name: The call's name, which selects the sentences of its error examples.
        success: The response with status 200.
        codes: The error codes that the call can answer.
        body: The request body, if there is one.
        v2: Whether 422 becomes 400.
    """
    return {"responses": {200: success, **error_responses(name, *codes, v2=v2)}, "openapi_extra": body or {}}


def event_call(name: str, body: Docs, accepted: Docs, served: Docs, codes: tuple[str, ...]) -> Docs:
    """Return what the document says of a call that becomes events: 202 when they are on disk, 200 when served."""
    docs = call(name, served, codes, body)
    docs["responses"][202] = accepted
    return {"status_code": 202, **docs}
