"""Idiomatic FastAPI: pydantic models in and out, NumPy between them."""

import numpy as np
import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel
from weights import arguments, load


class PredictRequest(BaseModel):
    """Rows of features."""

    instances: list[list[float]]


class PredictResponse(BaseModel):
    """Class probabilities of each row."""

    predictions: list[list[float]]


options = arguments()
model = load(options.models, "iris")
app = FastAPI()


@app.post("/v1/models/iris:predict")
async def predict(request: PredictRequest) -> PredictResponse:
    """Answer the class probabilities of the rows."""
    rows = np.array(request.instances, dtype=np.float32)
    return PredictResponse(predictions=model.probabilities(rows).tolist())


if __name__ == "__main__":
    uvicorn.run(app, port=options.port, loop="uvloop", http="httptools", log_level="error", access_log=False)
