"""The labels of rows, and the classes that they name.

A label is a text, a whole number or a boolean. Several labels of one row are a list of texts; in CSV they are one value
with a separator between them, and an empty value has none of the labels.
"""

from collections import Counter
from typing import Any, Final, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from service.errors import TrainingError
from service.fields.refusals import quote
from service.record import NAME_CHARACTERS_MAX
from service.train.cell_values import WHOLE, Cells, encode_labels

# A column with more labels is hardly one of classes.
CLASSES_MAX: Final = 4096

LabelSet = tuple[str, ...] | None
"""The labels of a row that may have several; None if they are missing."""


class Labels(NamedTuple):
    """The labels of B rows.

    Attributes:
        present: (B,) which rows have a label, or a list of labels that may be empty.
        codes: (B,) int64, the number of each row's label in `names`, if a row has one; -1 if it is missing.
        names: The labels.
        sets: The labels of each row, if a row may have several.
    """

    present: NDArray[np.bool_]
    codes: NDArray[np.int64]
    names: list[str]
    sets: list[LabelSet] | None = None


class LabelReader:
    """Reads the labels of blocks.

    Args:
        column: The name of the column of labels.
        separator: The text between several labels of CSV, or None if a row has one label.

    Attributes:
        column: As above.
        is_multilabel: Whether a row may have several labels; known once one was read.
    """

    def __init__(self, column: str, separator: str | None) -> None:
        self.column: Final = column
        self._separator: Final = separator
        self.is_multilabel: bool = separator is not None
        self._is_known = separator is not None

    def read(self, cells: Cells | None, n_rows: int) -> Labels:
        """Return the labels of B rows.

        Raises:
            TrainingError: A label is of another type than others, or has no text that can name a class.
        """
        cells = cells or Cells("empty")
        is_list = cells.kind == "object"
        if self._separator is None and cells.kind != "empty":
            if self._is_known and is_list != self.is_multilabel:
                raise TrainingError(f"{quote(self.column)} has lists of labels in some rows, and single ones in others")
            self.is_multilabel, self._is_known = is_list, True
        if is_list:
            return _from_sets([None if value is None else self._check_list(value) for value in cells.values])
        codes, texts = encode_labels(cells, n_rows, self.column)
        if self._separator is not None:
            sets = [tuple(dict.fromkeys(self._split(text))) for text in [*texts, None]]
            return _from_sets([sets[code] for code in codes.tolist()])
        names = dict.fromkeys(text for text in texts if text is not None)
        places = {name: number for number, name in enumerate(names)}
        numbers = np.array([*(-1 if text is None else places[text] for text in texts), -1], np.int64)
        return Labels(numbers[codes] >= 0, numbers[codes], list(names))

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
        counts: How many of them have each label.
    """

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()

    def add(self, labels: Labels, used: NDArray[np.bool_]) -> None:
        """Count the labels of some rows.

        Args:
            labels: The labels of B rows.
            used: (B,) which of them count; each of them has a label.

        Raises:
            TrainingError: There are too many classes.
        """
        if labels.sets is not None:
            for i in np.flatnonzero(used).tolist():
                self.counts.update(labels.sets[i] or ())
        else:
            counts = np.bincount(labels.codes[used], minlength=len(labels.names)).tolist()
            self.counts.update({name: count for name, count in zip(labels.names, counts, strict=True) if count})
        if len(self.counts) > CLASSES_MAX:
            raise TrainingError(f"the column of labels has more than {CLASSES_MAX} labels; is it a column of classes?")


def _from_sets(sets: list[LabelSet]) -> Labels:
    present = np.fromiter((labels is not None for labels in sets), np.bool_, len(sets))
    return Labels(present, np.full(len(sets), -1), [], sets)


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

    def number_labels(self, labels: Labels) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """Return the labels of rows as numbers, and which rows have only labels of these classes.

        Returns:
            (B,) int32, or (B, K) uint8 for the head multilabel; and (B,).
        """
        places = {name: k for k, name in enumerate(self.names)}
        if labels.sets is None:
            table = np.array([*(places.get(name, -1) for name in labels.names), -1], np.int32)
            numbers = table[labels.codes]
            return numbers, numbers >= 0
        marks, known = np.zeros((len(labels.sets), len(self.names)), np.uint8), labels.present.copy()
        for i, some in enumerate(labels.sets):
            known[i] &= places.keys() >= set(some or ())
            if known[i]:
                marks[i, [places[name] for name in some or ()]] = 1
        return marks, known
