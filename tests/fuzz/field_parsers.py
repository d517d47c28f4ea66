"""The parsers of bodies of models with fields: JSON, CSV, and the tensors of v2."""

import json
from typing import Final

import numpy as np

from service.errors import InputError
from service.serve.responses import RequestHead
from service.serve.wire.field_tables import FieldTables
from service.serve.wire.field_tensors import FieldTensorCodec
from service.serve.wire.invocation_body import parse_invocation
from service.serve.wire.invocation_form import read_invocation_form
from tests.fuzz.fuzzer import Parser
from tests.support.field_artifacts import field_artifact
from tests.support.field_rows import ROWS, binary_tensors, json_forms, json_tensors, to_csv

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


FIELD_PARSERS: Final[dict[str, Parser]] = {
    "bodies with fields": Parser(BODIES, parse_fields, (InputError,)),
    "tensors of fields": Parser(TENSORS, parse_field_tensors, (InputError,)),
}
