"""What each endpoint takes and gives, for the OpenAPI document; the endpoints read and write raw bytes.

tests/serve/test_openapi.py drives the running service from this document and holds every answer to it.
"""

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


ERROR: Final = record(error=STRING)
VERSION_STATE: Final = record(version=STRING, state={"type": "string", "enum": ["READY", "UNAVAILABLE"]}, reason=STRING)
METADATA: Final = record(
    {
        "head": {"type": "string", "enum": ["softmax", "sigmoid", "multilabel", "ovr"]},
        "classes": array(STRING),
        "n_features": WHOLE,
        "features": array(STRING),
        "dtype": {"type": "string", "enum": ["float32", "float64"]},
        "seq": WHOLE,
        "weights_sha256": STRING,
        "learning": nullable(ANYTHING),
        "progressive": record(events=WHOLE, rows=WHOLE, loss=nullable(NUMBER), accuracy=nullable(NUMBER)),
        "metrics": {"type": "object", "additionalProperties": NUMBER},
        "provenance": {"type": "object", "additionalProperties": STRING},
    },
    name=STRING,
    version=STRING,
    state={"type": "string", "enum": ["READY", "UNAVAILABLE"]},
    ready=FLAG,
    versions=array(VERSION_STATE),
)
INSTANCES: Final[Schema] = {
    **record(
        {"parameters": {}, "signature_name": {}},
        instances=array(array(NUMBER, minItems=1), minItems=1),
    ),
    "additionalProperties": False,
}
PREDICTIONS: Final = record(
    predictions=array(array(NUMBER)),
    labels=array({"anyOf": [STRING, array(STRING)]}),
    model_name=STRING,
    model_version=STRING,
    seq=WHOLE,
)
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
    parameters=record(seq=WHOLE),
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
    404: "No such model or version",
    413: "The body, its rows or its answer are larger than a limit",
    415: "The content type or encoding is not supported",
    422: "The request parses, but this model cannot accept it",
    503: "Not ready, or too busy",
}
UNREADY: Final[dict[int | str, Any]] = {503: {"description": ERRORS[503], "content": _json({"anyOf": [READY, ERROR]})}}


def _get(schema: Schema, *errors: int, kind: str = "application/json") -> dict[str, Any]:
    return {"responses": _responses(schema, *errors, kind=kind)}


def _post(body: Schema, answer: Schema, *errors: int, required: bool = True, example: object = None) -> dict[str, Any]:
    content = {"schema": body} if example is None else {"schema": body, "example": example}
    extra = {"requestBody": {"required": required, "content": {"application/json": content}}}
    return {"responses": _responses(answer, *errors), "openapi_extra": extra}


# What the documentation's page offers to send; it fits the shipped model `iris`.
IRIS: Final = [5.1, 3.5, 1.4, 0.2]
IRIS_TENSOR: Final = {"name": "features", "shape": [1, 4], "datatype": "FP32", "data": IRIS}
DOCS: Final[dict[str, dict[str, Any]]] = {
    "models": _get(record(models=array(record(name=STRING, version=STRING, state=STRING)))),
    "model": _get(METADATA, 404, 503),
    "predict": _post(INSTANCES, PREDICTIONS, 400, 404, 413, 415, 422, 503, example={"instances": [IRIS]}),
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
    "infer": _post(INFER, INFERRED, 400, 404, 413, 415, 503, example={"inputs": [IRIS_TENSOR]}),
    "index": _post(
        record({"ready": FLAG}),
        array(record(name=STRING, version=STRING, state=STRING, reason=STRING)),
        400,
        413,
        required=False,
    ),
    "load": _post(
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
