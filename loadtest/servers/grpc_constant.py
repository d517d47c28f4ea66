"""A server of grpcio's asyncio API that gives every request of ModelInfer the same answer: `grpc_constant.py PORT`.

It computes and parses nothing, so no server on grpcio can be faster.
"""

import asyncio
import sys

import grpc
import grpc.aio
import numpy as np
from tritonclient.grpc.service_pb2 import ModelInferResponse

ANSWER = ModelInferResponse(model_name="iris", model_version="1")
ANSWER.outputs.add(name="probabilities", datatype="FP32", shape=[1, 3])
ANSWER.raw_output_contents.append(np.array([0.97, 0.02, 0.01], "<f4").tobytes())
BODY = ANSWER.SerializeToString()


async def answer(_request: bytes, _context: grpc.aio.ServicerContext) -> bytes:
    """Answer a request without reading it."""
    return BODY


async def main(port: int) -> None:
    """Serve until the process is stopped."""
    server = grpc.aio.server()
    handlers = {"ModelInfer": grpc.unary_unary_rpc_method_handler(answer)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("inference.GRPCInferenceService", handlers),))
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
