"""The power goes, and the disk keeps what was synced, and of the rest whatever it had got to.

A workload of appends, retries, admin calls, restarts, folding, publishing and checkpoints runs on a disk that records
it (simulated_disk.py).
For any point of it the directory is made again as a disk may hold it after a loss of power there: all
that was synced, and of what was not, each sector of 512 bytes, each truncation and each name in a folder or not. Some
of these directories are worked on further, until the power goes again. In each the service is started as `softstep
serve` starts; every acknowledged event must be there once, in order, with its rows, the fold must be that of the plain
definition, and a retry of everything that was ever sent gets one seq. A refused start counts as a loss.

The controls run the same with `synchronous=NORMAL`, which does not sync each commit, and on a disk that lies about
syncs of files; there the same checker must see losses.
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
from service.store.directory.data_directory import DataDirectory, StreamFolder
from service.store.log import database
from service.store.log.audit import audit_log
from service.store.log.events import Draft, Event, EventLocation, Kind, Stream
from service.store.log.sqlite import SqliteLog
from service.store.states.snapshots import list_seqs, read_latest, read_snapshot
from tests.torture.disk_workload import ARTIFACT, BYTES_MAX, Learner, Life, Sent, Told, opened, settings
from tests.torture.reference_state import state, weights_of
from tests.torture.results import Line
from tests.torture.simulated_disk import Surface

STATES: Final = 2000
CONTROL_STATES: Final = 200
# Of fewer, all may be well by chance.
CONTROL_STATES_MIN: Final = 50
# Of one recording; another one follows in the directory that the last one left.
STATES_OF_ONE: Final = 25
GENERATIONS: Final = 4
TURNS: Final = 24
NORMAL: Final = tuple(
    ("synchronous", "normal", 1) if name == "synchronous" else (name, *rest) for name, *rest in database.PRAGMAS
)


# What must hold


def check(root: Path, notes: list[Any]) -> None:
    """Starts in a directory and holds what is there to what was sent and told.

    Raises:
        AssertionError, SoftstepError: Something is not as it must be.
    """
    with open_data(settings(root)) as data:
        assert data is not None
        told = {note.draft.id: note.seq for note in notes if isinstance(note, Told)}
        sent = {note.draft.id: note.draft for note in notes if isinstance(note, Sent)}
        with closing(opened(data)) as log:
            streams = log.list_streams()
            assert streams or not told, "the stream is gone"
            if streams:
                _check_stream(data, log, streams[0], sent, told)
            log.check_file()


def _check_stream(
    data: DataDirectory, log: SqliteLog, stream: Stream, sent: dict[bytes, Draft], told: dict[bytes, int]
) -> None:
    folder = data.stream_folder("m", 1)
    events = log.read_events(stream.number, 0, 9999)
    _check_events(events, sent, told)
    if events:
        for seq in list_seqs(folder.checkpoints):
            read_snapshot(folder.checkpoints / str(seq))
        newest = read_latest(folder.snapshots)
        assert newest is None or newest[0] <= len(events), "a state was published of events that are not there"
        _check_fold(folder, log, stream, events)
    # All that was sent is sent again.
    for id_, draft in sent.items():
        (outcome,) = log.append([draft])
        if id_ in told:
            assert isinstance(outcome, EventLocation), "a retry was refused"
            assert (outcome.duplicate, outcome.seq) == (True, told[id_]), "a retry has another seq"
    events = log.read_events(stream.number, 0, 9999)
    _check_events(events, sent, told)
    if events:
        bound = folder.bind_artifact(ARTIFACT, BYTES_MAX)
        assert not bound.differs
        _check_fold(folder, log, stream, events)
    assert [seq for _, (seq, _) in audit_log(log, 9999)] == ([len(events)] if events else [])


def _check_events(events: list[Event], sent: dict[bytes, Draft], told: dict[bytes, int]) -> None:
    there = {event.id: event for event in events}
    assert len(there) == len(events), "an event is there twice"
    assert [event.seq for event in events] == list(range(1, len(events) + 1)), "the order is another one"
    assert {id_: there[id_].seq if id_ in there else None for id_ in told} == told, "an acknowledged event is lost"
    assert there.keys() <= sent.keys(), "nobody sent that event"
    for id_, event in there.items():
        if event.kind == Kind.FEEDBACK and event.payload is not None:
            assert event.payload == sent[id_].payload, "an event has other rows"


def _check_fold(folder: StreamFolder, log: SqliteLog, stream: Stream, events: list[Event]) -> None:
    learner = Learner(stream, folder, log)
    learner.catch_up()
    expected = weights_of(state(ARTIFACT, events, len(events)))
    assert weights_of(learner.follower.fold) == expected, "the fold is another one"


# The campaign


def states(folder: Path, seed: int, count: int, *, lying: bool = False) -> Iterator[str | None]:
    """Lets the power go so often; gives for each state what does not hold, or None."""
    seeded = random.Random(seed)
    root, notes = folder / "disk", []  # type: ignore[var-annotated]
    for number in range(count):
        if number % (STATES_OF_ONE * GENERATIONS) == 0:
            shutil.rmtree(root, ignore_errors=True)
            root.mkdir()
            notes = []
        if number % STATES_OF_ONE == 0:
            life = Life(root, seeded, notes)
            ops = life.run(TURNS)
            cuts = _cuts(ops, life.began, seeded)
            surface, done = Surface(root, lying=lying), 0
        cut = cuts[number % STATES_OF_ONE]
        for op in ops[done:cut]:
            surface.do(op)
        done, after = cut, folder / "after"
        surface.left(after, seeded)
        told = [op for op in ops[:cut] if isinstance(op, Sent | Told)]
        is_last = number % STATES_OF_ONE == STATES_OF_ONE - 1
        if is_last:
            shutil.copytree(after, folder / "next")
        wrong = _wrong(after, told)
        shutil.rmtree(after)
        if is_last:
            shutil.rmtree(root)
            (folder / "next").rename(root)
            notes = told
            if wrong is not None:  # nothing can be begun there
                shutil.rmtree(root)
                root.mkdir()
                notes = []
        yield wrong


def _cuts(ops: list[Any], began: int, seeded: random.Random) -> list[int]:
    """Where the power goes: anywhere, and more often than by chance just after an answer."""
    answers = [at + 1 for at in range(began, len(ops)) if isinstance(ops[at], Told)]
    cuts = [*seeded.choices(answers, k=STATES_OF_ONE // 2)] if answers else []
    return sorted(cuts + seeded.choices(range(began, len(ops) + 1), k=STATES_OF_ONE - len(cuts)))


def _wrong(root: Path, notes: list[Any]) -> str | None:
    try:
        check(root, notes)
    except LogError as reason:
        return f"the start was refused: {reason}"
    except (AssertionError, SoftstepError) as reason:
        return str(reason).split("\n", maxsplit=1)[0]
    return None


def told_of(wrongs: list[str | None]) -> str:
    """How often each thing went wrong."""
    kinds = sorted({wrong for wrong in wrongs if wrong is not None})
    return "; ".join(f"{wrongs.count(kind)} times {kind}" for kind in kinds)


def power(folder: Path, share: float = 1.0) -> Iterator[Line]:
    """The campaign."""
    wrongs = list(states(folder, 1, max(1, round(STATES * share))))
    yield Line(
        "loss of power, unsynced sectors and names kept or not",
        len(wrongs),
        STATES,
        len(wrongs) - wrongs.count(None),
        told_of(wrongs),
    )
    count = max(CONTROL_STATES_MIN, round(CONTROL_STATES * share))
    with patch.object(database, "PRAGMAS", NORMAL):
        yield _control("synchronous=NORMAL", list(states(folder, 2, count)))
    yield _control("a disk that lies about syncs", list(states(folder, 3, count, lying=True)))


def _control(name: str, wrongs: list[str | None]) -> Line:
    seen = len(wrongs) - wrongs.count(None)
    note = f"the control: {seen} of the states show a loss, as some must"
    return Line(f"loss of power with {name}", len(wrongs), CONTROL_STATES, 0 if seen else len(wrongs), note)
