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
from service.store.directory.ack_marks import read_marks, refuse_truncated_log
from service.store.directory.offline import StoredData, read_bound_artifact
from service.store.log.audit import audit_stream
from service.store.log.events import Kind, Position, Stream
from service.store.log.feedback_log import FeedbackLog, read_lineage, read_position
from service.store.log.lineage import Lineage
from service.store.states.snapshots import Snapshot, list_seqs, read_snapshot
from service.store.states.status import read_status

EVENTS: Final = 4096
FileKind = Literal["checkpoint", "snapshot"]


@dataclass(frozen=True)
class StateFile:
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
        intact: Its files that are good.
        outdated: The number of files that are outdated.
        refolded: The number of files whose state was held against the fold.
        damage: What is damaged, a sentence each.
    """

    stream: Stream
    position: Position
    forgotten: int = 0
    artifact: Artifact | None = None
    intact: list[StateFile] = field(default_factory=list)
    outdated: int = 0
    refolded: int = 0
    damage: list[str] = field(default_factory=list)


def check_marks(found: StoredData) -> list[str]:
    """What is wrong with the marks, or with a log that ends before one of them."""
    damage = []
    for path in found.data.mark_files():
        try:
            refuse_truncated_log(found.log, read_marks(path))
        except LogDamagedError as reason:
            damage.append(str(reason))
    return damage


def check_stream(found: StoredData, report: VerifyReport, bytes_max: int) -> Iterator[Position]:
    """Checks one stream and writes what it finds to the report.

    Yields:
        How far the chain is checked.
    """
    stream = report.stream
    folder = found.data.stream_folder(stream.model, stream.version)
    files: list[tuple[FileKind, Path]] = [
        *(("checkpoint", folder.checkpoints / str(seq)) for seq in list_seqs(folder.checkpoints)),
        *(("snapshot", folder.snapshots / str(seq)) for seq in list_seqs(folder.snapshots)),
    ]
    # Before the files are read: what it says is erased must not be found in one.
    erased = int(read_status(folder.path).get("erased_epoch", 0))
    try:
        report.artifact = read_bound_artifact(folder, stream, bytes_max)
    except ArtifactError as reason:
        report.damage.append(f"the bound artifact: {reason}")
    try:
        lineage = read_lineage(found.log, stream.number)
        report.forgotten = len(lineage.forgotten)
        for report.position in audit_stream(found.log, stream, EVENTS):
            yield report.position
    except LogDamagedError as reason:
        report.damage.append(str(reason))
        return
    for kind, path in files:
        _check_file(found.log, report, StateFile(kind, int(path.name), path), lineage, erased)


def _check_file(log: FeedbackLog, report: VerifyReport, file: StateFile, lineage: Lineage, erased: int) -> None:
    try:
        snapshot = read_snapshot(file.path)
        fault = position_mismatch(log, report.stream, file.seq, snapshot)
    except (SnapshotError, LogDamagedError) as reason:
        fault = str(reason) if file.path.exists() else None
        snapshot = None
    if fault is None and snapshot is not None:
        late = later_exclusions(snapshot.fields, file.seq, lineage)
        forgets = [turn.seq for turn in lineage.changes if turn.kind == Kind.FORGET]
        if any(seq in forgets[:erased] for seq in late):
            fault = "it holds an event that was forgotten and is said to be erased"
        elif late:
            report.outdated += 1
        else:
            report.intact.append(file)
    if fault is not None:
        report.damage.append(f"{file.kind} {file.seq}: {fault}")


def later_exclusions(fields: Mapping[str, Any], seq: int, lineage: Lineage) -> list[int]:
    """The seqs of those turns that took an event out of a state after it was written with these fields."""
    late = lineage.changes[int(fields["turns"]) :]
    return [turn.seq for turn in late if any(lineage.contains(seq, one) for one in turn.excluded)]


def position_mismatch(log: FeedbackLog, stream: Stream, seq: int, snapshot: Snapshot) -> str | None:
    """Why a file is not of that event of the stream, or None."""
    fields = snapshot.fields
    if (fields.get("stream"), fields.get("genesis")) != (stream.number, stream.genesis.hex()):
        return "it is another stream's"
    if not isinstance(fields.get("turns"), int):
        return "it does not say what was known of the lineage"
    position = read_position(log, stream, seq)
    if position is None or fields.get("hash") != position.hash.hex():
        return f"the feedback log has no event {seq}, or another one there"
    return None
