"""Content types of request bodies."""

import itertools
from collections.abc import Callable

import pytest

from service.errors import MediaTypeError
from service.serve.handlers.content_types import JSON_TYPES, check_content_type
from service.serve.responses import RequestHead
from tests.support.http_connection import Response
from tests.support.http_requests import instances, request
from tests.support.server_pair import Pair

ROW = [5.1, 3.5, 1.4, 0.2]
ACCEPTED = [
    None,
    "",
    "text/plain",
    "text/plain;charset=UTF-8",
    "Text/Plain; charset=utf-8; application/json",
    "application/x-www-form-urlencoded",
    "application/json",
    "application/json; charset=utf-8",
    "application/octet-stream",
]
REFUSED = ["multipart/form-data; boundary=x", "text/csv", "text/html", "text/plain, application/json", "json", "x"]


def outcome(content_type: str | None) -> str:
    """Return the code of a check, or "" for an accepted head."""
    head = RequestHead(None if content_type is None else content_type.encode())
    try:
        check_content_type(head, JSON_TYPES)
    except MediaTypeError as reason:
        return reason.code
    return ""


@pytest.mark.parametrize("content_type", ACCEPTED)
def test_any_type_of_json_is_accepted(content_type: str | None) -> None:
    """A body without a type is read as JSON, and so is one with the default type of curl or of `fetch`."""
    assert outcome(content_type) == ""


@pytest.mark.parametrize("content_type", REFUSED)
def test_other_types_are_refused(content_type: str) -> None:
    """A type that is no form of JSON is refused, one of several types included."""
    assert outcome(content_type) == "unsupported_media_type"


@pytest.mark.parametrize("fast", [True, False], ids=["fast", "plain"])
def test_no_call_takes_another_type(paired: Callable[..., Pair], *, fast: bool) -> None:
    """Every call refuses a form with files before it reads it."""
    pair = paired(default_model="iris")
    for target in (*pair.list_posts(), "/v1/models/iris:feedback?wait=true"):
        headers = [("Content-Type", "multipart/form-data; boundary=x")]
        (answer,) = pair.ask(request("POST", target, b"{}", headers), fast=fast)
        assert (answer.status, answer.json["code"]) == (415, "unsupported_media_type"), target


def test_text_with_json_is_a_prediction(pair: Pair) -> None:
    """A page of the service itself may send a string by `fetch`, whose type is text/plain; so may any program."""
    target, body = "/v1/models/iris:predict", instances([ROW])
    plain = pair.ask(request("POST", target, body))
    page = [("Origin", "https://b.example"), ("Sec-Fetch-Site", "same-origin")]
    for headers, fast in itertools.product(([], page), (True, False)):
        text = request("POST", target, body, [("Content-Type", "text/plain;charset=UTF-8"), *headers])
        assert answered(pair.ask(text, fast=fast)) == answered(plain)


def answered(answers: list[Response]) -> list[tuple[int, bytes]]:
    return [(answer.status, answer.body) for answer in answers]
