"""The columns of a manifest's fields: whether they are within the limits, and whether rows are dense or sparse.

    dense     at most 4,096 columns and nothing hashed: a row becomes a vector of N numbers, as a row of features is
    sparse    anything else: a row is its columns that are not 0. Such a model is linear, in float32

Everything here is arithmetic on the manifest and on the shapes of its tensors, so a manifest that is refused costs
nothing.
"""

from collections.abc import Mapping
from itertools import pairwise
from typing import Any, Final

from numpy.typing import NDArray

from service.errors import ArtifactError
from service.fields.column_blocks import FieldLimits, is_dense, lay_out_columns
from service.fields.field_records import FIELDS_MAX, Fields
from service.fields.field_types import Sizes, TermField, TermTensors
from service.store.artifact.manifest import Manifest

# N Kp of a sparse model: its weights take 256 MiB, and learning as much again. Kp is K rounded up to 1, 2, 4, 8 or a
# multiple of 16, so that no row of up to 16 weights lies on two cache lines.
SPARSE_WEIGHTS_MAX: Final = 1 << 26
CACHE_LINE_FLOATS: Final = 16
# Limits of the format. Files that a service has accepted are read within these, whatever its settings are now.
WIDEST: Final = FieldLimits(FIELDS_MAX, SPARSE_WEIGHTS_MAX, SPARSE_WEIGHTS_MAX)
SENTENCE_CHARACTERS_MAX: Final = 300


def has_sparse_rows(manifest: Manifest, sizes: Sizes) -> bool:
    """Return whether the rows of a model are sparse.

    Args:
        manifest: The manifest.
        sizes: The shapes of the artifact's tensors by name, which `check_fields` has checked.
    """
    return manifest.fields is not None and not is_dense(manifest.fields, sizes)


def check_fields(manifest: Manifest, sizes: Sizes, limits: FieldLimits) -> None:
    """Raise ArtifactError if fields exceed a limit, do not fit their tensors, or do not fit the rest of the manifest.

    Args:
        manifest: The manifest; nothing is checked if it has no fields.
        sizes: The shapes of the artifact's tensors by name.
        limits: The limits of the fields.
    """
    if manifest.fields is None:
        return
    try:
        lay_out_columns(manifest.fields, sizes, limits)
    except ValueError as error:
        sentence = str(error).encode("ascii", "backslashreplace").decode()
        raise ArtifactError(sentence[:SENTENCE_CHARACTERS_MAX]) from None
    if not is_dense(manifest.fields, sizes):
        _check_sparse(manifest, manifest.count_features(sizes))


def read_terms(fields: Fields, tensors: Mapping[str, NDArray[Any]]) -> dict[str, list[str]]:
    """Return the terms of each field that has them as tensors, by its name."""
    terms = {}
    for field in fields:
        if isinstance(field, TermField) and isinstance(field.terms, TermTensors):
            raw, ends = tensors[field.terms.bytes].tobytes(), [0, *tensors[field.terms.ends].tolist()]
            terms[field.name] = [raw[start:end].decode(errors="replace") for start, end in pairwise(ends)]
    return terms


def _check_sparse(manifest: Manifest, n_columns: int) -> None:
    """Raise ArtifactError if a model cannot take sparse rows."""
    rows = "rows of more than 4,096 columns, or of hashed ones, are sparse"
    if manifest.hidden or manifest.delta is not None or manifest.mixture is not None:
        raise ArtifactError(f"{rows}, and the model must be linear, without hidden layers, delta or mixture")
    if manifest.dtype != "float32":
        raise ArtifactError(f"{rows}, and the dtype of their model must be float32")
    if manifest.learning is not None and manifest.learning.rule in {"newton", "mixture"}:
        raise ArtifactError(f"{rows}, and their model learns by adagrad, ftrl or sgd")
    if n_columns * _padded_outputs(manifest.n_outputs) > SPARSE_WEIGHTS_MAX:
        raise ArtifactError(f"{rows}, and their columns times outputs are limited to {SPARSE_WEIGHTS_MAX}")


def _padded_outputs(n_outputs: int) -> int:
    """Return K rounded up to 1, 2, 4, 8 or a multiple of 16."""
    if n_outputs <= CACHE_LINE_FLOATS // 2:
        return 1 << (n_outputs - 1).bit_length()
    return -(-n_outputs // CACHE_LINE_FLOATS) * CACHE_LINE_FLOATS
