"""Terms in tensors: found by name, read by number, and refused where they are no distinct texts."""

from typing import Any

import numpy as np
import pytest
from sklearn.utils import murmurhash3_32

from service.errors import ArtifactError
from service.fields.column_blocks import FieldLimits
from service.fields.field_types import TermTensors
from service.fields.kernels.term_kernels import CHAIN_MAX
from service.fields.row_encoder import RowEncoder
from service.fields.term_table import TermTable, pack_names
from tests.support.field_lists import parse_fields
from tests.support.unicode_texts import make_texts

FIELD = {"name": "t", "kind": "text", "words": [1, 1], "terms": {"bytes": "b", "ends": "e"}, "idf": "i"}
VECTOR = {"name": "v", "kind": "vector", "size": 2, "mean": "m", "scale": "s"}
FINE: dict[str, np.ndarray] = {
    "b": np.frombuffer("abüc".encode(), np.uint8),
    "e": np.array([1, 4, 5]),
    "i": np.ones(3),
    "m": np.zeros(2),
    "s": np.ones(2),
}

WRONG: list[tuple[str, Any, str]] = [
    ("e", np.array([4, 1, 5]), "must ascend"),
    ("e", np.array([-1, 4, 5]), "must ascend"),
    ("e", np.array([1, 4, 6]), "must ascend"),
    ("e", np.array([1, 4, 4]), "must ascend"),
    ("e", np.array([1, 4, 2**62]), "must ascend"),
    ("e", np.array([-(2**63), 4, 5]), "must ascend"),
    ("e", np.array([1, 3, 5]), "begins within a character"),
    ("e", np.array([1.0, 4.0, 5.0]), "must be int64"),
    ("e", np.array([1, 4, 5], np.int32), "must be int64"),
    ("e", np.array([[1, 4, 5]]), "one dimension"),
    ("e", np.empty(0, np.int64), "one number for each column"),
    ("b", np.frombuffer(b"abc", np.uint8), "must ascend"),
    ("b", np.frombuffer(b"ab\xff\xffc", np.uint8), "not UTF-8"),
    ("b", np.frombuffer(b"ab\xed\xa0\x80", np.uint8), "not UTF-8"),
    ("b", np.zeros(5, np.int8), "must be uint8"),
    ("i", np.ones(2), "one number for each column"),
    ("i", np.ones(3, np.float32), "must be float64"),
    ("i", np.array([1, np.nan, 1]), "not finite"),
    ("i", np.array([1, np.inf, 1]), "not finite"),
    ("m", np.zeros(3), "one number for each column"),
    ("m", np.array([0, np.nan]), "not finite"),
    ("s", np.array([1.0, 0.0]), "must be positive"),
    ("s", np.array([1.0, -1.0]), "must be positive"),
    ("s", np.array([1.0, np.inf]), "not finite"),
    ("s", None, "missing"),
    ("b", None, "missing"),
]


@pytest.mark.parametrize(("name", "tensor", "reason"), WRONG)
def test_wrong_tensors_are_refused(name: str, tensor: np.ndarray | None, reason: str) -> None:
    """The reason names the field."""
    tensors = {key: value for key, value in (FINE | {name: tensor}).items() if value is not None}
    with pytest.raises(ArtifactError, match=reason):
        RowEncoder(parse_fields(FIELD, VECTOR), tensors, FieldLimits())


def test_tensors_may_be_read_only() -> None:
    """Mapped files are."""
    for tensor in FINE.values():
        tensor.flags.writeable = False
    encoder = RowEncoder(parse_fields(FIELD, VECTOR), FINE, FieldLimits())
    rows = encoder.encode_objects([{"t": "bü bü c", "v": [1, 2]}]).rows
    assert rows.to_matrix(5).tolist() == [[0, 2, 0, 1, 2]]  # one letter is no long word
    assert list(encoder.terms["t"]) == ["a", "bü", "c"]


def make_table(terms: list[str]) -> TermTable:
    """Return a table of terms that are tensors."""
    text, _, ends = pack_names([term.encode() for term in terms])
    return TermTable("t", TermTensors(bytes="b", ends="e"), {"b": text, "e": ends})


def test_terms_are_found_and_no_others() -> None:
    """Each of several thousand terms, in lists and in tensors."""
    terms = sorted(set(make_texts(3000, seed=8)))
    others = sorted(set(make_texts(3000, seed=9)) - set(terms))
    for table in (TermTable("t", terms, {}), make_table(terms)):
        assert len(table) == len(terms)
        assert list(table) == terms
        assert table[1:3] == terms[1:3]
        assert table.find(*pack_names([term.encode() for term in terms]), -1).tolist() == list(range(len(terms)))
        assert set(table.find(*pack_names([term.encode() for term in others]), -7).tolist()) == {-7}


def test_a_term_that_occurs_twice_is_refused() -> None:
    """Two columns of one term would never agree."""
    with pytest.raises(ArtifactError, match="has a term twice"):
        make_table(["a", "b", "a"])


def test_terms_that_were_made_to_collide_are_refused() -> None:
    """Many terms of one slot would make every search slow."""
    slots = 4 * CHAIN_MAX
    terms: list[str] = []
    n = 0
    while len(terms) <= CHAIN_MAX:
        if murmurhash3_32(str(n).encode(), positive=True) % slots == 0:
            terms.append(str(n))
        n += 1
    fillers = [
        term
        for term in (f"x{i}" for i in range(2 * CHAIN_MAX))
        if murmurhash3_32(term.encode(), positive=True) % slots >= 3 * CHAIN_MAX
    ]
    with pytest.raises(ArtifactError, match="made to collide"):
        make_table([*terms, *fillers, *(f"y{i}" for i in range(2 * CHAIN_MAX - len(terms) - len(fillers)))])
