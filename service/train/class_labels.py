"""The labels of rows, and the classes that they name.

A label is a text, a whole number or a boolean. Several labels of one row are a list of texts; in CSV they are one value
with a separator between them, and an empty value has none of the labels.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any, Final, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from service.errors import TrainingError
from service.fields.refusals import quote
from service.record import NAME_CHARACTERS_MAX
from service.train.cell_values import WHOLE, Cells, to_labels

# A column with more labels is hardly one of classes.
CLASSES_MAX: Final = 4096

Label = str | tuple[str, ...] | None
"""The label of a row, or its labels; None if it is missing."""


class LabelReader:
    """Reads the labels of blocks, and counts them.

    Args:
        column: The name of the column of labels.
        separator: The text between several labels of CSV, or None if a row has one label.

    Attributes:
        column: As above.
        is_multilabel: Whether a row has a list of labels.
    """

    def __init__(self, column: str, separator: str | None) -> None:
        self.column: Final = column
        self._separator: Final = separator
        self.is_multilabel: bool = separator is not None
        self._is_known = separator is not None

    def read(self, cells: Cells | None, n_rows: int) -> list[Label]:
        """Return the label of each of B rows.

        Raises:
            TrainingError: A label is of another type than others, or has no text that can name a class.
        """
        if cells is None or cells.kind == "empty":
            return [None] * n_rows
        is_list = cells.kind == "object"
        if self._separator is None:
            if self._is_known and is_list != self.is_multilabel:
                raise TrainingError(
                    f"{quote(self.column)} has lists of labels in some rows and single labels in others"
                )
            self.is_multilabel, self._is_known = is_list, True
        if is_list:
            return [None if value is None else self._check_list(value) for value in cells.values]
        labels = to_labels(cells, n_rows, self.column)
        if self._separator is None:
            return list(labels)
        return [tuple(dict.fromkeys(self._split(label))) for label in labels]

    def _split(self, text: str | None) -> list[str]:
        parts = [] if text is None else text.split(self._separator)
        return [part.strip() for part in parts if part.strip()]

    def _check_list(self, value: object) -> tuple[str, ...]:
        if not isinstance(value, list) or not all(isinstance(label, str) and label for label in value):
            raise TrainingError(f"the labels of a row in {quote(self.column)} must be a list of texts")
        return tuple(dict.fromkeys(value))


class LabelCounts:
    """Counts the labels of the rows that are trained on.

    Attributes:
        rows: The number of rows.
        counts: How many of them have each label.
    """

    def __init__(self) -> None:
        self.rows = 0
        self.counts: Counter[str] = Counter()

    def add(self, labels: Sequence[Label]) -> None:
        """Count labels that are not missing.

        Raises:
            TrainingError: There are too many classes.
        """
        self.rows += len(labels)
        for label in labels:
            self.counts.update((label,) if isinstance(label, str) else label or ())
        if len(self.counts) > CLASSES_MAX:
            raise TrainingError(f"the column of labels has more than {CLASSES_MAX} labels; is it a column of classes?")


class Classes(NamedTuple):
    """The classes of a model.

    Attributes:
        head: The head for them.
        names: Their names, whole numbers in the order of numbers, and others in that of texts.
        counts: How many of the rows that are trained on have each.
    """

    head: Literal["sigmoid", "softmax", "multilabel"]
    names: tuple[str, ...]
    counts: tuple[int, ...]

    @classmethod
    def from_counts(cls, counts: LabelCounts, *, is_multilabel: bool) -> "Classes":
        """Return the classes that were counted.

        Raises:
            TrainingError: There are too few, or a name is too long.
        """
        found = counts.counts
        is_whole = all(map(WHOLE.fullmatch, found))
        names = tuple(sorted(found, key=int if is_whole else str))
        if not names:
            raise TrainingError("no row that is trained on has a label")
        if len(names) == 1 and not is_multilabel:
            raise TrainingError("all rows that are trained on have one label; a model needs at least two classes")
        if max(map(len, names)) > NAME_CHARACTERS_MAX:
            raise TrainingError(f"a label has more than {NAME_CHARACTERS_MAX} characters")
        head: Literal["sigmoid", "softmax", "multilabel"] = "sigmoid" if len(names) == 2 else "softmax"  # noqa: PLR2004
        return cls("multilabel" if is_multilabel else head, names, tuple(found[name] for name in names))

    def number_labels(self, labels: Sequence[Label]) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """Return the labels of rows as numbers, and which rows have only labels of these classes.

        Returns:
            (B,) int32, or (B, K) uint8 for the head multilabel; and (B,).
        """
        places = {name: k for k, name in enumerate(self.names)}
        if self.head != "multilabel":
            numbers = np.array([places.get(label, -1) if isinstance(label, str) else -1 for label in labels], np.int32)
            return numbers, numbers >= 0
        marks, known = np.zeros((len(labels), len(self.names)), np.uint8), np.ones(len(labels), np.bool_)
        for i, label in enumerate(labels):
            known[i] = label is not None and places.keys() >= set(label)
            if known[i]:
                marks[i, [places[name] for name in label or ()]] = 1
        return marks, known
