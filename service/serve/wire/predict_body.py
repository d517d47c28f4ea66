"""Convert a parsed prediction body: the rows in one of several forms, and the members that may accompany them.

Every body with rows, also one of feedback or of an explanation, has them in exactly one of these members; table_rows.py
has the forms of a row:

    dataframe_split      {"columns": [...], "data": [[...], ...]}     MLflow, pandas' orient "split"
    dataframe_records    [{name: number, ...}, ...]                   MLflow, pandas' orient "records"
    instances            rows                                         TensorFlow Serving, SageMaker, Vertex AI
    inputs               {name: [number, ...], ...}, or rows          TensorFlow Serving, MLflow; a prediction then has
                                                                      "outputs" in place of "predictions"

A body of a prediction may also have:

    min_seq           answer from a state that contains the event with this seq; 0 if missing
    feedback_tokens   true: return a token for each row, to post later with its label instead of the row
    parameters, signature_name    ignored; clients of TensorFlow Serving send them

A member that is null counts as missing.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

from service.errors import UnacceptableError
from service.serve.wire.json_grammar import known_fields
from service.serve.wire.large_matrix import INSTANCES, SPLIT
from service.serve.wire.model_tables import ModelTables
from service.softmax.sparse_rows import Rows
from service.store.log.events import SEQ_MAX

# Converts the value of a form to X (B, N).
Convert = Callable[[ModelTables, Any], Rows]

RECORDS: Final = "dataframe_records"
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

    X: Rows
    min_seq: int = 0
    tokens: bool = False
    form: str = INSTANCES


def convert_inputs(tables: ModelTables, inputs: object) -> Rows:
    """Convert the value of "inputs" to X (B, N)."""
    return tables.convert_columns(inputs) if type(inputs) is dict else tables.convert_instances(inputs, INPUTS)


# The forms of rows, by the name of their member.
FORMS: Final[Mapping[str, Convert]] = {
    SPLIT: lambda tables, frame: tables.convert_split(frame, SPLIT),
    RECORDS: lambda tables, records: tables.convert_instances(records, RECORDS),
    INSTANCES: lambda tables, instances: tables.convert_instances(instances),
    INPUTS: convert_inputs,
}


def parse_predict_body(document: dict[str, Any], tables: ModelTables) -> PredictBody:
    """Convert a parsed body of `:predict` to a prediction request.

    Raises:
        UnacceptableError: A member is missing, unknown or invalid.
        TooLargeError: There are more rows than the limit.
    """
    return convert_body(known_fields(document, (*FORMS, *OPTIONS)), tables)


def convert_body(members: dict[str, Any], tables: ModelTables) -> PredictBody:
    """Convert the members of a body of a prediction.

    Raises:
        UnacceptableError: There is not exactly one of the forms of rows, or a member is invalid.
        TooLargeError: There are more rows than the limit.
    """
    form = find_form(members)
    min_seq, tokens = parse_min_seq(members), members.get("feedback_tokens", False)
    if type(tokens) is not bool:
        raise UnacceptableError('"feedback_tokens" must be true or false.')
    return PredictBody(FORMS[form](tables, members[form]), min_seq, tokens, form)


def find_form(members: dict[str, Any]) -> str:
    """Return the name of the member that has the rows of a body; raise UnacceptableError unless there is one."""
    given = [form for form in FORMS if form in members]
    if len(given) != 1:
        raise UnacceptableError(f"The body must have exactly one of {', '.join(FORMS)}.")
    return given[0]


def convert_rows(members: dict[str, Any], tables: ModelTables) -> Rows:
    """Convert the rows of a body, in whichever form.

    Raises:
        UnacceptableError: There is not exactly one of the forms of rows, or a row is not one of this model.
        TooLargeError: There are more rows than the limit.
    """
    form = find_form(members)
    return FORMS[form](tables, members[form])


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
