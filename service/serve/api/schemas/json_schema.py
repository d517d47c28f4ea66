"""JSON Schemas of the smallest forms, of which schema.py and its neighbours put theirs together."""

from typing import Any, Final

Schema = dict[str, Any]

STRING: Final[Schema] = {"type": "string"}
NUMBER: Final[Schema] = {"type": "number"}
WHOLE: Final[Schema] = {"type": "integer", "minimum": 0}
FLAG: Final[Schema] = {"type": "boolean"}
ANYTHING: Final[Schema] = {"type": "object"}


def record(optional: dict[str, Schema] | None = None, /, **fields: Schema) -> Schema:
    """An object whose `fields` are all present, and that may have the optional ones."""
    return {"type": "object", "properties": {**fields, **(optional or {})}, "required": list(fields)}


def array(items: Schema, **more: Any) -> Schema:  # noqa: ANN401  # JSON Schema keywords
    """A list of items."""
    return {"type": "array", "items": items, **more}


def nullable(schema: Schema) -> Schema:
    """A value or null."""
    return {"anyOf": [schema, {"type": "null"}]}
