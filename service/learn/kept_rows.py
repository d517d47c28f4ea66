"""The rows of a history that are kept one by one: the latest ones, and those with the largest losses."""

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from service.learn.row_answers import RowAnswers
from service.softmax.arrays import Integers
from service.softmax.kernels.answer_counts import keep_rows
from service.store.states.report import RECENT, RECENT_MAX, SURPRISING_MAX

NUMBERS: Final = 3  # of a row: its seq, label and answer


class KeptRows:
    """The latest rows and the most surprising ones; arrays as in store/states/report.py, with columns for classes."""

    def __init__(self) -> None:
        self._recent: Final = np.zeros((RECENT_MAX, len(RECENT)))
        self._recent_rows: Final = np.zeros((RECENT_MAX, NUMBERS), np.int64)
        self._surprising: Final = np.zeros((SURPRISING_MAX, 1))
        self._surprising_rows: Final = np.zeros((SURPRISING_MAX, NUMBERS), np.int64)
        self._counts: Final = np.zeros(2, np.int64)  # the rows so far, and those among the most surprising ones

    def add(self, rows: RowAnswers, columns: Integers) -> None:
        """Add rows that come after those before; `columns` has the column of each class."""
        keep_rows(
            rows.seqs, rows.outcomes, rows.labels, rows.answers, columns, self._counts, self._recent,
            self._recent_rows, self._surprising, self._surprising_rows,
        )  # fmt: skip

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return copies of the arrays by name."""
        rows, surprising = self._counts.tolist()
        latest = np.arange(max(0, rows - RECENT_MAX), rows) % RECENT_MAX
        return {
            "recent": self._recent[latest],
            "recent_rows": self._recent_rows[latest],
            "surprising": self._surprising[:surprising].copy(),
            "surprising_rows": self._surprising_rows[:surprising].copy(),
        }

    def arrays_of_classes(self, places: Integers) -> dict[str, NDArray[Any]]:
        """Return the arrays with `places[column]` in place of the column of each label and answer."""
        arrays = self.arrays()
        for name in ("recent_rows", "surprising_rows"):
            arrays[name][:, 1:] = places[arrays[name][:, 1:]]
        return arrays

    def restore(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Continue from the arrays of `arrays`.

        Raises:
            KeyError: An array is missing.
            ValueError: An array has another shape.
        """
        rows, surprising = len(arrays["recent"]), len(arrays["surprising"])
        own = {
            "recent": self._recent[:rows],
            "recent_rows": self._recent_rows[:rows],
            "surprising": self._surprising[:surprising],
            "surprising_rows": self._surprising_rows[:surprising],
        }
        for name, array in own.items():
            if array.shape != arrays[name].shape:
                raise ValueError("an array of kept rows has another shape")
            array[:] = arrays[name]
        self._counts[:] = rows, surprising
