"""Write the scope of each call into docs/security.md, from the routes: `python docs/write_scopes.py`."""  # noqa: INP001

from collections import defaultdict
from pathlib import Path

from fastapi.routing import iter_route_contexts
from marked_table import replace_table

from service.serve.api.app import CALLS
from service.serve.api.scoped_route import ScopedRoute
from service.serve.api.swagger_ui import documentation
from service.serve.authorization.route_scopes import OF_ANY_KEY, ROUTE_SCOPES, ROUTE_SETTINGS

PAGE = Path(__file__).parent / "security.md"

HEAD = """
| scope | calls |
|---|---|
"""
# The files of the page at /docs, whose row has the page alone.
FILES = "/docs/"
VERSION = "/versions/"
ALIASES = {"/v2/"}


def page(text: str) -> str:
    """Return the text of the page with the table between its marks."""
    return replace_table(text, "scopes", table())


def table() -> str:
    """Return a line for each scope, in which calls that share one have the order of the routes."""
    calls: defaultdict[str, dict[str, None]] = defaultdict(dict)
    for context in iter_route_contexts([*CALLS.routes, *documentation.routes]):
        route = context.original_route
        path = str(context.path).replace(":name}", "}")
        if isinstance(route, ScopedRoute) and VERSION not in path and path not in ALIASES and FILES not in path:
            for method in sorted(context.methods or ()):
                calls[scope_of(route.endpoint.__name__)][f"`{method} {path}`"] = None
    return HEAD + "".join([f"| {scope} | {', '.join(calls[scope])} |\n" for scope in sorted(calls, key=place)])


def scope_of(function: str) -> str:
    """Return what the call of a function requires, in a few words."""
    scope, setting = ROUTE_SCOPES[function], ROUTE_SETTINGS.get(function)
    if setting is not None:
        return f"as `SOFTSTEP_{setting.upper()}` says"
    if function in OF_ANY_KEY:
        return "any"
    return "none" if scope is None else f"`{scope}`"


def place(scope: str) -> int:
    """Return the place of a line: calls that require a scope first, then those that a setting decides about."""
    order = ["`predict`", "`feedback`", "`admin`", "any"]
    return order.index(scope) if scope in order else len(order) + (scope == "none")


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text()))
