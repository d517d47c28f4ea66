"""Evaluate a model on the rows that are held out, as it will be served."""

from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from service.softmax.arrays import Doubles, Integers
from service.softmax.reliability_diagram import BINS, summarize_bins
from service.softmax.row_blocks import RowBlocks
from service.softmax.row_protocols import RowModel

# The last bits of a sum may vary between releases; metrics are kept to six digits after the point.
DIGITS: Final = 6
# The probability from which a label of several is predicted, the default of a manifest.
THRESHOLD: Final = 0.5


class Evaluation(NamedTuple):
    """The metrics of held-out rows.

    Attributes:
        metrics: Numbers by name, as in a manifest.
        confusion: (C, C), rows of class i that are predicted as class j; for the head multilabel (C, 2, 2), rows
            without and with the label that are predicted without and with it.
        reliability: The bins of `summarize_bins`.
    """

    metrics: dict[str, float]
    confusion: Integers
    reliability: dict[str, Any]


def evaluate(model: RowModel, blocks: RowBlocks, n_classes: int, *, is_multilabel: bool) -> Evaluation:
    """Return the metrics of rows; all rows count equally.

    Args:
        model: The model.
        blocks: The rows.
        n_classes: C.
        is_multilabel: Whether a row has any number of labels.
    """
    total = _Total(n_classes, is_multilabel=is_multilabel)
    for i in range(blocks.n_blocks):
        rows, labels, _ = blocks.read_block(i)
        P = np.asarray(model.predict(_copied(rows)), np.float64)
        if is_multilabel:
            total.add_sets(P, labels, model.losses(_copied(rows), labels.astype(np.float64)))
        else:
            total.add_labels(P, labels.astype(np.int64), model.label_losses(_copied(rows), labels.astype(np.int64))[0])
    return total.summarize(blocks.n_rows)


class _Total:
    """Sums over blocks of rows."""

    def __init__(self, n_classes: int, *, is_multilabel: bool) -> None:
        self._is_multilabel: Final = is_multilabel
        self._loss = 0.0
        self._exact = 0
        self._bins = np.zeros((BINS, 3))
        self._confusion = np.zeros((n_classes, 2, 2) if is_multilabel else (n_classes, n_classes), np.int64)

    def add_labels(self, P: Doubles, labels: Integers, losses: Doubles) -> None:
        """Add rows with one label each: P (B, C), labels (B,), losses (B,)."""
        predicted = P.argmax(axis=1)
        np.add.at(self._confusion, (labels, predicted), 1)
        self._add_bins(P.max(axis=1), predicted == labels)
        self._add_losses(losses)

    def add_sets(self, P: Doubles, labels: NDArray[Any], losses: Doubles) -> None:
        """Add rows with sets of labels: P (B, C), labels (B, C) of 0 and 1, losses (B,)."""
        predicted = P >= THRESHOLD
        for k in range(P.shape[1]):
            np.add.at(self._confusion[k], (labels[:, k].astype(np.int64), predicted[:, k].astype(np.int64)), 1)
        self._exact += int(np.count_nonzero((predicted == labels).all(axis=1)))
        self._add_bins(P.reshape(-1), labels.reshape(-1) == 1)
        self._add_losses(losses)

    def summarize(self, rows: int) -> Evaluation:
        """Return the metrics of all rows."""
        metrics: dict[str, float] = {"held_out_rows": rows, "log_loss": self._loss / rows}
        if self._is_multilabel:
            (_, false), (missed, true) = np.moveaxis(self._confusion, 0, -1)
            metrics["subset_accuracy"] = self._exact / rows
            metrics["hamming_loss"] = float((false + missed).sum() / (rows * len(self._confusion)))
            metrics["micro_f1"] = float(2 * true.sum() / max(2 * true.sum() + false.sum() + missed.sum(), 1))
        else:
            metrics["accuracy"] = float(np.trace(self._confusion) / rows)
        rounded = {name: round(float(value), DIGITS) for name, value in metrics.items()}
        return Evaluation(rounded, self._confusion, summarize_bins(self._bins))

    def _add_losses(self, losses: Doubles) -> None:
        self._loss += float(np.add.accumulate(losses)[-1])

    def _add_bins(self, confidence: Doubles, right: NDArray[np.bool_]) -> None:
        """Add confidences (B,) and whether each was right (B,)."""
        bins = np.minimum((confidence * BINS).astype(np.int64), BINS - 1)
        np.add.at(self._bins, bins, np.stack([np.ones(len(bins)), confidence, right], axis=1))


def _copied(rows: Any) -> Any:  # noqa: ANN401  # rows of either form
    """Return rows that a model accepts: it takes no arrays that are read-only."""
    return rows.copy() if isinstance(rows, np.ndarray) else rows
