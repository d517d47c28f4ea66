"""A custom MLServer runtime: NumPy softmax over the v2 protocol."""

from pathlib import Path

from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse
from weights import Linear, load


class Softmax(MLModel):
    """One trained model, chosen by its name."""

    model: Linear

    async def load(self) -> bool:
        """Read the weights from the folder in the settings."""
        self.model = load(Path(self.settings.parameters.uri), self.name)
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """Return the class probabilities of the first input."""
        rows = NumpyCodec.decode_input(payload.inputs[0])
        output = NumpyCodec.encode_output("probabilities", self.model.probabilities(rows))
        return InferenceResponse(model_name=self.name, outputs=[output])
