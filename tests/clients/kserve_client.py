"""Call a service through KServe's client.

Standard input has {"url", "rows", "features", "key"}; standard output gets what the client returns, as JSON.
"""

import asyncio
import json
import sys
from typing import Any

import httpx
import numpy as np
from kserve import InferenceRESTClient, InferInput, InferRequest, RESTConfig
from kserve.protocol.infer_type import RequestedOutput


class Caller:
    """Calls the model iris of a service."""

    def __init__(self, url: str, rows: list[list[float]], features: list[str], key: str) -> None:
        self.url = url
        self.key = key
        self.X = np.array(rows, np.float32)
        self.features = features
        self.v1 = InferenceRESTClient(RESTConfig(protocol="v1", auth=self.authorize))
        self.v2 = InferenceRESTClient(RESTConfig(protocol="v2", auth=self.authorize))

    def authorize(self, request: httpx.Request) -> httpx.Request:
        """Add the key to a request."""
        request.headers["Authorization"] = f"Bearer {self.key}"
        return request

    async def call_v1(self) -> dict[str, Any]:
        """Call with the v1 protocol."""
        body = {"instances": self.X.tolist()}
        return {
            "live": await self.v1.is_server_live(self.url),
            "ready": await self.v1.is_model_ready(self.url, "iris"),
            "predicted": await self.v1.infer(self.url, body, model_name="iris"),
            "explained": await self.v1.explain(self.url, "iris", body),
        }

    async def call_v2(self) -> dict[str, Any]:
        """Call with the v2 protocol."""
        return {
            "live": await self.v2.is_server_live(self.url),
            "server ready": await self.v2.is_server_ready(self.url),
            "ready": await self.v2.is_model_ready(self.url, "iris"),
            "one tensor": [await self.infer([self.whole(binary=binary)]) for binary in (False, True)],
            "a tensor for each feature": [await self.infer(self.columns(binary=binary)) for binary in (False, True)],
            "binary outputs": await self.infer([self.whole(binary=True)], parameters={"binary_data_output": True}),
            "labels": [await self.infer([self.whole(binary=True)], outputs=labels(binary=wanted)) for wanted in (0, 1)],
            "refused": await self.refusal(),
        }

    def whole(self, *, binary: bool) -> InferInput:
        """Return all rows as one tensor."""
        tensor = InferInput("features", list(self.X.shape), "FP32")
        tensor.set_data_from_numpy(self.X, binary_data=binary)
        return tensor

    def columns(self, *, binary: bool) -> list[InferInput]:
        """Return the rows as one tensor for each feature, the last one first."""
        tensors = []
        for i, name in reversed(list(enumerate(self.features))):
            tensors.append(InferInput(name, [len(self.X), 1], "FP32"))
            tensors[-1].set_data_from_numpy(self.X[:, i : i + 1], binary_data=binary)
        return tensors

    async def infer(
        self,
        inputs: list[InferInput],
        model: str = "iris",
        parameters: dict[str, Any] | None = None,
        outputs: list[RequestedOutput] | None = None,
    ) -> dict[str, Any]:
        """Infer, and return the id and the outputs by name."""
        request = InferRequest(model, inputs, request_id="7", parameters=parameters, request_outputs=outputs)
        response = await self.v2.infer(self.url, request, model_name="iris")
        return {"id": response.id, **{output.name: values(output) for output in response.outputs}}

    async def refusal(self) -> str:
        """Return the error of a request that names another model than its path."""
        try:
            await self.infer([self.whole(binary=True)], model="another")
        except httpx.HTTPStatusError as error:
            return str(error)
        return ""


def labels(*, binary: bool) -> list[RequestedOutput]:
    """Return the request of one output, the labels."""
    return [RequestedOutput("labels", {"binary_data": bool(binary)})]


def values(output: Any) -> list[Any]:
    """Return the values of an output; texts are bytes if they were binary data."""
    found = output.as_numpy().tolist()
    return [value.decode() if isinstance(value, bytes) else value for value in found]


async def main() -> None:
    """Call with both protocols."""
    caller = Caller(**json.load(sys.stdin))
    json.dump({"v1": await caller.call_v1(), "v2": await caller.call_v2()}, sys.stdout)


asyncio.run(main())
