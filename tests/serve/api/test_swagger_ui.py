"""The page at /docs: this service serves everything that it loads, and a browser may load nothing else."""

import re
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from urllib.parse import urljoin

import httpx
import pytest

from tests.support.http_requests import request
from tests.support.running_service import Service
from tests.support.server_pair import Pair

TYPES = {".js": "text/javascript", ".css": "text/css", ".png": "image/png"}


class Names(HTMLParser):
    """Collects what a page loads, and the text of its scripts and styles."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []
        self.inline = ""
        self._in = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._in = tag
        self.names += [value for name, value in attrs if name in ("src", "href") and value]
        assert not [name for name, _ in attrs if name.startswith("on") or name == "style"]

    def handle_data(self, data: str) -> None:
        if self._in in ("script", "style"):
            self.inline += data.strip()


@pytest.fixture(scope="module")
def web(service: Service) -> Iterator[httpx.Client]:
    """A client of the running service that follows no redirect."""
    with httpx.Client(base_url=service.url) as client:
        yield client


@pytest.fixture(scope="module")
def names(web: httpx.Client) -> Names:
    """The addresses that the page names."""
    found = Names()
    found.feed(web.get("/docs").text)
    return found


def test_everything_the_page_names_is_served_here(web: httpx.Client, names: Names) -> None:
    """Each script, style and picture is a relative path that answers with its type, and nothing stands in the page."""
    assert len(names.names) >= 4
    assert names.inline == ""
    for name in names.names:
        assert not re.match(r"[a-z]+:|/", name), "it would leave this service, or the prefix of a proxy"
        answer = web.get(urljoin("/docs", name))
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith(TYPES[name[name.rindex(".") :]])
        assert len(answer.content) > 100


def test_the_style_sheet_loads_nothing(web: httpx.Client) -> None:
    """The pictures of the style sheet are data in it."""
    addresses = re.findall(r"url\(([^)]{1,8})|@import", web.get("/docs/swagger-ui.css").text)
    assert addresses
    assert [address for address in addresses if not address.strip("\"'").startswith("data:")] == []


def test_the_start_asks_for_the_document_here(web: httpx.Client) -> None:
    """The script that starts the page names one address, the OpenAPI document, and no validator."""
    text = web.get("/docs/start.js").text
    assert re.findall(r'url: "([^"]*)"', text) == ["openapi.json"]
    assert "validatorUrl: null" in text
    assert web.get("/openapi.json").json()["info"]["title"] == "Softstep"


def test_the_offered_bodies_are_answered(web: httpx.Client) -> None:
    """The shipped model `iris` answers the bodies that the page offers to send."""
    paths = web.get("/openapi.json").json()["paths"]
    for path in ("/v1/models/{name}:predict", "/v2/models/{name}/infer"):
        for example in paths[path]["post"]["requestBody"]["content"]["application/json"]["examples"].values():
            assert web.post(path.replace("{name}", "iris"), json=example["value"]).status_code == 200


@pytest.mark.parametrize("path", ["/docs", "/docs/start.js", "/docs/swagger-ui-bundle.js"])
def test_a_browser_may_load_from_this_service_alone(web: httpx.Client, path: str) -> None:
    """The policy begins with nothing at all, and every exception is this service or, for pictures, data."""
    headers = web.get(path).headers
    directives = dict(part.strip().split(" ", 1) for part in headers["content-security-policy"].split(";"))
    assert directives["default-src"] == "'none'"
    assert {source for sources in directives.values() for source in sources.split()} <= {"'none'", "'self'", "data:"}
    assert "data:" not in directives["script-src"]
    assert headers["x-content-type-options"] == "nosniff"


def test_switched_off(paired: Callable[..., Pair]) -> None:
    """Without documentation there is neither the page nor a file of it."""
    pair = paired(docs=False)
    paths = ("/docs", "/docs/start.js", "/docs/swagger-ui-bundle.js", "/openapi.json")
    answers = [pair.ask(request("GET", path))[0] for path in paths]
    assert [answer.status for answer in answers] == [404] * len(paths)
