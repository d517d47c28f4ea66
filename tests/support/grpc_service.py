"""A running service with a port of gRPC, and calls to it by grpcio with the service's own messages."""

import contextlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import grpc

from service.serve.grpc.grpc_messages import INFERENCE, Message, MessageClass, message_class
from tests.support.running_service import Service, serving
from tests.support.waiting import SECONDS


class GrpcService(NamedTuple):
    """A running service, and the address of its port of gRPC."""

    service: Service
    target: str

    @property
    def address(self) -> tuple[str, int]:
        """The host and port of gRPC."""
        host, _, port = self.target.rpartition(":")
        return host, int(port)


class GrpcAnswer(NamedTuple):
    """The answer of a call.

    Attributes:
        status: The status of gRPC.
        message: The answer, or None after an error.
        sentence: The sentence of an error, or "".
        code: The code of an error, or "".
        trailers: The trailing metadata.
    """

    status: grpc.StatusCode
    message: Message | None
    sentence: str
    code: str
    trailers: dict[str, Any]


def grpc_target(service: Service) -> str:
    """Return the address of the port of gRPC, from the log."""
    lines = [json.loads(line) for line in service.log.read_text().splitlines()]
    (url,) = [line["url"] for line in lines if line["event"] == "grpc_port"]
    return str(url).partition("://")[2]


@contextlib.contextmanager
def serving_grpc(models: Path, scratch: Path, **options: Any) -> Iterator[GrpcService]:
    """Run a service with gRPC on a free port until the end of the block; the options are those of `serving`."""
    with serving(models, scratch, **{"SOFTSTEP_GRPC_PORT": 0, **options}) as service:
        yield GrpcService(service, grpc_target(service))


class GrpcCalls:
    """Calls on one channel.

    Args:
        channel: The channel.
    """

    def __init__(self, channel: grpc.Channel) -> None:
        self._channel = channel

    def ask(
        self,
        method: str,
        request: Message,
        metadata: Sequence[tuple[str, str]] = (),
        seconds: float = SECONDS,
        answer: MessageClass | None = None,
    ) -> GrpcAnswer:
        """Make a call and return its answer or its error.

        Args:
            method: The name of a method of the inference service, or the path of another method.
            request: The request, or bytes in place of one.
            metadata: The metadata of the call.
            seconds: Its deadline.
            answer: The class of the answer, for a method of another service.
        """
        path = method if method.startswith("/") else f"/{INFERENCE}/{method}"
        kind = answer or message_class(f"inference.{method}Response")
        call = self._channel.unary_unary(
            path, lambda one: one if isinstance(one, bytes) else one.SerializeToString(), kind.FromString
        )
        try:
            message, made = call.with_call(request, seconds, metadata)
        except grpc.RpcError as error:
            trailers = dict(error.trailing_metadata() or ())
            return GrpcAnswer(error.code(), None, error.details(), str(trailers.get("softstep-code", "")), trailers)
        return GrpcAnswer(grpc.StatusCode.OK, message, "", "", dict(made.trailing_metadata() or ()))


@contextlib.contextmanager
def grpc_calls(target: str) -> Iterator[GrpcCalls]:
    """Open a channel of its own until the end of the block."""
    options = (("grpc.use_local_subchannel_pool", 1), ("grpc.max_receive_message_length", -1))
    with grpc.insecure_channel(target, options) as channel:
        yield GrpcCalls(channel)
