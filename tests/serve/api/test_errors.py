"""Every wrong request gets the right 4xx and one sentence, and the service stays usable."""

import gzip
import json
import socket
import struct
from collections.abc import Iterator
from http.client import HTTPResponse
from pathlib import Path
from typing import Any

import pytest

from service.serve.api.schemas.error_bodies import Error
from tests.support.error_bodies import check_error as check_code
from tests.support.http_requests import Headers, binary, binary_request, chunked, infer, instances, request, tensor
from tests.support.json_numbers import CANARY_NUMBER
from tests.support.processes import children
from tests.support.running_service import Service, serving
from tests.support.waiting import SECONDS

# What stands in every wrong request as a number, a text or a name, and may stand in no answer.
CANARY = str(CANARY_NUMBER)
ERROR_BYTES_MAX = 16 * 1024
IRIS = [5.1, 3.5, 1.4, 0.2]
V1, V2 = "/v1/models/iris:predict", "/v2/models/iris/infer"
EXPLAIN, CONVERT = "/v1/models/iris:explain", "/v1/convert"
INDEX, LOAD = "/v2/repository/index", "/v2/repository/models/iris/load"
TEXT, RAW = binary([IRIS])
LENGTH = "Inference-Header-Content-Length"
VENDOR = "application/vnd.sagemaker-triton.binary+json;json-header-size="


def predict(body: str | bytes, headers: Headers = (), target: str = V1) -> bytes:
    """A prediction request, v1 unless the target says otherwise."""
    encoded = body if isinstance(body, bytes) else body.encode()
    return request("POST", target, encoded, [("X-Canary", CANARY), *headers])


def rows(text: str) -> bytes:
    """A v1 request with the JSON text of its rows."""
    return predict(f'{{"instances": {text}}}')


def row(value: str) -> bytes:
    """A v1 request with one row that begins with a JSON value."""
    return rows(f"[[{value}, {CANARY}, 1.4, 0.2]]")


def ask_v2(**fields: Any) -> bytes:
    """A v2 request whose only input has other fields than a good one; None leaves a field out."""
    entry = {name: value for name, value in (tensor([IRIS]) | fields).items() if value is not None}
    return v2({"inputs": [entry]})


def v2(document: Any) -> bytes:
    """A v2 request in JSON."""
    return predict(json.dumps(document), target=V2)


def announced(size: Any, raw: bytes = RAW, **fields: Any) -> bytes:
    """A v2 request with binary data that announces a size."""
    entry = {"name": CANARY, "shape": [1, 4], "datatype": "FP32", "parameters": {"binary_data_size": size}, **fields}
    return binary_request(V2, json.dumps({"inputs": [entry]}).encode(), raw)


def measured(length: str, body: bytes = TEXT + RAW) -> bytes:
    """A v2 request with a value of the header that tells the size of its JSON part."""
    return predict(body, [(LENGTH, length)], V2)


def nested(levels: int, leaf: str = CANARY) -> str:
    """A value inside that many lists."""
    return "[" * levels + leaf + "]" * levels


def many(count: int, value: str = CANARY) -> str:
    """The JSON text of that many good rows."""
    return json.dumps([[float(value), 3.5, 1.4, 0.2]] * count)


GOOD_TEXT = instances([IRIS]).decode()
BROKEN_JSON = {
    "empty": b"",
    "blank": b" \r\n\t",
    "null bytes": b"\0" * 100,
    "cut in a number": b'{"instances": [[40427176',
    "cut in a string": b'{"insta',
    "cut before the end": b'{"instances": [[40427176,2,3,4]]',
    "rest": b'{"instances": [[1,2,3,4]]} 40427176',
    "two documents": b'{"instances": [[1,2,3,4]]}{"instances": [[1,2,3,4]]}',
    "comma before a bracket": b'{"instances": [[1,2,3,40427176,]]}',
    "comma before a brace": b'{"instances": [[1,2,3,40427176]],}',
    "no comma": b'{"instances": [[1 2 3 40427176]]}',
    "no colon": b'{"instances" [[1,2,3,40427176]]}',
    "single quotes": b"{'instances': [[1,2,3,40427176]]}",
    "bare key": b"{instances: [[1,2,3,40427176]]}",
    "comment": b'{"instances": [[1,2,3,40427176]]} // 40427176',
    "leading zero": b'{"instances": [[040427176,2,3,4]]}',
    "plus sign": b'{"instances": [[+40427176,2,3,4]]}',
    "no digit before the point": b'{"instances": [[.40427176,2,3,4]]}',
    "no digit behind the point": b'{"instances": [[40427176.,2,3,4]]}',
    "no digit in the exponent": b'{"instances": [[40427176e,2,3,4]]}',
    "hexadecimal": b'{"instances": [[0x40427176,2,3,4]]}',
    "underscore": b'{"instances": [[40_427_176,2,3,4]]}',
    "NaN": b'{"instances": [[NaN,40427176,3,4]]}',
    "nan": b'{"instances": [[nan,40427176,3,4]]}',
    "Infinity": b'{"instances": [[Infinity,40427176,3,4]]}',
    "-Infinity": b'{"instances": [[-Infinity,40427176,3,4]]}',
    "True": b'{"instances": [[True,40427176,3,4]]}',
    "1e999": b'{"instances": [[1e999,40427176,3,4]]}',
    "5,000 digits": b'{"instances": [[%b,40427176,3,4]]}' % (b"9" * 5000),
    "unescaped line end": b'{"instances": [[1,2,3,"40427176\n"]]}',
    "unknown escape": rb'{"instances": [[1,2,3,"\q40427176"]]}',
    "lone surrogate": rb'{"instances": [[1,2,3,"\ud800 40427176"]]}',
    "lone surrogate as a key": rb'{"instances": [[1,2,3,4]], "\udc00 40427176": 1}',
    "surrogate in UTF-8": b'{"instances": [[1,2,3,"\xed\xa0\x80 40427176"]]}',
    "invalid UTF-8": b'{"instances": [[1,2,3,"\xff 40427176"]]}',
    "overlong UTF-8": b'{"instances": [[1,2,3,"\xc0\xaf 40427176"]]}',
    "two byte order marks": b"\xef\xbb\xbf\xef\xbb\xbf" + GOOD_TEXT.encode(),
    "byte order mark at the end": GOOD_TEXT.encode() + b"\xef\xbb\xbf",
    "UTF-16": GOOD_TEXT.encode("utf-16"),
    "UTF-16 without a mark": GOOD_TEXT.encode("utf-16-le"),
    "UTF-32": GOOD_TEXT.encode("utf-32"),
    "Latin-1": '{"instances": [[1,2,3,"ü40427176"]]}'.encode("latin-1"),
    "no JSON": b"40427176, 3.5, 1.4, 0.2",
    "CSV": b"a,b,c,d\n40427176,2,3,4\n",
    "gzip": gzip.compress(GOOD_TEXT.encode()),
    "list": b"[[40427176, 2, 3, 4]]",
    "number": b"40427176",
    "string": b'"40427176"',
    "null": b"null",
    "repeated key": b'{"instances": [[1,2,3,4]], "instances": [[40427176,2,3,4]]}',
    "repeated key, escaped": rb'{"instances": [[1,2,3,4]], "\u0069nstances": [[40427176,2,3,4]]}',
    "repeated key inside": b'{"instances": [[1,2,3,4]], "parameters": {"more": 40427176, "more": 40427176}}',
    "repeated key, large": b'{"instances": %b, "instances": [[1,2,3,4]]}' % many(200).encode(),
    "65 levels": b'{"instances": %b}' % nested(65).encode(),
    "65 levels of objects": b'{"parameters": %b1%b}' % (b'{"40427176":' * 65, b"}" * 65),
    "1,000 levels": b'{"instances": %b}' % nested(1000).encode(),
    "100,000 levels": b'{"instances": %b}' % nested(100_000).encode(),
    "100,000 levels that never end": b'{"instances": ' + b"[" * 100_000,
    "100,000 levels of objects": b'{"40427176":' * 100_000,
}
NO_ROWS = {
    "no field": predict("{}"),
    "other field": predict('{"rows": [[40427176,2,3,4]]}'),
    "unknown field": predict('{"instances": [[1,2,3,4]], "more": 40427176}'),
    "rows null": rows("null"),
    "rows a number": rows(CANARY),
    "rows a string": rows(f'"{CANARY}"'),
    "rows an object": rows('{"40427176": [1,2,3,4]}'),
    "no rows": rows("[]"),
    "row without values": rows("[[]]"),
    "flat": rows(f"[{CANARY}, 2, 3, 4]"),
    "row null": rows("[null]"),
    "row an object": rows('[{"more": 40427176}]'),
    "row a string": rows(f'["{CANARY}"]'),
    "too narrow": rows(f"[[{CANARY}, 2, 3]]"),
    "too wide": rows(f"[[{CANARY}, 2, 3, 4, 5]]"),
    "far too wide": rows(json.dumps([[float(CANARY)] * 100_000])),
    "ragged": rows(f"[[{CANARY}, 2, 3, 4], [1]]"),
    "ragged to the same count": rows(f"[[{CANARY}, 2, 3, 4, 5], [1, 2, 3]]"),
    "ragged, large": rows(many(200)[:-1] + ", [1]]"),
    "ragged to the same count, large": rows(many(200)[:-1] + ", [1, 2, 3], [1, 2, 3, 4, 5]]"),
    "one level too deep": rows(f"[[[{CANARY}], [2], [3], [4]]]"),
    "one level too deep, large": rows(f"[{many(200)}]"),
    "63 levels": rows(nested(63)),
    "true": row("true"),
    "false, large": rows(many(200)[:-1] + ", [1, 2, 3, false]]"),
    "null value": row("null"),
    "string value": row('"1.5"'),
    "string value, large": rows(many(200)[:-1] + ', [1, 2, 3, "4"]]'),
    "long string": row('"%s"' % (CANARY * 10_000)),
    "empty string": row('""'),
    "object value": row("{}"),
    "1e39": row("1e39"),
    "-1e39": row("-1e39"),
    "1e308": row("1e308"),
    "1e39, large": rows(many(200)[:-1] + ", [1, 2, 3, 1e39]]"),
    "300 digits": row("9" * 300),
    "NUL in a key": predict(r'{"instances": [[1,2,3,4]], "\u0000 40427176": 1}'),
    "long key": predict('{"instances": [[1,2,3,4]], "%s": 1}' % (CANARY * 10_000)),
}
NO_SCORES = {
    name: predict(json.dumps(document), target=CONVERT)
    for name, document in {
        "rows": {"instances": [[float(CANARY)]]},
        "unknown field": {"logits": [[1]], "more": CANARY},
        "a text": {"logits": CANARY},
        "a text in a row": {"logits": [[1, CANARY]]},
        "outside": {"probabilities": [[float(CANARY)]]},
        "odds": {"odds": [[-float(CANARY)]]},
        "head": {"logits": [[1]], "head": CANARY},
        "temperature": {"logits": [[1]], "temperature": CANARY},
        "temperature negative": {"logits": [[1]], "temperature": -float(CANARY)},
        "nested": {"logits": [[[int(CANARY)]]]},
        "very wide": {"logits": [[float(CANARY)] * 50_000, [1]]},
    }.items()
}
OTHER_KINDS = {
    f"{name}, {fault}": predict(instances(values), target=f"/v1/models/{name}:predict")
    for name, width in (("heavy", 768), ("double", 3), ("ovr", 4), ("tags", 3), ("staged", 3), ("phishing", 9))
    for fault, values in (
        ("too narrow", [[float(CANARY)] * (width - 1)]),
        ("ragged", [[float(CANARY)] * width, [1.0]]),
        ("a boolean", [[float(CANARY)] * width, [1.0] * (width - 1) + [True]]),
    )
} | {
    f"{name}, too large": predict(
        instances([[1.0] * width] * count + [[1e39] * width]), target=f"/v1/models/{name}:predict"
    )
    for name, width, count in (("heavy", 768, 0), ("heavy", 768, 20), ("ovr", 4, 0), ("tags", 3, 9), ("staged", 3, 9))
}
WRONG_TENSORS = {
    "v2 no input": v2({}),
    "v2 inputs null": v2({"inputs": None}),
    "v2 inputs an object": v2({"inputs": tensor([IRIS])}),
    "v2 inputs empty": v2({"inputs": []}),
    "v2 two inputs": v2({"inputs": [tensor([IRIS])] * 2}),
    "v2 input a string": v2({"inputs": [CANARY]}),
    "v2 v1's body": predict(instances([IRIS]), target=V2),
    "v2 id a number": v2({"inputs": [tensor([IRIS])], "id": int(CANARY)}),
    "v2 model_name another": v2({"inputs": [tensor([IRIS])], "model_name": CANARY}),
    "v2 model_name a list": v2({"inputs": [tensor([IRIS])], "model_name": [CANARY]}),
    "v2 model_version another": v2({"inputs": [tensor([IRIS])], "model_version": int(CANARY)}),
    "v2 parameters a list": v2({"inputs": [tensor([IRIS])], "parameters": [CANARY]}),
    "v2 binary_data_output a string": v2({"inputs": [tensor([IRIS])], "parameters": {"binary_data_output": CANARY}}),
    "v2 name missing": ask_v2(name=None),
    "v2 name a number": ask_v2(name=int(CANARY)),
    "v2 shape missing": ask_v2(shape=None),
    "v2 shape a number": ask_v2(shape=4),
    "v2 shape empty": ask_v2(shape=[]),
    "v2 shape flat": ask_v2(shape=[4]),
    "v2 shape long": ask_v2(shape=[1, 4, 1]),
    "v2 shape very long": ask_v2(shape=[int(CANARY)] * 10_000),
    "v2 shape strings": ask_v2(shape=["1", "4"]),
    "v2 shape booleans": ask_v2(shape=[True, 4]),
    "v2 shape fractions": ask_v2(shape=[1.0, 4.0]),
    "v2 shape negative": ask_v2(shape=[-1, 4]),
    "v2 shape both negative": ask_v2(shape=[-1, -4]),
    "v2 shape zero": ask_v2(shape=[0, 4]),
    "v2 shape zero wide": ask_v2(shape=[4, 0]),
    "v2 shape wide": ask_v2(shape=[1, int(CANARY)]),
    "v2 shape swapped": ask_v2(shape=[4, 1]),
    "v2 shape overflows to good": ask_v2(shape=[1, (1 << 64) + 4]),
    "v2 shape of two rows": ask_v2(shape=[2, 4]),
    "v2 shape of fewer rows": ask_v2(data=[IRIS, IRIS]),
    "v2 datatype missing": ask_v2(datatype=None),
    "v2 datatype unknown": ask_v2(datatype=CANARY),
    "v2 datatype lower case": ask_v2(datatype="fp32"),
    "v2 datatype BYTES": ask_v2(datatype="BYTES", data=[CANARY] * 4),
    "v2 BOOL with other numbers": ask_v2(datatype="BOOL", data=[1, 0, 1, int(CANARY)]),
    "v2 datatype BF16": ask_v2(datatype="BF16"),
    "v2 datatype a list": ask_v2(datatype=["FP32"]),
    "v2 data missing": ask_v2(data=None),
    "v2 data empty": ask_v2(data=[]),
    "v2 data a number": ask_v2(data=int(CANARY)),
    "v2 data a string": ask_v2(data=CANARY),
    "v2 data an object": ask_v2(data={CANARY: 1}),
    "v2 data short": ask_v2(data=[1, 2, int(CANARY)]),
    "v2 data ragged": ask_v2(shape=[2, 4], data=[[1, 2, 3], [4, 5, 6, 7, int(CANARY)]]),
    "v2 data ragged, large": ask_v2(shape=[400, 4], data=[[0.5] * 3, [0.5] * 5] * 200),
    "v2 data mixed": ask_v2(shape=[2, 4], data=[IRIS, 1, 2, 3]),
    "v2 data booleans": ask_v2(data=[True, False, True, 1]),
    "v2 data strings": ask_v2(data=["1", "2", "3", CANARY]),
    "v2 data nulls": ask_v2(data=[[None, 1, 2, 3]]),
    "v2 data too large": ask_v2(data=[1e39, 1, 2, 3]),
    "v2 data too large, large": ask_v2(shape=[200, 4], data=[0.5] * 799 + [1e39]),
    "v2 outputs a string": v2({"inputs": [tensor([IRIS])], "outputs": CANARY}),
    "v2 output a string": v2({"inputs": [tensor([IRIS])], "outputs": ["probabilities"]}),
    "v2 output unknown": v2({"inputs": [tensor([IRIS])], "outputs": [{"name": CANARY}]}),
    "v2 output without a name": v2({"inputs": [tensor([IRIS])], "outputs": [{}]}),
    "v2 output a list": v2({"inputs": [tensor([IRIS])], "outputs": [{"name": ["labels"]}]}),
    "v2 output twice": v2({"inputs": [tensor([IRIS])], "outputs": [{"name": "labels"}] * 2}),
    **{
        f"v2 wish {name}: {value}": v2(
            {"inputs": [tensor([IRIS])], "outputs": [{"name": output, "parameters": {name: value}}]}
        )
        for output, name, value in [
            ("labels", "binary_data", CANARY),
            ("labels", "classification", 1),
            ("probabilities", "classification", -1),
            ("probabilities", "classification", True),
            ("probabilities", "classification", CANARY),
            ("probabilities", "classification", 1.5),
        ]
    },
    "v2 size without data": v2({"inputs": [{**json.loads(TEXT)["inputs"][0], "name": CANARY}]}),
}
WRONG_BINARY = {
    "header negative": measured("-1"),
    "header signed": measured(f"+{len(TEXT)}"),
    "header a fraction": measured(f"{len(TEXT)}.0"),
    "header hexadecimal": measured(hex(len(TEXT))),
    "header empty": measured(""),
    "header a text": measured(CANARY[::-1] + "x"),
    "header too large": measured(CANARY),
    "header by one too large for the body": measured(str(len(TEXT + RAW) + 1)),
    "header of 20 digits": measured("1" * 20),
    "header of 5,000 digits": measured("1" * 5000),
    "header overflows to good": measured(str((1 << 64) + len(TEXT))),
    "header with other digits": measured("\xb2\xb3"),
    "header one short": measured(str(len(TEXT) - 1)),
    "header one long": measured(str(len(TEXT) + 1)),
    "header all": measured(str(len(TEXT + RAW))),
    "header zero": measured("0"),
    "header zero, no body": measured("0", b""),
    "header zero, half a row": measured("0", RAW[:-1]),
    "header zero, not finite": measured("0", struct.pack("<4f", 1, 2, 3, float("nan"))),
    "vendor size negative": predict(TEXT + RAW, [("Content-Type", VENDOR + "-1")], V2),
    "vendor size too large": predict(TEXT + RAW, [("Content-Type", VENDOR + CANARY)], V2),
    "vendor size missing": predict(TEXT + RAW, [("Content-Type", VENDOR)], V2),
    "size too small": announced(15),
    "size too large": announced(17),
    "size negative": announced(-16),
    "size a string": announced("16"),
    "size a fraction": announced(16.0),
    "size true": announced(True),
    "size enormous": announced(1 << 70),
    "size and data": announced(16, data=IRIS),
    "data short": announced(16, RAW[:-1]),
    "data long": announced(16, RAW + CANARY.encode()),
    "no data": announced(16, b""),
    "data that was not announced": binary_request(V2, infer([IRIS]), RAW),
    "shape of a 65-bit number": announced(16, shape=[1 << 64, 4]),
    "shape of huge rows": announced(16, shape=[1, 1 << 62]),
    "datatype without numbers": announced(16, datatype="BYTES"),
    "datatype of another size": announced(16, datatype="FP64"),
    "binary NaN": announced(16, struct.pack("<4f", 1, 2, 3, float("nan"))),
    "binary infinity": announced(16, struct.pack("<4f", float("-inf"), 1, 2, 3)),
    "binary too large": announced(32, struct.pack("<4d", 1e39, 1, 2, 3), datatype="FP64"),
    "binary half infinity": announced(8, struct.pack("<4e", 1, 2, 3, float("inf")), datatype="FP16"),
    "not JSON before the data": binary_request(V2, CANARY.encode() + b"}", RAW),
    "v2 chunked and cut": chunked("POST", V2, [TEXT, RAW[:-1]], [(LENGTH, str(len(TEXT)))]),
}
NAMES = {
    "unknown": CANARY,
    "other case": "Iris",
    "dots": "%2e%2e",
    "way out": "..%2f..%2fetc%2fpasswd",
    "bare dots": "..",
    "very long": CANARY * 1000,
    "unicode": "%E2%82%AC" + CANARY,
    "invalid UTF-8": "%FF" + CANARY,
    "NUL": "iris%00",
    "line end": "iris%0d%0aX-Canary:%20" + CANARY,
    "blank": "%20iris",
    "colon": "iris:" + CANARY,
    "escaped colon": "iris%3A" + CANARY,
    "bad escape": "%zz" + CANARY,
    "proto": "__proto__",
}
VERSIONS = [
    CANARY,
    "0",
    "-1",
    "01",
    "1.0",
    "+1",
    "1e0",
    "latest",
    "%31%00",
    "1" * 5000,
    "%D9%A1",
    "%C2%B9",
    "1%20",
]
UNKNOWN = {
    **{f"v1 name {name}": predict(GOOD_TEXT, target=f"/v1/models/{text}:predict") for name, text in NAMES.items()},
    **{f"v2 name {name}": predict(infer([IRIS]), target=f"/v2/models/{text}/infer") for name, text in NAMES.items()},
    **{
        f"v1 version {text[:10]}": predict(GOOD_TEXT, target=f"/v1/models/iris/versions/{text}:predict")
        for text in VERSIONS
    },
    **{
        f"v2 version {text[:10]}": predict(infer([IRIS]), target=f"/v2/models/iris/versions/{text}/infer")
        for text in VERSIONS
    },
    "v1 no name": predict(GOOD_TEXT, target="/v1/models/:predict"),
    "v2 no name": predict(infer([IRIS]), target="/v2/models//infer"),
    "v1 no version": predict(GOOD_TEXT, target="/v1/models/iris/versions/:predict"),
    "v1 verb unknown": predict(GOOD_TEXT, target=f"/v1/models/iris:{CANARY}"),
    "path unknown": predict(GOOD_TEXT, target=f"/{CANARY}"),
    "slash at the end": predict(GOOD_TEXT, target=f"{V1}/"),
    "double slash": predict(GOOD_TEXT, target=f"/{V1}"),
    "dots in the path": predict(GOOD_TEXT, target=f"/v1/../{V1}"),
    "no default model": predict(GOOD_TEXT, target="/invocations"),
    **{
        f"metadata {path}": request("GET", path)
        for path in (
            f"/v1/models/{CANARY}",
            f"/v1/models/iris/versions/{CANARY}",
            f"/v2/models/{CANARY}",
            f"/v2/models/{CANARY}/ready",
            f"/v2/models/iris/versions/{CANARY}/ready",
            f"/v2/models/{CANARY}/config",
            f"/v2/models/{CANARY}/stats",
            f"/{CANARY}",
        )
    },
    "load unknown": predict(b"", target=f"/v2/repository/models/{CANARY}/load"),
    "unload unknown": predict(b"", target=f"/v2/repository/models/{CANARY}/unload"),
    "load dots": predict(b"", target="/v2/repository/models/%2e%2e/load"),
}
WRONG_METHODS = {
    **{
        f"{method} {target}": (request(method, target, body), allow)
        for method, target, body, allow in [
            ("GET", V1, None, "POST"),
            ("GET", "/v1/models/iris/versions/1:predict", None, "POST"),
            ("GET", f"/v1/models/{CANARY}:predict", None, "POST"),
            ("PUT", V1, GOOD_TEXT.encode(), "POST"),
            ("PATCH", V1, GOOD_TEXT.encode(), "POST"),
            ("DELETE", V1, None, "POST"),
            ("OPTIONS", V1, None, "POST"),
            ("TRACE", V1, None, "POST"),
            ("GET", V2, None, "POST"),
            ("DELETE", V2, None, "POST"),
            ("GET", "/invocations", None, "POST"),
            ("GET", EXPLAIN, None, "POST"),
            ("GET", CONVERT, None, "POST"),
            ("GET", INDEX, None, "POST"),
            ("GET", LOAD, None, "POST"),
            ("POST", "/v1/models", b"{}", "GET"),
            ("POST", "/v1/models/iris", b"{}", "GET"),
            ("DELETE", "/v1/models/iris", None, "GET"),
            ("POST", "/v2", b"{}", "GET"),
            ("POST", "/v2/models/iris", b"{}", "GET"),
            ("POST", "/v2/models/iris/config", b"{}", "GET"),
            ("POST", "/healthz", b"", "GET"),
            ("PUT", "/ping", b"", "GET"),
            ("POST", "/metrics", b"", "GET"),
        ]
    },
}
WRONG_TYPES = {
    **{
        f"type {kind}": predict(GOOD_TEXT, [("Content-Type", kind)])
        for kind in (
            "text/csv",
            "text/html",
            "application/xml",
            "application/json-seq",
            "application/jsonl",
            f"multipart/form-data; boundary={CANARY}",
            f"x/{CANARY}",
            "json",
            "\xff",
            "application/" + "json" * 1000,
        )
    },
    **{
        f"encoding {encoding}": predict(gzip.compress(GOOD_TEXT.encode()), [("Content-Encoding", encoding)])
        for encoding in ("br", "compress", "identity, gzip", "gzip, gzip", CANARY)
    },
    "v2 type": predict(infer([IRIS]), [("Content-Type", "text/csv")], V2),
    "v2 encoding": predict(gzip.compress(infer([IRIS])), [("Content-Encoding", "br")], V2),
}
WRONG_ORDERS = {
    "index broken": predict("{", target=INDEX),
    "index list": predict("[]", target=INDEX),
    "index ready a string": predict(json.dumps({"ready": CANARY}), target=INDEX),
    "load broken": predict(f"{{{CANARY}", target=LOAD),
    "load with a file": predict(json.dumps({"parameters": {"file:1/model": CANARY}}), target=LOAD),
    "load parameters a string": predict(json.dumps({"parameters": CANARY}), target=LOAD),
    "unload broken": predict("nul", target="/v2/repository/models/iris/unload"),
}
WRONG_HTTP = {
    "no HTTP": f"{CANARY}\r\n\r\n".encode(),
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + CANARY.encode(),
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "negative length": request("POST", V1, None, [("Content-Length", "-1")]),
    "length a text": request("POST", V1, None, [("Content-Length", CANARY + "x")]),
    "length with a sign": request("POST", V1, None, [("Content-Length", "+5")]) + b"12345",
    "length of 5,000 digits": request("POST", V1, None, [("Content-Length", "9" * 5000)]),
    "two lengths": request("POST", V1, None, [("Content-Length", "2"), ("Content-Length", "3")]) + b"{} ",
    "length and chunks": chunked("POST", V1, [GOOD_TEXT.encode()], [("Content-Length", "5")]),
    "chunk without a size": request("POST", V1, None, [("Transfer-Encoding", "chunked")]) + b"zz\r\n",
    "chunk of enormous size": request("POST", V1, None, [("Transfer-Encoding", "chunked")]) + b"f" * 17 + b"\r\n",
    "blank in a header's name": request("GET", "/healthz", None, [(f"X {CANARY}", "1")]),
    "NUL in a header": request("GET", "/healthz", None, [("X-Canary", f"{CANARY}\0")]),
}
LARGE_HEADS = {
    "long header": request("POST", V1, GOOD_TEXT.encode(), [("X-Canary", CANARY * 10_000)]),
    "long line": request("GET", "/" + CANARY * 10_000),
    "many headers": request("GET", "/healthz", None, [(f"X-{i}", CANARY) for i in range(1000)]),
}
SMALL_LIMITS = {
    "SOFTSTEP_ROWS_MAX": 10,
    "SOFTSTEP_BODY_BYTES_MAX": 8000,
    "SOFTSTEP_ANSWER_CELLS_MAX": 24,
    "SOFTSTEP_JSON_DEPTH_MAX": 5,
}
TOO_LARGE = {
    "rows": rows(many(11)),
    "rows of a large body": rows(many(200)),
    "v2 rows": predict(infer([IRIS] * 11), target=V2),
    "v2 rows announced": announced(11 * 16, RAW * 11, shape=[11, 4]),
    "v2 rows enormous": announced(16, shape=[int(CANARY), 4]),
    "v2 rows of a raw tensor": measured("0", RAW * 11),
    "v2 rows whose size overflows": announced(16, shape=[1 << 62, 4]),
    "body": rows(many(500)),
    "v2 body": predict(infer([IRIS] * 500), target=V2),
    "body in chunks": chunked("POST", V1, [rows(many(5))] * 40),
    "body of an order": predict(b" " * 9000, target=INDEX),
    "answer": rows(many(9)),
    "v2 answer": predict(infer([IRIS] * 9), target=V2),
    "v2 binary answer": announced(9 * 16, RAW * 9, shape=[9, 4]),
}
TOO_DEEP = {"levels": rows(nested(5)), "v2 levels": ask_v2(data=[[[[int(CANARY)]]]])}

TABLE: dict[str, tuple[int, bytes]] = {
    **{f"v1 {name}": (400, predict(body)) for name, body in BROKEN_JSON.items()},
    **{f"v2 {name}": (400, predict(body, target=V2)) for name, body in BROKEN_JSON.items()},
    **{f"explain {name}": (400, predict(body, target=EXPLAIN)) for name, body in BROKEN_JSON.items()},
    **{f"convert {name}": (400, predict(body, target=CONVERT)) for name, body in BROKEN_JSON.items()},
    **{f"explain {name}": (422, sent.replace(V1.encode(), EXPLAIN.encode())) for name, sent in NO_ROWS.items()},
    **{f"convert {name}": (422, sent) for name, sent in NO_SCORES.items()},
    **{f"v1 {name}": (422, sent) for name, sent in NO_ROWS.items()},
    **{name: (422, sent) for name, sent in OTHER_KINDS.items()},
    **{name: (400, sent) for name, sent in WRONG_TENSORS.items()},
    **{f"binary {name}": (400, sent) for name, sent in WRONG_BINARY.items()},
    **{name: (404, sent) for name, sent in UNKNOWN.items()},
    **{name: (405, sent) for name, (sent, _) in WRONG_METHODS.items()},
    **{name: (415, sent) for name, sent in WRONG_TYPES.items()},
    **{name: (400, sent) for name, sent in WRONG_ORDERS.items()},
    **{f"HTTP {name}": (400, sent) for name, sent in WRONG_HTTP.items()},
    **{name: (431, sent) for name, sent in LARGE_HEADS.items()},
}
LIMITED: dict[str, tuple[int, bytes]] = {
    **{name: (413, sent) for name, sent in TOO_LARGE.items()},
    **{name: (400, sent) for name, sent in TOO_DEEP.items()},
}


def ask(service: Service, sent: bytes) -> tuple[int, dict[str, str], bytes]:
    """Send bytes over a connection of their own; status, headers and body of the first answer."""
    with socket.create_connection(service.address, SECONDS) as end:
        end.sendall(sent)
        answer = HTTPResponse(end, method=sent.partition(b" ")[0].decode("latin-1"))
        answer.begin()
        body = answer.read()
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}, body


def check_error(status: int, headers: dict[str, str], body: bytes) -> None:
    """One sentence as JSON that says nothing of what was sent, with an id."""
    assert 400 <= status < 500
    check_code(status, headers, body)
    assert len(body) <= ERROR_BYTES_MAX
    Error.model_validate_json(body, strict=True)
    assert CANARY not in body.decode()
    identity = headers.pop("x-request-id")
    assert identity
    assert CANARY not in str(headers)


def check_alive(service: Service, workers: list[int]) -> None:
    """The same workers answer a good request right."""
    status, headers, body = ask(service, request("POST", V1, GOOD_TEXT.encode()))
    assert (status, headers["x-request-id"]) == (200, "test")
    document = json.loads(body)
    assert document["labels"] == ["setosa"]
    assert sum(document["predictions"][0]) == pytest.approx(1)
    assert children(service.process.pid) == workers


@pytest.fixture(scope="module")
def workers(service: Service) -> list[int]:
    """The process ids of the service's workers."""
    return children(service.process.pid)


@pytest.fixture(scope="module")
def limited(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service with small limits."""
    with serving(models, tmp_path_factory.mktemp("limited"), **SMALL_LIMITS) as running:
        yield running


@pytest.mark.parametrize("name", TABLE)
def test_a_wrong_request_is_refused(service: Service, workers: list[int], name: str) -> None:
    """The answer has the status and a sentence, and the same worker stays usable."""
    expected, sent = TABLE[name]
    status, headers, body = ask(service, sent)
    assert status == expected, body
    check_error(status, headers, body)
    check_alive(service, workers)


@pytest.mark.parametrize("name", LIMITED)
def test_a_request_over_a_limit_is_refused(limited: Service, name: str) -> None:
    """It is refused like other wrong requests; a request at the limit is answered."""
    workers = children(limited.process.pid)
    expected, sent = LIMITED[name]
    status, headers, body = ask(limited, sent)
    assert status == expected, body
    check_error(status, headers, body)
    check_alive(limited, workers)


@pytest.mark.parametrize(
    "sent",
    [rows(many(8)), predict(infer([IRIS] * 8), target=V2), measured("0", RAW * 8)],
    ids=["v1", "v2", "raw"],
)
def test_a_request_at_a_limit_is_answered(limited: Service, sent: bytes) -> None:
    """8 rows of 3 classes are just the 24 cells that an answer may have."""
    assert ask(limited, sent)[0] == 200


@pytest.mark.parametrize("name", WRONG_METHODS)
def test_the_answer_to_a_wrong_method_lists_the_allowed_ones(service: Service, name: str) -> None:
    """The Allow header of the answer lists them."""
    sent, allow = WRONG_METHODS[name]
    assert allow in ask(service, sent)[1]["allow"].split(", ")


def test_wrong_requests_in_one_connection_leave_it_usable(service: Service) -> None:
    """Keep-alive survives every refusal that read its whole body, and the answers stay in order."""
    refused = [(status, sent) for status, sent in TABLE.values() if status in (404, 405, 415, 422)]
    with socket.create_connection(service.address, SECONDS) as end:
        for expected, sent in refused:
            for status, one in ((expected, sent), (200, request("POST", V1, GOOD_TEXT.encode()))):
                end.sendall(one)
                answer = HTTPResponse(end)
                answer.begin()
                answer.read()
                assert answer.status == status


def test_refusals_are_counted_and_not_logged_as_faults(service: Service) -> None:
    """The log has no error after all these requests, and nothing that was sent."""
    log = service.log.read_text()
    assert {json.loads(line)["level"] for line in log.splitlines()} == {"info"}
    assert "Traceback" not in log
    assert CANARY not in log
