"""Choose the fields of a model from the counts of pass 1.

    a column                                                      becomes
    numbers                                                       number
    true and false                                                boolean
    up to 100 values, each twice on average, or up to 1,000
      single words                                                category
    several words in a value                                      text
    more values                                                   category, hashed
    lists of as many numbers                                      vector
    lists of texts, objects of numbers                            bag
    one value; none; each row its own; other types                left out, with the reason

A field leaves out its statistics, which complete_fields.py adds from the rows that are trained on.
"""

from typing import Any, Final, NamedTuple

from service.record import NAME_CHARACTERS_MAX
from service.train.column_tally import DISTINCT_MAX, ColumnTally

Spec = dict[str, Any]
"""A field as in a manifest, which may lack its statistics."""

FEW_VALUES: Final = 100
LISTED_VALUES_MAX: Final = 1000
# Names of places and products have one or two words.
WORDS_OF_TEXT: Final = 2.0
# Beyond so many standard deviations a number is an outlier, which would decide a prediction alone.
CLIP: Final = 10.0
# Four columns for each of 10,000 values: one value in eight shares its column.
HASH_BITS: Final = 16


class ChosenField(NamedTuple):
    """One column of the file.

    Attributes:
        name: The name of the column.
        spec: Its field, or None if it is left out.
        note: Why it is left out, or a fact that decided; may be empty.
    """

    name: str
    spec: Spec | None
    note: str = ""


def choose_field(tally: ColumnTally) -> ChosenField:
    """Return the field of a column, or why it is left out."""
    name = tally.name
    problem = _find_problem(tally)
    if problem:
        return ChosenField(name, None, problem)
    if tally.is_number:
        return _choose_number(tally)
    if tally.is_boolean:
        missing = {"missing": "column"} if tally.gaps else {}
        return _unless_constant(tally, {"name": name, "kind": "boolean", **missing})
    if tally.kinds == {"object"}:
        return _choose_list(tally)
    return _choose_text(tally)


def _find_problem(tally: ColumnTally) -> str:
    """Return why a column is no field whatever its values are, or an empty text."""
    if not tally.name or len(tally.name) > NAME_CHARACTERS_MAX:
        return "its name is too long" if tally.name else "it has no name"
    if tally.kinds == {"other"}:
        return "dates, times and bytes are no field; make numbers or texts of them"
    if len(tally.kinds) > 1 or "mixed" in tally.kinds:
        return "its values have several types"
    return "" if tally.trained else "it has no value"


def _choose_number(tally: ColumnTally) -> ChosenField:
    if tally.is_infinite:
        return ChosenField(tally.name, None, "it has infinite numbers")
    if tally.runs and tally.present > 1:
        return ChosenField(tally.name, None, "it numbers the rows")
    is_constant = bool(tally.moments.is_constant)
    if is_constant and not tally.gaps:
        return ChosenField(tally.name, None, "it has one value")
    flag = {"flag": True} if tally.gaps else {}
    return ChosenField(tally.name, {"name": tally.name, "kind": "number", "clip": CLIP, **flag})


def _choose_list(tally: ColumnTally) -> ChosenField:
    missing = {"missing": "column"} if tally.gaps else {}
    if tally.is_vector and not tally.is_infinite:
        spec = {"name": tally.name, "kind": "vector", "size": tally.vector_size, "clip": CLIP, **missing}
        return ChosenField(tally.name, spec)
    if tally.is_bag:
        return ChosenField(tally.name, {"name": tally.name, "kind": "bag", **missing})
    return ChosenField(tally.name, None, "its lists or objects are neither vectors nor bags of names")


def _choose_text(tally: ColumnTally) -> ChosenField:
    """Return the field of a column of texts."""
    distinct = len(tally.values) if tally.is_exact else DISTINCT_MAX + 1
    missing = {"missing": "column"} if tally.gaps else {}
    category: Spec = {"name": tally.name, "kind": "category", **missing}
    note = ""
    if tally.numbers and tally.not_a_number is not None and tally.numbers > tally.present // 2:
        note = f"most values are numbers; that of row {tally.not_a_number} is none"
    if distinct <= min(FEW_VALUES, tally.trained // 2):
        return _unless_constant(tally, category | {"unknown": "other"}, note)
    if tally.words >= WORDS_OF_TEXT * tally.present:
        return ChosenField(
            tally.name, {"name": tally.name, "kind": "text", "words": [1, 2], "idf": True, "norm": "l2", **missing}
        )
    if distinct == tally.trained > 1 or (distinct > DISTINCT_MAX and tally.is_unique):
        return ChosenField(tally.name, None, note or "each row has a value of its own")
    if distinct <= LISTED_VALUES_MAX:
        return _unless_constant(tally, category | {"unknown": "other"}, note)
    return ChosenField(tally.name, category | {"bits": HASH_BITS}, note)


def _unless_constant(tally: ColumnTally, spec: Spec, note: str = "") -> ChosenField:
    """Return a field, unless all its values are equal and none is missing."""
    if len(tally.values) == 1 and not tally.gaps:
        return ChosenField(tally.name, None, "it has one value")
    return ChosenField(tally.name, spec, note)
