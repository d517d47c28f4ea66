"""Each kind of secret is found in what a service writes, and a service that writes one fails its test."""

import json
import logging
from pathlib import Path

import numpy as np
import pytest

from service.access.api_key import make_key
from service.serve.wire.feedback_tokens import TokenKeys, TokenSealer
from tests.support.error_bodies import check_error
from tests.support.json_numbers import CANARY, CANARY_NUMBER
from tests.support.leaked_secrets import FORMS, SecretFinder, check_data, check_text, find_secrets

SEALER = TokenSealer(TokenKeys([bytes(32)]), "iris", 1, bytes(32), 4, np.dtype(np.float32), 60.0, lambda: 1)
SECRETS = {
    "an API key": make_key().text,
    "a JSON web token": "eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJodHRwczovL2EifQ.c2lnbmF0dXJlIG9mIGl0",
    "a feedback token": SEALER.seal_rows(np.ones((1, 4), np.float32))[0],
    "a private key": "-----BEGIN EC PRIVATE KEY-----",
    "the value of Authorization": "authorization: Basic dXNlcjpwYXNzd29yZA==",
    "marked text": CANARY,
    "a marked number": f"[{CANARY_NUMBER}, 3.5]",
}


@pytest.mark.parametrize("name", FORMS)
def test_a_secret_is_found(name: str) -> None:
    """A secret is found in the middle of a line, by its own form."""
    line = json.dumps({"event": "access", "message": f"a request with {SECRETS[name]}, refused"})
    assert name in find_secrets(line)
    with pytest.raises(AssertionError, match=name):
        check_text(line, "the log")


def test_usual_lines_have_no_secret() -> None:
    """Ids, hashes and the challenge of a refusal are no secrets."""
    usual = [
        make_key().id, f"key:{make_key().id}", "0" * 64, 'Bearer realm="softstep", error="invalid_token"',
        "send Authorization: Bearer <key>, or X-API-Key: <key>.", "softstep_requests_total 40427176000", "A" * 200,
    ]  # fmt: skip
    assert find_secrets("\n".join(usual)) == []


def test_an_error_body_with_a_secret_fails_its_test() -> None:
    """Every error that a test reads is checked."""
    body = json.dumps({"error": f"The key {make_key().text} is unknown.", "code": "key_invalid"}).encode()
    with pytest.raises(AssertionError, match="an error body has an API key"):
        check_error(401, {"content-type": "application/json"}, body)


def test_files_for_people_are_checked(tmp_path: Path) -> None:
    """The audit log and the file of keys of a data directory may have no key."""
    (tmp_path / "audit.log").write_text(make_key().text)
    with pytest.raises(AssertionError, match="has an API key"):
        check_data(tmp_path)


def test_a_line_of_the_log_with_a_secret_is_found() -> None:
    """What a service writes in the process of a test is read as it is written."""
    finder = SecretFinder()
    finder.handle(logging.makeLogRecord({"msg": "the key %s is unknown", "args": (make_key().text,)}))
    finder.handle(logging.makeLogRecord({"msg": "refused", "event": "access", "fields": {"body": CANARY}}))
    assert [line.rpartition(": ")[2] for line in finder.found] == ["an API key", "marked text"]
