"""The layout of a data directory: what the service stores, and where.

<data>/lock                                     flock: one instance uses the directory (directory_lock.py)
<data>/log.sqlite, log.sqlite-wal, -shm         the feedback log (log/sqlite.py)
<data>/token.key                                the keys of feedback tokens (keyfile.py)
<data>/keys.json, keys.json.lock                API keys (access/key_file.py); a backup does not contain them
<data>/audit.jsonl                              the audit log (access/audit_log.py); a backup does not contain it
<data>/unloaded.json                            which models are unloaded in a shared log (learn/shared_unload_list.py)
<data>/marks/<slot>                             how far each worker has acknowledged (ack_marks.py)
<data>/streams/<model>/<version>/artifact/      the artifact as it was when the stream began (bound_artifact.py)
<data>/streams/<model>/<version>/snapshots/     states that are served (states/snapshots.py)
<data>/streams/<model>/<version>/bases/         whole weights that snapshots of a sparse model name (states/bases.py)
<data>/streams/<model>/<version>/checkpoints/   states that the fold continues from (states/snapshots.py)
<data>/streams/<model>/<version>/history/       states of the past that were requested (states/snapshots.py)
<data>/streams/<model>/<version>/keyframes/     states of the past at even distances (states/snapshots.py)
<data>/streams/<model>/<version>/report         how well the stream was learned (states/report.py)

<data>/streams/.purged-…                        the folder of a stream that is being deleted
<data>/.migrate.partial/                        a log that is being copied into the directory (log_migration.py)
<data>/.restore/                                a complete backup that is being moved into place (restore_files.py)
"""

import secrets
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Final

from service.store.directory.keyfile import KEY_NAME
from service.store.filesystem import make_folder, sync_folder
from service.store.states.report import REPORT_NAME
from service.store.states.snapshots import BASES_FOLDER

LOG_NAME: Final = "log.sqlite"
MARKS_NAME: Final = "marks"
STREAMS_NAME: Final = "streams"
UNLOAD_LIST_NAME: Final = "unloaded.json"
LOCK_NAME: Final = "lock"
RESTORE_NAME: Final = ".restore"
PURGED_PREFIX: Final = ".purged-"


class StreamFolder:
    """The folder of one stream; nothing in it is created before it is needed.

    Attributes:
        path: The folder itself.
        artifact: The folder of the bound artifact.
        snapshots: The folder of states that are served.
        bases: The folder of the whole weights that they name.
        checkpoints: The folder of states that the fold continues from.
        history: The folder of states of the past that were requested.
        keyframes: The folder of states of the past at even distances.
        report: The file with the report.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.artifact = path / "artifact"
        self.snapshots = path / "snapshots"
        self.bases = path / BASES_FOLDER
        self.checkpoints = path / "checkpoints"
        self.history = path / "history"
        self.keyframes = path / "keyframes"
        self.report = path / REPORT_NAME


class DataDirectory:
    """The paths of a data directory.

    Args:
        path: The directory.
        create: Whether to create the directory and its fixed folders if they are missing.

    Attributes:
        path: The directory.
        log: The database of the feedback log.
        token_key: The key file of feedback tokens.
        unload_list: The copy of the list of unloaded models that a shared log has.
        streams: The folder of all streams' folders.
    """

    def __init__(self, path: Path, *, create: bool = True) -> None:
        self.path = path
        self.log = path / LOG_NAME
        self.token_key = path / KEY_NAME
        self.unload_list = path / UNLOAD_LIST_NAME
        self.streams = path / STREAMS_NAME
        self._marks = path / MARKS_NAME
        if create:
            make_folder(self._marks)

    def mark_file(self, slot: int) -> Path:
        """Return the mark file of a worker."""
        return self._marks / str(slot)

    def mark_files(self) -> list[Path]:
        """Return the mark files of all workers, past ones included; none if the directory is missing."""
        files = self._marks.iterdir() if self._marks.is_dir() else ()
        return sorted(path for path in files if not path.name.startswith("."))

    def stream_folder(self, model: str, version: int) -> StreamFolder:
        """Return the folder of a model version's stream; the repository has checked that the name is safe in a path."""
        return StreamFolder(self.streams / model / str(version))

    def hide_stream(self, model: str, version: int) -> None:
        """Rename a stream's folder, in one step, so that nothing finds it; `delete_hidden_streams` deletes it.

        Raises:
            OSError: The disk failed.
        """
        folder = self.stream_folder(model, version).path
        if folder.exists():
            folder.rename(self.streams / f"{PURGED_PREFIX}{secrets.token_hex(8)}")
            sync_folder(self.streams)
            with suppress(OSError):  # the model's folder still holds other versions
                folder.parent.rmdir()

    def delete_hidden_streams(self) -> None:
        """Delete the folders that were hidden, also those that a killed process left."""
        for path in self.streams.glob(f"{PURGED_PREFIX}*"):
            shutil.rmtree(path)
