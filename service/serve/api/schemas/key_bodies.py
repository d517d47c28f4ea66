"""The body of the call that says what a key permits."""

from typing import Annotated, Final

from pydantic import Field

from service.access.scopes import Scope
from service.serve.api.schemas.schema_types import ResponseModel, one_of

ScopeName = Annotated[str, *one_of(Scope)]


class KeyDescription(ResponseModel):
    """The scopes of the sender of a request."""

    required: bool = Field(description="Whether calls need a key, a JWT or a client's certificate.")
    scopes: list[ScopeName] = Field(
        description="The scopes that the sender has at this port; all of them in a service without keys."
    )


KEYS: Final = {
    "without keys": {"required": False, "scopes": ["predict", "feedback", "admin"]},
    "a key with one scope": {"required": True, "scopes": ["predict"]},
}
