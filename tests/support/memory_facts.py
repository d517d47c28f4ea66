"""Facts of a shared log in memory."""

import threading
import time
from collections.abc import Iterable, Mapping

from service.store.log.shared_facts import FACT_BYTES_MAX, Change, Note, Replica


class MemoryFacts:
    """`SharedFacts` in memory, which threads may share."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._versions: dict[str, int] = {}
        self._values: dict[str, bytes] = {}
        self._notes: list[Note] = []
        self._replicas: dict[str, Replica] = {}

    def read_or_add(self, name: str, value: bytes) -> bytes:
        """See SharedFacts."""
        return self._values.setdefault(name, value)

    def read_changed(self, known: Mapping[str, int]) -> dict[str, tuple[int, bytes]]:
        """See SharedFacts."""
        with self._lock:
            return {
                name: (self._versions[name], self._values[name][: FACT_BYTES_MAX + 1])
                for name, version in known.items()
                if self._versions.get(name, version) != version
            }

    def change(self, name: str, change: Change, note: bytes | None = None) -> bytes | None:
        """See SharedFacts."""
        with self._lock:
            after = change(self._values.get(name))
            if after is not None:
                self._values[name] = after
                self._versions[name] = self._versions.get(name, 0) + 1
                if note is not None:
                    self.add_note(note)
        return after

    def add_note(self, note: bytes) -> None:
        """See SharedFacts."""
        self._notes.append(Note(len(self._notes) + 1, int(time.time() * 1000), note))

    def read_notes(self, after: int, limit: int) -> list[Note]:
        """See SharedFacts."""
        return [note for note in self._notes if note.number > after][:limit]

    def report_replica(
        self, name: str, erased: Mapping[int, int], role: str = "all", halted: Iterable[int] = ()
    ) -> None:
        """See SharedFacts."""
        self._replicas[name] = Replica(name, 0.0, dict(erased), role, frozenset(halted))

    def list_replicas(self) -> list[Replica]:
        """See SharedFacts."""
        return sorted(self._replicas.values())
