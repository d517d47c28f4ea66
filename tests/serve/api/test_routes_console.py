"""The files of the console, and the page at `/` beside the liveness check of KServe's v1 protocol."""

import gzip
import re
from collections.abc import Callable

import pytest

from service.serve.api.console_files import read_console_files
from tests.support.http_connection import Response
from tests.support.http_requests import request
from tests.support.server_pair import Pair

BROWSER = ("Accept", "text/html,application/xhtml+xml,*/*;q=0.8")
BOTH = pytest.mark.parametrize("fast", [True, False], ids=["fast", "plain"])
# The limits on what a browser loads, in bytes.
PLAIN_MAX, COMPRESSED_MAX = 120_000, 50_000


def get(pair: Pair, path: str, *headers: tuple[str, str], fast: bool = True) -> Response:
    """Return the response to GET."""
    return pair.ask(request("GET", path, headers=headers), fast=fast)[0]


@BOTH
def test_a_browser_gets_the_page_and_a_probe_its_json(paired: Callable[..., Pair], *, fast: bool) -> None:
    """`/` answers HTML if the header Accept asks for it, and else the JSON of a liveness check."""
    pair = paired()
    page = get(pair, "/", BROWSER, fast=fast)
    assert (page.status, page.header("content-type")) == (200, "text/html; charset=utf-8")
    assert page.header("vary") == "Accept, Accept-Encoding"
    for headers in ([], [("Accept", "*/*")], [("Accept", "application/json")]):
        assert get(pair, "/", *headers, fast=fast).json == {"status": "alive"}
    assert pair.ask(request("HEAD", "/", headers=[BROWSER]), fast=fast)[0].body == b""


@BOTH
@pytest.mark.parametrize(
    ("settings", "answer"),
    [
        ({"console": False}, {"status": "alive"}),
        ({"health_route": "/"}, {"ready": True}),
        ({"predict_route": "/"}, {"status": "alive"}),
    ],
)
def test_the_page_gives_way(
    paired: Callable[..., Pair], settings: dict[str, object], answer: dict[str, object], *, fast: bool
) -> None:
    """Without the console, or with another route at its path, a browser gets what every client gets."""
    pair = paired(**settings)
    assert get(pair, "/", BROWSER, fast=fast).json == get(pair, "/", fast=fast).json == answer
    assert get(pair, "/console/app.js", fast=fast).status == 404


def test_every_file_is_served_in_both_encodings(paired: Callable[..., Pair]) -> None:
    """A file comes compressed or not, with a type, a policy and an ETag, by which it is not sent again."""
    pair, etags = paired(), set()
    for name, file in read_console_files().items():
        path, headers = ("/", [BROWSER]) if name == "index.html" else (f"/console/{name}", [])
        plain = get(pair, path, *headers)
        zipped = get(pair, path, *headers, ("Accept-Encoding", "br, gzip"))
        assert (plain.body, gzip.decompress(zipped.body)) == (file.plain, file.plain)
        assert (plain.header("content-encoding"), zipped.header("content-encoding")) == (None, "gzip")
        for answer, accepted in ((plain, "gzip;q=0"), (zipped, "gzip")):
            assert answer.header("content-type") == file.content_type.decode()
            assert answer.header("cache-control") == "no-cache"
            etag = str(answer.header("etag"))
            etags.add(etag)
            again = get(pair, path, *headers, ("Accept-Encoding", accepted), ("If-None-Match", f'"x", {etag}'))
            assert (again.status, again.body, again.header("etag")) == (304, b"", etag)
    assert len(etags) == 2 * len(read_console_files())


@pytest.mark.parametrize(
    "path", ["/console/index.html", "/console/none.js", "/console/..%2f..%2fworker.py", "/console/"]
)
def test_no_other_file_is_served(paired: Callable[..., Pair], path: str) -> None:
    """A name that is not in the table of files is unknown, whatever is on the disk."""
    assert get(paired(), path).status == 404


def test_the_policy_allows_this_service_alone(paired: Callable[..., Pair]) -> None:
    """The policy begins with nothing, every exception is the service itself, and markup from text is forbidden."""
    headers = dict(get(paired(), "/", BROWSER).headers)
    directives = dict(part.strip().split(" ", 1) for part in headers["content-security-policy"].split(";"))
    assert directives.pop("default-src") == "'none'"
    assert directives.pop("require-trusted-types-for") == "'script'"
    assert set(directives.values()) == {"'none'", "'self'"}
    assert (headers["x-content-type-options"], headers["referrer-policy"]) == ("nosniff", "no-referrer")


def test_the_page_names_relative_files_that_exist() -> None:
    """Every file that the page and its modules name is served, and none is named by an absolute path."""
    files = read_console_files()
    names = re.findall(rb'(?:src|href)="([^"#]*)"', files["index.html"].plain)
    assert {name.decode() for name in names} - {"./", "docs"} <= {f"console/{name}" for name in files}
    modules = {name: file.plain for name, file in files.items() if name.endswith(".js")}
    imported = {
        name.decode()
        for text in modules.values()
        for name in re.findall(rb'^import .*"\./([^"]+)";', text, re.MULTILINE)
    }
    assert imported <= set(modules)
    assert set(modules) - imported == {"app.js", "theme.js"}
    assert not [
        name for name, text in modules.items() if re.search(rb"https?://(?!www\.w3\.org/2000/svg)|innerHTML", text)
    ]


def test_what_a_browser_loads_is_small() -> None:
    """All files together stay within the limits, plain and compressed."""
    files = read_console_files().values()
    assert sum(len(file.plain) for file in files) <= PLAIN_MAX
    assert sum(len(file.compressed) for file in files) <= COMPRESSED_MAX
