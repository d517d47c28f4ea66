"""The codec of a model's v2 bodies, by the kind of its rows."""

from collections.abc import Mapping

from service.serve.wire.field_tables import FieldTables
from service.serve.wire.field_tensors import FieldTensorCodec
from service.serve.wire.model_tables import ModelTables
from service.serve.wire.oip_tensors import TensorCodec
from service.serve.wire.table_rows import TableParser


def make_codec(
    tables: ModelTables, model_fields: Mapping[str, str], state_fields: Mapping[str, int], classes: tuple[str, ...]
) -> TensorCodec | FieldTensorCodec:
    """Return the codec of the v2 bodies of a model; the arguments are those of `TensorCodec`.

    Raises:
        TypeError: The parser of its rows has no codec.
    """
    if isinstance(tables, FieldTables):
        return FieldTensorCodec(tables, model_fields, state_fields, classes)
    if isinstance(tables, TableParser):
        return TensorCodec(tables.rows, tables.columns, model_fields, state_fields, classes)
    raise TypeError("these rows have no tensors")
