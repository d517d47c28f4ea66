"""The history of a stream: how its rows were answered, in buckets of events, and which answers were the most wrong.

The history is made by adding rows in the order of their events. It is a function of the artifact and of the events, to
the bit, however they are split into calls, and its size is bounded:

    buckets          at most 512, of 2^k events each; when they are full, neighbors merge and the width doubles
    coarse buckets   at most 64, in the same way: confusion, calibration, and the shift of each feature
    recent rows      the latest 1,000
    surprising rows  the 64 largest losses

Losses are summed in the order of the rows, and that of two neighbors is the sum of their sums. Other numbers are whole,
or are rounded to multiples of a unit first: their sums are exact, so their order does not matter.

Class names that were ever in the model have a column each, because a rollback can remove an added class.
store/states/report.py has the form in which workers read a history.
"""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import orjson
from numpy.typing import NDArray

from service.errors import ArtifactError
from service.learn.event_buckets import EventBuckets
from service.learn.kept_rows import KeptRows
from service.learn.row_answers import NO_LABEL, AnswerReader, RowAnswers
from service.learn.scored_rows import ScoredRows
from service.softmax.arrays import Doubles, Floats, Integers
from service.softmax.kernels.answer_counts import (
    DRIFT_UNIT,
    LOSS_MAX,
    SHARE_UNIT,
    count_answers,
    count_details,
    count_label_sets,
)
from service.softmax.reliability_diagram import BINS
from service.softmax.sparse_rows import Rows, SparseRows, dense_rows
from service.store.artifact.artifact import Artifact
from service.store.artifact.model_factory import tracked_columns, training_stage
from service.store.log.events import Position
from service.store.log.feedback_blocks import Block
from service.store.states.report import (
    BUCKETS_MAX,
    COARSE_BUCKETS_MAX,
    COLUMNS,
    CONFUSION_MAX,
    DRIFT_MAX,
    LABELS_MAX,
    Report,
)

PREFIX: Final = "history."
# The units of the sums in a bin of confidence: rows, confidences, accuracies.
UNITS: Final = (1.0, SHARE_UNIT, SHARE_UNIT)
# In place of the counts that are not made.
NO_COUNTS: Final = np.empty((1, 0), np.uint32)
NO_MATRICES: Final = np.empty((1, 0, 0), np.uint32)
NO_SUMS: Final = np.empty((1, 0))
# In place of rows, whose numbers are not looked at without the shift of each feature.
NO_ROWS: Final = np.empty((0, 0), np.float32)
NO_STAGE: Final = np.empty((2, 0))


class History:
    """How the rows of a stream were answered.

    Args:
        artifact: The artifact that the stream is bound to.
        origin: The seq after which the history begins; only later rows may be added.

    Attributes:
        origin: The same.
        last_seq: The seq of the last row that was added; `origin` before the first.
    """

    def __init__(self, artifact: Artifact, origin: int) -> None:
        manifest = artifact.manifest
        self.origin: Final = origin
        self.last_seq = origin
        self._artifact: Final = artifact
        self._reader: Final = AnswerReader(artifact)
        self._columns = list(manifest.classes)
        self._columns_known: tuple[tuple[str, ...], Integers] = (), np.empty(0, np.int64)
        self._rows: Final = KeptRows()
        C = len(self._columns)
        # The columns that are followed, or None for all features; and their means and inverse scales.
        self._tracked, self._stage = _find_stage(artifact)
        fine: dict[str, NDArray[Any]] = {"sums": np.zeros((BUCKETS_MAX, len(COLUMNS)))}
        coarse: dict[str, NDArray[Any]] = {"calibration": np.zeros((COARSE_BUCKETS_MAX, BINS, len(UNITS)))}
        if C <= LABELS_MAX:
            fine |= {name: np.zeros((BUCKETS_MAX, C), np.uint32) for name in ("labels", "found")}
        if C <= CONFUSION_MAX and manifest.head != "multilabel":
            coarse["confusion"] = np.zeros((COARSE_BUCKETS_MAX, C, C), np.uint32)
        if self._stage.size:
            coarse["drift"] = np.zeros((COARSE_BUCKETS_MAX, self._stage.shape[1]))
        self._fine: Final = EventBuckets(origin, fine, {"sums": LOSS_MAX})
        self._coarse: Final = EventBuckets(origin, coarse, {})

    def add_block(self, block: Block, seqs: Integers, scored: ScoredRows, classes: Sequence[str]) -> RowAnswers:
        """Add the rows of a block.

        Args:
            block: The rows.
            seqs: (R,) the seq of each row's event, after those that were added.
            scored: How the rows were answered.
            classes: The names of the model's classes at these events.

        Returns:
            The answers to the rows that were not skipped.
        """
        rows = self._reader.read_answers(block, seqs, scored)
        if len(rows.seqs):
            columns = self._columns_of(classes)
            self._count_answers(rows, columns)
            self._count_details(rows, columns)
            self._rows.add(rows, columns)
            self.last_seq = int(rows.seqs[-1])
        return rows

    def _columns_of(self, classes: Sequence[str]) -> Integers:
        """Return the column of each class; a name that is new gets one."""
        if self._columns_known[0] != (names := tuple(classes)):
            self._columns += [name for name in dict.fromkeys(names) if name not in self._columns]
            self._widen(len(self._columns))
            self._columns_known = names, np.array([self._columns.index(name) for name in names])
        return self._columns_known[1]

    def _widen(self, columns: int) -> None:
        """Give the arrays of counts a number of columns, or drop those that would be too large."""
        for buckets, name, axes, most in (
            (self._fine, "labels", (1,), LABELS_MAX),
            (self._fine, "found", (1,), LABELS_MAX),
            (self._coarse, "confusion", (1, 2), CONFUSION_MAX),
        ):
            counts = buckets.arrays.get(name)
            if counts is not None and columns > most:
                buckets.drop(name)
            elif counts is not None:
                growth = [(0, columns - counts.shape[1] if axis in axes else 0) for axis in range(counts.ndim)]
                buckets.arrays[name] = np.pad(counts, growth)

    def _count_answers(self, rows: RowAnswers, columns: Integers) -> None:
        buckets, arrays = self._fine, self._fine.arrays
        wanted, found = (arrays.get(name, NO_COUNTS) for name in ("labels", "found"))
        is_set, counts = rows.wanted is not None, wanted.shape[1] > 0
        singles = (NO_COUNTS, NO_COUNTS) if is_set else (wanted, found)
        for part in buckets.parts(rows.seqs):
            place = part.start, part.stop, rows.seqs, buckets.origin + 1, buckets.shift
            count_answers(*place, rows.outcomes, rows.labels, columns, arrays["sums"], *singles)
            if is_set and counts:
                count_label_sets(*place, rows.wanted, rows.answered, columns, wanted, found)

    def _count_details(self, rows: RowAnswers, columns: Integers) -> None:
        buckets, arrays = self._coarse, self._coarse.arrays
        confusion, drift = arrays.get("confusion", NO_MATRICES), arrays.get("drift", NO_SUMS)
        X = self._pick_columns(rows.rows)
        for part in buckets.parts(rows.seqs):
            place = part.start, part.stop, rows.seqs, buckets.origin + 1, buckets.shift
            answers = rows.outcomes, rows.labels, rows.answers, columns
            count_details(*place, *answers, X, self._stage, arrays["calibration"], confusion, drift)

    def _pick_columns(self, rows: Rows) -> Floats:
        """Return (R, T) of the columns that are followed."""
        if not self._stage.size:
            return NO_ROWS
        if self._tracked is None:
            return dense_rows(rows)
        if isinstance(rows, SparseRows):
            return rows.pick_columns(self._tracked)
        return np.ascontiguousarray(rows[:, self._tracked])

    # The forms in which it is stored

    def fields(self) -> dict[str, Any]:
        """Return the part of the state that is no array, for a checkpoint."""
        return {
            "origin": self.origin,
            "last_seq": self.last_seq,
            "columns": self._columns,
            "bucket": self._fine.width,
            "coarse_bucket": self._coarse.width,
        }

    def tensors(self) -> dict[str, NDArray[Any]]:
        """Return the arrays of the state by name, for a checkpoint; they change with the next row."""
        arrays = {**self._fine.trimmed(self.last_seq), **self._coarse.trimmed(self.last_seq), **self._rows.arrays()}
        return {f"{PREFIX}{name}": array for name, array in arrays.items()}

    def sha256(self) -> str:
        """Return the hash of the history, in hexadecimal digits."""
        digest = hashlib.sha256(orjson.dumps(self.fields()))
        for name, array in self.tensors().items():
            digest.update(f"{name} {array.shape}".encode())
            digest.update(np.ascontiguousarray(array, array.dtype.newbyteorder("<")).data)
        return digest.hexdigest()

    @classmethod
    def from_checkpoint(cls, artifact: Artifact, fields: Mapping[str, Any], tensors: Mapping[str, Any]) -> "History":
        """Restore the history whose `fields` and `tensors` these are.

        Raises:
            ArtifactError: They belong to another artifact.
            KeyError: A field or an array is missing.
        """
        history = cls(artifact, fields["origin"])
        history._columns_of(fields["columns"])
        own = {name.removeprefix(PREFIX): array for name, array in tensors.items() if name.startswith(PREFIX)}
        try:
            history._fine.restore(fields["bucket"], own)
            history._coarse.restore(fields["coarse_bucket"], own)
            history._rows.restore(own)
        except ValueError as error:
            raise ArtifactError(str(error)) from None
        history.last_seq = fields["last_seq"]
        return history

    def report(self, position: Position, epoch: int, classes: Sequence[str], keyframes: Sequence[int]) -> Report:
        """Return the history in the form that workers read, with the counts of the classes of now in their order."""
        columns = self._columns_of(classes)
        places = np.full(len(self._columns) + 1, NO_LABEL)  # the last is that of NO_LABEL itself
        places[columns] = np.arange(len(columns))
        fine, coarse = self._fine.trimmed(self.last_seq), self._coarse.trimmed(self.last_seq)
        labels, found, confusion = fine.get("labels"), fine.get("found"), coarse.get("confusion")
        drift = coarse.get("drift")
        return Report(
            seq=position.seq,
            hash=position.hash.hex(),
            epoch=epoch,
            start=self.origin,
            bucket=self._fine.width,
            coarse_bucket=self._coarse.width,
            classes=tuple(classes),
            keyframes=tuple(keyframes),
            history_sha256=self.sha256(),
            history=fine["sums"],
            labels=None if labels is None else labels[:, columns],
            found=None if found is None else found[:, columns],
            quality=self._coarse_sums(fine["sums"], len(coarse["calibration"])),
            confusion=None if confusion is None else confusion[:, columns[:, np.newaxis], columns],
            calibration=coarse["calibration"] * UNITS,
            drift=None if drift is None else drift * DRIFT_UNIT,
            **self._rows.arrays_of_classes(places),
        )

    def _coarse_sums(self, sums: Doubles, buckets: int) -> Doubles:
        """Return the sums of coarse buckets; each is made of whole fine ones."""
        each = self._coarse.width // self._fine.width
        padded = np.zeros((buckets * each, len(COLUMNS)))
        padded[: len(sums)] = sums
        parts = padded.reshape(buckets, each, len(COLUMNS))
        total = np.add.accumulate(parts, axis=1)[:, -1]
        total[:, LOSS_MAX] = parts[:, :, LOSS_MAX].max(axis=1)
        return total


def _find_stage(artifact: Artifact) -> tuple[Integers | None, Doubles]:
    """Return the columns (T,) that are followed, None for all features; and their means and inverse scales (2, T).

    T is 0 if there are too many, or the statistics of the training rows are unknown.
    """
    tracked, training = tracked_columns(artifact), training_stage(artifact)
    if tracked is not None:  # fields scale their numbers themselves
        T = len(tracked.columns)
        return tracked.columns, np.stack([np.zeros(T), np.ones(T)]) if T <= DRIFT_MAX else NO_STAGE
    if training is None or artifact.n_features > DRIFT_MAX:
        return None, NO_STAGE
    with np.errstate(all="ignore"):
        inverse = 1 / training.scale
    return None, np.array([training.mean, np.where(np.isfinite(inverse), inverse, 0.0)])
