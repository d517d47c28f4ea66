"""Read named tensors of a safetensors or an .npz file as float64.

Only the tensors that are asked for are read, and those of safetensors only after their dtypes and sizes are checked.
"""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Final, NamedTuple

import numpy as np
import safetensors

from service.convert.archives.npy_array import parse_npy
from service.convert.archives.zip_archive import SCOPED_NAME, ZipArchive
from service.convert.converted_model import Doubles
from service.convert.source_file import ZIP_BEGINNING, open_source
from service.errors import ConversionError

# A layer of 4,096 inputs and outputs has as many numbers: 128 MiB of float64.
NUMBERS_MAX: Final = 1 << 24
# So many numbers of float64, and a header.
MEMBER_BYTES_MAX: Final = (8 * NUMBERS_MAX) + (1 << 16)
# The header of a model of some 10,000 tensors.
HEADER_BYTES_MAX: Final = 4 << 20
TENSORS_MAX: Final = 20_000
DIMENSIONS_MAX: Final = 2
DTYPES: Final = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}
SUFFIX: Final = ".npy"
LENGTH_BYTES: Final = 8


class TensorPlace(NamedTuple):
    """A tensor of a safetensors file.

    Attributes:
        dtype: Its dtype, as the file names it.
        shape: Its shape.
        start: Where its data begins in the file.
        end: Where it ends.
    """

    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int


def read_layer_tensors(path: Path, names: Sequence[str]) -> dict[str, Doubles]:
    """Return tensors of one or two dimensions by their names, float64.

    Raises:
        ConversionError: The file is neither safetensors nor .npz, is damaged or too large, has no such tensor, or a
            number of it is not finite.
    """
    with open_source(path) as file:
        beginning = file.read(len(ZIP_BEGINNING))
        file.seek(0)
        read = read_npz if beginning == ZIP_BEGINNING else read_safetensors
        tensors = dict(read(file, path, names))
    for name, tensor in tensors.items():
        if not np.isfinite(tensor).all():
            raise ConversionError(f"the tensor {show(name)} has a number that is not finite")
    return tensors


def read_safetensors(file: BinaryIO, path: Path, names: Sequence[str]) -> Iterator[tuple[str, Doubles]]:
    """Yield the tensors of a safetensors file; the library checks its header, sizes and overlaps first."""
    layouts = read_header(file)
    try:
        with safetensors.safe_open(path, "numpy"):
            pass
    except (safetensors.SafetensorError, OSError):
        raise ConversionError("the source is not a whole safetensors file") from None
    for name in names:
        if name not in layouts:
            raise missing_tensor(name, list(layouts))
        layout = layouts[name]
        check_form(name, layout.dtype in DTYPES, layout.dtype, layout.shape)
        file.seek(layout.start)
        raw = np.frombuffer(file.read(layout.end - layout.start), np.dtype(DTYPES[layout.dtype]))
        if layout.dtype == "BF16":  # the upper half of a float32
            raw = (raw.astype(np.uint32) << 16).view(np.float32)
        yield name, raw.astype(np.float64).reshape(layout.shape)


def read_header(file: BinaryIO) -> dict[str, TensorPlace]:
    """Return the tensors of a safetensors file by their names.

    Raises:
        ConversionError: The header is too long, is no JSON object of tensors, or has a name twice.
    """
    size = int.from_bytes(file.read(LENGTH_BYTES), "little")
    if size > HEADER_BYTES_MAX:
        raise ConversionError(f"the header of the source has more than {HEADER_BYTES_MAX} bytes")
    try:
        header = json.loads(file.read(size), object_pairs_hook=unique_names)
        tensors = {name: value for name, value in header.items() if name != "__metadata__"}
        if len(tensors) > TENSORS_MAX:
            raise ConversionError(f"the source has more than {TENSORS_MAX} tensors")
        first = LENGTH_BYTES + size
        return {name: to_layout(tensor, first) for name, tensor in tensors.items()}
    except (ValueError, RecursionError, AttributeError, TypeError, KeyError):
        raise ConversionError("the header of the source is not that of a safetensors file") from None


def to_layout(tensor: Mapping[str, Any], first: int) -> TensorPlace:
    """Return a tensor of a header, whose data follows at the byte `first` of the file."""
    start, end = tensor["data_offsets"]
    return TensorPlace(str(tensor["dtype"]), tuple(map(int, tensor["shape"])), first + int(start), first + int(end))


def unique_names(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return the members of a JSON object; raise ConversionError if a name occurs twice."""
    members = dict(pairs)
    if len(members) < len(pairs):
        raise ConversionError("the header of the source has a name twice")
    return members


def read_npz(file: BinaryIO, _: Path, names: Sequence[str]) -> Iterator[tuple[str, Doubles]]:
    """Yield the arrays of an .npz file."""
    archive = ZipArchive(file, SCOPED_NAME)
    known = [name.removesuffix(SUFFIX) for name in archive.names if name.endswith(SUFFIX)]
    for name in names:
        if name not in known:
            raise missing_tensor(name, known)
        array = parse_npy(archive.read(name + SUFFIX, MEMBER_BYTES_MAX))
        check_form(name, array.dtype.kind == "f", array.dtype.name, array.shape)
        yield name, np.ascontiguousarray(array, np.float64)


def check_form(name: str, is_float: bool, dtype: str, shape: Sequence[int]) -> None:  # noqa: FBT001  # one of a row of facts
    """Raise ConversionError unless a tensor is a matrix or a vector of a bounded number of floats."""
    if not is_float:
        raise ConversionError(f"the tensor {show(name)} has {show(dtype)}; it must have floats")
    if not 1 <= len(shape) <= DIMENSIONS_MAX or min(shape) < 1:
        raise ConversionError(f"the tensor {show(name)} must be a matrix or a vector")
    if math.prod(shape) > NUMBERS_MAX:
        raise ConversionError(f"the tensor {show(name)} has more than {NUMBERS_MAX} numbers")


def missing_tensor(name: str, known: Sequence[str]) -> ConversionError:
    """Return the error of a name that is no tensor."""
    shown = ", ".join(map(show, known[:8])) or "none"
    others = " and others" if len(known) > 8 else ""  # noqa: PLR2004  # as many as are shown
    return ConversionError(f"the source has no tensor {show(name)}; its tensors are {shown}{others}")


def show(name: str) -> str:
    """Return a name for a sentence: quoted, of printable ASCII, and not too long."""
    return json.dumps(name[:64])
