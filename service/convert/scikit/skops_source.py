"""Read a .skops file as a converted model and as a source that can be asked."""

from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple

from service.convert.converted_model import ConvertedModel
from service.convert.scikit.estimator import convert_estimator
from service.convert.scikit.row_layout import RowLayout
from service.convert.scikit.skops_file import read_skops
from service.convert.scikit.skops_process import SkopsProcess
from service.convert.source_file import open_source
from service.convert.source_options import ReadSource, SourceOptions
from service.errors import ConversionError

# How a pickle begins: protocol 2 and later; the compressed ones of joblib (zlib, gzip, bz2, xz, lzma, lz4).
PICKLE_PROTOCOLS: Final = (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")
COMPRESSED: Final = (
    b"\x78\x01",
    b"\x78\x5e",
    b"\x78\x9c",
    b"\x78\xda",
    b"\x1f\x8b",
    b"BZh",
    b"\xfd7zXZ",
    b"]\x00\x00",
    b"\x04\x22\x4d\x18",
)
PICKLE_SUFFIXES: Final = (".pkl", ".pickle", ".joblib", ".sav", ".dill")
PICKLE_ADVICE: Final = (
    "the source is a pickle, which runs code when it is read; where it was trained, write it as skops:\n"
    "    import joblib, skops.io\n"
    '    skops.io.dump(joblib.load("model.joblib"), "model.skops")'
)


class SkopsModel(NamedTuple):
    """A .skops file that was read.

    Attributes:
        model: The converted model.
        source: The source that can be asked.
    """

    model: ConvertedModel
    source: SkopsProcess


def is_pickle(start: bytes, path: Path) -> bool:
    """Return whether a file is a pickle, by its first bytes and its name."""
    is_named = path.suffix in PICKLE_SUFFIXES and not start.startswith(b"PK")
    return is_named or start.startswith((*PICKLE_PROTOCOLS, *COMPRESSED))


def read_skops_model(
    file: BinaryIO,
    path: Path,
    *,
    classes: Sequence[str] | None = None,
    features: Sequence[str] | None = None,
    training_rows: int | None = None,
) -> SkopsModel:
    """Return the model of a .skops file, and scikit-learn behind it.

    Args:
        file: The file, open for reading.
        path: Its path, which another process reads again.
        classes: The names of the classes; by default those of the file.
        features: The names of the values of a row; by default those of the file.
        training_rows: The number of training rows, if the file does not know it.

    Raises:
        ConversionError: It is a pickle, no .skops file, or a model that cannot be converted.
    """
    file.seek(0)
    if is_pickle(file.read(8), path):
        raise ConversionError(PICKLE_ADVICE)
    converted = convert_estimator(read_skops(file), classes=classes, features=features, training_rows=training_rows)
    return SkopsModel(converted.model, SkopsProcess(path, RowLayout.of_model(converted.model, converted.inputs)))


def read_skops_source(path: Path, options: SourceOptions) -> ReadSource:
    """Read a .skops file for `softstep import`.

    Raises:
        ConversionError: As for `read_skops_model`.
    """
    with open_source(path) as file:
        read = read_skops_model(
            file,
            path,
            classes=options.classes or None,
            features=options.features or None,
            training_rows=options.training_rows,
        )
    return ReadSource(read.model, read.source, "scikit-learn")
