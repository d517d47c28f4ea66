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
from service.learn.event_buckets import EventBuckets, add_exactly, add_in_order
from service.learn.kept_rows import KeptRows
from service.learn.row_answers import NO_LABEL, AnswerReader, RowAnswers
from service.learn.state import ScoredRows
from service.softmax.arrays import Doubles, Integers
from service.softmax.reliability_diagram import BINS
from service.store.artifact.artifact import Artifact
from service.store.log.events import Position
from service.store.log.feedback_payload import Block
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
SHIFT_MAX: Final = 8.0
SHIFT_UNIT: Final = 2.0**-16
ROWS, LOSS, LOSS_MAX, HITS, FROZEN_ROWS, FROZEN_LOSS, FROZEN_HITS, BOTH_HITS = range(len(COLUMNS))
COUNTS: Final = (ROWS, HITS, FROZEN_ROWS, FROZEN_HITS, BOTH_HITS)
SHARE_UNIT: Final = 2.0**-24
# For each bin of confidence: the rows, and the sums of confidences and accuracies in multiples of SHARE_UNIT.
CALIBRATION: Final = ("bins", "confidences", "accuracies")
UNITS: Final = (1.0, SHARE_UNIT, SHARE_UNIT)


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
        self._is_multilabel: Final = manifest.head == "multilabel"
        self._columns = list(manifest.classes)
        self._rows: Final = KeptRows()
        self._shift: tuple[Doubles, Doubles] | None = None
        C, N, training = len(self._columns), manifest.n_features, manifest.training
        fine: dict[str, NDArray[Any]] = {"sums": np.zeros((BUCKETS_MAX, len(COLUMNS)))}
        coarse: dict[str, NDArray[Any]] = {name: np.zeros((COARSE_BUCKETS_MAX, BINS)) for name in CALIBRATION}
        if C <= LABELS_MAX:
            fine |= {name: np.zeros((BUCKETS_MAX, C), np.uint32) for name in ("labels", "found")}
        if C <= CONFUSION_MAX and not self._is_multilabel:
            coarse["confusion"] = np.zeros((COARSE_BUCKETS_MAX, C, C), np.uint32)
        if N <= DRIFT_MAX and training is not None:
            scale = np.array(training.scale)
            with np.errstate(all="ignore"):
                inverse = 1 / scale
            self._shift = np.array(training.mean), np.where(np.isfinite(inverse), inverse, 0.0)
            coarse["shifts"] = np.zeros((COARSE_BUCKETS_MAX, N))
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
            places = self._columns_of(classes)
            self._add_fine(rows, places)
            self._add_coarse(rows, places)
            self._rows.add(rows, places)
            self.last_seq = int(rows.seqs[-1])
        return rows

    def _columns_of(self, classes: Sequence[str]) -> Integers:
        """Return the column of each class; a name that is new gets one."""
        if self._columns[: len(classes)] != list(classes):
            for name in classes:
                if name not in self._columns:
                    self._columns.append(name)
            self._widen(len(self._columns))
        return np.array([self._columns.index(name) for name in classes])

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

    def _add_fine(self, rows: RowAnswers, columns: Integers) -> None:
        for part, buckets in self._fine.parts(rows.seqs):
            sums, of_runs, starts = self._fine.arrays["sums"], buckets.places[buckets.starts], buckets.starts
            losses, hits, frozen_hits = rows.losses[part], rows.hits[part], rows.frozen_hits[part]
            add_in_order(sums[:, LOSS], buckets, losses)
            add_in_order(sums[:, FROZEN_LOSS], buckets, rows.frozen_losses[part])
            largest = np.maximum.reduceat(losses, starts)
            sums[of_runs, LOSS_MAX] = np.maximum(sums[of_runs, LOSS_MAX], largest)
            ones = np.ones_like(hits)
            counts = np.stack((ones, hits, ones, frozen_hits, hits * frozen_hits), axis=1)
            sums[of_runs[:, np.newaxis], COUNTS] += np.add.reduceat(counts, starts, axis=0)
            for name, (at, labels) in zip(("labels", "found"), _find_labels(rows, part), strict=True):
                if name in self._fine.arrays:
                    add_exactly(self._fine.arrays[name], buckets.take(at), columns[labels])

    def _add_coarse(self, rows: RowAnswers, columns: Integers) -> None:
        bins = np.minimum((rows.confidences * BINS).astype(np.int64), BINS - 1)
        confidences, accuracies = (np.rint(values / SHARE_UNIT) for values in (rows.confidences, rows.accuracies))
        shifts = self._shifts_of(rows)
        for part, buckets in self._coarse.parts(rows.seqs):
            arrays = self._coarse.arrays
            for name, shares in zip(CALIBRATION, (None, confidences[part], accuracies[part]), strict=True):
                add_exactly(arrays[name], buckets, bins[part], shares)
            if "confusion" in arrays:
                C = arrays["confusion"].shape[1]
                pairs = columns[rows.labels[part]] * C + columns[rows.answers[part]]
                add_exactly(arrays["confusion"].reshape(-1, C * C), buckets, pairs)
            if shifts is not None:
                sums = np.add.reduceat(shifts[part], buckets.starts, axis=0)
                arrays["shifts"][buckets.places[buckets.starts]] += sums

    def _shifts_of(self, rows: RowAnswers) -> Doubles | None:
        """Return how far each feature is from its mean in training, (R, N) in multiples of SHIFT_UNIT of its scale."""
        if self._shift is None:
            return None
        mean, inverse = self._shift
        with np.errstate(all="ignore"):
            shifts = (rows.X - mean) * inverse
        shifts = np.nan_to_num(np.clip(shifts, -SHIFT_MAX, SHIFT_MAX), copy=False, nan=0.0)
        return np.rint(shifts / SHIFT_UNIT)

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
        except ValueError as error:
            raise ArtifactError(str(error)) from None
        history._rows.restore(own)
        history.last_seq = fields["last_seq"]
        return history

    def report(self, position: Position, epoch: int, classes: Sequence[str], keyframes: Sequence[int]) -> Report:
        """Return the history in the form that workers read, with the counts of the classes of now in their order."""
        columns = self._columns_of(classes)
        places = np.full(len(self._columns) + 1, NO_LABEL)  # the last is that of NO_LABEL itself
        places[columns] = np.arange(len(columns))
        fine, coarse = self._fine.trimmed(self.last_seq), self._coarse.trimmed(self.last_seq)
        labels, found, confusion = fine.get("labels"), fine.get("found"), coarse.get("confusion")
        shifts = coarse.get("shifts")
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
            quality=self._coarse_sums(fine["sums"], len(coarse["bins"])),
            confusion=None if confusion is None else confusion[:, columns[:, np.newaxis], columns],
            calibration=np.stack([coarse[name] * unit for name, unit in zip(CALIBRATION, UNITS, strict=True)], axis=2),
            drift=None if shifts is None else shifts * SHIFT_UNIT,
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


def _find_labels(rows: RowAnswers, part: slice) -> tuple[tuple[Integers, ...], tuple[Integers, ...]]:
    """Return the row and the class of each label of some rows, and of each label that was answered right."""
    if rows.wanted is not None and rows.answered is not None:
        wanted, answered = rows.wanted[part], rows.answered[part]
        return np.nonzero(wanted), np.nonzero(wanted & answered)
    labels, right = rows.labels[part], np.flatnonzero(rows.hits[part] > 0)
    return (np.arange(len(labels)), labels), (right, labels[right])
