"""`softstep train`: train a model on a file of rows, and write it as the next version."""

import argparse
import json
import sys
from pathlib import Path
from typing import Final

from service.console import convert_disk_errors
from service.errors import ArtifactExistsError, TrainingError
from service.fields.column_blocks import FieldLimits
from service.settings import Settings
from service.store.artifact.artifact import Artifact, write_artifact
from service.store.artifact.artifact_folder import MANIFEST_BYTES_MAX
from service.store.artifact.version_folders import MODEL_NAME, next_version_folder
from service.store.filesystem import write_whole_file
from service.train.card import write_card
from service.train.field_table import print_fields
from service.train.trained_artifact import make_artifact
from service.train.training import PreparedTable, fit_model, prepare_table
from service.train.training_options import TrainingOptions
from service.train.training_report import ConsoleReport

FIELDS_FILE: Final = "fields.json"
# Attempts to write the next version, while other trainings of the same model write theirs.
WRITES_MAX: Final = 8


def run(settings: Settings, arguments: argparse.Namespace) -> int:
    """Return 0 once the version is complete; on an error nothing is written."""
    if arguments.name is None and not arguments.dry_run:
        raise TrainingError("name the model with --name, or only look with --dry-run")
    if arguments.name is not None and MODEL_NAME.fullmatch(arguments.name) is None:
        raise TrainingError("a name has 1 to 64 of a-z, 0-9, '.', '_' and '-', the first a letter or digit")
    options = TrainingOptions.from_arguments(arguments)
    with convert_disk_errors():
        given = None if arguments.fields is None else read_fields(arguments.fields)
        with ConsoleReport() as report:
            prepared = prepare_table(options, given, report)
        print_fields(prepared)
        if arguments.dry_run:
            write_fields(prepared)
            return 0
        _train(settings, options, prepared, settings.models / arguments.name)
    return 0


def read_fields(path: Path) -> object:
    """Return the content of a file of fields.

    Raises:
        TrainingError: It is no JSON, or too large.
        OSError: It cannot be read.
    """
    if path.stat().st_size > MANIFEST_BYTES_MAX:
        raise TrainingError(f"the file of fields has more than {MANIFEST_BYTES_MAX} bytes")
    try:
        given: object = json.loads(path.read_text("utf-8-sig"))
    except (ValueError, RecursionError):
        raise TrainingError("the file of fields is no JSON") from None
    return given


def write_fields(prepared: PreparedTable) -> None:
    """Write the fields into the current directory, to be edited; a file that exists is replaced."""
    fields = ",\n".join(f"  {json.dumps(spec, ensure_ascii=False)}" for spec in prepared.specs)
    left_out = json.dumps(prepared.left_out, ensure_ascii=False)
    content = f'{{"fields": [\n{fields}],\n"left_out": {left_out}}}\n'
    write_whole_file(Path(FIELDS_FILE), [content.encode()], durable=False)
    sys.stdout.write(f"\nwrote {FIELDS_FILE}: edit it, and pass it as --fields {FIELDS_FILE}\n")


def _write_version(model: Path, artifact: Artifact, card: dict[str, bytes]) -> Path:
    """Write the next version of a model, and return its folder.

    Raises:
        ArtifactError: Other processes write versions of the model all the time.
        OSError: The disk failed.
    """
    for attempt in range(1, WRITES_MAX + 1):
        folder = next_version_folder(model.parent, model.name)
        try:
            write_artifact(folder, artifact, further=card)
        except ArtifactExistsError:
            if attempt == WRITES_MAX:
                raise
        else:
            break
    return folder


def _train(settings: Settings, options: TrainingOptions, prepared: PreparedTable, model: Path) -> None:
    """Fit the model, write the version and print its metrics."""
    limits = FieldLimits(settings.fields_max, settings.columns_max, settings.entries_max)
    with ConsoleReport() as report:
        fitted = fit_model(prepared, options, limits, report)
    artifact, evaluation = make_artifact(prepared, fitted, options, limits)
    card = write_card(model.name, prepared, fitted, artifact, evaluation)
    folder = _write_version(model, artifact, card)
    metrics = "  ".join(f"{name} {value:.6g}" for name, value in artifact.manifest.metrics.items())
    sys.stdout.write(f"\n{metrics or 'no rows are held out'}\nwrote {folder}\n")
