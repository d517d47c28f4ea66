"""Recognize values of NumPy, pandas and polars without importing them; none of them need be installed."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


def library_of(value: object) -> str:
    """Return the package of a value's type, such as "numpy"."""
    return type(value).__module__.partition(".")[0]


def has_class(value: object, libraries: Iterable[str], name: str) -> bool:
    """Return whether a value is an instance of a class of one of these packages, or of a class derived from it."""
    return any(kind.__name__ == name and kind.__module__.partition(".")[0] in libraries for kind in type(value).__mro__)
