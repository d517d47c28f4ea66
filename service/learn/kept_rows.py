"""The rows of a history that are kept one by one: the latest ones, and those with the largest losses."""

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from service.learn.row_answers import NO_LABEL, RowAnswers
from service.softmax.arrays import Integers
from service.softmax.kernels.answer_counts import LOSS_OF
from service.store.states.report import RECENT, RECENT_MAX, SURPRISING_MAX

NUMBERS: Final = 3  # of a row: its seq, label and answer


class KeptRows:
    """The latest rows and the most surprising ones; arrays as in store/states/report.py, with columns for classes."""

    def __init__(self) -> None:
        self._recent, self._recent_rows = np.empty((0, len(RECENT))), np.empty((0, NUMBERS), np.int64)
        self._surprising, self._surprising_rows = np.empty((0, 1)), np.empty((0, NUMBERS), np.int64)

    def add(self, rows: RowAnswers, columns: Integers) -> None:
        """Add rows that come after those before; `columns` has the column of each class."""
        losses, places = rows.outcomes[LOSS_OF], np.append(columns, NO_LABEL)  # at NO_LABEL is the last one
        newest = slice(max(0, len(rows.seqs) - RECENT_MAX), None)
        keep = slice(max(0, len(self._recent) + len(rows.seqs) - RECENT_MAX), None)
        self._recent = np.concatenate([self._recent[keep], rows.outcomes[:, newest].T])
        self._recent_rows = np.concatenate([self._recent_rows[keep], _numbers_of(rows, places, newest)])
        least = self._surprising[-1, 0] if len(self._surprising) == SURPRISING_MAX else -np.inf
        candidates = np.flatnonzero(losses > least)  # of equal losses the earlier one stays
        if candidates.size:
            found = np.concatenate([self._surprising[:, 0], losses[candidates]])
            numbers = np.concatenate([self._surprising_rows, _numbers_of(rows, places, candidates)])
            order = np.lexsort((numbers[:, 0], -found))[:SURPRISING_MAX]
            self._surprising, self._surprising_rows = found[order, np.newaxis], numbers[order]

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


def _numbers_of(rows: RowAnswers, places: Integers, which: slice | Integers) -> Integers:
    """Return seq, label and answer (n, NUMBERS) of some rows, with `places[class]` in place of each class."""
    return np.stack((rows.seqs[which], places[rows.labels[which]], places[rows.answers[which]]), axis=1)
