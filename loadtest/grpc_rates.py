"""Measure one row over gRPC beside the same row over HTTP, and beside a server of grpcio (figure G1).

    python loadtest/grpc_rates.py [--seconds 5] [--rounds 5] [--write]

h2load keeps 64 requests in flight: 16 connections with 4 calls each over gRPC, 64 connections over HTTP/1.1. Softstep
predicts one row of iris as binary tensors; grpcio's asyncio server gives a constant answer. Each server has one worker
on the first core, and h2load the last one; they run in turns.
"""

import json
import re
import shutil
import struct
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from statistics import median

import numpy as np
import tritonclient.grpc as triton
from checkout_service import CheckoutService
from environments import HERE, ROOT
from machine import describe
from operations import read_options, report, row
from processes import CLIENT_CORE, SERVER_CORE, environment, free_port, pinned, serving, stop
from tritonclient.grpc.service_pb2 import ModelInferRequest
from tritonclient.utils import InferenceServerException

HTTP_RATIO_MIN, GRPCIO_RATIO_MIN = 0.8, 8.0
CALLS = 64
STREAMS = 4
WARMUP_SECONDS = 1
START_SECONDS = 20.0
ROW = np.array([[5.1, 3.5, 1.4, 0.2]], "<f4")
METHOD = "/inference.GRPCInferenceService/ModelInfer"
ABOUT = (
    "One worker each on one core, h2load with {calls} requests in flight on another, one row of iris as binary "
    "tensors; the median of {rounds} rounds in turns. The server of grpcio gives a constant answer."
)


def h2load(url: str, body: Path, options: list[str], seconds: int) -> float:
    """Return the requests/s of one server; stop if a request fails."""
    command = ["h2load", "--duration", str(seconds), "--data", str(body), *options, url]
    done = subprocess.run(
        pinned(command, CLIENT_CORE), env=environment(), capture_output=True, text=True, check=True
    ).stdout
    counts = re.search(r"(\d+) succeeded, (\d+) failed, (\d+) errored", done)
    statuses = re.search(r"status codes: (\d+) 2xx, (\d+) 3xx, (\d+) 4xx, (\d+) 5xx", done)
    if counts is None or statuses is None or any(map(int, [counts[2], counts[3], *statuses.groups()[1:]])):
        raise SystemExit(f"requests failed:\n{done}")
    return int(statuses[1]) / seconds


def grpc_rate(port: int, body: Path, seconds: int) -> float:
    """Return the calls/s of one port of gRPC."""
    with triton.InferenceServerClient(f"127.0.0.1:{port}") as client:
        tensor = triton.InferInput("features", [1, 4], "FP32")
        tensor.set_data_from_numpy(ROW)
        if client.infer("iris", [tensor]).as_numpy("probabilities").argmax():
            raise SystemExit("the answer is wrong")
    options = ["--clients", str(CALLS // STREAMS), "--max-concurrent-streams", str(STREAMS)]
    options += ["--header", "content-type: application/grpc", "--header", "te: trailers"]
    url = f"http://127.0.0.1:{port}{METHOD}"
    h2load(url, body, options, WARMUP_SECONDS)
    return h2load(url, body, options, seconds)


def http_rate(port: int, body: Path, length: int, seconds: int) -> float:
    """Return the requests/s of v2 with binary tensors; `length` is the size of the JSON part of the body."""
    options = ["--h1", "--clients", str(CALLS), "--header", "content-type: application/octet-stream"]
    options += ["--header", f"inference-header-content-length: {length}"]
    url = f"http://127.0.0.1:{port}/v2/models/iris/infer"
    h2load(url, body, options, WARMUP_SECONDS)
    return h2load(url, body, options, seconds)


def write_bodies(folder: Path) -> tuple[Path, Path, int]:
    """Write the bodies of both protocols; return their files, and the size of the JSON part of the second."""
    request = ModelInferRequest(model_name="iris")
    request.inputs.add(name="features", datatype="FP32", shape=ROW.shape)
    request.raw_input_contents.append(ROW.tobytes())
    message = request.SerializeToString()
    tensor = {"name": "features", "shape": [1, 4], "datatype": "FP32", "parameters": {"binary_data_size": ROW.nbytes}}
    text = json.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}}, separators=(",", ":"))
    grpc, http = folder / "grpc", folder / "http"
    grpc.write_bytes(struct.pack(">BI", 0, len(message)) + message)
    http.write_bytes(text.encode() + ROW.tobytes())
    return grpc, http, len(text)


def grpcio_rate(scratch: Path, body: Path, seconds: int) -> float:
    """Start the server of grpcio and return its calls/s."""
    port = free_port()
    command = pinned([sys.executable, str(HERE / "servers" / "grpc_constant.py"), str(port)], SERVER_CORE)
    with (scratch / "grpcio.log").open("wb") as log:
        process = subprocess.Popen(command, env=environment(), stdout=log, stderr=log, start_new_session=True)
        try:
            wait_until_live(port)
            return grpc_rate(port, body, seconds)
        finally:
            stop(process)


def wait_until_live(port: int) -> None:
    """Wait until a port of gRPC answers a call, of whatever method."""
    until = time.monotonic() + START_SECONDS
    while time.monotonic() < until:
        with triton.InferenceServerClient(f"127.0.0.1:{port}") as client, suppress(InferenceServerException):
            tensor = triton.InferInput("features", [1, 4], "FP32")
            tensor.set_data_from_numpy(ROW)
            client.infer("iris", [tensor])
            return
        time.sleep(0.1)
    raise SystemExit("the server of grpcio does not answer")


def measure_round(scratch: Path, seconds: int) -> tuple[float, float, float]:
    """Return the rates of one round: gRPC, HTTP, and grpcio."""
    grpc_body, http_body, length = write_bodies(scratch)
    port = free_port()
    service = CheckoutService(port, scratch / "service")
    command = ["env", "-C", str(ROOT), f"SOFTSTEP_GRPC_PORT={port + 1}", *service.command]
    with serving(command, port, "/readyz", scratch / "log"):
        ours = grpc_rate(port + 1, grpc_body, seconds)
        http = http_rate(port, http_body, length, seconds)
    return ours, http, grpcio_rate(scratch, grpc_body, seconds)


def main() -> None:
    """Measure and print."""
    options = read_options(__doc__, seconds=5, rounds=5)
    if shutil.which("h2load") is None:
        raise SystemExit("h2load is not on the path; install your system's package nghttp2-client")
    machine, rounds = describe(), []
    with tempfile.TemporaryDirectory() as name:
        for _ in range(options.rounds):
            rounds.append(measure_round(Path(name), options.seconds))
            ours, http, grpcio = rounds[-1]
            print(f"  {ours:,.0f} over gRPC, {http:,.0f} over HTTP, {grpcio:,.0f} by grpcio", flush=True)
    rows = []
    for title, least, other in (
        ("G1: requests/s over gRPC, compared with v2 binary tensors over HTTP", HTTP_RATIO_MIN, 1),
        ("the same, compared with a constant answer by grpcio's asyncio server", GRPCIO_RATIO_MIN, 2),
    ):
        ratios = [values[0] / values[other] for values in rounds]
        rates = [median(values[index] for values in rounds) for index in (0, other)]
        value = f"{median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}): {rates[0]:,.0f} and {rates[1]:,.0f}"
        rows.append(row(title, f"≥ {least:g}", value, met=median(ratios) >= least))
    report("grpc", ABOUT.format(calls=CALLS, rounds=options.rounds), rows, machine, write=options.write)


if __name__ == "__main__":
    main()
