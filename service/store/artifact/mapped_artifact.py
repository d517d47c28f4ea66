"""An artifact of sparse rows whose tensors are read from arrays that all processes map.

    base (N + 1, Kp)   the weights, the bias first; see softmax/sparse_weights.py
    tensor.<name>      each tensor that learning leaves as it is: the support, and those of fields

So a process has no copy of them. The tensor W (N, K) is a copy, made when it is read, unless K = Kp.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from service.softmax.sparse_weights import SparseWeights
from service.store.artifact.artifact import Artifact
from service.store.artifact.tensors import Array

BASE: Final = "base"
PREFIX: Final = "tensor."

Arrays = Mapping[str, NDArray[Any]]


def mapped_arrays(artifact: Artifact) -> dict[str, NDArray[Any]]:
    """Return the arrays of an artifact of sparse rows, as `MappedArtifact` takes them."""
    fixed = {PREFIX + name: tensor for name, tensor in artifact.fixed_tensors.items()}
    return {BASE: artifact.sparse_weights.base, **fixed}


class MappedArtifact(Artifact):
    """An artifact whose tensors are in arrays that it does not copy.

    Args:
        artifact: An equal artifact, which is not kept.
        arrays: The arrays that `mapped_arrays` returned for it, read-only.
    """

    def __init__(self, artifact: Artifact, arrays: Arrays) -> None:
        manifest, weights = artifact.manifest, SparseWeights(arrays[BASE], artifact.manifest.n_outputs)
        # The base class is a frozen dataclass, whose own constructor would copy the tensors.
        self.__dict__.update(
            manifest=manifest,
            tensors=_MappedTensors(manifest.weight_names, manifest.tensor_names, weights, arrays),
            limits=artifact.limits,
            n_features=artifact.n_features,
            has_sparse_rows=artifact.has_sparse_rows,
            content_sha256=artifact.content_sha256,
            weights_sha256=artifact.weights_sha256,
            _weights=weights,
        )

    @property
    def sparse_weights(self) -> SparseWeights:
        """The weights and the bias, not copied."""
        weights: SparseWeights = self.__dict__["_weights"]
        return weights


class _MappedTensors(Mapping[str, Array]):
    """The tensors of a `MappedArtifact` by name, in manifest order, read-only."""

    def __init__(
        self, weight_names: tuple[str, ...], names: tuple[str, ...], weights: SparseWeights, arrays: Arrays
    ) -> None:
        self._weight, self._bias = weight_names
        self._names: Final = names
        self._weights: Final = weights
        self._arrays: Final = arrays

    def __getitem__(self, name: str) -> Array:
        if name not in {self._weight, self._bias}:
            return self._arrays[PREFIX + name]
        rows = self._weights.base[:, : self._weights.n_logits]
        tensor = np.ascontiguousarray(rows[1:] if name == self._weight else rows[0])
        tensor.setflags(write=False)
        return tensor

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)
