"""Parse a prediction body: the rows, and the fields that may accompany them.

instances         the rows
min_seq           answer from a state that contains the event with this seq; 0 if missing
feedback_tokens   true: return a token for each row, to post later with its label instead of the row
parameters, signature_name    ignored; clients of TensorFlow Serving send them
"""

from typing import Any, Final, NamedTuple

from service.errors import UnacceptableError
from service.serve.wire.rows import RowParser, get_instances
from service.softmax.arrays import Floats

FIELDS: Final = ("instances", "min_seq", "feedback_tokens", "parameters", "signature_name")
# A seq has 40 bits (store/log/events.py).
MIN_SEQ_MAX: Final = 1 << 40


class PredictBody(NamedTuple):
    """A prediction request.

    Attributes:
        X: The rows, (B, N) in the model's dtype.
        min_seq: The seq that the answering state must contain.
        tokens: Whether to return feedback tokens.
    """

    X: Floats
    min_seq: int = 0
    tokens: bool = False


def parse_predict_body(document: dict[str, Any], rows: RowParser) -> PredictBody:
    """Convert a parsed body to a prediction request.

    Raises:
        UnacceptableError: A field is missing, unknown or invalid.
        TooLargeError: There are more rows than the limit.
    """
    instances = get_instances(document, FIELDS)
    min_seq, tokens = parse_min_seq(document), document.get("feedback_tokens", False)
    if type(tokens) is not bool:
        raise UnacceptableError('"feedback_tokens" must be true or false.')
    return PredictBody(rows.convert_rows(instances), min_seq, tokens)


def parse_min_seq(document: dict[str, Any]) -> int:
    """Return the `min_seq` of a parsed body, or 0 if it has none.

    Raises:
        UnacceptableError: The value is not a seq.
    """
    min_seq = document.get("min_seq", 0)
    if type(min_seq) is not int or not 0 <= min_seq < MIN_SEQ_MAX:
        raise UnacceptableError('"min_seq" must be the seq of an event, a whole number from 0.')
    return min_seq
