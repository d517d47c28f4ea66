"""Convert the labels of a feedback body, parsed from JSON, to the targets of one model's rows.

    head         label                                target
    multi-label  a list of names or indices           the set of these classes; an empty list is the empty set
    the others   a name, or an index                  that class
                 a list of one number for each class  a distribution: no number is below 0, and the sum is 1

If one label of a body is a distribution, its names and indices become distributions too, with all weight on one class.
Indices are rejected if a class is named by a whole number other than its index: 3 could then mean either class.
"""

import re
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from service.errors import UnacceptableError
from service.serve.wire.json_grammar import NUMBER_TYPES
from service.softmax.scores import SUM_TOLERANCE
from service.store.log.feedback_payload import Targets

WHOLE: Final = re.compile("[+-]?[0-9]+")

UNKNOWN: Final = 'The label of row {} is not one of the model\'s "classes"; add a class with the endpoint :classes.'
AMBIGUOUS: Final = "The label of row {} must be a class name, because classes of this model are named by whole numbers."

ParsedLabels = tuple[Targets, NDArray[Any]]


class LabelParser:
    """Parses the labels of one model with K classes.

    Args:
        classes: The names of the classes, in the order of their indices.
        multilabel: Whether a row's label is a set of classes.

    Attributes:
        n_classes: K.
        multilabel: Whether a row's label is a set of classes.
        indices: The index of each class by its name, and by its index if indices are unambiguous.
    """

    def __init__(self, classes: Sequence[str], *, multilabel: bool) -> None:
        self.n_classes: Final = len(classes)
        self.multilabel: Final = multilabel
        self.indices: Final[dict[str | int, int]] = {name: index for index, name in enumerate(classes)}
        self._numbered: Final = not any(WHOLE.fullmatch(name) and int(name) != self.indices[name] for name in classes)
        if self._numbered:
            self.indices.update(zip(range(self.n_classes), range(self.n_classes), strict=True))

    def find_index(self, label: object) -> int:
        """Return the index of the class that a name or an index means, or -1 if it means none."""
        # The type is checked, because True and 1.0 equal 1.
        return self.indices.get(label, -1) if type(label) is str or type(label) is int else -1

    def parse_labels(self, labels: object, rows: int) -> ParsedLabels:
        """Convert a parsed list of labels to targets.

        Returns:
            INDEX and (B,) int32; or DISTRIBUTION and (B, K) float64; or, for a multi-label model, SET and (B, K) uint8.

        Raises:
            UnacceptableError: The value is not a list of one label for each row, or a label is not valid.
        """
        return self._convert(check_labels(labels, rows), 0)

    def parse_label(self, label: object, row: int) -> ParsedLabels:
        """Convert the label of one row to targets as `parse_labels` does; `row` is its number in errors."""
        return self._convert([label], row)

    def _convert(self, labels: list[Any], first: int) -> ParsedLabels:
        """Convert the labels of rows, of which the first has the number `first`."""
        if self.multilabel:
            return Targets.SET, self._sets(labels, first)
        kinds = set(map(type, labels))
        if list in kinds:
            return Targets.DISTRIBUTION, self._distributions(labels, first)
        if kinds == {int} and self._numbered and min(labels) >= 0 and max(labels) < self.n_classes:
            return Targets.INDEX, np.array(labels, np.int32)
        indices = [self._class_index(row, label) for row, label in enumerate(labels, first)]
        return Targets.INDEX, np.array(indices, np.int32)

    def _class_index(self, row: int, label: object) -> int:
        """Return the index of the class that a name or an index means, or raise UnacceptableError."""
        index = self.find_index(label)
        if index >= 0:
            return index
        if type(label) is int and not self._numbered:
            raise UnacceptableError(AMBIGUOUS.format(row))
        if type(label) is int or type(label) is str:
            raise UnacceptableError(UNKNOWN.format(row))
        kinds = "a list of class names or indices" if self.multilabel else "a class name, an index, or a distribution"
        raise UnacceptableError(f"The label of row {row} must be {kinds}.")

    def _sets(self, labels: list[Any], first: int) -> NDArray[np.uint8]:
        """Return (B, K) uint8 of lists of classes."""
        members = np.zeros((len(labels), self.n_classes), np.uint8)
        for at, label in enumerate(labels):
            if type(label) is not list:
                raise UnacceptableError(f"The label of row {first + at} must be a list of class names or indices.")
            for member in label:
                members[at, self._class_index(first + at, member)] = 1
        return members

    def _distributions(self, labels: list[Any], first: int) -> NDArray[np.float64]:
        """Return (B, K) float64 of lists of numbers, names and indices."""
        distributions = np.zeros((len(labels), self.n_classes))
        for at, label in enumerate(labels):
            if type(label) is not list:
                distributions[at, self._class_index(first + at, label)] = 1.0
            elif len(label) != self.n_classes or not NUMBER_TYPES.issuperset(map(type, label)):
                raise UnacceptableError(
                    f"The distribution of row {first + at} must have {self.n_classes} numbers, one for each class."
                )
            else:
                distributions[at] = label
        # Zeroed rows are rejected below, because their sum is not 1; without this a sum could overflow.
        distributions[((distributions < 0) | (distributions > 1 + SUM_TOLERANCE)).any(axis=1)] = 0
        wrong = np.abs(distributions.sum(axis=1) - 1) > SUM_TOLERANCE
        if wrong.any():
            row = first + int(np.argmax(wrong))
            raise UnacceptableError(f"The distribution of row {row} must have no number below 0, and the sum 1.")
        return distributions


def check_labels(labels: object, rows: int) -> list[Any]:
    """Return the labels of a body, a list of one label for each row.

    Raises:
        UnacceptableError: The value is something else.
    """
    if type(labels) is not list:
        raise UnacceptableError('The body must have "labels": a list of one label for each row.')
    if len(labels) != rows:
        raise UnacceptableError(f'"labels" has {len(labels)} labels for {rows} rows; send one for each row.')
    return labels
