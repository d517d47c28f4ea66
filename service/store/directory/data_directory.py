"""The data directory: what the service keeps for itself, and where.

    <data>/lock                                     flock: one instance uses the directory
    <data>/log.sqlite, log.sqlite-wal, -shm         the feedback log, sqlite.py
    <data>/token.key                                what seals feedback tokens, keyfile.py
    <data>/marks/<slot>                             how far each worker acknowledged, marks.py
    <data>/streams/<model>/<version>/artifact/      the artifact as it was when the stream began, artifact.py
    <data>/streams/<model>/<version>/snapshots/     what is served, snapshots.py
    <data>/streams/<model>/<version>/checkpoints/   what the fold goes on from, snapshots.py
    <data>/streams/<model>/<version>/history/       states of the past that somebody asked for, snapshots.py

    <data>/streams/.purged-…                        a stream's folder that is being deleted
    <data>/.restore/                                a whole backup on its way to its place, restore.py

The bound artifact is what a stream's events mean: it is copied once, and what changes in models/ later is reported.
"""

import fcntl
import os
import secrets
import shutil
import time
from contextlib import suppress
from pathlib import Path
from typing import IO, Final, NamedTuple

from service.errors import LogUnavailableError
from service.store.artifact.artifact import Artifact, read_artifact, write_artifact
from service.store.filesystem import make_folder, sync_folder
from service.store.states.snapshots import list_seqs

SET_ASIDE: Final = ".purged-"
LOCK_POLL_SECONDS: Final = 0.02
RESTORING: Final = ".restore"
# A folder's time of change stands still within a tick of the kernel's clock, 10 ms at most; from then on it tells of
# every change.
SETTLED_NANOSECONDS: Final = 100_000_000


class BoundArtifact(NamedTuple):
    """A stream's artifact.

    Attributes:
        artifact: The copy that the stream began with; it is what is served.
        differs: Whether the artifact in models/ is another one by now.
    """

    artifact: Artifact
    differs: bool


class StreamFolder:
    """The folder of one stream; nothing is made before it is needed.

    Attributes:
        path: Itself.
        artifact: The folder of the bound artifact.
        snapshots: The folder of what is served.
        checkpoints: The folder of what the fold goes on from.
        history: The folder of states that were asked for.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.artifact = path / "artifact"
        self.snapshots = path / "snapshots"
        self.checkpoints = path / "checkpoints"
        self.history = path / "history"

    def bind_artifact(self, artifact: Artifact, bytes_max: int) -> BoundArtifact:
        """The artifact that the stream is bound to: this one where the stream begins, else the copy.

        Args:
            artifact: The version as models/ has it now.
            bytes_max: Largest size of a tensor file.

        Raises:
            ArtifactError: The copy is damaged.
            OSError: The disk refuses; a copy appears whole or not at all.
        """
        if not self.artifact.exists():
            write_artifact(self.artifact, artifact)
            sync_folder(self.path.parent)
        copy = read_artifact(self.artifact, bytes_max)
        return BoundArtifact(copy, _told(copy) != _told(artifact))


class DataDirectory:
    """The directory of one running service.

    Args:
        path: Itself; made where it is missing.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.log = path / "log.sqlite"
        self.token_key = path / "token.key"
        self._marks = path / "marks"
        self._streams = path / "streams"
        make_folder(self._marks)

    def acquire_lock(self, *, resumes: bool = False, seconds: float = 0.0) -> IO[bytes]:
        """Takes the directory for this process and those it forks, until the file that is returned is closed.

        Args:
            resumes: Whether this process finishes a restore that was interrupted; any other is refused.
            seconds: How long an instance that has it is waited for.

        Raises:
            LogUnavailableError: Another instance has it, or a restore was interrupted.
        """
        file = (self.path / "lock").open("wb")
        deadline = time.monotonic() + seconds
        while not _locked(file):
            if time.monotonic() >= deadline:
                file.close()
                raise LogUnavailableError("another instance uses the data directory; stop it or choose another one")
            time.sleep(LOCK_POLL_SECONDS)
        try:
            if not resumes:
                refuse_unfinished(self.path)
        except LogUnavailableError:
            file.close()
            raise
        return file

    def mark_file(self, slot: int) -> Path:
        """The file of a worker's marks."""
        return self._marks / str(slot)

    def mark_files(self) -> list[Path]:
        """The marks of all workers there ever were."""
        return sorted(path for path in self._marks.iterdir() if not path.name.startswith("."))

    def stream_folder(self, model: str, version: int) -> StreamFolder:
        """The folder of a model version's stream. Names are checked by the repository, and safe in a path."""
        return StreamFolder(self._streams / model / str(version))

    def hide_stream(self, model: str, version: int) -> None:
        """Takes a stream's folder out of sight, in one step, before its purge; `finish_removals` deletes it.

        Raises:
            OSError: The disk refuses.
        """
        folder = self.stream_folder(model, version).path
        if folder.exists():
            folder.rename(self._streams / f"{SET_ASIDE}{secrets.token_hex(8)}")
            sync_folder(self._streams)
            with suppress(OSError):  # other versions are still there
                folder.parent.rmdir()

    def delete_hidden_streams(self) -> None:
        """Deletes the folders that were set aside, also by processes that were killed then."""
        for path in self._streams.glob(f"{SET_ASIDE}*"):
            shutil.rmtree(path)


class SnapshotWatcher:
    """Which streams may have new snapshots, at one look at each stream's folder and none at versions without one.

    A folder is listed only where its time of change is not the one that was seen when it had settled.

    Args:
        data: The directory.
    """

    def __init__(self, data: DataDirectory) -> None:
        self._root = str(data.path / "streams")
        self._settled: dict[str, int] = {}
        self._names: dict[str, list[str]] = {}

    def changed_snapshots(self) -> dict[tuple[str, int], int]:
        """The newest seq of each stream's snapshots whose folder may have changed since the last call."""
        found = {}
        for model in self._listed(self._root):
            of_model = f"{self._root}/{model}"
            for version in self._listed(of_model):
                folder = f"{of_model}/{version}/snapshots"
                if self._may_have_changed(folder) and (known := list_seqs(Path(folder))):
                    found[model, int(version)] = known[-1]
        return found

    def recheck(self, model: str, version: int) -> None:
        """Let the next call tell of a stream, changed or not."""
        self._settled.pop(f"{self._root}/{model}/{version}/snapshots", None)

    def _listed(self, folder: str) -> list[str]:
        """The names in a folder, but those with a leading dot."""
        if self._may_have_changed(folder):
            with suppress(FileNotFoundError):
                names = os.listdir(folder)  # noqa: PTH208  # here as below: as names, and many times a second
                self._names[folder] = [name for name in names if not name.startswith(".")]
        return self._names.get(folder, [])

    def _may_have_changed(self, folder: str) -> bool:
        """Whether a folder may hold other names than when it was last looked at; False where it is missing."""
        try:
            changed = os.stat(folder).st_mtime_ns  # noqa: PTH116
        except FileNotFoundError:
            return False
        if changed == self._settled.get(folder):
            return False
        if time.time_ns() - changed > SETTLED_NANOSECONDS:
            self._settled[folder] = changed
        return True


def refuse_unfinished(path: Path) -> None:
    """Raises LogUnavailableError for a data directory in which a backup has not come to its place yet."""
    if (path / RESTORING).exists():
        raise LogUnavailableError("a restore of the data directory was interrupted; run softstep restore again")


def _told(artifact: Artifact) -> tuple[object, ...]:
    """What tells one artifact from another: not the bytes of its files, which differ from writer to writer."""
    shapes = [tensor.shape for tensor in artifact.tensors.values()]
    return artifact.manifest.model_copy(update={"tensors_sha256": ""}), artifact.weights_sha256, shapes


def _locked(file: IO[bytes]) -> bool:
    """Whether this process has the lock now."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
