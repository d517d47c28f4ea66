"""A part of a pipeline as data: the name of its class and its attributes."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

PlainValue = Any
"""A number, a text, an array, None, a slice, bytes, a `PlainObject`, or a list, tuple or dict of such."""

# Values that are data already.
PLAIN_TYPES: Final = (type(None), bool, int, float, str, np.generic, np.ndarray, slice, bytes)


@dataclass(frozen=True, eq=False)
class PlainObject:
    """A part of a pipeline.

    Attributes:
        package: The first part of its module, such as "sklearn".
        name: The name of its class.
        state: Its attributes by name, as plain values.
        support: Returns which columns a selector keeps, (N,) bool, if the object itself can tell; or None.
    """

    package: str
    name: str
    state: Mapping[str, PlainValue]
    support: Callable[[], NDArray[np.bool_]] | None = None


class ObjectState(Mapping[str, PlainValue]):
    """The attributes of an object in memory, each converted when it is read."""

    def __init__(self, attributes: Mapping[str, object]) -> None:
        self._attributes: Final = attributes

    def __getitem__(self, name: str) -> PlainValue:
        """Return an attribute as a plain value."""
        return plain_value(self._attributes[name])

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names."""
        return iter(self._attributes)

    def __len__(self) -> int:
        """Return the number of attributes."""
        return len(self._attributes)


def plain_value(value: object) -> PlainValue:
    """Return data as it is, containers of plain values, and anything else as a `PlainObject`."""
    if isinstance(value, (*PLAIN_TYPES, PlainObject)):
        return value
    if isinstance(value, Mapping):
        return {key: plain_value(one) for key, one in value.items()}
    if isinstance(value, tuple):
        return tuple(map(plain_value, value))
    if isinstance(value, Sequence | set | frozenset):
        return list(map(plain_value, value))
    return plain_object(value)


def plain_object(value: object) -> PlainObject:
    """Return an object in memory as data; a class or a function has its name and no attributes."""
    named = value if hasattr(value, "__qualname__") else type(value)
    package = (getattr(named, "__module__", None) or "").partition(".")[0]
    attributes = {} if named is value else getattr(value, "__dict__", {})
    support = None if named is value else getattr(value, "get_support", None)
    return PlainObject(package, str(getattr(named, "__qualname__", "")), ObjectState(attributes), support)
