"""Bodies of `:feedback`, and the acknowledgement of events that it shares with the admin calls."""

from typing import Annotated, Any, Final

from pydantic import Field, RootModel

from service.serve.api.schemas.row_forms import ROW_FORMS, InputsRows, InstancesRows, RecordsRows, SplitRows
from service.serve.api.schemas.schema_types import (
    IGNORED,
    IRIS,
    EventId,
    Labels,
    RequestModel,
    ResponseModel,
    Seq,
    absent,
)
from service.serve.wire.feedback_body import WEIGHT_MAX

RowWeight = Annotated[float, Field(gt=0, le=WEIGHT_MAX)]
RowWeights = Annotated[list[RowWeight], Field(min_length=1)]
# The losses of an event's rows; null once they have been discarded, and for a row that could not be scored.
Losses = list[float | None] | None

LABELS: Final = (
    "The label of each row: a class name, a class index, or a list of probabilities for all classes. "
    "For a multi-label model: a list of class names or indices."
)
WEIGHTS: Final = "The importance of each row; 1 if left out."


class FeedbackOptions(RequestModel):
    """The members of feedback that are not rows."""

    id: EventId | None = Field(
        default_factory=absent,
        description="The event's idempotency key, at most 128 bytes in UTF-8. "
        "The same id with the same content counts once. The service makes one if it is left out.",
    )
    labels: Labels = Field(description=LABELS)
    weights: RowWeights | None = Field(default_factory=absent, description=WEIGHTS)
    parameters: Any = Field(default_factory=absent, description=IGNORED)
    signature_name: Any = Field(default_factory=absent, description=IGNORED)


class FeedbackRows(InstancesRows, FeedbackOptions):
    """Rows with their labels: one event."""


class FeedbackInputs(InputsRows, FeedbackOptions):
    """Columns with the labels of their rows: one event."""


class FeedbackSplit(SplitRows, FeedbackOptions):
    """A table with the labels of its rows: one event."""


class FeedbackRecords(RecordsRows, FeedbackOptions):
    """Objects with their labels: one event."""


class FeedbackTokens(RequestModel):
    """Tokens of earlier predictions with their labels: one event for each token."""

    tokens: list[str] = Field(min_length=1, description='The "feedback_tokens" of predictions, in place of their rows.')
    labels: Labels = Field(description=LABELS)
    weights: RowWeights | None = Field(default_factory=absent, description=WEIGHTS)
    parameters: Any = Field(default_factory=absent, description=IGNORED)
    signature_name: Any = Field(default_factory=absent, description=IGNORED)


class FeedbackRequest(RootModel[FeedbackRows | FeedbackInputs | FeedbackSplit | FeedbackRecords | FeedbackTokens]):
    """Feedback as rows or as tokens."""


class EventAccepted(ResponseModel):
    """An event that is stored."""

    id: str = Field(description="The event's id.")
    seq: Seq = Field(description="The event's position in the feedback log of its model version.")
    duplicate: bool = Field(description="Whether the event was stored before, by an earlier request with its id.")


class FeedbackAccepted(EventAccepted):
    """An event that is stored, with the model version that holds it."""

    model_name: str = Field(description="The model's name.")
    model_version: str = Field(
        description="The version that stores the event; an earlier one for a duplicate that was sent to it."
    )


class FeedbackServed(FeedbackAccepted):
    """An event that the served weights hold."""

    losses: Losses = Field(
        description="The loss of each row before its step; null for a row that could not be scored. "
        "Null in place of the list once the losses have been discarded."
    )


class TokenAccepted(EventAccepted):
    """One of several events that are stored."""

    model_version: str = Field(
        default_factory=absent, description="The version that stores the event, if it is not that of the response."
    )


class TokenServed(TokenAccepted):
    """One of several events that the served weights hold."""

    losses: Losses = Field(description="The loss of the event's row before its step; null once it has been discarded.")


class TokensAccepted(ResponseModel):
    """Several events that are stored."""

    model_name: str = Field(description="The model's name.")
    model_version: str = Field(description="The version that the request was sent to.")
    events: list[TokenAccepted] = Field(description="The events, in the order of the request.")


class TokensServed(ResponseModel):
    """Several events that the served weights hold."""

    model_name: str = Field(description="The model's name.")
    model_version: str = Field(description="The version that the request was sent to.")
    events: list[TokenServed] = Field(description="The events, in the order of the request.")


FEEDBACK_REQUESTS: Final = {
    "one row": {"id": "evt-1", "instances": [IRIS], "labels": ["setosa"]},
    "weighted rows": {
        "instances": [IRIS, [6.7, 3.0, 5.2, 2.3]],
        "labels": [0, [0.0, 0.1, 0.9]],
        "weights": [1.0, 2.5],
    },
    **{name: {**body, "labels": ["setosa"]} for name, body in ROW_FORMS.items()},
}
_IRIS: Final = {"model_name": "iris", "model_version": "1"}
_TOKEN_EVENT: Final = {"id": "01a22561-e2a2-7469-b24e-885bbb49be0d", "seq": 2, "duplicate": False}
ACCEPTED: Final = {"one row": {**_IRIS, "id": "evt-1", "seq": 1, "duplicate": False}}
FEEDBACK_ACCEPTED: Final = {**ACCEPTED, "one token": {**_IRIS, "events": [_TOKEN_EVENT]}}
FEEDBACK_SERVED: Final = {
    "one row": {**_IRIS, "id": "evt-1", "seq": 1, "duplicate": False, "losses": [0.000745935744273617]},
    "one token": {**_IRIS, "events": [{**_TOKEN_EVENT, "losses": [0.0006821632]}]},
}
