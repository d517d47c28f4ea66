"""Convert a parsed prediction body: the rows in one of several forms, and the fields that may accompany them.

instances         the rows; table_rows.py has their forms
inputs            the columns by name, or the rows; the response then has "outputs" in place of "predictions"
min_seq           answer from a state that contains the event with this seq; 0 if missing
feedback_tokens   true: return a token for each row, to post later with its label instead of the row
parameters, signature_name    ignored; clients of TensorFlow Serving send them

A field that is null counts as missing.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

from service.errors import UnacceptableError
from service.serve.wire.json_grammar import known_fields
from service.serve.wire.table_rows import TableParser
from service.softmax.arrays import Floats
from service.store.log.events import SEQ_MAX

# Converts the value of a form to X (B, N).
Convert = Callable[[TableParser, Any], Floats]

OPTIONS: Final = ("min_seq", "feedback_tokens", "parameters", "signature_name")
INPUTS: Final = "inputs"


class PredictBody(NamedTuple):
    """A prediction request.

    Attributes:
        X: The rows, (B, N) in the model's dtype.
        min_seq: The seq that the answering state must contain.
        tokens: Whether to return feedback tokens.
        form: The name of the field that had the rows.
    """

    X: Floats
    min_seq: int = 0
    tokens: bool = False
    form: str = "instances"


def convert_inputs(tables: TableParser, inputs: object) -> Floats:
    """Convert the value of "inputs" to X (B, N)."""
    return tables.convert_columns(inputs) if type(inputs) is dict else tables.convert_instances(inputs, INPUTS)


# The forms of `:predict`, by the name of their field.
FORMS: Final[Mapping[str, Convert]] = {"instances": TableParser.convert_instances, INPUTS: convert_inputs}


def parse_predict_body(document: dict[str, Any], tables: TableParser) -> PredictBody:
    """Convert a parsed body of `:predict` to a prediction request.

    Raises:
        UnacceptableError: A field is missing, unknown or invalid.
        TooLargeError: There are more rows than the limit.
    """
    return convert_form(known_fields(document, (*FORMS, *OPTIONS)), tables, FORMS)


def convert_form(fields: dict[str, Any], tables: TableParser, forms: Mapping[str, Convert]) -> PredictBody:
    """Convert the fields of a body, which has its rows in one of some forms.

    Raises:
        UnacceptableError: There is not exactly one of the forms, or a field is invalid.
        TooLargeError: There are more rows than the limit.
    """
    given = [form for form in forms if form in fields]
    if len(given) != 1:
        raise UnacceptableError(f"The body must have exactly one of {', '.join(forms)}.")
    min_seq, tokens = parse_min_seq(fields), fields.get("feedback_tokens", False)
    if type(tokens) is not bool:
        raise UnacceptableError('"feedback_tokens" must be true or false.')
    (form,) = given
    return PredictBody(forms[form](tables, fields[form]), min_seq, tokens, form)


def parse_min_seq(fields: dict[str, Any]) -> int:
    """Return the `min_seq` of the fields of a body, or 0 if it has none; raise as `parse_seq`."""
    return parse_seq(fields, "min_seq")


def parse_seq(fields: dict[str, Any], name: str) -> int:
    """Return the field of a body that has a seq, or 0 if the field is missing.

    Raises:
        UnacceptableError: The value is not a seq.
    """
    seq = fields.get(name, 0)
    if type(seq) is not int or not 0 <= seq <= SEQ_MAX:
        raise UnacceptableError(f'"{name}" must be the seq of an event, a whole number from 0.')
    return seq
