"""Bodies of errors; the codes are those of `serve/error_codes.py`."""

from typing import Annotated, Final, Literal

from pydantic import Field

from service.serve.api.schemas.feedback_bodies import TokenAccepted
from service.serve.api.schemas.schema_types import Count, ResponseModel, absent, one_of
from service.serve.error_codes import ERROR_CODES

Code = Annotated[str, *one_of(ERROR_CODES)]
Places = list[Count]

REFUSED: Final = "The places of the refused events in the request, counted from 0; the first thousand."


class Error(ResponseModel):
    """Every error of the service."""

    error: str = Field(description="One sentence that says what to change; it never repeats the input.")
    code: Code = Field(description="The stable name of the error, for programs.")


class EventRefused(ResponseModel):
    """One of several events, which was refused."""

    id: str = Field(default_factory=absent, description="The event's id; left out if its token cannot be opened.")
    code: Code = Field(description="The stable name of the refusal.")


class PartlyRefused(ResponseModel):
    """Feedback of which some events are stored and some are refused."""

    error: str = Field(description="One sentence that says why the first event was refused.")
    code: Literal["some_refused"] = Field(description="The stable name of this outcome.")
    reason: Code = Field(description="The code of the first refusal.")
    accepted: Count = Field(description="How many events are stored.")
    refused: Places = Field(description=REFUSED)
    events: list[TokenAccepted | EventRefused] = Field(description="The outcome of each event, in their order.")


class AllRefused(ResponseModel):
    """Feedback tokens of which each is refused for a reason of its own."""

    error: str = Field(description="One sentence that says why the first event was refused.")
    code: Code = Field(description="The code of the first refusal.")
    accepted: Literal[0] = Field(description="How many events are stored.")
    refused: Places = Field(description=REFUSED)
    events: list[EventRefused] = Field(description="The outcome of each event, in their order.")


class NotReady(ResponseModel):
    """The response of the readiness calls while no predictions are taken."""

    error: str = Field(description="One sentence that says what is missing.")
    code: Literal["not_ready"] = Field(description="The stable name of the error, for programs.")
    ready: Literal[False] = Field(description="Whether the server takes predictions.")
    learning: Literal[False] = Field(
        default_factory=absent,
        description="False if the server is not ready because it does not learn; left out otherwise.",
    )
