"""Pass 1: what each column of a file holds. Values are counted over the rows that are trained on."""

from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from service.fields.name_encoders import is_bag
from service.fields.scalar_encoders import NUMBERS
from service.softmax.arrays import Doubles
from service.train.cell_values import BOOLEAN_TEXTS, Cells, find_numbers, list_present, to_numbers
from service.train.moments import Moments

# Distinct values are counted exactly up to here; a column of more is hashed.
DISTINCT_MAX: Final = 10_000

Booleans = NDArray[np.bool_]


class ColumnTally:
    """The counts of one column.

    Args:
        name: The name of the column.
        missing: The rows that are trained on before the first block that has the column.
        counts_numbers: Whether the values of numbers are counted too, for a field that takes them as categories.

    Attributes:
        kinds: The kinds of its cells, "empty" apart.
        present: How many values are present, in all rows.
        numbers: How many cells of CSV are numbers.
        booleans: How many cells of CSV are booleans.
        not_a_number: The first row whose cell is no number; None if all are.
        words: The words of all texts.
        trained: How many values are present in the rows that are trained on.
        gaps: How many values are missing there.
        values: How often each value occurs there, if there are at most DISTINCT_MAX.
        is_exact: Whether all values are in `values`.
        is_infinite: Whether a number is infinite.
        runs: Whether the numbers are whole and each is one more than that of the row before.
        is_vector: Whether all lists and objects are lists of as many numbers, `vector_size`.
        is_bag: Whether all lists and objects are lists of texts, or objects of numbers.
        moments: Of the numbers, or of the vectors, in the rows that are trained on.
    """

    def __init__(self, name: str, *, missing: int = 0, counts_numbers: bool = False) -> None:
        self.name: Final = name
        self.kinds: set[str] = set()
        self.present = self.numbers = self.booleans = self.words = self.trained = 0
        self.gaps = missing
        self.not_a_number: int | None = None
        self.values: dict[Any, int] = {}
        self.is_exact = True
        self.is_infinite = False
        self.vector_size: int | None = None
        self.is_vector = self.is_bag = True
        self.runs = True
        self.moments = Moments()
        self._counts_numbers: Final = counts_numbers
        self._last: float | None = None

    @property
    def is_number(self) -> bool:
        """Whether all values that are present are numbers."""
        return self.kinds == {"number"} or (self.kinds == {"cell"} and self.numbers == self.present > 0)

    @property
    def is_boolean(self) -> bool:
        """Whether all values that are present are booleans."""
        return self.kinds == {"boolean"} or (self.kinds == {"cell"} and self.booleans == self.present > 0)

    @property
    def is_unique(self) -> bool:
        """Whether all values that were counted differ from each other."""
        return len(self.values) == sum(self.values.values())

    def add(self, cells: Cells, first: int, n_rows: int, used: Booleans) -> None:
        """Count the values of a block.

        Args:
            cells: The values.
            first: The number of the first row.
            n_rows: B.
            used: (B,) which rows are trained on.
        """
        numbers = to_numbers(cells, n_rows) if cells.kind == "number" else None
        present = list_present(cells, n_rows) if numbers is None else ~np.isnan(numbers)
        counted = present & used
        used_count = int(np.count_nonzero(counted))
        self.present += int(np.count_nonzero(present))
        self.trained += used_count
        self.gaps += int(np.count_nonzero(used)) - used_count
        if cells.kind != "empty":
            self.kinds.add("object" if cells.kind == "vector" else cells.kind)
        if numbers is not None:
            self._add_numbers(numbers, present, counted)
            if self._counts_numbers:
                self._count_values(cells.values.filter(pa.array(counted)))
        elif cells.kind in {"cell", "text"}:
            self._add_texts(cells, first, present, used)
        elif cells.kind == "boolean":
            self._count_values(cells.values.filter(pa.array(used)))
        elif cells.kind == "object":
            self._add_objects(cells.values, counted)
        elif cells.kind == "vector":
            self.is_bag = False
            self._set_size({cells.values.shape[1]})
            self._add_vectors(cells.values[counted])

    def _add_objects(self, values: list[Any], counted: Booleans) -> None:
        """Count lists and objects."""
        found = [value for value in values if value is not None]
        self.is_bag = self.is_bag and all(map(is_bag, found))
        if self.is_vector and found:
            self._set_size({len(value) if isinstance(value, list) else 0 for value in found})
            self.is_vector = self.is_vector and all(NUMBERS.issuperset(map(type, value)) for value in found)
        if self.is_vector and self.vector_size is not None:
            vectors = [value for value, is_counted in zip(values, counted, strict=True) if is_counted]
            self._add_vectors(np.array(vectors, np.float64).reshape(-1, self.vector_size))

    def _set_size(self, sizes: set[int]) -> None:
        """Compare the sizes of the lists of a block with those before it."""
        if self.vector_size is None:
            self.vector_size = max(sizes)
            self.moments = Moments(max(self.vector_size, 1))
        self.is_vector = self.is_vector and sizes == {self.vector_size} != {0}

    def _add_vectors(self, vectors: Doubles) -> None:
        if self.is_vector:
            self.is_infinite = self.is_infinite or not np.isfinite(vectors).all()
            self.moments.add(vectors)

    def _add_texts(self, cells: Cells, first: int, present: Booleans, used: Booleans) -> None:
        """Count texts, or cells of CSV, which may be numbers or booleans."""
        if cells.kind == "cell":
            numbers = find_numbers(cells)
            self.numbers += int(np.count_nonzero(numbers))
            self.booleans += int(pc.sum(pc.is_in(cells.values, BOOLEAN_TEXTS)).as_py() or 0)
            others = present & ~numbers
            if self.not_a_number is None and others.any():
                self.not_a_number = first + int(np.argmax(others))
            if self.not_a_number is None:
                self._add_numbers(to_numbers(cells, len(present)), present, present & used)
        self.words += int(pc.sum(pc.count_substring_regex(cells.values, r"\S+")).as_py() or 0)
        self._count_values(cells.values.filter(pa.array(used)))

    def _add_numbers(self, numbers: Doubles, present: Booleans, counted: Booleans) -> None:
        self.is_infinite = self.is_infinite or bool(np.isinf(numbers).any())
        if self.is_infinite:
            return
        if self.runs:
            before = numbers[:1] - 1 if self._last is None else np.array([self._last])
            self.runs = bool(present.all() and (np.diff(numbers, prepend=before) == 1).all() and numbers[0] % 1 == 0)
            self._last = float(numbers[-1])
        self.moments.add(numbers[counted])

    def _count_values(self, values: Any) -> None:  # noqa: ANN401  # pyarrow has no types
        """Count the values of an array until there are too many."""
        if not self.is_exact:
            return
        for entry in pc.value_counts(values.drop_null()).to_pylist():
            self.values[entry["values"]] = self.values.get(entry["values"], 0) + entry["counts"]
        if len(self.values) > DISTINCT_MAX:
            self.is_exact = False
