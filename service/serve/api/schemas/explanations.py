"""What the endpoints of the mathematics take and give: explanations, and scores in all their forms; see schema.py."""

from typing import Any, Final

from service.serve.api.schemas.json_schema import NUMBER, STRING, WHOLE, Schema, array, nullable, record
from service.serve.api.schemas.metadata import calibration
from service.serve.api.schemas.requests import INSTANCES, IRIS, LABEL, post

ROWS: Final = array(array(NUMBER))
WHY: Final[Schema] = {
    **record(
        {
            "labels": array(LABEL, minItems=1),
            "top": {"type": "integer", "minimum": 1},
            "min_seq": INSTANCES["properties"]["min_seq"],
            "parameters": {},
            "signature_name": {},
        },
        instances=INSTANCES["properties"]["instances"],
    ),
    "additionalProperties": False,
}
REASON: Final = record(feature=STRING, index=WHOLE, contribution=nullable(NUMBER), sensitivity=NUMBER)
EXPLANATION: Final = record(
    {"loss": NUMBER, "loss_gradient": array(NUMBER)},
    label={"anyOf": [STRING, array(STRING)]},
    logits=array(NUMBER),
    probabilities=array(NUMBER),
    bias=nullable(array(NUMBER)),
    contributions=nullable(ROWS),
    sensitivities=ROWS,
    top=array(REASON),
)
EXPLANATIONS: Final = record(
    {"features": array(STRING), "calibration": calibration(), "epoch": WHOLE},
    explanations=array(EXPLANATION),
    classes=array(STRING),
    model_name=STRING,
    model_version=STRING,
    seq=WHOLE,
)
OPTIONS: Final[dict[str, Schema]] = {
    "head": {"type": "string", "enum": ["softmax", "sigmoid"]},
    "temperature": {"type": "number", "exclusiveMinimum": 0},
}
FORMS: Final[dict[str, Schema]] = {
    "logits": nullable(NUMBER),
    "probabilities": {"type": "number", "minimum": 0, "maximum": 1},
    "log_probabilities": nullable({"type": "number", "maximum": 0}),
    "odds": nullable({"type": "number", "minimum": 0}),
}
# Exactly one of the forms.
SCORES: Final[Schema] = {
    "oneOf": [
        {
            **record(OPTIONS, **{form: array(array(number, minItems=1), minItems=1)}),
            "additionalProperties": False,
        }
        for form, number in FORMS.items()
    ]
}
CONVERTED: Final = record(**{form: array(array(nullable(NUMBER))) for form in FORMS}, **OPTIONS)

MATHEMATICS: Final[dict[str, dict[str, Any]]] = {
    "explain": post(
        WHY, EXPLANATIONS, 400, 404, 409, 413, 415, 422, 503, example={"instances": [IRIS], "labels": ["setosa"]}
    ),
    "convert": post(
        SCORES, CONVERTED, 400, 413, 415, 422, 503, example={"logits": [[2.0, 0.5, None]], "temperature": 1.5}
    ),
}
