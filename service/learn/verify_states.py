"""Whether what is kept is what the events fold to: the states of checkpoints and snapshots, to the last bit."""

from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

import orjson

from service.errors import EarlierReleaseError, SnapshotError
from service.learn.publish import snapshot_contents
from service.learn.replay import ForgottenError, ReplayProgress, StreamReplay
from service.store.directory.verify_files import StateFile, VerifyReport
from service.store.states.snapshots import Arrays, Fields, read_snapshot


def compare_states(replay: StreamReplay, report: VerifyReport) -> Iterator[ReplayProgress]:
    """Folds the stream anew up to each file that is good so far, and writes to the report which differ.

    Yields:
        How far the fold to the next file is.
    """
    for file in sorted(report.intact, key=lambda file: file.seq):
        # Files that are deleted and events that are forgotten meanwhile are no damage; files of an earlier release's
        # fold cannot be held against this one's.
        with suppress(SnapshotError, ForgottenError, EarlierReleaseError):
            snapshot = read_snapshot(file.path)
            if snapshot.fields["turns"] > len(replay.lineage.changes) or file.seq > replay.last:
                continue
            yield from replay.fold_to(file.seq)
            if not _equal(snapshot.fields, snapshot.arrays, *_expected(replay, file)):
                report.damage.append(f"{file.kind} {file.seq}: its state is not what the events fold to")
            report.refolded += 1


def _expected(replay: StreamReplay, file: StateFile) -> tuple[Mapping[str, Any], Arrays]:
    if file.kind == "snapshot":
        return snapshot_contents(replay.fold, replay.position_fields())
    fields, arrays = replay.fold.checkpoint_contents()
    return {**fields, **replay.position_fields()}, arrays


def _equal(fields: Fields, arrays: Arrays, expected_fields: Mapping[str, Any], expected_arrays: Arrays) -> bool:
    """Whether a file says and holds what is expected; what it says beside that, such as a time, is for people.

    Files of before there were calibrations tell nothing of them, and hold no window of confidences: these are held
    against the rest.
    """
    as_written = orjson.loads(orjson.dumps({**expected_fields, "turns": fields["turns"]}))
    for said, wanted in ((fields, as_written), (fields.get("progressive"), as_written.get("progressive"))):
        if said is not None and wanted is not None and "calibration" not in said:
            wanted.pop("calibration", None)
    expected_arrays = {name: array for name, array in expected_arrays.items() if name != "window" or name in arrays}
    return (
        all(name in fields and fields[name] == value for name, value in as_written.items())
        and arrays.keys() == expected_arrays.keys()
        and all(_same_bits(arrays[name], expected_arrays[name]) for name in arrays)
    )


def _same_bits(one: Any, other: Any) -> bool:  # noqa: ANN401  # arrays of any dtype
    stored = other.astype(other.dtype.newbyteorder("<"), copy=False)
    return bool(one.shape == stored.shape and one.dtype == stored.dtype and one.tobytes() == stored.tobytes())
