"""Texts against scikit-learn's vectorizers: the same columns, and values to 1e-12."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from sklearn.feature_extraction.text import CountVectorizer, HashingVectorizer, TfidfTransformer, TfidfVectorizer

from service.errors import TooLargeError, UnacceptableError
from service.fields.column_blocks import FieldLimits
from service.fields.row_encoder import RowEncoder
from service.fields.text_analysis import TextAnalyzer
from service.fields.text_records import WORD_PATTERNS, TextField
from tests.support.budgets import examples
from tests.support.field_lists import parse_fields
from tests.support.unicode_texts import make_texts

TEXTS = make_texts(1200, seed=1)
STOP_WORDS = ["my", "and", "the", "of", "мир"]
TOLERANCE = 1e-12

# Options of a text field, and those of scikit-learn's vectorizers that mean the same.
ANALYSES: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"words": [1, 1]}, {}),
    ({"words": [1, 2]}, {"ngram_range": (1, 2)}),
    ({"words": [2, 4]}, {"ngram_range": (2, 4)}),
    ({"words": [1, 2], "word_pattern": "words"}, {"ngram_range": (1, 2), "token_pattern": WORD_PATTERNS["words"]}),
    ({"words": [1, 3], "word_pattern": "whitespace"}, {"ngram_range": (1, 3), "token_pattern": r"\S+"}),
    ({"words": [1, 2], "stop_words": STOP_WORDS}, {"ngram_range": (1, 2), "stop_words": STOP_WORDS}),
    ({"words": [1, 1], "lowercase": False}, {"lowercase": False}),
    ({"words": [1, 2], "accents": "strip"}, {"ngram_range": (1, 2), "strip_accents": "unicode"}),
    ({"chars": [1, 3]}, {"analyzer": "char", "ngram_range": (1, 3)}),
    ({"chars": [3, 5], "lowercase": False}, {"analyzer": "char", "ngram_range": (3, 5), "lowercase": False}),
    ({"chars": [2, 2], "accents": "strip"}, {"analyzer": "char", "ngram_range": (2, 2), "strip_accents": "unicode"}),
    ({"chars": [1, 4], "within_words": True}, {"analyzer": "char_wb", "ngram_range": (1, 4)}),
    ({"chars": [5, 9], "within_words": True}, {"analyzer": "char_wb", "ngram_range": (5, 9)}),
    (
        {"chars": [2, 3], "within_words": True, "accents": "strip", "lowercase": False},
        {"analyzer": "char_wb", "ngram_range": (2, 3), "strip_accents": "unicode", "lowercase": False},
    ),
]
NORMS = [("none", None), ("l1", "l1"), ("l2", "l2")]


ASCII = st.text(st.sampled_from(" \t\n\x0b\x1c\x1f\x20aZ_9.and") | st.characters(max_codepoint=127), max_size=16)


@pytest.mark.parametrize("options", [options for options, _ in ANALYSES])
@settings(max_examples=examples(300), deadline=None)
@given(texts=st.lists(ASCII | st.text(max_size=8), max_size=5))
def test_ascii_texts_are_prepared_as_others_are(options: dict[str, Any], texts: list[str]) -> None:
    """The kernel splits them as Python does, with any white space and control characters, beside others."""
    (field,) = parse_fields({"name": "text", "kind": "text", "bits": 4, **options})
    assert isinstance(field, TextField)
    analyzer = TextAnalyzer(field)
    plain = np.array([text.isascii() for text in texts], np.bool_)
    given_texts = [text if text.isascii() else analyzer.prepare(text) for text in texts]
    prepared, ends = analyzer.prepare_all([text.encode() for text in given_texts], plain)
    starts = np.concatenate([[0], ends[:-1]])[: len(ends)]
    found = [prepared[start:end].tobytes().decode() for start, end in zip(starts, ends, strict=True)]
    assert found == [analyzer.prepare(text) for text in texts]


def make_encoder(options: dict[str, Any], tensors: dict[str, Any] | None = None) -> RowEncoder:
    """Return the encoder of rows of one text."""
    return RowEncoder(parse_fields({"name": "text", "kind": "text", **options}), tensors or {}, FieldLimits())


def encode(options: dict[str, Any], tensors: dict[str, Any] | None = None) -> sparse.csr_array:
    """Return all texts as a matrix."""
    encoder = make_encoder(options, tensors)
    rows = encoder.encode_columns({"text": TEXTS}).rows
    indptr = np.concatenate([[0], rows.ends])
    return sparse.csr_array((rows.values, rows.columns, indptr), (len(TEXTS), encoder.n_columns))


def assert_same(ours: sparse.csr_array, theirs: Any) -> None:
    """Assert that two matrices have the same entries that are not 0."""
    theirs = sparse.csr_array(theirs).astype(np.float64)
    theirs.sum_duplicates()
    theirs.eliminate_zeros()
    assert ours.shape == theirs.shape
    assert theirs.nnz > 1000
    assert np.array_equal(ours.indptr, theirs.indptr)
    assert np.array_equal(ours.indices, theirs.indices)
    assert np.abs(ours.data - theirs.data).max() <= TOLERANCE


@pytest.mark.parametrize(("options", "theirs"), ANALYSES)
@pytest.mark.parametrize(("norm", "their_norm"), NORMS)
@pytest.mark.parametrize("signed", [False, True])
def test_hashed_texts_are_those_of_the_hashing_vectorizer(
    options: dict[str, Any], theirs: dict[str, Any], norm: str, their_norm: str | None, *, signed: bool
) -> None:
    """Every analysis, norm and sign gives the same columns; few columns, so that n-grams fall together."""
    vectorizer = HashingVectorizer(n_features=2**9, norm=their_norm, alternate_sign=signed, **theirs)
    ours = encode({**options, "bits": 9, "norm": norm, "signed": signed})
    assert_same(ours, vectorizer.transform(TEXTS))


@pytest.mark.parametrize("bits", [1, 18, 24])
def test_hashed_texts_have_any_width(bits: int) -> None:
    """The width is the one of the field."""
    vectorizer = HashingVectorizer(n_features=2**bits, norm=None, analyzer="char", ngram_range=(1, 3))
    assert_same(encode({"chars": [1, 3], "bits": bits, "signed": True}), vectorizer.transform(TEXTS))


@pytest.mark.parametrize("signed", [False, True])
def test_presence_is_that_of_the_hashing_vectorizer(*, signed: bool) -> None:
    """A column that is present has 1, even where signs cancel each other."""
    vectorizer = HashingVectorizer(n_features=2**6, norm="l2", binary=True, alternate_sign=signed)
    options = {"words": [1, 1], "bits": 6, "norm": "l2", "signed": signed, "counts": "presence"}
    assert_same(encode(options), vectorizer.transform(TEXTS))


@pytest.mark.parametrize(("options", "theirs"), ANALYSES)
@pytest.mark.parametrize("as_tensors", [False, True])
def test_listed_terms_are_those_of_the_tfidf_vectorizer(
    options: dict[str, Any], theirs: dict[str, Any], *, as_tensors: bool
) -> None:
    """Frequencies, idf and norms of a vocabulary that was learned from half of the texts."""
    for norm, their_norm in NORMS:
        vectorizer = TfidfVectorizer(norm=their_norm, sublinear_tf=norm == "l2", **theirs)
        vectorizer.fit(TEXTS[::2])
        terms, tensors = take_terms(vectorizer, as_tensors=as_tensors)
        idf = {"idf": "text.idf"} if as_tensors else {"idf": vectorizer.idf_.tolist()}
        counts = {"counts": "log"} if norm == "l2" else {}
        ours = encode({**options, **terms, **idf, **counts, "norm": norm}, tensors | {"text.idf": vectorizer.idf_})
        assert_same(ours, vectorizer.transform(TEXTS))


def take_terms(vectorizer: CountVectorizer, *, as_tensors: bool) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the terms of a vectorizer for a field, and the tensors that have them."""
    terms = vectorizer.get_feature_names_out().tolist()
    if not as_tensors:
        return {"terms": terms}, {}
    encoded = [term.encode() for term in terms]
    tensors = {
        "text.bytes": np.frombuffer(b"".join(encoded), np.uint8),
        "text.ends": np.cumsum([len(term) for term in encoded]),
    }
    return {"terms": {"bytes": "text.bytes", "ends": "text.ends"}}, tensors


@pytest.mark.parametrize("binary", [False, True])
def test_listed_terms_are_those_of_the_count_vectorizer(*, binary: bool) -> None:
    """Counts and presence of a vocabulary."""
    vectorizer = CountVectorizer(binary=binary, ngram_range=(1, 2)).fit(TEXTS)
    terms, tensors = take_terms(vectorizer, as_tensors=True)
    counts = "presence" if binary else "count"
    assert_same(encode({"words": [1, 2], **terms, "counts": counts}, tensors), vectorizer.transform(TEXTS))


def test_hashed_texts_have_an_idf() -> None:
    """The transformer's factors follow the counts of hashed columns."""
    hashed = HashingVectorizer(n_features=2**10, norm=None, alternate_sign=False).transform(TEXTS)
    transformer = TfidfTransformer(norm="l1", sublinear_tf=True).fit(hashed)
    options = {"words": [1, 1], "bits": 10, "counts": "log", "idf": "idf", "norm": "l1"}
    assert_same(encode(options, {"idf": transformer.idf_}), transformer.transform(hashed))


def test_the_seed_changes_the_columns() -> None:
    """Two seeds give different columns of the same number of n-grams."""
    one, other = (encode({"words": [1, 1], "bits": 20, "seed": seed}) for seed in (0, 7))
    assert one.nnz == pytest.approx(other.nnz, abs=10)
    assert not np.array_equal(one.indices, other.indices)


def test_long_texts_are_refused_before_they_are_split() -> None:
    """The sentences name the row and the field, and the limit."""
    encoder = make_encoder({"words": [1, 1], "bits": 10})
    with pytest.raises(TooLargeError, match='Row 1: "text" has more than 1048576 characters; shorten it'):
        encoder.encode_columns({"text": ["a", "a " * 600_000]})
    with pytest.raises(TooLargeError, match='Row 0: "text" has more than 65536 n-grams'):
        encoder.encode_columns({"text": ["ab " * 70_000, "a"]})
    wide = make_encoder({"chars": [1, 16], "bits": 10})
    with pytest.raises(TooLargeError, match="send several requests"):
        wide.encode_columns({"text": ["a" * 4000] * 300})


def test_half_of_a_surrogate_pair_is_refused() -> None:
    """Python's strings may have one; UTF-8 has none."""
    with pytest.raises(UnacceptableError, match='Row 1: "text" must be valid Unicode'):
        make_encoder({"chars": [1, 2], "bits": 10}).encode_columns({"text": ["a", "\ud800"]})
