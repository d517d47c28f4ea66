"""Lists of fields for tests, parsed as a manifest parses them."""

import json
from typing import Any

from pydantic import TypeAdapter

from service.fields.field_list import Fields
from service.fields.field_records import FieldRecord

FIELDS: TypeAdapter[tuple[FieldRecord, ...]] = TypeAdapter(Fields)


def parse_fields(*fields: dict[str, Any]) -> tuple[FieldRecord, ...]:
    """Return the records of fields that are written as JSON."""
    return FIELDS.validate_json(json.dumps(fields))
