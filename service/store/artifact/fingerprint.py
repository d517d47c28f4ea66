"""What binds a stream of events to the model that they are about, and to the program that folds them."""

import hashlib
import json
from typing import Final

from service.store.artifact.artifact import Artifact
from service.store.artifact.calibration_record import describe_calibration
from service.store.artifact.hashing import hash_tensors

# Raised by every change of what the fold computes, of a default or of a guard: it changes what every log replays to.
FOLD_VERSION: Final = 1
# Fields of the manifest that bind nothing, or not as they stand.
UNBOUND: Final = {"provenance", "metrics", "layers", "tensors_sha256", "calibration"}


def compute_genesis(artifact: Artifact, fold_version: int | None = None) -> bytes:
    """What binds a fold to its artifact and to its program: SHA-256, 32 bytes.

    It covers the tensors, everything in the manifest that a row's meaning or a step depends on, and the version of the
    fold; provenance, metrics and the names of tensors may change. What a later release adds to the manifest must be
    left out here where it is absent, or no stream is known again; so are the activations and widths of hidden layers,
    of which a linear model has none. A calibration counts by its kind, its switch and the numbers that it has.

    Args:
        artifact: What the stream is about.
        fold_version: That of the release with which the stream began; this one's where it is None.
    """
    version = FOLD_VERSION if fold_version is None else fold_version
    manifest = artifact.manifest.model_dump(mode="json", exclude=UNBOUND)
    if artifact.manifest.calibration is not None:
        manifest["calibration"] = describe_calibration(artifact.manifest.calibration, artifact.manifest.scaling)
    if artifact.manifest.delta is not None:
        manifest["delta"] = {"clip": artifact.manifest.delta.clip}
    if artifact.manifest.hidden:
        manifest["hidden"] = [
            [layer.activation, artifact.tensors[layer.bias].size] for layer in artifact.manifest.hidden
        ]
    bound = {"fold_version": version, "manifest": manifest, "tensors": hash_tensors(artifact.tensors.values())}
    return hashlib.sha256(json.dumps(bound, sort_keys=True, ensure_ascii=True).encode()).digest()


def compute_geneses(artifact: Artifact) -> tuple[bytes, ...]:
    """The genesis by each fold that a stream of this artifact may have begun with: this release's first, down to 1."""
    return tuple(compute_genesis(artifact, version) for version in range(FOLD_VERSION, 0, -1))


def fold_version_of(artifact: Artifact, stream_genesis: bytes) -> int | None:
    """The version of the fold with which a stream of this artifact began; None where it is another artifact's.

    It is None too for a stream that a later release began.
    """
    known = compute_geneses(artifact)
    return FOLD_VERSION - known.index(stream_genesis) if stream_genesis in known else None
