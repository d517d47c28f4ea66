"""A trained model on disk: `models/<name>/<version>/`, a folder with two files. Reading it never runs code.

    file               holds                                                          written
    model.safetensors  the tensors, in the safetensors format                         first
    model.json         the manifest: one UTF-8 JSON object, at most 16 MiB            last: with it the version exists

    manifest field     value                                                          absent means
    format_version     1
    head               "softmax", "sigmoid", "multilabel" or "ovr"
    classes            unique names; sigmoid 2, softmax and ovr >= 2, multilabel >= 1
    features           N unique names, in the order of a row
    dtype              "float32" or "float64": of every tensor, and of the arithmetic
    layers             [{weight, bias, activation}]: two tensor names, and what follows; hidden layers
                       first, each "relu", "sigmoid" or "tanh", and last the head's, "identity"
    thresholds         multilabel only: for each class, the p in [0, 1] that names it  0.5 each
    stage              {mean [N], scale [N] > 0, clip > 0 or none}: done to a row first  rows are taken raw
    training           {rows >= 1, mean [N], scale [N] > 0}: what was trained on       unknown
    delta              {weight, clip > 0}: a tensor name; what learning has added,     nothing was added
                       on features standardised by `training` and cut to [-clip, clip];
                       not beside hidden layers
    learning           {rule, constants {name: number}}                               chosen by size
    calibration        {kind, learn, numbers by name}: done to the logits, calibration.py nothing is done
    provenance         {name: text}                                                   {}
    metrics            {name: number}                                                 {}
    tensors_sha256     64 hexadecimal digits: SHA-256 of model.safetensors

    tensor             shape     K is
    weight             (N, K)    of the head's layer 1 for the sigmoid head, else the number of classes
    bias               (K,)      (hidden layers and the delta: tensors.py)

What always holds of an `Artifact`, whether read or made: the tensors are exactly those that the manifest names, of that
shape and dtype; every number is finite; the arrays are its own, C-contiguous, aligned and read-only.
"""

import hashlib
import json
import os
import secrets
import shutil
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import MappingProxyType

import safetensors.numpy

from service.errors import ArtifactError
from service.store.artifact.hashing import hash_tensors
from service.store.artifact.manifest import (
    FORMAT_VERSION,
    LayerRecord,
    LearningRecord,
    Manifest,
    StageRecord,
    TrainingRecord,
    dump_manifest,
    parse_manifest,
)
from service.store.artifact.tensors import Array, checked_copies, parse_tensors
from service.store.filesystem import make_folder

__all__ = [
    "MANIFEST_NAME",
    "TENSORS_NAME",
    "Artifact",
    "LayerRecord",
    "LearningRecord",
    "Manifest",
    "StageRecord",
    "TrainingRecord",
    "read_artifact",
    "write_artifact",
]

MANIFEST_NAME = "model.json"
TENSORS_NAME = "model.safetensors"
# Names and four statistics of some 150,000 features; a larger manifest is refused before it is read.
MANIFEST_BYTES_MAX = 16 << 20


@dataclass(frozen=True, eq=False)
class Artifact:
    """A trained model in memory, immutable.

    Attributes:
        manifest: All that is known about it.
        tensors: Each tensor by its name, in manifest order; own read-only copies, C-contiguous.

    Raises:
        ArtifactError: The tensors are not what the manifest says, or hold a number that is not finite.
    """

    manifest: Manifest
    tensors: Mapping[str, Array]

    def __post_init__(self) -> None:
        object.__setattr__(self, "tensors", MappingProxyType(checked_copies(self.manifest, self.tensors)))

    @classmethod
    def from_fields(cls, fields: Mapping[str, object], tensors: Mapping[str, Array]) -> "Artifact":
        """Makes an artifact from the manifest's fields, adding `format_version` and `tensors_sha256`.

        Args:
            fields: The other fields of the manifest as plain Python values, the way `json.load` gives them.
            tensors: Each tensor by its name, in the dtype that the fields name.

        Returns:
            The artifact, ready for `write_artifact`.

        Raises:
            ArtifactError: The fields are no manifest, or the tensors do not agree with them.
        """
        unsealed = {"format_version": FORMAT_VERSION, **fields, "tensors_sha256": "0" * 64}
        artifact = cls(parse_manifest(json.dumps(unsealed).encode()), tensors)
        return cls(_sealed(artifact.manifest, _tensor_bytes(artifact)), artifact.tensors)

    @property
    def weights(self) -> Array:
        """The weight matrix of the head's layer, (N, K), feature-major, read-only."""
        return self.tensors[self.manifest.layers[-1].weight]

    @property
    def bias(self) -> Array:
        """The bias of the head's layer, (K,), read-only."""
        return self.tensors[self.manifest.layers[-1].bias]

    @property
    def n_features(self) -> int:
        """The number N of features of a row."""
        return self.manifest.n_features

    @cached_property
    def weights_sha256(self) -> str:
        """The hash of the tensors in manifest order: weight and bias, layer by layer, delta's weight, calibration."""
        return hash_tensors([*self.tensors.values(), *self.manifest.numbers])


def read_artifact(directory: Path, bytes_max: int) -> Artifact:
    """Reads and verifies one artifact.

    Args:
        directory: The folder that holds `model.json` and `model.safetensors`.
        bytes_max: Largest size of `model.safetensors`; a larger file is refused before it is read.

    Returns:
        The artifact; it shares no memory with the files.

    Raises:
        ArtifactError: Anything at all is wrong; the message is one sentence that says what. Its cause is an `OSError`
            where the system, not the content, is the reason.
    """
    manifest = parse_manifest(_read_file(directory, MANIFEST_NAME, MANIFEST_BYTES_MAX))
    raw = _read_file(directory, TENSORS_NAME, bytes_max)
    if hashlib.sha256(raw).hexdigest() != manifest.tensors_sha256:
        raise ArtifactError("model.safetensors is not the file that tensors_sha256 in model.json names")
    return Artifact(manifest, parse_tensors(raw, manifest))


def write_artifact(directory: Path, artifact: Artifact) -> None:
    """Writes one artifact so that a reader sees all of it or none, also after a power cut.

    A new version appears by one rename of its folder. In a folder that exists the tensors are replaced first and the
    manifest last; between the two a reader refuses the pair by its checksum, and looks again.

    Args:
        directory: The version's folder; its parents are made where they are missing.
        artifact: What to write; `tensors_sha256` is computed anew.

    Raises:
        OSError: The disk refuses. What was there before still stands, at worst with new tensors beside an old manifest.
    """
    raw = _tensor_bytes(artifact)
    manifest = _sealed(artifact.manifest, raw)
    make_folder(directory.parent)
    # Beside the target, so that the rename stays within one file system; scans skip names with a leading dot.
    temporary = directory.parent / f".{directory.name}.{secrets.token_hex(8)}"
    temporary.mkdir()
    try:
        _write_file(temporary / TENSORS_NAME, raw)
        _write_file(temporary / MANIFEST_NAME, dump_manifest(manifest))
        _move_into_place(temporary, directory)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _tensor_bytes(artifact: Artifact) -> bytes:
    return safetensors.numpy.save(dict(artifact.tensors))


def _sealed(manifest: Manifest, tensor_bytes: bytes) -> Manifest:
    return manifest.model_copy(update={"tensors_sha256": hashlib.sha256(tensor_bytes).hexdigest()})


def _move_into_place(temporary: Path, directory: Path) -> None:
    _sync_folder(temporary)
    if directory.exists():
        for name in (TENSORS_NAME, MANIFEST_NAME):
            (temporary / name).replace(directory / name)
            _sync_folder(directory)
    else:
        temporary.rename(directory)
    _sync_folder(directory.parent)


def _write_file(path: Path, raw: bytes) -> None:
    with path.open("wb") as file:
        file.write(raw)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _read_file(directory: Path, name: str, bytes_max: int) -> bytes:
    """The whole content of one file of the folder, or an ArtifactError that names the file."""
    try:
        path = (directory / name).resolve(strict=True)
        # Kubernetes mounts files as links within their folder; a link out of it could show any file of the machine.
        if not path.is_relative_to(directory.resolve(strict=True)):
            raise ArtifactError(f"{name} is a link that leads out of its folder")
        # Opening a named pipe would wait for a writer; with O_NONBLOCK it does not, and is refused below.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            return _read_all(descriptor, name, bytes_max)
        finally:
            os.close(descriptor)
    except FileNotFoundError:
        raise ArtifactError(f"{name} is missing") from None
    except (OSError, RuntimeError) as error:  # RuntimeError: a loop of links, before Python 3.13
        reason = error.strerror if isinstance(error, OSError) else "its links form a loop"
        raise ArtifactError(f"{name} cannot be read: {reason}") from error


def _read_all(descriptor: int, name: str, bytes_max: int) -> bytes:
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        raise ArtifactError(f"{name} is not a regular file")
    if status.st_size > bytes_max:
        raise ArtifactError(f"{name} has {status.st_size} bytes, more than the limit of {bytes_max}")
    chunks, left = [], status.st_size + 1  # one byte more than expected tells a file that grows
    while left and (chunk := os.read(descriptor, left)):
        chunks.append(chunk)
        left -= len(chunk)
    if left != 1:
        raise ArtifactError(f"{name} changed while it was read")
    return b"".join(chunks)
