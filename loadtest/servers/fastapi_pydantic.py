"""Idiomatic FastAPI: pydantic models for request and response, NumPy between them."""

import numpy as np
from fastapi import FastAPI
from messages import PredictRequest, PredictResponse
from uvicorn_server import run
from weights import arguments, load

options = arguments()
model = load(options.models, "iris")
app = FastAPI()


@app.post("/v1/models/iris:predict")
async def predict(request: PredictRequest) -> PredictResponse:
    """Return the class probabilities of the rows."""
    rows = np.array(request.instances, dtype=np.float32)
    return PredictResponse(predictions=model.probabilities(rows).tolist())


if __name__ == "__main__":
    run(app, options.port)
