"""LitServe with NumPy: one worker process, no batching."""

from typing import Any

import litserve
import numpy as np
from weights import Floats, Linear, arguments, load


class IrisAPI(litserve.LitAPI):
    """The v1 predict contract as a LitServe API."""

    model: Linear

    def setup(self, device: str) -> None:  # noqa: ARG002 - LitServe's signature
        """Load the weights in the worker."""
        self.model = load(arguments().models, "iris")

    def decode_request(self, request: dict[str, Any], **_: object) -> Floats:
        """Turn the JSON body into rows."""
        return np.array(request["instances"], dtype=np.float32)

    def predict(self, x: Floats, **_: object) -> Floats:
        """Return the class probabilities of the rows."""
        return self.model.probabilities(x)

    def encode_response(self, output: Floats, **_: object) -> dict[str, Any]:
        """Turn the probabilities into the JSON body."""
        return {"predictions": output.tolist()}


if __name__ == "__main__":
    server = litserve.LitServer(IrisAPI(api_path="/v1/models/iris:predict"), accelerator="cpu", fast_queue=True)
    server.run(
        host="127.0.0.1", port=arguments().port, num_api_servers=1, log_level="error", generate_client_file=False
    )
