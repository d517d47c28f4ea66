"""The wording of refusals: one sentence that names the row and the field, and never the value."""

import json
from collections.abc import Sequence

from service.errors import UnacceptableError
from service.field_errors import FieldValueError


def quote(name: str) -> str:
    """Return the name of a field in quotes."""
    return json.dumps(name, ensure_ascii=False)


def join_kinds(kinds: Sequence[str]) -> str:
    """Return kinds of values as a sentence lists them: "a text, a whole number or null"."""
    return " or ".join(filter(None, [", ".join(kinds[:-1]), kinds[-1]]))


def refuse_value(
    row: int, name: str, problem: str, error: type[UnacceptableError] = FieldValueError
) -> UnacceptableError:
    """Return the error of a value; `problem` completes the sentence that begins with its row and field."""
    return error(f"Row {row}: {quote(name)} {problem}.")
