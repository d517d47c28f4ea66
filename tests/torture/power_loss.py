"""The power is lost, and the disk keeps what was synced and a random part of the rest.

A workload of appends, retries, admin calls, restarts, folds, snapshots and checkpoints runs on a disk that records it
(recording_disk.py). At random points the directory is rebuilt as a disk may hold it after a loss of power
(simulated_disk.py). It holds all that was synced. Of the rest, each sector of 512 bytes, each truncation and each
change of names in a folder is there or not. Some of these directories are used further, until the next loss of power.

In each directory the service starts as `softstep serve` does. Every acknowledged event must be there once, in order,
with its rows; the fold must be the reference state; a retry of everything that was sent must give each event one seq. A
start that is refused counts as a loss.

The controls run the same workload with `synchronous=NORMAL`, which does not sync each commit, and on a disk that
ignores syncs of files. There the same checker must find losses.
"""

import random
import shutil
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, Final
from unittest.mock import patch

from service.commands.serve import open_data
from service.errors import LogError, SoftstepError
from service.store.directory.bound_artifact import bind_artifact
from service.store.directory.data_directory import DataDirectory, StreamFolder
from service.store.log import database
from service.store.log.audit import audit_log
from service.store.log.events import Draft, Event, EventLocation, Kind, Stream
from service.store.log.sqlite import SqliteLog
from service.store.states.snapshots import read_snapshot
from service.store.states.state_folder import list_seqs, read_latest
from tests.torture.disk_workload import (
    ARTIFACT,
    BYTES_MAX,
    Acknowledged,
    DiskWorkload,
    InlineLearner,
    Sent,
    open_log,
    workload_settings,
)
from tests.torture.reference_state import fold_lineage, state_hash
from tests.torture.results import ResultRow
from tests.torture.simulated_disk import SimulatedDisk

STATES: Final = 2000
CONTROL_STATES: Final = 200
# With fewer states a control may show no loss by chance.
CONTROL_STATES_MIN: Final = 50
# States per recording; the next recording starts in the directory of the last state.
STATES_PER_RECORDING: Final = 25
RECORDINGS_PER_DISK: Final = 4
ACTIONS: Final = 24
NORMAL: Final = tuple(
    ("synchronous", "normal", 1) if name == "synchronous" else (name, *rest) for name, *rest in database.PRAGMAS
)

# Seqs of acknowledged events, and drafts of sent events, by id.
Seqs = dict[bytes, int]
Drafts = dict[bytes, Draft]


# The checker


def check(root: Path, notes: list[Any]) -> None:
    """Start in a directory and compare it with the notes.

    Raises:
        AssertionError: A promise is broken.
        SoftstepError: The service does not start.
    """
    with open_data(workload_settings(root)) as data:
        assert data is not None
        acknowledged = {note.draft.id: note.seq for note in notes if isinstance(note, Acknowledged)}
        sent = {note.draft.id: note.draft for note in notes if isinstance(note, Sent)}
        with closing(open_log(data)) as log:
            streams = log.list_streams()
            assert streams or not acknowledged, "the stream is missing"
            if streams:
                _check_stream(data, log, streams[0], sent, acknowledged)
            log.check_file()


def _check_stream(data: DataDirectory, log: SqliteLog, stream: Stream, sent: Drafts, acknowledged: Seqs) -> None:
    folder = data.stream_folder("m", 1)
    events = log.read_events(stream.number, 0, 9999)
    _check_events(events, sent, acknowledged)
    if events:
        for seq in list_seqs(folder.checkpoints):
            read_snapshot(folder.checkpoints / str(seq))
        newest = read_latest(folder.snapshots)
        assert newest is None or newest[0] <= len(events), "a snapshot is newer than the log"
        _check_fold(folder, log, stream, events)
    for id_, draft in sent.items():
        (outcome,) = log.append([draft])
        if id_ in acknowledged:
            assert isinstance(outcome, EventLocation), "a retry was rejected"
            assert (outcome.duplicate, outcome.seq) == (True, acknowledged[id_]), "a retry has another seq"
    events = log.read_events(stream.number, 0, 9999)
    _check_events(events, sent, acknowledged)
    if events:
        bound = bind_artifact(folder, ARTIFACT, BYTES_MAX)
        assert not bound.differs
        _check_fold(folder, log, stream, events)
    assert [seq for _, (seq, _) in audit_log(log, 9999)] == ([len(events)] if events else [])


def _check_events(events: list[Event], sent: Drafts, acknowledged: Seqs) -> None:
    stored = {event.id: event for event in events}
    assert len(stored) == len(events), "an event is stored twice"
    assert [event.seq for event in events] == list(range(1, len(events) + 1)), "the order has changed"
    found = {id_: stored[id_].seq if id_ in stored else None for id_ in acknowledged}
    assert found == acknowledged, "an acknowledged event is lost"
    assert stored.keys() <= sent.keys(), "an event was never sent"
    for id_, event in stored.items():
        assert event.actor == sent[id_].actor, "an event has another actor"
        if event.kind == Kind.FEEDBACK and event.payload is not None:
            assert event.payload == sent[id_].payload, "an event has other rows"


def _check_fold(folder: StreamFolder, log: SqliteLog, stream: Stream, events: list[Event]) -> None:
    learner = InlineLearner(stream, folder, log)
    learner.catch_up()
    expected = state_hash(fold_lineage(ARTIFACT, events, len(events)))
    assert state_hash(learner.follower.fold) == expected, "the fold differs"


# The campaign


def lose_power(folder: Path, seed: int, count: int, *, lying: bool = False) -> Iterator[str | None]:
    """Lose power `count` times; yield the violation of each state, or None."""
    rng = random.Random(seed)
    root, notes = folder / "disk", []  # type: ignore[var-annotated]
    for number in range(count):
        if number % (STATES_PER_RECORDING * RECORDINGS_PER_DISK) == 0:
            notes = _make_empty(root)
        if number % STATES_PER_RECORDING == 0:
            workload = DiskWorkload(root, rng, notes)
            operations = workload.run(ACTIONS)
            points = _choose_points(operations, workload.first, rng)
            disk, applied = SimulatedDisk(root, lying=lying), 0
        point = points[number % STATES_PER_RECORDING]
        for operation in operations[applied:point]:
            disk.apply(operation)
        applied, after = point, folder / "after"
        disk.lose_power(after, rng)
        known = [note for note in operations[:point] if isinstance(note, Sent | Acknowledged)]
        is_last = number % STATES_PER_RECORDING == STATES_PER_RECORDING - 1
        if is_last:
            shutil.copytree(after, folder / "next")
        violation = _find_violation(after, known)
        shutil.rmtree(after)
        if is_last:
            shutil.rmtree(root)
            (folder / "next").rename(root)
            # A broken directory cannot be used further.
            notes = known if violation is None else _make_empty(root)
        yield violation


def _make_empty(root: Path) -> list[Any]:
    """Make an empty folder; return the notes of it, which are none."""
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir()
    return []


def _choose_points(operations: list[Any], first: int, rng: random.Random) -> list[int]:
    """Choose where the power is lost: half of the points anywhere, the others right after an acknowledgement."""
    answers = [at + 1 for at in range(first, len(operations)) if isinstance(operations[at], Acknowledged)]
    points = [*rng.choices(answers, k=STATES_PER_RECORDING // 2)] if answers else []
    return sorted(points + rng.choices(range(first, len(operations) + 1), k=STATES_PER_RECORDING - len(points)))


def _find_violation(root: Path, notes: list[Any]) -> str | None:
    try:
        check(root, notes)
    except LogError as reason:
        return f"the start was refused: {reason}"
    except (AssertionError, SoftstepError) as reason:
        return str(reason).split("\n", maxsplit=1)[0]
    return None


def run_campaign(folder: Path, share: float = 1.0) -> Iterator[ResultRow]:
    """Run a share of the campaign in a folder."""
    found = list(lose_power(folder, 1, max(1, round(STATES * share))))
    kinds = sorted({violation for violation in found if violation is not None})
    yield ResultRow(
        "loss of power, with unsynced sectors and names kept or not",
        len(found),
        STATES,
        len(found) - found.count(None),
        "; ".join(f"{found.count(kind)} times {kind}" for kind in kinds),
    )
    count = max(CONTROL_STATES_MIN, round(CONTROL_STATES * share))
    with patch.object(database, "PRAGMAS", NORMAL):
        yield _control_row("synchronous=NORMAL", list(lose_power(folder, 2, count)))
    yield _control_row("a disk that ignores syncs", list(lose_power(folder, 3, count, lying=True)))


def _control_row(name: str, found: list[str | None]) -> ResultRow:
    losses = len(found) - found.count(None)
    note = f"control: {losses} of the states show a loss; there must be some"
    return ResultRow(f"loss of power with {name}", len(found), CONTROL_STATES, 0 if losses else len(found), note)
