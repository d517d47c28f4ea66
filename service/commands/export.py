"""`softstep export`: write a learned model as a model version of its own."""

import argparse

from service.commands.replay import replay_stream
from service.console import convert_disk_errors, print_result
from service.settings import Settings
from service.store.artifact.artifact import write_artifact
from service.store.artifact.hashing import hash_weights
from service.store.artifact.version_folders import new_version_folder
from service.store.directory.offline import open_stored_data


def run(settings: Settings, arguments: argparse.Namespace) -> int:
    """Return 0 once the version is complete; on an error nothing is written."""
    with open_stored_data(settings.data) as stored:
        replay = replay_stream(settings, stored, arguments.model, arguments.seq)
        stream, position = replay.stream, replay.position
    state = replay.fold.state
    weights = hash_weights(state.candidate_parameters())
    provenance = {
        **state.artifact.manifest.provenance,
        "learned_from": f"{stream.model}/{stream.version}",
        "stream_genesis": stream.genesis.hex(),
        "seq": str(position.seq),
        "event_hash": position.hash.hex(),
        "weights_sha256": weights,
    }
    artifact = state.export_artifact(replay.fold.classes, provenance)
    with convert_disk_errors():
        folder = new_version_folder(arguments.directory)
        write_artifact(folder, artifact)
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
