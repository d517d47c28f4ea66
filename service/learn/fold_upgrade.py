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
                "state"      null, or
                    manifest     the learned model as an artifact (export.py), without the fields of its file
                    tensors      its tensors by name, each [dtype, [size, ...], base64 of its row-major bytes], but
                                 those that learning leaves as they are, which the artifact has
                    paused       whether learning was paused
                    frozen       null, or in shadow mode the served parameters: {"clips", "arrays" as the tensors}

Every release can start from an artifact. It answers with the same bits. What a rule keeps beside it (its sums) and the
counts of the progressive validation start again, and learned rows count as training rows.
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
from service.store.artifact.fingerprint import FOLD_VERSION, OLDEST_FOLD_VERSION, fold_version_of
from service.store.artifact.model_factory import restore_parameters
from service.store.directory.verify_files import later_exclusions, position_mismatch
from service.store.log.admin_payloads import BASE_BYTES_MAX, base_id, dump, parse
from service.store.log.events import Draft, EventLocation, Kind, Stream
from service.store.log.feedback_log import FeedbackLog, read_lineage, read_verified_payload
from service.store.log.lineage import Lineage, LineageChange
from service.store.states.snapshots import Arrays, Snapshot, read_snapshot
from service.store.states.state_folder import list_seqs

DTYPES: Final = ("<f4", "<f8")


def current_fold_version(stream: Stream, artifact: Artifact, lineage: Lineage) -> int:
    """Return the version of the fold that continued a stream until now.

    Raises:
        ArtifactError: The stream belongs to another artifact, or a later release began or took it over.
    """
    begun = fold_version_of(artifact, stream.genesis)
    if begun is None:
        raise ArtifactError("the stream was begun with another artifact or by a later release")
    version = max([begun, *(base.fold for base in lineage.bases)])
    if version > FOLD_VERSION:
        raise ArtifactError("a later release has taken over the stream; serve it with that release")
    return version


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
        ArtifactError: As for `current_fold_version`.
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
        state = _base_state(checkpoint)
    payload = dump({"seq": seq, "turns": turns, "n_classes": n_classes, "state": state})
    draft = Draft(stream.number, Kind.BASE, base_id(stream.version, FOLD_VERSION), payload, now_ms)
    (outcome,) = log.append([draft])
    if not isinstance(outcome, EventLocation):
        raise LogUnavailableError(f"the stream cannot be taken over now: {outcome}")
    return seq


def first_fold(
    stream: Stream, artifact: Artifact, log: FeedbackLog, lineage: Lineage, base: LineageChange | None
) -> EventFold:
    """Return the fold that a state starts from: that of a base, or of the artifact if there is no base.

    It has the version that continued the stream until now, or this release's if it cannot compute that one.

    Raises:
        ArtifactError: As for `current_fold_version`, or this release cannot start from the state of the base.
        LogDamagedError: The event is missing or altered; a start may not have verified it.
    """
    version = current_fold_version(stream, artifact, lineage)
    if version < OLDEST_FOLD_VERSION:
        version = FOLD_VERSION
    if base is None:
        return EventFold(artifact, version)
    payload = read_verified_payload(log, stream, base.seq)
    if payload is None:
        raise LogDamagedError(f"the base at event {base.seq} of the feedback log is missing")
    state: Any = parse(payload, BASE_BYTES_MAX).get("state")
    if state is None:
        return EventFold(artifact, version)
    try:
        tensors = artifact.fixed_tensors | _decode_arrays(state["tensors"])
        fold = EventFold(Artifact.from_fields(state["manifest"], tensors), version)
        frozen = state["frozen"]
        arrays = None if frozen is None else _decode_arrays(frozen["arrays"])
        served = None if arrays is None else restore_parameters(artifact.manifest, arrays, frozen["clips"])
        fold.state.resume_serving(paused=state["paused"], frozen=served)
    except (KeyError, TypeError, ValueError, PayloadError) as error:
        raise ArtifactError("this release cannot start from the state of the base") from error
    return fold


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


def _base_state(checkpoint: Snapshot) -> dict[str, Any]:
    """Return the state of a checkpoint in the form of a BASE."""
    fields = checkpoint.fields
    clips = fields["scalars"]["frozen_clips"]
    return {
        "manifest": fields["manifest"],
        "tensors": _encode_arrays(checkpoint.arrays, "artifact."),
        "paused": fields["scalars"]["paused"],
        "frozen": None if clips is None else {"clips": clips, "arrays": _encode_arrays(checkpoint.arrays, "frozen.")},
    }


def _encode_arrays(arrays: Arrays, prefix: str) -> dict[str, list[Any]]:
    """Encode the arrays whose names start with a prefix as JSON values, named without it."""
    return {
        name.removeprefix(prefix): _encode_array(array) for name, array in arrays.items() if name.startswith(prefix)
    }


def _encode_array(array: NDArray[Any]) -> list[Any]:
    stored = array.astype(array.dtype.newbyteorder("<"), copy=False)
    return [stored.dtype.str, list(stored.shape), binascii.b2a_base64(stored.tobytes(), newline=False).decode()]


def _decode_arrays(encoded: Mapping[str, list[Any]]) -> dict[str, NDArray[Any]]:
    """Return the arrays that `_encode_arrays` encoded, in the machine's byte order."""
    arrays = {}
    for name, (dtype, shape, text) in encoded.items():
        if dtype not in DTYPES:
            raise PayloadError("a base may hold arrays of float32 and float64 only")
        array = np.frombuffer(binascii.a2b_base64(text), dtype).reshape(shape)
        arrays[name] = array.astype(array.dtype.newbyteorder("="))
    return arrays
