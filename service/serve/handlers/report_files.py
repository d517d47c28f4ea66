"""The reports of streams, read again when the learner replaces a file."""

import asyncio
from pathlib import Path
from typing import Final, NamedTuple

from service.serve.models.live_models import VersionKey
from service.serve.models.registry import ModelRegistry
from service.serve.models.served_model import ServedModel
from service.store.directory.data_directory import DataDirectory
from service.store.states.report import Report, read_report

# The inode, the time of the last change and the size of a file; None without one.
FileIdentity = tuple[int, int, int] | None


class KnownReport(NamedTuple):
    """A report as it was last read.

    Attributes:
        path: Its file.
        identity: The identity of the file then.
        report: The report, or None if the file was missing or damaged.
    """

    path: Path
    identity: FileIdentity
    report: Report | None


Entries = dict[VersionKey, KnownReport]
# Of a service that does not learn.
NO_REPORT: Final = KnownReport(Path(), None, None)


class ReportFiles:
    """Reads the reports of one worker's models. Used on the event loop's thread.

    Args:
        registry: The models that are served.
        data: The data directory, or None if the service does not learn.
    """

    def __init__(self, registry: ModelRegistry, data: DataDirectory | None) -> None:
        self._registry: Final = registry
        self._data: Final = data
        self._known: Final[Entries] = {}
        registry.on_change.append(self._prune)

    def find_known(self, served: ServedModel) -> KnownReport | None:
        """Return the newest report of a version's stream if it was read already."""
        if self._data is None:
            return NO_REPORT
        known = self._known.get(served.key)
        return known if known is not None and known.identity == _identify(known.path) else None

    async def report_of(self, served: ServedModel) -> Report | None:
        """Return the newest report of a version's stream; None if there is none."""
        known = self.find_known(served)
        if known is None and self._data is not None:
            path = self._data.stream_folder(*served.key).report
            identity = _identify(path)
            report = None if identity is None else await asyncio.to_thread(read_report, path)
            known = self._known[served.key] = KnownReport(path, identity, report)
        return None if known is None else known.report

    def _prune(self) -> None:
        for key in self._known.keys() - self._registry.now.served.keys():
            del self._known[key]


def _identify(path: Path) -> FileIdentity:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns, status.st_size
