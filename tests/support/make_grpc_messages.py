"""Compile the messages of gRPC, after a change of a .proto file: `python -m tests.support.make_grpc_messages`."""

from pathlib import Path

from grpc_tools import protoc

from tests.support.paths import ROOT

FOLDER = ROOT / "service" / "serve" / "grpc" / "protos"
DESCRIPTORS = FOLDER / "messages.binpb"


def compile_messages(path: Path) -> None:
    """Compile all .proto files into one descriptor set."""
    sources = sorted(file.name for file in FOLDER.glob("*.proto"))
    arguments = ["protoc", f"--proto_path={FOLDER}", f"--descriptor_set_out={path}", *sources]
    assert protoc.main(arguments) == 0, "protoc refuses a file"


if __name__ == "__main__":
    compile_messages(DESCRIPTORS)
