"""The OpenAPI document without a service."""

from functools import cache
from typing import Any

from service.serve.api.app import CALLS
from service.serve.api.openapi_document import DocumentedApi


@cache
def api_document() -> dict[str, Any]:
    """Return the document, which is made once in each test process; do not change it."""
    return DocumentedApi(title="Softstep", routes=CALLS.routes).openapi()
