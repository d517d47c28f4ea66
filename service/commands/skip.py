"""`softstep skip`: make the fold leave out an event at which it fails. The service may be running."""

import argparse
import time

from service.access.audit_log import Action
from service.command_audit import record_command
from service.console import print_result
from service.errors import LogFullError, RefusedError
from service.settings import Settings
from service.store.directory.offline import find_stream, open_stored_data
from service.store.log.admin_payloads import dump_seq
from service.store.log.events import COMMAND, Draft, Kind
from service.store.log.ids import new_id


def run(settings: Settings, arguments: argparse.Namespace) -> int:
    """Return 0 once the SKIP event is on disk; a retry with the same id finds that event."""
    id_ = new_id() if arguments.id is None else arguments.id.encode()
    with open_stored_data(settings) as stored:
        stream = find_stream(stored.log, arguments.model)
        payload, now_ms = dump_seq(arguments.seq), time.time_ns() // 1_000_000
        (outcome,) = stored.log.append([Draft(stream.number, Kind.SKIP, id_, payload, now_ms, actor=COMMAND)])
        if isinstance(outcome, RefusedError | LogFullError):
            raise outcome
        if not outcome.duplicate:
            name = f"{stream.model}/{stream.version}"
            record_command(settings, Action.SKIP, name, arguments.seq, stored.log.facts)
    fields = {
        "model": stream.model,
        "version": str(stream.version),
        "id": id_.decode(),
        "seq": outcome.seq,
        "duplicate": outcome.duplicate,
    }
    text = f"{stream.model}/{stream.version}: event {arguments.seq} is skipped, by event {outcome.seq}"
    print_result(fields, text, as_json=arguments.json)
    return 0
