"""The ASGI pieces around every response."""

import pytest
from fastapi import FastAPI

from service.serve.api.app import CALLS
from service.serve.asgi import route_template


def call_paths() -> list[str]:
    """Return the path of every documented call."""
    app = FastAPI()
    app.include_router(CALLS)
    return sorted(app.openapi()["paths"])


@pytest.mark.parametrize("template", call_paths())
@pytest.mark.parametrize(("name", "version"), [("iris", "1"), ("v1", "1"), ("models", "12"), ("versions", "2")])
def test_a_route_has_no_name_and_no_version(template: str, name: str, version: str) -> None:
    """The route of a request is the template of its path, without the part that names a version."""
    values = {"name": name, "version": version}
    parameters = {key: value for key, value in values.items() if f"{{{key}}}" in template}
    scope = {"path": template.format(**values), "path_params": parameters}
    assert route_template(scope) == template.replace("/versions/{version}", "")
