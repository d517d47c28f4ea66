"""Hostile bodies of JSON, of predictions, tensors, feedback and administration."""

from tests.hostile.cases import FEEDBACK, INFER, ROWS, Cases, answered, post, post_json, rows
from tests.support.json_numbers import CANARY, CANARY_NUMBER, NUMBERS

EXPLAIN = "/v1/models/iris:explain"
ADMIN = "/v1/models/iris:"
BIG = 1 << 70
ROW = [5.1, 3.5, 1.4, 0.2]
ACCEPTED = (
    "minus zero", "minus zero point", "small", "smaller", "subnormal", "seventeen digits", "many digits", "exponent",
    "integer", "2^63", "2^64 - 1", "2^64", "-2^63", "-2^63 - 1", "rounds down", "large",
)  # fmt: skip
REFUSED = (
    "rounds to infinity", "1e39", "1e308", "true", "false", "null", "string", "object", "list", "empty", "zeros",
)  # fmt: skip

TEXTS: Cases = answered(
    400,
    {
        "empty body": post(b""),
        "white space": post(b" \t\r\n" * 1000),
        "JSON null": post("null"),
        "JSON true": post("true"),
        "JSON number": post(str(CANARY_NUMBER)),
        "JSON string": post(f'"{CANARY}"'),
        "JSON list": post("[[1,2,3,4]]"),
        "unclosed object": post(ROWS[:-1]),
        "unclosed string": post('{"instances'),
        "comma at the end": post('{"instances":[[1,2,3,4],]}'),
        "two documents": post(ROWS * 2),
        "text after the document": post(ROWS + CANARY.encode()),
        "comment": post("{/**/" + ROWS.decode()[1:]),
        "single quotes": post("{'instances':[[1,2,3,4]]}"),
        "unquoted key": post("{instances:[[1,2,3,4]]}"),
        "two byte order marks": post(b"\xef\xbb\xbf" * 2 + ROWS),
        "UTF-16 with a mark": post(ROWS.decode().encode("utf-16")),
        "UTF-16 without a mark": post(ROWS.decode().encode("utf-16-le")),
        "UTF-32": post(ROWS.decode().encode("utf-32")),
        "latin-1": post('{"instances":[[1,2,3,4]],"id":"ü"}'.encode("latin-1")),
        "overlong UTF-8": post(b'{"instances":[[1,2,3,4]],"id":"\xc0\xaf"}'),
        "surrogate in UTF-8": post(b'{"instances":[[1,2,3,4]],"id":"\xed\xa0\x80"}'),
        "byte 0xff": post(b"\xff" * 1000),
        "lone high surrogate": post('{"instances":[[1,2,3,4]],"id":"\\ud800"}'),
        "lone low surrogate": post('{"instances":[[1,2,3,4]],"\\udfff":1}'),
        "bad escape": post('{"instances":[[1,2,3,4]],"id":"\\x41"}'),
        "zero byte": post(b"{\0" + ROWS[1:]),
        "zero byte at the end": post(ROWS + b"\0"),
        "control character in a string": post(b'{"instances":[[1,2,3,4]],"id":"\x01"}'),
        "repeated key": post('{"instances":[[1,2,3,4]],"instances":[[1,2,3,4]]}'),
        "repeated key, escaped": post('{"instances":[[1,2,3,4]],"\\u0069nstances":[[1,2,3,4]]}'),
        "repeated key inside": post('{"instances":[{"a":1,"a":2}]}'),
        "65 levels of lists": post('{{"instances":{}1{}}}'.format("[" * 65, "]" * 65)),
        "pickle": post(b"\x80\x04\x95\x1a\x00\x00\x00\x00\x00\x00\x00\x8c\x05posix\x8c\x06system\x93."),
        "XML with entities": post(
            '<?xml version="1.0"?><!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]><a>&b;</a>'
        ),
        "YAML": post("instances: !!python/object/apply:os.system [id]"),
        "multipart": post(b'--b\r\nContent-Disposition: form-data; name="a"\r\n\r\n1\r\n--b--\r\n'),
        **{
            f"number: {name}": post(rows(text))
            for name, text in NUMBERS.items()
            if name not in ACCEPTED and name not in REFUSED
        },
    },
)

TOO_LARGE: Cases = answered(
    413,
    {
        "300,000 levels of lists": post("[" * 300_000),
        "150,000 levels of objects": post('{"a":' * 150_000),
        "300,000 empty lists": post('{"instances":[%s[]]}' % ("[]," * 300_000)),
        "65,537 rows": post('{"instances":[%s[1,2,3,4]]}' % ("[1,2,3,4]," * 65_536)),
        "200,000 labels": post('{"instances":[[1,2,3,4]],"labels":[%s0]}' % ("[]," * 200_000), path=FEEDBACK),
    },
)

VALUES: Cases = answered(200, {f"number: {name}": post(rows(NUMBERS[name])) for name in ACCEPTED})

PREDICTIONS: Cases = answered(
    422,
    {
        **{f"number: {name}": post(rows(NUMBERS[name])) for name in REFUSED},
        "no fields": post_json({}),
        "instances a string": post_json({"instances": CANARY}),
        "instances a number": post_json({"instances": CANARY_NUMBER}),
        "instances an object": post_json({"instances": {"0": ROW}}),
        "no rows": post_json({"instances": []}),
        "an empty row": post_json({"instances": [[]]}),
        "rows of rows": post_json({"instances": [[ROW]]}),
        "50,000 values in a row": post_json({"instances": [[CANARY_NUMBER] * 50_000]}),
        "ragged rows": post_json({"instances": [ROW, ROW[:3], [*ROW, 1]]}),
        "rows of strings": post_json({"instances": [[CANARY] * 4]}),
        "base64 of the canary": post_json({"instances": [{"b64": CANARY}]}),
        "base64 of NaN": post_json({"instances": [{"b64": "AAAAAAAA/38="}]}),
        "base64 of 200,000 characters": post_json({"instances": [{"b64": "A" * 200_000}]}),
        "base64 of white space": post_json({"instances": [{"b64": "AA AA\n" * 5}]}),
        "base64 in lists": post_json({"instances": [[{"b64": "AAAAAAAAAAA="}]]}),
        "5,000 rows in base64, the last of padding": post_json(
            {"instances": [{"b64": "AAAAAAAAAAA="}] * 4999 + [{"b64": "=" * 12}]}
        ),
        "unknown fields": post_json({"instances": [ROW], "__proto__": {}, "constructor": 1}),
        "5,000 unknown fields": post_json({str(number): 0 for number in range(5000)}),
        "key of 200,000 characters": post_json({"a" * 200_000: [ROW]}),
        "zero byte in a key": post_json({"\0": [ROW]}),
        "min_seq below 0": post_json({"instances": [ROW], "min_seq": -1}),
        "min_seq of 70 bits": post_json({"instances": [ROW], "min_seq": BIG}),
        "min_seq a text": post_json({"instances": [ROW], "min_seq": "1"}),
        "min_seq true": post_json({"instances": [ROW], "min_seq": True}),
        "feedback_tokens a number": post_json({"instances": [ROW], "feedback_tokens": 1}),
        "explain: top 0": post_json({"instances": [ROW], "top": 0}, EXPLAIN),
        "explain: top of 70 bits below 0": post_json({"instances": [ROW], "top": -BIG}, EXPLAIN),
        "explain: unknown label": post_json({"instances": [ROW], "labels": [CANARY]}, EXPLAIN),
        "convert: temperature 0": post_json({"logits": [[1, 2]], "temperature": 0}, "/v1/convert"),
        "convert: two forms": post_json({"logits": [[1, 2]], "odds": [[1, 2]]}, "/v1/convert"),
        "convert: an empty row": post_json({"logits": [[]]}, "/v1/convert"),
        "convert: only nulls": post_json({"probabilities": [[None, None]]}, "/v1/convert"),
    },
)

TEACHING: Cases = answered(
    422,
    {
        "labels missing": post_json({"instances": [ROW]}, FEEDBACK),
        "label of an unknown class": post_json({"instances": [ROW], "labels": [CANARY]}, FEEDBACK),
        "label of 70 bits": post_json({"instances": [ROW], "labels": [BIG]}, FEEDBACK),
        "label below 0": post_json({"instances": [ROW], "labels": [-1]}, FEEDBACK),
        "label true": post_json({"instances": [ROW], "labels": [True]}, FEEDBACK),
        "distribution above 1": post_json({"instances": [ROW], "labels": [[1, 1, 1]]}, FEEDBACK),
        "distribution of 1e308": post_json({"instances": [ROW], "labels": [[1e308, -1e308, 1]]}, FEEDBACK),
        "weight 0": post_json({"instances": [ROW], "labels": [0], "weights": [0]}, FEEDBACK),
        "weight 1e308": post_json({"instances": [ROW], "labels": [0], "weights": [1e308]}, FEEDBACK),
        "id empty": post_json({"instances": [ROW], "labels": [0], "id": ""}, FEEDBACK),
        "id of 129 bytes": post_json({"instances": [ROW], "labels": [0], "id": "a" * 129}, FEEDBACK),
        "id a number": post_json({"instances": [ROW], "labels": [0], "id": CANARY_NUMBER}, FEEDBACK),
        "row of 1e39": post_json({"instances": [[1e39] * 4], "labels": [0]}, FEEDBACK),
        "row of NaN in base64": post_json({"instances": [{"b64": "AAAAAAAA/38="}], "labels": [0]}, FEEDBACK),
        "tokens and rows": post_json({"instances": [ROW], "tokens": ["a"], "labels": [0]}, FEEDBACK),
        "tokens empty": post_json({"tokens": [], "labels": []}, FEEDBACK),
        "token no base64": post_json({"tokens": ["!" * 99], "labels": [0]}, FEEDBACK),
        "token empty": post_json({"tokens": [""], "labels": [0]}, FEEDBACK),
        "token not ASCII": post_json({"tokens": ["ü" * 60], "labels": [0]}, FEEDBACK),
        "token of 200,000 characters": post_json({"tokens": ["A" * 200_000], "labels": [0]}, FEEDBACK),
        "classes: none": post_json({"classes": [], "id": "a"}, f"{ADMIN}classes"),
        "classes: control character": post_json({"classes": ["\0\x1b[2J"], "id": ""}, f"{ADMIN}classes"),
        "classes: 50,000": post_json({"classes": [f"c{n}" for n in range(50_000)], "id": "b"}, f"{ADMIN}classes"),
        "forget: 60,000 numbers": post_json({"ids": list(range(60_000)), "id": "a"}, f"{ADMIN}forget"),
        "forget: a text": post_json({"ids": CANARY, "id": "a"}, f"{ADMIN}forget"),
        "correct: labels missing": post_json({"ids": ["a"], "id": "b"}, f"{ADMIN}correct"),
        "rollback below 0": post_json({"seq": -1, "id": "a"}, f"{ADMIN}rollback"),
        "rollback of 70 bits": post_json({"seq": BIG, "id": "a"}, f"{ADMIN}rollback"),
        "rollback to a fraction": post_json({"seq": 0.5, "id": "a"}, f"{ADMIN}rollback"),
        "configure: unknown rule": post_json({"rule": CANARY, "id": "a"}, f"{ADMIN}configure"),
        "configure: constant 1e308": post_json(
            {"rule": "sgd", "constants": {"rate": 1e308}, "id": "a"}, f"{ADMIN}configure"
        ),
        "configure: nothing": post_json({"id": "a"}, f"{ADMIN}configure"),
    },
)


# A token of the right form may be of a version that will be served again.
TOKENS: Cases = answered(409, {"token of zeros": post_json({"tokens": ["AgAA" + "A" * 60], "labels": [0]}, FEEDBACK)})


def tensor(**fields: object) -> bytes:
    """Return a v2 request of one input, with other fields."""
    entry = {"name": "x", "shape": [1, 4], "datatype": "FP32", "data": ROW, **fields}
    return post_json({"inputs": [{name: value for name, value in entry.items() if value is not None}]}, INFER)


def binary(length: str, text: bytes = b"", raw: bytes = b"") -> bytes:
    """Return a v2 request with the size of its JSON part."""
    return post(text + raw, f"Inference-Header-Content-Length: {length}", path=INFER)


PART = b'{"inputs":[{"name":"x","shape":[1,4],"datatype":"FP32","parameters":{"binary_data_size":16}}]}'
TENSORS: Cases = {
    **answered(
        400,
        {
            "inputs missing": post_json({}, INFER),
            "inputs an object": post_json({"inputs": {}}, INFER),
            "inputs empty": post_json({"inputs": []}, INFER),
            "5,000 inputs": post_json({"inputs": [{"name": "x"}] * 5000}, INFER),
            "shape below 0": tensor(shape=[-1, -4]),
            "shape of 70 bits": tensor(shape=[BIG, 4]),
            "shape of floats": tensor(shape=[1.0, 4.0]),
            "shape empty": tensor(shape=[]),
            "shape of 10,000 dimensions": tensor(shape=[1] * 10_000),
            "shape of true": tensor(shape=[True, 4]),
            "datatype unknown": tensor(datatype="OBJECT"),
            "datatype BYTES": tensor(datatype="BYTES", data=["a"]),
            "datatype a list": tensor(datatype=["FP32"]),
            "data a text": tensor(data=CANARY),
            "data missing": tensor(data=None),
            "data too short": tensor(data=[1]),
            "BOOL of 2": tensor(datatype="BOOL", data=[2, 0, 0, 0]),
            "binary size without a header": tensor(data=None, parameters={"binary_data_size": 16}),
            "binary size below 0": binary(str(len(PART)), PART.replace(b":16}", b":-1}"), bytes(16)),
            "binary size of 70 bits": binary(str(len(PART) + 20), PART.replace(b":16}", b":%d}" % BIG), bytes(16)),
            "binary data too short": binary(str(len(PART)), PART, bytes(15)),
            "binary data too long": binary(str(len(PART)), PART, bytes(17)),
            "JSON part longer than the body": binary("99999999", PART, bytes(16)),
            "JSON part below 0": binary("-1", PART, bytes(16)),
            "JSON part a fraction": binary("1e2", PART, bytes(16)),
            "JSON part with a plus": binary(f"+{len(PART)}", PART, bytes(16)),
            "JSON part of 5,000 digits": binary("9" * 5000, PART, bytes(16)),
            "JSON part in other digits": binary("\xb2", PART, bytes(16)),
            "JSON part empty": binary("", PART, bytes(16)),
            "raw tensor of 3 bytes": binary("0", b"", bytes(3)),
            "raw tensor empty": binary("0"),
            "raw NaN": binary("0", b"", b"\xff" * 16),
            "parameters a list": tensor(parameters=[1]),
            "outputs unknown": post_json({"inputs": [], "outputs": [{"name": CANARY}]}, INFER),
        },
    ),
    **answered(
        413,
        {
            "shape overflows": tensor(shape=[1 << 62, 4]),
            "raw tensor of 65,537 rows": binary("0", b"", bytes(65_537 * 16)),
        },
    ),
}

ALL: Cases = {**TEXTS, **TOO_LARGE, **VALUES, **PREDICTIONS, **TEACHING, **TOKENS, **TENSORS}
