"""The requests of each load, and the check that an answer is right.

load          protocol                     model   rows  answer
predict-1     v1 :predict, JSON            iris       1  {"predictions": [[…]]}
predict-1000  v1 :predict, JSON            digits  1000  {"predictions": [[…], …]}
infer-1       v2 /infer, JSON              iris       1  {"outputs": [{"data": […]}]}
binary-1      v2 /infer, binary tensors    iris       1  JSON header, then float32
binary-1000   v2 /infer, binary tensors    digits  1000  JSON header, then float32
explain-1     v1 :explain, JSON            iris       1  {"explanations": [{"probabilities": […], …}]}
"""

import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.client import HTTPConnection
from pathlib import Path

import numpy as np
from environments import HERE, NotAvailableError

sys.path.insert(0, str(HERE / "servers"))
from weights import Floats, load

TOLERANCE = 1e-4
HEADER_LENGTH = "Inference-Header-Content-Length"
OK = 200
IRIS_ROW = [[5.1, 3.5, 1.4, 0.2]]
DIGITS_ROWS = 1000
PIXEL_MAX = 16

Decode = Callable[[bytes, Mapping[str, str]], Floats]


@dataclass(frozen=True)
class Load:
    """One request, how to decode its answer, and the probabilities that the answer must hold.

    An answer may take `seconds_max` beside those of the other connections.
    """

    name: str
    path: str
    body: bytes
    expected: Floats
    decode: Decode
    headers: dict[str, str] = field(default_factory=dict)
    seconds_max: int = 2

    def verify(self, port: int, *, empty: bool) -> None:
        """Send the request once and compare with NumPy; `empty` expects the raw application's `{}`."""
        connection = HTTPConnection("127.0.0.1", port, timeout=30)
        try:
            connection.request("POST", self.path, self.body, self.headers)
            response = connection.getresponse()
            answer = response.read()
        finally:
            connection.close()
        if response.status != OK:
            raise NotAvailableError(f"{self.name} answered {response.status}: {answer[:120].decode(errors='replace')}")
        if empty:
            right = answer == b"{}"
        else:
            got = self.decode(answer, dict(response.getheaders()))
            right = got.shape == self.expected.shape and bool(np.abs(got - self.expected).max() <= TOLERANCE)
        if not right:
            raise NotAvailableError(f"{self.name} answered other probabilities than NumPy")

    def write(self, folder: Path) -> Path:
        """Write the body to a file for the load generators; return its path."""
        path = folder / f"{self.name}.body"
        path.write_bytes(self.body)
        return path


def decode_v1(answer: bytes, _: Mapping[str, str]) -> Floats:
    """Return the probabilities of a v1 answer."""
    return np.array(json.loads(answer)["predictions"], np.float32)


def decode_outputs(answer: bytes, _: Mapping[str, str]) -> Floats:
    """Return the probabilities of an answer to "inputs"."""
    return np.array(json.loads(answer)["outputs"], np.float32)


def decode_explained(answer: bytes, _: Mapping[str, str]) -> Floats:
    """Return the probabilities of an explanation."""
    return np.array([row["probabilities"] for row in json.loads(answer)["explanations"]], np.float32)


def decode_v2(answer: bytes, headers: Mapping[str, str]) -> Floats:
    """Return the probabilities of a v2 answer, whose output is JSON or binary."""
    given = {name.lower(): value for name, value in headers.items()}
    length = int(given.get(HEADER_LENGTH.lower(), len(answer)))
    output = next(o for o in json.loads(answer[:length])["outputs"] if o["name"] == "probabilities")
    data = output["data"] if "data" in output else np.frombuffer(answer[length:], "<f4")
    return np.array(data, np.float32).reshape(output["shape"])


def v1(name: str, model: str, rows: Floats, expected: Floats, *, verb: str = "predict") -> Load:
    """Return a v1 load."""
    # Decimal numbers as a client writes them: 5.1, not the 5.099999904632568 of its float32.
    instances = [[float(str(value)) for value in row] for row in rows]
    body = json.dumps({"instances": instances}, separators=(",", ":")).encode()
    decode = decode_explained if verb == "explain" else decode_v1
    return Load(name, f"/v1/models/{model}:{verb}", body, expected, decode, {"Content-Type": "application/json"})


def v2_json(name: str, model: str, rows: Floats, expected: Floats) -> Load:
    """Return a v2 load with a JSON tensor."""
    data = [float(str(value)) for value in rows.ravel()]
    tensor = {"name": "features", "shape": list(rows.shape), "datatype": "FP32", "data": data}
    body = json.dumps({"inputs": [tensor]}, separators=(",", ":")).encode()
    return Load(name, f"/v2/models/{model}/infer", body, expected, decode_v2, {"Content-Type": "application/json"})


def v2_binary(name: str, model: str, rows: Floats, expected: Floats) -> Load:
    """Return a v2 load with binary tensors in and out."""
    data = rows.astype("<f4").tobytes()
    shape, parameters = list(rows.shape), {"binary_data_size": len(data)}
    tensor = {"name": "features", "shape": shape, "datatype": "FP32", "parameters": parameters}
    head = json.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}}, separators=(",", ":")).encode()
    headers = {"Content-Type": "application/octet-stream", HEADER_LENGTH: str(len(head))}
    return Load(name, f"/v2/models/{model}/infer", head + data, expected, decode_v2, headers)


def make_loads(models: Path) -> dict[str, Load]:
    """Return every load by name; expected probabilities come from NumPy on the same weight files."""
    iris_rows = np.array(IRIS_ROW, np.float32)
    # Gray values as in the digits data set: whole numbers from 0 to 16.
    digits_rows = np.random.default_rng(0).integers(0, PIXEL_MAX + 1, (DIGITS_ROWS, 64)).astype(np.float32)
    iris, digits = load(models, "iris").probabilities(iris_rows), load(models, "digits").probabilities(digits_rows)
    made = (
        v1("predict-1", "iris", iris_rows, iris),
        v1("predict-1000", "digits", digits_rows, digits),
        v2_json("infer-1", "iris", iris_rows, iris),
        v2_binary("binary-1", "iris", iris_rows, iris),
        v2_binary("binary-1000", "digits", digits_rows, digits),
        v1("explain-1", "iris", iris_rows, iris, verb="explain"),
    )
    return {one.name: one for one in made}
