"""Bodies of the admin calls `:classes`, `:forget`, `:correct`, `:rollback` and `:configure`.

The routes validate them with these models. `handlers/admin_requests.py` and `handlers/correction_requests.py` check
what depends on the served model.
"""

from typing import Annotated, Any, Final, Self

from pydantic import BeforeValidator, Field, TypeAdapter, WithJsonSchema, model_validator
from pydantic_core import PydanticCustomError

from service.record import NAME_CHARACTERS_MAX
from service.serve.api.schemas.feedback_bodies import LABELS, EventAccepted
from service.serve.api.schemas.schema_types import (
    ID_REQUIREMENT,
    OR_NULL,
    SEQ_REQUIREMENT,
    EventId,
    Labels,
    RequestModel,
    Requirement,
    ResponseModel,
    Seq,
)
from service.serve.handlers.admin_requests import FORGET_MAX
from service.serve.handlers.correction_requests import CORRECT_MAX
from service.serve.wire.json_grammar import drop_nulls
from service.store.log.append_rules import CLASSES_MAX
from service.store.log.events import ID_BYTES_MAX
from service.store.log.ids import new_id

ClassName = Annotated[str, Field(min_length=1, max_length=NAME_CHARACTERS_MAX)]
# Whole numbers stay whole in the stored event.
ConstantValue = Annotated[int | float, WithJsonSchema({"anyOf": [{"type": "number"}, {"type": "null"}]})]
# Labels as they are in the body: the parser of labels tells a class index from a probability by its type.
EventLabels = Annotated[list[Any], WithJsonSchema(TypeAdapter(Labels).json_schema())]


def _drop_nulls(constants: object) -> object:
    """Drop the constants that are null: they keep their defaults."""
    return drop_nulls(constants) if isinstance(constants, dict) else constants


class AdminCall(RequestModel):
    """The optional members of every admin call."""

    id: Annotated[EventId, OR_NULL, Requirement(ID_REQUIREMENT)] = Field(
        default_factory=lambda: new_id().decode(),
        description="The event's idempotency key, at most 128 bytes in UTF-8. The service makes one if it is left out.",
    )
    if_seq: Annotated[Seq | None, Requirement(SEQ_REQUIREMENT)] = Field(
        default=None, description="Refuse the call with 409 if the model has any event after this seq."
    )


class AddClassesRequest(AdminCall):
    """Classes to add after the existing ones."""

    add: Annotated[
        list[ClassName],
        Requirement(f"must be a list of at least one class name of 1 to {NAME_CHARACTERS_MAX} characters."),
    ] = Field(
        min_length=1,
        max_length=CLASSES_MAX,
        description=f"The names of the new classes, all different. A model has at most {CLASSES_MAX} classes.",
    )


class ForgetRequest(AdminCall):
    """Feedback to forget."""

    ids: Annotated[
        list[EventId],
        Requirement(f"must be a list of 1 to {FORGET_MAX} ids of feedback, each of 1 to {ID_BYTES_MAX} bytes."),
    ] = Field(min_length=1, max_length=FORGET_MAX, description="The ids of the feedback events to forget.")


class CorrectRequest(AdminCall):
    """Feedback whose labels were wrong, with the right ones."""

    ids: Annotated[
        list[EventId],
        Requirement(f"must be a list of 1 to {CORRECT_MAX} ids of feedback, each of 1 to {ID_BYTES_MAX} bytes."),
    ] = Field(min_length=1, max_length=CORRECT_MAX, description="The ids of the feedback events to correct.")
    labels: Annotated[list[EventLabels], Requirement('must be a list of one list of labels for each of "ids".')] = (
        Field(min_length=1, max_length=CORRECT_MAX, description=f"For each event the labels of all its rows. {LABELS}")
    )

    @model_validator(mode="after")
    def check_events(self) -> Self:
        """Refuse labels that are not one list for each id, and an id that is named twice."""
        if len(self.labels) != len(self.ids):
            raise PydanticCustomError("other_count", '"labels" must be a list of one list of labels for each of "ids".')
        if len(set(self.ids)) != len(self.ids):
            raise PydanticCustomError("named_twice", 'One of "ids" is named twice; send the labels of each event once.')
        return self


class RollbackRequest(AdminCall):
    """The state to go back to."""

    seq: Annotated[Seq, Requirement(SEQ_REQUIREMENT)] = Field(
        description="The seq of the state to go back to; 0 is the model as it was trained."
    )


class ConfigureRequest(AdminCall):
    """Changes of how a model learns; at least one."""

    rule: Annotated[str, OR_NULL, Requirement("must be the name of a learning rule.")] = Field(
        default_factory=str, description="The learning rule: `sgd`, `adagrad`, `ftrl`, `newton` or `mixture`."
    )
    constants: Annotated[
        dict[str, ConstantValue], BeforeValidator(_drop_nulls), OR_NULL, Requirement("must be an object of numbers.")
    ] = Field(default_factory=dict, description="Constants of the rule by name; the others keep their defaults.")
    paused: Annotated[bool, OR_NULL, Requirement("must be true or false.")] = Field(
        default_factory=bool, description="Whether the model ignores feedback until it is resumed."
    )
    shadow: Annotated[bool, OR_NULL, Requirement("must be true or false.")] = Field(
        default_factory=bool, description="Whether the model learns while it serves the weights it had before."
    )

    @model_validator(mode="after")
    def check_changes(self) -> Self:
        """Refuse a call that changes nothing, and constants without their rule."""
        changes = self.changes()
        if not changes:
            raise PydanticCustomError(
                "no_change", 'The body must have one of "rule", "constants", "paused" and "shadow".'
            )
        if "constants" in changes and "rule" not in changes:
            raise PydanticCustomError("no_rule", '"constants" are those of a "rule"; name it too.')
        return self

    def changes(self) -> dict[str, object]:
        """Return the members that change something, by their names."""
        return self.model_dump(exclude={"id", "if_seq"}, exclude_unset=True)


class VersionEvent(EventAccepted):
    """The event of a call in one version of the model."""

    model_version: str = Field(
        default_factory=str, description="The version that stores the event, if it is not that of the response."
    )


class AcceptedInVersions(ResponseModel):
    """The events of a call that concerns several versions of a model."""

    model_name: str = Field(description="The model's name.")
    model_version: str = Field(description="The version that is served by default.")
    events: list[VersionEvent] = Field(description="One event for each version, that of the largest version first.")


CLASSES_REQUESTS: Final = {"one class": {"add": ["other"]}}
FORGET_REQUESTS: Final = {"one event": {"ids": ["evt-1"]}}
CORRECT_REQUESTS: Final = {
    "one event": {"ids": ["evt-1"], "labels": [["versicolor"]]},
    "a distribution": {"ids": ["evt-1"], "labels": [[[0.1, 0.9, 0.0]]], "id": "fix"},
}
ROLLBACK_REQUESTS: Final = {"as it was trained": {"seq": 0}, "with a condition": {"seq": 0, "if_seq": 7, "id": "undo"}}
CONFIGURE_REQUESTS: Final = {
    "pause": {"paused": True},
    "another rule": {"rule": "ftrl", "constants": {"rate": 0.1}, "paused": False},
}
_IRIS: Final = {"model_name": "iris", "model_version": "1"}
ADMIN_ACCEPTED: Final = {
    "one event": {**_IRIS, "id": "01a22561-e2e0-7000-b091-b8ca64a42303", "seq": 4, "duplicate": False}
}
CORRECT_ACCEPTED: Final = {
    "one event": {**_IRIS, "events": [{"id": "fix", "seq": 4, "duplicate": False}]},
    "two versions": {
        "model_name": "iris",
        "model_version": "2",
        "events": [
            {"id": "fix", "seq": 9, "duplicate": False},
            {"id": "fix/2", "seq": 5, "duplicate": False, "model_version": "1"},
        ],
    },
}
FORGET_ACCEPTED: Final = {
    **ADMIN_ACCEPTED,
    "two versions": {
        "model_name": "iris",
        "model_version": "2",
        "events": [
            {"id": "undo", "seq": 9, "duplicate": False},
            {"id": "undo/1", "seq": 5, "duplicate": False, "model_version": "1"},
        ],
    },
}
