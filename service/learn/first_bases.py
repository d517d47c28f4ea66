"""Write the first base of each loaded version of sparse rows whose stream has not begun (store/states/bases.py).

The learner of a stream writes it for a stream that has. So workers need a private copy of the weights only until then.
"""

import time
from contextlib import suppress
from typing import Final

from service.errors import ArtifactError
from service.fields.column_blocks import FieldLimits
from service.settings import Settings
from service.store.artifact.artifact import Artifact, read_artifact
from service.store.artifact.artifact_folder import MANIFEST_BYTES_MAX, MANIFEST_NAME
from service.store.artifact.bounded_read import read_bounded
from service.store.artifact.manifest_json import parse_manifest
from service.store.artifact.version_folders import Key, Signature, VersionFolder, find_versions
from service.store.directory.data_directory import DataDirectory, StreamFolder
from service.store.states.bases import delete_bases, write_first_base

# Workers look at the models directory about as often.
SCAN_SECONDS: Final = 1.0
# After the disk has failed; a base may have 256 MiB.
FAILED_SECONDS: Final = 30.0


class FirstBases:
    """The first bases of the versions in a models directory.

    Args:
        settings: The models directory and the limits.
        data: The data directory.
    """

    def __init__(self, settings: Settings, data: DataDirectory) -> None:
        self._settings: Final = settings
        self._limits: Final = FieldLimits(settings.fields_max, settings.columns_max, settings.entries_max)
        self._data: Final = data
        self._due = 0.0
        # What was found in the files of a version: the name of its first base, or None if it needs none.
        self._known: dict[Key, tuple[Signature, str | None]] = {}

    def write_missing(self) -> bool:
        """Look at the models directory if that is due; return whether a base was written."""
        if time.monotonic() < self._due:
            return False
        self._due = time.monotonic() + SCAN_SECONDS
        written = False
        with suppress(OSError):  # of the models directory; workers report it
            for key, found in find_versions(self._settings.models, {})[0].items():
                folder = self._data.stream_folder(*key)
                if found.signature is not None and not folder.artifact.exists():
                    written |= self._write(key, found, found.signature, folder)
        return written

    def _write(self, key: Key, found: VersionFolder, signature: Signature, folder: StreamFolder) -> bool:
        known = self._known.get(key)
        if known is not None and known[0] == signature and (known[1] is None or (folder.bases / known[1]).exists()):
            return False
        artifact = self._read_sparse(found)
        try:
            name = None if artifact is None else write_first_base(folder.bases, artifact)
        except OSError:
            self._due = time.monotonic() + FAILED_SECONDS
            return False
        self._known[key] = signature, name
        if name is not None:
            delete_bases(folder.bases, folder.snapshots, name)
        return name is not None

    def _read_sparse(self, found: VersionFolder) -> Artifact | None:
        """Return the artifact of a version if it can be read and has sparse rows, else None; workers report why."""
        with suppress(ArtifactError):
            if parse_manifest(read_bounded(found.folder, MANIFEST_NAME, MANIFEST_BYTES_MAX)).fields is not None:
                artifact = read_artifact(found.folder, self._settings.artifact_bytes_max, self._limits)
                return artifact if artifact.has_sparse_rows else None
        return None
