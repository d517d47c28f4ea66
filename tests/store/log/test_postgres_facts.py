"""What replicas agree on, in PostgreSQL: the first value of a fact, and which replicas are there."""

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.errors import KeyFileError
from service.store.directory.keyfile import parse_keys, read_or_create_keys, read_or_share_keys
from service.store.log.postgres import PostgresLog
from tests.support.postgres_servers import PostgresCluster


@pytest.fixture
def log(postgres_server: PostgresCluster, shared_address: str) -> Iterator[PostgresLog]:
    name = shared_address.rpartition("/")[2]
    postgres_server.execute("TRUNCATE replicas; DELETE FROM facts WHERE name LIKE 'token%'", database=name)
    with contextlib.closing(PostgresLog(shared_address, copies=1)) as log:
        yield log


def test_the_first_value_counts(shared_address: str) -> None:
    """Of several that are offered at one moment, all get the same."""
    threads, found = 4, []
    barrier = threading.Barrier(threads)

    def offer(value: bytes) -> None:
        with contextlib.closing(PostgresLog(shared_address, copies=1)) as log:
            barrier.wait()
            found.append(log.facts.read_or_add("raced", value))

    racers = [threading.Thread(target=offer, args=(b"%d" % number,)) for number in range(threads)]
    for racer in racers:
        racer.start()
    for racer in racers:
        racer.join()
    assert len(found) == threads
    assert len(set(found)) == 1


def test_replicas_are_listed(log: PostgresLog, postgres_server: PostgresCluster, shared_address: str) -> None:
    """With what each has erased, and since when it was not seen by the clock of the database."""
    log.facts.report_replica("b", {})
    log.facts.report_replica("a", {3: 1})
    log.facts.report_replica("a", {3: 2, 4: 0})
    one, two = log.facts.list_replicas()
    assert (one.name, one.erased, two.name, two.erased) == ("a", {3: 2, 4: 0}, "b", {})
    assert 0 <= one.seconds <= two.seconds < 10
    assert (one.role, one.halted) == ("all", frozenset())
    name = shared_address.rpartition("/")[2]
    log.facts.report_replica("b", {}, "worker", {7, 5})
    assert log.facts.list_replicas()[1][3:] == ("worker", frozenset((5, 7)))
    old = """UPDATE replicas SET reached = '{"erased": {"3": 4}}' WHERE name = 'b'"""
    postgres_server.execute(old, database=name)
    assert log.facts.list_replicas()[1][2:] == ({3: 4}, "all", frozenset())
    postgres_server.execute("UPDATE replicas SET seen = seen - interval '1 hour' WHERE name = 'a'", database=name)
    postgres_server.execute("UPDATE replicas SET seen = seen - interval '2 days' WHERE name = 'b'", database=name)
    log.facts.report_replica("c", {})
    assert [(replica.name, replica.seconds > 3000) for replica in log.facts.list_replicas()] == [
        ("a", True),
        ("c", False),
    ]


def test_services_have_the_keys_of_the_first(log: PostgresLog, tmp_path: Path) -> None:
    """Keys that a service had before are shared, all of them; another file becomes a copy."""
    first, second = tmp_path / "first", tmp_path / "second"
    first.write_text("ab" * 32 + ", " + "cd" * 32)
    keys = parse_keys(first.read_text())
    assert read_or_share_keys(first, log.facts) == keys
    assert first.read_text() == "ab" * 32 + ", " + "cd" * 32
    other = read_or_create_keys(second)
    assert other != keys
    assert read_or_share_keys(second, log.facts) == keys == read_or_create_keys(second)
    assert second.stat().st_mode & 0o777 == 0o600
    assert read_or_share_keys(tmp_path / "third", log.facts) == keys


def test_keys_of_the_file_count_while_there_is_no_database(tmp_path: Path) -> None:
    """A service starts without it; it has a key of its own if it never had the database."""
    with contextlib.closing(PostgresLog("postgresql://127.0.0.1:1/none", copies=1, seconds=0.2)) as log:
        keys = read_or_share_keys(tmp_path / "keys", log.facts)
        assert keys == read_or_create_keys(tmp_path / "keys") == read_or_share_keys(tmp_path / "keys", log.facts)


def test_damaged_keys_are_refused(log: PostgresLog, tmp_path: Path) -> None:
    log.facts.read_or_add("token_key", b"not keys")
    with pytest.raises(KeyFileError):
        read_or_share_keys(tmp_path / "keys", log.facts)


@pytest.mark.parametrize("value", [b"", b"\0", b"seven b", bytes(7), b"eight by", b"what other programs write"])
def test_a_value_of_another_program_can_be_read_and_changed(
    log: PostgresLog, postgres_server: PostgresCluster, shared_address: str, value: bytes
) -> None:
    """It has a version too, so it is read once."""
    name = shared_address.rpartition("/")[2]
    postgres_server.execute(
        "INSERT INTO facts VALUES ('foreign', %s) ON CONFLICT (name) DO UPDATE SET value = excluded.value",
        value, database=name,
    )  # fmt: skip
    ((version, found),) = log.facts.read_changed({"foreign": 0}).values()
    assert version != 0
    assert found == value[8:]
    assert log.facts.read_changed({"foreign": version}) == {}
    assert log.facts.change("foreign", lambda before: None if before == value[8:] else b"wrong") is None
    assert log.facts.change("foreign", lambda before: (before or b"") + b"!") == value[8:] + b"!"
