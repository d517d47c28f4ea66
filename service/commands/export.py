"""`softstep export`: write a learned model as a model version of its own."""

import argparse
from pathlib import Path

from service.commands.replay import replay_stream
from service.console import convert_disk_errors, print_result
from service.learn.event_fold import EventFold
from service.settings import Settings
from service.store.artifact.artifact import write_artifact
from service.store.artifact.hashing import hash_weights
from service.store.artifact.version_folders import new_version_folder
from service.store.directory.offline import open_stored_data
from service.store.log.events import Position, Stream


def run(settings: Settings, arguments: argparse.Namespace) -> int:
    """Return 0 once the version is complete; on an error nothing is written."""
    with open_stored_data(settings.data, read_only=True) as stored:
        replay = replay_stream(settings, stored, arguments.model, arguments.seq)
        stream, position = replay.stream, replay.position
    folder, weights = write_learned(arguments.directory, replay.fold, stream, position)
    fields = {
        "model": stream.model,
        "version": str(stream.version),
        "seq": position.seq,
        "directory": str(folder),
        "weights_sha256": weights,
    }
    text = f"{folder}: {stream.model}/{stream.version} at seq {position.seq}\nweights {weights}"
    print_result(fields, text, as_json=arguments.json)
    return 0


def write_learned(
    directory: Path, fold: EventFold, stream: Stream, position: Position, **more: str
) -> tuple[Path, str]:
    """Write a learned model as a version; return its folder and the hash of its weights.

    Args:
        directory: The folder to create, or a model's folder.
        fold: The state.
        stream: The stream that it learned from.
        position: The last event of the state.
        more: Further entries of the provenance.
    """
    state = fold.state
    weights = hash_weights(state.candidate_parameters())
    provenance = {
        **state.artifact.manifest.provenance,
        "learned_from": f"{stream.model}/{stream.version}",
        "stream_genesis": stream.genesis.hex(),
        "seq": str(position.seq),
        "event_hash": position.hash.hex(),
        "weights_sha256": weights,
        **more,
    }
    artifact = state.export_artifact(fold.classes, provenance)
    with convert_disk_errors():
        folder = new_version_folder(directory)
        write_artifact(folder, artifact)
    return folder, weights
