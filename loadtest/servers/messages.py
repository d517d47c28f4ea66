"""Request and response models of the FastAPI servers that use pydantic."""

from pydantic import BaseModel


class PredictRequest(BaseModel):
    """Rows of features."""

    instances: list[list[float]]


class PredictResponse(BaseModel):
    """Class probabilities of each row."""

    predictions: list[list[float]]
