"""FastAPI tuned for large JSON: orjson parses the raw body for NumPy, and serializes the array."""

import numpy as np
import orjson
from fastapi import FastAPI, Request, Response
from uvicorn_server import run
from weights import arguments, load

options = arguments()
model = load(options.models, "digits")
app = FastAPI()


@app.post("/v1/models/digits:predict")
async def predict(request: Request) -> Response:
    """Return the class probabilities of the rows."""
    rows = np.array(orjson.loads(await request.body())["instances"], dtype=np.float32)
    answer = orjson.dumps({"predictions": model.probabilities(rows)}, option=orjson.OPT_SERIALIZE_NUMPY)
    return Response(answer, media_type="application/json")


if __name__ == "__main__":
    run(app, options.port)
