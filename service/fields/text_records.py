"""The fields of texts and of bags of names."""

from typing import Annotated, Final, Literal

from pydantic import Field, Tag, model_validator

from service.fields.field_types import (
    BY_JSON_TYPE,
    LIST_MAX,
    Factors,
    Hashing,
    Missing,
    NgramLengths,
    Norm,
    Sizes,
    TensorSpec,
    TermField,
    TermList,
    TermTensors,
    Unknown,
    check_list_length,
    check_listed_or_hashed,
)
from service.record import Record

# A regular expression in a file would be code, so the patterns have names; they are those of scikit-learn's users.
WORD_PATTERNS: Final = {"long_words": r"\b\w\w+\b", "words": r"\b\w+\b", "whitespace": r"\S+"}


class MissingText(Record):
    """The text that stands for a missing one."""

    value: Annotated[str, Field(max_length=LIST_MAX)]


class TextField(TermField):
    """A text: its n-grams of words or characters, as in scikit-learn's `TfidfVectorizer`.

    The text is lower-cased, its accents are removed, and it is split. N-grams of one column are added. Then come
    `counts`, `idf` and `norm`, in this order.

    Attributes:
        words: The shortest and the longest n-gram of words; or None.
        chars: The shortest and the longest n-gram of characters; or None. Two or more white spaces count as one space.
        within_words: Whether n-grams of characters are within words, each with a space around it (`char_wb`).
        lowercase: Whether the text is lower-cased first.
        accents: "strip" removes accents and other marks (Unicode's NFKD without combining characters).
        word_pattern: What counts as a word: "long_words" of at least two letters, digits or underscores; "words" of at
            least one; or "whitespace", all between white spaces.
        stop_words: Words that are left out, before n-grams are made.
        counts: "count", how often an n-gram occurs; "presence", 1; or "log", 1 + ln(count).
        idf: A factor for each column: a list, or the name of a tensor (columns,) float64.
        norm: "l2" divides by the root of the sum of squares, "l1" by the sum of absolute values.
        missing: "none", "column", "refuse", or the text that stands for a missing one.
    """

    kind: Literal["text"]
    words: NgramLengths | None = None
    chars: NgramLengths | None = None
    within_words: bool = False
    lowercase: bool = True
    accents: Literal["keep", "strip"] = "keep"
    word_pattern: Literal["long_words", "words", "whitespace"] = "long_words"
    stop_words: TermList | tuple[()] = ()
    counts: Literal["count", "presence", "log"] = "count"
    idf: Factors | None = None
    norm: Norm = "none"
    missing: Annotated[Annotated[Missing, Tag("text")] | Annotated[MissingText, Tag("object")], BY_JSON_TYPE] = "none"

    def tensor_specs(self, sizes: Sizes) -> dict[str, TensorSpec]:
        """Return what each tensor of the field must be, by name."""
        specs = super().tensor_specs(sizes)
        return (
            specs | {self.idf: TensorSpec("float64", (self.count_terms(sizes),))}
            if isinstance(self.idf, str)
            else specs
        )

    @model_validator(mode="after")
    def _options_agree(self) -> "TextField":
        if (self.words is None) == (self.chars is None):
            raise ValueError("a text has n-grams of either words or chars")
        if self.words is None and (self.stop_words or self.word_pattern != "long_words"):
            raise ValueError("stop_words and word_pattern are for n-grams of words")
        if self.chars is None and self.within_words:
            raise ValueError("within_words is for n-grams of chars")
        if self.counts == "log" and self.signed:
            raise ValueError("counts of signed hashes may be negative, and have no logarithm")
        if isinstance(self.terms, TermTensors) and self.idf in self.terms.specs:
            raise ValueError("idf must be a tensor of its own")
        check_list_length("idf", self.idf, self.count_terms({}))
        return self


class BagField(TermField):
    """A bag of names: an object of names and numbers, or a list of names, which count 1 each. Equal names are added.

    Attributes:
        hashing: "vw" hashes as Vowpal Wabbit does: a name of digits is the number itself plus the seed, and a hash is
            taken as a uint32. The seed is the hash of the namespace, which is 0 for the default one.
        norm: "l2" divides by the root of the sum of squares, "l1" by the sum of absolute values.
        unknown: Names that are no term: "none", "other", a column of their sum, or "refuse".
        missing: "none", "column" or "refuse".
    """

    kind: Literal["bag"]
    hashing: Hashing = "murmur3"
    norm: Norm = "none"
    unknown: Unknown = "none"
    missing: Missing = "none"

    @model_validator(mode="after")
    def _hashing_fits(self) -> "BagField":
        check_listed_or_hashed("terms", self.terms, self.bits, self.unknown)
        if self.hashing == "vw" and (self.bits is None or self.signed):
            raise ValueError("the hashing vw needs bits, and has no signs")
        return self
