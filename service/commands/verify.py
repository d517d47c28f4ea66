"""`softstep verify`: hold everything that a data directory keeps against the log, and the log against its chain."""

import argparse
from typing import Final

from service.console import Progress, complain, tell
from service.errors import SoftstepError
from service.learn.replay import StreamReplay
from service.learn.verify_states import compare_states
from service.settings import Settings
from service.store.directory.offline import StoredData, open_stored_data
from service.store.directory.verify_files import VerifyReport, check_marks, check_stream
from service.store.log.events import Position

COLUMNS: Final = "{:24} {:>12} {:>10} {:>12} {:>10} {:>9}  {}"


def run(settings: Settings, arguments: argparse.Namespace) -> int:
    """0 where all is well, 1 where something is damaged."""
    with open_stored_data(settings.data) as found:
        reports = list(verify_streams(found, settings.artifact_bytes_max, refolds=arguments.refold))
        marks = check_marks(found)
    if not arguments.json:
        print(COLUMNS.format("stream", "events", "forgotten", "checkpoints", "snapshots", "refolded", "verdict"))
    for report in reports:
        _tell(report, as_json=arguments.json)
    for sentence in marks:
        complain(sentence)
    if arguments.json:
        tell({"marks": "damaged" if marks else "good"}, "", as_json=True)
    return 1 if marks or any(report.damage for report in reports) else 0


def verify_streams(found: StoredData, bytes_max: int, *, refolds: bool) -> list[VerifyReport]:
    """Check the file, then each stream; shows how far it is.

    Raises:
        LogDamagedError: The database is not what SQLite wrote.
    """
    found.log.check_file()
    reports = []
    for stream in found.log.list_streams():
        report = VerifyReport(stream, Position(0, stream.genesis))
        total = found.log.stream_state(stream.number).seq
        progress = Progress(f"verifying {stream.model}/{stream.version}", "events")
        for position in check_stream(found, report, bytes_max):
            progress.at(position.seq, max(total, position.seq))
        if refolds and report.artifact is not None and not report.damage:
            for done in compare_states(StreamReplay(stream, report.artifact, found.log), report):
                progress.at(*done)
        progress.end()
        reports.append(report)
    return reports


def raise_if_damaged(found: StoredData, bytes_max: int) -> None:
    """Raises SoftstepError with the first thing that is damaged."""
    damage = [*(one for report in verify_streams(found, bytes_max, refolds=False) for one in report.damage)]
    damage += check_marks(found)
    if damage:
        raise SoftstepError(damage[0])


def _tell(report: VerifyReport, *, as_json: bool) -> None:
    stream = report.stream
    name = f"{stream.model}/{stream.version}"
    counts = {
        "seq": report.position.seq,
        "forgotten": report.forgotten,
        "checkpoints": sum(file.kind == "checkpoint" for file in report.intact),
        "snapshots": sum(file.kind == "snapshot" for file in report.intact),
        "refolded": report.refolded,
    }
    fields = {
        "model": stream.model,
        "version": str(stream.version),
        "hash": report.position.hash.hex(),
        **counts,
        "outdated": report.outdated,
        "damage": report.damage,
    }
    tell(fields, COLUMNS.format(name, *counts.values(), "damaged" if report.damage else "good"), as_json=as_json)
    for sentence in report.damage:
        complain(f"{name}: {sentence}")
