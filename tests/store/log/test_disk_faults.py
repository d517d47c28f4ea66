"""The SQLite log with a failing disk, killed processes, and losses of power.

One workload of appends, retries, a forget and checkpoints runs against a fault at its first operation, its second, and
so on until none is hit. Afterwards, on a healthy disk, the checker holds what is there to what was acknowledged:
nothing lost, nothing twice, nothing in another order, and a retry of what was not acknowledged gets one seq.
"""

import os
import random
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from service.errors import LogError, OutcomeUnknownError
from service.store.directory.ack_marks import AckMarks, read_marks
from service.store.directory.truncation import refuse_truncated_log
from service.store.log.audit import audit_log
from service.store.log.events import Draft, EventLocation, Position, Stream
from service.store.log.sqlite import SqliteLog
from tests.support.disk_faults import Disk, Fault
from tests.support.feedback_log_contract import GENESIS, classes, feedback, forget

# Each operation is hit with STRIDE 1, as in a longer campaign; here every second one.
STRIDE = int(os.environ.get("FAULT_STRIDE", "2"))
Acknowledge = Callable[[str, int], None]


def drafts(stream: Stream) -> Iterator[list[Draft]]:
    """Return the batches of the workload: new ids, one retry a batch, a FORGET and a class."""
    for step in range(6):
        batch = [feedback(stream, f"{step}-{n}", step) for n in range(3)]
        yield [*batch, feedback(stream, f"{max(step - 1, 0)}-0", max(step - 1, 0))]
    yield [forget(stream, "f", "1-1"), classes(stream, "c", "x")]


def work(folder: Path, disk: Disk | None, acknowledge: Acknowledge) -> None:
    """Run the workload on a log that may be new; errors of the disk acknowledge nothing and do not stop it."""
    log = SqliteLog(folder / "log.sqlite", tail_events_max=5, vfs=disk and disk.name)
    log.empty_wal()
    stream = log.open_stream("iris", 1, GENESIS, 3)
    marks = AckMarks(folder / "marks", {stream.number})
    for step, batch in enumerate(drafts(stream)):
        with suppress(LogError):
            outcomes = log.append(batch)
            marks.write_mark(stream.number, Position(*log.stream_state(stream.number)[:2]))
            for draft, outcome in zip(batch, outcomes, strict=True):
                if isinstance(outcome, EventLocation):  # an event to forget may not be there
                    acknowledge(draft.id.decode(), outcome.seq)
        if step == 3:
            with suppress(LogError):
                log.empty_wal()
    log.close()


def check(folder: Path, acknowledged: dict[str, set[int]]) -> None:
    """Check a log on a healthy disk against everything acknowledged, and retry everything."""
    log = SqliteLog(folder / "log.sqlite", tail_events_max=5)
    if (folder / "marks").exists():
        refuse_truncated_log(log, read_marks(folder / "marks"))
    stream = log.open_stream("iris", 1, GENESIS, 3)
    there = {event.id.decode(): event.seq for event in log.read_events(stream.number, 0, 999)}
    assert {name: {there.get(name)} for name in acknowledged} == acknowledged
    for batch in drafts(stream):
        for draft, outcome in zip(batch, log.append(batch), strict=True):
            assert isinstance(outcome, EventLocation)
            assert outcome.seq == there.setdefault(draft.id.decode(), outcome.seq)
    events = log.read_events(stream.number, 0, 999)
    assert {event.id.decode(): event.seq for event in events} == there
    assert [event.seq for event in events] == list(range(1, len(there) + 1))
    assert len(there) == 20
    assert [seq for _, (seq, _) in audit_log(log, 100)] == [20]
    log.check_file()
    log.close()


@pytest.fixture
def folders() -> Iterator[Callable[[], Path]]:
    """Provide folders that are deleted at the end, in memory if possible, since the faults come from the VFS."""
    memory = Path("/dev/shm")  # noqa: S108  # within a folder that mkdtemp makes
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as root:
        yield lambda: Path(tempfile.mkdtemp(dir=root))


def operations(folder: Path) -> int:
    """Return the number of operations of the workload on a healthy disk."""
    disk = Disk()
    acknowledged: dict[str, set[int]] = {}
    work(folder, disk, lambda name, seq: acknowledged.setdefault(name, set()).add(seq))
    assert len(acknowledged) == 20
    check(folder, acknowledged)
    return disk.done


@pytest.mark.parametrize("forever", [False, True], ids=["once", "forever"])
@pytest.mark.parametrize("fault", [Fault.IO, Fault.FULL, Fault.TORN])
def test_no_failure_of_the_disk_is_acknowledged(folders: Callable[[], Path], fault: Fault, *, forever: bool) -> None:
    """The log recovers with the disk after a failure of any operation."""
    total = operations(folders())
    assert total > 60
    for at in range(0, total, STRIDE):
        folder, disk = folders(), Disk()
        acknowledged: dict[str, set[int]] = {}
        disk.fail(at, fault, forever=forever)
        with suppress(LogError):  # the log could not even be opened
            work(folder, disk, lambda name, seq: acknowledged.setdefault(name, set()).add(seq))  # noqa: B023  # used at once
        check(folder, acknowledged)


@pytest.mark.parametrize("fault", [Fault.KILL, Fault.KILL_TORN])
def test_no_kill_loses_or_doubles(folders: Callable[[], Path], fault: Fault) -> None:
    """A process killed at any write, sync or truncation loses nothing that it acknowledged."""
    for at in range(0, operations(folders()), STRIDE):
        folder = folders()
        status, acknowledged = killed(lambda acknowledge: dying(folder, at, fault, acknowledge))  # noqa: B023  # used at once
        assert status == signal.SIGKILL
        check(folder, acknowledged)


def test_no_kill_during_recovery_loses_or_doubles(folders: Callable[[], Path]) -> None:
    """A log survives a second kill during its recovery."""
    left = folders()
    _, acknowledged = killed(lambda acknowledge: dying(left, operations(folders()) - 8, Fault.KILL, acknowledge))
    for at in range(0, 40, STRIDE):
        folder = folders() / "copy"
        shutil.copytree(left, folder)
        _, more = killed(lambda acknowledge: dying(folder, at, Fault.KILL, acknowledge))  # noqa: B023  # used at once
        check(
            folder,
            {name: acknowledged.get(name, set()) | more.get(name, set()) for name in acknowledged.keys() | more.keys()},
        )


def dying(folder: Path, at: int, fault: Fault, acknowledge: Acknowledge) -> None:
    """Run the workload on a disk that kills the process."""
    disk = Disk()
    disk.fail(at, fault)
    work(folder, disk, acknowledge)


def killed(call: Callable[[Acknowledge], None]) -> tuple[int, dict[str, set[int]]]:
    """Run a call in a forked process; return its exit status and what it acknowledged through a pipe."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            call(lambda name, seq: void(os.write(writing, f"{name} {seq}\n".encode())))
        finally:
            os._exit(0)
    os.close(writing)
    acknowledged: dict[str, set[int]] = {}
    with os.fdopen(reading) as lines:
        for line in lines:
            name, seq = line.split()
            acknowledged.setdefault(name, set()).add(int(seq))
    return os.waitpid(pid, 0)[1], acknowledged


def void(_: object) -> None:
    """Ignore an acknowledgement."""


# Loss of power


def test_a_loss_of_power_loses_no_acknowledged_event(folders: Callable[[], Path]) -> None:
    """A loss of power at any operation, with any part of the unsynced writes on disk, loses nothing acknowledged."""
    seeded = random.Random(11)
    total = operations(folders())
    for at in range(0, total, STRIDE):
        folder, after = folders(), folders()
        acknowledged = powerless(folder, after, at, seeded, lying=False)
        check(after, acknowledged)


def test_a_disk_that_lies_about_syncs_is_found_out(folders: Callable[[], Path]) -> None:
    """The checker detects losses on a disk whose syncs do nothing (the control)."""
    seeded = random.Random(12)
    total = operations(folders())
    failures = 0
    for at in range(total // 2, total, 6):
        folder, after = folders(), folders()
        acknowledged = powerless(folder, after, at, seeded, lying=True)
        try:
            check(after, acknowledged)
        except (AssertionError, LogError):
            failures += 1
    assert failures > 3


def test_no_failed_sync_is_made_good_by_the_next_one(folders: Callable[[], Path]) -> None:
    """Events acknowledged after any failed sync, retries too, survive a loss of power."""
    for at in range(16):
        folder, after, disk = folders(), folders(), Disk()
        acknowledged: dict[str, set[int]] = {}
        disk.fail(at, Fault.IO, operations=frozenset({"sync"}))
        for _ in range(2):
            with suppress(LogError):
                work(folder, disk, lambda name, seq: acknowledged.setdefault(name, set()).add(seq))  # noqa: B023  # used at once
        disk.lose_power(random.Random(at))
        leave(disk, after)
        check(after, acknowledged)


def test_a_retry_is_not_acknowledged_from_memory(folders: Callable[[], Path]) -> None:
    """A commit whose sync failed is found by the reopened log, and is on disk before a retry is acknowledged."""
    folder, after, disk = folders(), folders(), Disk()
    log = SqliteLog(folder / "log.sqlite", vfs=disk.name)
    stream = log.open_stream("iris", 1, GENESIS, 3)
    disk.fail(0, Fault.IO, operations=frozenset({"sync"}))
    with pytest.raises(OutcomeUnknownError):
        log.append([feedback(stream, "a")])
    assert log.append([feedback(stream, "a")]) == [EventLocation(stream.number, 1, duplicate=True)]
    disk.lose_power(random.Random(1))
    leave(disk, after)
    assert [event.id for event in SqliteLog(after / "log.sqlite").read_events(stream.number, 0, 9)] == [b"a"]


def powerless(folder: Path, after: Path, at: int, seeded: random.Random, *, lying: bool) -> dict[str, set[int]]:
    """Run the workload until a loss of power at an operation, and write the content of the disk to `after`.

    Marks are not synced, so none of them is there.
    """
    disk = Disk(lying=lying)
    acknowledged: dict[str, set[int]] = {}

    def acknowledge(name: str, seq: int) -> None:
        if disk.cut is None:
            acknowledged.setdefault(name, set()).add(seq)

    disk.cut_at(at, seeded)
    work(folder, disk, acknowledge)
    leave(disk, after)
    return acknowledged


def leave(disk: Disk, after: Path) -> None:
    """Write the content of the disk after the loss of power to a folder."""
    assert disk.cut is not None
    for name, content in disk.cut.items():
        (after / Path(name).name).write_bytes(content)
