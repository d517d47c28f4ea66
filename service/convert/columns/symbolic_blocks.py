"""Blocks of symbolic columns: each column is a function of values of a row.

    block          its columns, as functions of
    NumberBlock    a number: factor * clip(x) + shift where it is present, one constant where it is missing
    CategoryBlock  a category with a stand-in for a missing one, as long as no encoder has made numbers of it
    TableBlock     a category: one row of a table for each listed one, one for other ones, one for a missing one
    OneHotBlock    a category: 1 in the column of the category (both in table_blocks.py)
    TermBlock      a text or a bag: the terms of a field, each times a factor, plus a shift (term_block.py)
    MixedBlock     the columns of another matrix: a product with a constant matrix, plus a shift

A number that is missing and has no constant (NaN) is refused by the source, and so it is by the field.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from service.convert.columns.raw_inputs import ColumnError, RawInputs
from service.fields.field_records import Category
from service.softmax.arrays import Doubles, Integers


@dataclass(frozen=True, eq=False)
class TermDraft:
    """A field of a text or a bag that is not named yet.

    Attributes:
        record: The record of the field without `name`, `terms` and `idf`.
        width: The number of columns.
        terms: Its terms in the order of the columns, or None if they are hashed.
        idf: (width,) float64, a factor for each column before `norm`; or None.
    """

    record: dict[str, Any]
    width: int
    terms: Sequence[str] | None = None
    idf: Doubles | None = None


class CategoryReading(NamedTuple):
    """How a value of a row is one of the categories of an encoder.

    Attributes:
        inputs: The values of a row.
        place: The index of the value.
        values: The V listed categories, distinct.
        rows: (V + 2,) int64: the encoder's row for each listed category, for another one, and for a missing one.
        refuses_unknown: Whether the source refuses a category that is not listed.
        refuses_missing: Whether it refuses a missing one.
        fill: The category that stands for a missing one, or None.
    """

    inputs: RawInputs
    place: int
    values: tuple[Category, ...]
    rows: Integers
    refuses_unknown: bool
    refuses_missing: bool
    fill: Category | None


class WeightSink(Protocol):
    """The weights of a row's values, to which blocks add theirs: `InputWeights`."""

    def add_bias(self, bias: Doubles) -> None:
        """Add (K,) numbers to the bias."""

    def add_numbers(self, block: "NumberBlock", weights: Doubles) -> None:
        """Add the weights (N, K) of functions of numbers."""

    def add_category(self, reading: CategoryReading, weights: Doubles) -> None:
        """Add the weights (V + 2, K) of the listed categories, of another one and of a missing one; NaN is refused."""

    def add_terms(self, index: int, draft: TermDraft, weights: Doubles) -> None:
        """Add the weights (width, K) of the terms of a field."""


class SymbolicBlock(ABC):
    """Some columns of a symbolic matrix, immutable."""

    @property
    @abstractmethod
    def width(self) -> int:
        """The number N of columns."""

    @abstractmethod
    def select(self, columns: Integers) -> "SymbolicBlock":
        """Return the block of some columns, in the given order."""

    @abstractmethod
    def scale(self, factor: Doubles, shift: Doubles) -> "SymbolicBlock":
        """Return the block of each column times a factor, plus a shift; both (N,) float64."""

    @abstractmethod
    def add_weights(self, weights: Doubles, sink: WeightSink) -> None:
        """Add the weights (N, K) of the columns to the weights of what they are functions of."""

    def clip(self, low: Doubles, high: Doubles) -> "SymbolicBlock":  # noqa: ARG002
        """Return the block of each column cut to [low, high]; both (N,) float64."""
        raise ColumnError("only plain numbers can be cut to an interval")

    def fill_missing(self, values: Doubles) -> "SymbolicBlock":  # noqa: ARG002
        """Return the block with numbers (N,) in place of missing ones."""
        return self

    def mark_missing(self) -> "SymbolicBlock":
        """Return the block that is 1 where a column is missing, and 0 elsewhere."""
        return MixedBlock(self, np.zeros((self.width, self.width)), np.zeros(self.width))

    def note_scaling(self, mean: Doubles, scale: Doubles, rows: int | None) -> None:  # noqa: B027  # not for all
        """Note the mean and scale (N,) of a scaler and its training rows, for the fields of plain numbers."""


@dataclass(frozen=True, eq=False)
class NumberBlock(SymbolicBlock):
    """Columns that are functions of one number each.

    Attributes:
        inputs: The values of a row.
        indices: (N,) int64, the value of each column.
        factor: (N,) float64.
        shift: (N,) float64.
        missing: (N,) float64, what a column is where its value is missing; NaN if it is missing then.
        low: (N,) float64, the lower end to which the value is cut; -inf for no cut.
        high: (N,) float64, the upper end.
    """

    inputs: RawInputs
    indices: Integers
    factor: Doubles
    shift: Doubles
    missing: Doubles
    low: Doubles
    high: Doubles

    @classmethod
    def of_inputs(cls, inputs: RawInputs, indices: Sequence[int] | Integers) -> "NumberBlock":
        """Return the block of values as they are in a row."""
        n = len(indices)
        zeros = np.zeros(n)
        return cls(
            inputs,
            np.array(indices, np.int64),
            np.ones(n),
            zeros,
            np.full(n, np.nan),
            np.full(n, -np.inf),
            np.full(n, np.inf),
        )

    @property
    def width(self) -> int:
        """The number N of columns."""
        return len(self.indices)

    @property
    def is_plain(self) -> NDArray[np.bool_]:
        """(N,) whether a column is the value as it is, with or without a number in place of a missing one."""
        plain = (self.factor == 1) & (self.shift == 0) & (self.low == -np.inf) & (self.high == np.inf)
        return np.asarray(plain, np.bool_)

    def select(self, columns: Integers) -> "NumberBlock":
        """Return the block of some columns, in the given order."""
        numbers = (self.factor, self.shift, self.missing, self.low, self.high)
        return NumberBlock(self.inputs, self.indices[columns], *(part[columns] for part in numbers))

    def scale(self, factor: Doubles, shift: Doubles) -> "NumberBlock":
        """Return the block of each column times a factor, plus a shift."""
        return replace(
            self,
            factor=self.factor * factor,
            shift=self.shift * factor + shift,
            missing=self.missing * factor + shift,
        )

    def clip(self, low: Doubles, high: Doubles) -> "NumberBlock":
        """Return the block of each column cut to [low, high]."""
        marks = self.factor == 0
        with np.errstate(divide="ignore", invalid="ignore"):
            ends = np.sort([(low - self.shift) / self.factor, (high - self.shift) / self.factor], axis=0)
        return replace(
            self,
            shift=np.where(marks, np.clip(self.shift, low, high), self.shift),
            missing=np.clip(self.missing, low, high),
            low=np.where(marks, self.low, np.maximum(self.low, ends[0])),
            high=np.where(marks, self.high, np.minimum(self.high, ends[1])),
        )

    def fill_missing(self, values: Doubles) -> "NumberBlock":
        """Return the block with numbers in place of missing ones."""
        return replace(self, missing=np.where(np.isnan(self.missing), values, self.missing))

    def mark_missing(self) -> "NumberBlock":
        """Return the block that is 1 where a column is missing, and 0 elsewhere."""
        zeros = np.zeros(self.width)
        return replace(self, factor=zeros, shift=zeros, missing=np.isnan(self.missing).astype(np.float64))

    def note_scaling(self, mean: Doubles, scale: Doubles, rows: int | None) -> None:
        """Note the mean and scale of a scaler of the columns, in units of the values, and its training rows."""
        self.inputs.note_rows(rows)
        with np.errstate(divide="ignore", invalid="ignore"):
            self.inputs.note_scaling(self.indices, (mean - self.shift) / self.factor, np.abs(scale / self.factor))

    def add_weights(self, weights: Doubles, sink: WeightSink) -> None:
        """Add the weights of the columns to those of the numbers."""
        sink.add_numbers(self, weights)


@dataclass(frozen=True, eq=False)
class CategoryBlock(SymbolicBlock):
    """Categories with a stand-in for a missing one.

    Attributes:
        inputs: The values of a row.
        indices: (N,) int64, the value of each column.
        fills: For each column the category that stands for a missing one.
    """

    inputs: RawInputs
    indices: Integers
    fills: tuple[Category, ...]

    @property
    def width(self) -> int:
        """The number N of columns."""
        return len(self.indices)

    def select(self, columns: Integers) -> "CategoryBlock":
        """Return the block of some columns, in the given order."""
        return replace(self, indices=self.indices[columns], fills=tuple(self.fills[i] for i in columns.tolist()))

    def scale(self, factor: Doubles, shift: Doubles) -> "CategoryBlock":  # noqa: ARG002
        """Refuse to scale: a category has no factor."""
        raise ColumnError("a text or a boolean is used as a number")

    def mark_missing(self) -> NumberBlock:
        """Return the block of zeros, because no gap is left."""
        zeros = np.zeros(self.width)
        return replace(NumberBlock.of_inputs(self.inputs, self.indices), factor=zeros, missing=zeros)

    def add_weights(self, weights: Doubles, sink: WeightSink) -> None:  # noqa: ARG002
        """Refuse weights: a category has none."""
        raise ColumnError("a text or a boolean is used as a number")


class SymbolicColumns(Protocol):
    """Columns that weights can be sent through: a block, or a whole matrix."""

    @property
    def width(self) -> int:
        """The number of columns."""

    def add_weights(self, weights: Doubles, sink: WeightSink) -> None:
        """Add the weights (width, K) of the columns to the weights of what they are functions of."""


@dataclass(frozen=True, eq=False)
class MixedBlock(SymbolicBlock):
    """Columns that are sums of the columns of another matrix.

    Attributes:
        parent: M columns.
        matrix: (M, N) float64, by which they are multiplied.
        shift: (N,) float64, which is added.
    """

    parent: SymbolicColumns
    matrix: Doubles
    shift: Doubles

    @property
    def width(self) -> int:
        """The number N of columns."""
        return int(self.matrix.shape[1])

    def select(self, columns: Integers) -> "MixedBlock":
        """Return the block of some columns, in the given order."""
        return replace(self, matrix=self.matrix[:, columns], shift=self.shift[columns])

    def scale(self, factor: Doubles, shift: Doubles) -> "MixedBlock":
        """Return the block of each column times a factor, plus a shift."""
        return replace(self, matrix=self.matrix * factor, shift=self.shift * factor + shift)

    def add_weights(self, weights: Doubles, sink: WeightSink) -> None:
        """Add the weights of the columns to those of the parent's columns."""
        sink.add_bias(self.shift @ weights)
        self.parent.add_weights(self.matrix @ weights, sink)
