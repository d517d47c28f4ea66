"""The tensors that a model takes: one of all features, or one for each field by its name."""

from typing import Final, NamedTuple

from service.fields.field_records import BooleanField, CategoryField, CrossField, FieldRecord, NumberField, VectorField
from service.serve.models.served_model import ServedModel
from service.serve.wire.feature_columns import VECTOR
from service.serve.wire.oip_response import DATATYPE_OF

# The datatype of categories that are all of one type; others are texts.
CATEGORY_DATATYPES: Final = {int: "INT64", bool: "BOOL"}


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
        TensorInput(field.name, _datatype(field), field.size if isinstance(field, VectorField) else 1)
        for field in encoder.fields
        if not isinstance(field, CrossField)
    ]


def _datatype(field: FieldRecord) -> str:
    """Return the v2 datatype of a field's values; a bag comes as the text of its JSON."""
    match field:
        case NumberField() | VectorField():
            return "FP64"
        case BooleanField():
            return "BOOL"
        case CategoryField():
            kinds = {type(value) for value in field.values or ()}
            return CATEGORY_DATATYPES.get(kinds.pop(), "BYTES") if len(kinds) == 1 else "BYTES"
        case _:
            return "BYTES"
