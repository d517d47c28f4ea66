"""A Triton Python backend model: NumPy softmax."""

import json
from pathlib import Path
from typing import Any

import triton_python_backend_utils as pb_utils
from weights import Linear, load


class TritonPythonModel:
    """One trained model; the configuration holds its name and the directory of its weights."""

    model: Linear

    def initialize(self, args: dict[str, str]) -> None:
        """Read the weights."""
        config = json.loads(args["model_config"])
        self.model = load(Path(config["parameters"]["models"]["string_value"]), config["name"])

    def execute(self, requests: list[Any]) -> list[Any]:
        """Return the class probabilities for each request."""
        return [self.answer(request) for request in requests]

    def answer(self, request: Any) -> Any:  # noqa: ANN401 - the backend's objects carry no types
        """Answer one request."""
        rows = pb_utils.get_input_tensor_by_name(request, "features").as_numpy()
        output = pb_utils.Tensor("probabilities", self.model.probabilities(rows))
        return pb_utils.InferenceResponse([output])
