"""Recognize a source by its bytes, and read it with the package for its kind.

    first bytes                       kind
    PK, a ZIP archive                 skops if it has schema.json, .npz if it has .npy members
    length, then {                    safetensors
    08 or 0A: tags of protobuf        ONNX
    Version                           a readable model of Vowpal Wabbit

Pickles, and what hides one, are refused with the lines that make a file without one. Nothing of them is run.
"""

import re
from pathlib import Path
from typing import Any, BinaryIO, Final, cast

from service.convert.archives.zip_archive import SCOPED_NAME, ZipArchive
from service.convert.scikit.skops_source import PICKLE_ADVICE, is_pickle
from service.convert.source_file import ZIP_BEGINNING, open_source
from service.convert.source_options import ReadSource, SourceOptions
from service.convert.vowpal.readable_model import BEGINNING as VOWPAL
from service.errors import ConversionError
from service.optional_packages import resolve_optional

# By kind: the function that reads it, imported when it is needed, because some need packages of the extra.
READERS: Final = {
    "layers": "service.convert.layers.layer_model:read_layer_source",
    "onnx": "service.convert.graphs.graph_source:read_onnx_source",
    "skops": "service.convert.scikit.skops_source:read_skops_source",
    "vowpal": "service.convert.vowpal.vowpal_source:read_vowpal_source",
}
# A pickle of the first protocol is text: it begins with the module and the name of a function, or with a mark.
OLD_PICKLE: Final = re.compile(rb"c[\w.]+\n\w+\n|\([dlic]")
TORCH: Final = "the source is a PyTorch archive with a pickle; write its tensors with safetensors.torch.save_file"
KERAS: Final = "the source is a Keras model; write its weights with numpy.savez, and name them with --layers"
HDF5: Final = b"\x89HDF"
VOWPAL_BINARY: Final = (
    "the source is a binary model of Vowpal Wabbit; write it as text: vw -i MODEL -t --invert_hash model.txt, "
    "or --readable_model"
)
HEAD_BYTES: Final = 64
# A binary model begins with the length of its version as a uint32, and the version.
VERSION_DOTS: Final = 2
PROTOBUF: Final = (b"\x08", b"\x0a")


def read_source(path: Path, options: SourceOptions) -> ReadSource:
    """Read a source.

    Args:
        path: The file.
        options: Facts that it does not have.

    Raises:
        ConversionError: It is no source, or cannot be converted; the message names the part and its place.
        SoftstepError: Packages are missing.
    """
    with open_source(path) as file:
        kind = find_kind(file, path)
    read = cast("Any", resolve_optional(READERS[kind], "softstep import", "convert"))
    return cast("ReadSource", read(path, options))


def find_kind(file: BinaryIO, path: Path) -> str:
    """Return the kind of a source: "skops", "layers", "onnx" or "vowpal".

    Raises:
        ConversionError: It is of no kind that is read.
    """
    head = file.read(HEAD_BYTES)
    if head.startswith(ZIP_BEGINNING):
        return find_archive_kind(file)
    if head.startswith(VOWPAL):
        return "vowpal"
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") < 1 << 48:
        return "layers"
    if head[1:4] == b"\0\0\0" and head[4:].partition(b"\0")[0].count(b".") == VERSION_DOTS:
        raise ConversionError(VOWPAL_BINARY)
    if OLD_PICKLE.match(head) or is_pickle(head, path):
        raise ConversionError(PICKLE_ADVICE)
    if head.startswith(HDF5):
        raise ConversionError(KERAS)
    if head.startswith(PROTOBUF):
        return "onnx"
    raise ConversionError(
        "the source is no .skops, ONNX, safetensors or .npz file, and no readable model of Vowpal Wabbit"
    )


def find_archive_kind(file: BinaryIO) -> str:
    """Return the kind of a ZIP archive."""
    names = ZipArchive(file, SCOPED_NAME).names
    if "schema.json" in names:
        return "skops"
    if any(name == "data.pkl" or name.endswith("/data.pkl") for name in names):
        raise ConversionError(TORCH)
    if any(name.endswith(".h5") for name in names):
        raise ConversionError(KERAS)
    if any(name.endswith(".npy") for name in names):
        return "layers"
    raise ConversionError("the archive is neither a .skops file nor an .npz file")
