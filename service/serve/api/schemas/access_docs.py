"""Access in the OpenAPI document: how keys are sent, the scope of each call, and its refusals."""

from collections.abc import Collection
from typing import Any, Final

from service.access.scopes import Scope
from service.serve.api.schemas.call_docs import JSON
from service.serve.api.schemas.error_examples import SENTENCES, error_response
from service.serve.authorization.route_scopes import (
    OF_ALL_MODELS,
    OF_ANY_KEY,
    OF_NO_MODEL,
    ROUTE_SCOPES,
    ROUTE_SETTINGS,
)
from service.serve.error_codes import ERROR_CODES

SECURITY_SCHEMES: Final = {
    "bearer": {
        "type": "http",
        "scheme": "bearer",
        "description": "An API key, as `softstep keys create` prints it, or a JWT of the issuer that the service "
        "trusts. A service without keys needs neither.",
    },
    "apiKey": {
        "type": "apiKey",
        "in": "header",
        "name": "X-API-Key",
        "description": "The same in a header of its own, which counts before `Authorization`.",
    },
}
# What a call accepts: either way of sending a key.
SECURITY: Final[list[dict[str, list[str]]]] = [{name: []} for name in SECURITY_SCHEMES]
# Statuses of a request without a valid key, of one that its key does not permit, and of one beyond its limits.
UNAUTHORIZED: Final = 401
FORBIDDEN: Final = 403
LIMITED: Final = 429
# The method of calls that pages of other sites may not make.
POST: Final = "POST"
# What any call of a key with limits can answer.
LIMIT_CODES: Final = ("too_many_requests", "too_many_in_flight")
CHALLENGE_HEADER: Final = {
    "WWW-Authenticate": {
        "description": "Asks for a key (RFC 6750).",
        "schema": {"type": "string"},
        "example": ERROR_CODES["key_missing"].headers[0][1].decode(),
    }
}
OTHER_SENTENCES: Final = {
    "metrics": {"model_not_permitted": "This call is about all models; use a key that is not limited to some."}
}


def document_access(options: dict[str, Any], name: str) -> dict[str, Any]:
    """Return the options of a route, with how its call is authorized and refused.

    Args:
        options: The options.
        name: The name of the function that answers.

    Raises:
        KeyError: The route has no scope.
    """
    scope = ROUTE_SCOPES[name]
    if scope is None and name not in OF_ANY_KEY:
        return options
    documented = options.get("responses") or {}
    responses = {
        **documented,
        **_refusals(name, scope, options.get("methods")),
        LIMITED: _limited(documented.get(LIMITED)),
    }
    return {
        **options,
        "responses": {status: responses[status] for status in sorted(responses)},
        "openapi_extra": {**(options.get("openapi_extra") or {}), "security": SECURITY},
    }


def describe_scope(name: str) -> str:
    """Return a sentence on what the call of a function requires, or "" if that is nothing."""
    scope = ROUTE_SCOPES[name]
    if name in OF_ANY_KEY:
        return "In a service with keys: requires a key, with any scope."
    if scope is None:
        return ""
    models = ", for all models" if name in OF_ALL_MODELS else ""
    unless = f", unless `SOFTSTEP_{ROUTE_SETTINGS[name].upper()}` is `open`" if name in ROUTE_SETTINGS else ""
    return f"In a service with keys: requires the scope `{scope}`{models}{unless}."


def _refusals(name: str, scope: Scope | None, methods: Collection[str] | None) -> dict[int, Any]:
    """Return the responses to requests that may not be made; without a scope any valid key will do."""
    unknown = {**error_response(SENTENCES, ("key_missing", "key_invalid")), "headers": CHALLENGE_HEADER}
    if scope is None:
        return {UNAUTHORIZED: unknown}
    sentences = {
        **SENTENCES,
        "scope_missing": f"The key has no scope {scope}; use one that has it.",
        **OTHER_SENTENCES.get(name, {}),
    }
    codes = (
        "scope_missing",
        *(() if name in OF_NO_MODEL else ("model_not_permitted",)),
        *(("cross_site",) if POST in (methods or ()) else ()),
    )
    return {UNAUTHORIZED: unknown, FORBIDDEN: error_response(sentences, codes)}


def _limited(documented: dict[str, Any] | None) -> dict[str, Any]:
    """Return the response of a call that a limit refuses, with the examples that it has without limits."""
    response = error_response(SENTENCES, LIMIT_CODES)
    if documented is None:
        return response
    examples = response["content"][JSON]["examples"] | documented["content"][JSON]["examples"]
    return {**documented, "content": {JSON: {"examples": examples}}}
