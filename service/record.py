"""The base class of all records of a manifest, its fields included, and the types of their members."""

from typing import Annotated, Final

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, FiniteFloat

# Responses with labels, metadata and error messages repeat a name, so its length is limited.
NAME_CHARACTERS_MAX: Final = 256
# Every JSON reader represents integers up to this one exactly (float64).
ROWS_MAX: Final = 2**53


def _unique(names: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(names)) < len(names):
        raise ValueError("the names must differ from each other")
    return names


Name = Annotated[str, Field(min_length=1, max_length=NAME_CHARACTERS_MAX)]
Names = Annotated[tuple[Name, ...], Field(min_length=1, fail_fast=True), AfterValidator(_unique)]
Positive = Annotated[FiniteFloat, Field(gt=0)]
Finites = Annotated[tuple[FiniteFloat, ...], Field(fail_fast=True)]
Positives = Annotated[tuple[Positive, ...], Field(fail_fast=True)]
Probabilities = Annotated[tuple[Annotated[float, Field(ge=0, le=1)], ...], Field(fail_fast=True)]


class Record(BaseModel):
    """A frozen record that refuses unknown fields and converts no types."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)
