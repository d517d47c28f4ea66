"""Bodies of `:explain`."""

from typing import Annotated, Any, Final, Literal

from pydantic import Field

from service.serve.api.schemas.row_forms import ROW_FORMS, InputsRows, InstancesRows, RecordsRows, SplitRows
from service.serve.api.schemas.schema_types import (
    IGNORED,
    IRIS,
    IRIS_CLASSES,
    IRIS_FEATURES,
    IRIS_PROBABILITIES,
    Count,
    Labels,
    PredictedLabel,
    RequestModel,
    ResponseModel,
    Seq,
    absent,
)
from service.serve.handlers.explain_body import WIDE_FROM, WIDE_TOP


class ExplainOptions(RequestModel):
    """The options of an explanation."""

    labels: Labels | None = Field(
        default_factory=absent,
        description="The true label of each row, as in feedback; the response then has losses and their gradients.",
    )
    top: Annotated[int, Field(ge=1)] | None = Field(
        default_factory=absent,
        description="How many features to report for each row. "
        f"The default is all of them, or {WIDE_TOP} for a model of more than {WIDE_FROM} features. Of a sparse row "
        f"it is {WIDE_FROM} of its columns.",
    )
    min_seq: Seq | None = Field(
        default_factory=absent, description="The response comes from a state that holds the event with this seq."
    )
    seq: Seq | None = Field(
        default_factory=absent,
        description="The state that explains, as it was at this event; the served state if it is left out. "
        'It excludes "min_seq".',
    )
    parameters: Any = Field(default_factory=absent, description=IGNORED)
    signature_name: Any = Field(default_factory=absent, description=IGNORED)


class ExplainRequest(InstancesRows, ExplainOptions):
    """Rows to explain."""


class ExplainInputs(InputsRows, ExplainOptions):
    """Columns to explain."""


class ExplainSplit(SplitRows, ExplainOptions):
    """A table to explain."""


class ExplainRecords(RecordsRows, ExplainOptions):
    """Objects to explain."""


EXPLAIN_BODIES: Final = (ExplainRequest, ExplainInputs, ExplainSplit, ExplainRecords)


class TopFeature(ResponseModel):
    """One of the features that matter most for a row."""

    feature: str = Field(
        description="The feature's name. Of a model with fields it is that of a column, such as country=PT."
    )
    index: Count = Field(
        description='Its place in "features" of the model\'s metadata; of a sparse row the number of the column.'
    )
    contribution: float | None = Field(
        description="What the feature adds to the logit of the row's label; null for a network or a mixture."
    )
    sensitivity: float = Field(description="The derivative of the label's probability by the feature.")


class ExpertAnswer(ResponseModel):
    """The answer of one expert of a mixture."""

    name: Literal["mixture", "frequencies", "features", "features alone", "base", "linear"] = Field(
        description='The expert. "mixture" is the learned mixture of the experts that have an exponent.'
    )
    weight: float = Field(description="The weight of its probabilities in the answer before any calibration.")
    exponent: float | None = Field(
        description="The exponent of its probabilities in the learned mixture; null if it takes no part in that."
    )
    probabilities: list[float] = Field(description="Its C probabilities.")


class RowExplanation(ResponseModel):
    """The explanation of one row: K logits, C classes, and N features, or those of the row's top alone."""

    label: PredictedLabel = Field(description="The label that a prediction gives.")
    logits: list[float] = Field(description="The K logits, before any calibration.")
    probabilities: list[float] = Field(description="The C probabilities that a prediction gives.")
    bias: list[float] | None = Field(
        description="The part of each logit that no feature contributes; null for a network or a mixture."
    )
    contributions: list[list[float]] | None = Field(
        description="K lists of N numbers: what each feature adds to each logit. They and the bias sum to the logit. "
        "Null for a network or a mixture."
    )
    sensitivities: list[list[float]] = Field(
        description="C lists of N numbers: the derivative of each probability by each feature."
    )
    top: list[TopFeature] = Field(description="The features that matter most for the label, the most important first.")
    experts: list[ExpertAnswer] = Field(
        default_factory=absent,
        description="The answers of the experts of a mixture; left out for other models. The sum of their weighted "
        "probabilities is the answer before any calibration.",
    )
    loss: float = Field(default_factory=absent, description="The loss of the given label.")
    loss_gradient: list[float] = Field(
        default_factory=absent, description="The derivative of that loss by each feature."
    )


class TemperatureCalibration(ResponseModel):
    """Calibration of a softmax head: logits are divided by a temperature."""

    kind: Literal["temperature"] = Field(description="The kind of calibration.")
    temperature: float = Field(description="What logits are divided by.")


class PlattCalibration(ResponseModel):
    """Calibration of a sigmoid head: a logit z becomes a z + b."""

    kind: Literal["platt"] = Field(description="The kind of calibration.")
    a: float = Field(description="The factor of the logit.")
    b: float = Field(description="What is added to the logit.")


class ExplainResponse(ResponseModel):
    """The explanation of each row."""

    explanations: list[RowExplanation] = Field(description="One explanation for each row.")
    features: list[str] = Field(
        default_factory=absent,
        description='The names of the N features; left out if "top" leaves some out, or if rows are sparse.',
    )
    calibration: TemperatureCalibration | PlattCalibration = Field(
        default_factory=absent, description="The calibration between logits and probabilities, if the model has one."
    )
    classes: list[str] = Field(description="The names of the C classes.")
    model_name: str = Field(description="The model's name.")
    model_version: str = Field(description="The version that answered.")
    seq: Seq = Field(description="The last event of the feedback log that the weights hold; 0 before any feedback.")
    epoch: Count = Field(
        default_factory=absent,
        description="How often feedback of this version was forgotten; left out while that is 0.",
    )


EXPLAIN_REQUESTS: Final = {
    "the most important feature": {"instances": [IRIS], "top": 1},
    "a row with its label": {"instances": [IRIS], "labels": ["setosa"], "top": 1},
    **{name: {**body, "top": 1} for name, body in ROW_FORMS.items()},
}
_EXPLANATION: Final = {
    "label": "setosa",
    "logits": [14.962594, 7.762096, -22.724691],
    "probabilities": IRIS_PROBABILITIES,
    "bias": [13.089748, 3.0894034, -16.179152],
    "contributions": [[16.712957], [-2.1829054], [-14.530052]],
    "sensitivities": [[0.004022667], [-0.0040226677], [-3.8263483e-16]],
    "top": [
        {"feature": IRIS_FEATURES[1], "index": 1, "contribution": 16.712957, "sensitivity": 0.004022667},
    ],
}
_MODEL: Final = {"classes": IRIS_CLASSES, "model_name": "iris", "model_version": "1", "seq": 0}
_EXPERTS: Final = (
    ("mixture", 0.1765099, None, [0.007995783, 0.57094485, 0.42105934]),
    ("frequencies", 0.0030282, None, [0.22222221, 0.44444445, 0.33333334]),
    ("features", 0.13536, 0.2065937, [0.000008569749, 0.6751755, 0.32481593]),
    ("features alone", 0.0020719, 0.1042965, [0.06210888, 0.7361228, 0.20176832]),
    ("base", 0.3359587, 0.2883497, [0.000009128473, 0.5232854, 0.47670552]),
    ("linear", 0.3470711, 0.293089, [0.000009133844, 0.49485493, 0.5051359]),
)
_MIXTURE: Final = {
    "label": "versicolor",
    "logits": [-6.1100874, -0.6113968, -0.78704655],
    "probabilities": [0.0022203568, 0.54259247, 0.4551872],
    "bias": None,
    "contributions": None,
    "sensitivities": [[0.00005859565], [-0.8843626], [0.88430405]],
    "top": [{"feature": IRIS_FEATURES[2], "index": 2, "contribution": None, "sensitivity": -0.8843626}],
    "experts": [
        {"name": name, "weight": weight, "exponent": exponent, "probabilities": probabilities}
        for name, weight, exponent, probabilities in _EXPERTS
    ],
}
EXPLAIN_RESPONSES: Final = {
    "the most important feature": {"explanations": [_EXPLANATION], **_MODEL},
    "a row with its label": {
        "explanations": [{**_EXPLANATION, "loss": 0.000745935744273617, "loss_gradient": [-0.0040256693]}],
        **_MODEL,
    },
    "a mixture of experts": {"explanations": [_MIXTURE], **_MODEL, "seq": 2},
}
