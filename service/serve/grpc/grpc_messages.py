"""The messages of the gRPC services: one class for each message of the files in protos/.

`protos/messages.binpb` has the compiled files. They go into a pool of their own: another library of the same process,
such as a client, may register messages of the same names.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import DecodeError
from google.protobuf.message_factory import GetMessageClass

from service.errors import MalformedError

DESCRIPTORS: Final = Path(__file__).parent / "protos" / "messages.binpb"

INFERENCE: Final = "inference.GRPCInferenceService"
HEALTH: Final = "grpc.health.v1.Health"
REFLECTION: Final = "grpc.reflection.v1.ServerReflection"
REFLECTION_ALPHA: Final = "grpc.reflection.v1alpha.ServerReflection"
SERVICES: Final = (INFERENCE, HEALTH, REFLECTION, REFLECTION_ALPHA)

# A class of messages; protobuf makes its attributes at run time.
MessageClass = Any
Message = Any


def _read_files() -> Mapping[str, bytes]:
    """Return each compiled file by its name; none of them imports another."""
    files = FileDescriptorSet.FromString(DESCRIPTORS.read_bytes()).file
    return {file.name: file.SerializeToString() for file in files}


def _fill_pool() -> DescriptorPool:
    pool = DescriptorPool()
    for file in FILES.values():
        pool.AddSerializedFile(file)
    return pool


FILES: Final = _read_files()
POOL: Final = _fill_pool()


def message_class(name: str) -> MessageClass:
    """Return the class of the messages with this full name; raise KeyError if there is none."""
    return GetMessageClass(POOL.FindMessageTypeByName(name))


def parse_message(kind: MessageClass, data: bytes) -> Message:
    """Return a message of a class; raise MalformedError if the bytes are none."""
    try:
        return kind.FromString(data)
    except DecodeError:
        raise MalformedError("The message is not of the method's type; check the .proto of the client.") from None


InferRequest: Final = message_class("inference.ModelInferRequest")
InferResponse: Final = message_class("inference.ModelInferResponse")
