"""The compiled messages are those of the .proto files, with the numbers that other implementations use."""

from pathlib import Path
from typing import Any

import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2
from tritonclient.grpc import model_config_pb2, service_pb2

from service.serve.grpc.grpc_messages import DESCRIPTORS, POOL, SERVICES
from tests.support.make_grpc_messages import compile_messages

OTHERS = {
    "inference.proto": (service_pb2, model_config_pb2),
    "health.proto": (health_pb2,),
    "reflection_v1alpha.proto": (reflection_pb2,),
}


def test_the_compiled_messages_are_those_of_the_files(tmp_path: Path) -> None:
    """A change of a .proto file needs `python -m tests.support.make_grpc_messages`."""
    compile_messages(tmp_path / "messages.binpb")
    made, kept = (
        FileDescriptorSet.FromString(path.read_bytes()) for path in (tmp_path / "messages.binpb", DESCRIPTORS)
    )
    assert made == kept


def fields_of(message: Any) -> dict[str, tuple[Any, ...]]:
    """Return the number, the type and the oneof of each field of a message, and of those within it."""
    found = {
        f"{message.full_name}.{field.name}": (
            field.number,
            field.type,
            field.is_repeated,
            None if field.message_type is None else field.message_type.full_name,
            None if field.containing_oneof is None else field.containing_oneof.name,
        )
        for field in message.fields
    }
    for nested in message.nested_types:
        found |= fields_of(nested)
    return found


def methods_of(service: Any) -> dict[str, tuple[Any, ...]]:
    """Return the messages of each method of a service, and which of them are streams."""
    return {
        method.full_name: (
            method.input_type.full_name,
            method.output_type.full_name,
            method.client_streaming,
            method.server_streaming,
        )
        for method in service.methods
    }


@pytest.mark.parametrize("file", OTHERS)
def test_numbers_and_types_are_those_of_other_implementations(file: str) -> None:
    """Each field and method exists there too, with the same number and types; values of enums likewise."""
    ours = POOL.FindFileByName(file)
    theirs = [module.DESCRIPTOR for module in OTHERS[file]]
    expected = {}
    for other in theirs:
        for message in other.message_types_by_name.values():
            expected |= fields_of(message)
        for service in other.services_by_name.values():
            expected |= methods_of(service)
        for enum in other.enum_types_by_name.values():
            expected |= {f"{enum.full_name}.{value.name}": (value.number,) for value in enum.values}
    found = {}
    for message in ours.message_types_by_name.values():
        found |= fields_of(message)
    for service in ours.services_by_name.values():
        found |= methods_of(service)
    for enum in ours.enum_types_by_name.values():
        found |= {f"{enum.full_name}.{value.name}": (value.number,) for value in enum.values}
    # The health protocol of this grpcio may be older than its method List.
    newer = {name for name in found if "List" in name and name.startswith("grpc.health")}
    assert len(found) > 5
    assert {name: value for name, value in found.items() if name not in newer} == {
        name: expected[name] for name in found if name not in newer
    }


def test_both_versions_of_reflection_have_the_same_messages() -> None:
    """So one class answers both."""
    first, second = (
        {
            name.replace("v1alpha", "v1"): [str(part).replace("v1alpha", "v1") for part in value]
            for message in POOL.FindFileByName(file).message_types_by_name.values()
            for name, value in fields_of(message).items()
        }
        for file in ("reflection_v1.proto", "reflection_v1alpha.proto")
    )
    assert first == second
    assert len(first) > 15


def test_every_service_is_described() -> None:
    """The names of the services are those of the files."""
    names = {
        service.full_name
        for file in ("inference.proto", "health.proto", "reflection_v1.proto", "reflection_v1alpha.proto")
        for service in POOL.FindFileByName(file).services_by_name.values()
    }
    assert names == set(SERVICES)
