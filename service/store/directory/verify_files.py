"""What a data directory keeps, held against its log: marks, bound artifacts, checkpoints and snapshots.

    a file is    where
    damaged      it cannot be read whole, or names another stream, another event, or one that there is not
    damaged      it was made of an event that was forgotten, and the learner has said that nothing holds that any more
    outdated     it was made of an event that was forgotten or skipped since: nobody uses it, and it is deleted in time
    good         otherwise; whether its state is what the events fold to is for learn/verify_states.py to say

The service may be running: what is deleted or appended meanwhile is no damage.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

from service.errors import ArtifactError, LogDamagedError, SnapshotError
from service.store.artifact.artifact import Artifact
from service.store.directory.ack_marks import read_marks, refuse_cut
from service.store.directory.offline import StoredStream, bound_artifact
from service.store.log.audit import audit_stream
from service.store.log.events import FeedbackLog, Kind, Position, Stream
from service.store.log.lineage import Lineage, lineage_change
from service.store.states.snapshots import Snapshot, read_snapshot, seqs
from service.store.states.status import read_status

EVENTS: Final = 4096
FileKind = Literal["checkpoint", "snapshot"]


@dataclass(frozen=True)
class Good:
    """A file whose state can be held against the fold."""

    kind: FileKind
    seq: int
    path: Path


@dataclass
class VerifyReport:
    """What was found of one stream.

    Attributes:
        stream: The stream.
        position: How far its chain holds.
        forgotten: The number of events that were forgotten.
        artifact: What it is bound to, or None where that is damaged.
        good: Its files that are good.
        outdated: The number of files that are outdated.
        refolded: The number of files whose state was held against the fold.
        damage: What is damaged, a sentence each.
    """

    stream: Stream
    position: Position
    forgotten: int = 0
    artifact: Artifact | None = None
    good: list[Good] = field(default_factory=list)
    outdated: int = 0
    refolded: int = 0
    damage: list[str] = field(default_factory=list)


def check_marks(found: StoredStream) -> list[str]:
    """What is wrong with the marks, or with a log that ends before one of them."""
    damage = []
    for path in found.data.all_marks():
        try:
            refuse_cut(found.log, read_marks(path))
        except LogDamagedError as reason:
            damage.append(str(reason))
    return damage


def check_stream(found: StoredStream, report: VerifyReport, bytes_max: int) -> Iterator[Position]:
    """Checks one stream and writes what it finds to the report.

    Yields:
        How far the chain is checked.
    """
    stream = report.stream
    folder = found.data.stream(stream.model, stream.version)
    files: list[tuple[FileKind, Path]] = [
        *(("checkpoint", folder.checkpoints / str(seq)) for seq in seqs(folder.checkpoints)),
        *(("snapshot", folder.snapshots / str(seq)) for seq in seqs(folder.snapshots)),
    ]
    # Before the files are read: what it says is erased must not be found in one.
    erased = int(read_status(folder.path).get("erased_epoch", 0))
    try:
        report.artifact = bound_artifact(folder, stream, bytes_max)
    except ArtifactError as reason:
        report.damage.append(f"the bound artifact: {reason}")
    try:
        lineage = Lineage(map(lineage_change, found.log.admin(stream.number)))
        report.forgotten = len(lineage.forgotten)
        for report.position in audit_stream(found.log, stream, EVENTS):
            yield report.position
    except LogDamagedError as reason:
        report.damage.append(str(reason))
        return
    for kind, path in files:
        _check_file(found.log, report, Good(kind, int(path.name), path), lineage, erased)


def _check_file(log: FeedbackLog, report: VerifyReport, file: Good, lineage: Lineage, erased: int) -> None:
    try:
        snapshot = read_snapshot(file.path)
        fault = misplaced(log, report.stream, file.seq, snapshot)
    except (SnapshotError, LogDamagedError) as reason:
        fault = str(reason) if file.path.exists() else None
        snapshot = None
    if fault is None and snapshot is not None:
        late = late_turns(snapshot.fields, file.seq, lineage)
        forgets = [turn.seq for turn in lineage.turns if turn.kind == Kind.FORGET]
        if any(seq in forgets[:erased] for seq in late):
            fault = "it holds an event that was forgotten and is said to be erased"
        elif late:
            report.outdated += 1
        else:
            report.good.append(file)
    if fault is not None:
        report.damage.append(f"{file.kind} {file.seq}: {fault}")


def late_turns(fields: Mapping[str, Any], seq: int, lineage: Lineage) -> list[int]:
    """The seqs of those turns that took an event out of a state after it was written with these fields."""
    late = lineage.turns[int(fields["turns"]) :]
    return [turn.seq for turn in late if any(lineage.holds(seq, one) for one in turn.out)]


def misplaced(log: FeedbackLog, stream: Stream, seq: int, snapshot: Snapshot) -> str | None:
    """Why a file is not of that event of the stream, or None."""
    fields = snapshot.fields
    if (fields.get("stream"), fields.get("genesis")) != (stream.number, stream.genesis.hex()):
        return "it is another stream's"
    if not isinstance(fields.get("turns"), int):
        return "it does not say what was known of the lineage"
    events = log.read(stream.number, seq - 1, 1) if seq else []
    hash_ = events[0].hash if events else stream.genesis
    if (seq > 0) != bool(events) or fields.get("hash") != hash_.hex():
        return f"the feedback log has no event {seq}, or another one there"
    return None
