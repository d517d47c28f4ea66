"""The fields of a row: how each value that an application has becomes columns of the model.

`fields` of a manifest is a list of these records. Each field owns a block of columns, in the order of the list:

    kind      a value                            its columns
    number    number                             (x - mean) / scale, cut to [-clip, clip]; missing
    boolean   true, false                        one, which is 1 for true; missing
    category  text, whole number, boolean        one for each of `values`, or 2**bits hashed ones; other; missing
    text      text                               one for each of `terms`, or 2**bits hashed ones; missing
    bag       object of names and numbers,       one for each of `terms`, or 2**bits hashed ones; other; missing
              or list of names
    vector    list of `size` numbers             (x - mean) / scale of each, cut to [-clip, clip]; missing
    cross     none: it is made of the entries    2**bits hashed ones
              of two or three fields above it

The column `other` exists with `"unknown": "other"`. The column `missing` exists with `"missing": "column"` or
`"flag": true`, and is 1 where the value is missing.

A field reads the value of its own name, or of `source`. A value is missing if it is null or NaN, or if its name is
absent. `missing` is then one of

    "mean"          the mean, which is 0 after scaling: the default of a number, and of numbers alone
    "none"          no entry, so that every column is 0: the default of the other kinds
    "column"        no entry but 1 in the column `missing`
    "refuse"        the row is refused
    {"value": x}    x stands for the missing value; not for a bag or a vector

`unknown` is for a category or a name that is not in the list: "none" (no entry, the default), "other" (an entry in the
column `other`), or "refuse". Hashed columns know every value.
"""

from typing import Annotated, Final, Literal

from pydantic import AfterValidator, Field, FiniteFloat, Tag, model_validator

from service.fields.field_types import (
    BY_JSON_TYPE,
    LIST_MAX,
    Bits,
    ColumnField,
    Factors,
    HashedField,
    Hashing,
    Missing,
    PositiveFactors,
    Seed,
    Sizes,
    TensorSpec,
    Unknown,
    ValueField,
    check_list_length,
    check_listed_or_hashed,
)
from service.fields.text_records import BagField, TextField
from service.record import NAME_CHARACTERS_MAX, ROWS_MAX, Name, Positive, Record

# An embedding has some thousand numbers.
VECTOR_SIZE_MAX: Final = 65_536


class MissingNumber(Record):
    """The number that stands for a missing one."""

    value: FiniteFloat


class NumberField(ValueField):
    """A number, scaled in float64: (x - mean) / scale, then cut to [-clip, clip].

    Attributes:
        mean: The number that is subtracted.
        scale: The positive number by which the difference is divided.
        clip: The limit of the cut, or None for no cut.
        flag: Whether there is a column `missing` too, where "mean" or a value stands for the missing one.
        missing: "mean", "none", "column", "refuse", or the number that stands for a missing one, before it is scaled.
    """

    kind: Literal["number"]
    mean: FiniteFloat = 0.0
    scale: Positive = 1.0
    clip: Positive | None = None
    flag: bool = False
    missing: Annotated[
        Annotated[Literal["mean", "none", "column", "refuse"], Tag("text")] | Annotated[MissingNumber, Tag("object")],
        BY_JSON_TYPE,
    ] = "mean"

    @property
    def has_missing(self) -> bool:
        """Whether the last column is `missing`."""
        return self.flag or self.missing == "column"

    def count_values(self, sizes: Sizes) -> int:  # noqa: ARG002  # other kinds need it
        """Return the number of columns without `other` and `missing`."""
        return 1

    @model_validator(mode="after")
    def _flag_is_useful(self) -> "NumberField":
        if self.flag and self.missing == "refuse":
            raise ValueError("flag is for numbers that may be missing, and missing refuses them")
        return self


class MissingBoolean(Record):
    """The boolean that stands for a missing one."""

    value: bool


class BooleanField(ValueField):
    """A boolean: 1 for true, and no entry for false.

    Attributes:
        missing: "none", "column", "refuse", or the boolean that stands for a missing one.
    """

    kind: Literal["boolean"]
    missing: Annotated[Annotated[Missing, Tag("text")] | Annotated[MissingBoolean, Tag("object")], BY_JSON_TYPE] = (
        "none"
    )

    def count_values(self, sizes: Sizes) -> int:  # noqa: ARG002  # other kinds need it
        """Return the number of columns without `other` and `missing`."""
        return 1


Category = Annotated[
    Annotated[str, Field(max_length=NAME_CHARACTERS_MAX), Tag("text")]
    | Annotated[bool, Tag("boolean")]
    | Annotated[int, Field(ge=-ROWS_MAX, le=ROWS_MAX), Tag("number")],
    BY_JSON_TYPE,
]


def _distinct(categories: tuple[Category, ...]) -> tuple[Category, ...]:
    if len({(type(category), category) for category in categories}) < len(categories):
        raise ValueError("the values must differ from each other")
    return categories


Categories = Annotated[
    tuple[Category, ...], Field(min_length=1, max_length=LIST_MAX, fail_fast=True), AfterValidator(_distinct)
]


class MissingCategory(Record):
    """The category that stands for a missing one."""

    value: Category


class CategoryField(HashedField):
    """A category: a text, a whole number or a boolean. A text never equals a number, and true is not 1.

    The number 1.0 is the category 1. A text is hashed as its UTF-8. A whole number or a boolean is hashed as its JSON
    after the byte 0xFF, with which no text begins.

    Attributes:
        values: The categories, one column each; None if they are hashed.
        unknown: "none", "other" or "refuse".
        missing: "none", "column", "refuse", or the category that stands for a missing one.
    """

    kind: Literal["category"]
    values: Categories | None = None
    unknown: Unknown = "none"
    missing: Annotated[Annotated[Missing, Tag("text")] | Annotated[MissingCategory, Tag("object")], BY_JSON_TYPE] = (
        "none"
    )

    def count_values(self, sizes: Sizes) -> int:  # noqa: ARG002  # other kinds need it
        """Return the number of columns without `other` and `missing`."""
        return len(self.values or ()) if self.bits is None else 1 << self.bits

    @model_validator(mode="after")
    def _columns_are_listed_or_hashed(self) -> "CategoryField":
        check_listed_or_hashed("values", self.values, self.bits, self.unknown)
        if self.values is not None and isinstance(self.missing, MissingCategory):
            value = self.missing.value
            if (type(value), value) not in {(type(one), one) for one in self.values}:
                raise ValueError("the value that stands for a missing one must be one of values")
        return self


class VectorField(ValueField):
    """A list of numbers, such as an embedding, scaled in float64 as a number is.

    Attributes:
        size: How many numbers it has.
        mean: A number for each column to subtract: a list, or the name of a tensor (size,) float64; None for 0.
        scale: A positive number for each column to divide by, likewise; None for 1.
        clip: The limit of the cut, or None for no cut.
        missing: "none", "column" or "refuse".
    """

    kind: Literal["vector"]
    size: Annotated[int, Field(ge=1, le=VECTOR_SIZE_MAX)]
    mean: Factors | None = None
    scale: PositiveFactors | None = None
    clip: Positive | None = None
    missing: Missing = "none"

    def tensor_specs(self, sizes: Sizes) -> dict[str, TensorSpec]:  # noqa: ARG002  # other kinds need it
        """Return what each tensor of the field must be, by name."""
        return {name: TensorSpec("float64", (self.size,)) for name in (self.mean, self.scale) if isinstance(name, str)}

    def count_values(self, sizes: Sizes) -> int:  # noqa: ARG002  # other kinds need it
        """Return the number of columns without `other` and `missing`."""
        return self.size

    @model_validator(mode="after")
    def _lists_fit(self) -> "VectorField":
        check_list_length("mean", self.mean, self.size)
        check_list_length("scale", self.scale, self.size)
        if isinstance(self.mean, str) and self.mean == self.scale:
            raise ValueError("mean and scale must be tensors of their own")
        return self


class CrossField(ColumnField):
    """Products of the entries of two or three fields, one entry of each, hashed.

    An entry is known by its column within its field, c_1, c_2 or c_3. The hash is MurmurHash3 x86-32 of these numbers,
    one after the other as little-endian int32.

    Attributes:
        fields: The names of the fields, which come before this one and are not crosses.
        bits: There are 2**bits columns.
        seed: The seed of the hash; 0 for "vw".
        signed: Whether a product changes its sign if the hash is negative.
        hashing: "vw" hashes as Vowpal Wabbit's interactions do: with the prime p = 16777619 and bitwise exclusive or,
            (p c_1) xor c_2 and (p ((p c_1) xor c_2)) xor c_3, modulo 2**bits.
    """

    kind: Literal["cross"]
    fields: Annotated[tuple[Name, ...], Field(min_length=2, max_length=3, fail_fast=True)]
    bits: Bits
    seed: Seed = 0
    signed: bool = False
    hashing: Hashing = "murmur3"

    @property
    def is_hashed(self) -> bool:
        """Whether a hash gives the columns, so that they have no names."""
        return True

    def count_values(self, sizes: Sizes) -> int:  # noqa: ARG002  # other kinds need it
        """Return the number of columns without `other` and `missing`."""
        return 1 << self.bits

    @model_validator(mode="after")
    def _hashing_fits(self) -> "CrossField":
        if len(set(self.fields)) < len(self.fields):
            raise ValueError("the fields of a cross must differ from each other")
        if self.hashing == "vw" and (self.seed or self.signed):
            raise ValueError("the hashing vw has neither seed nor signs")
        return self


FieldRecord = Annotated[
    NumberField | BooleanField | CategoryField | TextField | BagField | VectorField | CrossField,
    Field(discriminator="kind"),
]
