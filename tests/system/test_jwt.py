"""A real service with an issuer of JWTs: keys change, the issuer fails, and tokens end."""

import json
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPResponse
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.api_keys import bearer
from tests.support.http_requests import request
from tests.support.jwt_issuer import AUDIENCE, ISSUER, KeyServer, issuer_key, key_server, key_set
from tests.support.running_service import Service, serving
from tests.support.waiting import SECONDS, wait_until

FIRST, SECOND = issuer_key("first"), issuer_key("second")
PREDICT = "/v1/models/iris:predict"
ROW = {"instances": [[5.1, 3.5, 1.4, 0.2]]}


@pytest.fixture(scope="module")
def issuer() -> Iterator[KeyServer]:
    """A server of a key set with one key."""
    with key_server(key_set(FIRST)) as server:
        yield server


@pytest.fixture(scope="module")
def secured(issuer: KeyServer, models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service that accepts that issuer's tokens, and no API keys."""
    settings: dict[str, object] = {
        "SOFTSTEP_JWT_ISSUER": ISSUER,
        "SOFTSTEP_JWT_AUDIENCE": AUDIENCE,
        "SOFTSTEP_JWT_KEYS": issuer.url,
    }
    with serving(models, tmp_path_factory.mktemp("jwt"), **settings) as running:
        yield running


@contextmanager
def client(service: Service, token: str | None = None) -> Iterator[httpx.Client]:
    """Open a client of one connection that sends a token with each request."""
    headers = [] if token is None else [bearer(token)]
    limits = httpx.Limits(max_connections=1)
    with httpx.Client(base_url=service.url, headers=headers, limits=limits) as opened:
        yield opened


def ask(service: Service, token: str | None, path: str = PREDICT, **body: Any) -> httpx.Response:
    with client(service, token) as asking:
        return asking.post(path, json=body or ROW)


def code(response: httpx.Response) -> tuple[int, str]:
    return response.status_code, response.json().get("code", "")


def test_each_call_needs_its_scope(secured: Service) -> None:
    """Without a token a call gets 401, without its scope 403, and with both it is answered."""
    assert code(ask(secured, None)) == (401, "key_missing")
    assert code(ask(secured, FIRST.token())) == (200, "")
    feedback = "/v1/models/iris:feedback"
    event = {**ROW, "labels": [0]}
    assert code(ask(secured, FIRST.token(), feedback, **event)) == (403, "scope_missing")
    assert ask(secured, FIRST.token(scope="softstep:feedback"), feedback, **event).status_code == 202
    refused = ask(secured, FIRST.token(aud="other"))
    assert code(refused) == (401, "key_invalid")
    assert refused.headers["www-authenticate"] == 'Bearer realm="softstep", error="invalid_token"'
    assert "audience" in refused.json()["error"]
    assert AUDIENCE not in refused.json()["error"]


def test_a_token_ends_within_a_second(secured: Service) -> None:
    """A token that a connection repeats is refused after its end, though its head is remembered."""
    end = time.time() + 1.2
    body = json.dumps(ROW).encode()
    # A head is remembered if it arrives together with its body and has no id of its own.
    data = request("POST", PREDICT, body, [bearer(FIRST.token(exp=end))]).replace(b"X-Request-Id: test\r\n", b"")
    answers: list[tuple[float, int]] = []
    with socket.create_connection(secured.address, SECONDS) as connection:
        while not answers or answers[-1][0] < end + 1:
            connection.sendall(data)
            answer = HTTPResponse(connection)
            answer.begin()
            answer.read()
            answers.append((time.time(), answer.status))
            time.sleep(0.02)
    assert answers[0][1] == 200
    assert {status for at, status in answers if at < end - 0.1} == {200}
    assert answers[-1][1] == 401


def test_a_long_token_is_remembered_too(secured: Service) -> None:
    """A token with 1,000 scopes is accepted, and repeated on one connection."""
    scopes = " ".join(f"softstep:other-{at}" for at in range(1000))
    with client(secured, FIRST.token(scope=f"{scopes} softstep:predict")) as asking:
        assert [asking.post(PREDICT, json=ROW).status_code for _ in range(3)] == [200] * 3


def test_unknown_keys_cause_no_flood(secured: Service, issuer: KeyServer) -> None:
    """A flood of tokens of unknown keys reaches the issuer as a few requests."""
    before, began = issuer.requests, time.monotonic()
    with client(secured) as asking:
        for at in range(100):
            header = dict([bearer(FIRST.token({"kid": f"unknown-{at}"}))])
            assert asking.post(PREDICT, json=ROW, headers=header).status_code == 401
    assert issuer.requests - before <= 2 + (time.monotonic() - began) / 5


def test_the_issuer_fails_and_changes_its_keys(secured: Service, issuer: KeyServer) -> None:
    """While the issuer fails, the last keys count; then a new key counts soon, and a withdrawn one no longer."""
    with client(secured, FIRST.token()) as asking:
        issuer.status = 500
        assert code(ask(secured, SECOND.token())) == (401, "key_invalid")
        wait_until(lambda: "answers 500" in secured.log.read_text(), 15)
        assert asking.post(PREDICT, json=ROW).status_code == 200
        issuer.status, issuer.content = 200, key_set(SECOND)
        wait_until(lambda: asking.post(PREDICT, json=ROW).status_code == 401, 15)
        assert code(ask(secured, SECOND.token())) == (200, "")
    log = secured.log.read_text()
    assert log.count("jwks_not_read") == 1
    assert issuer.url not in log
