"""Facts that change: the contract of `SharedFacts`, in PostgreSQL and in memory."""

import contextlib
import itertools
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from service.store.log.postgres import PostgresLog
from service.store.log.shared_facts import FACT_BYTES_MAX, SharedFacts
from tests.support.memory_facts import MemoryFacts

Opener = Callable[[], contextlib.AbstractContextManager[SharedFacts]]

numbers = itertools.count()


@pytest.fixture(params=["memory", "postgres"])
def opener(request: pytest.FixtureRequest) -> Opener:
    """Opens the facts of one log for one more user."""
    if request.param == "memory":
        facts = MemoryFacts()
        return lambda: contextlib.nullcontext(facts)
    address = request.getfixturevalue("shared_address")

    @contextlib.contextmanager
    def open_facts() -> Iterator[SharedFacts]:
        with contextlib.closing(PostgresLog(address, copies=1)) as log:
            yield log.facts

    return open_facts


@pytest.fixture
def facts(opener: Opener) -> Iterator[SharedFacts]:
    with opener() as facts:
        yield facts


@pytest.fixture
def name() -> str:
    """A name that no fact has yet."""
    return f"fact {next(numbers)}"


def test_a_fact_is_made_and_replaced(facts: SharedFacts, name: str) -> None:
    """Each change gets what is there, and gives the fact another version."""
    assert facts.read_changed({name: 0}) == {}
    seen: list[bytes | None] = []
    for value in (b"one", b"", b"one"):
        assert facts.change(name, lambda before, value=value: seen.append(before) or value) == value
    assert seen == [None, b"one", b""]
    ((version, value),) = facts.read_changed({name: 0}).values()
    assert version != 0
    assert value == b"one"


def test_only_what_has_changed_is_read(facts: SharedFacts, name: str) -> None:
    """A version that differs in any way counts: after a failover an older one may be there again."""
    other = f"{name}, too"
    versions = set()
    for number in range(3):
        facts.change(name, lambda _, number=number: b"%d" % number)
        ((version, _),) = facts.read_changed({name: 0}).values()
        versions.add(version)
    facts.change(other, lambda _: b"other")
    assert len(versions) == 3
    assert facts.read_changed({name: version}) == {}
    assert facts.read_changed({}) == {}
    found = facts.read_changed({name: version, other: 0, "missing": 0, "lost": version})
    assert {name: value for name, (_, value) in found.items()} == {other: b"other"}
    for stale in versions - {version} | {0, 1, -1, (1 << 63) - 1}:
        if stale != version:
            assert facts.read_changed({name: stale}) == {name: (version, b"2")}


def test_a_change_may_leave_a_fact(facts: SharedFacts, name: str) -> None:
    """None changes nothing, and neither does an error; a fact that was missing stays missing."""

    def fail(_before: bytes | None) -> bytes:
        raise ZeroDivisionError

    assert facts.change(name, lambda _: None, b"not noted") is None
    with pytest.raises(ZeroDivisionError):
        facts.change(name, fail, b"not noted")
    assert facts.read_changed({name: 0}) == {}
    facts.change(name, lambda _: b"kept")
    before = facts.read_changed({name: 0})
    assert facts.change(name, lambda _: None, b"not noted") is None
    with pytest.raises(ZeroDivisionError):
        facts.change(name, fail, b"not noted")
    assert facts.read_changed({name: 0}) == before
    assert b"not noted" not in [note.content for note in facts.read_notes(0, 10_000)]


def test_changes_of_one_moment_follow_each_other(opener: Opener, name: str) -> None:
    """None is lost, the first ones included, and each has its note, in the order of the changes."""
    users, each = 4, 5
    barrier = threading.Barrier(users)

    def change_often(user: int) -> None:
        with opener() as facts:
            barrier.wait()
            for number in range(each):
                word = b"%d-%d" % (user, number)
                facts.change(name, lambda before, word=word: b" ".join([*(before or b"").split(), word]), word)

    with opener() as facts, ThreadPoolExecutor(users) as pool:
        last = max([note.number for note in facts.read_notes(0, 10_000)], default=0)
        list(pool.map(change_often, range(users)))
        ((_, value),) = facts.read_changed({name: 0}).values()
        words = value.split()
        assert sorted(words) == sorted(b"%d-%d" % (user, number) for user in range(users) for number in range(each))
        assert [note.content for note in facts.read_notes(last, 10_000)] == words


def test_notes_are_read_in_order(facts: SharedFacts, name: str) -> None:
    """With the time of the log's clock, in pages."""
    last = max([note.number for note in facts.read_notes(0, 10_000)], default=0)
    before = time.time()
    for number in range(4):
        facts.change(name, lambda _, number=number: b"%d" % number, b"note \0 %d" % number)
    facts.add_note(b"note \0 4")  # of no fact
    notes = facts.read_notes(last, 10)
    assert [note.content for note in notes] == [b"note \0 %d" % number for number in range(5)]
    assert all(abs(note.time_ms / 1000 - before) < 3600 for note in notes)
    pages = [notes[0], *facts.read_notes(notes[0].number, 2)]
    assert pages == notes[:3]


def test_large_values(facts: SharedFacts, name: str) -> None:
    """A value of the largest size is read whole; of a larger one, too much to be taken for whole."""
    whole = bytes(range(256)) * (FACT_BYTES_MAX // 256)
    assert facts.change(name, lambda _: whole) == whole
    ((version, value),) = facts.read_changed({name: 0}).values()
    assert value == whole
    assert facts.read_changed({name: version}) == {}
    facts.change(name, lambda _: whole * 2)
    ((_, value),) = facts.read_changed({name: version}).values()
    assert value == whole + whole[:1]
