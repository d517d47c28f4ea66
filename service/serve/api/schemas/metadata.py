"""What GET /v1/models/{name} gives, for the OpenAPI document; see schema.py."""

from typing import Final

from service.serve.api.schemas.json_schema import ANYTHING, FLAG, NUMBER, STRING, WHOLE, Schema, array, nullable, record
from service.softmax.calibration import IDENTITY
from service.softmax.reliability_diagram import BINS


def calibration(**more: Schema) -> Schema:
    """What stands between logits and head: a kind with its numbers, and `more`."""
    return {
        "anyOf": [
            {
                **record(kind={"type": "string", "enum": [kind]}, **more, **dict.fromkeys(numbers, NUMBER)),
                "additionalProperties": False,
            }
            for kind, numbers in IDENTITY.items()
        ]
    }


VERSION_STATE: Final = record(version=STRING, state={"type": "string", "enum": ["READY", "UNAVAILABLE"]}, reason=STRING)
# How far confidence and truth agree over the recent rows; reliability_of in softmax/calibration_learner.py makes it.
RELIABILITY: Final = record(
    rows=WHOLE,
    expected_error=nullable(NUMBER),
    bins=array(
        record(rows=WHOLE, confidence=nullable(NUMBER), accuracy=nullable(NUMBER)), minItems=BINS, maxItems=BINS
    ),
)
PROGRESSIVE: Final = record(
    {
        "unfit_events": WHOLE,
        "recent_rows": WHOLE,
        "recent_loss": NUMBER,
        "recent_accuracy": NUMBER,
        "skipped_rows": WHOLE,
        "steps": WHOLE,
        "step_norm": NUMBER,
        "mean_step_norm": NUMBER,
        "calibration": RELIABILITY,
    },
    events=WHOLE,
    rows=WHOLE,
    loss=nullable(NUMBER),
    accuracy=nullable(NUMBER),
)
METADATA: Final = record(
    {
        "head": {"type": "string", "enum": ["softmax", "sigmoid", "multilabel", "ovr"]},
        "classes": array(STRING),
        "n_features": WHOLE,
        "features": array(STRING),
        "dtype": {"type": "string", "enum": ["float32", "float64"]},
        "layers": array(record(inputs=WHOLE, outputs=WHOLE, activation=STRING)),
        "parameters": WHOLE,
        "seq": WHOLE,
        "weights_sha256": STRING,
        "learning": nullable(ANYTHING),
        "calibration": nullable(calibration(learn=FLAG)),
        "epoch": WHOLE,
        "progressive": PROGRESSIVE,
        "log_seq": WHOLE,
        "lag_events": WHOLE,
        "lag_seconds": NUMBER,
        "learner": record({"reason": STRING}, state=STRING),
        "erased": FLAG,
        "bound_differs": FLAG,
        "published_seconds": nullable(NUMBER),
        "metrics": {"type": "object", "additionalProperties": NUMBER},
        "provenance": {"type": "object", "additionalProperties": STRING},
    },
    name=STRING,
    version=STRING,
    state={"type": "string", "enum": ["READY", "UNAVAILABLE"]},
    ready=FLAG,
    versions=array(VERSION_STATE),
)
