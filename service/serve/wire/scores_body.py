"""Convert scores between their forms: parse one form, return all forms. softmax/scores.py has the formulas.

    {"logits": [[2.0, 0.5, null]], "head": "softmax", "temperature": 1.5}
    {"logits": [[…]], "probabilities": [[…]], "log_probabilities": [[…]], "odds": [[…]], "head", "temperature"}

Instead of "logits", a body may have any of the other three. A null is a value that JSON has no number for: a logit or
log-probability of minus infinity, or odds of infinity. So a null logit masks its class. Sigmoid rejects a null logit,
because there it could also mean plus infinity.
"""

from typing import Any, Final, NamedTuple, cast

import numpy as np
import orjson

from service.errors import TooLargeError, UnacceptableError
from service.serve.wire.json_grammar import NUMBER_TYPES, check_row_count, known_fields, parse_object
from service.settings import Settings
from service.softmax.arrays import Doubles
from service.softmax.scores import FORMS, Form, compute_score_forms

HEADS: Final = ("softmax", "sigmoid")
FIELDS: Final = (*FORMS, "head", "temperature")
CELL_TYPES: Final = NUMBER_TYPES | {type(None)}
ONE_FORM: Final = f"The body must have exactly one of {', '.join(FORMS)}: a list of rows of numbers."
# The value of a null, in the forms that allow it.
NULL_VALUES: Final[dict[Form, float]] = {"logits": -np.inf, "log_probabilities": -np.inf, "odds": np.inf}


class ScoresBody(NamedTuple):
    """A request to convert scores.

    Attributes:
        form: The form of the values.
        values: The scores, (B, K) float64.
        head: "softmax" or "sigmoid".
        temperature: The divisor of logits, above 0.
    """

    form: Form
    values: Doubles
    head: str
    temperature: float


def parse_scores_body(body: bytes, settings: Settings) -> ScoresBody:
    """Parse a body.

    Raises:
        MalformedError: The body cannot be parsed.
        UnacceptableError: The body has no valid scores.
        TooLargeError: The rows, or the numbers of the response, are more than the limit.
    """
    document = parse_object(body, settings.json_depth_max, settings.rows_max)
    fields = known_fields(document, FIELDS)
    forms = [form for form in FORMS if form in fields]
    if len(forms) != 1:
        raise UnacceptableError(ONE_FORM)
    head, temperature = fields.get("head", HEADS[0]), fields.get("temperature", 1.0)
    if type(head) is not str or head not in HEADS:
        raise UnacceptableError(f'"head" must be {" or ".join(HEADS)}.')
    if type(temperature) not in NUMBER_TYPES or not 0 < temperature < np.inf:
        raise UnacceptableError('"temperature" must be a number above 0.')
    values = _parse_rows(fields[forms[0]], forms[0], settings)
    return ScoresBody(forms[0], _replace_nulls(values, forms[0], head), head, float(temperature))


def convert_scores(body: bytes, settings: Settings) -> bytes:
    """Convert the scores of a body, and return the body of the response.

    Raises:
        InputError: `parse_scores_body` raised it, or the values are not valid in their form.
    """
    form, values, head, temperature = parse_scores_body(body, settings)
    scores = compute_score_forms(form, values, sigmoid=head == "sigmoid", temperature=temperature)
    # orjson writes infinity as null.
    return orjson.dumps({**scores, "head": head, "temperature": temperature}, None, orjson.OPT_SERIALIZE_NUMPY)


def _parse_rows(rows: object, form: Form, settings: Settings) -> Doubles:
    """Return (B, K) of a parsed list of rows, with NaN for each null."""
    if type(rows) is not list or not rows:
        raise UnacceptableError(f'"{form}" must be a list of at least one row of numbers.')
    check_row_count(len(rows), settings.rows_max)
    width = len(rows[0]) if type(rows[0]) is list else 0
    if width * len(rows) * len(FORMS) > settings.answer_cells_max:
        raise TooLargeError(f"A response may have at most {settings.answer_cells_max} numbers; send several requests.")
    for i, row in enumerate(rows):
        if type(row) is not list or not row or len(row) != width:
            raise UnacceptableError(f"Row {i} must be a list of at least one number, as long as the first row.")
        if not CELL_TYPES.issuperset(map(type, row)):
            raise UnacceptableError(f"Row {i} has a value that is neither a number nor null.")
    return np.array(cast("Any", rows), np.float64)


def _replace_nulls(values: Doubles, form: Form, head: str) -> Doubles:
    """Replace each NaN by the value of a null in this form."""
    nulls = np.isnan(values)
    if nulls.any():
        if form not in NULL_VALUES or (form, head) == ("logits", "sigmoid"):
            row = int(np.argmax(nulls.any(axis=1)))
            raise UnacceptableError(
                f"Row {row} has a null, which is valid only in odds, log-probabilities and softmax logits."
            )
        values[nulls] = NULL_VALUES[form]
    return values
