"""Frames of pandas and polars as columns of Python values, with None for each missing one.

json_text.py would replace NaN too, but it looks at every value of a request, and a frame at the columns with gaps.
"""

from __future__ import annotations

from typing import Any

from softstep_client.errors import InputError

Columns = dict[str, list[Any]]

NAMES = "The columns of a frame must have names that are texts, each once."


def pandas_columns(frame: Any) -> Columns | None:  # noqa: ANN401 - of a library that need not be installed
    """Return the columns of a pandas DataFrame, or None if they are numbered from 0, as pandas does without names.

    Raises:
        InputError: The columns have other names than texts, or a name occurs twice.
    """
    names = list(frame.columns)
    if names == list(range(len(names))):
        return None
    _check_names(names)
    return {str(name): _pandas_values(frame.iloc[:, at]) for at, name in enumerate(names)}


def pandas_rows(frame: Any) -> list[list[Any]]:  # noqa: ANN401 - as above
    """Return the rows of a pandas DataFrame without names, each a list of values."""
    columns = [_pandas_values(frame.iloc[:, at]) for at in range(frame.shape[1])]
    return [list(row) for row in zip(*columns, strict=True)]


def polars_columns(frame: Any) -> Columns:  # noqa: ANN401 - as above
    """Return the columns of a polars DataFrame."""
    return {name: _polars_values(frame.get_column(name)) for name in frame.columns}


def _check_names(names: list[Any]) -> None:
    if not all(isinstance(name, str) for name in names) or len(set(names)) != len(names):
        raise InputError(NAMES)


def _pandas_values(column: Any) -> list[Any]:  # noqa: ANN401 - as above
    values: list[Any] = column.tolist()
    missing = column.isna()
    if not missing.any():
        return values
    return [None if is_missing else value for value, is_missing in zip(values, missing.tolist(), strict=True)]


def _polars_values(column: Any) -> list[Any]:  # noqa: ANN401 - as above
    # NaN of polars is a number; here it is missing, as in pandas.
    values: list[Any] = (column.fill_nan(None) if column.dtype.is_float() else column).to_list()
    return values
