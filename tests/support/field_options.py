"""Random lists of fields of any kinds and options, some of which read one value, and rows for them."""

from typing import Any

from hypothesis import strategies as st

from service.fields.field_list import ValueRecord, list_value_types
from service.fields.field_records import CrossField
from tests.support.field_lists import parse_fields

WORDS = ("late", "refund", "a", "I", "the", "B2b", "under_score", "don't", "7up", "x", "LATE")
CATEGORIES = ("DE", "PT", "", "other", "2", "late refund", "a/b")

# Options of each kind; a field has one of each list. Texts, bags and categories are listed or hashed.
OPTIONS: dict[str, list[dict[str, Any]]] = {
    "number": [
        {"mean": 38.6, "scale": 13.7, "clip": 3.0, "flag": True},
        {"mean": -1e300, "scale": 1e-9, "clip": 1.5},
        {"missing": "column"},
        {"missing": {"value": 2.5}, "scale": 3.0},
        {"missing": "refuse"},
        {"missing": "none", "mean": 0.1},
    ],
    "boolean": [{}, {"missing": "column"}, {"missing": {"value": True}}, {"missing": "refuse"}],
    "category": [
        {"values": ["DE", "PT", "", 7, -2, 0, True], "unknown": "other", "missing": "column"},
        {"values": ["DE", "2"], "missing": {"value": "DE"}},
        {"values": [2, 1, 10], "unknown": "refuse"},
        {"values": [False, True]},
        {"bits": 6},
        {"bits": 4, "seed": 9, "signed": True, "missing": {"value": 7}},
    ],
    "text": [
        {"words": [1, 2], "bits": 8, "norm": "l2"},
        {"words": [1, 1], "word_pattern": "words", "bits": 5, "signed": True, "norm": "l1", "lowercase": False},
        {"words": [2, 3], "word_pattern": "whitespace", "bits": 9, "counts": "log", "stop_words": ["the", "i"]},
        {"words": [1, 2], "terms": ["late", "refund", "late refund", "b2b"], "idf": [0.5, 2.0, 0.0, 1.1]},
        {"words": [1, 1], "terms": ["refund", "x"], "stop_words": ["x"], "counts": "presence", "missing": "column"},
        {"chars": [1, 3], "bits": 7, "counts": "presence", "missing": {"value": "Nothing Here"}},
        {"chars": [2, 4], "within_words": True, "bits": 7, "seed": 3, "norm": "l2", "accents": "strip"},
        {"chars": [1, 2], "within_words": True, "terms": ["a", "b", " a", "ab"], "missing": "refuse"},
    ],
    "bag": [
        {"terms": ["late", "refund", "x"], "unknown": "other", "norm": "l1", "missing": "column"},
        {"terms": ["late", "refund"], "unknown": "refuse"},
        {"terms": ["late", "refund"], "norm": "l2"},
        {"bits": 5, "signed": True},
        {"bits": 6, "hashing": "vw", "seed": 77, "missing": "refuse"},
    ],
    "vector": [
        {"size": 3, "mean": [1, 2, 3], "scale": [1, 2, 4], "missing": "column"},
        {"size": 1, "clip": 0.5},
        {"size": 2, "missing": "refuse"},
    ],
    "cross": [{"bits": 5, "signed": True}, {"bits": 6, "seed": 4}, {"bits": 7, "hashing": "vw"}],
}
NUMBERS = st.one_of(
    st.integers(-(2**54), 2**54), st.floats(-1e6, 1e6), st.sampled_from([0, -0.0, 1e22, 1e-22, 2.5, 7.0, 1e300])
)
PHRASES = st.lists(st.sampled_from(WORDS), max_size=6).flatmap(
    lambda words: st.sampled_from([" ", "  ", ", ", "-", ".  "]).map(lambda gap: gap.join(words))
)
TEXTS = PHRASES | st.text(st.characters(min_codepoint=32, max_codepoint=127), max_size=20) | st.text(max_size=8)
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "number": NUMBERS,
    "boolean": st.booleans(),
    "category": st.sampled_from([*CATEGORIES, 7, -2, 0, 1, 2.0, 10, True, False]) | TEXTS | NUMBERS,
    "text": TEXTS,
    "bag": st.dictionaries(st.sampled_from(WORDS) | TEXTS, NUMBERS, max_size=4)
    | st.lists(st.sampled_from(WORDS) | TEXTS, max_size=5),
    "vector": st.lists(NUMBERS, max_size=4),
}
JSON = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=6,
)


@st.composite
def field_lists(draw: st.DrawFn) -> list[dict[str, Any]]:
    """One to five fields of any kinds, and up to two crosses of them."""
    kinds = draw(st.lists(st.sampled_from([kind for kind in OPTIONS if kind != "cross"]), min_size=1, max_size=5))
    fields = [
        {"name": f"{kind} {i}", "kind": kind, **draw(st.sampled_from(OPTIONS[kind]))} for i, kind in enumerate(kinds)
    ]
    names = [field["name"] for field in fields]
    for i in range(draw(st.integers(0, 2)) if len(names) > 1 else 0):
        parts = draw(st.permutations(names))[: draw(st.integers(2, min(3, len(names))))]
        fields.append(
            {"name": f"cross {i}", "kind": "cross", "fields": parts, **draw(st.sampled_from(OPTIONS["cross"]))}
        )
    if draw(st.booleans()):
        share_values(draw, fields)
    return fields


def share_values(draw: st.DrawFn, fields: list[dict[str, Any]]) -> None:
    """Give some fields the source of one before them that accepts a type of their values, and others a new one."""
    groups: dict[str, list[ValueRecord]] = {}
    for field in fields:
        if field["kind"] == "cross":
            continue
        (record,) = parse_fields(field)
        assert not isinstance(record, CrossField)
        fitting = [name for name, group in groups.items() if list_value_types([*group, record])]
        source = draw(st.sampled_from([*fitting, *fitting, f"value {len(groups)}", field["name"]]))
        if source != field["name"]:
            field["source"] = source
        groups.setdefault(source, []).append(record)


def value_name(field: dict[str, Any]) -> str:
    """Return the name of the value that a field reads."""
    name: str = field.get("source", field["name"])
    return name


def take_apart(fields: list[dict[str, Any]], row: dict[str, Any]) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Return the same fields without sources, and a row that has the value of each under the field's own name."""
    reads = {field["name"]: value_name(field) for field in fields if field["kind"] != "cross"}
    alone = [{key: value for key, value in field.items() if key != "source"} for field in fields]
    return alone, {name: row[value] for name, value in reads.items() if value in row}


@st.composite
def rows_of(draw: st.DrawFn, fields: list[dict[str, Any]], *, others: bool = True) -> dict[str, Any]:
    """A row in any order with values that fields mostly accept, now and then another one, and with `others` a name."""
    kinds: dict[str, list[str]] = {}
    for field in fields:
        if field["kind"] != "cross":
            kinds.setdefault(value_name(field), []).append(field["kind"])
    row = {}
    for name in draw(st.permutations(list(kinds))):
        usual = st.one_of(*(VALUES[kind] for kind in kinds[name]))
        value = draw(st.one_of(usual, usual, usual, usual, st.none(), st.just(...), JSON))
        if value is not ...:
            row[name] = value
    return row | draw(st.just({}) | st.just({}) | st.dictionaries(TEXTS, JSON, max_size=int(others)))
