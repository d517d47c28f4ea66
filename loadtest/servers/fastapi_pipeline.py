"""A common choice for rows with names: FastAPI, pydantic, a pandas frame and a scikit-learn `Pipeline`."""

from typing import Any

import numpy as np
import pandas as pd
from fastapi import FastAPI
from messages import PredictResponse
from numpy.typing import NDArray
from pydantic import BaseModel, create_model
from sklearn.compose import ColumnTransformer
from sklearn.feature_extraction.text import HashingVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from uvicorn_server import run
from weights import arguments

options = arguments()
parts = dict(np.load(options.models.parent / "pipeline.npz", allow_pickle=False))
NUMBERS = [f"number_{i}" for i in range(len(parts["means"]))]
CATEGORIES = [f"category_{i}" for i in range(5)]
VALUES = parts["values"].tolist()
COLUMNS = len(parts["weight"]) - len(NUMBERS) - len(CATEGORIES) * len(VALUES)


def make_pipeline(parts: dict[str, NDArray[Any]]) -> Pipeline:
    """Return a fitted pipeline with the weights of the model; what is fitted to a small frame is replaced."""
    scaler = StandardScaler()
    text = HashingVectorizer(n_features=COLUMNS, alternate_sign=False, norm="l2")
    columns = ColumnTransformer(
        [
            ("numbers", scaler, NUMBERS),
            ("categories", OneHotEncoder(categories=[VALUES] * len(CATEGORIES), handle_unknown="ignore"), CATEGORIES),
            ("subject", text, "subject"),
        ]
    )
    classes = len(parts["bias"])
    frame = pd.DataFrame(
        {
            **{name: np.arange(classes, dtype=float) for name in NUMBERS},
            **dict.fromkeys(CATEGORIES, VALUES[:1] * classes),
            "subject": ["word"] * classes,
        }
    )
    pipeline = Pipeline([("columns", columns), ("classifier", LogisticRegression(max_iter=1))])
    pipeline.fit(frame, np.arange(classes))
    fitted = pipeline["columns"].named_transformers_["numbers"]
    fitted.mean_, fitted.scale_ = parts["means"], parts["scales"]
    pipeline["classifier"].coef_ = np.ascontiguousarray(parts["weight"].T.astype(float))
    pipeline["classifier"].intercept_ = parts["bias"].astype(float)
    return pipeline


pipeline = make_pipeline(parts)
app = FastAPI()
kinds: dict[str, Any] = {
    **dict.fromkeys(NUMBERS, (float, ...)),
    **dict.fromkeys(CATEGORIES, (str, ...)),
    "subject": (str, ...),
}
Row = create_model("Row", **kinds)


class Request(BaseModel):
    """Rows with names."""

    instances: list[Row]  # type: ignore[valid-type]  # made of the fields


# Runs on the event loop: passing so short a call to the thread pool costs more than the call.
@app.post("/v1/models/rows:predict")
async def predict(request: Request) -> PredictResponse:
    """Return the class probabilities of the rows."""
    frame = pd.DataFrame([row.model_dump() for row in request.instances])
    return PredictResponse(predictions=pipeline.predict_proba(frame).tolist())


if __name__ == "__main__":
    run(app, options.port)
