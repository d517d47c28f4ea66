"""Verification of a data directory against its log: marks, bound artifacts, checkpoints and snapshots.

The checkpoints that a shared log keeps are verified in the same way.

    verdict      a checkpoint, snapshot or base
    damaged      cannot be read completely, or names another stream, another event, or an event that does not exist
    damaged      includes a forgotten event, although the learner has reported that nothing includes it
    outdated     includes an event that was forgotten or skipped since: nothing uses it, and it is deleted later
    intact       otherwise; learn/verify_states.py checks whether its state is the fold of the events

The service may be running: what it deletes or appends meanwhile is not damage.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

from service.errors import ArtifactError, LogDamagedError, SnapshotError
from service.settings import Settings
from service.store.artifact.artifact import Artifact
from service.store.directory.ack_marks import read_marks
from service.store.directory.bound_artifact import read_bound_artifact
from service.store.directory.data_directory import StreamFolder
from service.store.directory.offline import StoredData
from service.store.directory.stream_artifact import find_stream_artifact
from service.store.directory.truncation import refuse_truncated_log
from service.store.log.audit import audit_stream
from service.store.log.events import Kind, Position, Stream
from service.store.log.feedback_log import FeedbackLog, read_lineage, read_position
from service.store.log.lineage import Lineage
from service.store.states.bases import list_bases
from service.store.states.snapshots import Snapshot, read_base, read_snapshot
from service.store.states.state_folder import list_seqs
from service.store.states.status import read_status

AUDIT_EVENTS: Final = 4096
# A stored checkpoint is one that replicas share in the log.
FileKind = Literal["checkpoint", "snapshot", "stored checkpoint"]


@dataclass(frozen=True)
class StateFile:
    """A checkpoint or a snapshot of a stream."""

    kind: FileKind
    seq: int
    path: Path


@dataclass
class VerifyReport:
    """The findings about one stream.

    Attributes:
        stream: The stream.
        position: How far its chain is verified.
        forgotten: The number of forgotten events.
        artifact: The artifact that it is bound to; None if that is damaged, or nowhere for a log in PostgreSQL.
        intact: Its intact files.
        outdated: The number of outdated files.
        refolded: The number of files whose state was compared with the fold.
        damage: A sentence for each finding of damage.
    """

    stream: Stream
    position: Position
    forgotten: int = 0
    artifact: Artifact | None = None
    intact: list[StateFile] = field(default_factory=list)
    outdated: int = 0
    refolded: int = 0
    damage: list[str] = field(default_factory=list)


def check_marks(stored: StoredData) -> list[str]:
    """Return a sentence for each mark file that is damaged, or that a truncated log does not reach."""
    damage = []
    for path in stored.data.mark_files():
        try:
            refuse_truncated_log(stored.log, read_marks(path))
        except LogDamagedError as error:
            damage.append(str(error))
    return damage


def check_stream(stored: StoredData, report: VerifyReport, settings: Settings) -> Iterator[Position]:
    """Check one stream and write the findings to the report.

    Args:
        stored: The data directory and its log.
        report: The report of the stream, which is filled.
        settings: Where else the artifact of a stream may be, and its largest size.

    Yields:
        How far the chain is checked.
    """
    stream = report.stream
    folder = stored.data.stream_folder(stream.model, stream.version)
    files = _list_files(folder)
    # Read before the files: what it reports as erased must be in none of them.
    erased = int(read_status(folder.path).get("erased_epoch", 0))
    try:
        if folder.path.exists() or not stored.log.is_shared:
            report.artifact = read_bound_artifact(folder, stream, settings.artifact_bytes_max)
        else:
            report.artifact = find_stream_artifact(stored, stream, settings)
    except (ArtifactError, LogDamagedError) as error:
        report.damage.append(f"the bound artifact: {error}")
    try:
        lineage = read_lineage(stored.log, stream.number)
        report.forgotten = len(lineage.forgotten)
        for report.position in audit_stream(stored.log, stream, AUDIT_EVENTS):
            yield report.position
    except LogDamagedError as error:
        report.damage.append(str(error))
        return
    for file in files:
        _check_file(stored.log, report, file, lineage, erased)
    for name in sorted(list_bases(folder.bases)):
        _check_base(report, folder.bases / name)


def check_shared_states(stored: StoredData, report: VerifyReport, folder: Path) -> None:
    """Check the checkpoints of a stream that a shared log keeps, and write the findings to the report.

    Args:
        stored: The data directory and its log.
        report: The report of the stream, to which its intact checkpoints are added.
        folder: An empty folder, to which they are written.

    Raises:
        LogUnavailableError: The log cannot be used now.
        OSError: The disk failed.
    """
    states, files = stored.log.states, stored.log.files
    if states is None or files is None or report.damage:
        return
    lineage = read_lineage(stored.log, report.stream.number)
    for place, (state, sha256) in enumerate(states.newest(report.stream.number)):
        file = StateFile("stored checkpoint", state.position.seq, folder / str(place))
        try:
            content = files.get(sha256)
        except LogDamagedError as error:
            report.damage.append(f"{file.kind} {file.seq}: {error}")
            continue
        if content is not None:  # a learner may delete it meanwhile
            file.path.write_bytes(content)
            _check_file(stored.log, report, file, lineage, 0)


def later_exclusions(fields: Mapping[str, Any], seq: int, lineage: Lineage) -> list[int]:
    """Return the seqs of the FORGET and SKIP events that took an event out of a state after its file was written.

    Args:
        fields: The file's fields, which say how many admin events its writer knew.
        seq: The event up to which the state is folded.
        lineage: The stream's lineage.
    """
    later = lineage.changes[int(fields["turns"]) :]
    return [change.seq for change in later if any(lineage.contains(seq, one) for one in change.excluded)]


def position_mismatch(log: FeedbackLog, stream: Stream, seq: int, snapshot: Snapshot) -> str | None:
    """Return why a file is not a state at that event of the stream, or None if it is."""
    fields = snapshot.fields
    if (fields.get("stream"), fields.get("genesis")) != (stream.number, stream.genesis.hex()):
        return "it belongs to another stream"
    if not isinstance(fields.get("turns"), int):
        return "it does not say which admin events it knows"
    position = read_position(log, stream, seq)
    if position is None or fields.get("hash") != position.hash.hex():
        return f"the feedback log has no event {seq}, or another one there"
    return None


def _check_base(report: VerifyReport, path: Path) -> None:
    try:
        read_base(path)
    except SnapshotError as error:
        if path.exists():
            report.damage.append(f"base {path.name}: {error}")


def _list_files(folder: StreamFolder) -> list[StateFile]:
    kinds: list[tuple[FileKind, Path]] = [("checkpoint", folder.checkpoints), ("snapshot", folder.snapshots)]
    return [StateFile(kind, seq, files / str(seq)) for kind, files in kinds for seq in list_seqs(files)]


def _check_file(log: FeedbackLog, report: VerifyReport, file: StateFile, lineage: Lineage, erased: int) -> None:
    try:
        snapshot = read_snapshot(file.path)
        fault = position_mismatch(log, report.stream, file.seq, snapshot)
    except (SnapshotError, LogDamagedError) as error:
        fault = str(error) if file.path.exists() else None
        snapshot = None
    if fault is None and snapshot is not None:
        later = later_exclusions(snapshot.fields, file.seq, lineage)
        forgets = [change.seq for change in lineage.changes if change.kind == Kind.FORGET]
        if any(seq in forgets[:erased] for seq in later):
            fault = "it includes a forgotten event that is reported as erased"
        elif later:
            report.outdated += 1
        else:
            report.intact.append(file)
    if fault is not None:
        report.damage.append(f"{file.kind} {file.seq}: {fault}")
