"""Scores to probabilities and back over HTTP: one form in, all forms out; softmax/scores.py has the formulas.

    {"logits": [[2.0, 0.5, null]], "head": "softmax", "temperature": 1.5}
    {"logits": [[…]], "probabilities": [[…]], "log_probabilities": [[…]], "odds": [[…]], "head", "temperature"}

In place of "logits" a body may have any of the other three. A null is what JSON has no number for: a logit or a
log-probability of minus infinity, odds of infinity. So a null logit masks its class; sigmoid has no such classes and
refuses it, because there it could as well be a logit of plus infinity.
"""

from typing import Any, Final, NamedTuple, cast

import numpy as np
import orjson

from service.errors import TooLargeError, UnacceptableError
from service.serve.wire.json_grammar import check_fields, parse_object
from service.serve.wire.labels import NUMBERS
from service.settings import Settings
from service.softmax.input_stage import Doubles
from service.softmax.scores import FORMS, Form, convert

HEADS: Final = ("softmax", "sigmoid")
FIELDS: Final = (*FORMS, "head", "temperature")
NUMBERS_AND_NULL: Final = NUMBERS | {type(None)}
ONE_FORM: Final = f"The body must have exactly one of {', '.join(FORMS)}: a list of rows of numbers."
# Forms of which a null means minus infinity, or infinity.
INFINITE: Final[dict[Form, float]] = {"logits": -np.inf, "log_probabilities": -np.inf, "odds": np.inf}


class ScoresBody(NamedTuple):
    """What a body gives: which form, its values (B, K) float64, the head and the temperature."""

    form: Form
    values: Doubles
    head: str
    temperature: float


def parse_scores_body(body: bytes, settings: Settings) -> ScoresBody:
    """What a body gives.

    Raises:
        MalformedError: The bytes are not JSON of our grammar.
        UnacceptableError: They are, but hold no scores.
        TooLargeError: There are more rows, or would be more numbers in the answer, than the limit.
    """
    document = parse_object(body, settings.json_depth_max, settings.rows_max)
    check_fields(document, FIELDS)
    forms = [form for form in FORMS if form in document]
    if len(forms) != 1:
        raise UnacceptableError(ONE_FORM)
    head, temperature = document.get("head", HEADS[0]), document.get("temperature", 1.0)
    if type(head) is not str or head not in HEADS:
        raise UnacceptableError(f'"head" must be {" or ".join(HEADS)}.')
    if type(temperature) not in NUMBERS or not 0 < temperature < np.inf:
        raise UnacceptableError('"temperature" must be a number above 0.')
    values = _matrix(document[forms[0]], settings)
    return ScoresBody(forms[0], _with_infinities(values, forms[0], head), head, float(temperature))


def convert_scores(body: bytes, settings: Settings) -> bytes:
    """The answer's body.

    Raises:
        InputError: As `parse_scores_body`, or the values are no scores of their form.
    """
    form, values, head, temperature = parse_scores_body(body, settings)
    scores = convert(form, values, sigmoid=head == "sigmoid", temperature=temperature)
    # What is infinite is written as null.
    return orjson.dumps({**scores, "head": head, "temperature": temperature}, None, orjson.OPT_SERIALIZE_NUMPY)


def _matrix(rows: object, settings: Settings) -> Doubles:
    """(B, K) of a parsed list of rows; NaN where a null stood."""
    if type(rows) is not list or not rows:
        raise UnacceptableError("Scores must be a list of at least one row of numbers.")
    if len(rows) > settings.rows_max:
        raise TooLargeError(f"A request may have at most {settings.rows_max} rows; send several requests.")
    width = len(rows[0]) if type(rows[0]) is list else 0
    if width * len(rows) * len(FORMS) > settings.answer_cells_max:
        raise TooLargeError(f"An answer may have at most {settings.answer_cells_max} numbers; send several requests.")
    for i, row in enumerate(rows):
        if type(row) is not list or not row or len(row) != width:
            raise UnacceptableError(f"Row {i} must be a list of numbers, at least one, as many as the first row has.")
        if not NUMBERS_AND_NULL.issuperset(map(type, row)):
            raise UnacceptableError(f"Row {i} has a value that is neither a number nor null.")
    return np.array(cast("Any", rows), np.float64)


def _with_infinities(values: Doubles, form: Form, head: str) -> Doubles:
    """The values with what a null means in its place."""
    nulls = np.isnan(values)
    if nulls.any():
        if form not in INFINITE or (form, head) == ("logits", "sigmoid"):
            row = int(np.argmax(nulls.any(axis=1)))
            raise UnacceptableError(f"Row {row} has a null, which only odds, logarithms and softmax logits can have.")
        values[nulls] = INFINITE[form]
    return values
