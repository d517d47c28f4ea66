"""The labels of a feedback body, as JSON values, to the targets of one model's rows.

    head         a label                              its target
    multi-label  a list of names or indices           the set of these classes; an empty list is none of them
    the others   a name, or an index                  that class
                 a list of one number for each class  a distribution: none below 0, their sum 1

Where one label of a body is a distribution, its names and indices become distributions too: all on one class. An index
is refused where a class has a whole number for its name that is not its index: 3 could mean either of two classes then.
"""

import re
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from service.errors import UnacceptableError
from service.softmax.scores import SUM_TOLERANCE
from service.store.log.feedback_payload import Targets

WHOLE: Final = re.compile("[+-]?[0-9]+")
NUMBERS: Final = frozenset((int, float))

UNKNOWN: Final = 'The label of row {} is not one of the model\'s "classes"; a class is added by the endpoint :classes.'
AMBIGUOUS: Final = "The label of row {} must be a class name: classes of this model are named by other whole numbers."

ParsedLabels = tuple[Targets, NDArray[Any]]


class LabelParser:
    """Reads the labels of one model with K classes.

    Args:
        classes: Their names, in the order of their indices.
        multilabel: Whether a row's label is a set of them.
    """

    def __init__(self, classes: Sequence[str], *, multilabel: bool) -> None:
        self.n_classes: Final = len(classes)
        self.multilabel: Final = multilabel
        # By the name of each class, and by its index where that can mean no other class.
        self.indices: Final[dict[str | int, int]] = {name: index for index, name in enumerate(classes)}
        self._numbered: Final = not any(WHOLE.fullmatch(name) and int(name) != self.indices[name] for name in classes)
        if self._numbered:
            self.indices.update(zip(range(self.n_classes), range(self.n_classes), strict=True))

    def find_index(self, label: object) -> int:
        """The index of a class by its name or index; -1 where the label is another kind, or needs to be refused."""
        # By type: True and 1.0 are equal to 1.
        return self.indices.get(label, -1) if type(label) is str or type(label) is int else -1

    def parse_labels(self, labels: object, rows: int) -> ParsedLabels:
        """The targets of a parsed list of labels.

        Returns:
            INDEX and (B,) int32; or DISTRIBUTION and (B, K) float64; or, for a multi-label model, SET and (B, K) uint8.

        Raises:
            UnacceptableError: It is not a list of one label for each row, or one of them is none of this model.
        """
        if type(labels) is not list:
            raise UnacceptableError('The body must have "labels": a list of one label for each row.')
        if len(labels) != rows:
            raise UnacceptableError(f'"labels" has {len(labels)} labels for {rows} rows; send one for each row.')
        if self.multilabel:
            return Targets.SET, self._sets(labels)
        kinds = set(map(type, labels))
        if list in kinds:
            return Targets.DISTRIBUTION, self._distributions(labels)
        if kinds == {int} and self._numbered and min(labels) >= 0 and max(labels) < self.n_classes:
            return Targets.INDEX, np.array(labels, np.int32)
        return Targets.INDEX, np.array([self._class(row, label) for row, label in enumerate(labels)], np.int32)

    def _class(self, row: int, label: object) -> int:
        """The index of the class that a name or an index means."""
        index = self.find_index(label)
        if index >= 0:
            return index
        if type(label) is int and not self._numbered:
            raise UnacceptableError(AMBIGUOUS.format(row))
        if type(label) is int or type(label) is str:
            raise UnacceptableError(UNKNOWN.format(row))
        kinds = "a list of class names or indices" if self.multilabel else "a class name, an index, or a distribution"
        raise UnacceptableError(f"The label of row {row} must be {kinds}.")

    def _sets(self, labels: list[Any]) -> NDArray[np.uint8]:
        """(B, K) uint8 of lists of classes."""
        members = np.zeros((len(labels), self.n_classes), np.uint8)
        for row, label in enumerate(labels):
            if type(label) is not list:
                raise UnacceptableError(f"The label of row {row} must be a list of class names or indices.")
            for one in label:
                members[row, self._class(row, one)] = 1
        return members

    def _distributions(self, labels: list[Any]) -> NDArray[np.float64]:
        """(B, K) float64 of lists of numbers, names and indices."""
        shares = np.zeros((len(labels), self.n_classes))
        for row, label in enumerate(labels):
            if type(label) is not list:
                shares[row, self._class(row, label)] = 1.0
            elif len(label) != self.n_classes or not NUMBERS.issuperset(map(type, label)):
                raise UnacceptableError(f"The distribution of row {row} must have {self.n_classes} numbers.")
            else:
                shares[row] = label
        shares[((shares < 0) | (shares > 1 + SUM_TOLERANCE)).any(axis=1)] = (
            0  # no sum overflows, and none of these is 1
        )
        wrong = np.abs(shares.sum(axis=1) - 1) > SUM_TOLERANCE
        if wrong.any():
            row = int(np.argmax(wrong))
            raise UnacceptableError(f"The distribution of row {row} must have no number below 0 and the sum 1.")
        return shares
