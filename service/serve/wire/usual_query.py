"""Parse the usual query of a GET: whole numbers by their names; of repeated ones the last counts, as in FastAPI.

FastAPI parses any other query, and refuses it if it is wrong.
"""

from collections.abc import Set as AbstractSet
from typing import Final

from service.serve.responses import Query
from service.store.log.events import SEQ_MAX

DIGITS_MAX: Final = len(str(SEQ_MAX))


def parse_usual_query(query: bytes, names: AbstractSet[bytes]) -> Query | None:
    """Return the parameters of a query, or None if it is not a usual one.

    Args:
        query: What follows the question mark of the request's target.
        names: The names of the parameters that the call takes.
    """
    numbers: dict[str, int] = {}
    for part in query.split(b"&") if query else ():
        name, _, digits = part.partition(b"=")
        if name not in names or not digits.isdigit() or len(digits) > DIGITS_MAX:
            return None
        numbers[name.decode()] = int(digits)
    return None if max(numbers.values(), default=0) > SEQ_MAX else numbers
