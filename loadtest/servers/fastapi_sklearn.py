"""What most teams run: FastAPI, pydantic and the scikit-learn estimator's own `predict_proba`."""

import numpy as np
import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel
from sklearn.linear_model import LogisticRegression
from weights import arguments, load


class PredictRequest(BaseModel):
    """Rows of features."""

    instances: list[list[float]]


class PredictResponse(BaseModel):
    """Class probabilities of each row."""

    predictions: list[list[float]]


options = arguments()
trained = load(options.models, "iris")
model = LogisticRegression()
model.coef_, model.intercept_ = np.ascontiguousarray(trained.weight.T), trained.bias
model.classes_ = np.arange(len(trained.bias))
app = FastAPI()


# On the event loop: handing so short a call to the thread pool costs more than the call.
@app.post("/v1/models/iris:predict")
async def predict(request: PredictRequest) -> PredictResponse:
    """Answer the class probabilities of the rows."""
    rows = np.array(request.instances, dtype=np.float32)
    return PredictResponse(predictions=model.predict_proba(rows).tolist())


if __name__ == "__main__":
    uvicorn.run(app, port=options.port, loop="uvloop", http="httptools", log_level="error", access_log=False)
