"""The forms in which bodies have their rows, each a base of the models of such bodies."""

from typing import Annotated, Any, Final

from pydantic import Field

from service.serve.api.schemas.schema_types import IRIS, IRIS_FEATURES, Base64Row, RequestModel, absent
from service.settings import Settings

# A value of a feature or a field; each number may stand in a list of its own. Null is missing.
Value = float | bool | str | list[float | str] | dict[str, Any] | None
Row = Annotated[list[Value], Field(min_length=1)]
# A row by the names of the features or fields, or with the name of the whole vector.
NamedRow = dict[str, Value]
NamedRows = Annotated[list[Row | Base64Row | NamedRow], Field(min_length=1)]
NamedColumns = dict[str, Annotated[list[Value | Row], Field(min_length=1)]]

EACH: Final = "each a list with a value for each feature or field in their order, an object by their names, or base64"


class InstancesRows(RequestModel):
    """Rows as a list."""

    instances: NamedRows = Field(
        description=f"The rows, {EACH}. SOFTSTEP_ROWS_MAX limits their number; "
        f"{Settings.model_fields['rows_max'].default:,} is the default."
    )


class InputsRows(RequestModel):
    """Rows as columns."""

    inputs: NamedColumns | NamedRows = Field(
        description="A list of one value for each row, by the names of the features or fields; or the rows."
    )


class DataFrameSplit(RequestModel):
    """A table as pandas writes it with the orient `split`."""

    columns: list[str | int] | None = Field(
        default_factory=absent,
        description="The names of the model's features or fields in any order; or numbers from 0, for their own order.",
    )
    data: Annotated[list[Row], Field(min_length=1)] = Field(
        description="The rows, each with one value for each column."
    )
    index: Any = Field(default_factory=absent, description="Ignored.")


class SplitRows(RequestModel):
    """Rows as a table with the names of its columns."""

    dataframe_split: DataFrameSplit = Field(description="The table.")


class RecordsRows(RequestModel):
    """Rows as objects."""

    dataframe_records: list[NamedRow] = Field(
        min_length=1, description="The rows, each with a value for each feature or field by its name."
    )


IRIS_RECORD: Final = dict(zip(IRIS_FEATURES, IRIS, strict=True))
# A row in each form but that of a list.
ROW_FORMS: Final[dict[str, dict[str, Any]]] = {
    "columns by name": {"inputs": {name: [value] for name, value in IRIS_RECORD.items()}},
    "a table": {"dataframe_split": {"columns": IRIS_FEATURES, "data": [IRIS]}},
    "records": {"dataframe_records": [IRIS_RECORD]},
}
