"""The audit log: who changed the keys, what is served, or what is stored; one JSON object a line, only appended.

    {"time":"2026-11-29T09:04:10.870+00:00","actor":"key:k7m2q9xd","action":"unload","object":"iris","outcome":"done",
     "request_id":"r-17"}

    time        when it was done, in UTC
    actor       a principal's (principal.py), "anyone" in a service without keys, or "user:<name>" who ran a command
    action      a name of `Action`
    object      the id of a key, the file of keys that are copied, a model, a model and its version, or the folder of a
                backup
    outcome     "done", or the code of an error
    seq         the event that is skipped, if one is
    request_id  the X-Request-Id of the call, if it had one

A log that machines share has an audit of its own, of changes that all of them follow: the same objects, whose time is
that of the database (store/log/shared_facts.py).

The file is locked while a line is written and synced, so lines of several processes do not mix. A line that a crash or
a full disk has cut short stays alone: the next one begins with a line break.
The file is opened for each line, so it may be renamed at any time.
"""

import fcntl
import os
from datetime import UTC, datetime
from enum import StrEnum
from errno import ENOSPC
from pathlib import Path
from typing import Any, Final, NamedTuple

import orjson

from service.store.filesystem import make_folder, open_private_file
from service.store.log.shared_facts import Note

DONE: Final = "done"


class Action(StrEnum):
    """A kind of change that is recorded."""

    CREATE_KEY = "create_key"
    ROTATE_KEY = "rotate_key"
    REVOKE_KEY = "revoke_key"
    COPY_KEYS = "copy_keys"
    LOAD = "load"
    UNLOAD = "unload"
    RESTORE = "restore"
    PURGE = "purge"
    SKIP = "skip"


class AuditEntry(NamedTuple):
    """One line of the audit log, without its time; None for what it does not have."""

    actor: str
    action: Action
    object: str
    outcome: str = DONE
    seq: int | None = None
    request_id: str | None = None


def append_entry(path: Path, entry: AuditEntry) -> None:
    """Append an entry to an audit log, which is made if it is missing; return when it is on disk.

    Raises:
        OSError: The disk failed.
    """
    line = orjson.dumps({"time": _format_time(datetime.now(UTC)), **_members(entry)}) + b"\n"
    make_folder(path.parent)
    descriptor = open_private_file(path, os.O_RDWR | os.O_APPEND)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)  # the end of the file is looked at; closing the file unlocks it
        size = os.fstat(descriptor).st_size
        if size and os.pread(descriptor, 1, size - 1) != b"\n":
            line = b"\n" + line
        if os.write(descriptor, line) < len(line):
            raise OSError(ENOSPC, os.strerror(ENOSPC))
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def encode_entry(entry: AuditEntry) -> bytes:
    """Return an entry as JSON without its time, as the audit of a shared log has it."""
    return orjson.dumps(_members(entry))


def decode_note(note: Note) -> dict[str, Any]:
    """Return the members of the line of a note; `damaged` is true if it is not that of an entry."""
    members: dict[str, Any] = {"time": _format_time(datetime.fromtimestamp(note.time_ms / 1000, UTC))}
    try:
        members |= orjson.loads(note.content)
    except (TypeError, ValueError):  # no JSON, or no object
        members["damaged"] = True
    return members


def escape_text(text: str) -> str:
    """Return the text of an argument of a command, whose bytes that are no UTF-8 are escaped."""
    return os.fsencode(text).decode(errors="backslashreplace")


def _members(entry: AuditEntry) -> dict[str, Any]:
    return {name: value for name, value in entry._asdict().items() if value is not None}


def _format_time(moment: datetime) -> str:
    return moment.isoformat(timespec="milliseconds")
