"""The principal of a request: who sent it, and what they may do."""

from math import inf
from typing import Final, NamedTuple

from service.access.scopes import ALL_SCOPES, Scope, matches_any


class Limits(NamedTuple):
    """How much a principal may ask for; None for no limit.

    Attributes:
        requests_per_second: Requests, of all kinds together.
        rows_per_second: Rows of predictions, explanations and feedback together.
        requests_in_flight: Requests in progress at one time.
        feedback_events_per_hour: Events of feedback for each model.
        importance_per_hour: The sum of the importance of the rows of feedback for each model.
    """

    requests_per_second: float | None = None
    rows_per_second: float | None = None
    requests_in_flight: int | None = None
    feedback_events_per_hour: float | None = None
    importance_per_hour: float | None = None


NO_LIMITS: Final = Limits()


class Principal(NamedTuple):
    """The sender of a request, and what they may do.

    Attributes:
        actor: The name that events and the audit log have: "key:<id>", or a keyed hash of an identity that another
            service vouches for. Empty in a service without keys.
        scopes: The kinds of calls that are permitted.
        models: The patterns of the names of the models that are permitted, or None for all models.
        expires: When the credential ends, in seconds since 1970.
        limits: How much the principal may ask for.
    """

    actor: str
    scopes: frozenset[Scope]
    models: tuple[str, ...] | None = None
    expires: float = inf
    limits: Limits = NO_LIMITS

    def permits_model(self, model: str) -> bool:
        """Whether calls for a model are permitted."""
        return self.models is None or matches_any(model, self.models)


# Everybody, in a service without keys.
ANYONE: Final = Principal("", ALL_SCOPES)
