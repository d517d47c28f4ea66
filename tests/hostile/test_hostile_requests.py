"""More than 200 named hostile requests over raw sockets: none breaks or teaches a service, or learns a secret."""

import json
import shutil
import socket
from collections.abc import Iterator, Mapping
from http.client import HTTPResponse
from pathlib import Path

import pytest

from tests.hostile import framing, heads, json_bodies, other_bodies, runner, targets
from tests.hostile.cases import HEALTH, Case, Cases, get
from tests.hostile.credentials import Keys, credential_cases, write_test_keys
from tests.hostile.runner import Connect, Outcome, send_cases
from tests.support.api_keys import add_key
from tests.support.certificates import Authority
from tests.support.http_requests import target_of
from tests.support.paths import SHIPPED
from tests.support.processes import workers
from tests.support.running_service import Service, serving
from tests.support.waiting import SECONDS

CASES: Cases = {**json_bodies.ALL, **other_bodies.ALL, **heads.ALL, **framing.ALL, **targets.ALL}
# Small limits, so that bodies that stop, and large ones, are refused soon.
LIMITS = {
    "SOFTSTEP_HEADER_SECONDS": 1,
    "SOFTSTEP_BODY_SECONDS": 1.5,
    "SOFTSTEP_BODY_BYTES_MAX": 2 << 20,
    "SOFTSTEP_KEEP_ALIVE_SECONDS": 2,
    "SOFTSTEP_ACCESS_LOG": "true",
    "SOFTSTEP_DEFAULT_MODEL": "iris",
}
# Paths that need no key.
OPEN = (HEALTH, "/metrics", f"http://softstep{HEALTH}", f"http://evil{HEALTH}")
# Lines of the log that a request may cause.
EXPECTED_EVENTS = {"access", "library"}


def plain(service: Service) -> Connect:
    """Return a function that connects to a service."""
    return lambda: socket.create_connection(service.address, SECONDS)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A models directory with iris alone."""
    root = tmp_path_factory.mktemp("models")
    shutil.copytree(SHIPPED / "iris", root / "iris")
    return root


@pytest.fixture(scope="module")
def open_service(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service without keys."""
    with serving(models, tmp_path_factory.mktemp("open"), **LIMITS) as running:
        yield running


@pytest.fixture(scope="module")
def keyed(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Service, Keys]]:
    """A service with keys, and the keys."""
    scratch = tmp_path_factory.mktemp("keyed")
    keys = write_test_keys(scratch / "keys.json")
    with serving(models, scratch, SOFTSTEP_KEYS_FILE=scratch / "keys.json", **LIMITS) as running:
        yield running, keys


@pytest.fixture(scope="module")
def secure(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Service, Connect, str]]:
    """A service with keys and TLS, a function that connects to it, and a key."""
    scratch = tmp_path_factory.mktemp("secure")
    authority, key = Authority(scratch), add_key(scratch / "keys.json")
    certificate, client = authority.sign("server.pem"), authority.client()
    environment = {**LIMITS, "SOFTSTEP_KEYS_FILE": scratch / "keys.json", "SOFTSTEP_TLS_CERTIFICATE": certificate}
    with serving(models, scratch, client=client, **environment) as running:
        host, _ = running.address
        connect = plain(running)
        yield running, lambda: client.wrap_socket(connect(), server_hostname=host), key


def wrong_outcomes(outcomes: Mapping[str, Outcome], cases: Cases) -> dict[str, object]:
    """Return the outcomes that have faults, or other statuses than their cases name."""
    return {
        name: (outcome.faults, outcome.statuses, cases[name].statuses)
        for name, outcome in outcomes.items()
        if outcome.faults or outcome.statuses != cases[name].statuses
    }


def log_lines(service: Service) -> list[dict[str, object]]:
    """Return the lines of a service's log after its start."""
    lines = [json.loads(line) for line in service.log.read_text().splitlines()]
    return [line for line in lines if line["event"] in EXPECTED_EVENTS or line["level"] in {"warning", "error"}]


def check_unharmed(service: Service, connect: Connect, before: list[int], key: str = "") -> None:
    """Check that no worker was replaced, nothing was learned and nothing failed."""
    with connect() as end:
        end.sendall(with_key(Case(get("/v1/models/iris", "Connection: close"), ()), key).data)
        response = HTTPResponse(end)
        response.begin()
        metadata = json.loads(response.read())
    assert (metadata["seq"], metadata["classes"]) == (0, ["setosa", "versicolor", "virginica"])
    assert workers(service.process.pid) == before
    assert {line["event"] for line in log_lines(service)} <= EXPECTED_EVENTS


def with_key(case: Case, key: str) -> Case:
    """Return a case whose first request has a key."""
    host = b"Host: localhost\r\n"
    return case._replace(data=case.data.replace(host, b"%bX-API-Key: %b\r\n" % (host, key.encode()), 1))


def test_no_hostile_request_breaks_an_open_service(open_service: Service) -> None:
    """Each request is answered as its name says, and the service serves on as before."""
    assert len(CASES) >= 200
    before, connect = workers(open_service.process.pid), plain(open_service)
    assert wrong_outcomes(send_cases(connect, CASES), CASES) == {}
    check_unharmed(open_service, connect, before)


def test_a_key_changes_no_answer(keyed: tuple[Service, Keys]) -> None:
    """With a key, each request is answered as by an open service."""
    service, keys = keyed
    before = workers(service.process.pid)
    cases = {name: with_key(case, keys.full) for name, case in CASES.items()}
    assert wrong_outcomes(send_cases(plain(service), cases), CASES) == {}
    check_unharmed(service, plain(service), before, keys.full)


def test_tls_changes_no_answer(secure: tuple[Service, Connect, str]) -> None:
    """Over TLS, each request is answered as by an open service."""
    service, connect, key = secure
    before = workers(service.process.pid)
    cases = {name: with_key(case, key) for name, case in CASES.items()}
    assert wrong_outcomes(send_cases(connect, cases), CASES) == {}
    check_unharmed(service, connect, before, key)


def test_no_hostile_request_succeeds_without_a_key(keyed: tuple[Service, Keys]) -> None:
    """Without a key, each request gets 401 or the refusal that needs no key; only open paths succeed."""
    service, keys = keyed
    before = workers(service.process.pid)
    outcomes = send_cases(plain(service), CASES)
    wrong = {}
    for name, outcome in outcomes.items():
        target = (target_of(CASES[name].data.lstrip(b"\r\n")) or "").partition("?")[0]
        allowed = {401} | {status for status in CASES[name].statuses if status >= 300 or target in OPEN}
        if outcome.faults or not set(outcome.statuses) <= allowed or len(outcome.statuses) > len(CASES[name].statuses):
            wrong[name] = (outcome.faults, outcome.statuses, allowed)
    assert wrong == {}
    check_unharmed(service, plain(service), before, keys.full)


def test_no_hostile_credential_is_accepted(keyed: tuple[Service, Keys]) -> None:
    """Keys that are damaged, misplaced, revoked, expired, or not for a call, do not permit it."""
    service, keys = keyed
    before = workers(service.process.pid)
    cases = credential_cases(keys)
    assert wrong_outcomes(send_cases(plain(service), cases), cases) == {}
    check_unharmed(service, plain(service), before, keys.full)


def test_the_judge_sees_each_fault() -> None:
    """Answers of the server's own fault, of the wrong form, too large, or with a secret, are found."""
    answers = {
        b"HTTP/1.1 500 A\r\ncontent-length: 0\r\n\r\n": "status 500",
        b"HTTP/1.1 400 A\r\ncontent-length: 2\r\n\r\n{}": "error body",
        b"HTTP/1.1 200 A\r\ncontent-type: application/json\r\ncontent-length: 20000\r\n\r\n" + b"a" * 20_000: "20",
        b"HTTP/1.1 200 A\r\ncontent-length: 6\r\n\r\nc4nary": "repeats",
    }
    for received, fault in answers.items():
        (answer,), rest = runner.split_answers(received)
        assert rest == b""
        assert any(fault in found for found in runner.fault_of(answer, None))
