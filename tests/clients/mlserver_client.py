"""Call a service with requests of MLServer's codecs.

Standard input has {"url", "rows", "features", "key"}; standard output gets what the codecs decode, as JSON.
"""

import importlib.util
import json
import sys
import types
from typing import Any
from urllib.request import Request, urlopen

import numpy as np
import pandas as pd

# The package itself imports the server, which needs forty packages more than the codecs.
found = importlib.util.find_spec("mlserver")
package = types.ModuleType("mlserver")
package.__path__ = list(found.submodule_search_locations)
sys.modules["mlserver"] = package

from mlserver.codecs import NumpyCodec, NumpyRequestCodec, PandasCodec, StringCodec  # noqa: E402
from mlserver.types import InferenceRequest, InferenceResponse, RequestOutput  # noqa: E402


def infer(url: str, key: str, request: InferenceRequest, **options: Any) -> InferenceResponse:
    """Send a request to the model iris."""
    body = request.model_dump_json(**options).encode()
    headers = {"Content-Type": "application/json", "X-API-Key": key}
    call = Request(f"{url}/v2/models/iris/infer", body, headers)
    with urlopen(call, timeout=10) as response:
        return InferenceResponse.model_validate_json(response.read())


def main(url: str, rows: list[list[float]], features: list[str], key: str) -> dict[str, Any]:
    """Send frames and arrays; return what the codecs decode of the answers."""
    frame = pd.DataFrame(rows, columns=features)
    mixed = frame.assign(**{features[0]: frame[features[0]].astype("int64"), features[3]: frame[features[3]] > 1})
    frames = {
        "a frame": PandasCodec.encode_request(frame),
        "a frame of other order": PandasCodec.encode_request(frame[features[::-1]]),
        "a frame of single precision": PandasCodec.encode_request(frame.astype(np.float32)),
        "an array": NumpyRequestCodec.encode_request(frame.to_numpy()),
        "an array of single precision": NumpyRequestCodec.encode_request(frame.to_numpy(np.float32)),
    }
    probabilities = {
        name: NumpyRequestCodec.decode_response(infer(url, key, one)).tolist() for name, one in frames.items()
    }
    request = frames["a frame"]
    request.outputs = [RequestOutput(name="labels"), RequestOutput(name="probabilities")]
    labels, both = infer(url, key, request).outputs
    request.outputs = request.outputs[:1]
    return {
        "probabilities": probabilities,
        "without nulls": NumpyRequestCodec.decode_response(
            infer(url, key, frames["an array"], exclude_none=True)
        ).tolist(),
        "integers and flags": NumpyRequestCodec.decode_response(
            infer(url, key, PandasCodec.encode_request(mixed))
        ).tolist(),
        "mixed rows": mixed.astype(float).to_numpy().tolist(),
        "both outputs": [StringCodec.decode_output(labels), NumpyCodec.decode_output(both).tolist()],
        "labels as a frame": PandasCodec.decode_response(infer(url, key, request)).to_dict("list"),
    }


json.dump(main(**json.load(sys.stdin)), sys.stdout)
