"""Types that several kinds of fields share: limits, lists, tensors, and columns that may be hashed."""

from abc import abstractmethod
from collections.abc import Mapping
from typing import Annotated, Final, Literal, NamedTuple

from pydantic import AfterValidator, Discriminator, Field, Tag, model_validator

from service.record import Finites, Name, Names, Positives, Record

# The longest list in a manifest, which has at most 16 MiB; longer ones are tensors.
LIST_MAX: Final = 65_536
# More columns than any limit allows; column numbers are int32.
BITS_MAX: Final = 30
# N-grams of more words or characters hardly occur twice.
NGRAM_MAX: Final = 16
# Seeds are uint32, as in the definition of MurmurHash3.
SEED_MAX: Final = 2**32 - 1

Sizes = Mapping[str, tuple[int, ...]]
"""The shapes of tensors by their names."""


def _json_type(value: object) -> str:
    """Return the JSON type of a value, which chooses the alternative of a union that an error is about."""
    if isinstance(value, dict | Record):
        return "object"
    if isinstance(value, str):
        return "text"
    if isinstance(value, bool):
        return "boolean"
    return "number" if isinstance(value, int | float) else "list"


BY_JSON_TYPE: Final = Discriminator(
    _json_type, custom_error_type="wrong_type", custom_error_message="Input should be of another type"
)


def _ascending(lengths: tuple[int, int]) -> tuple[int, int]:
    if lengths[0] > lengths[1]:
        raise ValueError("the shortest length comes first")
    return lengths


TermList = Annotated[Names, Field(max_length=LIST_MAX)]
NumberList = Annotated[Finites, Field(max_length=LIST_MAX)]
PositiveList = Annotated[Positives, Field(max_length=LIST_MAX)]
NgramLength = Annotated[int, Field(ge=1, le=NGRAM_MAX)]
NgramLengths = Annotated[tuple[NgramLength, NgramLength], AfterValidator(_ascending)]
Bits = Annotated[int, Field(ge=1, le=BITS_MAX)]
Seed = Annotated[int, Field(ge=0, le=SEED_MAX)]
Hashing = Literal["murmur3", "vw"]
Factors = Annotated[Annotated[NumberList, Tag("list")] | Annotated[Name, Tag("text")], BY_JSON_TYPE]
PositiveFactors = Annotated[Annotated[PositiveList, Tag("list")] | Annotated[Name, Tag("text")], BY_JSON_TYPE]
Norm = Literal["none", "l1", "l2"]
Unknown = Literal["none", "other", "refuse"]
Missing = Literal["none", "column", "refuse"]


class TensorSpec(NamedTuple):
    """The dtype and shape that a tensor must have; a size that the tensor itself defines is None."""

    dtype: Literal["float64", "int64", "uint8"]
    shape: tuple[int | None, ...]


class TermTensors(Record):
    """Terms as two tensors.

    Attributes:
        bytes: Name of the tensor of their UTF-8, one term after the other, uint8.
        ends: Name of the tensor (T,) of the end of each term in bytes, int64.
    """

    bytes: Name
    ends: Name

    @property
    def specs(self) -> dict[str, TensorSpec]:
        """The dtypes and shapes of both tensors, by name."""
        return {self.bytes: TensorSpec("uint8", (None,)), self.ends: TensorSpec("int64", (None,))}

    @model_validator(mode="after")
    def _tensors_differ(self) -> "TermTensors":
        if self.bytes == self.ends:
            raise ValueError("bytes and ends must be tensors of their own")
        return self


class ColumnField(Record):
    """The part that all fields have.

    Attributes:
        name: The name of the field, in explanations and counters; in a row too, unless the field has a source.
    """

    name: Name

    @property
    def is_hashed(self) -> bool:
        """Whether a hash gives the columns, so that they have no names."""
        return False

    def tensor_specs(self, sizes: Sizes) -> dict[str, TensorSpec]:  # noqa: ARG002  # other kinds need it
        """Return what each tensor of the field must be, by name.

        Args:
            sizes: The shapes of tensors that are known; more of them make more sizes known.
        """
        return {}

    @property
    def has_other(self) -> bool:
        """Whether the columns of the values are followed by the column `other`."""
        return getattr(self, "unknown", None) == "other"

    @property
    def has_missing(self) -> bool:
        """Whether the last column is `missing`."""
        return getattr(self, "missing", None) == "column"

    @abstractmethod
    def count_values(self, sizes: Sizes) -> int:
        """Return the number of columns without `other` and `missing`, by arithmetic alone.

        Args:
            sizes: The shapes of the field's tensors.
        """

    def count_columns(self, sizes: Sizes) -> int:
        """Return the number of columns, by arithmetic alone.

        Args:
            sizes: The shapes of the field's tensors.
        """
        return self.count_values(sizes) + self.has_other + self.has_missing


class ValueField(ColumnField):
    """A field that reads a value of a row.

    Attributes:
        source: The name of the value in the row, if it is not that of the field.
    """

    source: Name | None = None

    @property
    def value_name(self) -> str:
        """The name of the value in a row, which several fields may read."""
        return self.name if self.source is None else self.source


class HashedField(ValueField):
    """A field whose columns may be hashed.

    The hash of a name is MurmurHash3 x86-32 of its UTF-8, an int32. Its column is the absolute value modulo 2**bits, as
    in scikit-learn's `FeatureHasher` (A. Appleby, MurmurHash3, 2011; Weinberger et al., ICML 2009).

    Attributes:
        bits: There are 2**bits hashed columns; None if the columns are listed.
        seed: The seed of the hash.
        signed: Whether an entry changes its sign if the hash is negative, scikit-learn's `alternate_sign`.
    """

    bits: Bits | None = None
    seed: Seed = 0
    signed: bool = False

    @property
    def is_hashed(self) -> bool:
        """Whether a hash gives the columns, so that they have no names."""
        return self.bits is not None

    @model_validator(mode="after")
    def _hash_has_columns(self) -> "HashedField":
        if self.bits is None and (self.seed or self.signed):
            raise ValueError("seed and signed are for hashed columns, and bits gives their number")
        return self


class TermField(HashedField):
    """A field whose columns are terms, or hashed.

    Attributes:
        terms: The terms, one column each: a list, or the names of two tensors; None if the columns are hashed.
    """

    terms: Annotated[Annotated[TermList, Tag("list")] | Annotated[TermTensors, Tag("object")], BY_JSON_TYPE] | None = (
        None
    )

    def tensor_specs(self, sizes: Sizes) -> dict[str, TensorSpec]:  # noqa: ARG002  # other kinds need it
        """Return what each tensor of the field must be, by name."""
        return self.terms.specs if isinstance(self.terms, TermTensors) else {}

    def count_terms(self, sizes: Sizes) -> int | None:
        """Return the number of columns for terms, or None if it is not known without the tensors."""
        if self.bits is not None:
            return 1 << self.bits
        if isinstance(self.terms, TermTensors):
            return sizes[self.terms.ends][0] if self.terms.ends in sizes else None
        return len(self.terms or ())

    def count_values(self, sizes: Sizes) -> int:
        """Return the number of columns without `other` and `missing`, by arithmetic alone."""
        return self.count_terms(sizes) or 0

    @model_validator(mode="after")
    def _columns_are_listed_or_hashed(self) -> "TermField":
        check_listed_or_hashed("terms", self.terms, self.bits)
        return self


def check_listed_or_hashed(name: str, listed: object, bits: int | None, unknown: Unknown = "none") -> None:
    """Raise ValueError unless the columns of a field are either listed or hashed, and `unknown` fits."""
    if (listed is None) == (bits is None):
        raise ValueError(f"the field has either {name} or bits")
    if bits is not None and unknown != "none":
        raise ValueError(f"unknown is for fields with {name}, because hashed columns know every value")


def check_list_length(name: str, numbers: object, count: int | None) -> None:
    """Raise ValueError unless a list has one number for each column; tensors are checked when they are read."""
    if isinstance(numbers, tuple) and count is not None and len(numbers) != count:
        raise ValueError(f"{name} must hold one number for each of the {count} columns")
