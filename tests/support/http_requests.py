"""The bytes of HTTP requests and of their bodies."""

import base64
import json
from collections.abc import Iterable
from typing import Any

import numpy as np

Headers = Iterable[tuple[str, str]]
Parameters = dict[str, Any]


def target_of(data: bytes) -> str | None:
    """Return the target of a request, or None if the bytes are not a request."""
    words = data.partition(b"\r\n")[0].split(b" ")
    return words[1].decode("latin-1") if len(words) == 3 and words[2].startswith(b"HTTP/1") else None


def request(
    method: str, target: str, body: bytes | None = None, headers: Headers = (), *, version: str = "1.1"
) -> bytes:
    """Return a request with a fixed id, and with Content-Length if it has a body."""
    lines = [f"{method} {target} HTTP/{version}", "Host: localhost", "X-Request-Id: test"]
    lines += [f"{name}: {value}" for name, value in headers]
    if body is not None:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + (body or b"")


def chunked(method: str, target: str, chunks: Iterable[bytes], headers: Headers = (), trailers: bytes = b"") -> bytes:
    """Return a request whose body is chunked."""
    head = request(method, target, None, [*headers, ("Transfer-Encoding", "chunked")])
    return head + b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n" + trailers + b"\r\n"


def instances(rows: Any, **more: Any) -> bytes:
    """Return a v1 body."""
    return json.dumps({"instances": rows, **more}).encode()


def as_base64(rows: Any, datatype: str = "<f4") -> list[dict[str, str]]:
    """Return rows in base64, of numbers of a type."""
    return [{"b64": base64.b64encode(np.asarray(row, datatype).tobytes()).decode()} for row in rows]


def infer(rows: list[list[float]], datatype: str = "FP32", **more: Any) -> bytes:
    """Return a v2 body in JSON."""
    return json.dumps({"inputs": [tensor(rows, datatype)], **more}).encode()


def tensor(rows: list[list[float]], datatype: str = "FP32") -> Parameters:
    """Return a v2 input in JSON."""
    return {"name": "features", "shape": [len(rows), len(rows[0])], "datatype": datatype, "data": rows}


def binary(
    rows: Any, dtype: str = "<f4", datatype: str = "FP32", input_fields: Parameters | None = None, **more: Any
) -> tuple[bytes, bytes]:
    """Return the JSON part and the tensor of a v2 body with binary data."""
    X = np.asarray(rows, dtype)
    raw = X.tobytes()
    parameters = {"binary_data_size": len(raw)}
    entry = {
        "name": "x",
        "shape": list(X.shape),
        "datatype": datatype,
        "parameters": parameters,
        **(input_fields or {}),
    }
    return json.dumps({"inputs": [{**entry, **(input_fields or {})}], **more}).encode(), raw


def binary_request(target: str, text: bytes, raw: bytes, headers: Headers = ()) -> bytes:
    """Return a v2 request with binary data."""
    return request("POST", target, text + raw, [("Inference-Header-Content-Length", str(len(text))), *headers])
