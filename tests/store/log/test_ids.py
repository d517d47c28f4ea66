"""Generated ids are UUIDv7, ascending, and different in all processes."""

import os
import uuid

from service.store.log.ids import IdGenerator, new_id

NOW = 1_700_000_000_123


def test_an_id_is_a_uuid_of_version_7() -> None:
    """An id is a UUID of version 7 with the time in its first 48 bits."""
    generated = uuid.UUID(IdGenerator().next_id(NOW).decode())
    assert (generated.version, generated.variant, generated.int >> 80) == (7, uuid.RFC_4122, NOW)


def test_ids_ascend_whatever_the_clock_does() -> None:
    """Ids ascend beyond the counter of a millisecond, and when the clock steps back."""
    ids = IdGenerator()
    generated = [ids.next_id(NOW - number // 5000) for number in range(10_000)]
    assert generated == sorted(set(generated))
    assert uuid.UUID(ids.next_id(NOW + 9).decode()).int >> 80 == NOW + 9


def test_the_process_has_one_maker() -> None:
    generated = [new_id() for _ in range(1000)]
    assert generated == sorted(set(generated))


def test_forked_processes_do_not_agree() -> None:
    """The random bits distinguish the ids of forked processes with the same counter."""
    ids = IdGenerator()
    ids.next_id(NOW)
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.write(writing, ids.next_id(NOW))
        os._exit(0)
    os.waitpid(pid, 0)
    theirs, ours = os.read(reading, 99), ids.next_id(NOW)
    assert uuid.UUID(theirs.decode()).int >> 64 == uuid.UUID(ours.decode()).int >> 64
    assert theirs != ours
