"""Going on from what an earlier release has learned: a state in the log that any later fold can start from.

A change of what the fold computes raises FOLD_VERSION, and then this release cannot make again what the one before has
made. So the first learner of a new fold writes what was learned into the stream, as a BASE event, and goes on from
that: what is served does not jump, and what is acknowledged but not in that state is folded behind it. lineage.py says
what the event means for every state(n). It is made of the newest checkpoint that is whole and on the way to the last
seq; without one it has no state, and this release folds all events anew from the artifact.

The learner does so, and not the start of the service: it needs no lock but its stream's own order, a start stays quick
whatever there is to fold, and where it fails it is tried again while the last snapshot is served.

    payload     "seq", "turns", "n_classes"
                "state"      null, or
                    manifest     what was learned as an artifact (export.py), but for what depends on its file
                    tensors      its tensors by name, each [dtype, [size, …], base64 of its row-major bytes]
                    paused       whether rows were only scored
                    frozen       null, or in shadow mode what was served: {"clips", "arrays" as the tensors}

An artifact is what every release can start from. It answers with the same bits; what else a rule keeps, its sums and
the counts of the progressive validation, begins anew, and the rows that were learned count as rows of its training.
"""

import binascii
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from service.errors import ArtifactError, LogDamagedError, LogUnavailableError, PayloadError, SnapshotError
from service.learn.event_fold import EventFold
from service.store.artifact.artifact import Artifact
from service.store.artifact.fingerprint import FOLD_VERSION, fold_version_of
from service.store.artifact.model_factory import restore_parameters
from service.store.directory.verify_files import later_exclusions, position_mismatch
from service.store.log.admin_payloads import BASE_BYTES_MAX, base_id, dump, parse
from service.store.log.events import Draft, Event, EventLocation, Kind, Position, Stream
from service.store.log.feedback_log import FeedbackLog, read_event, read_lineage, read_position
from service.store.log.lineage import Lineage, LineageChange, segments_begin_with
from service.store.states.snapshots import Snapshot, list_seqs, read_snapshot

DTYPES: Final = ("<f4", "<f8")

Arrays = Mapping[str, NDArray[Any]]


def fold_of(stream: Stream, artifact: Artifact, lineage: Lineage) -> int:
    """The version of the fold that goes on with a stream now.

    Raises:
        ArtifactError: The stream is another artifact's, or was begun or taken over by a later release.
    """
    begun = fold_version_of(artifact, stream.genesis)
    if begun is None:
        raise ArtifactError("its artifact is not what the stream was begun with, or a later release began it")
    version = max([begun, *(base.fold for base in lineage.bases)])
    if version > FOLD_VERSION:
        raise ArtifactError("a later release has gone on with the stream; this one cannot")
    return version


def take_over(stream: Stream, artifact: Artifact, log: FeedbackLog, checkpoints: Path, now_ms: int) -> int | None:
    """Let this release's fold go on with a stream, where an earlier one's did so far.

    Args:
        stream: The stream.
        artifact: What it is bound to.
        log: Where its events are; the BASE is appended to it.
        checkpoints: The folder of its checkpoints.
        now_ms: The time, for people.

    Returns:
        The seq of the state that the fold goes on from; None where there was nothing to take over.

    Raises:
        ArtifactError: As for `fold_of`.
        LogError: The log cannot be used now.
    """
    lineage = read_lineage(log, stream.number)
    version = fold_of(stream, artifact, lineage)
    if version == FOLD_VERSION:
        return None
    seq, turns, state = 0, len(lineage.changes), None
    n_classes = stream.n_classes
    found = _newest(stream, log, checkpoints, lineage, version)
    if found is not None:
        seq, kept = found
        turns, n_classes, state = kept.fields["turns"], len(kept.fields["classes"]), _state_of(kept)
    payload = dump({"seq": seq, "turns": turns, "n_classes": n_classes, "state": state})
    draft = Draft(stream.number, Kind.BASE, base_id(stream.version, FOLD_VERSION), payload, now_ms)
    (outcome,) = log.append([draft])
    if not isinstance(outcome, EventLocation):
        raise LogUnavailableError(f"the stream cannot be taken over now: {outcome}")
    return seq


def first_fold(stream: Stream, artifact: Artifact, log: FeedbackLog, base: LineageChange | None) -> EventFold:
    """The fold that a state begins from: that of a base, else that of the artifact.

    Raises:
        ArtifactError: The state is none that this release can go on from.
        LogDamagedError: The event is missing, or is not what was written: a start need not have checked it.
    """
    if base is None:
        return EventFold(artifact)
    payload = _verified(stream, log, base.seq).payload
    if payload is None:
        raise LogDamagedError(f"the feedback log has no base at event {base.seq} where one was written")
    state: Any = parse(payload, BASE_BYTES_MAX).get("state")
    if state is None:
        return EventFold(artifact)
    try:
        fold = EventFold(Artifact.from_fields(state["manifest"], _arrays(state["tensors"])))
        frozen = state["frozen"]
        arrays = None if frozen is None else _arrays(frozen["arrays"])
        served = None if arrays is None else restore_parameters(artifact.manifest, arrays, frozen["clips"])
        fold.state.resume_serving(paused=state["paused"], frozen=served)
    except (KeyError, TypeError, ValueError, PayloadError) as error:
        raise ArtifactError("the state of a base is none that this release can go on from") from error
    return fold


def _verified(stream: Stream, log: FeedbackLog, seq: int) -> Event:
    """An event that is what was written, as its hash and the one before it say."""
    since = read_position(log, stream, seq - 1) or Position(seq - 1, stream.genesis)
    position = next(log.verify_chain(stream.number, since, 1), None)
    event = read_event(log, stream.number, seq)
    if position is None or event is None or event.hash != position.hash:
        raise LogDamagedError(f"the feedback log has no event {seq} where one was written")
    return event


def _newest(
    stream: Stream, log: FeedbackLog, folder: Path, lineage: Lineage, version: int
) -> tuple[int, Snapshot] | None:
    """The newest checkpoint of a fold's that is a state on the way to the last seq, with its seq."""
    wanted = lineage.segments(log.stream_state(stream.number).seq)
    for seq in reversed(list_seqs(folder)):
        with suppress(SnapshotError, KeyError, TypeError, ValueError):
            kept = read_snapshot(folder / str(seq))
            is_theirs = kept.fields["scalars"]["fold_version"] == version and kept.fields["manifest"] is not None
            is_whole = position_mismatch(log, stream, seq, kept) is None and not later_exclusions(
                kept.fields, seq, lineage
            )
            if is_theirs and is_whole and segments_begin_with(wanted, lineage.segments(seq), seq):
                return seq, kept
    return None


def _state_of(kept: Snapshot) -> dict[str, Any]:
    """A checkpoint's state as a BASE holds it."""
    fields = kept.fields
    clips = fields["scalars"]["frozen_clips"]
    return {
        "manifest": fields["manifest"],
        "tensors": _texts(kept.arrays, "artifact."),
        "paused": fields["scalars"]["paused"],
        "frozen": None if clips is None else {"clips": clips, "arrays": _texts(kept.arrays, "frozen.")},
    }


def _texts(arrays: Arrays, prefix: str) -> dict[str, list[Any]]:
    """Arrays under a prefix as JSON."""
    return {name.removeprefix(prefix): _text(array) for name, array in arrays.items() if name.startswith(prefix)}


def _text(array: NDArray[Any]) -> list[Any]:
    stored = array.astype(array.dtype.newbyteorder("<"), copy=False)
    return [stored.dtype.str, list(stored.shape), binascii.b2a_base64(stored.tobytes(), newline=False).decode()]


def _arrays(texts: Mapping[str, list[Any]]) -> dict[str, NDArray[Any]]:
    """What gave these texts, in the machine's byte order."""
    arrays = {}
    for name, (dtype, shape, text) in texts.items():
        if dtype not in DTYPES:
            raise PayloadError("a base holds an array of a type that it may not hold")
        array = np.frombuffer(binascii.a2b_base64(text), dtype).reshape(shape)
        arrays[name] = array.astype(array.dtype.newbyteorder("="))
    return arrays
