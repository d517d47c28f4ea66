"""An endpoint for a principal with limits: it serves the same model, and charges each request to the limits.

The fast path knows nothing of limits. A remembered head of such a principal has an endpoint of this class, whose kinds
come after the usual ones, and whose handlers charge the request before they answer (dispatcher.py).
"""

from typing import Final, cast

from service.serve.limits.limiter import Limiter
from service.serve.models.endpoint import KINDS, Endpoint
from service.serve.models.served_model import ServedModel
from service.serve.models.single_row import SingleRow

# The label of a request that a limit refuses: the general path words the refusal.
REFUSED: Final = -1


class LimitedSingleRow:
    """The shortest way to predict one row, for a principal with limits; it stands in for a `SingleRow`.

    The row is predicted first, because only then it is known to be one. A refused request costs that prediction, and
    leaves the limits as they were.

    Args:
        single_row: The way without limits.
        limiter: The limits.

    Attributes:
        P: As of `single_row`.
        count_row: As of `single_row`.
    """

    def __init__(self, single_row: SingleRow, limiter: Limiter) -> None:
        self.P: Final = single_row.P
        self.count_row: Final = single_row.count_row
        self._predict_row: Final = single_row.predict_row
        self._take: Final = limiter.take_row_request

    def predict_row(self, data: bytes, start: int) -> int:
        """Predict as `single_row` does; return a negative number also if a limit refuses the request."""
        label = self._predict_row(data, start)
        return label if label < 0 or self._take() else REFUSED


class LimitedEndpoint(Endpoint):
    """An endpoint that charges each request to the limits of one principal.

    Args:
        endpoint: The usual endpoint; what it serves from now on, this one serves too.

    Attributes:
        limiter: The limits; None before the first request.
    """

    __slots__ = ("_limited_row", "_single_row", "endpoint", "limiter")

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint: Final = endpoint
        self.kind = endpoint.kind + KINDS
        self.any_version = endpoint.any_version
        self.protocol = endpoint.protocol
        self.limiter: Limiter | None = None
        self._single_row: SingleRow | None = None
        self._limited_row: LimitedSingleRow | None = None

    @property
    def served(self) -> ServedModel:  # type: ignore[override]  # it follows the other endpoint
        """The state that the usual endpoint serves now."""
        return self.endpoint.served

    @property
    def single_row(self) -> SingleRow | None:  # type: ignore[override]  # as above
        """The shortest way to predict one row within the limits, or None."""
        usual = self.endpoint.single_row
        if usual is not self._single_row or self._limited_row is None:
            self._single_row = usual
            self._limited_row = None if usual is None or self.limiter is None else LimitedSingleRow(usual, self.limiter)
        return cast("SingleRow | None", self._limited_row)
