"""`softstep keys`: create, list, rotate and revoke API keys. A running service follows within a second.

The keys are in a file, or in a shared log if one is named and no file is. The log has the audit of its keys too.

A new key is all that is written to standard output, so that a script can keep it; with `--json` it is a member of an
object. What a key permits goes to standard error.
"""

import argparse
import stat
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, Final

import orjson

from service.access.audit_log import decode_note
from service.access.key_file import KeyRecord, LimitsRecord, utc_now
from service.access.key_storage import FileKeyStorage
from service.access.key_store import KeyStore, NewKey
from service.access.log_keys import LogKeyStorage
from service.command_audit import command_actor, record_entry
from service.console import convert_disk_errors, print_error, print_result
from service.errors import ApiKeysError
from service.settings import Settings
from service.store.log.facts_opening import open_facts
from service.store.log.shared_facts import SharedFacts

Run = Callable[[KeyStore, argparse.Namespace], int]

COMMAND: Final = "softstep keys"
# Notes of the audit that are read at once.
NOTES_AT_ONCE: Final = 1000
HEADINGS: Final = ("id", "name", "state", "scopes", "models", "created", "expires", "limits")


def run(settings: Settings, arguments: argparse.Namespace) -> int:
    """Run one of the commands on the API keys; return 0, or raise an error if nothing is changed."""
    address = _log_address(settings, arguments)
    if address is not None:
        with open_facts(settings, address, COMMAND) as facts:
            if arguments.action == "audit":
                return _print_audit(facts)
            return RUNS[arguments.action](KeyStore(LogKeyStorage(facts), command_actor()), arguments)
    if arguments.action == "audit":
        raise ApiKeysError(f"what is done to keys in a file is in the audit log, {settings.audit_path.name}; read that")
    path: Path = arguments.keys_file or settings.keys_path
    store = KeyStore(FileKeyStorage(path, partial(record_entry, settings)), command_actor())
    code = RUNS[arguments.action](store, arguments)
    if arguments.action == "list":
        _warn_of_readers(path)
    return code


def _log_address(settings: Settings, arguments: argparse.Namespace) -> str | None:
    """Return the address of the log that has the keys, or None for those of a file; options come before settings."""
    has_file = arguments.keys_file is not None or (settings.keys_file is not None and arguments.log is None)
    return None if has_file or settings.log is None else settings.log.get_secret_value()


def _create(store: KeyStore, arguments: argparse.Namespace) -> int:
    limits = LimitsRecord(**{name: getattr(arguments, name) for name in LimitsRecord.model_fields})
    with convert_disk_errors():
        new = store.create(arguments.name, arguments.scopes, arguments.model_patterns, arguments.expires, limits)
        is_first = len(store.read()) == 1
    _print_new(new, as_json=arguments.json)
    if is_first:
        print_error("this is the first key; from now on every call needs one")
    return 0


def _rotate(store: KeyStore, arguments: argparse.Namespace) -> int:
    with convert_disk_errors():
        new = store.rotate(arguments.id, arguments.overlap, arguments.expires)
    _print_new(new, as_json=arguments.json)
    ends = [secret.expires for secret in new.record.secrets[:-1]]
    print_error(f"the old key is valid until {_moment(ends[0])}" if ends else "the old key is refused from now on")
    return 0


def _revoke(store: KeyStore, arguments: argparse.Namespace) -> int:
    with convert_disk_errors():
        record = store.revoke(arguments.id)
    text = f"{arguments.id} was revoked before" if record is None else f"{arguments.id} is revoked"
    print_result({"id": arguments.id, "revoked": True, "changed": record is not None}, text, as_json=arguments.json)
    return 0


def _list(store: KeyStore, arguments: argparse.Namespace) -> int:
    with convert_disk_errors():
        records = store.read()
    if arguments.json:
        for record in records:
            print_result(_members(record), "", as_json=True)
        return 0
    for line in _table([HEADINGS, *map(_cells, records)]):
        print_result({}, line, as_json=False)
    return 0


def _print_audit(facts: SharedFacts) -> int:
    """Print the audit of a shared log, one JSON object a line."""
    last = 0
    while notes := facts.read_notes(last, NOTES_AT_ONCE):
        for note in notes:
            print_result({}, orjson.dumps(decode_note(note)).decode(), as_json=False)
        last = notes[-1].number
    return 0


def _warn_of_readers(path: Path) -> None:
    """Print a warning if others can read the file of keys, or change it."""
    with convert_disk_errors(), suppress(FileNotFoundError):
        if path.stat().st_mode & (stat.S_IROTH | stat.S_IWOTH):
            print_error("every user of this machine can read or change the file of API keys; chmod it to 600")


def _print_new(new: NewKey, *, as_json: bool) -> None:
    """Write a new key, and to standard error what it permits."""
    print_result({"key": new.key.text, **_members(new.record)}, new.key.text, as_json=as_json)
    scopes = " and ".join(new.record.scopes)
    models = ", ".join(new.record.models or ["all models"])
    end = new.record.secrets[-1].expires
    until = "without an end" if end is None else f"until {_moment(end)}"
    print_error(f"key {new.key.id} permits {scopes} for {models}, {until}; it is shown only this once")


def _members(record: KeyRecord) -> dict[str, Any]:
    """Return the members that describe a key; never a digest."""
    members = record.model_dump(mode="json", exclude={"secrets": {"__all__": {"sha256"}}})
    return {**members, "state": _state(record)}


def _state(record: KeyRecord) -> str:
    """Return whether a key is accepted: "live", "rotating" (with two secrets), "expired" or "revoked"."""
    if record.revoked is not None:
        return "revoked"
    live = sum(secret.end > utc_now().timestamp() for secret in record.secrets)
    return ("expired", "live", "rotating")[live]


def _cells(record: KeyRecord) -> tuple[str, ...]:
    """Return the row of a key in the table."""
    limits = record.limits.model_dump(exclude_none=True)
    ends = [_moment(secret.expires) for secret in record.secrets]
    return (
        record.id,
        record.name,
        _state(record),
        ",".join(record.scopes),
        "*" if record.models is None else ",".join(record.models),
        _moment(record.created),
        ", ".join(ends) or "-",
        " ".join(f"{name}={amount:g}" for name, amount in limits.items()) or "-",
    )


def _moment(moment: datetime | None) -> str:
    """Return a time for people, in the time zone that the file has it in; commands write UTC."""
    return "never" if moment is None else moment.isoformat(" ", "minutes")


def _table(rows: Iterable[tuple[str, ...]]) -> list[str]:
    """Return lines with aligned columns, whose control characters are escaped."""
    escaped = [[cell if cell.isprintable() else ascii(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*escaped, strict=True)]
    return ["  ".join(map(str.ljust, row, widths)).rstrip() for row in escaped]


RUNS: Final[Mapping[str, Run]] = {"create": _create, "list": _list, "rotate": _rotate, "revoke": _revoke}
