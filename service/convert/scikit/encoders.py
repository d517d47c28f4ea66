"""Encoders of categories of scikit-learn: one-hot, ordinal and target encoders."""

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np

from service.convert.columns.category_reading import is_missing, read_category, to_category
from service.convert.columns.symbolic_blocks import CategoryReading, NumberBlock
from service.convert.columns.symbolic_matrix import SymbolicMatrix
from service.convert.columns.table_blocks import OneHotBlock, TableBlock
from service.convert.scikit.plain_object import PlainValue
from service.convert.scikit.step import Step
from service.fields.field_records import Category
from service.softmax.arrays import Integers

NO_COLUMN: Final = -1


class FittedCategories(NamedTuple):
    """The categories of one column as an encoder was fitted on them.

    Attributes:
        values: The V categories that are not missing, in the encoder's order.
        codes: (V,) int64, the place of each in the encoder's list.
        missing: The place of the missing one in that list, or None.
        size: The length of the list.
        has_none: Whether the missing one is None.
    """

    values: list[Category]
    codes: Integers
    missing: int | None
    size: int
    has_none: bool


def _fitted_categories(step: Step, x: SymbolicMatrix) -> list[FittedCategories]:
    """Return the categories of each column of the input."""
    lists = step.listed("categories_")
    if len(lists) != x.width:
        raise step.refuse("it was fitted on another number of columns")
    return [_one_column(step, x, column, values) for column, values in enumerate(lists)]


def _one_column(step: Step, x: SymbolicMatrix, column: int, values: PlainValue) -> FittedCategories:
    if not isinstance(values, np.ndarray) or values.ndim != 1:
        raise step.refuse("its categories are not lists")
    listed = values.tolist()
    gaps = [place for place, value in enumerate(listed) if is_missing(value)]
    if len(gaps) > 1:
        raise step.refuse("None and NaN are two categories, and a row has one missing value")
    if gaps:
        # The source sees the missing value that it was fitted on.
        for block in x.select([column]).blocks:
            if isinstance(block, NumberBlock):
                block.inputs.columns[int(block.indices[0])].null = listed[gaps[0]]
    codes = [place for place in range(len(listed)) if place not in gaps]
    return FittedCategories(
        [to_category(listed[place]) for place in codes],
        np.array(codes, np.int64),
        gaps[0] if gaps else None,
        len(listed),
        bool(gaps) and listed[gaps[0]] is None,
    )


def _read(x: SymbolicMatrix, column: int, fitted: FittedCategories, *, refuses: bool) -> CategoryReading:
    """Return how a column is one of the fitted categories; `refuses` is for unknown ones."""
    return read_category(
        x.select([column]).blocks[0],
        fitted.values,
        refuses_unknown=refuses,
        refuses_missing=refuses and fitted.missing is None,
    )


def one_hot_encoder(step: Step, x: SymbolicMatrix) -> SymbolicMatrix:
    """Return a column for each category, as `OneHotEncoder` does with dropped, infrequent and unknown ones."""
    unknown = step.choice("handle_unknown", "error", "error", "ignore", "infrequent_if_exist", "warn")
    dropped = _dropped_columns(step, x.width)
    blocks = []
    for column, fitted in enumerate(_fitted_categories(step, x)):
        groups, width, infrequent = _group(step, column, fitted)
        # Of the listed categories, of another one and of a missing one.
        other = infrequent if infrequent is not None and unknown in {"infrequent_if_exist", "warn"} else NO_COLUMN
        missing = other if fitted.missing is None else int(groups[fitted.missing])
        columns = np.array([*groups[fitted.codes].tolist(), other, missing])
        drop = dropped[column]
        if drop is not None:
            columns = np.where(columns == drop, NO_COLUMN, columns - (columns > drop))
            width -= 1
        reading = _read(x, column, fitted, refuses=unknown == "error")
        blocks.append(OneHotBlock.of_columns(reading, columns, width))
    return SymbolicMatrix(tuple(blocks))


def _group(step: Step, column: int, fitted: FittedCategories) -> tuple[Integers, int, int | None]:
    """Return the group of each fitted category, the number of groups, and the group of infrequent ones if any.

    Infrequent categories share the last group.
    """
    every: Integers = np.arange(fitted.size)
    indices = step.get("_infrequent_indices")
    infrequent = indices[column] if isinstance(indices, list | tuple) and column < len(indices) else None
    if infrequent is None:
        return every, fitted.size, None
    rare = step.as_numbers(infrequent, "_infrequent_indices", None).astype(np.int64)
    if not rare.size or rare.min() < 0 or rare.max() >= fitted.size:
        raise step.refuse("its infrequent categories are not in its list")
    is_rare = np.isin(every, rare)
    frequent = int((~is_rare).sum())
    groups = np.where(is_rare, frequent, np.cumsum(~is_rare) - 1)
    return groups, frequent + 1, frequent


def _dropped_columns(step: Step, n: int) -> Sequence[int | None]:
    """Return the group that is dropped of each column, or None."""
    name = "_drop_idx_after_grouping" if step.has("_drop_idx_after_grouping") else "drop_idx_"
    if not step.has(name):
        return [None] * n
    dropped = [None if drop is None else int(drop) for drop in step.listed(name)]
    if len(dropped) != n:
        raise step.refuse("it was fitted on another number of columns")
    return dropped


def ordinal_encoder(step: Step, x: SymbolicMatrix) -> SymbolicMatrix:
    """Return the number of each category, as `OrdinalEncoder` does with infrequent, unknown and missing ones."""
    refuses = step.choice("handle_unknown", "error", "error", "use_encoded_value") == "error"
    unknown = np.nan if refuses else _float(step, "unknown_value")
    gap = _float(step, "encoded_missing_value")
    blocks = []
    for column, fitted in enumerate(_fitted_categories(step, x)):
        codes = _ordinal_codes(step, column, fitted)
        missing = unknown
        if fitted.missing is not None:
            # NaN has a number of its own, and None is a category like others.
            missing = codes[fitted.missing] if fitted.has_none else gap
        table = np.array([*(codes[code] for code in fitted.codes), unknown, missing], np.float64)
        blocks.append(TableBlock.of_table(_read(x, column, fitted, refuses=refuses), table[:, None]))
    return SymbolicMatrix(tuple(blocks))


def _ordinal_codes(step: Step, column: int, fitted: FittedCategories) -> list[float]:
    """Return the number of each category of the list; NaN, the last one, has no part in the groups."""
    if fitted.missing is None or fitted.has_none:
        return list(map(float, _group(step, column, fitted)[0]))
    if fitted.missing != fitted.size - 1:
        raise step.refuse("a missing category must be the last one")
    groups = _group(step, column, fitted._replace(size=fitted.size - 1))[0]
    return [*map(float, groups), np.nan]


def target_encoder(step: Step, x: SymbolicMatrix) -> SymbolicMatrix:
    """Return the mean of the target for each category, as `TargetEncoder` does; with classes one column for each."""
    encodings = step.listed("encodings_")
    classes = len(step.listed("classes_")) if step.get("target_type_") == "multiclass" else 1
    if len(encodings) != x.width * classes:
        raise step.refuse("it was fitted on another number of columns")
    means = np.atleast_1d(np.asarray(step.need("target_mean_"), np.float64))
    if means.shape != (classes,) or not np.isfinite(means).all():
        raise step.refuse("its means of the target do not fit its classes")
    blocks = []
    for column, fitted in enumerate(_fitted_categories(step, x)):
        own = encodings[column * classes : (column + 1) * classes]
        table = np.stack([step.as_numbers(one, "encodings_", fitted.size) for one in own], axis=1)
        missing = means if fitted.missing is None else table[fitted.missing]
        reading = _read(x, column, fitted, refuses=False)
        blocks.append(TableBlock.of_table(reading, np.vstack([table[fitted.codes], means, missing])))
    return SymbolicMatrix(tuple(blocks))


def _float(step: Step, name: str) -> float:
    value = step.get(name, np.nan)
    if isinstance(value, bool) or not isinstance(value, int | float | np.number):
        raise step.refuse(f'its option "{name}" is not a number')
    return float(value)
