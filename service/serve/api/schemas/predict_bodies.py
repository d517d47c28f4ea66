"""Bodies of `:predict` and `/invocations`."""

from typing import Any, Final

from pydantic import Field

from service.serve.api.schemas.schema_types import (
    IGNORED,
    IRIS,
    IRIS_BASE64,
    IRIS_FEATURES,
    IRIS_PROBABILITIES,
    Count,
    NamedColumns,
    NamedRows,
    PredictedLabel,
    RequestModel,
    ResponseModel,
    Seq,
    absent,
)
from service.settings import Settings

PROBABILITIES: Final = 'One list of probabilities for each row, in the order of "classes" in the model\'s metadata.'


class PredictOptions(RequestModel):
    """The options of a prediction."""

    min_seq: Seq | None = Field(
        default_factory=absent,
        description="The response comes from a state that holds the event with this seq. "
        "The service waits for it, and answers 409 if that takes too long.",
    )
    feedback_tokens: bool | None = Field(
        default_factory=absent,
        description="Whether to return one token for each row, to send with its label later in place of the row.",
    )
    parameters: Any = Field(default_factory=absent, description=IGNORED)
    signature_name: Any = Field(default_factory=absent, description=IGNORED)


class PredictRequest(PredictOptions):
    """Rows to predict."""

    instances: NamedRows = Field(
        description="The rows, each a list with one number for each feature, an object by their names, or base64. "
        f"SOFTSTEP_ROWS_MAX limits their number; {Settings.model_fields['rows_max'].default:,} is the default."
    )


class InputsRequest(PredictOptions):
    """Columns to predict."""

    inputs: NamedColumns | NamedRows = Field(
        description="A list of one number for each row, by the names of the features; or the rows."
    )


class PredictionLabels(ResponseModel):
    """The labels of a prediction, and the state that answered."""

    labels: list[PredictedLabel] = Field(
        description="The class with the largest probability of each row, the first of equals. "
        "For a multi-label model: the classes whose probability reaches their threshold."
    )
    feedback_tokens: list[str] = Field(
        default_factory=absent, description="One token for each row, if the request asked for them."
    )
    model_name: str = Field(description="The model's name.")
    model_version: str = Field(description="The version that answered.")
    seq: Seq = Field(description="The last event of the feedback log that the weights hold; 0 before any feedback.")
    epoch: Count = Field(
        default_factory=absent,
        description="How often feedback of this version was forgotten; left out while that is 0.",
    )


class PredictResponse(PredictionLabels):
    """The probabilities and the label of each row."""

    predictions: list[list[float]] = Field(description=PROBABILITIES)


class OutputsResponse(PredictionLabels):
    """The probabilities and the label of each row, in response to `inputs`."""

    outputs: list[list[float]] = Field(description=PROBABILITIES)


PREDICT_REQUESTS: Final = {
    "one row": {"instances": [IRIS]},
    "two rows": {"instances": [IRIS, [6.7, 3.0, 5.2, 2.3]]},
    "a row and a feedback token": {"instances": [IRIS], "feedback_tokens": True, "min_seq": 0},
    "a row by name": {"instances": [dict(zip(IRIS_FEATURES, IRIS, strict=True))], "min_seq": None},
    "a row in base64": {"instances": [{"b64": IRIS_BASE64}]},
    "columns by name": {"inputs": {name: [value] for name, value in zip(IRIS_FEATURES, IRIS, strict=True)}},
}
PREDICT_RESPONSES: Final = {
    "one row": {
        "predictions": [IRIS_PROBABILITIES],
        "labels": ["setosa"],
        "model_name": "iris",
        "model_version": "1",
        "seq": 0,
    },
    "a row and a feedback token": {
        "predictions": [IRIS_PROBABILITIES],
        "labels": ["setosa"],
        "feedback_tokens": ["AZtGsDEBoiVh4qJ0abJOiFu7Sb4NNsAob8uGfoPcvClQ_LAsO5fLN4XTvtKP5TRjZfiMbIM"],
        "model_name": "iris",
        "model_version": "1",
        "seq": 0,
    },
    "columns by name": {
        "outputs": [IRIS_PROBABILITIES],
        "labels": ["setosa"],
        "model_name": "iris",
        "model_version": "1",
        "seq": 0,
    },
}
