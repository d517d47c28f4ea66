"""Folders of a models directory that hold a model but are not served, and why.

A folder counts if it has a manifest in the wrong place, or a model in another format. A folder that is a version, as
version_folders.py finds them, does not: it is served or refused by itself. The search is bounded, because the root may
be any folder of a machine. Nothing is read but the names of files.
"""

import os
from collections.abc import Collection, Iterator
from itertools import islice
from pathlib import Path
from typing import Final, NamedTuple

from service.store.artifact.artifact_folder import MANIFEST_NAME, TENSORS_NAME
from service.store.artifact.version_folders import MODEL_NAME, VERSION_NUMBER

# Folders below the root that are searched: one level more than versions have, for models in folders of a team.
DEPTH_MAX: Final = 3
# Folders that a scan lists, entries that it reads of each, and folders that it reports. A scan runs every second, and
# its report must stay readable.
LISTED_MAX: Final = 1024
ENTRIES_MAX: Final = 1024
REPORTED_MAX: Final = 64
# Longer paths are cut, for logs and responses.
PATH_CHARACTERS_MAX: Final = 256

# What other programs call their models, by the end of the file's name in lower case.
FORMATS: Final = {
    ".onnx": "an ONNX model",
    ".pkl": "a pickle",
    ".pickle": "a pickle",
    ".joblib": "a pickle of joblib",
    ".cloudpickle": "a pickle",
    ".pt": "a PyTorch model",
    ".pth": "a PyTorch model",
    ".h5": "a Keras model",
    ".keras": "a Keras model",
    ".pb": "a TensorFlow model",
    ".tflite": "a TensorFlow Lite model",
    ".ubj": "an XGBoost model",
    ".bst": "an XGBoost model",
    ".cbm": "a CatBoost model",
    ".vw": "a Vowpal Wabbit model",
    "mlmodel": "an MLflow model",
    "config.pbtxt": "a Triton model",
}
WRONG_PLACE: Final = (
    "the folder is not <name>/<version>: a name has 1 to 64 of a-z, 0-9, '.', '_' and '-', the first a letter or "
    "digit, and versions are 1, 2, 3 and so on"
)
OTHER_FORMAT: Final = "it holds {format}, which is not read; export model.json and model.safetensors from it"


class UnservedFolder(NamedTuple):
    """A folder that is not served.

    Attributes:
        path: Its path below the root, as printable text; "." is the root.
        reason: Why, and what to do.
    """

    path: str
    reason: str


def find_unserved(root: Path, served: Collection[Path]) -> tuple[UnservedFolder, ...]:
    """Return the folders that hold a model but are no version, in the order of their paths; at most REPORTED_MAX.

    Args:
        root: The models directory.
        served: The folders of all versions, which are served or refused.
    """
    found = []
    for folder, names in _list_folders(root):
        reason = None if folder in served else _reason(folder.relative_to(root), names)
        if reason is not None:
            found.append(UnservedFolder(_printable(folder.relative_to(root)), reason))
    return tuple(sorted(found)[:REPORTED_MAX])


def _list_folders(root: Path) -> Iterator[tuple[Path, list[str]]]:
    """Yield folders with the names of their files, the root first; one that cannot be read is passed over."""
    level = [root]
    listed = 0
    for _ in range(DEPTH_MAX + 1):
        deeper: list[Path] = []
        for folder in level[: LISTED_MAX - listed]:
            listed += 1
            names: dict[bool, list[str]] = {True: [], False: []}
            try:
                with os.scandir(folder) as entries:
                    for entry in islice(entries, ENTRIES_MAX):
                        names[entry.is_dir()].append(entry.name)
            except OSError:
                continue
            deeper += [folder / name for name in names[True] if not name.startswith(".")]
            yield folder, names[False]
        level = deeper


def _reason(path: Path, names: Collection[str]) -> str | None:
    """Return why a folder with these files is not served, or None if nothing there looks like a model."""
    if MANIFEST_NAME in names:
        return WRONG_PLACE
    formats = sorted({text for end, text in FORMATS.items() for name in names if name.lower().endswith(end)})
    if formats:
        return OTHER_FORMAT.format(format=" and ".join(formats))
    # In a version's folder the tensors are written first, and the manifest is still missing.
    if TENSORS_NAME in names and not _is_version(path):
        return WRONG_PLACE
    return None


def _is_version(path: Path) -> bool:
    *above, last = path.parts or ("",)
    is_number = VERSION_NUMBER.fullmatch(last) is not None
    return (not above and (not last or is_number)) or (
        len(above) == 1 and MODEL_NAME.fullmatch(above[0]) is not None and is_number
    )


def _printable(path: Path) -> str:
    """Return a path for logs and responses: no control characters, and no bytes that are not text."""
    text = "".join(character if character.isprintable() else "?" for character in path.as_posix())
    return text[:PATH_CHARACTERS_MAX]
