"""`softstep check`: verify one model version and say what is wrong with it."""

import argparse
import sys

from service.errors import ArtifactError
from service.settings import Settings
from service.store.artifact.artifact import read_artifact


def run(settings: Settings, arguments: argparse.Namespace) -> int:
    """0 for a good version, 1 for one that would be refused."""
    try:
        artifact = read_artifact(arguments.directory, settings.artifact_bytes_max)
    except ArtifactError as reason:
        print(f"refused: {reason}", file=sys.stderr)
        return 1
    manifest = artifact.manifest
    shape = f"{len(manifest.features)} features, {len(manifest.classes)} classes"
    print(f"good: {manifest.head}, {shape}, weights {artifact.weights_sha256}")
    return 0
