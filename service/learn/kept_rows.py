"""The rows of a history that are kept one by one: the latest ones, and those with the largest losses."""

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from service.learn.row_answers import NO_LABEL, RowAnswers
from service.softmax.arrays import Integers
from service.store.states.report import RECENT, RECENT_MAX, SURPRISING_MAX

NUMBERS: Final = 3  # of a row: its seq, label and answer


class KeptRows:
    """The latest rows and the most surprising ones; arrays as in store/states/report.py, with columns for classes."""

    def __init__(self) -> None:
        self._recent, self._recent_rows = np.empty((0, len(RECENT))), np.empty((0, NUMBERS), np.int64)
        self._surprising, self._surprising_rows = np.empty((0, 1)), np.empty((0, NUMBERS), np.int64)

    def add(self, rows: RowAnswers, columns: Integers) -> None:
        """Add rows that come after those before; `columns` has the column of each class."""
        places = np.append(columns, NO_LABEL)  # at NO_LABEL is the last one
        numbers = np.stack((rows.seqs, places[rows.labels], places[rows.answers]), axis=1)
        newest = slice(max(0, len(numbers) - RECENT_MAX), None)
        outcomes = (rows.losses, rows.hits, rows.confidences, rows.accuracies, rows.frozen_losses, rows.frozen_hits)
        recent = np.stack([values[newest] for values in outcomes], axis=1)
        self._recent = np.concatenate([self._recent, recent])[-RECENT_MAX:]
        self._recent_rows = np.concatenate([self._recent_rows, numbers[newest]])[-RECENT_MAX:]
        least = self._surprising[-1, 0] if len(self._surprising) == SURPRISING_MAX else -np.inf
        candidates = np.flatnonzero(rows.losses > least)  # of equal losses the earlier one stays
        if candidates.size:
            losses = np.concatenate([self._surprising[:, 0], rows.losses[candidates]])
            numbers = np.concatenate([self._surprising_rows, numbers[candidates]])
            order = np.lexsort((numbers[:, 0], -losses))[:SURPRISING_MAX]
            self._surprising, self._surprising_rows = losses[order, np.newaxis], numbers[order]

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return the arrays by name; they do not change later."""
        return {
            "recent": self._recent,
            "recent_rows": self._recent_rows,
            "surprising": self._surprising,
            "surprising_rows": self._surprising_rows,
        }

    def arrays_of_classes(self, places: Integers) -> dict[str, NDArray[Any]]:
        """Return the arrays with `places[column]` in place of the column of each label and answer."""
        arrays = self.arrays()
        for name in ("recent_rows", "surprising_rows"):
            numbers = arrays[name].copy()
            numbers[:, 1:] = places[numbers[:, 1:]]
            arrays[name] = numbers
        return arrays

    def restore(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Continue from the arrays of `arrays`.

        Raises:
            KeyError: An array is missing.
        """
        self._recent, self._recent_rows = arrays["recent"], arrays["recent_rows"]
        self._surprising, self._surprising_rows = arrays["surprising"], arrays["surprising_rows"]
