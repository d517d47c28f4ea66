"""The folder of one model version: the names of its files, and writing them so that a reader sees all or none."""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from service.errors import ArtifactExistsError
from service.store.artifact.temporary_folders import temporary_folder
from service.store.filesystem import make_folder, sync_folder, write_synced_file

MANIFEST_NAME: Final = "model.json"
TENSORS_NAME: Final = "model.safetensors"
# Names and four statistics of some 150,000 features; a larger manifest is refused before it is read.
MANIFEST_BYTES_MAX: Final = 16 << 20


def write_version(directory: Path, files: Mapping[str, bytes], *, overwrite: bool = False) -> None:
    """Write the files of one version so that a reader sees all of it or none, also after a loss of power.

    A new version appears by one rename of its folder. In a folder that exists the files are replaced in their order,
    the manifest last; between the two a reader refuses the pair by its checksum, and looks again.

    Args:
        directory: The version's folder; missing parents are created.
        files: The files by name, the manifest last.
        overwrite: Whether to replace a version that is there.

    Raises:
        ArtifactExistsError: The folder has a version, maybe since a moment ago, and `overwrite` is false.
        OSError: The disk failed. The old version is still there, at worst with new tensors beside its manifest.
    """
    make_folder(directory.parent)
    # Beside the target, so that the rename stays within one file system; scans skip names with a leading dot.
    with temporary_folder(directory) as temporary:
        for name, content in files.items():
            write_synced_file(temporary / name, content)
        _move_into_place(temporary, directory, tuple(files), overwrite=overwrite)


def require_no_version(directory: Path) -> None:
    """Raise ArtifactExistsError if a folder has a version."""
    if (directory / MANIFEST_NAME).exists():
        raise ArtifactExistsError("the folder has a version already; choose the next number, or pass overwrite=True")


def _move_into_place(temporary: Path, directory: Path, names: tuple[str, ...], *, overwrite: bool) -> None:
    sync_folder(temporary)
    try:
        temporary.rename(directory)  # replaces an empty folder, and fails if anything is in it
    except OSError:
        if not directory.is_dir():
            raise
        if not overwrite:
            require_no_version(directory)
        for name in names:
            (temporary / name).replace(directory / name)
            sync_folder(directory)
    sync_folder(directory.parent)
