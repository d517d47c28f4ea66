"""Vectorizers of texts and of bags of names of scikit-learn, as fields."""

from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np

from service.convert.columns.symbolic_blocks import TermDraft
from service.convert.columns.symbolic_matrix import SymbolicMatrix
from service.convert.columns.term_block import TermBlock
from service.convert.scikit.plain_object import PlainObject, PlainValue
from service.convert.scikit.row_source import RowSource, SingleColumn, Symbolic
from service.convert.scikit.step import Step
from service.fields.field_types import BITS_MAX, NGRAM_MAX
from service.softmax.arrays import Doubles

# The words that `stop_words="english"` leaves out, which a fitted vectorizer does not hold.
ENGLISH_STOP_WORDS: Final = Path(__file__).with_name("english_stop_words.txt")
# Patterns of users are code, so a text has patterns by name; these are what scikit-learn's users write.
WORD_PATTERNS: Final = {
    r"(?u)\b\w\w+\b": "long_words",
    r"\b\w\w+\b": "long_words",
    r"(?u)\b\w+\b": "words",
    r"\b\w+\b": "words",
    r"(?u)\S+": "whitespace",
    r"\S+": "whitespace",
}


def count_vectorizer(step: Step, x: Symbolic) -> SymbolicMatrix:
    """Return the terms of a text, as `CountVectorizer` counts them."""
    return _text(step, x, _listed_terms(step), {})


def tfidf_vectorizer(step: Step, x: Symbolic) -> SymbolicMatrix:
    """Return the weighted terms of a text, as `TfidfVectorizer` makes them."""
    counts = _text(step, x, _listed_terms(step), {})
    return tfidf_transformer(step.child(step.need("_tfidf")), counts)


def hashing_vectorizer(step: Step, x: Symbolic) -> SymbolicMatrix:
    """Return the hashed terms of a text, as `HashingVectorizer` makes them."""
    # With `binary` scikit-learn sets every entry to 1, whatever its sign.
    signed = step.flag("alternate_sign", default=True) and not step.flag("binary", default=False)
    record = {"bits": _bits(step), "norm": _norm(step), "signed": signed}
    return _text(step, x, None, record)


def tfidf_transformer(step: Step, x: Symbolic) -> SymbolicMatrix:
    """Return the terms with `idf` and `norm`, as `TfidfTransformer` makes them of counts."""
    block = x.blocks[0] if isinstance(x, SymbolicMatrix) and len(x.blocks) == 1 else None
    if not isinstance(block, TermBlock) or not block.is_whole:
        raise step.refuse("its input is not all terms of one text or bag")
    draft, norm = block.draft, _norm(step)
    idf = _idf(step, draft.width) if step.flag("use_idf", default=True) else None
    if draft.record.get("norm", "none") != "none" or draft.idf is not None:
        raise step.refuse("its input is normalized already")
    record = dict(draft.record)
    if step.flag("sublinear_tf", default=False):
        if record["kind"] != "text" or record.get("signed"):
            raise step.refuse("only the counts of a text have a logarithm")
        if record.get("counts", "count") == "count":
            record["counts"] = "log"
    record["norm"] = norm
    if record["kind"] == "bag" and idf is not None:
        if norm != "none":
            raise step.refuse("a bag has no idf before its norm")
        return SymbolicMatrix((TermBlock(block.index, replace(draft, record=record), factor=idf),))
    return SymbolicMatrix((TermBlock(block.index, replace(draft, record=record, idf=idf)),))


def dict_vectorizer(step: Step, x: Symbolic) -> SymbolicMatrix:
    """Return the names of a bag, as `DictVectorizer` makes them of objects of numbers."""
    if step.get("separator", "=") is None:
        raise step.refuse("it has no separator")
    names = step.listed("feature_names_")
    if not all(isinstance(name, str) for name in names):
        raise step.refuse("its names are not texts")
    return _bag(step, x, {"kind": "bag"}, len(names), [str(name) for name in names])


def feature_hasher(step: Step, x: Symbolic) -> SymbolicMatrix:
    """Return the hashed names of a bag, as `FeatureHasher` makes them."""
    form = step.choice("input_type", "dict", "dict", "pair", "string")
    if isinstance(x, RowSource):
        # A hasher of lists of names hashes pairs alike, and these have numbers too.
        x.inputs.has_pairs = form != "dict"
    bits = _bits(step)
    record = {"kind": "bag", "bits": bits, "signed": step.flag("alternate_sign", default=True)}
    return _bag(step, x, record, 1 << bits, None)


def _bag(step: Step, x: Symbolic, record: dict[str, PlainValue], width: int, terms: list[str] | None) -> SymbolicMatrix:
    if not isinstance(x, RowSource | SingleColumn):
        raise step.refuse("its input is not a bag")
    return SymbolicMatrix((TermBlock(x.to_bags(), TermDraft(record, width, terms)),))


def _text(step: Step, x: Symbolic, terms: list[str] | None, record: dict[str, PlainValue]) -> SymbolicMatrix:
    if not isinstance(x, RowSource | SingleColumn):
        raise step.refuse("its input is not one column of texts; a column transformer takes its name without a list")
    record = {"kind": "text", **_analysis(step), **record, "missing": "refuse"}
    if terms is not None and record.get("words") == (1, 1):
        # Words that are left out are no terms.
        record.pop("stop_words", None)
    width = len(terms) if terms is not None else 1 << record["bits"]
    return SymbolicMatrix((TermBlock(x.to_texts(), TermDraft(record, width, terms)),))


def _analysis(step: Step) -> dict[str, PlainValue]:
    """Return the members of a text field that say how it is split."""
    for name in ("preprocessor", "tokenizer"):
        if step.has(name):
            raise step.refuse(f'its option "{name}" is a function, which cannot be converted')
    step.choice("input", "content", "content")
    if isinstance(step.get("analyzer", "word"), PlainObject):
        raise step.refuse('its option "analyzer" is a function, which cannot be converted')
    analyzer = step.choice("analyzer", "word", "word", "char", "char_wb")
    lengths = tuple(step.listed("ngram_range")) if step.has("ngram_range") else (1, 1)
    if len(lengths) != 2 or not all(isinstance(n, int) and 1 <= n <= NGRAM_MAX for n in lengths):  # noqa: PLR2004
        raise step.refuse(f"its n-grams must have from 1 to {NGRAM_MAX} parts")
    record: dict[str, PlainValue] = {"lowercase": step.flag("lowercase", default=True)}
    if step.has("strip_accents"):
        step.choice("strip_accents", "unicode", "unicode")
        record["accents"] = "strip"
    if step.flag("binary", default=False):
        record["counts"] = "presence"
    if analyzer != "word":
        return record | {"chars": lengths, "within_words": analyzer == "char_wb"}
    pattern = step.get("token_pattern", r"(?u)\b\w\w+\b")
    if not isinstance(pattern, str) or pattern not in WORD_PATTERNS:
        raise step.refuse('its option "token_pattern" is a regular expression of its own, which is code')
    record |= {"words": lengths, "word_pattern": WORD_PATTERNS[pattern]}
    if step.has("stop_words"):
        record["stop_words"] = _stop_words(step)
    return record


def _stop_words(step: Step) -> list[str]:
    words = step.get("stop_words")
    if words == "english":
        return ENGLISH_STOP_WORDS.read_text(encoding="ascii").split()
    if not isinstance(words, list | tuple) or not all(isinstance(word, str) for word in words):
        raise step.refuse('its option "stop_words" is neither "english" nor a list of words')
    return sorted(set(words))


def _listed_terms(step: Step) -> list[str]:
    """Return the terms in the order of their columns."""
    vocabulary = step.need("vocabulary_")
    if not isinstance(vocabulary, dict) or not vocabulary or not all(isinstance(term, str) for term in vocabulary):
        raise step.refuse("its vocabulary is not an object of terms and columns")
    columns = np.array(list(vocabulary.values()))
    if columns.dtype.kind not in "iu" or not np.array_equal(np.sort(columns), np.arange(len(columns))):
        raise step.refuse("its vocabulary does not give each column one term")
    terms = list(vocabulary)
    return [terms[place] for place in np.argsort(columns).tolist()]


def _idf(step: Step, width: int) -> Doubles:
    """Return the factor of each column, which releases before 1.6 have as a diagonal matrix."""
    if step.has("idf_"):
        return step.numbers("idf_", width)
    diagonal = step.child(step.need("_idf_diag"))
    return np.ascontiguousarray(diagonal.numbers("data", 1, width)[0])


def _norm(step: Step) -> str:
    return step.choice("norm", "l2", "l1", "l2") if step.get("norm", "l2") is not None else "none"


def _bits(step: Step) -> int:
    """Return the power of two that is the number of hashed columns."""
    size = step.count("n_features")
    bits = size.bit_length() - 1
    if not 1 <= bits <= BITS_MAX or size != 1 << bits:
        raise step.refuse('its option "n_features" must be a power of two')
    return bits
