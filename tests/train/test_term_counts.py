"""Vocabularies: the terms, rows and factors of scikit-learn's vectorizers."""

from typing import Any

import numpy as np
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer

from service.errors import TrainingError
from service.fields.column_blocks import FieldLimits
from service.fields.name_encoders import TextEncoder
from service.fields.row_encoder import RowEncoder
from service.train import term_counts
from service.train.term_counts import TermCounts, inverse_frequencies
from tests.support.field_lists import parse_fields

TEXTS = [
    "a late refund", "Late refund, late refund!", "überall und nirgends", "und überall", "one", "", "one two two two",
]  # fmt: skip


def counts_of(texts: list[str], **options: Any) -> TermCounts:
    """Count the terms of texts, in two blocks."""
    field = {"name": "words", "kind": "text", "bits": 1, **options}
    encoder = RowEncoder(parse_fields(field), {}, FieldLimits()).encoders["words"]
    assert isinstance(encoder, TextEncoder)
    counts = TermCounts()
    counts.add_texts(encoder, texts[:3], range(3))
    counts.add_texts(encoder, texts[3:], range(3, len(texts)))
    return counts


@pytest.mark.parametrize(
    ("options", "vectorizer"),
    [
        ({"words": [1, 2]}, {"ngram_range": (1, 2)}),
        ({"chars": [1, 3]}, {"analyzer": "char", "ngram_range": (1, 3)}),
        ({"chars": [2, 2], "within_words": True}, {"analyzer": "char_wb", "ngram_range": (2, 2)}),
    ],
)
def test_terms_and_factors_are_those_of_scikit_learn(options: dict[str, Any], vectorizer: dict[str, Any]) -> None:
    model = TfidfVectorizer(min_df=2, **vectorizer).fit(TEXTS)
    counts = counts_of(TEXTS, **options)
    terms, rows = counts.list_terms()
    assert [term.decode() for term in terms] == sorted(model.vocabulary_, key=str.encode)
    expected = [model.idf_[model.vocabulary_[term.decode()]] for term in terms]
    np.testing.assert_allclose(inverse_frequencies(rows, counts.rows), expected, rtol=1e-12)


def test_all_terms_are_kept_if_none_is_in_two_rows() -> None:
    terms, rows = counts_of(["one two", "three"], words=[1, 1]).list_terms()
    assert (terms, rows.tolist()) == ([b"one", b"three", b"two"], [1, 1, 1])


def test_the_most_frequent_terms_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(term_counts, "TERMS_MAX", 2)
    terms, _ = counts_of(["c b a", "c b", "c a", "d", "d"], words=[1, 1], word_pattern="words").list_terms()
    assert terms == [b"a", b"c"]


def test_rare_terms_are_dropped_if_there_are_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(term_counts, "COUNTED_MAX", 3)
    counts = counts_of(["aa bb", "aa", "aa", "cc dd ee", "aa"], words=[1, 1])
    assert counts.list_terms()[0] == [b"aa"]
    bags = TermCounts()
    bags.add_bags([["x", "x", "y"], {"x": 2.0}, ["y"]])
    assert bags.list_terms()[0] == [b"x", b"y"]
    assert bags.list_terms()[1].tolist() == [2, 2]


def test_texts_are_counted_in_parts_and_long_ones_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The size of a part changes no count; an error names the row of the file."""
    whole = counts_of(TEXTS, words=[1, 2]).list_terms()
    monkeypatch.setattr(term_counts, "CHARACTERS_AT_ONCE", 10)
    parts = counts_of(TEXTS, words=[1, 2]).list_terms()
    assert parts[0] == whole[0]
    assert parts[1].tolist() == whole[1].tolist()
    with pytest.raises(TrainingError, match=r'^row 5: "words" has more than 65536 n-grams$'):
        counts_of([*TEXTS[:5], "word " * 70_000], words=[1, 1])
