"""What binds a stream of events to the model that they are about, and to the program that folds them."""

import hashlib
import json
from typing import Final

from service.store.artifact import Artifact
from service.store.hashing import hash_tensors

# Raised by every change of what the fold computes, of a default or of a guard: it changes what every log replays to.
FOLD_VERSION: Final = 1


def genesis(artifact: Artifact) -> bytes:
    """What binds a fold to its artifact and to this program: SHA-256, 32 bytes.

    It covers the tensors, everything in the manifest that a row's meaning or a step depends on, and FOLD_VERSION;
    provenance, metrics and the names of tensors may change.
    """
    manifest = artifact.manifest.model_dump(mode="json", exclude={"provenance", "metrics", "layers", "tensors_sha256"})
    if artifact.manifest.delta is not None:
        manifest["delta"] = {"clip": artifact.manifest.delta.clip}
    bound = {"fold_version": FOLD_VERSION, "manifest": manifest, "tensors": hash_tensors(artifact.tensors.values())}
    return hashlib.sha256(json.dumps(bound, sort_keys=True, ensure_ascii=True).encode()).digest()
