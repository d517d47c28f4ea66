"""Bodies of the call that lists the events of a model."""

from typing import Annotated, Any, Final

from pydantic import Field

from service.serve.api.schemas.schema_types import Count, ResponseModel, Seq, one_of
from service.store.log.events import Kind

EventKind = Annotated[str, *one_of(kind.name.lower() for kind in Kind)]
Stretch = Annotated[list[Seq], Field(min_length=2, max_length=2)]


class ListedEvent(ResponseModel):
    """An event without its features; the members that do not apply to it, or are not known, are null."""

    seq: Seq = Field(description="Its position in the stream.")
    kind: EventKind = Field(description="Feedback, or the kind of an administrative change.")
    id: str = Field(description="Its id.")
    time_ms: Count = Field(description="When it was stored, in milliseconds since 1970.")
    actor: str | None = Field(description="Who sent it; null if the service had no keys.")
    removed: Annotated[str, *one_of(("forgotten", "skipped", "rolled_back"))] | None = Field(
        description="Why the served state is not made of it."
    )
    rows: Count | None = Field(description="How many rows it has.")
    label: Count | None = Field(description="The index of the label of its only row, after corrections.")
    answer: Count | None = Field(description="The index of the class that the model answered before it learned.")
    loss: float | None = Field(
        description="The loss of that answer, of several rows the mean; null once it is discarded."
    )
    detail: dict[str, Any] | None = Field(description="The content of an administrative change.")


class EventList(ResponseModel):
    """Some events of a model."""

    events: list[ListedEvent] = Field(
        description="The events, newest first; the most surprising ones with the largest loss first."
    )
    forgotten: list[Stretch] = Field(
        description="The first and the last seq of each stretch of forgotten feedback, ascending; the last 512."
    )


_EVENT: Final = {
    "seq": 2,
    "kind": "feedback",
    "id": "evt-2",
    "time_ms": 1796030000000,
    "actor": "key:k7m2q9xd",
    "removed": None,
    "rows": 1,
    "label": 2,
    "answer": 1,
    "loss": 1.2039728,
    "detail": None,
}
_NOT_FEEDBACK: Final = {"rows": None, "label": None, "answer": None, "loss": None}
EVENTS: Final = {
    "two events": {
        "events": [
            {**_EVENT, "seq": 3, "kind": "forget", "id": "undo", **_NOT_FEEDBACK, "detail": {"count": 1}},
            _EVENT,
        ],
        "forgotten": [[1, 1]],
    },
    "before any feedback": {"events": [], "forgotten": []},
}
EVENT_LINES: Final = {"one event": '{"seq":2,"kind":"feedback","id":"evt-2",…}\n'}
