"""`softstep keys`: create, list, rotate and revoke API keys. A running service follows within a second.

A new key is all that is written to standard output, so that a script can keep it; with `--json` it is a member of an
object. What a key permits goes to standard error.
"""

import argparse
import stat
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import Any, Final

from service.access.audit_log import Action
from service.access.key_file import KeyRecord, LimitsRecord, utc_now
from service.access.key_store import KeyStore, NewKey
from service.command_audit import record_command
from service.console import convert_disk_errors, print_error, print_result
from service.settings import Settings

Run = Callable[[KeyStore, Settings, argparse.Namespace], int]

HEADINGS: Final = ("id", "name", "state", "scopes", "models", "created", "expires", "limits")


def run(settings: Settings, arguments: argparse.Namespace) -> int:
    """Run one of the commands on the file of API keys; return 0, or raise an error if nothing is changed."""
    runs: Mapping[str, Run] = {"create": _create, "list": _list, "rotate": _rotate, "revoke": _revoke}
    return runs[arguments.action](KeyStore(arguments.keys_file or settings.keys_path), settings, arguments)


def _create(store: KeyStore, settings: Settings, arguments: argparse.Namespace) -> int:
    limits = LimitsRecord(**{name: getattr(arguments, name) for name in LimitsRecord.model_fields})
    with convert_disk_errors():
        new = store.create(arguments.name, arguments.scopes, arguments.model_patterns, arguments.expires, limits)
        is_first = len(store.read()) == 1
    record_command(settings, Action.CREATE_KEY, new.key.id)
    _print_new(new, as_json=arguments.json)
    if is_first:
        print_error("this is the first key; from now on every call needs one")
    return 0


def _rotate(store: KeyStore, settings: Settings, arguments: argparse.Namespace) -> int:
    with convert_disk_errors():
        new = store.rotate(arguments.id, arguments.overlap, arguments.expires)
    record_command(settings, Action.ROTATE_KEY, new.key.id)
    _print_new(new, as_json=arguments.json)
    ends = [secret.expires for secret in new.record.secrets[:-1]]
    print_error(f"the old key is valid until {_moment(ends[0])}" if ends else "the old key is refused from now on")
    return 0


def _revoke(store: KeyStore, settings: Settings, arguments: argparse.Namespace) -> int:
    with convert_disk_errors():
        record = store.revoke(arguments.id)
    if record is not None:
        record_command(settings, Action.REVOKE_KEY, record.id)
    text = f"{arguments.id} was revoked before" if record is None else f"{arguments.id} is revoked"
    print_result({"id": arguments.id, "revoked": True, "changed": record is not None}, text, as_json=arguments.json)
    return 0


def _list(store: KeyStore, _settings: Settings, arguments: argparse.Namespace) -> int:
    with convert_disk_errors():
        records = store.read()
        mode = store.path.stat().st_mode if records else 0
    if mode & (stat.S_IROTH | stat.S_IWOTH):
        print_error("every user of this machine can read or change the file of API keys; chmod it to 600")
    if arguments.json:
        for record in records:
            print_result(_members(record), "", as_json=True)
        return 0
    for line in _table([HEADINGS, *map(_cells, records)]):
        print_result({}, line, as_json=False)
    return 0


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
