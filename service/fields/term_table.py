"""The terms of a field: found by name in kernels, and read by number for explanations."""

from collections.abc import Mapping, Sequence
from typing import Any, Final, overload

import numpy as np
from numpy.typing import NDArray

from service.errors import ArtifactError
from service.fields.field_types import TermTensors
from service.fields.kernels.term_kernels import BUILT, REPEATED, build_term_table, find_terms
from service.fields.refusals import quote
from service.softmax.arrays import Integers

Text = NDArray[np.uint8]

# The two highest bits of a byte of UTF-8 that does not begin a character (RFC 3629).
CONTINUATION: Final = 0b1000_0000


def pack_names(names: Sequence[bytes]) -> tuple[Text, Integers, Integers]:
    """Return the bytes of names, one after the other, and where each begins and ends, (E,) int64."""
    sizes = np.fromiter(map(len, names), np.int64, len(names))
    stops = np.cumsum(sizes)
    return np.frombuffer(b"".join(names), np.uint8), stops - sizes, stops


def count_slots(n_terms: int) -> int:
    """Return the slots of a table of terms: a power of two, and at least two for each."""
    return 1 << max(0, 2 * n_terms - 1).bit_length()


class TermTable(Sequence[str]):
    """The terms of a text or a bag, as a sequence of texts.

    Args:
        name: The name of the field, for errors.
        terms: Its terms.
        tensors: The tensors of the artifact.

    Attributes:
        text: (bytes,) uint8, the UTF-8 of all terms, one after the other.
        ends: (T,) int64, where each term ends.
        slots: (S,) int32, the hash table of kernels/term_kernels.py.

    Raises:
        ArtifactError: The tensors are not distinct terms in UTF-8.
    """

    def __init__(self, name: str, terms: Sequence[str] | TermTensors, tensors: Mapping[str, NDArray[Any]]) -> None:
        if isinstance(terms, TermTensors):
            self.text: Text = np.ascontiguousarray(tensors[terms.bytes])
            self.ends: Integers = np.ascontiguousarray(tensors[terms.ends])
            self._check_bytes(name)
        else:
            self.text, _, self.ends = pack_names([term.encode() for term in terms])
        self.slots: Final = np.zeros(count_slots(len(self.ends)), np.int32)
        built = build_term_table(self.text, self.ends, self.slots)
        if built != BUILT:
            problem = "has a term twice" if built == REPEATED else "has terms that were made to collide"
            raise ArtifactError(f"the field {quote(name)} {problem}")

    def find(self, text: Text, starts: Integers, stops: Integers, other: int) -> Integers:
        """Return (E,) the number of the term that each span of a text is, or `other`."""
        columns = np.empty(len(starts), np.int64)
        find_terms(text, starts, stops, self.text, self.ends, self.slots, other, columns)
        return columns

    def _check_bytes(self, name: str) -> None:
        """Raise ArtifactError unless the ends ascend to the end of the bytes, and each term is UTF-8."""
        starts = np.concatenate([[0], self.ends[:-1]])
        if (self.ends < starts).any() or self.ends[-1] != len(self.text) or starts.min() < 0:
            raise ArtifactError(f"the ends of the terms of the field {quote(name)} must ascend to the end of the bytes")
        try:
            self.text.tobytes().decode()
        except UnicodeDecodeError:
            raise ArtifactError(f"the terms of the field {quote(name)} are not UTF-8") from None
        first = self.text[starts[starts < len(self.text)]]
        if ((first & 0b1100_0000) == CONTINUATION).any():
            raise ArtifactError(f"a term of the field {quote(name)} begins within a character")

    def __len__(self) -> int:
        return len(self.ends)

    @overload
    def __getitem__(self, term: int) -> str: ...

    @overload
    def __getitem__(self, term: slice) -> list[str]: ...

    def __getitem__(self, term: int | slice) -> str | list[str]:
        if isinstance(term, slice):
            return [self[i] for i in range(*term.indices(len(self)))]
        start = int(self.ends[term - 1]) if term else 0
        return self.text[start : int(self.ends[term])].tobytes().decode()
