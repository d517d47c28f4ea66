"""Copy API keys between a data directory and a shared log, for a migration; keys of the target are never replaced."""

from contextlib import suppress
from pathlib import Path

from service.access.audit_log import Action, AuditEntry, append_entry, encode_entry, escape_text
from service.access.key_file import KeysDocument, parse_document, read_keys, render_document, write_keys
from service.access.log_keys import LOG_NAME, read_keys_fact
from service.store.log.shared_facts import API_KEYS_FACT, SharedFacts


def copy_keys_to_log(path: Path, facts: SharedFacts, actor: str) -> int | None:
    """Copy the keys of a file to a log that has none.

    Args:
        path: The file; its name is in the entry of the audit.
        facts: The facts of the log.
        actor: Who copies them.

    Returns:
        The number of keys; None if nothing was copied, because there are none, or the log has keys.

    Raises:
        ApiKeysError: The file is damaged.
        LogError: The log cannot be used now.
        OSError: The file cannot be read.
    """
    source = _read(path)
    if source is None:
        return None
    content, entry = render_document(source.keys, LOG_NAME), AuditEntry(actor, Action.COPY_KEYS, escape_text(str(path)))
    copied = facts.change(API_KEYS_FACT, lambda before: content if before is None else None, encode_entry(entry))
    return None if copied is None else len(source.keys)


def copy_keys_to_file(facts: SharedFacts, path: Path, audit_path: Path, actor: str) -> int | None:
    """Copy the keys of a log to a file that is missing, or is a copy of a log's keys.

    Args:
        facts: The facts of the log.
        path: The file; its name is in the entry of the audit.
        audit_path: The audit log.
        actor: Who copies them.

    Returns:
        As for `copy_keys_to_log`.

    Raises:
        ApiKeysError: The file or the document in the log is damaged.
        LogError: The log cannot be used now.
        OSError: The disk failed.
    """
    document, target = read_keys_fact(facts), _read(path)
    if document is None or (target is not None and target.copy_of is None):
        return None
    keys = parse_document(document, LOG_NAME).keys
    write_keys(path, keys)
    append_entry(audit_path, AuditEntry(actor, Action.COPY_KEYS, escape_text(str(path))))
    return len(keys)


def _read(path: Path) -> KeysDocument | None:
    with suppress(FileNotFoundError):
        return read_keys(path)
    return None
