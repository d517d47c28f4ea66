"""The parsers of bytes that strangers may send, each with inputs to start from and the exceptions that it declares."""

import functools
import gzip
import json
import zlib
from typing import Any, Final

import numpy as np
import safetensors.numpy

from service.errors import ArtifactError, InputError
from service.serve.client_address import Proxies, parse_address
from service.serve.responses import RequestHead
from service.serve.wire.content_decoder import ContentDecoder, zstd
from service.serve.wire.feature_columns import FeatureColumns
from service.serve.wire.feedback_body import NumberFeedbackParser
from service.serve.wire.feedback_tokens import TokenKeys, TokenSealer, decode_token, encode_token, issuer_of
from service.serve.wire.invocation_body import FORMATS, parse_invocation
from service.serve.wire.invocation_form import read_invocation_form
from service.serve.wire.json_grammar import parse_object
from service.serve.wire.labels import LabelParser
from service.serve.wire.oip_tensors import TensorCodec
from service.serve.wire.predict_body import parse_predict_body
from service.serve.wire.rows import RowParser
from service.serve.wire.scores_body import convert_scores
from service.serve.wire.table_rows import TableParser
from service.settings import Settings
from service.store.artifact.field_layout import WIDEST
from service.store.artifact.manifest_json import parse_manifest
from service.store.artifact.tensors import checked_copies, parse_tensors
from tests.fuzz.base64_parsers import BASE64_PARSERS
from tests.fuzz.field_parsers import FIELD_PARSERS
from tests.fuzz.fuzzer import Parser
from tests.fuzz.identity_parsers import IDENTITY_PARSERS
from tests.fuzz.sparse_parsers import SPARSE_PARSERS
from tests.support.http_requests import as_base64, binary, infer, instances
from tests.support.paths import SHIPPED

SETTINGS: Final = Settings()
NAMES: Final = ("a", "b", "c", "d")
CLASSES: Final = ("setosa", "versicolor", "ü\n")
ROWS_MAX, DEPTH_MAX = 50, 16
ROW: Final = [5.1, 3.5, 1.4, 0.2]
# With so many digits, forty rows are large enough for the parser of large bodies.
LONG: Final = [5.123456789012345, -3.5e-7, 1.4, 0.20000000000000018]
SLICE_BYTES: Final = 1 << 12
# Decoded bytes after which a body is given up, as the limit of bodies does it.
DECODED_MAX: Final = 1 << 16
CODINGS: Final = ("gzip", "deflate", "zstd", "x-gzip")
# A form that is not in these is answered like JSON.
FORMS: Final = (
    b"application/json", b"text/csv", b"text/csv; header=present", b"text/csv; header=absent", b"application/jsonlines",
    b"application/json; format=pandas-split", b"application/json; format=pandas-records",
)  # fmt: skip


@functools.cache
def tables_of(dtype: str = "float32") -> TableParser:
    """Return the parser of a model of four features."""
    return TableParser(RowParser(len(NAMES), np.dtype(dtype), ROWS_MAX, DEPTH_MAX), NAMES)


def dump(document: object) -> bytes:
    """Return a document as JSON."""
    return json.dumps(document).encode()


def in_forms(forms: tuple[Any, ...], body: bytes) -> tuple[Any, bytes]:
    """Return the form that the first byte of an input chooses, and the rest."""
    return forms[(body[0] if body else 0) % len(forms)], body[1:]


# JSON bodies

PREDICTIONS: Final = (
    instances([ROW]),
    instances([ROW, ROW], min_seq=3, feedback_tokens=True, parameters={}, signature_name="x"),
    instances([{"a": 1, "b": 2, "c": 3, "d": 4}, {"features": ROW}]),
    dump({"inputs": {"a": [1, 2], "b": [1, 2], "c": [3, 4], "d": [5, 6]}}),
    dump({"inputs": [ROW]}),
    instances([LONG] * 40),
    instances(as_base64([ROW, ROW])),
    instances(as_base64([ROW], "<f2"), min_seq=3),
)
FEEDBACK: Final = (
    instances([ROW], labels=["setosa"]),
    instances([ROW], labels=[2], weights=[0.5], id="event-1"),
    instances([ROW, ROW], labels=[[0.5, 0.25, 0.25], "setosa"]),
    instances([LONG] * 40, labels=[0, 1] * 20),
    instances([*as_base64([ROW]), ROW], labels=[0, 1]),
    dump({"tokens": ["AgAA" + "A" * 60], "labels": ["setosa"], "weights": [2]}),
)
SETS: Final = (
    instances([ROW], labels=[["setosa"]]),
    instances([ROW, ROW], labels=[[], [0, "versicolor"]], weights=[1, 2.5]),
)
SCORES: Final = (
    dump({"logits": [[2.0, 0.5, None]], "head": "softmax", "temperature": 1.5}),
    dump({"probabilities": [[0.2, 0.8]], "head": "sigmoid"}),
    dump({"odds": [[1, 2, None]]}),
    dump({"log_probabilities": [[-1.0, -2.0, None], [-0.5, -0.5, -0.5]]}),
)


def parse_rows(body: bytes) -> object:
    """Parse rows for models of both dtypes; the choice of a fast parser must not depend on the dtype's errors."""
    tables_of("float64").rows.parse_usual(body)
    return tables_of().rows.parse_instances(body)


def parse_prediction(body: bytes) -> object:
    """Parse a prediction as the general path does."""
    return parse_predict_body(parse_object(body, DEPTH_MAX, ROWS_MAX), tables_of())


ONE_LABEL: Final = NumberFeedbackParser(tables_of(), LabelParser(CLASSES, multilabel=False))
LABEL_SETS: Final = NumberFeedbackParser(tables_of(), LabelParser(CLASSES, multilabel=True))


# Tables

TABLES: Final = (
    b"\0" + dump({"dataframe_split": {"columns": NAMES, "data": [ROW], "index": [0]}}),
    b"\0" + dump({"dataframe_records": [dict(zip(NAMES, ROW, strict=True))], "params": {}}),
    b"\3" + b"1" * 900 + b",2,3,4\n",
    b"\1a,b,c,d\n5.1,3.5,1.4,0.2\n",
    b"\2d,c,b,a\r\n1,2,3,4\r\n",
    b"\3" + b"5.1,3.5,1.4,0.2\n" * 20,
    b'\1\xef\xbb\xbf,a,b,c,d\n0,"1.5", 2 ,+3,-4e1\n',
    b"\4[5.1,3.5,1.4,0.2]\n[1,2,3,4]\n",
    b'\4{"features":[1,2,3,4]}\r\n\r\n{"a":1,"b":2,"c":3,"d":4}',
    b"\4" + dump({"b64": "AAAAAAAAAAAAAAAAAAAAAA=="}),
    b"\5" + dump({"columns": NAMES, "data": [LONG] * 40}),
    b"\6" + dump([dict(zip(NAMES, ROW, strict=True))] * 2),
    b'\0{"instances":[[NaN,1,2,3]]}',
)


def parse_table(data: bytes) -> object:
    """Parse a body of /invocations, of the form that the first byte chooses."""
    form, body = in_forms(FORMS, data)
    return parse_invocation(body, read_invocation_form(RequestHead(content_type=form)), tables_of())


def parse_form(data: bytes) -> object:
    """Parse the headers that name a form."""
    content_type, _, accept = data.partition(b"\n")
    form = read_invocation_form(RequestHead(content_type=content_type, accept=accept))
    return form.is_plain_json, form.header, form.prefers_csv, form.format in FORMATS


# Tensors

TEXT, RAW = binary([ROW])
WIDE_TEXT, WIDE_RAW = binary([ROW] * 2, "<f8", "FP64")
PROXIES: Final = [Proxies(["127.0.0.0/8"], header) for header in ("forwarded", "x-forwarded-for")]
FORWARDED: Final = (
    b'for=192.0.2.1;proto=https, for="[2001:db8::1]:80";by=_a',
    b"127.0.0.1, 192.0.2.1:80, [::1]",
    b'for="\\"a"' + b" " * 40 + b",for=127.0.0.1",
)


def parse_forwarded(data: bytes) -> object:
    """Find the address of a client in both headers of proxies."""
    for proxies in PROXIES:
        for name in (b"forwarded", b"x-forwarded-for"):
            client = proxies.client_of("127.0.0.1", [(name, data)])
            assert parse_address(client) is not None, "a client without an address"
    return client == "127.0.0.1"


BYTE: Final = {"shape": [1, 1], "datatype": "INT8", "parameters": {"binary_data_size": 1}}
TENSORS: Final = (
    b"-\n" + infer([ROW]),
    b"-\n" + infer([ROW] * 2, "FP64", id="7", outputs=[{"name": "labels"}], parameters={"binary_data_output": True}),
    b"-\n" + dump({"inputs": [{"name": n, "shape": [1], "datatype": "INT8", "data": [1]} for n in NAMES]}),
    b"-\n" + dump({"inputs": [{"name": "x", "shape": [1, 4], "datatype": "BOOL", "data": [True, 0, 1, False]}]}),
    b"+\n" + TEXT + RAW,
    b"%d\n%b%b" % (len(WIDE_TEXT), WIDE_TEXT, WIDE_RAW),
    b"+\n" + dump({"inputs": [{**BYTE, "name": name} for name in NAMES]}) + b"abcd",
    b"-\n" + infer([ROW], outputs=[{"name": "labels", "parameters": {"classification": 2, "binary_data": True}}]),
    b"0\n" + RAW,
)


def parse_tensors_body(data: bytes) -> object:
    """Parse a v2 body; the first line is the size of its JSON part, a minus for none, or a plus for the right one."""
    length, _, body = data.partition(b"\n")
    if length == b"+":
        length = b"%d" % (body.rfind(b"}") + 1)
    codec = TensorCodec(
        tables_of().rows, FeatureColumns(NAMES), {"model_name": "m", "model_version": "1"}, {"seq": 0}, CLASSES
    )
    return codec.parse_inference(body, None if length == b"-" else length)


# Tokens and content codings

SEALER: Final = TokenSealer(
    TokenKeys([bytes(range(32))]), "iris", 1, bytes(32), 4, np.dtype(np.float32), 60.0, lambda: 1_800_000_000_000
)
ISSUED: Final = tuple(SEALER.seal_rows(np.ones((2, 4), np.float32)))
TOKENS: Final = (*(text.encode() for text in ISSUED), *map(decode_token, ISSUED))


def open_token(data: bytes) -> object:
    """Open a token, given as text or as the bytes of one; only one that was issued opens."""
    text = data.decode("latin-1") if data[:1] == b"A" else encode_token(data)
    token = decode_token(text)
    issuer = issuer_of(token)
    SEALER.open_token(token)
    assert text in ISSUED, "a changed token was opened"
    return issuer


CODED: Final = (
    b"\0" + gzip.compress(instances([ROW])),
    b"\0" + gzip.compress(b"a" * 1000) * 3,
    b"\1" + zlib.compress(instances([ROW])),
    b"\1" + zlib.compress(instances([ROW]))[2:-4],
    b"\2" + zstd.compress(instances([ROW])),
    b"\2" + zstd.compress(b"a" * 5000) * 2,
)


def decode_content(data: bytes) -> object:
    """Decode a body in two parts, of the coding that the first byte chooses, up to a limit."""
    coding, body = in_forms(CODINGS, data)
    decoder, decoded = ContentDecoder(coding), 0
    for part in (body[: len(body) // 2], body[len(body) // 2 :]):
        decoder.feed(part)
        while (text := decoder.read(SLICE_BYTES)) and decoded < DECODED_MAX:
            assert len(text) <= SLICE_BYTES, "a slice is too large"
            decoded += len(text)
    decoder.check_end()
    return decoded > 0


# Files of models

MANIFEST: Final = (SHIPPED / "iris" / "1" / "model.json").read_bytes()
TENSOR_FILE: Final = (SHIPPED / "iris" / "1" / "model.safetensors").read_bytes()
PARSED_MANIFEST: Final = parse_manifest(MANIFEST)
NETWORK: Final = dump(
    {
        "format_version": 1, "head": "multilabel", "classes": ["a"], "features": ["x"], "dtype": "float64",
        "layers": [
            {"weight": "w", "bias": "b", "activation": "relu"}, {"weight": "v", "bias": "c", "activation": "identity"},
        ],
        "thresholds": [0.5], "stage": {"mean": [0], "scale": [1], "clip": 3}, "provenance": {"a": "b"},
        "training": {"rows": 1, "mean": [0], "scale": [1]}, "metrics": {"a": 1.5}, "tensors_sha256": "0" * 64,
        "calibration": {"kind": "platt", "learn": False, "a": 1, "b": 0}, "learning": {"rule": "sgd", "constants": {}},
    }
)  # fmt: skip


def parse_tensor_file(data: bytes) -> object:
    """Parse a file of tensors, with its own size of the header or, if that is 0, the right one; copy what it holds."""
    if not any(data[:8]):
        data = (data.rfind(b"}}") - 6).to_bytes(8, "little", signed=True) + data[8:]
    return tuple(checked_copies(PARSED_MANIFEST, parse_tensors(data, PARSED_MANIFEST, WIDEST), WIDEST))


TENSOR_FILES: Final = (
    TENSOR_FILE,
    safetensors.numpy.save({"weight": np.ones((4, 3), np.float32), "bias": np.ones(3, np.float32)}),
    safetensors.numpy.save({"weight": np.ones((4, 3), np.float64)}),
    bytes(8) + TENSOR_FILE[8:],
)

PARSERS: Final[dict[str, Parser]] = {
    "rows of predictions": Parser(PREDICTIONS, parse_rows, (InputError,)),
    **BASE64_PARSERS,
    **FIELD_PARSERS,
    "predictions": Parser(PREDICTIONS, parse_prediction, (InputError,)),
    "feedback": Parser(FEEDBACK, ONE_LABEL.parse_feedback, (InputError,)),
    "feedback of a multi-label model": Parser(SETS, LABEL_SETS.parse_feedback, (InputError,)),
    "scores": Parser(SCORES, lambda body: convert_scores(body, SETTINGS), (InputError,)),
    "tables: JSON, CSV, JSON Lines": Parser(TABLES, parse_table, (InputError,)),
    "media types": Parser(
        (b"text/csv; header=present; charset=utf-8\ntext/csv;q=0.5, */*", *FORMS), parse_form, (InputError,)
    ),
    "headers of proxies": Parser(FORWARDED, parse_forwarded, ()),
    "tensors": Parser(TENSORS, parse_tensors_body, (InputError,)),
    "feedback tokens": Parser(TOKENS, open_token, (InputError,)),
    "content codings": Parser(CODED, decode_content, (InputError,)),
    **IDENTITY_PARSERS,
    **SPARSE_PARSERS,
    "manifests": Parser((MANIFEST, NETWORK), parse_manifest, (ArtifactError,)),
    "tensor files": Parser(TENSOR_FILES, parse_tensor_file, (ArtifactError,)),
}
