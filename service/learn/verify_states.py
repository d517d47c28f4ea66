"""Verify that checkpoints and snapshots are what the events fold to, to the last bit.

The history that a checkpoint also holds is verified by `softstep replay`.
"""

from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

import orjson

from service.errors import EarlierReleaseError, SnapshotError
from service.learn.event_fold import Contents
from service.learn.publish import snapshot_contents
from service.learn.replay import ForgottenError, ReplayProgress, StreamReplay
from service.learn.stream_history import PREFIX as HISTORY_PREFIX
from service.store.directory.verify_files import StateFile, VerifyReport
from service.store.states.served_state import as_whole
from service.store.states.snapshots import Arrays, Fields, read_snapshot


def compare_states(replay: StreamReplay, report: VerifyReport) -> Iterator[ReplayProgress]:
    """Fold the stream again up to each intact file, and add those that differ to the report.

    Yields:
        The progress of the fold to the next file.
    """
    for file in sorted(report.intact, key=lambda file: file.seq):
        # No damage: files that are deleted and events that are forgotten meanwhile, and files of an earlier release.
        with suppress(SnapshotError, ForgottenError, EarlierReleaseError):
            snapshot = as_whole(read_snapshot(file.path))
            arrays = {name: array for name, array in snapshot.arrays.items() if not name.startswith(HISTORY_PREFIX)}
            if snapshot.fields["turns"] > len(replay.lineage.changes) or file.seq > replay.last:
                continue
            yield from replay.fold_to(file.seq)
            if not _is_equal(snapshot.fields, arrays, *_expected_contents(replay, file)):
                report.damage.append(f"{file.kind} {file.seq} differs from the fold of its events")
            report.refolded += 1


def _expected_contents(replay: StreamReplay, file: StateFile) -> Contents:
    if file.kind == "snapshot":
        return snapshot_contents(replay.fold, replay.position_fields())
    fields, arrays = replay.fold.checkpoint_contents()
    return {**fields, **replay.position_fields()}, arrays


def _is_equal(fields: Fields, arrays: Arrays, expected_fields: Mapping[str, Any], expected_arrays: Arrays) -> bool:
    """Return whether a file has the expected fields and arrays; further fields, such as a time, are for people."""
    as_written = orjson.loads(orjson.dumps({**expected_fields, "turns": fields["turns"]}))
    as_written.pop("heeded", None)  # depends on when the file was written, as `turns` does
    return (
        all(name in fields and fields[name] == value for name, value in as_written.items())
        and arrays.keys() == expected_arrays.keys()
        and all(_has_same_bits(arrays[name], expected_arrays[name]) for name in arrays)
    )


def _has_same_bits(one: Any, other: Any) -> bool:  # noqa: ANN401  # arrays of any dtype
    stored = other.astype(other.dtype.newbyteorder("<"), copy=False)
    return bool(one.shape == stored.shape and one.dtype == stored.dtype and one.tobytes() == stored.tobytes())
