"""The rows of a model described: its fields in short, and its JSON Schema with an example.

Everything is made of the manifest, never of data. A row as an object has the schema; a list of the values in the order
of the fields or features is accepted too.

Source: JSON Schema, draft 2020-12 (json-schema.org/draft/2020-12).
"""

from collections.abc import Sequence
from typing import Any, Final

from service.fields.field_list import ValueRecord, group_by_value
from service.fields.field_records import BooleanField, CategoryField, CrossField, FieldRecord, NumberField, VectorField
from service.fields.field_types import TermField, TermTensors
from service.fields.row_encoder import RowEncoder
from service.fields.text_records import BagField, TextField
from service.serve.models.served_model import ServedModel

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
# More categories are not listed in a schema; it then has their types alone.
ENUMERATION_MAX: Final = 256
# A longer vector is null in an example, if it may be missing.
EXAMPLE_VECTOR_MAX: Final = 64
# More features or fields are not listed one by one in the OpenAPI document; the schema of the model has them.
LISTED_MAX: Final = 256
JSON_TYPES: Final = {str: "string", int: "integer", bool: "boolean"}


def describe_fields(encoder: RowEncoder | None) -> dict[str, Any]:
    """Return the member `fields` of a model's metadata, or nothing for a model whose rows are numbers."""
    if encoder is None:
        return {}
    return {
        "fields": [
            {
                "name": field.name,
                "kind": field.kind,
                **_describe_source(field),
                "takes": _describe_values(encoder, field),
                **_describe_control(field),
            }
            for field in encoder.fields
        ]
    }


def make_row_schema(served: ServedModel) -> dict[str, Any]:
    """Return the JSON Schema of a row of a model as an object, with an example."""
    encoder = served.artifact.row_encoder
    if encoder is None:
        properties = {name: {"description": "A feature.", "type": "number"} for name in served.artifact.column_names}
        required, example, others = list(properties), dict.fromkeys(properties, 0.0), False
    else:
        groups = group_by_value(encoder.fields)
        properties = {name: _describe_value(encoder, fields) for name, fields in groups.items()}
        required = [name for name, fields in groups.items() if any(field.missing == "refuse" for field in fields)]
        example = {name: _make_example(encoder, fields) for name, fields in groups.items()}
        others = served.manifest.others == "ignore"
    return {
        "$schema": DIALECT,
        "title": f"A row of {served.name}, version {served.version}",
        "description": "A row as an object. A list of its values in this order is accepted too.",
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": others,
        "examples": [example],
    }


def make_row_component(served: ServedModel) -> dict[str, Any]:
    """Return the schema of a row for the OpenAPI document, which is short if there are many features or fields."""
    schema = make_row_schema(served)
    del schema["$schema"]
    if len(schema["properties"]) > LISTED_MAX:
        for member in ("properties", "required", "additionalProperties", "examples"):
            del schema[member]
        schema["description"] += f" GET /v1/models/{served.name}/schema lists them."
    return schema


def _describe_source(field: FieldRecord) -> dict[str, str]:
    """Return the name of the value that a field reads, or nothing if it is the field's own name."""
    if isinstance(field, CrossField) or field.value_name == field.name:
        return {}
    return {"source": field.value_name}


def _describe_control(field: FieldRecord) -> dict[str, Any]:
    """Return what a form needs to know of a field to make a control for it; nothing for a cross, which has none."""
    if isinstance(field, CrossField):
        return {}
    required = {"required": field.missing == "refuse"}
    match field:
        case NumberField():
            return {"mean": field.mean, "scale": field.scale, **required}
        case CategoryField() if field.values is not None and len(field.values) <= ENUMERATION_MAX:
            return {"values": list(field.values), **required}
        case VectorField():
            return {"size": field.size, **required}
    return required


def _describe_values(encoder: RowEncoder, field: FieldRecord) -> str | None:
    """Return what a field takes, in words; None for a cross, which takes nothing."""
    if isinstance(field, CrossField):
        return None
    return encoder.encoders[field.name].describe_values()


def _describe_value(encoder: RowEncoder, fields: Sequence[ValueRecord]) -> dict[str, Any]:
    """Return the schema of a value that all of some fields accept."""
    schemas: list[dict[str, Any]] = []
    for field in fields:
        schema = _describe_field(encoder, field)
        schemas += [] if schema in schemas else [schema]
    return schemas[0] if len(schemas) == 1 else {"allOf": schemas}


def _describe_field(encoder: RowEncoder, field: ValueRecord) -> dict[str, Any]:
    """Return the schema of the value of a field."""
    described = {"description": f"A {field.kind}: {_describe_values(encoder, field)}."}
    alternatives = _list_alternatives(field)
    if field.missing != "refuse":
        alternatives = [*alternatives, {"type": "null"}]
    return described | (alternatives[0] if len(alternatives) == 1 else {"anyOf": alternatives})


def _list_alternatives(field: ValueRecord) -> list[dict[str, Any]]:
    """Return the schemas of the values of a field that are not missing."""
    match field:
        case NumberField():
            return [{"type": "number"}]
        case BooleanField():
            return [{"type": "boolean"}]
        case CategoryField():
            return _list_categories(field)
        case TextField():
            return [{"type": "string"}]
        case BagField():
            return [
                {"type": "object", "additionalProperties": {"type": "number"}},
                {"type": "array", "items": {"type": "string"}},
            ]
        case VectorField():
            return [{"type": "array", "items": {"type": "number"}, "minItems": field.size, "maxItems": field.size}]


def _list_categories(field: CategoryField) -> list[dict[str, Any]]:
    """Return the schemas of categories: the listed values alone only if others are refused."""
    if field.values is None:
        return [{"type": name} for name in JSON_TYPES.values()]
    if field.unknown == "refuse" and len(field.values) <= ENUMERATION_MAX:
        return [{"enum": list(field.values)}]
    kinds = {type(value) for value in field.values}
    return [{"type": name} for kind, name in JSON_TYPES.items() if kind in kinds]


def _make_example(encoder: RowEncoder, fields: Sequence[ValueRecord]) -> Any:  # noqa: ANN401  # any JSON value
    """Return a value that all of some fields accept, or null."""
    found = [_make_field_example(field) for field in fields]
    if len(fields) == 1:
        return found[0]
    for field in fields:
        found += list((getattr(field, "values", None) or ())[:ENUMERATION_MAX])
        found += [0.0] if isinstance(field, NumberField) else []
    return next((value for value in found if encoder.accepts_value(fields, value)), None)


def _make_field_example(field: ValueRecord) -> Any:  # noqa: ANN401  # any JSON value
    """Return a value of a field."""
    example: Any = None
    match field:
        case NumberField():
            example = field.mean
        case BooleanField():
            example = True
        case CategoryField():
            example = "a text" if field.values is None else field.values[0]
        case TextField():
            example = "some words"
        case BagField():
            example = {_first_term(field): 1.0}
        case VectorField() if field.size <= EXAMPLE_VECTOR_MAX or field.missing == "refuse":
            example = [0.0] * field.size
    return example


def _first_term(field: TermField) -> str:
    """Return a name that a bag knows, if the manifest has one."""
    return "name" if field.terms is None or isinstance(field.terms, TermTensors) else field.terms[0]
