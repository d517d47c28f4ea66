"""Add to a converted model the statistics of the rows that its source was trained on.

They decide how firm the weights are when the model learns (docs/rules.md):

    with fields    the number of rows, and the support: the sum of the squares of each column
    features       the number of rows, and the mean and the scale of each feature, unless the source knows them
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, Final

import numpy as np

from service.convert.converted_model import ConvertedModel, Doubles, Row
from service.convert.proof import model_encoder
from service.errors import ConversionError, InputError
from service.fields.row_encoder import RowEncoder
from service.softmax.sparse_rows import SparseRows

# Rows that are encoded at once; one call has a limit of entries.
ROWS_AT_ONCE: Final = 256


def add_training_rows(model: ConvertedModel, rows: Sequence[Row], total: int | None = None) -> ConvertedModel:
    """Return a converted model with the statistics of its training rows.

    Args:
        model: The model.
        rows: B >= 1 rows that its source was trained on, all of them or a sample.
        total: The number of all rows that its source was trained on, or None for B. The support of a sample is
            multiplied by total / B.

    Raises:
        ConversionError: A row is no row of the model.
        ArtifactError: The model cannot be served.
    """
    total = total or len(rows)
    if model.fields is None:
        known = model.training or _describe_features(model, rows)
        return replace(model, training={**known, "rows": total})
    encoder = model_encoder(model)
    support = np.zeros(encoder.n_columns)
    for block in _encode_blocks(encoder, rows):
        np.add.at(support, block.columns, block.values**2)
    return replace(model, training={"rows": total}, support=support * (total / len(rows)))


def _encode_blocks(encoder: RowEncoder, rows: Sequence[Row]) -> Iterator[SparseRows]:
    for first in range(0, len(rows), ROWS_AT_ONCE):
        try:
            yield encoder.encode_objects(rows[first : first + ROWS_AT_ONCE]).rows
        except InputError as error:
            raise ConversionError(f"a training row is no row of the model: {error}") from None


def _describe_features(model: ConvertedModel, rows: Sequence[Row]) -> dict[str, Any]:
    """Return the mean and the population standard deviation of each feature; 1 for a constant one."""
    encoder = model_encoder(model)
    # Differences from the first row keep the variance of large numbers exact, and that of constant ones 0.
    origin: Doubles | None = None
    sums, squares = np.zeros(encoder.n_columns), np.zeros(encoder.n_columns)
    for block in _encode_blocks(encoder, rows):
        X = block.to_matrix(encoder.n_columns)
        origin = X[0] if origin is None else origin
        sums += (X - origin).sum(axis=0)
        squares += ((X - origin) ** 2).sum(axis=0)
    shift = sums / len(rows)
    scale = np.sqrt(np.maximum(squares / len(rows) - shift**2, 0))
    scale[scale == 0] = 1
    return {"mean": (shift + (0 if origin is None else origin)).tolist(), "scale": scale.tolist()}
