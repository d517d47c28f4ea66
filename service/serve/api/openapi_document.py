"""The OpenAPI document: FastAPI's, with the models of request bodies and without what the service never sends."""

from typing import Any, Final

from fastapi import FastAPI
from pydantic.json_schema import models_json_schema

from service.serve.api.schemas.access_docs import SECURITY_SCHEMES
from service.serve.api.schemas.call_docs import NULL, replace_nulls
from service.serve.api.schemas.documented_calls import REQUESTS

REFERENCE: Final = "#/components/schemas/{model}"
# FastAPI documents them for every call with a parameter; a 422 of this service has the form of all errors.
NEVER_SENT: Final = ("HTTPValidationError", "ValidationError")
VERSION_IN_PATH: Final = "/versions/{version}"


class DocumentedApi(FastAPI):
    """An application whose document has every body as a named component."""

    def openapi(self) -> dict[str, Any]:
        """Return the OpenAPI document."""
        if self.openapi_schema is None:
            self.openapi_schema = complete_document(super().openapi())
        return self.openapi_schema


def complete_document(document: dict[str, Any]) -> dict[str, Any]:
    """Return FastAPI's document with the request models, and with the errors that each call really has."""
    _, definitions = models_json_schema([(model, "validation") for model in REQUESTS], ref_template=REFERENCE)
    schemas = document["components"]["schemas"] | definitions["$defs"]
    document["components"]["schemas"] = {name: schemas[name] for name in sorted(schemas) if name not in NEVER_SENT}
    document["components"]["securitySchemes"] = SECURITY_SCHEMES
    for path, calls in document["paths"].items():
        for call in calls.values():
            _correct_errors(call["responses"], has_version=VERSION_IN_PATH in path)
    restored: dict[str, Any] = replace_nulls(document, NULL, None)
    return restored


def with_rows(document: dict[str, Any], rows: dict[str, Any]) -> dict[str, Any]:
    """Return a document with the schemas of the rows of served models among its components."""
    components = document["components"]
    return {**document, "components": {**components, "schemas": components["schemas"] | rows}}


def _correct_errors(responses: dict[str, Any], *, has_version: bool) -> None:
    """Remove FastAPI's 422, and an unknown version where the path names none; describe errors by their codes."""
    for status, response in list(responses.items()):
        for content in response.get("content", {}).values():
            examples = content.get("examples", {})
            if content["schema"].get("$ref", "").endswith(NEVER_SENT[0]):
                responses.pop(status)
            if not has_version:
                examples.pop("version_not_found", None)
            if any("summary" in example for example in examples.values()):
                lines = [f"- `{code}`: {example['summary']}" for code, example in examples.items()]
                response["description"] = "\n".join(lines)
