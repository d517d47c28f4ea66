"""How rows of names and values become the input of a scikit-learn pipeline."""

import pkgutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np

from service.convert.columns.raw_inputs import InputForm, RawInputs
from service.convert.converted_model import ConvertedModel, Row

PipelineInput = Any
"""A frame, an array, or a list of texts or bags."""
Bag = dict[str, float] | list[tuple[str, float]]

# The class of frames, as its package names it; a pipeline that was fitted on names needs it.
FRAME_CLASS: Final = "pandas:DataFrame"


class LayoutColumn(NamedTuple):
    """One column of the input.

    Attributes:
        name: The name of its value in a row.
        title: The name of the column in a frame.
        is_used: Whether the model reads it.
        is_number: Whether it reads it as a number only.
        null: What stands for a missing value: NaN or None.
        default: What stands for a value that the model does not use.
    """

    name: str
    title: str
    is_used: bool
    is_number: bool
    null: float | None
    default: float | str | bool


@dataclass(frozen=True)
class RowLayout:
    """The input of a pipeline.

    Attributes:
        form: A matrix, a list of texts or a list of bags.
        columns: The columns of a matrix; the one value of a row otherwise.
        has_names: Whether the matrix is a frame with names of columns.
        has_pairs: Whether a bag is a list of pairs instead of an object.
    """

    form: InputForm
    columns: Sequence[LayoutColumn]
    has_names: bool
    has_pairs: bool

    @classmethod
    def of_model(cls, model: ConvertedModel, inputs: RawInputs) -> "RowLayout":
        """Return the layout of the input of a converted pipeline."""
        kinds: dict[str, set[str]] = {}
        for record in model.fields or ():
            kinds.setdefault(record.get("source", record["name"]), set()).add(record["kind"])
        numbers = {name for name, found in kinds.items() if found == {"number"}}
        columns = [
            LayoutColumn(
                column.name,
                column.title,
                model.fields is None or column.name in kinds,
                model.fields is None or column.name in numbers,
                column.null,
                column.default,
            )
            for column in inputs.columns
        ]
        return cls(inputs.form or "matrix", columns, inputs.has_names, inputs.has_pairs)

    def to_input(self, rows: Sequence[Row]) -> PipelineInput:
        """Return the input of the pipeline for rows: a frame, an array, or a list of texts or bags.

        Raises:
            ImportError: The pipeline needs a frame, and pandas is not installed.
        """
        if self.form != "matrix":
            values = [row.get(self.columns[0].name) for row in rows]
            return values if self.form == "texts" else list(map(self._to_bag, values))
        arrays = {column.title: _to_array(column, rows) for column in self.columns}
        if self.has_names:
            frame_class: Callable[..., Any] = pkgutil.resolve_name(FRAME_CLASS)
            frame = frame_class(arrays, dtype=object)
            return frame.astype({column.title: np.float64 for column in self.columns if column.is_number})
        if all(column.is_number for column in self.columns):
            return np.column_stack(list(arrays.values()))
        table = np.empty((len(rows), len(arrays)), object)
        for place, array in enumerate(arrays.values()):
            table[:, place] = array
        return table

    def _to_bag(self, value: Mapping[str, float] | Sequence[str] | None) -> Bag:
        """Return a bag as an object of names and numbers, or as pairs."""
        bag: dict[str, float] = {}
        pairs = value.items() if isinstance(value, Mapping) else [(name, 1) for name in value or ()]
        for name, number in pairs:
            bag[name] = bag.get(name, 0) + number
        return list(bag.items()) if self.has_pairs else bag


def _to_array(column: LayoutColumn, rows: Sequence[Row]) -> np.ndarray[Any, np.dtype[Any]]:
    """Return the values (B,) of one column, float64 if it is a number and objects otherwise."""
    values = [row.get(column.name) for row in rows]
    stand_in = column.null if column.is_used else column.default
    listed = [stand_in if value is None else value for value in values]
    if column.is_number:
        return np.array(listed, np.float64)
    array = np.empty(len(listed), object)
    array[:] = listed
    return array
