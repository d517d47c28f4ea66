"""What each endpoint takes and gives, for the OpenAPI document; the endpoints read and write raw bytes.

tests/serve/api/test_openapi.py drives the running service from this document and holds every answer to it.
"""

from typing import Any, Final

from service.serve.api.schemas.json_schema import ANYTHING, FLAG, NUMBER, STRING, WHOLE, Schema, array, nullable, record
from service.serve.api.schemas.metadata import METADATA

# Seqs have 40 bits.
SEQ_LAST: Final = (1 << 40) - 1

ERROR: Final = record(error=STRING)
INSTANCES: Final[Schema] = {
    **record(
        {
            "parameters": {},
            "signature_name": {},
            "min_seq": {"type": "integer", "minimum": 0, "maximum": SEQ_LAST},
            "feedback_tokens": FLAG,
        },
        instances=array(array(NUMBER, minItems=1), minItems=1),
    ),
    "additionalProperties": False,
}
PREDICTIONS: Final = record(
    {"feedback_tokens": array(STRING), "epoch": WHOLE},
    predictions=array(array(NUMBER)),
    labels=array({"anyOf": [STRING, array(STRING)]}),
    model_name=STRING,
    model_version=STRING,
    seq=WHOLE,
)
LABEL: Final[Schema] = {"anyOf": [STRING, WHOLE, array({"anyOf": [NUMBER, STRING]})]}
ID: Final[Schema] = {"type": "string", "minLength": 1}
TAUGHT_ROWS: Final[Schema] = {
    **record(
        {
            "id": ID,
            "weights": array({"type": "number", "exclusiveMinimum": 0, "maximum": 100}, minItems=1),
            "parameters": {},
            "signature_name": {},
        },
        instances=array(array(NUMBER, minItems=1), minItems=1),
        labels=array(LABEL, minItems=1),
    ),
    "additionalProperties": False,
}
TAUGHT_TOKENS: Final[Schema] = {
    **record(
        {"weights": TAUGHT_ROWS["properties"]["weights"], "parameters": {}, "signature_name": {}},
        tokens=array(STRING, minItems=1),
        labels=array(LABEL, minItems=1),
    ),
    "additionalProperties": False,
}
LOSSES: Final = nullable(array(nullable(NUMBER)))
EVENT: Final[dict[str, Schema]] = {"id": STRING, "seq": WHOLE, "duplicate": FLAG}
KEPT: Final[Schema] = {
    "anyOf": [
        record({"forgotten": FLAG, "losses": LOSSES}, model_name=STRING, model_version=STRING, **EVENT),
        record(
            model_name=STRING,
            model_version=STRING,
            events=array(record({"forgotten": FLAG, "losses": LOSSES, "model_version": STRING}, **EVENT)),
        ),
    ]
}
COMMON: Final[dict[str, Schema]] = {"id": ID, "if_seq": {"type": "integer", "minimum": 0, "maximum": SEQ_LAST}}
TENSOR: Final[Schema] = {
    **record(
        {"parameters": ANYTHING, "data": array({})},
        name=STRING,
        shape=array({"type": "integer", "minimum": 1}, minItems=2, maxItems=2),
        datatype=STRING,
    ),
    "additionalProperties": False,
}
WISH: Final[Schema] = {
    **record({"parameters": ANYTHING}, name={"type": "string", "enum": ["probabilities", "labels"]}),
    "additionalProperties": False,
}
INFER: Final[Schema] = {
    **record(
        {"id": STRING, "parameters": ANYTHING, "outputs": array(WISH, minItems=1)},
        inputs=array(TENSOR, minItems=1, maxItems=1),
    ),
    "additionalProperties": False,
}
INFERRED: Final = record(
    model_name=STRING,
    model_version=STRING,
    id=STRING,
    parameters=record({"epoch": WHOLE}, seq=WHOLE),
    outputs=array(
        record({"parameters": ANYTHING, "data": array({})}, name=STRING, datatype=STRING, shape=array(WHOLE))
    ),
)
DESCRIBED: Final = record(name=STRING, datatype=STRING, shape=array({"type": "integer"}))
READY: Final = record({"error": STRING}, ready=FLAG)


def _responses(schema: Schema, *errors: int, kind: str = "application/json") -> dict[int | str, Any]:
    """The answers of an endpoint: 200 with a schema, and errors in the one form."""
    content = {"description": "OK", "content": {kind: {"schema": schema}}}
    failed: dict[int | str, Any] = {
        status: {"description": ERRORS[status], "content": _json(ERROR)} for status in errors
    }
    return {200: content, **failed}


def _json(schema: Schema) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}


ERRORS: Final = {
    400: "The request cannot be parsed; on v2 paths also: cannot be accepted",
    404: "No such model or version, or no such event",
    409: "What was learned, or is being learned, does not fit the request; the sentence says what to do",
    410: "A forgotten event was a part of that state, which is gone for good",
    413: "The body, its rows or its answer are larger than a limit",
    415: "The content type or encoding is not supported",
    422: "The request parses, but this model cannot accept it",
    429: "Feedback comes faster than it can be written",
    503: "Not ready, or too busy",
}
UNREADY: Final[dict[int | str, Any]] = {503: {"description": ERRORS[503], "content": _json({"anyOf": [READY, ERROR]})}}


def _get(schema: Schema, *errors: int, kind: str = "application/json") -> dict[str, Any]:
    return {"responses": _responses(schema, *errors, kind=kind)}


def post(body: Schema, answer: Schema, *errors: int, required: bool = True, example: object = None) -> dict[str, Any]:
    """What the document says of an endpoint that takes a body: that, its answer, and its errors."""
    content = {"schema": body} if example is None else {"schema": body, "example": example}
    extra = {"requestBody": {"required": required, "content": {"application/json": content}}}
    return {"responses": _responses(answer, *errors), "openapi_extra": extra}


def _turn(body: Schema, example: object, *more: int) -> dict[str, Any]:
    """A call that becomes an event: 202 when it is on disk; with wait=true 200 when it is served."""
    docs = post(
        body if "anyOf" in body else {**body, "additionalProperties": False},
        KEPT,
        400,
        404,
        409,
        413,
        422,
        429,
        503,
        *more,
        example=example,
    )
    docs["responses"][202] = {"description": "It is on disk", "content": _json(KEPT)}
    docs["responses"][200]["description"] = "It is on disk and served, which wait=true asks for"
    docs["openapi_extra"]["parameters"] = [
        {"name": "wait", "in": "query", "required": False, "schema": FLAG, "description": "Answer when it is served."}
    ]
    return {"status_code": 202, **docs}


def _weights() -> dict[str, Any]:
    """A file of tensors, at once or when it is made."""
    docs = _get({"type": "string", "format": "binary"}, 404, 410, 422, 503, kind="application/octet-stream")
    docs["responses"][202] = {"description": "It is being made; ask again", "content": _json(ERROR)}
    seq = {"type": "integer", "minimum": 0, "maximum": 999_999_999_999}
    text = "The seq of the state; what is served where it is missing."
    parameter = {"name": "seq", "in": "query", "required": False, "schema": seq, "description": text}
    return {**docs, "openapi_extra": {"parameters": [parameter]}}


# What the documentation's page offers to send; it fits the shipped model `iris`.
IRIS: Final = [5.1, 3.5, 1.4, 0.2]
IRIS_TENSOR: Final = {"name": "features", "shape": [1, 4], "datatype": "FP32", "data": IRIS}
DOCS: Final[dict[str, dict[str, Any]]] = {
    "models": _get(record(models=array(record(name=STRING, version=STRING, state=STRING)))),
    "model": _get(METADATA, 404, 503),
    "predict": post(INSTANCES, PREDICTIONS, 400, 404, 409, 413, 415, 422, 503, example={"instances": [IRIS]}),
    "feedback": _turn({"anyOf": [TAUGHT_ROWS, TAUGHT_TOKENS]}, {"instances": [IRIS], "labels": ["setosa"]}, 415),
    "classes": _turn(record(COMMON, add=array({"type": "string", "minLength": 1}, minItems=1)), {"add": ["other"]}),
    "forget": _turn(record(COMMON, ids=array(ID, minItems=1)), {"ids": ["evt-1"]}),
    "rollback": _turn(record(COMMON, seq=WHOLE), {"seq": 0}),
    "configure": _turn(
        record({**COMMON, "rule": STRING, "constants": ANYTHING, "paused": FLAG, "shadow": FLAG}), {"paused": True}
    ),
    "weights": _weights(),
    "server": _get(record(name=STRING, version=STRING, extensions=array(STRING))),
    "live": _get(record(live=FLAG)),
    "ready": {"responses": _responses(READY) | UNREADY},
    "model_ready": {
        "responses": _responses(record(name=STRING, ready=FLAG), 404) | UNREADY,
    },
    "tensors": _get(
        record(name=STRING, versions=array(STRING), platform=STRING, inputs=array(DESCRIBED), outputs=array(DESCRIBED)),
        404,
        503,
    ),
    "config": _get(record(name=STRING, platform=STRING, max_batch_size=WHOLE), 404, 503),
    "stats": _get(record(model_stats=array(record(name=STRING, version=STRING, inference_count=WHOLE))), 404, 503),
    "infer": post(INFER, INFERRED, 400, 404, 413, 415, 503, example={"inputs": [IRIS_TENSOR]}),
    "index": post(
        record({"ready": FLAG}),
        array(record(name=STRING, version=STRING, state=STRING, reason=STRING)),
        400,
        413,
        required=False,
    ),
    "load": post(
        record({"parameters": ANYTHING}),
        record({"load": FLAG, "unload": FLAG}, name=STRING),
        400,
        404,
        413,
        503,
        required=False,
    ),
    "metrics": _get(STRING, kind="text/plain"),
}
