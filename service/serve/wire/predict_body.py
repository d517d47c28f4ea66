"""What a prediction body asks for: the rows, and what may stand beside them.

instances         the rows
min_seq           the answer comes from a state that holds the event with that seq; 0 where it is missing
feedback_tokens   true: one token for each row, to send with its label later in place of the row
parameters, signature_name    ignored: clients of TensorFlow Serving send them
"""

from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from service.errors import UnacceptableError
from service.serve.wire.json_grammar import check_fields
from service.serve.wire.rows import RowParser

FIELDS: Final = ("instances", "min_seq", "feedback_tokens", "parameters", "signature_name")
# The largest seq there can be (store/log/events.py) has 40 bits.
MIN_SEQ_MAX: Final = 1 << 40

Floats = NDArray[np.floating[Any]]


class PredictBody(NamedTuple):
    """A prediction request: its rows X (B, N), the seq it waits for, and whether it wants tokens."""

    X: Floats
    min_seq: int = 0
    tokens: bool = False


def parse_predict_body(document: dict[str, Any], rows: RowParser) -> PredictBody:
    """What a parsed body asks for.

    Raises:
        UnacceptableError: A field is missing, unknown or not what it must be.
        TooLargeError: There are more rows than the limit.
    """
    check_fields(document, FIELDS)
    if "instances" not in document:
        raise UnacceptableError('The body must have "instances": a list of rows.')
    min_seq, tokens = parse_min_seq(document), document.get("feedback_tokens", False)
    if type(tokens) is not bool:
        raise UnacceptableError('"feedback_tokens" must be true or false.')
    return PredictBody(rows.convert_rows(document["instances"]), min_seq, tokens)


def parse_min_seq(document: dict[str, Any]) -> int:
    """The seq that the answer to a parsed body waits for; 0 where it says nothing of one.

    Raises:
        UnacceptableError: It is none.
    """
    min_seq = document.get("min_seq", 0)
    if type(min_seq) is not int or not 0 <= min_seq < MIN_SEQ_MAX:
        raise UnacceptableError('"min_seq" must be the seq of an event, a whole number from 0.')
    return min_seq
