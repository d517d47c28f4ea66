"""`softstep check`: validate the files of one model version."""

import argparse
import sys

from service.errors import ArtifactError
from service.fields.column_blocks import FieldLimits
from service.settings import Settings
from service.store.artifact.artifact_loader import load_artifact


def run(settings: Settings, arguments: argparse.Namespace) -> int:
    """Return 0 if the version is valid, 1 if a service would reject it."""
    try:
        limits = FieldLimits(settings.fields_max, settings.columns_max, settings.entries_max)
        artifact = load_artifact(arguments.directory, settings.artifact_bytes_max, limits)
    except ArtifactError as error:
        print(f"invalid: {error}", file=sys.stderr)
        return 1
    manifest = artifact.manifest
    inputs = f"{artifact.n_features} features"
    if manifest.fields is not None:
        inputs = f"{len(manifest.fields)} fields, {artifact.n_features} columns"
    shape = f"{inputs}, {len(manifest.classes)} classes"
    print(f"valid: {manifest.head}, {shape}, weights {artifact.weights_sha256}")
    return 0
