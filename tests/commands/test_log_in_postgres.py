"""Commands on a log in PostgreSQL: the same output as on SQLite, backups as of one moment, and what they refuse."""

import hashlib
import json
import shutil
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from service.learn.replay import StreamReplay
from service.store.log import postgres_copy
from service.store.log.admin_payloads import dump_forget_ids
from service.store.log.events import Draft, EventLocation, Kind, Stream
from service.store.log.postgres import PostgresLog
from service.store.log.postgres_errors import describe_failure
from service.store.log.shared_states import ComparedState
from service.store.log.sqlite import SqliteLog
from service.store.states.snapshots import encode_file
from tests.support.data_directories import (
    History,
    file_hashes,
    iris_artifact,
    json_lines,
    row_payload,
    run_command,
    wait_learned,
)
from tests.support.paths import SHIPPED
from tests.support.postgres_servers import PASSWORD, PostgresCluster
from tests.support.processes import CLIENT
from tests.support.running_service import serving

ROW = "[6.0, 2.7, 5.1, 1.6]"
READING = {
    "log": ("log", "iris"),
    "events": ("events", "iris"),
    "replay": ("replay", "iris"),
    "replay a seq": ("replay", "iris", "--seq", "12"),
    "verify": ("verify", "--refold"),
    "bisect": ("bisect", "iris", ROW),
    "whatif": ("whatif", "iris", "--rule", "ftrl", "--without", "3,5"),
    "an unknown model": ("events", "none"),
}
WITHOUT_DIRECTORY = {
    "log": ("log", "iris"),
    "events": ("events", "iris"),
    "replay": ("replay", "iris"),
    "bisect": ("bisect", "iris", ROW),
    "whatif": ("whatif", "iris", "--rule", "ftrl", "--without", "3,5"),
    "verify": ("verify", "--refold"),
}
NO_FILES = (
    "neither the log nor the data directory has the artifact of the stream; "
    "name the models directory of a service with this log by SOFTSTEP_MODELS"
)


@pytest.fixture(autouse=True)
def single_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests' server has no standby, and no session of a test counts as a service for long."""
    monkeypatch.setenv("SOFTSTEP_LOG_COPIES", "1")
    monkeypatch.setattr(postgres_copy, "END_SECONDS", 0.3)


@pytest.fixture
def address(postgres_server: PostgresCluster) -> Iterator[str]:
    """The address of an empty database."""
    made = postgres_server.make_database()
    yield made
    postgres_server.drop_database(made)


@pytest.fixture
def moved(address: str, tmp_path: Path) -> Path:
    """A data directory whose log is in the database too, and the same one without it in `cache`."""
    history = History(tmp_path / "data")
    history.add_feedback(*range(40))
    history.correct(7, 1)
    history.rollback(35)
    history.forget(4)
    history.close()
    assert run_command("migrate", "--from", tmp_path / "data", "--to", address).returncode == 0
    (tmp_path / "cache").mkdir()
    shutil.copytree(tmp_path / "data" / "streams", tmp_path / "cache" / "streams")
    return tmp_path


def append(log: PostgresLog, stream: Stream, kind: Kind, id_: str, payload: bytes) -> int:
    """Append an event, and return its seq."""
    (outcome,) = log.append([Draft(stream.number, kind, id_.encode(), payload, 1)])
    assert isinstance(outcome, EventLocation), outcome
    return outcome.seq


@pytest.mark.parametrize("name", READING)
def test_commands_print_the_same(name: str, moved: Path, address: str) -> None:
    """The log decides, not where it is; the data directory is a replica's, and is not changed."""
    before = file_hashes(moved / "cache")
    wanted = run_command(*READING[name], "--data", moved / "data")
    done = run_command(*READING[name], "--data", moved / "cache", "--log", address)
    assert (done.returncode, done.stdout, done.stderr) == (wanted.returncode, wanted.stdout, wanted.stderr)
    assert done.stdout + done.stderr
    assert PASSWORD not in done.stdout + done.stderr
    assert file_hashes(moved / "cache") == before


@pytest.mark.parametrize("name", WITHOUT_DIRECTORY)
def test_commands_need_no_data_directory(name: str, moved: Path, address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The artifact is that of the log, and nothing is created."""
    monkeypatch.setenv("SOFTSTEP_MODELS", str(moved / "none"))
    wanted = run_command(*WITHOUT_DIRECTORY[name], "--data", moved / "data")
    done = run_command(*WITHOUT_DIRECTORY[name], "--data", moved / "none", "--log", address)
    assert (done.returncode, done.stdout, done.stderr) == (0, wanted.stdout, "")
    assert not (moved / "none").exists()


def test_the_artifact_of_the_log_counts(
    moved: Path, address: str, postgres_server: PostgresCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not another one in the data directory; without it, that of the data or of the models directory, if it fits."""
    wanted = run_command("replay", "iris", "--data", moved / "data").stdout
    artifact = moved / "cache" / "streams" / "iris" / "1" / "artifact"
    shutil.rmtree(artifact)
    shutil.copytree(SHIPPED / "wine" / "1", artifact)
    replay = ("replay", "iris", "--data", moved / "cache", "--log", address)
    assert run_command(*replay).stdout == wanted
    postgres_server.execute("UPDATE streams SET artifact = '{}'", database=address.rpartition("/")[2])
    assert run_command(*replay).stdout == wanted  # of ./models
    for models in ("none", "other"):
        monkeypatch.setenv("SOFTSTEP_MODELS", str(moved / models))
        assert run_command(*replay).stderr == f"softstep: {NO_FILES}\n"
        shutil.copytree(SHIPPED / "wine", moved / "other" / "iris", dirs_exist_ok=True)
    shutil.rmtree(artifact)
    shutil.copytree(SHIPPED / "iris" / "1", artifact)
    assert run_command(*replay).stdout == wanted


def test_commands_say_what_they_lack(
    moved: Path, address: str, postgres_server: PostgresCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without artifacts nothing is folded, and no backup is left."""
    monkeypatch.setenv("SOFTSTEP_LOG", address)
    monkeypatch.setenv("SOFTSTEP_MODELS", str(moved / "none"))
    postgres_server.execute("UPDATE streams SET artifact = '{}'", database=address.rpartition("/")[2])
    for argv in (("replay", "iris"), ("bisect", "iris", ROW), ("backup", moved / "backup"), ("export", "iris", moved)):
        done = run_command(*argv, "--data", moved / "none")
        assert (done.returncode, done.stdout, done.stderr) == (1, "", f"softstep: {NO_FILES}\n")
    done = run_command("verify", "--refold", "--data", moved / "none")
    assert (done.returncode, done.stderr) == (
        0,
        "softstep: iris/1: neither the log nor the data directory has its artifact, so nothing is folded\n",
    )
    assert not (moved / "backup").exists()
    done = run_command("events", "iris", "--log", address.replace("127.0.0.1", "127.0.0.1:1,127.0.0.1"))
    assert PASSWORD not in done.stdout + done.stderr


def test_mistakes_in_an_address_are_named(address: str) -> None:
    """The sentence says which part of the address is wrong, without any part of it."""
    role = address.partition("//")[2].partition("@")[0]
    changed = {
        "refuses the role or its password": address.replace(role, "nobody:secret"),
        "has no database of that name": f"{address}_secret",
        "cannot be reached": address.replace(address.rpartition(":")[2].partition("/")[0], "1"),
    }
    for sentence, wrong in changed.items():
        done = run_command("log", "iris", "--log", wrong)
        assert (done.returncode, sentence in done.stderr) == (1, True), (wrong, done.stderr)
        assert not any(part in done.stderr for part in ("secret", "nobody", PASSWORD))


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("FATAL:  password authentication failed for user", "refuses the role or its password"),
        ("fe_sendauth: no password supplied", "refuses the role or its password"),
        ('FATAL:  no pg_hba.conf entry for host "10.0.0.1"', "refuses the role or its password"),
        ("failed to resolve host 'db': [Errno -2] Name or service not known", "the host of"),
        ("FATAL:  the database system is starting up", "cannot be reached"),
    ],
)
def test_what_the_driver_says_is_described(text: str, sentence: str) -> None:
    """The tests' server asks for no password."""
    assert sentence in describe_failure(text)


def test_a_role_without_rights_is_told_from_a_database_without_tables(
    address: str, postgres_server: PostgresCluster
) -> None:
    """As in a database of PostgreSQL 15 that another role owns: `softstep migrate` does not help then."""
    foreign = f"{address}_foreign"
    name = foreign.rpartition("/")[2]
    postgres_server.execute(f"CREATE DATABASE {name}")
    for argv, part in (
        (("log", "iris", "--log", foreign), "run `softstep migrate`"),
        (("migrate", "--to", foreign), "own"),
    ):
        done = run_command(*argv)
        assert (done.returncode, part in done.stderr) == (1, True), done.stderr
    assert run_command("migrate", "--to", address).returncode == 0
    postgres_server.execute("ALTER TABLE streams OWNER TO postgres", database=address.rpartition("/")[2])
    done = run_command("log", "iris", "--log", address)
    assert "let it own database and tables" in done.stderr
    postgres_server.drop_database(foreign)


def test_stored_checkpoints_are_verified(moved: Path, address: str, postgres_server: PostgresCluster) -> None:
    """Those that replicas share are read from the log, and compared with the fold; a forgotten event makes one old."""
    database = address.rpartition("/")[2]
    verify = ("verify", "--refold", "--data", moved / "none", "--log", address)
    with closing(PostgresLog(address, copies=1)) as log:
        (stream,) = log.list_streams()

        def store(seq: int, *, folded: int) -> bytes:
            replay = StreamReplay(stream, iris_artifact(), log)
            list(replay.fold_to(folded))
            fields, arrays = replay.fold.checkpoint_contents()
            list(replay.fold_to(seq))
            content = b"".join(encode_file({**fields, **replay.position_fields()}, arrays))
            state = ComparedState(stream.number, replay.position, replay.lineage.epoch(seq), 2)
            assert log.states.compare(state, content)
            return hashlib.sha256(content).digest()

        store(43, folded=43)
        (report, _) = json_lines(run_command(*verify, "--json"))
        assert (report["checkpoints"], report["refolded"], report["damage"]) == (1, 1, [])
        append(log, stream, Kind.FEEDBACK, "100", row_payload(100))
        assert append(log, stream, Kind.FEEDBACK, "101", row_payload(101)) == 45
        sha256 = store(45, folded=44)
        done = run_command(*verify)
        assert done.returncode == 1
        assert "stored checkpoint 45 differs from the fold of its events" in done.stderr
        postgres_server.execute("UPDATE blobs SET bytes = 'x' WHERE hash = %s", sha256, database=database)
        assert "stored checkpoint 45: a file in the log's database is not the one" in run_command(*verify).stderr
        postgres_server.execute("DELETE FROM blobs WHERE hash = %s", sha256, database=database)
        append(log, stream, Kind.FORGET, "later", dump_forget_ids([b"9"]))
        (report, _) = json_lines(run_command(*verify, "--json"))
        assert (report["checkpoints"], report["outdated"], report["damage"]) == (0, 1, [])


def test_an_export_is_the_same_version(moved: Path, address: str) -> None:
    """Both files have equal bytes."""
    for name, more in (("data", ()), ("cache", ("--log", address))):
        assert run_command("export", "iris", moved / f"from {name}", "--data", moved / name, *more).returncode == 0
    assert file_hashes(moved / "from data") == file_hashes(moved / "from cache")


def test_skip_and_purge(moved: Path, address: str, iris_models: Path, postgres_server: PostgresCluster) -> None:
    """Both change the log that a service uses; a purge is refused until it has stopped, and leaves nothing."""
    scratch = moved / "replica"
    scratch.mkdir()
    shutil.move(moved / "cache", scratch / "data")
    common = ("--data", scratch / "data", "--log", address)
    options = {"SOFTSTEP_LOG": address, "SOFTSTEP_LOG_COPIES": 1}
    with serving(iris_models, scratch, **options) as service:
        assert wait_learned(service, 43)["progressive"]["events"] == 34
        done = run_command("skip", "iris", 12, "--id", "ticket", *common, "--json")
        assert json_lines(done)[0] | {"seq": 44, "duplicate": False} == json_lines(done)[0]
        assert json_lines(run_command("skip", "iris", 12, "--id", "ticket", *common, "--json"))[0]["duplicate"] is True
        assert wait_learned(service, 44)["progressive"]["events"] == 33
        refused = run_command("purge", "iris", "--yes", *common)
        assert (refused.returncode, "a service uses the log" in refused.stderr) == (1, True)
    # Any machine may run a command, so the audit of the log has it.
    assert not (scratch / "data" / "audit.jsonl").exists()
    # A replica that has stopped counts for ten seconds more.
    postgres_server.execute("DELETE FROM replicas", database=address.rpartition("/")[2])
    assert run_command("purge", "iris", *common).returncode == 2
    assert run_command("purge", "iris", "--yes", *common).stdout == "iris/1: 44 events deleted\n"
    with closing(PostgresLog(address, copies=1)) as log:
        assert log.list_streams() == []
        entries = [json.loads(note.content) for note in log.facts.read_notes(0, 9)]
    assert [(entry["action"], entry["object"], entry.get("seq")) for entry in entries] == [
        ("skip", "iris/1", 12),
        ("purge", "iris/1", None),
    ]
    assert not (scratch / "data" / "streams" / "iris").exists()
    with serving(iris_models, scratch, **options) as service:
        body = {"id": "12", "instances": [[6.0, 2.7, 5.1, 1.6]], "labels": [1]}
        assert CLIENT.post(f"{service.url}/v1/models/iris:feedback", json=body).json()["seq"] == 1
        assert wait_learned(service, 1)["log_seq"] == 1


def test_a_backup_is_of_one_moment(moved: Path, address: str) -> None:
    """It is made while events come and are forgotten; later forgets are repeated when it is restored."""
    stop = threading.Event()
    with closing(PostgresLog(address, copies=1)) as log:
        (stream,) = log.list_streams()

        def teach() -> None:
            with closing(PostgresLog(address, copies=1)) as busy:
                for n in range(101, 100_000):
                    if stop.is_set():
                        break
                    append(busy, stream, Kind.FEEDBACK, str(n), row_payload(n))
                    if n % 10 == 0:
                        append(busy, stream, Kind.FORGET, f"f{n}", dump_forget_ids([str(n - 5).encode()]))

        teacher = threading.Thread(target=teach)
        teacher.start()
        try:
            done = run_command("backup", moved / "backup", "--data", moved / "cache", "--log", address, "--json")
            (result,) = json_lines(done)
        finally:
            stop.set()
            teacher.join()
        assert 43 <= result["seq"] < log.stream_state(stream.number).seq
        assert log.read_events(stream.number, result["seq"] - 1, 1)[0].hash.hex() == result["hash"]
        append(log, stream, Kind.FORGET, "again", dump_forget_ids([b"8", b"9"]))
    (verified, marks) = json_lines(run_command("verify", "--refold", "--data", moved / "backup", "--json"))
    assert (verified["seq"], verified["damage"], marks) == (result["seq"], [], {"marks": "good"})
    restored = run_command("restore", moved / "backup", "--data", moved / "new", "--log", address, "--json")
    (outcome,) = json_lines(restored)
    assert outcome["forgotten_again"] >= 2
    with closing(SqliteLog(moved / "new" / "log.sqlite")) as copy:
        places = copy.find_ids("iris", [b"7", b"8", b"9"])
        assert {id_: place.removed_by for id_, place in places.items()} == {
            b"7": None,
            b"8": Kind.FORGET,
            b"9": Kind.FORGET,
        }


def test_a_restore_needs_the_log_that_it_replaces(moved: Path, address: str) -> None:
    """If the database cannot be reached, what it has forgotten is unknown."""
    assert run_command("backup", moved / "backup", "--data", moved / "data").returncode == 0
    closed = address.replace(address.rpartition(":")[2].partition("/")[0], "1")
    done = run_command("restore", moved / "backup", "--data", moved / "new", "--log", closed)
    assert (done.returncode, "what was forgotten since the backup is unknown" in done.stderr) == (1, True)
