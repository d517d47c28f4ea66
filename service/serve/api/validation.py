"""Validation of small bodies and of query parameters by pydantic, with refusals that never repeat the input."""

import re
from collections.abc import Mapping
from typing import Annotated, Final, TypeVar

from fastapi import Query
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, BeforeValidator, Field, ValidationError
from pydantic_core import ErrorDetails, PydanticCustomError

from service.errors import UnacceptableError
from service.serve.api.schemas.schema_types import SEQ_REQUIREMENT, Requirement
from service.serve.handlers.event_list import LIMIT_MAX
from service.serve.responses import HttpResponse, error
from service.serve.wire.json_grammar import check_fields, drop_nulls, parse_object
from service.settings import Settings
from service.store.log.events import SEQ_MAX
from service.store.states.event_entries import EventChoice

M = TypeVar("M", bound=BaseModel)

FLAG_REQUIREMENT: Final = "must be true or false."
COUNT_REQUIREMENT: Final = f"must be an integer from 0 to {SEQ_MAX}."
FLAGS: Final[Mapping[object, bool]] = {"true": True, "1": True, "false": False, "0": False, True: True, False: False}
DIGITS: Final = re.compile("[0-9]{1,13}")


def parse_body(body: bytes, settings: Settings, model: type[M]) -> M:
    """Parse and validate a JSON body.

    Args:
        body: The bytes.
        settings: The limits of depth and size.
        model: The model of the body.

    Members that are null count as absent.

    Raises:
        MalformedError: The bytes are not JSON of our grammar.
        TooLargeError: They hold too many lists and objects.
        UnacceptableError: They do not fit the model; the sentence names the member.
    """
    document = parse_object(body, settings.json_depth_max, settings.rows_max)
    if model.model_config["extra"] == "forbid":
        check_fields(document, model.model_fields)
    try:
        return model.model_validate(drop_nulls(document), strict=True)
    except ValidationError as reason:
        raise UnacceptableError(_sentence(reason.errors(include_url=False, include_input=False), model)) from None


def _sentence(errors: list[ErrorDetails], model: type[BaseModel]) -> str:
    """Return what to change in a body, without anything that stands in it."""
    first = errors[0]
    if not first["loc"]:  # of a validator of the whole body
        return first["msg"]
    name = str(first["loc"][0])
    (requirement,) = (one for one in model.model_fields[name].metadata if isinstance(one, Requirement))
    return f'"{name}" {requirement.text}'


def _flag(value: object) -> bool:
    """Convert a query parameter to a truth value; pydantic itself would take "yes" and "on" too."""
    flag = FLAGS.get(value)
    if flag is None:
        raise PydanticCustomError("flag", "This is neither true nor false.")
    return flag


def _digits(value: object) -> object:
    """Refuse a query parameter that is not written in digits; pydantic itself would take "1_0" and " 10 " too."""
    if isinstance(value, str) and not DIGITS.fullmatch(value):
        raise PydanticCustomError("digits", "This is not an integer from 0.")
    return value


Wait = Annotated[
    bool,
    BeforeValidator(_flag),
    Query(description="Whether to answer only when the event is served, with 200 in place of 202."),
]
SeqQuery = Annotated[
    Annotated[int, Field(ge=0, le=SEQ_MAX), BeforeValidator(_digits)] | None,
    Query(description="The seq of the state; the served state if it is left out.", examples=[0]),
]
PastSeqQuery = Annotated[
    Annotated[int, Field(ge=0, le=SEQ_MAX), BeforeValidator(_digits)] | None,
    Query(description="The last seq that counts; the latest rows count if it is left out.", examples=[0]),
]
SinceQuery = Annotated[
    Annotated[int, Field(ge=0, le=SEQ_MAX), BeforeValidator(_digits)],
    Query(description="The seq up to which the client has the history: its last `until`.", examples=[0]),
]
EpochQuery = Annotated[
    Annotated[int, Field(ge=0, le=SEQ_MAX), BeforeValidator(_digits)] | None,
    Query(description="The epoch of the history that the client has.", examples=[0]),
]
BucketQuery = Annotated[
    Annotated[int, Field(ge=0, le=SEQ_MAX), BeforeValidator(_digits)] | None,
    Query(description="The `bucket` of the history that the client has.", examples=[1]),
]
BeforeQuery = Annotated[
    Annotated[int, Field(ge=0, le=SEQ_MAX), BeforeValidator(_digits)] | None,
    Query(description="The seq before which the events are; the newest ones if it is left out.", examples=[41]),
]
LimitQuery = Annotated[
    int, Field(ge=1, le=LIMIT_MAX), BeforeValidator(_digits), Query(description="The most events of the answer.")
]
ChoiceQuery = Annotated[
    EventChoice, Query(description="All events, administrative changes alone, or the rows with the largest losses.")
]
# What each query parameter must be.
PARAMETERS: Final = {
    "wait": FLAG_REQUIREMENT,
    "seq": SEQ_REQUIREMENT,
    "since": SEQ_REQUIREMENT,
    "epoch": COUNT_REQUIREMENT,
    "bucket": COUNT_REQUIREMENT,
    "before": SEQ_REQUIREMENT,
    "limit": f"must be an integer from 1 to {LIMIT_MAX}.",
    "kind": "must be all, admin or surprising.",
}


def invalid_parameter(reason: RequestValidationError) -> HttpResponse:
    """Return the response to a path or query that FastAPI refuses; FastAPI's own would repeat the input."""
    name = str(reason.errors()[0]["loc"][1])
    return error("invalid_parameter", f'"{name}" {PARAMETERS[name]}')
