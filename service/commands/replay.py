"""`softstep replay`: fold a model's events again, from its artifact, and compare the result with what is published."""

import argparse
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from service.console import Progress, convert_disk_errors, print_result
from service.errors import SnapshotError
from service.learn.history_replay import HistoryReplay
from service.learn.publish import snapshot_contents
from service.learn.replay import ReplayProgress, StreamReplay
from service.settings import Settings
from service.store.directory.offline import StoredData, find_stream, open_stored_data
from service.store.directory.stream_artifact import read_stream_artifact
from service.store.states.report import read_report
from service.store.states.served_state import as_whole, describe_progress, served_sha256
from service.store.states.snapshots import Fields, read_snapshot, write_snapshot


def run(settings: Settings, arguments: argparse.Namespace) -> int:
    """Return 0 if the state could be made and no published one differs, else 1."""
    with open_stored_data(settings, read_only=True) as stored:
        replay = open_replay(settings, stored, arguments.model)
        folder = stored.data.stream_folder(replay.stream.model, replay.stream.version)
        report = read_report(folder.report)
        if arguments.seq is None:
            follow_progress(replay.fold_history(replay.lineage.newest_base_seq if report is None else report.start))
        else:
            follow_progress(replay.fold_to(arguments.seq))
        fields, arrays = snapshot_contents(replay.fold, replay.position_fields())
        verdict = compare_published(read_published(folder.snapshots / str(replay.seq)), fields)
        history = None if replay.history is None else replay.history.sha256()
        same_history = None
        if history is not None and report is not None and report.seq == replay.seq:
            same_history = "equal" if report.history_sha256 == history else "different"
    if arguments.keep is not None:
        with convert_disk_errors():
            write_snapshot(arguments.keep, replay.seq, fields, arrays, durable=True)
    progress = describe_progress(fields["progressive"])
    result = {
        "model": replay.stream.model,
        "version": str(replay.stream.version),
        "seq": replay.seq,
        "hash": fields["hash"],
        "epoch": fields["epoch"],
        "weights_sha256": served_sha256(replay.fold.state.served_parameters(), fields),
        **{name: progress[name] for name in ("events", "unfit_events", "rows", "loss", "accuracy")},
        "published": verdict,
        "history_sha256": history,
        "published_history": same_history,
    }
    means = f", loss {result['loss']:.6f}, accuracy {result['accuracy']:.4f}" if result["rows"] else ""
    text = (
        f"{result['model']}/{result['version']} at seq {result['seq']}: {result['events']} events, "
        f"{result['rows']} rows{means}\n"
        f"weights {result['weights_sha256']}"
    )
    if verdict is not None:
        text += f"\nthe published state is {verdict}"
    if history is not None:
        text += f"\nhistory {history}"
    if same_history is not None:
        text += f"\nthe published history is {same_history}"
    print_result(result, text, as_json=arguments.json)
    return 1 if "different" in {verdict, same_history} else 0


def replay_stream(settings: Settings, stored: StoredData, name: str, seq: int | None) -> StreamReplay:
    """Replay a stream by its name up to a seq, or to its last one if that is None; show the progress."""
    replay = open_replay(settings, stored, name)
    follow_progress(replay.fold_to(replay.last if seq is None else seq))
    return replay


def follow_progress(steps: Iterator[ReplayProgress]) -> None:
    """Take all steps of a replay, and show the progress."""
    progress = Progress("replaying", "events")
    for step in steps:
        progress.update(*step)
    progress.finish()


def open_replay(settings: Settings, stored: StoredData, name: str) -> HistoryReplay:
    """Return a replay of a stream by its name."""
    stream = find_stream(stored.log, name)
    return HistoryReplay(stream, read_stream_artifact(stored, stream, settings), stored.log)


def read_published(path: Path) -> Fields | None:
    """Return the fields of a published snapshot, or None if it is missing or damaged."""
    with suppress(SnapshotError, KeyError, ValueError):
        return as_whole(read_snapshot(path)).fields
    return None


def compare_published(published: Fields | None, fields: Fields) -> str | None:
    """Return "equal" or "different" for the fields of a published snapshot and of a replay; None without a snapshot."""
    if published is None:
        return None
    names = ("genesis", "hash", "weights_sha256", "classes")
    return "equal" if all(published.get(name) == fields[name] for name in names) else "different"
