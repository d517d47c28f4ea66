"""Imputers and indicators of scikit-learn: what stands for missing values."""

from itertools import groupby
from typing import Final

import numpy as np

from service.convert.columns.category_reading import is_missing, to_category
from service.convert.columns.symbolic_blocks import CategoryBlock, NumberBlock
from service.convert.columns.symbolic_matrix import SymbolicMatrix
from service.convert.scikit.plain_object import PlainValue
from service.convert.scikit.step import Step

# Statistics that are no numbers.
CATEGORIES: Final = (str, bool, np.bool_)


def simple_imputer(step: Step, x: SymbolicMatrix) -> SymbolicMatrix:
    """Return the matrix with statistics in place of missing values, then the columns that mark gaps."""
    _check_gap(step, x)
    statistics = step.listed("statistics_")
    if len(statistics) != x.width:
        raise step.refuse("it was fitted on another number of columns")
    kept = list(range(x.width))
    if not step.flag("keep_empty_features", default=False):
        kept = [column for column in kept if not is_missing(statistics[column])]
    # Runs of numbers and of texts, so that many columns of numbers stay one block.
    runs = [list(run) for _, run in groupby(kept, lambda column: isinstance(statistics[column], CATEGORIES))]
    filled = [_fill(step, x.select(run), [statistics[column] for column in run]) for run in runs]
    if step.has("indicator_"):
        filled.append(missing_indicator(step.child(step.need("indicator_")), x))
    return SymbolicMatrix.side_by_side(filled)


def _fill(step: Step, columns: SymbolicMatrix, statistics: list[PlainValue]) -> SymbolicMatrix:
    """Return columns with statistics in place of missing values, all numbers or all texts and booleans."""
    if not isinstance(statistics[0], CATEGORIES):
        if any(not isinstance(value, int | float | np.number) for value in statistics):
            raise step.refuse("what stands for a missing value is neither a number nor a text")
        return columns.fill_missing(np.array(statistics, np.float64))
    blocks = []
    for block, (start, end) in zip(columns.blocks, columns.bounds, strict=True):
        if not isinstance(block, NumberBlock) or not (block.is_plain & np.isnan(block.missing)).all():
            raise step.refuse("a text stands for a missing number")
        blocks.append(CategoryBlock(block.inputs, block.indices, tuple(map(to_category, statistics[start:end]))))
    return SymbolicMatrix(tuple(blocks))


def missing_indicator(step: Step, x: SymbolicMatrix) -> SymbolicMatrix:
    """Return the columns that mark gaps."""
    _check_gap(step, x)
    features = step.numbers("features_", None).astype(np.int64)
    if features.size and not (features.min() >= 0 and features.max() < x.width):
        raise step.refuse("it marks columns that its input does not have")
    return x.select(features).mark_missing()


def _check_gap(step: Step, x: SymbolicMatrix) -> None:
    """Note whether None or NaN is the missing value; another one would be a function that no field has."""
    gap = step.get("missing_values", np.nan)
    # pandas' own missing value becomes NaN in scikit-learn.
    if not is_missing(gap) and getattr(gap, "name", None) != "NAType":
        raise step.refuse('its option "missing_values" is a value of its own; use NaN for missing values')
    for block in x.blocks:
        if isinstance(block, NumberBlock):
            for index in block.indices.tolist():
                block.inputs.columns[index].null = None if gap is None else float("nan")
