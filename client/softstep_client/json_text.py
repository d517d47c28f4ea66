"""Bodies as JSON: a missing value of any library becomes null, and what JSON has no form for is refused by its type.

NaN counts as missing, as in a table of pandas. Infinity is refused.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from softstep_client.errors import InputError
from softstep_client.libraries import has_class, library_of

# Singletons of pandas for a missing value.
MISSING_TYPES = frozenset(("NAType", "NaTType"))
INFINITE = "A number of the rows is infinite; a missing value is None or NaN."


def encode_json(document: object) -> bytes:
    """Return a document as JSON in UTF-8.

    Raises:
        InputError: A value has no form in JSON.
    """
    try:
        return _encode_or_replace_nan(document).encode()
    except InputError:
        raise
    except UnicodeEncodeError:
        raise InputError("A text of the rows has half a surrogate pair, which is not valid Unicode.") from None
    except RecursionError:
        raise InputError("The rows are nested too deeply, or contain themselves.") from None
    except (TypeError, ValueError):  # a key of another type
        raise InputError("The names of a row must be texts.") from None


def _encode_or_replace_nan(document: object) -> str:
    try:
        return _encode(document)
    except ValueError:  # NaN or infinity: they are rare, so that they are looked for only now
        return _encode(_without_nan(document))


def _as_json(value: object) -> object:
    """Return a value that the encoder does not know as one that it knows."""
    library = library_of(value)
    if library == "numpy" and hasattr(value, "tolist"):
        return value.tolist()
    if library == "pandas" and type(value).__name__ in MISSING_TYPES:
        return None
    if has_class(value, ("pandas", "polars"), "Series"):
        return value.to_list()  # type: ignore[attr-defined]
    if isinstance(value, Mapping):
        return dict(value)
    raise InputError(f"A value of type {type(value).__name__} has no form in JSON; send a number, text, list or None.")


def _without_nan(value: Any) -> Any:  # noqa: ANN401 - any JSON document
    """Return a copy of a document with None in place of NaN; raise InputError for infinity."""
    if isinstance(value, float):
        if math.isinf(value):
            raise InputError(INFINITE)
        return None if math.isnan(value) else value
    if isinstance(value, dict):
        return {name: _without_nan(part) for name, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_nan(part) for part in value]
    if value is None or isinstance(value, (str, int)):
        return value
    return _without_nan(_as_json(value))


# An encoder without state; `json.dumps` would make one for each call.
_encode = json.JSONEncoder(
    ensure_ascii=False, allow_nan=False, check_circular=False, separators=(",", ":"), default=_as_json
).encode
