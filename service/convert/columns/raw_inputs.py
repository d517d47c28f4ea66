"""The values of a row that a source reads, and what its steps reveal about each of them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from service.record import ROWS_MAX
from service.softmax.arrays import Doubles, Integers

InputForm = Literal["matrix", "texts", "bags"]
"""The input of a source: a matrix of values by column, a list of texts, or a list of objects of names and numbers."""


class ColumnError(Exception):
    """A step is neither linear nor a field; the message is a clause without the step's name and place."""


@dataclass
class RawInput:
    """One value of a row.

    Attributes:
        name: Its name in a row.
        title: Its name in the source.
        mean: The number that the source's first scaler subtracts from it, or None.
        scale: The positive number by which the scaler divides the difference, or None.
        null: What stands for a missing value in the source: NaN or None.
        is_read: Whether a step of the source receives it.
        default: A value that the source accepts, if the model does not use it.
    """

    name: str
    title: str
    mean: float | None = None
    scale: float | None = None
    null: float | None = math.nan
    is_read: bool = False
    default: float | str | bool = 0.0


@dataclass
class RawInputs:
    """The values of a row.

    Attributes:
        form: What the source receives, or None as long as no step has read it.
        columns: The values, in the order of the source's columns.
        has_names: Whether the source knows its columns by name.
        has_pairs: Whether the source receives a bag as a list of pairs.
        rows: The number of rows that it was trained on, or None.
    """

    form: InputForm | None = None
    columns: list[RawInput] = field(default_factory=list)
    has_names: bool = False
    has_pairs: bool = False
    rows: int | None = None

    def __len__(self) -> int:
        """Return the number of values."""
        return len(self.columns)

    def add(self, name: str) -> int:
        """Add a value and return its index.

        Raises:
            ColumnError: Another value has the name.
        """
        if any(column.name == name for column in self.columns):
            raise ColumnError("two columns of the input have one name")
        self.columns.append(RawInput(name, name))
        return len(self.columns) - 1

    def add_all(self, names: Sequence[str]) -> None:
        """Add values at the end.

        Raises:
            ColumnError: Two values have one name.
        """
        self.columns += map(RawInput, names, names)
        if len({column.name for column in self.columns}) < len(self.columns):
            raise ColumnError("two columns of the input have one name")

    def mark_read(self, indices: Sequence[int] | None = None) -> None:
        """Note that a step receives these values, or all of them."""
        for index in range(len(self)) if indices is None else indices:
            self.columns[index].is_read = True

    def note_scaling(self, indices: Integers, mean: Doubles, scale: Doubles) -> None:
        """Note how the source scales numbers, unless it is known already.

        Args:
            indices: (N,) the values.
            mean: (N,) float64, in units of the value.
            scale: (N,) float64, in units of the value.
        """
        for index, center, width in zip(indices.tolist(), mean.tolist(), scale.tolist(), strict=True):
            column = self.columns[index]
            if column.scale is None and math.isfinite(center) and math.isfinite(width) and width > 0:
                column.mean, column.scale = center, width

    def note_rows(self, rows: int | None) -> None:
        """Note the number of training rows, unless it is known already."""
        if self.rows is None and rows is not None and 0 < rows <= ROWS_MAX:
            self.rows = rows
