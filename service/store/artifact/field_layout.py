"""The columns of a manifest's fields: whether they are within the limits, and whether rows are dense or sparse.

    dense     at most 4,096 columns and nothing hashed: a row becomes a vector of N numbers, as a row of features is
    sparse    anything else: a row is its columns that are not 0. Such a model is linear, in float32

Everything here is arithmetic on the manifest and on the shapes of its tensors, so a manifest that is refused costs
nothing.
"""

from typing import Final

from service.errors import ArtifactError
from service.fields.column_blocks import FieldLimits, is_dense, lay_out_columns
from service.fields.field_list import FIELDS_MAX
from service.fields.field_types import Sizes
from service.softmax.sparse_weights import SPARSE_WEIGHTS_MAX, padded_width
from service.store.artifact.manifest import Manifest
from service.store.artifact.reasons import shorten_reason

# Limits of the format. Files that a service has accepted are read within these, whatever its settings are now.
WIDEST: Final = FieldLimits(FIELDS_MAX, SPARSE_WEIGHTS_MAX, SPARSE_WEIGHTS_MAX)


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
        raise ArtifactError(shorten_reason(str(error))) from None
    if not is_dense(manifest.fields, sizes):
        _check_sparse(manifest, manifest.count_features(sizes))


def _check_sparse(manifest: Manifest, n_columns: int) -> None:
    """Raise ArtifactError if a model cannot take sparse rows."""
    rows = "rows of more than 4,096 columns, or of hashed ones, are sparse"
    if manifest.hidden or manifest.delta is not None or manifest.mixture is not None:
        raise ArtifactError(f"{rows}, and the model must be linear, without hidden layers, delta or mixture")
    if manifest.dtype != "float32":
        raise ArtifactError(f"{rows}, and the dtype of their model must be float32")
    if manifest.learning is not None and manifest.learning.rule in {"newton", "mixture"}:
        raise ArtifactError(f"{rows}, and their model learns by adagrad, ftrl or sgd")
    if n_columns * padded_width(manifest.n_outputs) > SPARSE_WEIGHTS_MAX:
        raise ArtifactError(f"{rows}, and their model has at most {SPARSE_WEIGHTS_MAX} weights")
