"""The meaning of a path on the fast path: a kind of request, and the model version that answers it now."""

from typing import Final

from service.serve.models.served_model import ServedModel
from service.serve.responses import V1, V2

# The kinds of requests to a model; each has one handler (handlers/dispatcher.py). The fast path answers all but INVOKE
# and VERTEX. They are plain integers because an enum's member costs more to look up than to compare.
PREDICT, INFER, EXPLAIN, FEEDBACK, INVOKE, VERTEX, PULSE, HISTORY, DRIFT, QUALITY = range(10)
KINDS: Final = 10
# The kinds that are GET: they read how a model has learned.
READS: Final = frozenset((PULSE, HISTORY, DRIFT, QUALITY))


class Endpoint:
    """A kind of request to one model version, as it is served now.

    Attributes:
        kind: One of the kinds above; it decides which handler answers.
        protocol: V1 or V2, for errors and counters.
        any_version: Whether the path names no version; feedback tokens then reach the version that issued them.
        served: The served state; a request reads it once and keeps it to its end.
        single_row: The shortest way to predict one row, or None.
    """

    __slots__ = ("any_version", "kind", "protocol", "served", "single_row")

    def __init__(self, kind: int, served: ServedModel, *, any_version: bool = False) -> None:
        self.kind = kind
        self.any_version = any_version
        self.protocol = V2 if kind == INFER else V1
        self.serve(served)

    def serve(self, served: ServedModel) -> None:
        """Answer with another state of the model from now on."""
        self.served = served
        self.single_row = served.single_row if self.kind == PREDICT else None
