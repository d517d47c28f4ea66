"""Content types of request bodies, and bodies that a browser sends for a page of another site."""

import itertools
from collections.abc import Callable

import pytest

from service.errors import MediaTypeError
from service.serve.handlers.content_types import JSON_TYPES, check_content_type
from service.serve.origins import Origins
from service.serve.responses import RequestHead
from tests.support.http_connection import Response
from tests.support.http_requests import Headers, instances, request
from tests.support.server_pair import Pair

ROW = [5.1, 3.5, 1.4, 0.2]
SITE, OTHER = "https://a.example", "https://b.example"
UNASKED = [
    None,
    "",
    "text/plain",
    "text/plain;charset=UTF-8",
    "Text/Plain; charset=utf-8; application/json",
    "application/x-www-form-urlencoded",
]
ASKED = ["application/json", "application/json; charset=utf-8", "application/octet-stream"]
REFUSED = ["multipart/form-data; boundary=x", "text/csv", "text/html", "text/plain, application/json", "json", "x"]


def typed(content_type: str | None, origin: str | None = None, site: str | None = None) -> list[tuple[str, str]]:
    """The headers of a request, without those that are None."""
    headers = (("Content-Type", content_type), ("Origin", origin), ("Sec-Fetch-Site", site))
    return [(name, value) for name, value in headers if value is not None]


def outcome(headers: Headers, *allowed: str) -> str:
    """Return the code of a check, or "" for an accepted head."""
    head = RequestHead.of({name.lower().encode(): value.encode() for name, value in headers})
    try:
        check_content_type(head, JSON_TYPES, Origins(allowed))
    except MediaTypeError as reason:
        return reason.code
    return ""


@pytest.mark.parametrize("content_type", [*UNASKED, *ASKED])
def test_a_program_may_send_any_type_of_json(content_type: str | None) -> None:
    """A request without Origin comes from no page of another site."""
    assert outcome(typed(content_type)) == ""
    assert outcome(typed(content_type, site="same-origin")) == ""


@pytest.mark.parametrize("content_type", REFUSED)
def test_other_types_are_refused(content_type: str) -> None:
    """They are refused wherever they come from, an allowed page included."""
    for origin, site in itertools.product((None, SITE, OTHER), (None, "same-origin", "cross-site")):
        assert outcome(typed(content_type, origin, site), SITE) == "unsupported_media_type"


@pytest.mark.parametrize("content_type", UNASKED)
def test_a_type_that_needs_no_preflight_is_refused_from_another_site(content_type: str | None) -> None:
    """Only an allowed origin or a page of the service itself may send it; "null" is an origin like any other."""
    for site in (None, "cross-site", "same-site", "none", "Same-Origin", ""):
        for origin in (OTHER, "null", "", f"{SITE}.evil.example", f"{SITE}:8000", SITE.upper()):
            assert outcome(typed(content_type, origin, site), SITE) == "cross_site", (origin, site)
        assert outcome(typed(content_type, SITE, site), SITE) == ""
        assert outcome(typed(content_type, OTHER, site), "*") == ""
    assert outcome(typed(content_type, OTHER, "same-origin"), SITE) == ""


@pytest.mark.parametrize("content_type", ASKED)
def test_a_type_that_needs_a_preflight_is_accepted_from_any_page(content_type: str) -> None:
    """The browser asks before it sends such a body, so the service refuses by the answer to the preflight."""
    assert outcome(typed(content_type, OTHER, "cross-site"), SITE) == ""


def calls_of(pair: Pair) -> list[str]:
    """Return the targets of all calls that take a body, for iris version 1."""
    (document,) = pair.ask(request("GET", "/openapi.json"))
    paths = [path for path, item in document.json["paths"].items() if "post" in item]
    return [*(path.replace("{name}", "iris").replace("{version}", "1") for path in paths), "/vertex"]


@pytest.fixture
def guarded(paired: Callable[..., Pair]) -> Pair:
    """A service that allows one origin, and has the path of Vertex AI too."""
    return paired(cors_origins=(SITE,), predict_route="/vertex", default_model="iris")


@pytest.mark.parametrize("fast", [True, False], ids=["fast", "plain"])
def test_no_call_takes_a_body_that_another_site_sends_unasked(guarded: Pair, *, fast: bool) -> None:
    """Every call refuses it with 415, with and without a body; no model is unloaded and nothing is stored."""
    calls = calls_of(guarded)
    assert len(calls) > 20
    for target, content_type, body in itertools.product(calls, (None, "text/plain"), (None, b"", b"{}")):
        headers = typed(content_type, OTHER, "cross-site")
        (answer,) = guarded.ask(request("POST", target, body, headers), fast=fast)
        assert (answer.status, answer.json["code"]) == (415, "cross_site"), target
    for target in (*calls, "/v1/models/iris:feedback?wait=true"):
        (answer,) = guarded.ask(request("POST", target, b"{}", typed("multipart/form-data; boundary=x")), fast=fast)
        assert (answer.status, answer.json["code"]) == (415, "unsupported_media_type"), target
    (metadata,) = guarded.ask(request("GET", "/v1/models/iris"))
    assert (metadata.json["ready"], metadata.json["log_seq"]) == (True, 0)


@pytest.mark.parametrize("fast", [True, False], ids=["fast", "plain"])
def test_feedback_of_another_site_is_refused_before_it_is_stored(guarded: Pair, *, fast: bool) -> None:
    """Valid feedback of another site is not stored, also when its head has been seen before; an allowed page's is."""
    body = instances([ROW], labels=["setosa"])
    bad, good = (request("POST", "/v1/models/iris:feedback", body, typed("text/plain", page)) for page in (OTHER, SITE))
    bad, good = (data.replace(b"X-Request-Id: test\r\n", b"") for data in (bad, good))
    answers = guarded.ask(bad, good, bad, bad, good, good, fast=fast)
    assert [answer.status for answer in answers] == [415, 202, 415, 415, 202, 202]
    (metadata,) = guarded.ask(request("GET", "/v1/models/iris"))
    assert metadata.json["log_seq"] == 3


def test_text_with_json_is_a_prediction(pair: Pair) -> None:
    """A page of the service itself may send a string by `fetch`, whose type is text/plain; so may any program."""
    target, body = "/v1/models/iris:predict", instances([ROW])
    plain = pair.ask(request("POST", target, body))
    for headers in (typed("text/plain;charset=UTF-8"), typed("text/plain", OTHER, "same-origin")):
        assert answered(pair.ask(request("POST", target, body, headers))) == answered(plain)
        assert answered(pair.ask(request("POST", target, body, headers), fast=False)) == answered(plain)


def answered(answers: list[Response]) -> list[tuple[int, bytes]]:
    return [(answer.status, answer.body) for answer in answers]
