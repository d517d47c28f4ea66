"""Continue from what an earlier release has learned: a state in the log that any later fold can start from.

A change of what the fold computes raises FOLD_VERSION. A stream continues with the fold that it began with, as long as
a release computes that fold to the bit: from OLDEST_FOLD_VERSION on. A release cannot make the states of older folds
again. So its first learner appends what was learned to the stream, as a BASE event, and continues from that with its
own fold. What is served does not jump, and acknowledged events that are not in that state are folded after it.
store/log/lineage.py defines what the event means for every state(n).

The state is that of the newest intact checkpoint on the way to the last seq. Without one the BASE has no state, and
this release folds all events again from the artifact.

The learner does this, not the start of the service: it needs no lock but the order of the stream, a start stays quick
however much there is to fold, and it is tried again after a failure while the last snapshot is served.

    payload     "seq", "turns", "n_classes"
                "state"      null, or the state as base_state.py describes it
"""

from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from service.chain_errors import BaseForgottenError, LogForkedError
from service.errors import ArtifactError, IdConflictError, SnapshotError
from service.learn.base_state import FoldStart, decode_state, encode_state
from service.learn.event_fold import EventFold
from service.store.artifact.artifact import Artifact
from service.store.artifact.fingerprint import FOLD_VERSION, OLDEST_FOLD_VERSION, fold_version_of
from service.store.directory.verify_files import later_exclusions, position_mismatch
from service.store.log.admin_payloads import BASE_BYTES_MAX, base_id, dump, parse
from service.store.log.events import Draft, EventLocation, Kind, Stream
from service.store.log.feedback_log import FeedbackLog, read_lineage, read_verified_payload
from service.store.log.lineage import Lineage, LineageChange
from service.store.states.snapshots import Snapshot, read_snapshot
from service.store.states.state_folder import list_seqs


class LaterReleaseError(ArtifactError):
    """A later release has taken over the stream, so this one cannot fold what follows."""


def current_fold_version(stream: Stream, artifact: Artifact, lineage: Lineage) -> int:
    """Return the version of the fold that continued a stream until now.

    Raises:
        ArtifactError: The stream belongs to another artifact, or a later release began or took it over.
    """
    begun = fold_version_of(artifact, stream.genesis)
    if begun is None:
        raise ArtifactError("the stream was begun with another artifact or by a later release")
    refuse_later_fold(lineage.bases)
    return max([begun, *(base.fold for base in lineage.bases)])


def refuse_later_fold(changes: Iterable[LineageChange]) -> None:
    """Raise LaterReleaseError if one of the changes is the BASE of a later release."""
    if any(change.fold > FOLD_VERSION for change in changes):
        raise LaterReleaseError("a later release has taken over the stream; serve it with that release")


def take_over(stream: Stream, artifact: Artifact, log: FeedbackLog, checkpoints: Path, now_ms: int) -> int | None:
    """Append a BASE for this release's fold if a fold that it cannot compute continued the stream until now.

    Args:
        stream: The stream.
        artifact: The artifact that it is bound to.
        log: The log that holds its events; the BASE is appended to it.
        checkpoints: The folder of its checkpoints.
        now_ms: Milliseconds since 1970, for people.

    Returns:
        The seq of the state that the fold continues from, or None if there was nothing to take over.

    Raises:
        ArtifactError: As for `current_fold_version`, or the log refuses the event, because its disk is full.
        LogForkedError: Try again: another replica was faster.
        LogError: The log cannot be used now.
    """
    lineage = read_lineage(log, stream.number)
    version = current_fold_version(stream, artifact, lineage)
    if version >= OLDEST_FOLD_VERSION:
        return None
    seq, turns, state = 0, len(lineage.changes), None
    n_classes = stream.n_classes
    found = _newest_checkpoint(stream, log, checkpoints, lineage, version)
    if found is not None:
        seq, checkpoint = found
        turns, n_classes = checkpoint.fields["turns"], len(checkpoint.fields["classes"])
        state = encode_state(artifact, _fold_start(stream, artifact, log, lineage.base_of_state(seq)), checkpoint)
    payload = dump({"seq": seq, "turns": turns, "n_classes": n_classes, "state": state})
    draft = Draft(stream.number, Kind.BASE, base_id(stream.version, FOLD_VERSION), payload, now_ms)
    (outcome,) = log.append([draft])
    if isinstance(outcome, IdConflictError):
        raise LogForkedError("another replica has taken over the stream meanwhile, from a state at another event")
    if not isinstance(outcome, EventLocation):
        raise ArtifactError(f"the stream cannot be taken over now: {outcome}")
    return seq


def check_taken_over(stream: Stream, artifact: Artifact, lineage: Lineage) -> None:
    """Check that a lineage which was read after `take_over` needs no BASE: the log may have forked between the two.

    A fold that continued without the BASE would go on from another state than the one of the BASE that comes later.

    Raises:
        LogForkedError: It needs one; take the stream over again.
        ArtifactError: As for `current_fold_version`.
    """
    if current_fold_version(stream, artifact, lineage) < OLDEST_FOLD_VERSION:
        raise LogForkedError("the feedback log has lost the event by which this release has taken the stream over")


def first_fold(
    stream: Stream, artifact: Artifact, log: FeedbackLog, lineage: Lineage, base: LineageChange | None
) -> EventFold:
    """Return the fold that a state starts from: that of a base, or of the artifact if there is no base.

    It has the version that continued the stream until now, or this release's if it cannot compute that one.

    Raises:
        ArtifactError: As for `current_fold_version`, or this release cannot start from the state of the base.
        BaseForgottenError: Read the lineage again: the base was forgotten since.
        LogDamagedError: The event is missing or altered; a start may not have verified it.
    """
    version = current_fold_version(stream, artifact, lineage)
    if version < OLDEST_FOLD_VERSION:
        version = FOLD_VERSION
    start = _fold_start(stream, artifact, log, base)
    fold = EventFold(start.artifact, version)
    fold.state.resume_serving(paused=start.paused, frozen=start.frozen)
    return fold


def _fold_start(stream: Stream, artifact: Artifact, log: FeedbackLog, base: LineageChange | None) -> FoldStart:
    """Return what a fold starts from: the state of a base, or the artifact if there is no base or it has no state."""
    if base is None:
        return FoldStart(artifact)
    payload = read_verified_payload(log, stream, base.seq)
    if payload is None:
        raise BaseForgottenError(f"the learned state at event {base.seq} was forgotten meanwhile; try again without it")
    state: Any = parse(payload, BASE_BYTES_MAX).get("state")
    return FoldStart(artifact) if state is None else decode_state(artifact, state)


def _newest_checkpoint(
    stream: Stream, log: FeedbackLog, folder: Path, lineage: Lineage, version: int
) -> tuple[int, Snapshot] | None:
    """Return the newest intact checkpoint of a fold version on the way to the last seq, with its seq."""
    last = log.stream_state(stream.number).seq
    for seq in reversed(list_seqs(folder)):
        with suppress(SnapshotError, KeyError, TypeError, ValueError):
            checkpoint = read_snapshot(folder / str(seq))
            fields = checkpoint.fields
            is_of_version = fields["scalars"]["fold_version"] == version and fields["manifest"] is not None
            is_intact = position_mismatch(log, stream, seq, checkpoint) is None and not later_exclusions(
                fields, seq, lineage
            )
            if is_of_version and is_intact and lineage.continues(last, seq):
                return seq, checkpoint
    return None
