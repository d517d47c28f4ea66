"""`softstep export`: write a learned model as a model version of its own, or any model as ONNX."""

import argparse
from pathlib import Path

from service.commands.replay import replay_stream
from service.console import convert_disk_errors, print_result
from service.errors import ModelNotFoundError, SoftstepError
from service.fields.column_blocks import FieldLimits
from service.learn.event_fold import EventFold
from service.optional_packages import resolve_optional
from service.settings import Settings
from service.store.artifact.artifact import Artifact, write_artifact
from service.store.artifact.artifact_loader import load_artifact
from service.store.artifact.hashing import hash_weights
from service.store.artifact.version_folders import find_versions, new_version_folder
from service.store.directory.data_directory import LOG_NAME
from service.store.directory.offline import open_stored_data
from service.store.log.events import Position, Stream


def run(settings: Settings, arguments: argparse.Namespace) -> int:
    """Return 0 once the version or the file is complete; on an error nothing is written."""
    if arguments.onnx is not None:
        return run_onnx(settings, arguments)
    with open_stored_data(settings, read_only=True) as stored:
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


def run_onnx(settings: Settings, arguments: argparse.Namespace) -> int:
    """Return 0 once the ONNX file is complete; on an error nothing is written."""
    if arguments.directory is not None:
        raise SoftstepError("name either a folder or a file with --onnx; one command writes one of them")
    write_onnx = resolve_optional("service.convert.graphs.graph_file:write_onnx", "softstep export --onnx", "convert")
    artifact, origin = find_model(settings, arguments.model, arguments.seq)
    with convert_disk_errors():
        check = write_onnx(arguments.onnx, artifact)
    fields = {
        **origin,
        "file": str(arguments.onnx),
        "bytes": len(check.raw),
        "weights_sha256": artifact.weights_sha256,
        "rows_compared": check.rows,
        "largest_difference": check.difference,
    }
    state = f"at seq {origin['seq']}" if "seq" in origin else "as it was trained"
    text = (
        f"{arguments.onnx}: {origin['model']}/{origin['version']} {state}\n"
        f"{check.rows} rows compared with onnxruntime, largest difference {check.difference:.2g}"
    )
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
    artifact, weights = export_learned(fold, stream, position, **more)
    with convert_disk_errors():
        folder = new_version_folder(directory)
        write_artifact(folder, artifact)
    return folder, weights


def export_learned(fold: EventFold, stream: Stream, position: Position, **more: str) -> tuple[Artifact, str]:
    """Return a learned model and the hash of its weights; the arguments are those of `write_learned`."""
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
    return state.export_artifact(fold.classes, provenance), weights


def find_model(settings: Settings, name: str, seq: int | None) -> tuple[Artifact, dict[str, object]]:
    """Return a model with what it has learned, or as it was trained if it has learned nothing; and where it is from.

    Args:
        settings: The settings, with the data directory and the models directory.
        name: "model" or "model/version".
        seq: The last event to fold, or None for the last one of all.

    Raises:
        SoftstepError: Neither directory has the model, several of its versions have learned, or it cannot be read.
    """
    if settings.log is not None or (settings.data / LOG_NAME).is_file():
        with open_stored_data(settings, read_only=True) as stored:
            names = {part for stream in stored.log.list_streams() for part in (stream.model, _name_version(stream))}
            if name in names:
                replay = replay_stream(settings, stored, name, seq)
                artifact, _ = export_learned(replay.fold, replay.stream, replay.position)
                model, version = replay.stream.model, str(replay.stream.version)
                return artifact, {"model": model, "version": version, "seq": replay.position.seq}
    if seq is not None:
        raise SoftstepError("the model has learned nothing in the data directory; leave out --seq")
    return find_trained(settings, name)


def find_trained(settings: Settings, name: str) -> tuple[Artifact, dict[str, object]]:
    """Return a version of the models directory, by default the largest one."""
    limits = FieldLimits(settings.fields_max, settings.columns_max, settings.entries_max)
    with convert_disk_errors():
        found, _ = find_versions(settings.models, {})
    model, slash, number = name.partition("/")
    versions = [version for key, version in found if key == model and (not slash or str(version) == number)]
    if not versions:
        raise ModelNotFoundError("neither the data directory nor the models directory has that model")
    version = max(versions)
    artifact = load_artifact(found[model, version].folder, settings.artifact_bytes_max, limits)
    return artifact, {"model": model, "version": str(version)}


def _name_version(stream: Stream) -> str:
    return f"{stream.model}/{stream.version}"
