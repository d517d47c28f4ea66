"""Base classes and member types of the models in this package.

A request model refuses unknown members, as the service does. A response model ignores them, so that a client made from
the document still reads the responses of a later release.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Any, Final

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, GetJsonSchemaHandler
from pydantic.fields import FieldInfo
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError

from service.store.log.events import ID_BYTES_MAX, SEQ_MAX

# Standard base64 with padding; the bits that padding leaves over are 0 (serve/wire/base64_rows.py).
BASE64: Final = (
    "^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}[AEIMQUYcgkosw048]=|[A-Za-z0-9+/][AQgw]==)?$"  # 4, 3 or 2 characters
)


class RequestModel(BaseModel):
    """The body of a request; unknown members are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class ResponseModel(BaseModel):
    """The body of a response, or a part of one."""

    model_config = ConfigDict(frozen=True)


@dataclass(frozen=True)
class Requirement:
    """The requirement of a member: the end of the sentence that rejects another value."""

    text: str


class Base64Row(RequestModel):
    """A row of numbers in base64."""

    b64: Annotated[str, Field(min_length=4, pattern=BASE64, json_schema_extra={"contentEncoding": "base64"})] = Field(
        description="The numbers of the row, as little-endian float32 or float16, in standard base64 with padding. "
        "The number of bytes, 4 or 2 for each feature, tells which."
    )


class OrNull:
    """Adds null to the schema of an optional member; `parse_body` drops a null before it validates the others."""

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """Return the schema of the member, or of null."""
        return {"anyOf": [handler(schema), {"type": "null"}]}


OR_NULL: Final = OrNull()


def absent() -> Any:  # noqa: ANN401  # the value of a member of any type
    """Return None, the value in Python of an optional member that a body leaves out.

    As a default factory it makes the member optional, without a default or a null in its schema.
    """
    return None


def one_of(names: Iterable[str]) -> tuple[AfterValidator, FieldInfo]:
    """Return the validator of a text that is one of these names, and the enumeration for its schema."""
    known = tuple(names)

    def check(text: str) -> str:
        if text not in known:
            raise PydanticCustomError("unknown_name", "This is not one of the names.")
        return text

    return AfterValidator(check), Field(json_schema_extra={"enum": list(known)})


def _check_id(text: str) -> str:
    """Refuse an id that is too long in UTF-8; JSON Schema can limit only its characters."""
    if len(text.encode()) > ID_BYTES_MAX:
        raise PydanticCustomError("id_too_long", "An id is too long.")
    return text


SEQ_REQUIREMENT: Final = f"must be the seq of an event, an integer from 0 to {SEQ_MAX}."
ID_REQUIREMENT: Final = f"must be a text of 1 to {ID_BYTES_MAX} bytes."

Seq = Annotated[int, Field(ge=0, le=SEQ_MAX)]
Count = Annotated[int, Field(ge=0)]
EventId = Annotated[str, Field(min_length=1, max_length=ID_BYTES_MAX), AfterValidator(_check_id)]
Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
# A class by name or index, or one number or class for each class.
Label = str | Annotated[int, Field(ge=0)] | list[float | str]
Labels = Annotated[list[Label], Field(min_length=1)]
# The label in a response: a class, or the classes of a multi-label model.
PredictedLabel = str | list[str]
# What TensorFlow Serving's clients send beside the rows.
IGNORED: Final = "Ignored; clients of TensorFlow Serving send it."

# The row that the examples send; it fits the shipped model `iris`.
IRIS: Final = [5.1, 3.5, 1.4, 0.2]
IRIS_BASE64: Final = "MzOjQAAAYEAzM7M/zcxMPg=="
IRIS_CLASSES: Final = ["setosa", "versicolor", "virginica"]
IRIS_FEATURES: Final = ["sepal length (cm)", "sepal width (cm)", "petal length (cm)", "petal width (cm)"]
IRIS_PROBABILITIES: Final = [0.9992543, 0.00074565754, 4.2884024e-17]
