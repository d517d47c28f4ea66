"""Checks of tables that rows of numbers (table_rows.py) and rows of fields (field_tables.py) share."""

from collections.abc import Sequence
from typing import Any, Final

from service.errors import UnacceptableError
from service.serve.wire.json_grammar import check_row_count, known_fields, list_names

SPLIT_FIELDS: Final = ("columns", "data", "index")


def check_rows(rows: object, field: str, rows_max: int) -> list[Any]:
    """Return the rows of a member, whose name is `field`.

    Raises:
        UnacceptableError: They are not a list of at least one row.
        TooLargeError: There are more rows than the limit.
    """
    if type(rows) is not list or not rows:
        raise UnacceptableError(f'"{field}" must be a list of at least one row.')
    check_row_count(len(rows), rows_max)
    return rows


def read_split(frame: object, field: str) -> dict[str, Any]:
    """Return the members of a table with the names of its columns and its rows; `field` is the name of the table's.

    Raises:
        UnacceptableError: It is no object, or has other members.
    """
    if type(frame) is not dict:
        raise UnacceptableError(f'"{field}" must be an object with "columns" and "data".')
    return known_fields(frame, SPLIT_FIELDS)


def check_repeated(names: Sequence[str], what: str = "a column") -> None:
    """Raise UnacceptableError if a name of a table or of a request occurs twice."""
    if len(set(names)) < len(names):
        repeated = [name for i, name in enumerate(names) if name in names[:i]]
        raise UnacceptableError(f"The body has {what} twice{list_names(repeated)}.")
