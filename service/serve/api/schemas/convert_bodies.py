"""Bodies of `/v1/convert`: scores in one form to scores in all forms."""

from typing import Annotated, Final, Literal

from pydantic import Field, RootModel

from service.serve.api.schemas.schema_types import RequestModel, ResponseModel

Probability = Annotated[float, Field(ge=0, le=1)]
# A null is what JSON has no number for: minus infinity for logarithms and logits, infinity for odds.
LogProbability = Annotated[float, Field(le=0)] | None
Odds = Annotated[float, Field(ge=0)] | None


class ConvertOptions(RequestModel):
    """How scores are converted."""

    head: Literal["softmax", "sigmoid"] | None = Field(
        default="softmax",
        description="`softmax`: one class of each row is true. `sigmoid`: the classes are independent.",
    )
    temperature: Annotated[float, Field(gt=0)] | None = Field(default=1.0, description="What logits are divided by.")


class LogitsScores(ConvertOptions):
    """Scores given as logits."""

    logits: Annotated[list[Annotated[list[float | None], Field(min_length=1)]], Field(min_length=1)] = Field(
        description="Rows of logits. Null is minus infinity and masks its class; only softmax takes it."
    )


class ProbabilityScores(ConvertOptions):
    """Scores given as probabilities."""

    probabilities: Annotated[list[Annotated[list[Probability], Field(min_length=1)]], Field(min_length=1)] = Field(
        description="Rows of probabilities; for softmax the sum of a row is 1."
    )


class LogProbabilityScores(ConvertOptions):
    """Scores given as logarithms of probabilities."""

    log_probabilities: Annotated[list[Annotated[list[LogProbability], Field(min_length=1)]], Field(min_length=1)] = (
        Field(description="Rows of natural logarithms of probabilities; null is minus infinity.")
    )


class OddsScores(ConvertOptions):
    """Scores given as odds."""

    odds: Annotated[list[Annotated[list[Odds], Field(min_length=1)]], Field(min_length=1)] = Field(
        description="Rows of odds; null is infinity."
    )


class ConvertRequest(RootModel[LogitsScores | ProbabilityScores | LogProbabilityScores | OddsScores]):
    """Scores in exactly one form."""


class ConvertResponse(ResponseModel):
    """Scores in all forms."""

    logits: list[list[float | None]] = Field(description="Rows of logits; null is minus infinity.")
    probabilities: list[list[float]] = Field(description="Rows of probabilities.")
    log_probabilities: list[list[float | None]] = Field(
        description="Rows of natural logarithms of the probabilities; null is minus infinity."
    )
    odds: list[list[float | None]] = Field(description="Rows of odds; null is infinity.")
    head: Literal["softmax", "sigmoid"] = Field(description="The head of the request, or its default.")
    temperature: float = Field(description="The temperature of the request, or its default.")


CONVERT_REQUESTS: Final = {
    "logits with a masked class": {"logits": [[2.0, 0.5, None]], "temperature": 1.5},
    "odds of independent classes": {"odds": [[3.0, 0.25]], "head": "sigmoid"},
}
CONVERT_RESPONSES: Final = {
    "logits with a masked class": {
        "logits": [[2.0, 0.5, None]],
        "probabilities": [[0.7310585786300049, 0.2689414213699951, 0.0]],
        "log_probabilities": [[-0.3132616875182228, -1.3132616875182228, None]],
        "odds": [[2.718281828459045, 0.36787944117144233, 0.0]],
        "head": "softmax",
        "temperature": 1.5,
    }
}
