"""A part of a pipeline with its place, and the checked reading of its attributes."""

from dataclasses import dataclass
from typing import Final

import numpy as np

from service.convert.scikit.plain_object import PlainObject, PlainValue
from service.errors import ConversionError
from service.softmax.arrays import Doubles

# The kinds of NumPy's dtypes that are numbers: booleans, integers and floats.
NUMBER_KINDS: Final = "biuf"


@dataclass(frozen=True, eq=False)
class Step:
    """A part of a pipeline.

    Attributes:
        part: The part.
        place: Where it is, as errors name it.
    """

    part: PlainObject
    place: str

    @property
    def name(self) -> str:
        """The name of its class."""
        return self.part.name

    def child(self, part: PlainValue, name: str | None = None) -> "Step":
        """Return a part of this one.

        Args:
            part: The part as a plain value.
            name: Its name in this one, or None if it takes its place.

        Raises:
            ConversionError: It is no object.
        """
        place = self.place if name is None else f'{self.place}, step "{name}"' if self.place else f'step "{name}"'
        if not isinstance(part, PlainObject):
            raise ConversionError(f"{place or 'the model'}: {self.name} has a part that is no estimator.")
        return Step(part, place)

    def refuse(self, reason: str) -> ConversionError:
        """Return the error that names the part, its place and a reason."""
        return ConversionError(f"{self.place or 'the model'}: {self.name}: {reason}.")

    def has(self, name: str) -> bool:
        """Return whether an attribute is there and not None."""
        return self.part.state.get(name) is not None

    def get(self, name: str, default: PlainValue = None) -> PlainValue:
        """Return an attribute, or a default if the release that made the object has no such attribute."""
        return self.part.state.get(name, default)

    def need(self, name: str) -> PlainValue:
        """Return an attribute.

        Raises:
            ConversionError: It is missing, because the object is not fitted.
        """
        if name not in self.part.state:
            raise self.refuse(f'it has no "{name}", so it is not fitted')
        return self.part.state[name]

    def choice(self, name: str, default: str, *accepted: str) -> str:
        """Return an option, which is one of some texts.

        Raises:
            ConversionError: It is another value.
        """
        value = self.get(name, default)
        if not isinstance(value, str) or value not in accepted:
            raise self.refuse(f'its option "{name}" is not supported with this value')
        return value

    def flag(self, name: str, *, default: bool) -> bool:
        """Return an option that is true or false."""
        value = self.get(name, default)
        if not isinstance(value, bool | np.bool_):
            raise self.refuse(f'its option "{name}" must be true or false')
        return bool(value)

    def count(self, name: str) -> int:
        """Return an attribute that is a number of columns or rows, from 0."""
        value = self.need(name)
        if isinstance(value, np.generic):
            value = value.item()
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise self.refuse(f'its attribute "{name}" is not a count')
        return value

    def listed(self, name: str) -> list[PlainValue]:
        """Return an attribute that is a list, a tuple or an array of one dimension."""
        value = self.need(name)
        if isinstance(value, np.ndarray) and value.ndim == 1:
            return list(value)
        if not isinstance(value, list | tuple):
            raise self.refuse(f'its attribute "{name}" is not a list')
        return list(value)

    def numbers(self, name: str, *shape: int | None) -> Doubles:
        """Return an attribute as finite float64 numbers.

        Args:
            name: The name of the attribute.
            shape: Its shape; None for a size that it defines itself.

        Raises:
            ConversionError: It has another shape, or a number is not finite.
        """
        return self.as_numbers(self.need(name), name, *shape)

    def as_numbers(self, value: PlainValue, name: str, *shape: int | None) -> Doubles:
        """Return a value as finite float64 numbers; `numbers` says how."""
        if not isinstance(value, np.ndarray) or value.dtype.kind not in NUMBER_KINDS:
            raise self.refuse(f'its attribute "{name}" is not an array of numbers')
        if value.ndim != len(shape) or any(
            needed not in {None, given} for needed, given in zip(shape, value.shape, strict=True)
        ):
            raise self.refuse(f'its attribute "{name}" has a shape that does not fit its input')
        numbers = value.astype(np.float64)
        if not np.isfinite(numbers).all():
            raise self.refuse(f'its attribute "{name}" has a number that is not finite')
        return numbers
