"""A common choice: FastAPI, pydantic and the scikit-learn estimator's own `predict_proba`."""

import numpy as np
from fastapi import FastAPI
from messages import PredictRequest, PredictResponse
from sklearn.linear_model import LogisticRegression
from uvicorn_server import run
from weights import arguments, load

options = arguments()
trained = load(options.models, "iris")
model = LogisticRegression()
model.coef_, model.intercept_ = np.ascontiguousarray(trained.weight.T), trained.bias
model.classes_ = np.arange(len(trained.bias))
app = FastAPI()


# Runs on the event loop: passing so short a call to the thread pool costs more than the call.
@app.post("/v1/models/iris:predict")
async def predict(request: PredictRequest) -> PredictResponse:
    """Return the class probabilities of the rows."""
    rows = np.array(request.instances, dtype=np.float32)
    return PredictResponse(predictions=model.predict_proba(rows).tolist())


if __name__ == "__main__":
    run(app, options.port)
