"""Answers of gRPC's server reflection protocol: the names of the services, and the files that describe them.

Both versions of the protocol have the same messages, so one answers for both.
"""

from typing import Final

from service.serve.grpc.call_status import GrpcStatus
from service.serve.grpc.grpc_messages import (
    FILES,
    POOL,
    REFLECTION,
    REFLECTION_ALPHA,
    SERVICES,
    Message,
    MessageClass,
    message_class,
    parse_message,
)
from service.serve.grpc.message_framing import frame_message

REFLECTION_PATHS: Final = tuple(f"/{name}/ServerReflectionInfo".encode() for name in (REFLECTION, REFLECTION_ALPHA))
ReflectionRequest: Final[MessageClass] = message_class("grpc.reflection.v1.ServerReflectionRequest")
ReflectionResponse: Final[MessageClass] = message_class("grpc.reflection.v1.ServerReflectionResponse")


def answer_reflection(message: bytes) -> bytes:
    """Return the framed answer to a message; raise MalformedError if it is not one of the protocol."""
    request = parse_message(ReflectionRequest, message)
    answer = ReflectionResponse(valid_host=request.host, original_request=request)
    try:
        _fill(answer, request)
    except KeyError:
        answer.error_response.error_code = GrpcStatus.NOT_FOUND
        answer.error_response.error_message = "This server has no file, symbol or type of that name."
    return frame_message(answer.SerializeToString())


def _file_of(symbol: str) -> str:
    """Return the name of the file with a message, a service or a method; raise KeyError if there is none."""
    service, _, method = symbol.rpartition(".")
    if service in SERVICES:
        return str(POOL.FindServiceByName(service).methods_by_name[method].containing_service.file.name)
    return str(POOL.FindFileContainingSymbol(symbol).name)


def _fill(answer: Message, request: Message) -> None:
    """Fill an answer; raise KeyError if what is asked for is unknown."""
    match request.WhichOneof("message_request"):
        case "list_services":
            for name in SERVICES:
                answer.list_services_response.service.add(name=name)
        case "file_by_filename":
            answer.file_descriptor_response.file_descriptor_proto.append(FILES[request.file_by_filename])
        case "file_containing_symbol":
            name = _file_of(request.file_containing_symbol)
            answer.file_descriptor_response.file_descriptor_proto.append(FILES[name])
        case "all_extension_numbers_of_type":  # these messages have no extensions
            name = POOL.FindMessageTypeByName(request.all_extension_numbers_of_type).full_name
            answer.all_extension_numbers_response.base_type_name = name
        case "file_containing_extension":
            raise KeyError
        case _:
            answer.error_response.error_code = GrpcStatus.INVALID_ARGUMENT
            answer.error_response.error_message = "The request asks for nothing that this server knows."
