"""The tensors that a model takes: one of all features, or one for each value that its fields read, by its name."""

from collections.abc import Sequence
from typing import Final, NamedTuple

from service.fields.field_list import ValueRecord, group_by_value, list_value_types
from service.fields.field_records import BooleanField, CategoryField, NumberField, VectorField
from service.serve.models.served_model import ServedModel
from service.serve.wire.feature_columns import VECTOR
from service.serve.wire.oip_response import DATATYPE_OF

# The datatype of categories that are all of one type; others are texts.
CATEGORY_DATATYPES: Final[dict[object, str]] = {int: "INT64", bool: "BOOL"}


class TensorInput(NamedTuple):
    """A tensor [rows, width] that a model takes, and its v2 datatype."""

    name: str
    datatype: str
    width: int


def list_inputs(served: ServedModel) -> list[TensorInput]:
    """Return the tensors that a model takes."""
    encoder = served.artifact.row_encoder
    if encoder is None:
        return [TensorInput(VECTOR, DATATYPE_OF[served.model.dtype.name], served.model.n_features)]
    return [
        TensorInput(name, _datatype(group), group[0].size if isinstance(group[0], VectorField) else 1)
        for name, group in group_by_value(encoder.fields).items()
    ]


def _datatype(fields: Sequence[ValueRecord]) -> str:
    """Return the v2 datatype of the values that fields read; a bag comes as the text of its JSON."""
    match next((field for field in fields if not isinstance(field, CategoryField)), None):
        case NumberField() | VectorField():
            return "FP64"
        case BooleanField():
            return "BOOL"
        case None:
            kinds = list(list_value_types(fields))
            return CATEGORY_DATATYPES.get(kinds[0], "BYTES") if len(kinds) == 1 else "BYTES"
        case _:
            return "BYTES"
