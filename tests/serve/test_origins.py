"""Origins of web pages, and the CORS headers of answers to them."""

import pytest

from service.serve.origins import EXPOSED, Origins

A, B = b"https://a.example", b"https://b.example"
VARY = (b"vary", b"Origin")
EXPOSE = (b"access-control-expose-headers", EXPOSED)


@pytest.mark.parametrize("origin", [None, A, b"null", b""])
def test_no_origin_is_allowed_while_cors_is_off(origin: bytes | None) -> None:
    """No origin gets CORS headers."""
    assert Origins(()).headers(origin) == ()
    assert origin is None or not Origins(()).allow(origin)


def test_a_named_origin_is_allowed_alone() -> None:
    """The answer names the origin that asks; any other answer varies by Origin too."""
    origins = Origins((A.decode(), "https://c.example"))
    assert origins.headers(A) == (VARY, (b"access-control-allow-origin", A), EXPOSE)
    for origin in (None, B, b"null", b"*", b"", A + b":443", A.upper(), A + b", " + B):
        assert origins.headers(origin) == (VARY,)
        assert origin is None or not origins.allow(origin)
    assert origins.allow(A)


@pytest.mark.parametrize("origin", [None, A, b"null", b"anything"])
def test_every_origin_may_be_allowed(origin: bytes | None) -> None:
    """One answer serves all, also requests without an origin."""
    assert Origins(("*", A.decode())).headers(origin) == (VARY, (b"access-control-allow-origin", b"*"), EXPOSE)
    assert origin is None or Origins(("*",)).allow(origin)
