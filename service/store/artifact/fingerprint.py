"""The genesis: the fingerprint that binds a stream of events to its artifact and to the program that folds it."""

import hashlib
import json
from typing import Final

from service.store.artifact.artifact import Artifact
from service.store.artifact.calibration_record import describe_calibration

# Incremented by every change of what the fold computes, of a default or of a guard: it changes what every log replays
# to.
FOLD_VERSION: Final = 2
# The oldest fold that this release still computes to the bit. Streams continue with the fold that they began with, back
# to this one. Version 1 differs in its defaults alone (learning_rules.py).
OLDEST_FOLD_VERSION: Final = 1
# Fields of the manifest that are left out, or that are included in another form.
UNBOUND: Final = {"provenance", "metrics", "layers", "tensors_sha256", "calibration", "mixture", "others", "examples"}


def compute_genesis(artifact: Artifact, fold_version: int | None = None) -> bytes:
    """Return the fingerprint of an artifact and of the fold: SHA-256, 32 bytes.

    It covers the tensors, everything in the manifest that affects the meaning of a row or a step, and the version of
    the fold. Provenance, metrics and examples may change, the names of tensors but those of fields, and which names of
    a row are refused. A field that a later release adds to the manifest must be left out here if it is absent;
    otherwise no stream is recognized. So are the activations and widths of hidden layers, which a linear model does not
    have. Of a calibration its kind, its switch and its current numbers count.

    Args:
        artifact: The artifact that the stream is about.
        fold_version: The version of the release with which the stream began; by default this one's.
    """
    version = FOLD_VERSION if fold_version is None else fold_version
    manifest = artifact.manifest.model_dump(mode="json", exclude=UNBOUND)
    del manifest["fields"]
    if artifact.manifest.fields is not None:
        manifest["fields"] = artifact.manifest.describe_fields()
    elif artifact.manifest.training is not None:
        del manifest["training"]["support"]
    if artifact.manifest.calibration is not None:
        manifest["calibration"] = describe_calibration(artifact.manifest.calibration, artifact.manifest.scaling)
    if artifact.manifest.delta is not None:
        manifest["delta"] = {"clip": artifact.manifest.delta.clip}
    if artifact.manifest.mixture is not None:
        manifest["mixture"] = [tensor.tolist() for tensor in artifact.manifest.mixture.numbers]
    if artifact.manifest.hidden:
        manifest["hidden"] = [
            [layer.activation, artifact.tensors[layer.bias].size] for layer in artifact.manifest.hidden
        ]
    bound = {"fold_version": version, "manifest": manifest, "tensors": artifact.content_sha256}
    return hashlib.sha256(json.dumps(bound, sort_keys=True, ensure_ascii=True).encode()).digest()


def compute_geneses(artifact: Artifact) -> tuple[bytes, ...]:
    """Return the genesis for each fold with which a stream can have begun: this release's first, down to version 1."""
    return tuple(compute_genesis(artifact, version) for version in range(FOLD_VERSION, 0, -1))


def fold_version_of(artifact: Artifact, stream_genesis: bytes) -> int | None:
    """Return the version of the fold with which a stream of this artifact began.

    Returns:
        The version, or None if the stream belongs to another artifact, or a later release began it.
    """
    geneses = compute_geneses(artifact)
    return FOLD_VERSION - geneses.index(stream_genesis) if stream_genesis in geneses else None
