"""The OpenAPI document, and Swagger UI on it; every byte of it comes from this service.

The files of Swagger UI come with the package `fastapi-swagger`; they are the bytes that Swagger UI's authors publish.
The page's Content-Security-Policy lets a browser load from this service and from nowhere else, and run no script and
apply no style that stands in the page itself.
"""

from functools import cache
from importlib.resources import files
from typing import Any, Final

from fastapi import APIRouter, Request
from starlette.responses import Response

from service.access.scopes import Scope
from service.errors import AccessError
from service.serve.api.dependencies import head_of, json_reply
from service.serve.api.openapi_document import with_rows
from service.serve.api.row_schema import make_row_component
from service.serve.api.scoped_route import ScopedRoute
from service.serve.asgi import Reply
from service.serve.responses import HttpResponse

PAGE: Final = b"""<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Softstep</title>
<link rel="icon" href="docs/favicon-32x32.png">
<link rel="stylesheet" href="docs/swagger-ui.css">
<div id="swagger-ui"></div>
<script src="docs/swagger-ui-bundle.js"></script>
<script src="docs/start.js"></script>
</html>
"""
# Without `validatorUrl: null` the page would show a badge of the authors' server.
START: Final = b"""SwaggerUIBundle({
  url: "openapi.json",
  dom_id: "#swagger-ui",
  deepLinking: true,
  tryItOutEnabled: true,
  validatorUrl: null,
});
"""
HTML: Final = b"text/html; charset=utf-8"
SCRIPT: Final = b"text/javascript; charset=utf-8"
# Swagger UI's style sheet has its pictures as data.
POLICY: Final = (
    b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    b"connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS: Final = (
    (b"content-security-policy", POLICY),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
)

documentation = APIRouter(include_in_schema=False, route_class=ScopedRoute)


@documentation.get("/openapi.json")
async def openapi_document(request: Request) -> Response:
    """Return the OpenAPI document, with a component for the rows of each served model that the sender may ask."""
    return json_reply(with_rows(request.app.openapi(), _list_rows(request)))


@documentation.get("/docs")
async def docs_page() -> Response:
    """Return the page that shows the OpenAPI document and tries its requests."""
    return Reply(HttpResponse(200, PAGE, HTML, HEADERS))


@documentation.get("/docs/start.js")
async def docs_start() -> Response:
    """Return the script that starts Swagger UI on the page."""
    return Reply(HttpResponse(200, START, SCRIPT, HEADERS))


@documentation.get("/docs/swagger-ui-bundle.js")
async def docs_script() -> Response:
    """Return Swagger UI itself."""
    return Reply(HttpResponse(200, _file("swagger-ui-bundle.js"), SCRIPT, HEADERS))


@documentation.get("/docs/swagger-ui.css")
async def docs_style() -> Response:
    """Return Swagger UI's style sheet."""
    return Reply(HttpResponse(200, _file("swagger-ui.css"), b"text/css; charset=utf-8", HEADERS))


@documentation.get("/docs/favicon-32x32.png")
async def docs_icon() -> Response:
    """Return Swagger UI's icon."""
    return Reply(HttpResponse(200, _file("favicon-32x32.png"), b"image/png", HEADERS))


def _list_rows(request: Request) -> dict[str, Any]:
    """Return the schema of a row of each served model by the name of its component; none without a key that permits it.

    Anyone may read the document if `SOFTSTEP_OPENAPI_ACCESS` is open, but not which models there are.
    """
    context = request.app.state.context
    try:
        principal = context.dispatcher.authorizer.authorize(head_of(request), Scope.PREDICT, None)
    except AccessError:
        return {}
    names = filter(principal.permits_model, context.now.list_names())
    served = filter(None, map(context.now.find_latest, names))
    return {f"Row.{one.name}": make_row_component(one) for one in served}


@cache
def _file(name: str) -> bytes:
    """Return one of Swagger UI's files, read when it is first needed."""
    return files("fastapi_swagger.resources").joinpath(name).read_bytes()
