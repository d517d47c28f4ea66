"""`softstep keys`: keys are made, listed, rotated and revoked without a service, and no change is lost."""

import itertools
import json
import os
import re
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from service.access.api_key import KEY
from service.access.key_file import KeyTable, LimitsRecord, read_keys
from service.access.principal import Limits, Principal
from service.access.scopes import Scope
from service.command_line import LIMITS
from tests.support.api_keys import add_key
from tests.support.data_directories import run_command, run_killed_at
from tests.support.paths import ROOT
from tests.support.processes import SECONDS

PROCESSES = 12
# Forks a process for each command once everything is imported; all begin when the pipe is closed.
TOGETHER = """
import json, os, sys
import service.commands.keys
from service.command_line import main
begin, end = os.pipe()
pids = []
for argv in json.loads(sys.argv[1]):
    pid = os.fork()
    if pid == 0:
        os.close(end)
        os.read(begin, 1)
        sys.stdout = sys.stderr
        os._exit(main(argv))
    pids.append(pid)
os.close(end)
print([os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids])
"""


def run_keys(data: Path, *argv: object) -> "subprocess.CompletedProcess[str]":
    """Run `softstep keys` in this process on a data directory."""
    return run_command("keys", *argv, "--data", data)


def listed(data: Path) -> list[dict[str, Any]]:
    """Return what `softstep keys list --json` prints."""
    return [json.loads(line) for line in run_keys(data, "list", "--json").stdout.splitlines()]


def find(data: Path, key: str) -> Principal | None:
    """Return the principal of a key in the file of a data directory, as a service finds it."""
    return KeyTable(read_keys(data / "keys.json").keys).find(key.encode(), time.time())


def audited(data: Path) -> list[tuple[str, str]]:
    """Return the action and the object of each line of the audit log."""
    lines = map(json.loads, (data / "audit.jsonl").read_text().splitlines())
    return [(line["action"], line["object"]) for line in lines]


def test_a_script_keeps_the_key_that_is_printed(tmp_path: Path) -> None:
    """In a new process the key is all of standard output, and its file and the folder are made."""
    data = tmp_path / "new" / "data"
    done = subprocess.run(
        [sys.executable, "-m", "service", "keys", "create", "--name", "fraud team", "--data", data],
        cwd=ROOT, capture_output=True, text=True, timeout=SECONDS, check=True,
        env={name: value for name, value in os.environ.items() if not name.startswith("SOFTSTEP_")},
    )  # fmt: skip
    assert re.fullmatch(KEY.pattern.decode() + "\n", done.stdout)
    assert done.stdout[18:].strip() not in done.stderr
    principal = find(data, done.stdout.strip())
    assert principal is not None
    assert (principal.scopes, principal.models) == (frozenset([Scope.PREDICT]), None)
    assert "this is the first key; from now on every call needs one" in done.stderr


def test_a_key_has_what_its_options_say(tmp_path: Path) -> None:
    """Scopes, models, limits and the end of a key are those of the command line."""
    limits = [f"--{name.replace('_', '-')}={number}" for number, name in enumerate(LIMITS, 2)]
    options = ("--scopes", "admin,feedback", "--models", "fraud-*,iris", "--expires", "9000-01-01", *limits)
    done = run_keys(tmp_path, "create", "--name", "night job", *options)
    end = datetime(9000, 1, 1, tzinfo=UTC).timestamp()
    scopes = frozenset([Scope.FEEDBACK, Scope.ADMIN])
    key = done.stdout.strip()
    assert find(tmp_path, key) == Principal(f"key:{key[9:17]}", scopes, ("fraud-*", "iris"), end, Limits(2, 3, 4, 5, 6))
    second = json.loads(run_keys(tmp_path, "create", "--name", "x", "--expires", "never", "--json").stdout)
    assert find(tmp_path, second["key"]) == Principal(f"key:{second['id']}", frozenset([Scope.PREDICT]))


def test_every_limit_is_an_option() -> None:
    """The command line has an option for each limit of a key."""
    assert list(LIMITS) == list(LimitsRecord.model_fields)


def test_keys_are_listed_without_secrets(tmp_path: Path) -> None:
    """The table and the JSON objects have every key, and neither keys nor digests."""
    first = run_keys(tmp_path, "create", "--name", "fraud team", "--rows-per-second", "50").stdout.strip()
    second = run_keys(tmp_path, "create", "--name", "old", "--models", "iris", "--expires", "never").stdout.strip()
    run_keys(tmp_path, "revoke", second[9:17])
    run_keys(tmp_path, "rotate", first[9:17])
    table, objects = run_keys(tmp_path, "list"), run_keys(tmp_path, "list", "--json")
    assert (table.returncode, table.stderr) == (0, "")
    heading, one, other = table.stdout.splitlines()
    assert heading.split() == ["id", "name", "state", "scopes", "models", "created", "expires", "limits"]
    moment = r"20\d\d-\d\d-\d\d \d\d:\d\d\+00:00"
    begin = rf"  fraud team  rotating  predict  \*       {moment}"
    assert re.fullmatch(rf"{first[9:17]}{begin}  {moment}, {moment}  rows_per_second=50", one)
    assert re.fullmatch(rf"{second[9:17]}  old         revoked   predict  iris    {moment}  - +-", other)
    digests = {secret.sha256 for record in read_keys(tmp_path / "keys.json").keys for secret in record.secrets}
    for text in (table.stdout, objects.stdout):
        assert not any(secret in text for secret in (first, second, first[18:], *digests))
    names = {"id", "name", "created", "scopes", "models", "secrets", "limits", "revoked", "state"}
    assert [set(members) for members in listed(tmp_path)] == [names, names]
    assert [members["state"] for members in listed(tmp_path)] == ["rotating", "revoked"]
    assert [set(secret) for secret in listed(tmp_path)[0]["secrets"]] == [{"created", "expires"}] * 2


def test_a_list_without_keys_is_empty(tmp_path: Path) -> None:
    """Without a file the table has only its headings, and nothing is made."""
    assert run_keys(tmp_path / "data", "list").stdout.split()[:2] == ["id", "name"]
    assert listed(tmp_path / "data") == []
    assert list(tmp_path.iterdir()) == []


def test_expired_keys_are_listed_as_such(tmp_path: Path) -> None:
    """A key whose end is over is expired."""
    add_key(tmp_path / "keys.json", expires=datetime.now(UTC) - timedelta(seconds=1))
    assert [members["state"] for members in listed(tmp_path)] == ["expired"]


def test_a_rotated_key_has_an_overlap(tmp_path: Path) -> None:
    """Both keys are accepted for a time, or with an overlap of zero only the new one."""
    old = run_keys(tmp_path, "create", "--name", "x").stdout.strip()
    done = run_keys(tmp_path, "rotate", old[9:17], "--overlap", "1h")
    new = done.stdout.strip()
    assert "the old key is valid until" in done.stderr
    found, since = (find(tmp_path, key) for key in (old, new))
    assert found is not None
    assert since is not None
    assert 3500 < found.expires - time.time() < 3700
    assert since.expires > time.time() + 364 * 86_400
    refused = run_keys(tmp_path, "rotate", old[9:17])
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "--overlap 0s" in refused.stderr
    last = run_keys(tmp_path, "rotate", old[9:17], "--overlap", "0s").stdout.strip()
    assert [find(tmp_path, key) is not None for key in (old, new, last)] == [False, False, True]


def test_a_revoked_key_is_refused(tmp_path: Path) -> None:
    """A key is refused once the command has ended; revoking it again is no error."""
    key = run_keys(tmp_path, "create", "--name", "x").stdout.strip()
    assert run_keys(tmp_path, "revoke", key[9:17]).stdout == f"{key[9:17]} is revoked\n"
    assert find(tmp_path, key) is None
    again = run_keys(tmp_path, "revoke", key[9:17])
    assert (again.returncode, again.stdout) == (0, f"{key[9:17]} was revoked before\n")
    assert audited(tmp_path) == [("create_key", key[9:17]), ("revoke_key", key[9:17])]


@pytest.mark.parametrize("action", ["rotate", "revoke"])
def test_an_unknown_id_is_reported(tmp_path: Path, action: str) -> None:
    """The exit code is 1, with one sentence."""
    done = run_keys(tmp_path, action, "22222222")
    sentence = "softstep: the file of API keys has no key with this id; softstep keys list shows all ids\n"
    assert (done.returncode, done.stdout, done.stderr) == (1, "", sentence)


@pytest.mark.parametrize(
    "argv",
    [
        [],
        ["create"],
        ["create", "--name", ""],
        ["create", "--name", "x", "--scopes", "canary"],
        ["create", "--name", "x", "--models", "CANARY"],
        ["create", "--name", "x", "--expires", "2020-01-01"],
        ["create", "--name", "x", "--rows-per-second", "canary"],
        ["create", "--name", "x", "--requests-in-flight", "0"],
        ["rotate", "22222222", "--overlap", "canary"],
        ["rotate"],
        ["delete", "22222222"],
    ],
)
def test_invalid_usage_is_reported(tmp_path: Path, argv: list[str]) -> None:
    """The exit code is 2, and nothing is made."""
    done = run_keys(tmp_path / "data", *argv)
    assert (done.returncode, done.stdout) == (2, "")
    assert "canary" not in done.stderr.lower()
    assert list(tmp_path.iterdir()) == []


def test_the_file_is_found_by_option_and_by_setting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """--keys-file comes before SOFTSTEP_KEYS_FILE, and that before the data directory."""
    one, other = tmp_path / "one.json", tmp_path / "other.json"
    monkeypatch.setenv("SOFTSTEP_KEYS_FILE", str(other))
    key = run_keys(tmp_path, "create", "--name", "x").stdout[9:17]
    assert [record.id for record in read_keys(other).keys] == [key]
    run_keys(tmp_path, "create", "--name", "y", "--keys-file", one)
    assert [record.name for record in read_keys(one).keys] == ["y"]
    assert not (tmp_path / "keys.json").exists()


def test_a_damaged_file_is_not_replaced(tmp_path: Path) -> None:
    """Every command ends with exit code 1, and the file stays as it is."""
    path = tmp_path / "keys.json"
    path.write_text('{"format": 2, "keys": []}')
    for argv in (["create", "--name", "x"], ["list"], ["rotate", "22222222"], ["revoke", "22222222"]):
        done = run_keys(tmp_path, *argv)
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr.startswith("softstep: the file of API keys is damaged")
    assert path.read_text() == '{"format": 2, "keys": []}'


def test_a_folder_that_cannot_be_used_is_reported(tmp_path: Path) -> None:
    """A disk error is one sentence with exit code 1."""
    (tmp_path / "data").write_text("")
    done = run_keys(tmp_path / "data", "create", "--name", "x")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("softstep: disk error: ")
    assert len(done.stderr.splitlines()) == 1


def test_an_audit_log_that_fails_stops_no_command(tmp_path: Path) -> None:
    """The key is made and printed, with a warning on standard error."""
    (tmp_path / "audit.jsonl").mkdir()
    done = run_keys(tmp_path, "create", "--name", "x")
    assert done.returncode == 0
    assert find(tmp_path, done.stdout.strip()) is not None
    assert "softstep: this is done, but the audit log cannot be written: Is a directory\n" in done.stderr


@pytest.mark.parametrize("action", ["create", "rotate", "revoke"])
def test_a_killed_command_leaves_the_old_keys_or_the_new_ones(tmp_path: Path, action: str) -> None:
    """A kill at any step leaves a file that can be read, and the next command works."""
    argv = [action, "--name", "second"] if action == "create" else [action]
    for tick in itertools.count(1):
        data = tmp_path / str(tick)
        key = run_keys(data, "create", "--name", "first").stdout[9:17]
        before = listed(data)
        ended = run_killed_at(tick, ["keys", *argv, *([] if action == "create" else [key]), "--data", data])
        after = listed(data)
        assert after == before or summary(after) != summary(before)
        assert run_keys(data, "create", "--name", "third").returncode == 0
        assert len(listed(data)) == len(after) + 1
        if ended is not None:
            break
    assert (ended, tick > 3) == (0, True)
    assert summary(after) != summary(before)


def summary(records: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """Return the name and the state of each key."""
    return [(record["name"], record["state"]) for record in records]


def test_a_file_that_others_can_read_is_reported(tmp_path: Path) -> None:
    """The list has a warning, and works."""
    add_key(tmp_path / "keys.json")
    (tmp_path / "keys.json").chmod(0o644)
    done = run_keys(tmp_path, "list")
    assert done.returncode == 0
    assert "can read or change the file" in done.stderr


def test_commands_at_one_time_lose_no_change(tmp_path: Path) -> None:
    """Processes that create, rotate and revoke keys together leave the result of each."""
    keys = [run_keys(tmp_path, "create", "--name", "before").stdout[9:17] for _ in range(2 * PROCESSES)]
    commands = [["create", "--name", f"job {number}"] for number in range(PROCESSES)]
    commands += [["rotate", key] for key in keys[:PROCESSES]] + [["revoke", key] for key in keys[PROCESSES:]]
    argvs = json.dumps([["keys", *argv, "--data", str(tmp_path)] for argv in commands])
    done = subprocess.run(
        [sys.executable, "-c", TOGETHER, argvs],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, timeout=2 * SECONDS, check=True,
    )  # fmt: skip
    assert json.loads(done.stdout) == [0] * len(commands)
    records = listed(tmp_path)
    states = [record["state"] for record in records]
    assert states == ["rotating"] * PROCESSES + ["revoked"] * PROCESSES + ["live"] * PROCESSES
    assert sorted(record["name"] for record in records[2 * PROCESSES :]) == sorted(f"job {n}" for n in range(PROCESSES))
    assert len(audited(tmp_path)) == 2 * PROCESSES + len(commands)
