"""The interface of what the machines of a shared log agree on: facts, and which of them are there.

    a fact    a name and bytes. One that never changes is added by the first that needs it; others have a version
    a note    an entry of the log's audit, committed in one transaction with the change that it is about

    api_keys  changes: the document of API keys (access/key_file.py)
    models    changes: which models are unloaded (process/unload_list.py)
    others    never change: the keys of feedback tokens (directory/keyfile.py)

A log in a data directory needs none of this.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Final, NamedTuple, Protocol

API_KEYS_FACT: Final = "api_keys"
MODELS_FACT: Final = "models"
# Of a fact that changes. Of a longer value, readers get one byte more than this, so that they can refuse it.
FACT_BYTES_MAX: Final = 8 << 20

Change = Callable[[bytes | None], bytes | None]
"""Returns the new value of a fact, or None to leave it, from the value that it has, or None for none."""


class Replica(NamedTuple):
    """One machine that serves or learns from a shared log.

    Attributes:
        name: Its name.
        seconds: Since when it was not seen, by the log's clock.
        erased: By the number of each stream, how many FORGET events it has erased the rows of from its files.
        role: "all", "worker" or "learner", as in settings.py.
        halted: The numbers of streams that it cannot fold further now.
    """

    name: str
    seconds: float
    erased: Mapping[int, int]
    role: str = "all"
    halted: frozenset[int] = frozenset()


class Note(NamedTuple):
    """An entry of the audit of a shared log.

    Attributes:
        number: Notes are ordered by it; those of one fact have the order of its changes.
        time_ms: When it was written, in milliseconds since 1970, by the log's clock.
        content: What the writer gave.
    """

    number: int
    time_ms: int
    content: bytes


class SharedFacts(Protocol):
    """Facts of a shared log. One thread at a time uses an object.

    All methods raise LogUnavailableError if the log cannot be used now.
    """

    def read_or_add(self, name: str, value: bytes) -> bytes:
        """Return a fact that never changes by its name; `value` becomes it if there is none yet."""

    def read_changed(self, known: Mapping[str, int]) -> dict[str, tuple[int, bytes]]:
        """Return the version and the value of the facts that have another version than the caller knows.

        Args:
            known: The version that the caller has of each fact that it asks for, by name; 0 for none. A fact that does
                not exist is never returned.
        """

    def change(self, name: str, change: Change, note: bytes | None = None) -> bytes | None:
        """Change a fact, and return its new value once as many nodes as an append needs have it.

        Args:
            name: The name of the fact.
            change: Has no effects, because it is called again if another change comes first. What it raises is raised
                here, and nothing is changed. It returns at most FACT_BYTES_MAX bytes.
            note: An entry of the audit, which is written if the fact is changed.

        Returns:
            The new value, or None if `change` has left the fact as it is. Then the value it has is on as many nodes.

        Raises:
            OutcomeUnknownError: The change may be made or not, or is not on enough nodes.
        """

    def add_note(self, note: bytes) -> None:
        """Add an entry to the audit, once as many nodes as an append needs have it.

        Raises:
            OutcomeUnknownError: It may be added or not.
        """

    def read_notes(self, after: int, limit: int) -> list[Note]:
        """Return the notes with the next numbers above `after`, at most `limit`."""

    def report_replica(
        self, name: str, erased: Mapping[int, int], role: str = "all", halted: Iterable[int] = ()
    ) -> None:
        """Note that a replica is there now; the arguments are the attributes of `Replica`."""

    def list_replicas(self) -> list[Replica]:
        """Return all replicas that were seen within the last day."""
