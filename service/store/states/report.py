"""The report of a stream: how well each event was answered before it was learned.

`<data>/streams/<model>/<version>/report` has the format of snapshots.py. The learner replaces it while events come. It
is a pure function of the artifact and the log, and is not synced. Its fields:

    seq, hash, epoch   the position: events up to `seq` are in it; `epoch` is the number of FORGET events
    from               the seq after which it begins: 0, unless the stream is older than its report
    bucket             events of a bucket of the history, a power of two
    coarse_bucket      the same for quality and drift
    classes            names of the K classes
    keyframes          seqs of the states in `keyframes/`, ascending; 0 is the artifact and has no file
    history_sha256     hash of the history as a checkpoint holds it

Bucket i has the rows of the events from + i·bucket < seq <= from + (i + 1)·bucket; buckets without rows at the end may
be missing. Tables of 8 columns have sums over the rows that were scored, and one maximum; COLUMNS names them. "frozen"
is the artifact, never taught, over the classes that it knows. It answers any other label wrong, with the loss of a
uniform guess, ln K.

    history          (B, 8)     f8  B <= 512; when it is full, neighbors merge and the width doubles
    labels, found    (B, K)     u4  rows with each label, and those of them that were answered right; absent if K > 64
    quality          (Q, 8)     f8  Q <= 64, merged in the same way
    confusion        (Q, K, K)  u4  [label, answer]; absent if K > 32 or for a multi-label model
    calibration      (Q, 10, 3) f8  for each tenth of confidence: rows, sum of confidence, sum of accuracy
    drift            (Q, N)     f8  sums of clip((x - mean) / scale, -8, 8) over the rows of `quality`; absent if
                                    N > 256 or without statistics of the training. With fields N counts the columns of
                                    fields/tracked_columns.py, which are scaled already; absent too if there are none
    recent           (R, 6)     f8  the latest R <= 1,000 rows, oldest first, with the columns RECENT; NaN in those of
                                    the artifact if it did not score the row
    recent_rows      (R, 3)     i8  of the same rows: seq, label, answer; -1 where a multi-label model has several
    surprising       (S, 1)     f8  the S <= 64 largest losses, descending, ties by ascending seq
    surprising_rows  (S, 3)     i8  of the same rows: seq, label, answer
"""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from service.errors import SnapshotError
from service.store.states.snapshots import read_snapshot, write_arrays

REPORT_NAME: Final = "report"
# The most buckets of the history, and of quality and drift.
BUCKETS_MAX: Final = 512
COARSE_BUCKETS_MAX: Final = 64
RECENT_MAX: Final = 1000
SURPRISING_MAX: Final = 64
# The most classes with counts of labels and with a confusion matrix, and the most features with drift.
LABELS_MAX: Final = 64
CONFUSION_MAX: Final = 32
DRIFT_MAX: Final = 256
# The columns of `history` and `quality`; `both_hits` counts rows that the model and the artifact answered right.
COLUMNS: Final = ("rows", "loss", "loss_max", "hits", "frozen_rows", "frozen_loss", "frozen_hits", "both_hits")
RECENT: Final = ("loss", "hit", "confidence", "accuracy", "frozen_loss", "frozen_hit")

Counts = NDArray[np.uint32]
Doubles = NDArray[np.float64]
Integers = NDArray[np.int64]

# The type and the shape of each array; a letter is a size that arrays share.
_LAYOUT: Final[Mapping[str, tuple[str, tuple[int | str, ...]]]] = {
    "history": ("<f8", ("B", len(COLUMNS))),
    "labels": ("<u4", ("B", "K")),
    "found": ("<u4", ("B", "K")),
    "quality": ("<f8", ("Q", len(COLUMNS))),
    "confusion": ("<u4", ("Q", "K", "K")),
    "calibration": ("<f8", ("Q", 10, 3)),
    "drift": ("<f8", ("Q", "N")),
    "recent": ("<f8", ("R", len(RECENT))),
    "recent_rows": ("<i8", ("R", 3)),
    "surprising": ("<f8", ("S", 1)),
    "surprising_rows": ("<i8", ("S", 3)),
}
_OPTIONAL: Final = frozenset(("labels", "found", "confusion", "drift"))
_SIZES_MAX: Final = {
    "B": BUCKETS_MAX, "Q": COARSE_BUCKETS_MAX, "R": RECENT_MAX, "S": SURPRISING_MAX, "N": DRIFT_MAX,
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class Report:
    """The content of a report; the module's docstring describes the arrays.

    Attributes:
        seq: The last event in it.
        hash: The hash of that event, in hexadecimal digits.
        epoch: The number of FORGET events.
        start: The seq after which it begins; the field `from`.
        bucket: Events of a bucket of the history.
        coarse_bucket: Events of a bucket of quality and drift.
        classes: The names of the K classes.
        keyframes: The seqs of the keyframes, ascending.
        history_sha256: The hash of the history as a checkpoint holds it, in hexadecimal digits.
        history: (B, 8).
        labels: (B, K), or None.
        found: (B, K), or None.
        quality: (Q, 8).
        confusion: (Q, K, K), or None.
        calibration: (Q, 10, 3).
        drift: (Q, N), or None.
        recent: (R, 6).
        recent_rows: (R, 3).
        surprising: (S, 1).
        surprising_rows: (S, 3).

    Raises:
        ValueError: An array has another type or size than the format allows, or the buckets do not match the events.
    """

    seq: int
    hash: str
    epoch: int
    start: int
    bucket: int
    coarse_bucket: int
    classes: tuple[str, ...]
    keyframes: tuple[int, ...]
    history_sha256: str
    history: Doubles
    labels: Counts | None
    found: Counts | None
    quality: Doubles
    confusion: Counts | None
    calibration: Doubles
    drift: Doubles | None
    recent: Doubles
    recent_rows: Integers
    surprising: Doubles
    surprising_rows: Integers

    def __post_init__(self) -> None:
        """Check every array against the format."""
        sizes = {"K": len(self.classes)}
        for name, (dtype, shape) in _LAYOUT.items():
            array = getattr(self, name)
            if array is None and name in _OPTIONAL:
                continue
            if array.dtype != np.dtype(dtype) or len(array.shape) != len(shape):
                raise ValueError(f"{name} of a report has another type")
            for size, wanted in zip(array.shape, shape, strict=True):
                known = wanted if isinstance(wanted, int) else sizes.setdefault(wanted, size)
                if size != known or size > _SIZES_MAX.get(str(wanted), size):
                    raise ValueError(f"{name} of a report has another size")
        for events, buckets in ((self.bucket, sizes["B"]), (self.coarse_bucket, sizes["Q"])):
            if events < 1 or events & (events - 1) or (buckets - 1) * events >= max(1, self.seq - self.start):
                raise ValueError("the buckets of a report are wider or more than its events need")


def write_report(path: Path, report: Report) -> None:
    """Replace the report at a path in an existing folder.

    Raises:
        OSError: The disk failed; an existing report is unchanged.
    """
    fields = {
        "seq": report.seq,
        "hash": report.hash,
        "epoch": report.epoch,
        "from": report.start,
        "bucket": report.bucket,
        "coarse_bucket": report.coarse_bucket,
        "classes": list(report.classes),
        "keyframes": list(report.keyframes),
        "history_sha256": report.history_sha256,
    }
    arrays = {name: getattr(report, name) for name in _LAYOUT if getattr(report, name) is not None}
    write_arrays(path, fields, arrays, durable=False)


def read_report(path: Path) -> Report | None:
    """Return the report at a path; None if it is missing, damaged or of another form.

    Its arrays are copies: a mapped file would stay on the disk after the learner has replaced it to forget an event.
    """
    with suppress(SnapshotError, KeyError, TypeError, ValueError):
        snapshot = read_snapshot(path)
        fields = snapshot.fields
        arrays: dict[str, Any] = dict.fromkeys(_OPTIONAL)
        arrays |= {name: array.copy() for name, array in snapshot.arrays.items()}
        return Report(
            seq=_whole(fields["seq"]),
            hash=str(fields["hash"]),
            epoch=_whole(fields["epoch"]),
            start=_whole(fields["from"]),
            bucket=_whole(fields["bucket"]),
            coarse_bucket=_whole(fields["coarse_bucket"]),
            classes=tuple(map(str, fields["classes"])),
            keyframes=tuple(map(_whole, fields["keyframes"])),
            history_sha256=str(fields["history_sha256"]),
            **arrays,
        )
    return None


def _whole(value: object) -> int:
    """Return a whole number that is not negative; raise ValueError for any other value."""
    if type(value) is not int or value < 0:
        raise ValueError("a field of a report is not a whole number")
    return value
