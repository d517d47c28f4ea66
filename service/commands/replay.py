"""`softstep replay`: fold a model's events anew, from its artifact, and hold the published state against that."""

import argparse
from contextlib import suppress
from pathlib import Path
from typing import Any

from service.console import Progress, disk_errors, tell
from service.errors import SnapshotError
from service.learn.publish import snapshot_contents
from service.learn.replay import StreamReplay
from service.settings import Settings
from service.store.directory.offline import StoredData, find_stream, open_stored_data, read_bound_artifact
from service.store.states.snapshots import read_snapshot, write_snapshot


def run(settings: Settings, arguments: argparse.Namespace) -> int:
    """0 where the state could be folded and no published one differs, else 1."""
    with open_stored_data(settings.data) as found:
        replay = replay_stream(settings, found, arguments.model, arguments.seq)
        fields, arrays = snapshot_contents(replay.fold, replay.position_fields())
        folder = found.data.stream_folder(replay.stream.model, replay.stream.version).snapshots
        verdict = _compared(folder / str(replay.seq), fields)
    if arguments.keep is not None:
        with disk_errors():
            write_snapshot(arguments.keep, replay.seq, fields, arrays, durable=True)
    progress = fields["progressive"]
    told = {
        "model": replay.stream.model,
        "version": str(replay.stream.version),
        "seq": replay.seq,
        "hash": fields["hash"],
        "epoch": fields["epoch"],
        "weights_sha256": fields["weights_sha256"],
        **{name: progress[name] for name in ("events", "unfit_events", "rows", "loss", "accuracy")},
        "published": verdict,
    }
    text = (
        f"{told['model']}/{told['version']} at seq {told['seq']}: {told['events']} events, {told['rows']} rows, "
        f"loss {told['loss']:.6f}, accuracy {told['accuracy']:.4f}\nweights {told['weights_sha256']}"
    )
    if verdict is not None:
        text += f"\nthe published state is {verdict}"
    tell(told, text, as_json=arguments.json)
    return 1 if verdict == "different" else 0


def replay_stream(settings: Settings, found: StoredData, name: str, seq: int | None) -> StreamReplay:
    """The fold of a stream, by its name, at a seq or at its last one; shows how far it is."""
    stream = find_stream(found.log, name)
    folder = found.data.stream_folder(stream.model, stream.version)
    replay = StreamReplay(stream, read_bound_artifact(folder, stream, settings.artifact_bytes_max), found.log)
    progress = Progress("replaying", "events")
    for done in replay.fold_to(replay.last if seq is None else seq):
        progress.at(*done)
    progress.end()
    return replay


def _compared(path: Path, fields: dict[str, Any]) -> str | None:
    """Whether a published snapshot says the same: "equal" or "different", or None where there is none."""
    with suppress(SnapshotError):
        snapshot = read_snapshot(path)
        names = ("genesis", "hash", "weights_sha256", "classes")
        return "equal" if all(snapshot.fields.get(name) == fields[name] for name in names) else "different"
    return None
