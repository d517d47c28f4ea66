"""Errors of HTTP as statuses and trailers of gRPC."""

from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.serve.error_codes import ERROR_CODES
from service.serve.grpc.call_status import GrpcStatus, error_trailers, grpc_status, uncoded_error
from service.serve.responses import HttpResponse, error


@pytest.mark.parametrize("code", ERROR_CODES)
def test_every_code_has_a_status(code: str) -> None:
    """Errors of clients and of the server have different statuses, and so do errors after which a retry may succeed."""
    response = error(code, "The sentence.")
    status = grpc_status(response)
    trailers = dict(error_trailers(response, b"id"))
    assert trailers[b"grpc-status"] == b"%d" % status
    assert (trailers[b"softstep-code"], trailers[b"x-request-id"]) == (code.encode(), b"id")
    row = ERROR_CODES[code]
    assert (status == GrpcStatus.INTERNAL) == (row.status == 500)
    if row.status == 503:
        assert status == GrpcStatus.UNAVAILABLE
    assert (b"grpc-retry-pushback-ms" in trailers) == row.retry_after


def test_a_success_and_an_error_without_a_code() -> None:
    """The second has no trailer for a code."""
    assert grpc_status(HttpResponse(200, b"")) == GrpcStatus.OK
    late = uncoded_error(504, "Late.")
    assert grpc_status(late) == GrpcStatus.DEADLINE_EXCEEDED
    assert b"softstep-code" not in dict(error_trailers(late, b"id"))


@given(text=st.text(st.characters(exclude_categories=["Cs"])))
def test_sentences_are_percent_encoded(text: str) -> None:
    """All but the visible characters of ASCII and the space; a client decodes the sentence."""
    message = dict(error_trailers(uncoded_error(404, text), b"id"))[b"grpc-message"]
    assert all(0x20 <= byte <= 0x7E for byte in message)
    assert unquote(message.decode()) == text
    plain = 'Row 0 has 3 values; this model takes 4: [a-z] {"x": 1} <~>!'
    assert dict(error_trailers(uncoded_error(404, plain), b"id"))[b"grpc-message"] == plain.encode()
