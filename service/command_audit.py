"""Record in the audit log what a command has done, and who ran it."""

import os
import pwd

from service.access.audit_log import Action, AuditEntry, append_entry
from service.console import print_error
from service.settings import Settings


def record_command(settings: Settings, action: Action, object_: str, seq: int | None = None) -> None:
    """Append what a command has done to the audit log; if that fails, print a warning."""
    shown = os.fsencode(object_).decode(errors="backslashreplace")  # a path may be no UTF-8
    entry = AuditEntry(f"user:{_user_name()}", action, shown, seq=seq)
    try:
        append_entry(settings.audit_path, entry)
    except OSError as error:
        print_error(f"this is done, but the audit log cannot be written: {error.strerror}")


def _user_name() -> str:
    """Return the name of the operating system's user, or the number of one without a name, as in a container."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())
