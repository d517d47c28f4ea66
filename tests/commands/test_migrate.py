"""`softstep migrate`: a log moves to PostgreSQL and back with its files, also after kills, while no service runs."""

import json
import shlex
import shutil
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from service.access.key_file import KeyTable, read_keys, render_document
from service.learn.replay import StreamReplay
from service.store.directory.ack_marks import read_marks
from service.store.log import log_copy, postgres_copy
from service.store.log.events import Kind
from service.store.log.postgres import PostgresLog
from service.store.log.postgres_connection import PostgresConnection
from service.store.log.postgres_copy import read_postgres
from service.store.log.postgres_schema import create_schema
from service.store.log.shared_facts import API_KEYS_FACT
from service.store.log.sqlite_copy import read_sqlite
from service.store.states.snapshots import write_snapshot
from tests.support.data_directories import History, file_hashes, iris_artifact, json_lines, run_command, run_killed_at
from tests.support.pages import sessions
from tests.support.paths import ROOT
from tests.support.postgres_servers import PASSWORD, PostgresCluster
from tests.support.running_service import serving

KEYS = b"5a" * 32 + b"\n", b"6b" * 32 + b"\n"
TABLES = {"tables_made": False}
PAGE = ROOT / "docs" / "migrate.md"
SHOWN_ADDRESS = "postgresql://softstep@127.0.0.1:5432/softstep"


@pytest.fixture(autouse=True)
def single_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests' server has no standby."""
    monkeypatch.setenv("SOFTSTEP_LOG_COPIES", "1")


@pytest.fixture
def address(postgres_server: PostgresCluster) -> Iterator[str]:
    """The address of an empty database."""
    made = postgres_server.make_database()
    yield made
    postgres_server.drop_database(made)


def make_history(path: Path) -> History:
    """Make a data directory with events of each usual kind, a checkpoint and a key."""
    history = History(path)
    history.add_feedback(*range(30))
    history.correct(7, 1)
    history.add_class("new")
    history.rollback(20)
    history.forget(4, 9)
    replay = StreamReplay(history.stream, iris_artifact(), history.log)
    list(replay.fold_to(34))
    fields, arrays = replay.fold.checkpoint_contents()
    write_snapshot(history.folder.checkpoints, 34, {**fields, **replay.position_fields()}, arrays, durable=True)
    (path / "token.key").write_bytes(KEYS[0])
    return history


def contents(path: Path) -> tuple[object, ...]:
    """Return all bytes of a log."""
    with read_sqlite(path / "log.sqlite") as source:
        heads = source.read_heads()
        return source.secret, heads, [source.read_links(head.stream.number, 0, 999) for head in heads]


def migrate(*argv: object) -> list[Any]:
    """Run the command, and return what it prints."""
    return json_lines(run_command("migrate", *argv, "--json"))


def test_a_log_moves_there_and_back(address: str, tmp_path: Path) -> None:
    """All events are there with their checkpoint, and the restored directory serves the same state."""
    make_history(tmp_path / "data").close()
    wanted = contents(tmp_path / "data")
    made, stream = migrate("--from", tmp_path / "data", "--to", address)
    assert made == {"tables_made": True}
    assert (stream["model"], stream["version"], stream["seq"], stream["copied"]) == ("iris", "1", 34, True)
    with closing(PostgresLog(address, copies=1)) as log:
        log.begin()
        (found,) = log.list_streams()
        assert log.stream_state(found.number).hash.hex() == stream["hash"]
        assert log.find_ids("iris", [b"4", b"5"])[b"4"].removed_by == Kind.FORGET
    assert migrate("--from", tmp_path / "data", "--to", address) == [TABLES, stream | {"copied": False}]
    # The directory that served the log before has the artifact and the checkpoint.
    back = migrate("--from", address, "--to", tmp_path / "back", "--data", tmp_path / "data")
    assert back == [stream]
    names = {path.name for path in (tmp_path / "back").iterdir()}
    assert names == {"lock", "log.sqlite", "marks", "streams", "token.key"}
    assert contents(tmp_path / "back") == wanted
    (verified, marks) = json_lines(run_command("verify", "--refold", "--data", tmp_path / "back", "--json"))
    assert (verified["damage"], verified["checkpoints"], verified["refolded"], marks) == ([], 1, 1, {"marks": "good"})
    (mark,) = read_marks(tmp_path / "back" / "marks" / "0")
    assert (mark[1].seq, mark[1].hash.hex()) == (34, stream["hash"])
    key = tmp_path / "back" / "token.key"
    assert (key.read_bytes(), key.stat().st_mode & 0o777) == (KEYS[0], 0o600)
    assert migrate("--from", address, "--to", tmp_path / "back") == [stream | {"copied": False}]


def test_tables_of_a_later_release_are_added(address: str, postgres_server: PostgresCluster) -> None:
    """The log of an earlier release gets those that it lacks, and the command says so."""
    made = [migrate("--to", address), migrate("--to", address)]
    postgres_server.execute("DROP TABLE snapshots, audit", database=address.rpartition("/")[2])
    made += [migrate("--to", address), migrate("--to", address)]
    assert made == [[{"tables_made": is_new}] for is_new in (True, False, True, False)]


def test_the_address_comes_from_the_environment(address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Then no other user sees it; without a source the tables are made."""
    make_history(tmp_path / "data").close()
    shutil.rmtree(tmp_path / "data" / "streams")
    monkeypatch.setenv("SOFTSTEP_LOG", address)
    assert migrate() == [{"tables_made": True}]
    assert [line.get("copied") for line in migrate("--from", tmp_path / "data")] == [None, True]
    done = run_command("migrate", "--to", tmp_path / "new", "--data", tmp_path / "none")
    assert done.stdout == "iris/1: 34 events, copied and verified\n"
    assert "iris/1 has no artifact" in done.stderr
    assert contents(tmp_path / "new") == contents(tmp_path / "data")


def test_the_database_has_the_artifacts(address: str, tmp_path: Path) -> None:
    """Each is copied there, byte for byte, and back from there where no data directory has it."""
    make_history(tmp_path / "data").close()
    migrate("--from", tmp_path / "data", "--to", address)
    done = run_command("migrate", "--from", address, "--to", tmp_path / "new", "--data", tmp_path / "none")
    assert (done.returncode, done.stderr) == (0, "")
    artifacts = [tmp_path / name / "streams" / "iris" / "1" / "artifact" for name in ("data", "new")]
    assert file_hashes(artifacts[1]) == file_hashes(artifacts[0]) != {}
    backup = ("backup", tmp_path / "backup", "--log", address, "--data", tmp_path / "none")
    assert run_command(*backup).stdout == "iris/1: 34 events, no checkpoint\n"
    (verified, _) = json_lines(run_command("verify", "--refold", "--data", tmp_path / "backup", "--json"))
    assert (verified["seq"], verified["damage"]) == (34, [])


def test_api_keys_move_there_and_back(address: str, tmp_path: Path) -> None:
    """They are accepted at the new place, and commands change them there; the audit has the copies."""
    make_history(tmp_path / "data").close()
    key = run_command("keys", "create", "--name", "first", "--data", tmp_path / "data").stdout.strip()
    assert migrate("--from", tmp_path / "data", "--to", address)[1] == {"keys_copied": 1}
    (listed,) = json_lines(run_command("keys", "list", "--log", address, "--json"))
    assert listed["id"] == key[9:17]
    (entry,) = json_lines(run_command("keys", "audit", "--log", address))
    assert (entry["action"], entry["object"]) == ("copy_keys", str(tmp_path / "data" / "keys.json"))
    assert run_command("keys", "create", "--name", "second", "--log", address).returncode == 0
    # What the target has is never replaced, nor are the keys of an earlier time brought back.
    assert "keys_copied" not in str(migrate("--from", tmp_path / "data", "--to", address))
    assert len(json_lines(run_command("keys", "list", "--log", address, "--json"))) == 2
    assert {"keys_copied": 2} in migrate("--from", address, "--to", tmp_path / "back", "--data", tmp_path / "data")
    path = tmp_path / "back" / "keys.json"
    keys = read_keys(path)
    assert (path.stat().st_mode & 0o777, keys.copy_of, len(keys.keys)) == (0o600, None, 2)
    assert KeyTable(keys.keys).find(key.encode(), 0.0) is not None
    assert json.loads((tmp_path / "back" / "audit.jsonl").read_text())["action"] == "copy_keys"
    assert run_command("keys", "revoke", key[9:17], "--data", tmp_path / "back").returncode == 0
    assert "keys_copied" not in str(migrate("--from", address, "--to", tmp_path / "back"))
    assert KeyTable(read_keys(path).keys).find(key.encode(), 0.0) is None
    # A replica's copy is no file of keys.
    path.write_bytes(render_document(keys.keys, "a copy", is_copy=True))
    assert {"keys_copied": 2} in migrate("--from", address, "--to", tmp_path / "back")
    assert read_keys(path).copy_of is None


@pytest.mark.parametrize("own", [False, True])
def test_damaged_api_keys_stop_a_migration(
    address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, own: bool
) -> None:
    """Before the target has a log, so no service begins without them; a file of the service's own stays where it is."""
    make_history(tmp_path / "data").close()
    (tmp_path / "data" / "keys.json").write_text("{")
    if own:
        monkeypatch.setenv("SOFTSTEP_KEYS_FILE", str(tmp_path / "data" / "keys.json"))
    done = run_command("migrate", "--from", tmp_path / "data", "--to", address)
    assert done.returncode == (0 if own else 1)
    assert ("the file of API keys is damaged" in done.stderr) is not own
    with closing(PostgresLog(address, copies=1)) as log:
        assert len(log.list_streams()) == int(own)
        assert log.facts.read_changed({API_KEYS_FACT: 0}) == {}


def test_keys_of_both_sides_stay(address: str, tmp_path: Path) -> None:
    """Tokens of the source and of the target are valid after the migration."""
    make_history(tmp_path / "data").close()
    migrate("--from", tmp_path / "data", "--to", address)
    (tmp_path / "back").mkdir()
    (tmp_path / "back" / "token.key").write_bytes(KEYS[1])
    migrate("--from", address, "--to", tmp_path / "back", "--data", tmp_path / "data")
    assert (tmp_path / "back" / "token.key").read_bytes() == b"5a" * 32 + b"," + b"6b" * 32 + b"\n"


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ((), "name the log to make with --to"),
        (("--to", "mysql://host/x"), "an address of PostgreSQL begins with postgresql://"),
        (("--to", "there"), "name the log to make with --to"),
        (("--from", "none", "--to", "there"), "the data directory has no feedback log"),
    ],
)
def test_refused_options(argv: tuple[str, ...], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error says what to write."""
    monkeypatch.chdir(tmp_path)
    done = run_command("migrate", *argv)
    assert done.returncode == 1
    assert message in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_other_events_are_refused(address: str, tmp_path: Path) -> None:
    """A target with events of its own is unchanged."""
    for name, first in (("data", 0), ("other", 100)):
        history = History(tmp_path / name)
        history.add_feedback(*range(first, first + 10))
        history.close()
    migrate("--from", tmp_path / "data", "--to", address)
    for source, target in ((tmp_path / "other", address), (address, tmp_path / "other")):
        done = run_command("migrate", "--from", source, "--to", target)
        assert (done.returncode, "other events" in done.stderr) == (1, True)
        assert PASSWORD not in done.stdout + done.stderr
    assert migrate("--from", tmp_path / "data", "--to", address)[1]["copied"] is False


def test_the_page_shows_what_the_command_prints(address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The commands of the page, run in order, print what it shows."""
    monkeypatch.chdir(tmp_path)
    history = History(Path("data"))
    history.add_feedback(*range(60))
    history.forget(3)
    history.close()
    result = []
    for line, _ in sessions(PAGE):
        done = run_command(*shlex.split(line.replace(SHOWN_ADDRESS, address))[1:])
        result.append((line, done.stdout + done.stderr))
    assert result == list(sessions(PAGE))


def test_a_running_service_is_refused(
    address: str,
    postgres_server: PostgresCluster,
    iris_models: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Neither its data directory nor its database is copied."""
    monkeypatch.setattr(postgres_copy, "END_SECONDS", 0.2)
    run_command("migrate", "--to", address)
    History(tmp_path / "other").close()
    with serving(iris_models, tmp_path, SOFTSTEP_LOG=address, SOFTSTEP_LOG_COPIES=1):
        for source, target in ((tmp_path / "other", address), (address, tmp_path / "new")):
            done = run_command("migrate", "--from", source, "--to", target)
            assert (done.returncode, "a service uses the log" in done.stderr) == (1, True), done.stderr
        done = run_command("migrate", "--from", tmp_path / "other", "--to", tmp_path / "data")
        assert "another instance uses the data directory" in done.stderr
    # A replica that has stopped counts for ten seconds more.
    postgres_server.execute("DELETE FROM replicas", database=address.rpartition("/")[2])
    assert migrate("--from", tmp_path / "other", "--to", address)[1]["copied"] is True


def database_bytes(address: str) -> tuple[object, ...]:
    """Return all bytes of a log in PostgreSQL."""
    with closing(PostgresConnection(address, 1, 30.0)) as connection, read_postgres(connection) as source:
        heads = source.read_heads()
        return source.secret, heads, [source.read_links(head.stream.number, 0, 999) for head in heads]


def test_a_killed_migration_is_continued(
    postgres_server: PostgresCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed at any of its steps, there and back, the target is no log or all of it; the next run completes it."""
    monkeypatch.setattr(log_copy, "COPY_EVENTS", 7)
    source = tmp_path / "data"
    make_history(source).close()
    wanted, kills = contents(source), 0
    for tick in range(1, 400, 3):
        address, back = postgres_server.make_database(create_schema), tmp_path / f"back{tick}"
        there = ("migrate", "--from", source, "--to", address)
        here = ("migrate", "--from", address, "--to", back, "--data", source)
        codes = [run_killed_at(tick, there)]
        if codes == [None]:
            assert database_bytes(address)[1:] in (wanted[1:], ([], []))
            assert run_killed_at(0, there) == 0
        assert database_bytes(address) == wanted
        codes.append(run_killed_at(tick, here))
        if codes[1] is None:
            assert not (back / "log.sqlite").exists() or contents(back) == wanted
            assert run_killed_at(0, here) == 0
        assert contents(back) == wanted
        assert run_killed_at(0, ("verify", "--data", back)) == 0
        assert not (back / ".migrate.partial").exists()
        assert (back / "token.key").read_bytes() == KEYS[0]
        postgres_server.drop_database(address)
        shutil.rmtree(back)
        kills += codes.count(None)
        if codes == [0, 0]:
            break
    assert codes == [0, 0]
    assert kills > 20
