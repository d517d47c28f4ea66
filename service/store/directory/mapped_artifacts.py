"""Artifacts of sparse rows in the memory that all processes share, once the learner has written their first base."""

from contextlib import suppress
from pathlib import Path
from typing import Final
from weakref import WeakKeyDictionary

from service.errors import SnapshotError
from service.store.artifact.artifact import Artifact
from service.store.artifact.mapped_artifact import MappedArtifact
from service.store.artifact.version_folders import Key
from service.store.directory.data_directory import DataDirectory
from service.store.states.bases import encode_first_base
from service.store.states.snapshots import name_base, read_base


def is_private(artifact: Artifact) -> bool:
    """Return whether this process has an artifact of sparse rows to itself."""
    return artifact.has_sparse_rows and not isinstance(artifact, MappedArtifact)


class MappedArtifacts:
    """Finds the first bases of artifacts. One thread calls `share`.

    Args:
        data: The data directory, or None without one.
    """

    def __init__(self, data: DataDirectory | None) -> None:
        self._data: Final = data
        self._paths: Final = WeakKeyDictionary[Artifact, Path]()
        self._damaged: Final = dict[Path, int]()  # the times of their last change, in nanoseconds

    def share(self, key: Key, artifact: Artifact) -> Artifact:
        """Return an equal artifact that maps its first base, or the same one if that is not there, or damaged."""
        if self._data is None or not is_private(artifact):
            return artifact
        if artifact not in self._paths:
            name = name_base(encode_first_base(artifact)[0])
            self._paths[artifact] = self._data.stream_folder(*key).bases / name
        if not self.is_written(artifact):
            return artifact
        path = self._paths[artifact]
        try:
            return MappedArtifact(artifact, read_base(path))
        except SnapshotError:
            with suppress(FileNotFoundError):
                self._damaged[path] = path.stat().st_mtime_ns
            return artifact

    def is_written(self, artifact: Artifact) -> bool:
        """Return whether the first base of an artifact that could not be shared has been written since."""
        path = self._paths.get(artifact)
        try:
            return path is not None and path.stat().st_mtime_ns != self._damaged.get(path)
        except OSError:
            return False
