"""`softstep verify`: verify the feedback log, its chain of hashes, and every file that is derived from it."""

import argparse
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from service.console import Progress, convert_disk_errors, print_error, print_result
from service.errors import SoftstepError
from service.learn.replay import StreamReplay
from service.learn.verify_states import compare_states
from service.settings import Settings
from service.store.directory.offline import StoredData, open_stored_data
from service.store.directory.verify_files import VerifyReport, check_marks, check_shared_states, check_stream
from service.store.log.events import Position, Stream

COLUMNS: Final = "{:24} {:>12} {:>10} {:>12} {:>10} {:>9}  {}"


def run(settings: Settings, arguments: argparse.Namespace) -> int:
    """Return 0 if everything is intact, 1 if something is damaged."""
    with open_stored_data(settings, read_only=True) as stored:
        reports = list(verify_streams(stored, settings, refolds=arguments.refold))
        marks = check_marks(stored)
    if not arguments.json:
        print(COLUMNS.format("stream", "events", "forgotten", "checkpoints", "snapshots", "refolded", "verdict"))
    for report in reports:
        _print_report(report, as_json=arguments.json)
    for sentence in marks:
        print_error(sentence)
    if arguments.json:
        print_result({"marks": "damaged" if marks else "good"}, "", as_json=True)
    return 1 if marks or any(report.damage for report in reports) else 0


def verify_streams(stored: StoredData, settings: Settings, *, refolds: bool) -> list[VerifyReport]:
    """Verify the database file, then each stream; show the progress.

    Raises:
        LogDamagedError: The database file is damaged.
    """
    stored.log.check_file()
    return [_verify_stream(stored, stream, settings, refolds=refolds) for stream in stored.log.list_streams()]


def _verify_stream(stored: StoredData, stream: Stream, settings: Settings, *, refolds: bool) -> VerifyReport:
    report, name = VerifyReport(stream, Position(0, stream.genesis)), f"{stream.model}/{stream.version}"
    total = stored.log.stream_state(stream.number).seq
    progress = Progress(f"verifying {name}", "events")
    for position in check_stream(stored, report, settings):
        progress.update(position.seq, max(total, position.seq))
    with convert_disk_errors(), TemporaryDirectory() as folder:
        check_shared_states(stored, report, Path(folder))
        if refolds and report.artifact is None and not report.damage:
            print_error(f"{name}: neither the log nor the data directory has its artifact, so nothing is folded")
        if refolds and report.artifact is not None and not report.damage:
            for step in compare_states(StreamReplay(stream, report.artifact, stored.log), report):
                progress.update(*step)
    progress.finish()
    return report


def raise_if_damaged(stored: StoredData, settings: Settings) -> None:
    """Raise a SoftstepError that names the first damage, if there is any."""
    damage = [*(one for report in verify_streams(stored, settings, refolds=False) for one in report.damage)]
    damage += check_marks(stored)
    if damage:
        raise SoftstepError(damage[0])


def _print_report(report: VerifyReport, *, as_json: bool) -> None:
    stream = report.stream
    name = f"{stream.model}/{stream.version}"
    counts = {
        "seq": report.position.seq,
        "forgotten": report.forgotten,
        "checkpoints": sum(file.kind != "snapshot" for file in report.intact),
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
    print_result(
        fields, COLUMNS.format(name, *counts.values(), "damaged" if report.damage else "good"), as_json=as_json
    )
    for sentence in report.damage:
        print_error(f"{name}: {sentence}")
