"""The parsers of bodies of models with fields: JSON, CSV, the tensors of v2, and one row in machine code."""

import json
from typing import Final

import numpy as np
import orjson

from service.errors import InputError
from service.fields.object_plan import ObjectPlan
from service.serve.responses import RequestHead
from service.serve.wire.field_tables import FieldTables
from service.serve.wire.field_tensors import FieldTensorCodec
from service.serve.wire.invocation_body import parse_invocation
from service.serve.wire.invocation_form import read_invocation_form
from tests.fuzz.fuzzer import Parser
from tests.fuzz.machine_code import GUARDED_MAX
from tests.support.field_artifacts import SPARSE_FIELDS, field_artifact
from tests.support.field_rows import ROWS, binary_tensors, json_forms, json_tensors, to_csv
from tests.support.guarded_bytes import LastBytes

ENCODER: Final = field_artifact().row_encoder
assert ENCODER is not None
TABLES: Final = FieldTables(ENCODER, np.dtype(np.float32), 50, 16)
CODEC: Final = FieldTensorCodec(TABLES, {"model_name": "m", "model_version": "1"}, {"seq": 0}, ("a", "b", "c"))
FORMS: Final = (b"application/json", b"text/csv", b"application/jsonlines", b"application/json; format=pandas-split")
BODIES: Final = (
    *(b"\0" + json.dumps(body).encode() for body in json_forms(ROWS).values()),
    b'\0{"instances": [{"age": NaN, "subject": "NaN"}]}',
    b"\1" + to_csv(ROWS),
    b"\2" + b"\n".join(json.dumps(row).encode() for row in ROWS),
    b"\3" + json.dumps({"columns": ["age"], "data": [[1], [None]]}).encode(),
)
SPARSE_ENCODER: Final = field_artifact(SPARSE_FIELDS).row_encoder
assert SPARSE_ENCODER is not None
PLAN: Final = ObjectPlan(SPARSE_ENCODER)
GUARDED: Final = LastBytes()
OBJECTS: Final = (
    *(json.dumps([row]).encode() for row in ROWS),
    b'[ {"body": "a late  Refund", "tags": ["7", " x "], "city": -12, "basket" :{"tea": 1e3, "milk":-2.5}}\n]',
    b'[{"city": true, "country": 7.0, "picture": [1, -0.5e-3, 9007199254740992e22], "member": null}] ]}',
)
TEXT, BINARY = binary_tensors(ROWS[:1])
TENSORS: Final = (b"-\n" + json.dumps(json_tensors(ROWS[:1])).encode(), b"%d\n%b%b" % (len(TEXT), TEXT, BINARY))


def parse_fields(data: bytes) -> object:
    """Parse a body of the form that the first byte chooses; the rows are finite."""
    kind = FORMS[(data[0] if data else 0) % len(FORMS)]
    X = parse_invocation(data[1:], read_invocation_form(RequestHead(content_type=kind)), TABLES).X
    assert np.isfinite(X).all(), "a row is not finite"
    return X.shape


def parse_field_tensors(data: bytes) -> object:
    """Parse a v2 body; the first line is the size of its JSON part, or a minus for none."""
    length, _, body = data.partition(b"\n")
    X = CODEC.parse_inference(body, None if length == b"-" else length).X
    assert np.isfinite(X).all(), "a row is not finite"
    return X.shape


def parse_object(data: bytes) -> object:
    """Encode one row in machine code, from bytes whose end is the end of readable memory.

    What it accepts is what the general parser and encoder accept, and they give the same bits.
    """
    assert SPARSE_ENCODER is not None
    encoded = PLAN.encode(GUARDED(data[:GUARDED_MAX]), 0)
    if encoded is None:
        return None
    (row,) = orjson.loads(data[: PLAN.after])
    general = SPARSE_ENCODER.encode_objects([row])
    pairs = zip((*encoded.rows, *encoded[1:]), (*general.rows, *general[1:]), strict=True)
    assert all(one.tobytes() == other.tobytes() for one, other in pairs), "the general encoder disagrees"
    return encoded.rows.n_rows


FIELD_PARSERS: Final[dict[str, Parser]] = {
    "bodies with fields": Parser(BODIES, parse_fields, (InputError,)),
    "objects in machine code": Parser(OBJECTS, parse_object, ()),
    "tensors of fields": Parser(TENSORS, parse_field_tensors, (InputError,)),
}
