"""Origins of web pages: what their pages may send, and the CORS headers of answers to them."""

import itertools
from collections.abc import Callable

import pytest

from service.errors import CrossSiteError
from service.serve.origins import EXPOSED, Origins
from tests.support.http_requests import Headers, instances, request
from tests.support.server_pair import Pair

ROW = [5.1, 3.5, 1.4, 0.2]
A, B = b"https://a.example", b"https://b.example"
OTHER: Headers = [("Origin", B.decode()), ("Sec-Fetch-Site", "cross-site")]
VARY = (b"vary", b"Origin")
EXPOSE = (b"access-control-expose-headers", EXPOSED)


@pytest.mark.parametrize("origin", [None, A, b"null", b""])
def test_no_origin_is_allowed_while_cors_is_off(origin: bytes | None) -> None:
    """No origin gets CORS headers."""
    assert Origins(()).headers(origin) == ()
    assert origin is None or not permitted(origin=origin)


def test_a_named_origin_is_allowed_alone() -> None:
    """The answer names the origin that asks; any other answer varies by Origin too."""
    origins = Origins((A.decode(), "https://c.example"))
    assert origins.headers(A) == (VARY, (b"access-control-allow-origin", A), EXPOSE)
    for origin in (None, B, b"null", b"*", b"", A + b":443", A.upper(), A + b", " + B):
        assert origins.headers(origin) == (VARY,)
        assert origin is None or not permitted(A, origin=origin)
    assert permitted(A, origin=A)


@pytest.mark.parametrize("origin", [None, A, b"null", b"anything"])
def test_every_origin_may_be_allowed(origin: bytes | None) -> None:
    """One answer serves all, also requests without an origin."""
    assert Origins(("*", A.decode())).headers(origin) == (VARY, (b"access-control-allow-origin", b"*"), EXPOSE)
    assert origin is None or permitted(b"*", origin=origin)


def permitted(*allowed: bytes, origin: bytes | None = None, site: bytes | None = None, host: bytes = b"own") -> bool:
    """Whether a request with these headers passes where some origins are allowed."""
    try:
        Origins(one.decode() for one in allowed).check_site(origin, site, host)
    except CrossSiteError:
        return False
    return True


def test_a_program_may_send_anything() -> None:
    """A request without both headers comes from no web page; one that a user starts without a page is like it."""
    assert permitted()
    assert permitted(A)
    assert permitted(site=b"none")


def test_a_page_of_the_service_may_send_anything() -> None:
    """Over HTTPS its browser says so, whatever a proxy makes of the host; over HTTP the hosts are compared."""
    assert permitted(origin=B, site=b"same-origin", host=b"inner:8000")
    for origin, host in [
        (b"http://own:8000", b"own:8000"),
        (b"http://own:8000", b" OWN:8000 "),
        (b"http://Own", b"own"),
        (b"http://own", b"own:80"),
        (b"https://own", b"own:443"),
        (b"http://[::1]:8000", b"[::1]:8000"),
    ]:
        assert permitted(origin=origin, host=host), origin
    for origin, host in [
        (b"http://own", b"own:8000"),
        (b"http://own:8000", b"own"),
        (b"http://own", b"own:443"),
        (b"http://own.b.example", b"own"),
        (b"http://own/", b"own"),
        (b"own", b"own"),
        (b"http://", b""),
        (b"null", b""),
        (b"null", b"null"),
        (b"", b""),
    ]:
        assert not permitted(origin=origin, host=host), origin


@pytest.mark.parametrize("site", [b"cross-site", b"same-site", b"Same-Origin", b"", b"x"])
def test_a_page_of_another_site_may_send_nothing(site: bytes) -> None:
    """Its browser names no origin, or one that is not allowed; another port of the same machine is another origin."""
    for origin in (None, B, b"null", b"", A + b".b.example", A + b":8000", A.upper(), b"http://own"):
        assert not permitted(origin=origin, site=site)
        assert not permitted(A, origin=origin, site=site)
        assert permitted(b"*", origin=origin, site=site)
    assert permitted(A, origin=A, site=site)


def test_an_origin_alone_is_compared_with_the_host() -> None:
    """Over plain HTTP a browser sends the origin alone."""
    for origin in (B, b"null", b"", A + b".b.example", A.upper()):
        assert not permitted(A, origin=origin)
        assert not permitted(A, origin=origin, site=b"none")
    assert permitted(A, origin=A)


@pytest.fixture
def guarded(paired: Callable[..., Pair]) -> Pair:
    """A service that allows one origin, and has the path of Vertex AI too."""
    return paired(cors_origins=(A.decode(),), predict_route="/vertex", default_model="iris")


@pytest.mark.parametrize("fast", [True, False], ids=["fast", "plain"])
def test_no_call_takes_what_another_site_sends(guarded: Pair, *, fast: bool) -> None:
    """Every POST of it gets 403, whatever its type; no model is unloaded and nothing is stored. It may read."""
    calls = [*guarded.list_posts(), "/vertex", "/v1/models/iris:feedback?wait=true"]
    for target, content_type, body in itertools.product(calls, ("text/plain", "application/json"), (None, b"{}")):
        (answer,) = guarded.ask(request("POST", target, body, [*OTHER, ("Content-Type", content_type)]), fast=fast)
        assert (answer.status, answer.json["code"]) == (403, "cross_site"), target
        assert answer.header("access-control-allow-origin") is None
    (metadata,) = guarded.ask(request("GET", "/v1/models/iris", None, OTHER), fast=fast)
    assert (metadata.json["ready"], metadata.json["log_seq"]) == (True, 0)


@pytest.mark.parametrize("fast", [True, False], ids=["fast", "plain"])
def test_feedback_of_another_site_is_refused_before_it_is_stored(guarded: Pair, *, fast: bool) -> None:
    """Valid feedback of another site is not stored, also when its head has been seen before; an allowed page's is."""
    body = instances([ROW], labels=["setosa"])
    bad, good = (request("POST", "/v1/models/iris:feedback", body, [("Origin", one.decode())]) for one in (B, A))
    bad, good = (data.replace(b"X-Request-Id: test\r\n", b"") for data in (bad, good))
    answers = guarded.ask(bad, good, bad, bad, good, good, fast=fast)
    assert [answer.status for answer in answers] == [403, 202, 403, 403, 202, 202]
    (metadata,) = guarded.ask(request("GET", "/v1/models/iris"))
    assert metadata.json["log_seq"] == 3
