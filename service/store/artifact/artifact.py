"""A trained model on disk: `models/<name>/<version>/`, a folder with two files. Reading it never runs code.

    file               contents                                                       written
    model.safetensors  the tensors, in the safetensors format                         first
    model.json         the manifest: one UTF-8 JSON object, at most 16 MiB            last: with it the version exists
    card.md, card-*    for readers of a trained model; never read by a service        before the tensors, if at all

    manifest field     value                                                          if absent
    format_version     1, or 2 with a mixture or with fields
    head               "softmax", "sigmoid", "multilabel" or "ovr"
    classes            unique names; sigmoid 2, softmax and ovr >= 2, multilabel >= 1
    features           N unique names, in the order of a row; not with fields
    fields             the fields of a row: fields/field_records.py; not with features    features
    others             with fields: "refuse" or "ignore" names in a row that are no field  "refuse"
    dtype              "float32" or "float64": of every tensor but those of fields, and of
                       the arithmetic
    layers             [{weight, bias, activation}]: two tensor names and the activation; hidden
                       layers first, each "relu", "sigmoid" or "tanh"; the head's last, "identity"
    thresholds         multilabel only: for each class, the p in [0, 1] that names it  0.5 each
    stage              {mean [N], scale [N] > 0, clip > 0 or none}: applied to a row   raw rows are used
                       before the weights
    training           {rows >= 1, mean [N], scale [N] > 0}: statistics of training   unknown
                       rows; with fields {rows, support: tensor name or none}
    delta              {weight, clip > 0}: a tensor name; what learning has added,     nothing was added
                       on features standardized by `training` and cut to [-clip, clip];
                       not with hidden layers
    mixture            {features, base, linear or none, stage: tensor names; weights,     no mixture
                       random_features, seed}: experts that were learned; softmax and
                       sigmoid without hidden layers only, mixture_model.py
    learning           {rule, constants {name: number}}                               chosen for the model
    calibration        {kind, learn, numbers by name}: applied to the logits,          logits are used
                       calibration_record.py                                           as they are
    examples           with fields: [{row, probabilities}], at most 16; every load     none
                       computes them again
    provenance         {name: text}                                                   {}
    metrics            {name: number}                                                 {}
    tensors_sha256     64 hexadecimal digits: SHA-256 of model.safetensors

    tensor             shape     K is
    weight             (N, K)    of the head's layer 1 for the sigmoid head, else the number of classes
    bias               (K,)      (hidden layers, the delta and the fields: tensors.py)

With fields N is the number of their columns. Invariants of an `Artifact`, whether read or made: the tensors are exactly
those that the manifest names, of that shape and dtype; every number is finite; the arrays are not shared, C-contiguous,
aligned and read-only.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import MappingProxyType

import safetensors.numpy

from service.errors import ArtifactError
from service.fields.column_blocks import FieldLimits
from service.fields.column_names import list_column_names
from service.fields.object_plan import CrowdedNamesError, ObjectPlan
from service.fields.row_encoder import RowEncoder
from service.softmax.sparse_weights import SparseWeights
from service.store.artifact.artifact_folder import (
    MANIFEST_BYTES_MAX,
    MANIFEST_NAME,
    TENSORS_NAME,
    require_no_version,
    write_version,
)
from service.store.artifact.bounded_read import read_bounded
from service.store.artifact.field_layout import WIDEST, has_sparse_rows
from service.store.artifact.hashing import hash_tensors
from service.store.artifact.manifest import Manifest
from service.store.artifact.manifest_json import dump_manifest, manifest_from_fields, parse_manifest
from service.store.artifact.reasons import shorten_reason
from service.store.artifact.tensors import Array, checked_copies, parse_tensors


@dataclass(frozen=True, eq=False)
class Artifact:
    """A trained model in memory, immutable.

    Attributes:
        manifest: Everything about the model but its tensors.
        tensors: Each tensor by its name, in manifest order; read-only copies, C-contiguous.
        limits: The limits of the fields and of their rows.

    Raises:
        ArtifactError: The tensors contradict the manifest, or have a number that is not finite; or the fields exceed a
            limit.
    """

    manifest: Manifest
    tensors: Mapping[str, Array]
    limits: FieldLimits = WIDEST

    def __post_init__(self) -> None:
        copies = checked_copies(self.manifest, self.tensors, self.limits)
        object.__setattr__(self, "tensors", MappingProxyType(copies))

    @classmethod
    def from_fields(
        cls, fields: Mapping[str, object], tensors: Mapping[str, Array], limits: FieldLimits = WIDEST
    ) -> "Artifact":
        """Make an artifact of the fields of a manifest without `format_version` and `tensors_sha256`, which are added.

        Args:
            fields: The other fields of the manifest as plain Python values, as `json.load` returns them. None counts
                as absent. `features` may also be the number of features, whose names are then feature_0, feature_1
                and so on. One of them may be `fields`, the list of the fields of a row.
            tensors: Each tensor by its name, in the dtype that the fields name.
            limits: The limits of the fields of a row.

        Raises:
            ArtifactError: The fields are not a valid manifest, or the tensors contradict them.
        """
        artifact = cls(manifest_from_fields(fields), tensors, limits)
        return _with_encoder(cls(_with_checksum(artifact.manifest, _tensor_bytes(artifact)), artifact.tensors, limits))

    @property
    def weights(self) -> Array:
        """The weight matrix of the head's layer, (N, K), feature-major, read-only."""
        return self.tensors[self.manifest.layers[-1].weight]

    @property
    def bias(self) -> Array:
        """The bias of the head's layer, (K,), read-only."""
        return self.tensors[self.manifest.layers[-1].bias]

    @property
    def sparse_weights(self) -> SparseWeights:
        """The weights and the bias of a model of sparse rows, copied."""
        return SparseWeights.from_matrix(self.weights, self.bias)

    @property
    def weight_tensors(self) -> dict[str, Array]:
        """The tensors that learning changes, by name: those of the layers, the delta and the mixture."""
        return {name: self.tensors[name] for name in self.manifest.weight_names}

    @property
    def fixed_tensors(self) -> dict[str, Array]:
        """The other tensors, by name: the support and those of the fields."""
        return {name: self.tensors[name] for name in self.manifest.fixed_names}

    @cached_property
    def n_features(self) -> int:
        """The number N of features of a row, or of the columns of all fields."""
        return self.manifest.count_features(self._sizes)

    @cached_property
    def has_sparse_rows(self) -> bool:
        """Whether a row is its columns that are not 0: there are more than 4,096 columns, or some are hashed."""
        return has_sparse_rows(self.manifest, self._sizes)

    @cached_property
    def column_names(self) -> tuple[str, ...]:
        """The names of the numbers of a row: its features, or the columns of its fields; empty if rows are sparse."""
        fields = self.manifest.fields
        if fields is None:
            return self.manifest.features or ()
        encoder = self.row_encoder
        return () if encoder is None or self.has_sparse_rows else list_column_names(fields, encoder.terms)

    @cached_property
    def row_encoder(self) -> RowEncoder | None:
        """The encoder of rows with fields; None if a row is its features.

        Raises:
            ArtifactError: Numbers or terms of a field cannot be used.
        """
        manifest = self.manifest
        if manifest.fields is None:
            return None
        tensors = {name: self.tensors[name] for field in manifest.fields for name in field.tensor_specs({})}
        try:
            return RowEncoder(manifest.fields, tensors, self.limits, manifest.others or "refuse")
        except ArtifactError as error:
            raise ArtifactError(shorten_reason(str(error))) from None

    @cached_property
    def object_plan(self) -> ObjectPlan | None:
        """The encoder of single rows from the text of a body, for one thread only; None if there is none."""
        try:
            return None if self.row_encoder is None else ObjectPlan(self.row_encoder)
        except CrowdedNamesError:
            return None

    @property
    def _sizes(self) -> dict[str, tuple[int, ...]]:
        return {name: tensor.shape for name, tensor in self.tensors.items()}

    @cached_property
    def content_sha256(self) -> str:
        """The hash of all tensors, in manifest order."""
        return hash_tensors(self.tensors.values())

    @cached_property
    def weights_sha256(self) -> str:
        """The hash of the function that the artifact computes, as `hash_weights` makes it.

        The tensors are in manifest order: weight and bias, layer by layer, the delta's weight unless it is all zeros,
        the numbers of a mixture, and the calibration. Fields are no part of it, because they make the row.
        """
        delta = self.manifest.delta
        tensors = [
            tensor
            for name, tensor in self.weight_tensors.items()
            if delta is None or name != delta.weight or tensor.any()
        ]
        return hash_tensors([*tensors, *self.manifest.numbers])


def read_artifact(directory: Path, bytes_max: int, limits: FieldLimits = WIDEST) -> Artifact:
    """Read and verify one artifact, which shares no memory with its files.

    Args:
        directory: The folder with `model.json` and `model.safetensors`.
        bytes_max: Largest size of `model.safetensors`; a larger file is refused before it is read.
        limits: The limits of the fields.

    Raises:
        ArtifactError: Anything is wrong; the message is one sentence that names it. Its cause is an `OSError` if the
            system refused, and not the content is wrong.
    """
    manifest = parse_manifest(read_bounded(directory, MANIFEST_NAME, MANIFEST_BYTES_MAX))
    return _parse(manifest, read_bounded(directory, TENSORS_NAME, bytes_max), limits)


def decode_artifact(files: Mapping[str, bytes]) -> Artifact:
    """Verify the files of an artifact, by name, and return it; the inverse of `encode_artifact`.

    Raises:
        ArtifactError: As for `read_artifact`.
    """
    return _parse(parse_manifest(files[MANIFEST_NAME]), files[TENSORS_NAME], WIDEST)


def write_artifact(
    directory: Path, artifact: Artifact, *, overwrite: bool = False, further: Mapping[str, bytes] | None = None
) -> None:
    """Write one artifact as `write_version` does; its `tensors_sha256` is computed again.

    Args:
        directory: The version's folder; missing parents are created.
        artifact: The artifact.
        overwrite: Whether to replace a version that is there; what it has learned stays bound to its old files.
        further: Further files of the folder by name, such as a card for its readers; no service reads them.

    Raises:
        ArtifactExistsError: The folder has a version, maybe since a moment ago, and `overwrite` is false.
        OSError: The disk failed. The old version is still there, at worst with new tensors beside its manifest.
    """
    if not overwrite:
        require_no_version(directory)
    write_version(directory, {**(further or {}), **encode_artifact(artifact)}, overwrite=overwrite)


def encode_artifact(artifact: Artifact) -> dict[str, bytes]:
    """Return the files of an artifact by name, the manifest last."""
    raw = _tensor_bytes(artifact)
    return {TENSORS_NAME: raw, MANIFEST_NAME: dump_manifest(_with_checksum(artifact.manifest, raw))}


def _parse(manifest: Manifest, raw: bytes, limits: FieldLimits) -> Artifact:
    """Return the artifact of a manifest and the bytes of its tensor file."""
    if hashlib.sha256(raw).hexdigest() != manifest.tensors_sha256:
        raise ArtifactError("model.safetensors is not the file that tensors_sha256 in model.json names")
    return _with_encoder(Artifact(manifest, parse_tensors(raw, manifest, limits), limits))


def _with_encoder(artifact: Artifact) -> Artifact:
    """Return an artifact whose encoder is made, which verifies the numbers and the terms of its fields."""
    artifact.row_encoder  # noqa: B018  # cached
    return artifact


def _tensor_bytes(artifact: Artifact) -> bytes:
    return safetensors.numpy.save(dict(artifact.tensors))


def _with_checksum(manifest: Manifest, tensor_bytes: bytes) -> Manifest:
    return manifest.model_copy(update={"tensors_sha256": hashlib.sha256(tensor_bytes).hexdigest()})
