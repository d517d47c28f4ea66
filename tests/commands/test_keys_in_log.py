"""`softstep keys` on a log in PostgreSQL: the same output as on a file, and an audit entry with each change."""

import re
from pathlib import Path
from typing import Any

import pytest

from service.access.api_key import KEY
from service.settings import Settings
from service.store.log.facts_opening import open_facts
from service.store.log.shared_facts import MODELS_FACT
from tests.support.data_directories import json_lines, run_command
from tests.support.postgres_servers import PASSWORD

UNREACHABLE = "postgresql://127.0.0.1:1/none"


@pytest.fixture(autouse=True)
def single_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests' server has no standby."""
    monkeypatch.setenv("SOFTSTEP_LOG_COPIES", "1")


def listed(*place: object) -> list[Any]:
    return json_lines(run_command("keys", "list", "--json", *place))


def audit(address: str) -> list[Any]:
    return json_lines(run_command("keys", "audit", "--log", address))


def test_a_log_does_what_a_file_does(address: str, tmp_path: Path) -> None:
    """Each command prints the same but for what is random, and nothing of the log's address."""
    outputs = []
    for place in (("--data", tmp_path), ("--log", address)):
        texts = [run_command("keys", "create", "--name", "one", "--scopes", "predict,admin", *place)]
        key_id = texts[0].stdout[9:17]
        texts.append(run_command("keys", "rotate", key_id, *place))
        texts.append(run_command("keys", "create", "--name", "two", "--json", "--rows-per-second", "10", *place))
        texts.append(run_command("keys", "list", *place))
        texts.extend(run_command("keys", action, key_id, *place) for action in ("revoke", "revoke", "rotate"))
        texts.append(run_command("keys", "revoke", "22222222", *place))
        assert all(PASSWORD not in text.stdout + text.stderr for text in texts)
        known = {key_id: "<id>", listed(*place)[1]["id"]: "<id>"}
        outputs.append([(text.returncode, mask(text.stdout, known), mask(text.stderr, known)) for text in texts])
    assert outputs[0] == outputs[1]
    assert [code for code, _, _ in outputs[0]] == [0, 0, 0, 0, 0, 0, 1, 1]


def mask(text: str, known: dict[str, str]) -> str:
    """Return a text without keys, ids and moments."""
    text = re.sub(KEY.pattern.decode(), "<key>", text)
    for word, name in known.items():
        text = text.replace(word, name)
    text = text.replace("the document of API keys in the log", "the file of API keys")
    return re.sub(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d)?(Z|\+00:00)?", "<moment>", text)


def test_each_change_is_in_the_audit(address: str) -> None:
    """In order, with who did it and when; what is refused or changes nothing is not."""
    assert audit(address) == []
    key_id = run_command("keys", "create", "--name", "one", "--log", address).stdout[9:17]
    for action in ("rotate", "revoke", "revoke", "rotate"):
        run_command("keys", action, key_id, "--log", address)
    entries = audit(address)
    assert [(entry["action"], entry["object"]) for entry in entries] == [
        (action, key_id) for action in ("create_key", "rotate_key", "revoke_key")
    ]
    assert [entry["time"] for entry in entries] == sorted(entry["time"] for entry in entries)
    assert all(list(entry) == ["time", "actor", "action", "object", "outcome"] for entry in entries)
    settings = Settings(log=address)
    with open_facts(settings, address, "a test") as facts:
        for note in (b"", b"[1]", b"\xff", b'{"action": "load"}'):
            facts.change(MODELS_FACT, lambda _: b"x", note)
    damaged = [entry.get("damaged", False) for entry in audit(address)]
    assert damaged == [False] * 3 + [True] * 3 + [False]


def test_the_audit_is_printed_in_pages(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.commands.keys.NOTES_AT_ONCE", 2)
    for _ in range(5):
        run_command("keys", "create", "--name", "one", "--log", address)
    assert len(audit(address)) == 5


def test_options_come_before_settings(address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that is named counts, then a log that is named, then the file and the log of the environment."""
    own, other = tmp_path / "own.json", tmp_path / "other.json"
    monkeypatch.setenv("SOFTSTEP_LOG", address)
    run_command("keys", "create", "--name", "log", "--data", tmp_path)
    monkeypatch.setenv("SOFTSTEP_KEYS_FILE", str(own))
    run_command("keys", "create", "--name", "own", "--data", tmp_path)
    run_command("keys", "create", "--name", "other", "--keys-file", other, "--data", tmp_path)
    names = [[key["name"] for key in listed(*place)] for place in ((), ("--log", address), ("--keys-file", other))]
    assert names == [["own"], ["log"], ["other"]]
    assert run_command("keys", "list", "--keys-file", other, "--log", address).returncode == 2
    assert not (tmp_path / "keys.json").exists()


def test_a_file_has_no_audit_to_print(tmp_path: Path) -> None:
    done = run_command("keys", "audit", "--data", tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert "audit.jsonl" in done.stderr


@pytest.mark.parametrize("argv", [["create", "--name", "x"], ["list"], ["revoke", "22222222"], ["audit"]])
def test_a_log_that_cannot_be_reached_is_reported(argv: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is printed that looks like a key."""
    monkeypatch.setenv("SOFTSTEP_LOG_SECONDS", "0.2")
    done = run_command("keys", *argv, "--log", UNREACHABLE)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "softstep: the feedback log's database cannot be reached; try again\n"


def test_no_key_is_printed_that_may_be_lost(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server without a standby confirms nothing where two must have a change."""
    monkeypatch.setenv("SOFTSTEP_LOG_COPIES", "2")
    done = run_command("keys", "create", "--name", "x", "--log", address)
    assert (done.returncode, done.stdout) == (1, "")
    assert "may be made or not" in done.stderr
