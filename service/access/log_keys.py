"""API keys of a shared log: the fact `api_keys` has the document of key_file.py, and each service keeps a copy of it.

    softstep keys    changes the fact, with the entry of the audit in the same transaction
    the learner      looks at the fact four times a second, and replaces the copy (learn/facts_thread.py)
    each worker      follows the copy as it follows every file of keys (serve/authorization/authorizer.py)

So the keys of the last look count while the database is lost. A document that is damaged leaves the copy as it was.
"""

from contextlib import suppress
from pathlib import Path
from typing import Final

from service.access.audit_log import AuditEntry, encode_entry
from service.access.key_file import FileState, KeyRecord, file_state, parse_document, render_document
from service.access.key_storage import ChangeKeys
from service.errors import ApiKeysError, LogUnavailableError
from service.log_events import logger
from service.settings import Settings
from service.store.filesystem import write_whole_file
from service.store.log.facts_opening import open_facts
from service.store.log.shared_facts import API_KEYS_FACT, SharedFacts

LOG_NAME: Final = "the document of API keys in the log"


def follows_keys(settings: Settings) -> bool:
    """Return whether a service has the keys of its log, and not a file of its own."""
    return settings.log is not None and settings.keys_file is None and settings.learn


class LogKeyStorage:
    """The `KeyStorage` of a shared log.

    Args:
        facts: The facts of the log.
    """

    name = LOG_NAME

    def __init__(self, facts: SharedFacts) -> None:
        self._facts: Final = facts

    def read(self) -> tuple[KeyRecord, ...]:
        """See KeyStorage."""
        return _parse(read_keys_fact(self._facts))

    def change(self, change: ChangeKeys, entry: AuditEntry) -> None:
        """See KeyStorage. Raises LogError too, if the log cannot be used now."""

        def replace(before: bytes | None) -> bytes | None:
            after = change(_parse(before))
            return None if after is None else render_document(after, LOG_NAME)

        self._facts.change(API_KEYS_FACT, replace, encode_entry(entry))


class KeysCopy:
    """The file in which a service keeps the keys of a shared log. One process writes it.

    Args:
        path: The file; its folder exists.
    """

    def __init__(self, path: Path) -> None:
        self._path: Final = path
        self._state: FileState | None = None

    @property
    def is_unchanged(self) -> bool:
        """Whether the file is as `write` has left it."""
        return file_state(self._path) == self._state

    def write(self, document: bytes) -> None:
        """Replace the file unless it has the same keys.

        Args:
            document: The value of the fact.

        Raises:
            ApiKeysError: The document is damaged; the file stays as it was.
            OSError: The disk failed.
        """
        try:
            content = render_document(_parse(document), LOG_NAME, is_copy=True)
            with suppress(FileNotFoundError):
                if self._path.read_bytes() == content:
                    return
            write_whole_file(self._path, [content], durable=True, private=True)
        finally:
            self._state = file_state(self._path)


def copy_keys(settings: Settings, *, can_write: bool) -> bool:
    """Copy the keys at a start; return whether it is known if there are some.

    The copy of an earlier run counts while the log cannot be asked. Without one, the service begins closed.

    Args:
        settings: Of a service that has the keys of its log.
        can_write: Whether the data directory can be written.

    Raises:
        LogUnsafeError: The log cannot be used at all.
    """
    reason = "the data directory cannot be written"
    if can_write and settings.log is not None:
        try:
            with open_facts(settings, settings.log.get_secret_value(), "softstep serve --log") as facts:
                document = read_keys_fact(facts)
            if document is not None:
                KeysCopy(settings.keys_path).write(document)
        except (LogUnavailableError, ApiKeysError) as error:
            reason = str(error)
        except OSError as error:
            reason = f"disk error: {error.strerror}"
        else:
            return True
    has_copy = file_state(settings.keys_path) is not None
    if not has_copy:
        logger.event("keys_unknown", reason=reason)
    return has_copy


def read_keys_fact(facts: SharedFacts) -> bytes | None:
    """Return the document of keys of a shared log, or None if it has none.

    Raises:
        LogError: The log cannot be used now.
    """
    _, document = facts.read_changed({API_KEYS_FACT: 0}).get(API_KEYS_FACT, (0, None))
    return document


def _parse(document: bytes | None) -> tuple[KeyRecord, ...]:
    return () if document is None else parse_document(document, LOG_NAME).keys
