"""The folders of a models directory, and the versions in them.

    <root>/<name>/<version>/model.json     name ^[a-z0-9][a-z0-9._-]{0,63}$, version 1, 2, 3, … without leading zeros
    <root>/<version>/model.json            one model without a name: its name is the root's, or "model"
    <root>/model.json                      one model without name and version: version 1

If two of them are the same version, the first line counts. Nothing else in the root is served; unserved_folders.py
reports what looks like a model. A new version goes into a folder that does not exist yet, so that nothing is ever
overwritten.
"""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final, NamedTuple

from service.errors import ArtifactError
from service.store.artifact.artifact_folder import MANIFEST_NAME, TENSORS_NAME

MODEL_NAME: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
# At most 18 digits: every version fits into a signed 64-bit integer.
VERSION_NUMBER: Final = re.compile(r"[1-9][0-9]{0,17}")
DEFAULT_MODEL_NAME: Final = "model"

Key = tuple[str, int]  # a model's name and version


class FileSignature(NamedTuple):
    """The facts that distinguish a file from an earlier one of the same name.

    `cp -p` and `rsync -t` set the time of the content, so the time of the last change of any kind counts too.
    """

    mtime_ns: int
    ctime_ns: int
    size: int
    inode: int


class Signature(NamedTuple):
    """The signatures of a version's two files; None for a missing tensor file."""

    manifest: FileSignature
    tensors: FileSignature | None


class VersionFolder(NamedTuple):
    """A folder with a version; without a signature if its files cannot be examined, which `problem` explains."""

    folder: Path
    signature: Signature | None
    problem: str = ""


def find_versions(root: Path, known: Mapping[Key, Path]) -> tuple[dict[Key, VersionFolder], str | None]:
    """Return every folder with a version, and the problem if a model's folder cannot be read.

    Args:
        root: The models directory.
        known: The folders of the last scan, which stay if their model's folder cannot be read.

    Raises:
        OSError: The root cannot be read.
    """
    found: dict[Key, VersionFolder] = {}
    problem = None
    for name in filter(MODEL_NAME.fullmatch, _names_in(root)):
        try:
            folders = _version_folders(name, root / name)
        except OSError as error:
            problem = f"the folder of model {name} cannot be read: {error.strerror}"
            folders = [(key, folder) for key, folder in known.items() if key[0] == name]
        _add_versions(found, folders)
    root_name = root.absolute().name
    name = root_name if MODEL_NAME.fullmatch(root_name) else DEFAULT_MODEL_NAME
    _add_versions(found, [*_version_folders(name, root), ((name, 1), root)])
    return found, problem


def examine_folder(folder: Path) -> VersionFolder | None:
    """Return a version's folder with the signatures of its files, or None if it has no manifest."""
    try:
        manifest = _file_signature(folder / MANIFEST_NAME)
        tensors = _file_signature(folder / TENSORS_NAME)
    except OSError as error:
        return VersionFolder(folder, None, f"its files cannot be examined: {error.strerror}")
    return None if manifest is None else VersionFolder(folder, Signature(manifest, tensors))


def new_version_folder(folder: Path) -> Path:
    """Return the folder in which to write a version.

    Args:
        folder: The version's own folder, which does not exist yet; or a model's folder, which exists. There the new
            version follows the largest one, damaged ones included.

    Raises:
        ArtifactError: The folder is a version itself, or a file.
        OSError: The folder cannot be read.
    """
    if not folder.exists():
        return folder
    if not folder.is_dir():
        raise ArtifactError("the target is a file; name a folder that does not exist yet, or a model's folder")
    if (folder / MANIFEST_NAME).exists():
        raise ArtifactError("the target has a version already; name a folder that does not exist yet")
    versions = [int(name) for name in _names_in(folder) if VERSION_NUMBER.fullmatch(name)]
    return folder / str(max(versions, default=0) + 1)


def next_version_folder(root: Path, name: str) -> Path:
    """Return the folder of a model's next version in a models directory; version 1 if there is none.

    Raises:
        ArtifactError: The model's folder is a version itself, or a file.
        OSError: The folder cannot be read.
    """
    folder = root / name
    return new_version_folder(folder) if folder.exists() else folder / "1"


def _names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def _version_folders(name: str, folder: Path) -> list[tuple[Key, Path]]:
    """Return the entries of a model's folder that are named like a version; none if it is a file or missing."""
    try:
        return [((name, int(entry)), folder / entry) for entry in _names_in(folder) if VERSION_NUMBER.fullmatch(entry)]
    except (FileNotFoundError, NotADirectoryError):
        return []


def _add_versions(found: dict[Key, VersionFolder], folders: Iterable[tuple[Key, Path]]) -> None:
    """Add the folders that have a version, unless the same version was found before."""
    for key, folder in folders:
        version = None if key in found else examine_folder(folder)
        if version is not None:
            found[key] = version


def _file_signature(path: Path) -> FileSignature | None:
    """Return the signature of a file, or of the file that a link leads to; None if it is missing."""
    try:
        status = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return FileSignature(status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_ino)
