"""Where a new version of a model goes: a folder that is not there yet, so that nothing is ever written over."""

from pathlib import Path

from service.errors import ArtifactError
from service.store.artifact.artifact import MANIFEST_NAME
from service.store.artifact.repository import VERSION_NUMBER


def new_version_folder(folder: Path) -> Path:
    """The folder of a version that is to be written.

    Args:
        folder: The version's own folder, which is not there yet; or a model's folder, which is, and gets the version
            behind its largest one, damaged ones included.

    Raises:
        ArtifactError: The folder holds a version itself, or is a file.
        OSError: It cannot be looked at.
    """
    if not folder.exists():
        return folder
    if not folder.is_dir():
        raise ArtifactError("the target is a file; name a folder that does not exist yet, or a model's folder")
    if (folder / MANIFEST_NAME).exists():
        raise ArtifactError("the target holds a version already; name a folder that does not exist yet")
    versions = [int(path.name) for path in folder.iterdir() if VERSION_NUMBER.fullmatch(path.name)]
    return folder / str(max(versions, default=0) + 1)
