"""Record in the audit log what a command has done, and who ran it; a log that replicas share has its own audit."""

import os
import pwd

from service.access.audit_log import Action, AuditEntry, append_entry, encode_entry, escape_text
from service.console import print_error
from service.errors import LogError
from service.settings import Settings
from service.store.log.shared_facts import SharedFacts


def record_command(
    settings: Settings, action: Action, object_: str, seq: int | None = None, facts: SharedFacts | None = None
) -> None:
    """Append what a command has done to the audit log; if that fails, print a warning.

    Args:
        settings: The audit log.
        action: What was done.
        object_: To what.
        seq: The event that is skipped, if one is.
        facts: Those of a log that replicas share, whose audit gets the entry.
    """
    entry = AuditEntry(command_actor(), action, escape_text(object_), seq=seq)
    if facts is None:
        record_entry(settings, entry)
        return
    try:
        facts.add_note(encode_entry(entry))
    except LogError as error:
        print_error(f"this is done, but the audit of the log cannot be written: {error}")


def record_entry(settings: Settings, entry: AuditEntry) -> None:
    """Append an entry to the audit log; if that fails, print a warning."""
    try:
        append_entry(settings.audit_path, entry)
    except OSError as error:
        print_error(f"this is done, but the audit log cannot be written: {error.strerror}")


def command_actor() -> str:
    """Return the actor of a command: the operating system's user, by number if it has no name, as in a container."""
    try:
        return f"user:{pwd.getpwuid(os.getuid()).pw_name}"
    except KeyError:
        return f"user:{os.getuid()}"
