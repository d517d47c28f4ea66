"""Bodies of `:predict` and `/invocations`."""

from typing import Any, Final

from pydantic import Field

from service.serve.api.schemas.row_forms import (
    IRIS_RECORD,
    ROW_FORMS,
    InputsRows,
    InstancesRows,
    RecordsRows,
    SplitRows,
)
from service.serve.api.schemas.schema_types import (
    IGNORED,
    IRIS,
    IRIS_BASE64,
    IRIS_PROBABILITIES,
    Count,
    PredictedLabel,
    RequestModel,
    ResponseModel,
    Seq,
    absent,
)

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


class PredictRequest(InstancesRows, PredictOptions):
    """Rows to predict."""


class InputsRequest(InputsRows, PredictOptions):
    """Columns to predict."""


class SplitRequest(SplitRows, PredictOptions):
    """A table to predict."""


class RecordsRequest(RecordsRows, PredictOptions):
    """Objects to predict."""


PREDICT_BODIES: Final = (PredictRequest, InputsRequest, SplitRequest, RecordsRequest)


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
    "a row by name": {"instances": [IRIS_RECORD], "min_seq": None},
    "a row in base64": {"instances": [{"b64": IRIS_BASE64}]},
    **ROW_FORMS,
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
