"""`softstep check`: validate the files of one model version."""

import argparse
import sys

from service.errors import ArtifactError
from service.settings import Settings
from service.store.artifact.artifact import read_artifact


def run(settings: Settings, arguments: argparse.Namespace) -> int:
    """Return 0 if the version is valid, 1 if a service would reject it."""
    try:
        artifact = read_artifact(arguments.directory, settings.artifact_bytes_max)
    except ArtifactError as error:
        print(f"invalid: {error}", file=sys.stderr)
        return 1
    manifest = artifact.manifest
    shape = f"{len(manifest.features)} features, {len(manifest.classes)} classes"
    print(f"valid: {manifest.head}, {shape}, weights {artifact.weights_sha256}")
    return 0
